"""Writes every file of golden vectors into a directory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vectors.accepted import documents, entries, keys, messages, names, policies, roots, summaries
from vectors.refused import refused_batches, refused_frames, refused_keys, refused_payloads
from vectors.refused_summaries import refused_summaries

FILES = {
    "keys": keys,
    "collections": names,
    "entries": entries,
    "messages": messages,
    "roots": roots,
    "documents": documents,
    "policies": policies,
    "summaries": summaries,
    "refused-keys": refused_keys,
    "refused-frames": refused_frames,
    "refused-payloads": refused_payloads,
    "refused-batches": refused_batches,
    "refused-summaries": refused_summaries,
}


def main() -> None:
    """Write the files into the directory that is named on the command line."""
    directory = Path(sys.argv[1])
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1, ensure_ascii=True)
        (directory / f"{name}.json").write_text(text + "\n")
        print(f"{name}.json")


if __name__ == "__main__":
    main()
