"""`python -m cloud PART`: the process of one part, started by `cloud.parts` and by nobody else.

Settings come on standard input. Lines go to standard output: what the part tells, and `error WHY` if it can't start.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from cloud import parts
from cloud.limits import Limits
from cloud.processes import end_with
from cloud.settings import Settings
from edge.errors import RoadfuseError


def main(name: str) -> int:
    """Run a part until SIGTERM, or until its parent ends."""
    end_with(int(os.environ[parts.PARENT]))
    logging.basicConfig(level=logging.WARNING, format=parts.LOG_FORMAT.replace("%(name)s", f"[{name}] %(name)s"))
    try:
        parts.run(name, _read(sys.stdin.buffer.read()), lambda line: print(line, flush=True))
    except RoadfuseError as error:
        print(f"error {' '.join(str(error).split())}", flush=True)
        return parts.NOT_INSTALLED if isinstance(error, parts.NotInstalled) else 2
    return 0


def _read(content: bytes) -> Settings:
    values = json.loads(content)
    values |= {"data": Path(values["data"]), "limits": Limits(**values["limits"])}
    return Settings(**values | {name: tuple(values[name]) for name in ("search_ports", "encoders")})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
