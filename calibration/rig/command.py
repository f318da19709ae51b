"""`roadfuse calibrate rig WHAT ...`: the camera's lens, the LiDAR's pose in the camera, the sensors' clocks."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

from edge.errors import ConfigError

COMMANDS: Final = {
    "camera": "intrinsics from pictures of a chessboard",
    "lidar": "pose of the LiDAR in the camera, refined on a drive",
    "clocks": "clock offsets between the sensors of a drive",
}


def main(argv: list[str]) -> int:
    """Runs `calibrate rig WHAT`.

    Raises:
        ConfigError: no such part of a rig.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<8} {summary}" for name, summary in COMMANDS.items()]
        usage = "\n".join(["usage: roadfuse calibrate rig WHAT [options]", "", *lines])
        print(usage, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        raise ConfigError(f"rig: expected one of {', '.join(COMMANDS)}, got {name!r}")
    return int(import_module(f"calibration.rig.{name}").main(rest))
