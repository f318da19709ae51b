"""`roadfuse calibrate rig clocks`: how far the sensors' clocks are apart, from the motion that they share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2

from calibration.rig.correlate import HIGH_PASS_S, Offset, Series, find_offset
from calibration.rig.rig_file import write_part
from calibration.rig.signals import Signals, derivative, read_signals
from edge.drive.reader import DriveReader
from edge.durable import refuse_output
from edge.errors import DriveFormatError

SPEED_S: Final = 10.0  # speed changes more slowly than all else


def main(argv: list[str]) -> int:
    """Runs the command; 1 where no pair of sensors could be compared.

    Raises:
        DriveFormatError: the drive has no two streams that share a motion.
    """
    options = _parser().parse_args(argv)
    refuse_output(options.out, options.drive)
    cv2.setNumThreads(1)
    with DriveReader(options.drive) as drive:
        offsets = clock_offsets(read_signals(drive))
    if not offsets:
        raise DriveFormatError(f"{options.drive}: expected two of camera, audio, imu, vehicle, gnss, got fewer")
    result = {name: _entry(offset) for name, offset in offsets.items()}
    write_part(options.out, "clocks", "roadfuse calibrate rig clocks", [options.drive], result)
    print(json.dumps(result) if options.json else _report(options.out, result))
    return 0 if any(offset.offset_s is not None for offset in offsets.values()) else 1


def clock_offsets(signals: Signals) -> dict[str, Offset]:
    """Offset by pair "FIRST-SECOND (what)": positive where the second's stamps are later for the same event."""
    imu, vehicle, gnss, camera, audio = signals.imu, signals.vehicle, signals.gnss, signals.camera, signals.audio
    gyro = [imu[name] for name in ("gyro_x", "gyro_y", "gyro_z") if name in imu]
    accel = [imu[name] for name in ("accel_x", "accel_y", "accel_z") if name in imu]
    turning = vehicle.get("yaw_rate", vehicle.get("steering"))
    found = {
        "imu-camera (turning)": _best(gyro, *(camera[name] for name in ("turn_x", "turn_y") if name in camera)),
        "imu-vehicle (turning)": _best(gyro, turning),
        "imu-vehicle (accelerating)": _best(accel, derivative(vehicle["speed"]) if "speed" in vehicle else None),
        "vehicle-gnss (speed)": _best(
            [vehicle[n] for n in ("speed",) if n in vehicle], gnss.get("speed"), signed=True, high_pass_s=SPEED_S
        ),
        "camera-audio (events)": _best(
            [camera[n] for n in ("change",) if n in camera], audio.get("onset"), signed=True
        ),
    }
    return {name: offset for name, offset in found.items() if offset is not None}


def _best(
    references: Sequence[Series], *others: Series | None, signed: bool = False, high_pass_s: float = HIGH_PASS_S
) -> Offset | None:
    """The offset between the two axes that show most of the same motion; None where a stream is not there."""
    pairs = [(axis, other) for axis in references for other in others if other is not None]
    if not pairs:
        return None
    tried = [
        find_offset(axis, other, signed=signed, tried=len(pairs), high_pass_s=high_pass_s) for axis, other in pairs
    ]
    return max(tried, key=lambda offset: (offset.offset_s is not None, offset.correlation))


def _entry(offset: Offset) -> dict[str, Any]:
    return {
        "offset_ms": None if offset.offset_s is None else round(1000.0 * offset.offset_s, 2),
        "std_ms": None if offset.std_s is None else round(1000.0 * offset.std_s, 2),
        "correlation": offset.correlation,
        "false_alarm": float(f"{offset.false_alarm:.2g}"),
        "not_identifiable": offset.reason,
    }


def _report(out: Path, result: dict[str, Any]) -> str:
    lines = []
    for name, entry in result.items():
        if entry["offset_ms"] is None:
            lines.append(f"{name:<27} not identifiable: {entry['not_identifiable']}")
        else:
            lines.append(
                f"{name:<27} {entry['offset_ms']:+8.1f} ms +- {entry['std_ms']:.1f}   "
                f"(correlation {entry['correlation']:.2f})"
            )
    return "\n".join([*lines, f"written {out}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse calibrate rig clocks",
        description="Clock offsets between the sensors of a drive: positive where the second's stamps are later.",
        epilog="exit code: 0 fine, 1 no offset could be told, 2 unusable input",
    )
    parser.add_argument("--drive", type=Path, required=True, help="MCAP drive")
    parser.add_argument("--out", type=Path, required=True, help="the rig file to write or complete, .json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
