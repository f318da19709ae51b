"""`roadfuse calibrate WHAT ...`: what drives teach about a model (ranges, confidence) or about a vehicle (rig)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Final, cast

from edge.errors import ConfigError

# Each is loaded only when asked for: `rig` needs OpenCV, `ranges` onnx, `confidence` an engine.
COMMANDS: Final = {
    "ranges": (
        "calibration.ranges_command",
        "activation ranges of a float model, from which every int8 engine is made",
    ),
    "confidence": ("calibration.confidence_command", "temperature, thresholds and guaranteed label sets of a bundle"),
    "rig": ("calibration.rig.command", "camera intrinsics, camera-LiDAR pose, clock offsets between sensors"),
}


def main(argv: list[str]) -> int:
    """Runs `calibrate WHAT`; see `roadfuse calibrate --help`.

    Raises:
        ConfigError: no such calibration.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        raise ConfigError(f"expected one of {', '.join(COMMANDS)}, got {name!r}")
    return _load(name)(rest)


def _load(name: str) -> Callable[[list[str]], int]:
    module, _ = COMMANDS[name]
    try:
        return cast(Callable[[list[str]], int], import_module(module).main)
    except ModuleNotFoundError as error:
        if error.name != module:  # a package that the module needs: `roadfuse` says which
            raise
        raise ConfigError(f"{name}: this installation has no {module}, which does it") from None


def _usage() -> str:
    lines = ["usage: roadfuse calibrate WHAT [options]", ""]
    lines += [f"  {name:<12} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join([*lines, "", "`roadfuse calibrate WHAT --help` says more."])
