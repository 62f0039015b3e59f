from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.strictjson import decode_untrusted_json, encode_json
from meshsync.errors import LocalError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":NaN}', "line 7: a: NaN is not JSON"),
        (b"[-Infinity]", "[0]: -Infinity is not JSON"),
        (b'{"a":{"b":[1,2,{"c":1e999}]}}', "a.b[2].c: 1e999 is beyond"),
        (b'{"a":1,"a":2}', "a: this key stands twice"),
        (b'{"a":1,"b":{"c":1,"d":2,"c":3}}', "b.c: this key stands twice"),
        (b'{"a":"\\ud800"}', "a: half a surrogate pair"),
        (b'{"\\ud800":1}', "half a surrogate pair in the key \\ud800"),
        ('{"a":"\ud800"}', "a: half a surrogate pair"),
        (b'{"a":"\xff"}', "line 7 is not UTF-8: byte 7 cannot be read"),
        (b'{"a":}', "line 7: not JSON: expecting value (column 6)"),
        (b'{"a":\n}', "(line 2 column 1)"),
        (b"", "not JSON"),
        (b"[1] x", "not JSON: extra data (column 5)"),
        (b"9223372036854775808", "9223372036854775808 does not fit 64 bits"),
        (b"-9223372036854775809", "does not fit 64 bits"),
        (b"1" * 100_000, "does not fit 64 bits"),
        (b"[" * 17 + b"]" * 17, "nested deeper than 16 levels"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "nested deeper than 16 levels"),
        (b"[" * 100_000, "nested deeper than 16 levels"),
    ],
)
def test_what_a_node_cannot_hold_is_refused_with_its_place(text: bytes | str, expected: str) -> None:
    """Python's own reader takes all of these, and the peers would not."""
    with pytest.raises(LocalError) as caught:
        decode_untrusted_json(text, "line 7")
    assert expected in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b'"\\ud83d\\ude00"', "😀"),
        (b"\xef\xbb\xbf{}", {}),
        (b'{"a":[true,null,1.5]}', {"a": [True, None, 1.5]}),
        (b"[" * 16 + b"]" * 16, [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]),
    ],
)
def test_the_last_value_inside_of_each_bound_is_read(text: bytes, expected: Any) -> None:
    """A bound that is off by one refuses what peers may send."""
    assert decode_untrusted_json(text) == expected


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(documents)
def test_documents_come_back_as_they_were(value: Any) -> None:
    """A document would change between `dump` and `load`."""
    assert decode_untrusted_json(encode_json(value)) == value
    assert decode_untrusted_json(json.dumps(value)) == value


@given(st.binary() | st.text(st.characters()))
def test_any_input_is_read_or_a_local_error(data: bytes | str) -> None:
    """Input from outside must raise nothing else."""
    try:
        decode_untrusted_json(data)
    except LocalError as error:
        str(error).encode()
