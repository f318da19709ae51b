"""KITTI raw drive folder: colour camera and Velodyne with their calibration.

image_02 to /camera, velodyne_points to /lidar, P_rect to /camera/calibration, R and T to /tf. Stamps come from the
timestamps.txt files; a folder without them runs at KITTI's 10 Hz from 1 s on.

Ref: Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013; the raw data development kit.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
from foxglove_schemas_protobuf.Vector3_pb2 import Vector3
from numpy.typing import NDArray

from edge.drive import codec, topics
from edge.errors import SourceError
from edge.importers.recording import MAX_STAMP_NS, NS_PER_S, Event, Options, Recording, Skipped, events
from edge.samples import Frame, Sweep

CAMERA: Final = "image_02"
VELODYNE: Final = "velodyne_points"
TIMESTAMPS: Final = "timestamps.txt"
PERIOD_NS: Final = NS_PER_S // 10
_PICTURES: Final = (".png", ".jpg", ".jpeg")
_POINT_BYTES: Final = 16  # x, y, z, reflectance as float32


def open_recording(source: Path, options: Options) -> Recording:
    """Opens a drive folder.

    Raises:
        SourceError: neither pictures nor scans, files and timestamps that don't match, or a damaged calibration.
    """
    del options
    skipped, streams = Skipped(), list[Iterable[Event]]()
    pictures = _files(source, CAMERA, _PICTURES, skipped)
    scans = _files(source, VELODYNE, (".bin",), skipped)
    if not pictures and not scans:
        raise SourceError(f"{source}: expected pictures in {CAMERA}/data or scans in {VELODYNE}/data, got neither")
    found = {name: files for name, files in ((CAMERA, pictures), (VELODYNE, scans)) if files}
    stamped = all((source / name / TIMESTAMPS).is_file() for name in found)  # one clock: of all streams or of none
    stamps = {name: _stamps(source / name, files, stamped) for name, files in found.items()}
    first_ns = min(instants[0] for instants in stamps.values())
    calibration = _calibration(source)
    if calibration and pictures:
        streams.append(_calibration_events(source, calibration, first_ns, pictures[0]))
    if pictures:
        streams.append(events(topics.CAMERA, _frames(pictures, stamps[CAMERA])))
    if scans:
        streams.append(events(topics.LIDAR, _sweeps(scans, stamps[VELODYNE], skipped)))
    if not calibration:
        skipped.stream("calibration", "no calib.txt or calib_cam_to_cam.txt and calib_velo_to_cam.txt in the folder")
    for path in sorted(source.iterdir()):
        if path.is_dir() and path.name not in (CAMERA, VELODYNE):
            skipped.stream(path.name, "the importer takes the left colour camera and the Velodyne only")
    clock = "UTC of timestamps.txt" if stamped else "made up: 10 Hz from 1 s on"
    return Recording("kitti", streams, skipped, {"clock": clock, "arrival": "capture"})


def _files(source: Path, stream: str, suffixes: tuple[str, ...], skipped: Skipped) -> list[Path]:
    """The files of a stream in the order of their numbers; what else its folder holds is named."""
    folder = source / stream / "data"
    if not folder.is_dir():
        if folder.parent.is_dir():
            skipped.stream(stream, "no data folder in it")
        return []
    files, others = list[Path](), list[str]()
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes:
            files.append(path)
        else:
            others.append(path.name)
    if others:
        skipped.stream(f"{stream}/data", f"{len(others)} files end in none of {', '.join(suffixes)}, as {others[0]}")
    for path in files:
        if not path.stem.isdecimal():
            raise SourceError(f"{folder}: expected files named by their number, got {path.name}")
    return sorted(files, key=lambda path: int(path.stem))


def _stamps(folder: Path, files: list[Path], stamped: bool) -> list[int]:
    """One instant a file, ns; a file's number is its line in timestamps.txt."""
    numbers = [int(path.stem) for path in files]
    if any(after == before for before, after in pairwise(numbers)):
        raise SourceError(f"{folder}: expected one file a number, got two of one")
    listed = folder / TIMESTAMPS
    if not stamped:
        return [NS_PER_S + number * PERIOD_NS for number in numbers]
    lines = listed.read_text(errors="replace").split("\n")
    if numbers[-1] >= len(lines):
        raise SourceError(f"{listed}: expected {numbers[-1] + 1} lines, got {len(lines)}")
    stamps = [_instant(listed, lines[number]) for number in numbers]
    if any(after <= before for before, after in pairwise(stamps)):
        raise SourceError(f"{listed}: expected increasing timestamps, got one that is not later than the one before")
    return stamps


def _instant(listed: Path, line: str) -> int:
    """`2011-09-26 13:02:25.964389445` as ns since 1970."""
    whole, _, fraction = line.strip().partition(".")
    try:
        seconds = timegm(datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").timetuple())
        instant_ns = seconds * NS_PER_S + int(fraction.ljust(9, "0")[:9] or 0)
    except ValueError:
        raise SourceError(f"{listed}: expected YYYY-MM-DD HH:MM:SS.fraction, got {line[:40]!r}") from None
    if not 0 <= instant_ns < MAX_STAMP_NS:
        raise SourceError(f"{listed}: expected a year of 1970 to 2116, got {line[:40]!r}")
    return instant_ns


def _frames(files: list[Path], stamps: list[int]) -> Iterator[Frame]:
    for seq, (path, stamp_ns) in enumerate(zip(files, stamps)):
        yield Frame(stamp_ns, seq, _picture(path))


def _picture(path: Path) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # its header claims more pixels than OpenCV takes
        image = None
    if image is None:
        raise SourceError(f"{path}: expected a PNG or JPEG picture, got {path.stat().st_size} bytes that are none")
    return np.asarray(image, np.uint8)


def _sweeps(files: list[Path], stamps: list[int], skipped: Skipped) -> Iterator[Sweep]:
    for seq, (path, stamp_ns) in enumerate(zip(files, stamps)):
        content = path.read_bytes()
        if len(content) % _POINT_BYTES:
            raise SourceError(f"{path}: expected points of {_POINT_BYTES} bytes, got {len(content)} bytes")
        points = np.frombuffer(content, "<f4").reshape(-1, 4).astype(np.float32)
        sane = (np.abs(points) <= codec.MAX_MAGNITUDE).all(axis=1)  # NaN is not <= either
        skipped.count(VELODYNE, "a point is not finite, or beyond 1000 km", int((~sane).sum()))
        yield Sweep(stamp_ns, seq, points[sane])


def _calibration(source: Path) -> dict[str, NDArray[np.float64]]:
    """Named matrices of the drive's or the day's calibration files; empty without them."""
    found: dict[str, NDArray[np.float64]] = {}
    for folder in (source, source.resolve().parent):
        for name in ("calib.txt", "calib_cam_to_cam.txt", "calib_velo_to_cam.txt"):
            path = folder / name
            if path.is_file():
                found |= {key: value for key, value in _matrices(path).items() if key not in found}
        if found:
            return found
    return found


def _matrices(path: Path) -> dict[str, NDArray[np.float64]]:
    matrices = {}
    for line in path.read_text(errors="replace").splitlines():
        key, colon, numbers = line.partition(":")
        if colon and not key.startswith("#"):
            try:
                matrices[key.strip()] = np.array([float(number) for number in numbers.split()])
            except ValueError:
                continue  # calib_time and other text
    return matrices


def _calibration_events(
    source: Path, calibration: dict[str, NDArray[np.float64]], at_ns: int, picture: Path
) -> Iterator[Event]:
    """The camera's intrinsics and the pose of the LiDAR in the rectified camera, valid from the first instant on."""
    camera = "02" if "P_rect_02" in calibration else "00"
    shapes = {f"P_rect_{camera}": 12, "R_rect_00": 9, "R": 9, "T": 3}
    for key, size in shapes.items():
        got = len(calibration.get(key, ()))
        if got != size or not np.isfinite(calibration[key]).all():
            raise SourceError(f"{source}: expected {size} finite numbers of {key} in the calibration, got {got}")
    projection = calibration[f"P_rect_{camera}"].reshape(3, 4)
    if np.linalg.matrix_rank(projection[:, :3]) < 3:
        raise SourceError(f"{source}: expected a projection P_rect_{camera} of rank 3, got less")
    height, width = _picture(picture).shape[:2]
    stamp = codec.timestamp(at_ns)
    message = CameraCalibration(
        timestamp=stamp,
        frame_id="camera",
        width=width,
        height=height,
        K=projection[:, :3].reshape(-1).tolist(),
        R=np.eye(3).reshape(-1).tolist(),
        P=np.pad(projection[:, :3], ((0, 0), (0, 1))).reshape(-1).tolist(),
    )
    yield Event(topics.CALIBRATION, at_ns, at_ns, message)
    cam_SE3_lidar = camera_SE3_lidar(calibration, projection)
    x, y, z, w = quaternion(cam_SE3_lidar[:3, :3])
    tx, ty, tz = cam_SE3_lidar[:3, 3].tolist()
    transform = FrameTransform(
        timestamp=stamp,
        parent_frame_id="camera",
        child_frame_id="lidar",
        translation=Vector3(x=tx, y=ty, z=tz),
        rotation=Quaternion(x=x, y=y, z=z, w=w),
    )
    yield Event(topics.TRANSFORM, at_ns, at_ns, transform)


def camera_SE3_lidar(
    calibration: dict[str, NDArray[np.float64]], projection: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(4, 4) pose of the LiDAR in the rectified camera (x right, y down, z ahead; m).

    P_rect = K [I | b]: camera 2 sits at -b of camera 0, so b is added here and the projection then needs K alone.
    """
    rectified = np.eye(4)
    rectified[:3, :3] = calibration["R_rect_00"].reshape(3, 3)
    reference_SE3_lidar = np.eye(4)
    reference_SE3_lidar[:3, :3] = calibration["R"].reshape(3, 3)
    reference_SE3_lidar[:3, 3] = calibration["T"]
    pose: NDArray[np.float64] = rectified @ reference_SE3_lidar
    pose[:3, 3] += np.linalg.solve(projection[:, :3], projection[:, 3])
    return pose


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a rotation matrix.

    Ref: Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000.
    """
    m = rotation
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    vector = np.linalg.eigh(k / 3, UPLO="L")[1][:, -1]
    x, y, z, w = (vector * (1.0 if vector[3] >= 0 else -1.0)).tolist()
    return x, y, z, w
