"""Print the JSON Schema of a configuration file: `python -m meshsync.config > meshsync/config.schema.json`."""

from __future__ import annotations

import json
import sys

from meshsync.config.models import json_schema

sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
