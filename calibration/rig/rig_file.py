"""The rig file: what was measured of a vehicle's sensors, by which command, from which recordings. JSON:

    {"format": 1,
     "parts": {"camera": {"command": "...", "sources": {"PATH": "SHA-256"}, "measured": {...}},
               "lidar": {...}, "clocks": {...}}}

A path is as it was given: pictures of different folders may share a name. Each `roadfuse calibrate rig` command writes
its own part and keeps the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from calibration.labels import file_sha256
from edge.errors import ConfigError

FORMAT: Final = 1
PARTS: Final = ("camera", "lidar", "clocks")


def read_rig(path: Path) -> dict[str, dict[str, Any]]:
    """Part -> its entry.

    Raises:
        ConfigError: no rig file.
    """
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ConfigError(f"{path}: expected format {FORMAT}, got {content['format']!r}")
        parts: dict[str, dict[str, Any]] = dict(content["parts"])
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise ConfigError(f"{path}: expected parts of {', '.join(PARTS)}, got {', '.join(unknown)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a rig file ({type(error).__name__}: {error})") from None
    return parts


def write_part(path: Path, part: str, command: str, sources: Iterable[Path], measured: dict[str, Any]) -> None:
    """Writes one part beside those that the file already has.

    Raises:
        ConfigError: the file is there and is no rig file.
    """
    parts = read_rig(path) if path.exists() else {}
    digests = {str(source): file_sha256(source) for source in sources}
    parts[part] = {"command": command, "sources": digests, "measured": measured}
    path.write_text(json.dumps({"format": FORMAT, "parts": parts}, indent=1, sort_keys=True) + "\n")
