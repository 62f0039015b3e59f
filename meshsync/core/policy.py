"""Policies: what a document shows where writes that did not know of each other say different things of a field.

    latest      the greatest stamp, which is the latest clock; the default
    greatest    the greatest value
    least       the least value
    manual      all the values, in a fixed form, until someone who saw them writes the field

The policy of a collection is part of its identity: its id is the hash of both name and policy (`collection_id`).  What
a document shows then is a function of the id and the entries, and two nodes that hold the same set of the same
collection cannot differ in it.  Nodes that are configured with different policies hold different collections: nothing
of the one is ever merged by the rules of the other, and as each can work out the ids that the name has under the
other policies, they notice on their first connection, and say so.  Rejected: a setting of each node, under which equal
roots would no longer mean equal documents; and an entry that sets the policy, because there may be two that do not
know of each other, and because every document would change with the arrival of one.

Values have one order across kinds: null, false, true, numbers by value, strings by code point, arrays by their
items, objects by their names in order, each with its value.  Of equal numbers the integer is the lesser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from meshsync.core import cbor
from meshsync.core.naming import named_choice
from meshsync.errors import LocalError
from meshsync.ids import CollectionId

UNDECIDED = "$conflict"
"""Under `manual` a field that nobody has decided is {"$conflict": [the values, each once, in their order]}."""


class Policy(Enum):
    """How a collection decides between writes that did not know of each other."""

    LATEST = "latest"
    GREATEST = "greatest"
    LEAST = "least"
    MANUAL = "manual"

    @classmethod
    def of(cls, policy: Policy | str) -> Policy:
        """A policy as callers give it: as such, or its name.  LocalError: there is none such."""
        return named_choice(cls, policy, "policy for conflicts")

    @property
    def keeps_all(self) -> bool:
        """Whether all that was written unseen is kept, and not only what has the greatest stamp."""
        return self is not Policy.LATEST

    def check_decided(self, id: str, body: Mapping[str, Any] | None) -> None:
        """LocalError: a local caller would write what stands for a decision that is yet to be made, as read."""
        if self is not Policy.MANUAL:
            return
        for name, value in (body or {}).items():
            if isinstance(value, dict) and value.keys() == {UNDECIDED}:
                raise LocalError(
                    f"document {id!r:.80}: {name!r:.80} still holds all the values that nobody decided between;"
                    " write the one that it is to have, or leave it out of a patch"
                )

    def choose(self, values: Iterable[Any]) -> Any:
        """What a field is whose sides are these values, of which there is at least one."""
        ordered = sorted(values, key=value_key)
        if self is Policy.LEAST:
            return ordered[0]
        if self is Policy.GREATEST:
            return ordered[-1]
        different = {cbor.encode(value): value for value in ordered}
        return ordered[0] if len(different) == 1 else {UNDECIDED: list(different.values())}


def value_key(value: Any) -> tuple[Any, ...]:
    """The place of a value in the order of all values: equal for equal documents only."""
    return _key(value), cbor.encode(value)


def _key(value: Any) -> tuple[Any, ...]:
    match value:
        case None:
            return (0,)
        case bool():
            return (1, value)
        case int() | float():
            return (2, value)
        case str():
            return (3, value)
        case list():
            return (4, [_key(item) for item in value])
        case _:
            return (5, [(name, _key(item)) for name, item in sorted(value.items())])


def collection_id(name: str, policy: Policy) -> CollectionId:
    """The id of the open collection of this name that decides so."""
    return CollectionId.of_name(name, policy.value if policy.keeps_all else "")


def policy_of(id: CollectionId, name: str) -> Policy:
    """How the collection of this id and name decides; `latest` where the name is not known."""
    return next((policy for policy in Policy if name and collection_id(name, policy) == id), Policy.LATEST)
