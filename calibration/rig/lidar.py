"""`roadfuse calibrate rig lidar`: the LiDAR's pose in the camera, refined on drives."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.rig.edges import range_edges
from calibration.rig.extrinsics import NAMES, Alignment, Pair, planted
from calibration.rig.poses import F64, Geometry, difference, parse_guess, quaternion_of, read_geometry
from calibration.rig.rig_file import write_part
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.durable import refuse_output
from edge.errors import ConfigError, DriveFormatError
from edge.samples import Frame, Sweep

NEAREST_NS: Final = 30_000_000  # a picture and a sweep further apart show another place


def main(argv: list[str]) -> int:
    """Runs the command.

    Raises:
        DriveFormatError: a drive without pictures, sweeps, intrinsics or poses.
        ConfigError: too few edges, or drives of different rigs.
    """
    options = _parser().parse_args(argv)
    for name, least in (("frames", 1), ("plant", 0), ("seed", 0)):
        if (count := getattr(options, name)) < least:
            raise ConfigError(f"--{name}: expected at least {least}, got {count}")
    for out in (options.out, options.plot):
        refuse_output(out, *options.drive)
    if options.plot is not None and not cv2.haveImageWriter(str(options.plot)):
        raise ConfigError(f"--plot: expected the name of a picture, as .png or .jpg, got {options.plot}")
    cv2.setNumThreads(1)
    geometry, frames = _read(options.drive, options.frames)
    guess = geometry.camera_SE3_lidar if options.guess is None else parse_guess(options.guess)
    alignment = Alignment(frames, geometry.matrix)
    result = {"parent_frame_id": geometry.frame_id, "child_frame_id": "lidar", **_measured(alignment, guess)}
    if options.plant:
        result["planted"] = _planted(alignment, geometry.camera_SE3_lidar, options.plant, options.seed)
    command = f"roadfuse calibrate rig lidar --frames {options.frames}"
    command += f" --plant {options.plant}" if options.plant else ""
    command += f" --guess={options.guess}" if options.guess else ""
    write_part(options.out, "lidar", command, options.drive, result)
    if options.plot is not None:
        _draw(options.plot, frames[0], geometry.matrix, [guess, np.array(result["camera_SE3_lidar"]).reshape(4, 4)])
    print(json.dumps(result) if options.json else _report(options.out, result))
    return 0


def _read(paths: list[Path], count: int) -> tuple[Geometry, list[Pair]]:
    """The rig and `count` frames, evenly from all drives."""
    geometry: Geometry | None = None
    frames: list[Pair] = []
    for i, path in enumerate(paths):
        with DriveReader(path) as drive:
            own = read_geometry(drive)
            if geometry is not None and not (
                np.allclose(own.matrix, geometry.matrix)
                and np.allclose(own.camera_SE3_lidar, geometry.camera_SE3_lidar)
            ):
                raise ConfigError(f"{path}: expected the rig of {paths[0]}, got another one")
            geometry = own
            share = (count * (i + 1)) // len(paths) - (count * i) // len(paths)
            frames += _frames(drive, own, share)
    assert geometry is not None
    return geometry, frames


def _frames(drive: DriveReader, geometry: Geometry, count: int) -> list[Pair]:
    pictures = np.array([message.capture_ns for message in drive.messages(topics=[topics.CAMERA])], np.int64)
    sweeps = np.array([message.capture_ns for message in drive.messages(topics=[topics.LIDAR])], np.int64)
    if not len(pictures) or not len(sweeps):
        raise DriveFormatError(f"{drive.path}: expected {topics.CAMERA} and {topics.LIDAR}, got one of them at most")
    nearest = _nearest(sweeps, np.unique(pictures))
    paired = np.flatnonzero(np.abs(nearest - sweeps) <= NEAREST_NS)
    if not len(paired):
        raise DriveFormatError(
            f"{drive.path}: expected a picture within {NEAREST_NS // 1_000_000} ms of a sweep, got none"
        )
    chosen = paired[np.unique(np.linspace(0, len(paired) - 1, min(count, len(paired))).round().astype(int))]
    wanted = {topics.CAMERA: set(nearest[chosen].tolist()), topics.LIDAR: set(sweeps[chosen].tolist())}
    grey: dict[int, NDArray[np.uint8]] = {}
    edges = {}
    for message in drive.messages(topics=list(wanted)):
        if message.capture_ns not in wanted[message.topic]:
            continue
        sample = codec.decode(message.topic, message.payload, message.sequence)
        if isinstance(sample, Sweep):
            edges[message.capture_ns] = range_edges(drive.path, sample.points_lidar)
        elif isinstance(sample, Frame) and sample.image is not None:
            height, width = sample.image.shape[:2]
            if (width, height) != geometry.size_px:  # another mode of the camera has another lens
                expected = "x".join(map(str, geometry.size_px))
                raise DriveFormatError(
                    f"{drive.path}: expected pictures of {expected} px, as calibrated, got {width}x{height}"
                )
            grey[message.capture_ns] = _grey(sample.image, geometry)
    return [
        Pair(edges[sweep], grey[picture]) for sweep, picture in zip(sweeps[chosen].tolist(), nearest[chosen].tolist())
    ]


def _nearest(stamps: NDArray[np.int64], sorted_stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of `sorted_stamps`, the one nearest to each of `stamps`; of two as near the earlier one."""
    after = np.searchsorted(sorted_stamps, stamps).clip(max=len(sorted_stamps) - 1)
    earlier, later = sorted_stamps[np.maximum(after - 1, 0)], sorted_stamps[after]
    nearest: NDArray[np.int64] = np.where(np.abs(stamps - earlier) <= np.abs(later - stamps), earlier, later)
    return nearest


def _grey(image: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if len(geometry.distortion):
        grey = cv2.undistort(grey, geometry.matrix, geometry.distortion)
    return np.asarray(grey, np.uint8)


def _measured(alignment: Alignment, guess: F64) -> dict[str, Any]:
    refined = alignment.refine(guess)
    turn_deg, shift_cm = difference(refined.camera_SE3_lidar, guess)
    moved = dict(zip(NAMES, [*turn_deg.tolist(), *shift_cm.tolist()]))
    pose = refined.camera_SE3_lidar
    return {
        "camera_SE3_lidar": pose.reshape(-1).tolist(),
        "translation_m": pose[:3, 3].tolist(),
        "rotation_xyzw": list(quaternion_of(pose[:3, :3])),
        "frames": alignment.count,
        "from_guess": {
            name: {"value": round(value, 3), "std": round(refined.uncertainty[name], 3)}
            if np.isfinite(refined.uncertainty[name])
            else {"value": round(value, 3), "std": None}
            for name, value in moved.items()
        },
        "not_observable": refined.unobservable,
        "score": [round(score, 4) for score in refined.score],
    }


def _planted(alignment: Alignment, truth: F64, count: int, seed: int) -> dict[str, Any]:
    """Errors before and after, against the drive's own pose; [median, 90th percentile]."""
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(count):
        wrong = planted(truth, rng)
        pairs = [difference(pose, truth) for pose in (wrong, alignment.search(wrong))]
        errors.append([float(np.linalg.norm(part)) for pair in pairs for part in pair])
    middle, high = np.median(errors, axis=0), np.percentile(errors, 90, axis=0)
    names = ("before_deg", "before_cm", "after_deg", "after_cm")
    figures = {name: [round(a, 3), round(b, 3)] for name, a, b in zip(names, middle.tolist(), high.tolist())}
    return {"count": count, **figures}


def _report(out: Path, result: dict[str, Any]) -> str:
    lines = [f"{result['frames']} frames, score {result['score'][0]:.3f} -> {result['score'][1]:.3f}; from the guess:"]
    for name, entry in result["from_guess"].items():
        sure = "one frame tells nothing of it" if entry["std"] is None else f"+- {entry['std']:.2f}"
        note = "   not observable from these frames" if name in result["not_observable"] else ""
        lines.append(f"  {name:<7} {entry['value']:+8.3f} {sure}{note}")
    if "planted" in result:
        planting = result["planted"]
        lines.append(f"planted {planting['count']} errors; median (90th percentile) against the drive's own pose:")
        for unit in ("deg", "cm"):
            before, after = planting[f"before_{unit}"], planting[f"after_{unit}"]
            lines.append(f"  {before[0]:.2f} ({before[1]:.2f}) {unit} -> {after[0]:.2f} ({after[1]:.2f}) {unit}")
    return "\n".join([*lines, f"written {out}"])


def _draw(path: Path, frame: Pair, matrix: F64, poses: list[F64]) -> None:
    """The first picture with the range edges as guessed (above) and as found (below)."""
    rows = []
    for pose in poses:
        row = cv2.cvtColor(frame.picture, cv2.COLOR_GRAY2BGR)
        for (points, _), color in zip(frame.edges, ((80, 200, 255), (255, 160, 80))):
            camera = points @ pose[:3, :3].T + pose[:3, 3]
            pixels = camera[camera[:, 2] > 1.0] @ matrix.T
            for x, y in (pixels[:, :2] / pixels[:, 2:]).round().astype(int).tolist():
                if 0 <= x < row.shape[1] and 0 <= y < row.shape[0]:
                    cv2.circle(row, (x, y), 1, color, -1)
        rows.append(row)
    if not cv2.imwrite(str(path), np.concatenate(rows)):
        raise ConfigError(f"--plot: expected a place for a picture, got {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse calibrate rig lidar",
        description="Refine the LiDAR's pose in the camera: range edges must fall on picture edges.",
    )
    parser.add_argument("--drive", type=Path, nargs="+", required=True, help="MCAP drives of one rig")
    parser.add_argument("--frames", type=int, default=40, help="pairs of picture and sweep to use (default 40)")
    parser.add_argument("--guess", metavar="X,Y,Z,RX,RY,RZ", help="pose to begin with: m, deg (default: the drive's)")
    parser.add_argument("--plant", type=int, default=0, metavar="N", help="also plant N errors and say what is left")
    parser.add_argument("--seed", type=int, default=0, help="of the planted errors (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="the rig file to write or complete, .json")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw the edges on the first picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
