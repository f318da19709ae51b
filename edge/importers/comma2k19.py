"""comma2k19 segment folder: CAN to /can and, decoded, to /vehicle; IMU and u-blox GNSS; pictures where they are.

Every array is a .npy file without an extension; stamps are seconds of the device's boot clock, one clock for all. IMU
axes are forward, right, down and become forward, left, up. CAN payloads have no length in the set: all are 8 bytes,
padded with zeros. The set knows no arrivals.

Ref: https://github.com/commaai/comma2k19 (README, "Log Format").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.drive import topics
from edge.errors import SourceError
from edge.importers import dbc, media
from edge.importers.recording import Event, Options, Recording, Skipped, events, seconds_to_ns
from edge.samples import Frame, GnssFix, ImuSample

CAN: Final = "processed_log/CAN/raw_can"
IMU: Final = "processed_log/IMU"
ACCEL: Final = f"{IMU}/accelerometer"
GYRO: Final = f"{IMU}/gyro"
GNSS: Final = "processed_log/GNSS/live_gnss_ublox"
FRAME_TIMES: Final = "global_pose/frame_times"
VIDEO: Final = "video.hevc"
VEHICLE_BUS: Final = 0
PAYLOAD_BYTES: Final = 8
MAX_BUS: Final = 255
MAX_ID: Final = 0x1FFFFFFF
_NO_TOPIC: Final = "a drive has no topic for it"
_OF_CAN: Final = tuple(f"processed_log/CAN/{name}" for name in ("speed", "wheel_speed", "steering_angle", "car_speed"))
# What the set holds besides, and why a drive does without.
_REASONS: Final = {
    **dict.fromkeys(_OF_CAN, "derived from CAN; /vehicle has it"),
    "processed_log/GNSS/live_gnss_qcom": "a drive has one GNSS stream and u-blox is the faster receiver",
    "processed_log/GNSS/raw_gnss_qcom": "satellite ranges have no topic in a drive",
    "processed_log/GNSS/raw_gnss_ublox": "satellite ranges have no topic in a drive",
    "processed_log/IMU/gyro_bias": "taken off the gyro by the set",
    "processed_log/IMU/gyro_uncalibrated": "/imu has the calibrated gyro",
    "global_pose": "reference poses of the camera are no sensor",
}


def open_recording(source: Path, options: Options) -> Recording:
    """Opens a segment folder.

    Raises:
        SourceError: an array is missing, damaged or of another shape, or the CAN log comes without a DBC.
    """
    skipped, streams, used = Skipped(), list[Iterable[Event]](), set[str]()
    has_can = (source / CAN).is_dir()
    if has_can:
        used.add(CAN)
        streams.append(_can(source, options.dbc, skipped))
    if (source / ACCEL).is_dir() and (source / GYRO).is_dir():
        used |= {ACCEL, GYRO}
        streams.append(events(topics.IMU, _imu(source, skipped)))
    if (source / GNSS).is_dir():
        used.add(GNSS)
        streams.append(events(topics.GNSS, _gnss(source, skipped)))
    timed = (source / FRAME_TIMES).is_file()
    if not (source / VIDEO).is_file():
        instants = f"; global_pose has the instants of {len(_array(source / FRAME_TIMES))} pictures" if timed else ""
        skipped.stream("camera", f"no {VIDEO} in the folder{instants}")
    elif timed:
        streams.append(events(topics.CAMERA, _frames(source, skipped)))
    else:
        skipped.stream("camera", f"no {FRAME_TIMES} in the folder says when the pictures of {VIDEO} were taken")
    folders = {path.parent.relative_to(source).as_posix() for path in sorted(source.glob("processed_log/*/*/t"))}
    for name in sorted((folders | {"global_pose"} if (source / "global_pose").is_dir() else folders) - used):
        without_can = name in _OF_CAN and not has_can
        reason = f"derived from CAN, and no {CAN} is in the folder" if without_can else _REASONS.get(name, _NO_TOPIC)
        skipped.stream(name, reason)
    return Recording("comma2k19", streams, skipped, {"clock": "device boot time", "arrival": "capture"})


def _array(path: Path, columns: int | None = None, kinds: str = "iuf") -> NDArray[Any]:
    """An array of the set: numbers (or of the NumPy `kinds`); `columns` of a table that must have at least so many."""
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # damaged headers are parsed as Python and raise whatever that leads to
        got = str(error).partition("\n")[0][:120]
        raise SourceError(f"{path}: expected a NumPy array, got: {got}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        raise SourceError(f"{path}: expected an array of kind {kinds}, got {getattr(array, 'dtype', 'an archive')}")
    if array.ndim != (1 if columns is None else 2) or (columns is not None and array.shape[1] < columns):
        raise SourceError(f"{path}: expected {columns or 'no'} columns, got shape {array.shape}")
    return array


def _table(source: Path, name: str, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Instants (s) and rows of one log."""
    stamps_s, rows = _array(source / name / "t"), _array(source / name / "value", columns)
    if len(stamps_s) != len(rows):
        raise SourceError(f"{source / name}: expected as many stamps as rows, got {len(stamps_s)} and {len(rows)}")
    return stamps_s.astype(np.float64), rows[:, :columns].astype(np.float64)


def _in_order(
    name: str, stamps_s: NDArray[np.float64], rows: NDArray[np.float64], skipped: Skipped
) -> tuple[list[int], NDArray[np.float64]]:
    """Instants (ns) and rows by time, without those that are not finite."""
    good = np.isfinite(stamps_s) & np.isfinite(rows).all(axis=1)
    skipped.count(name, "a value is not finite", int((~good).sum()))
    order = np.argsort(stamps_s[good], kind="stable")
    return [seconds_to_ns(stamp) for stamp in stamps_s[good][order].tolist()], rows[good][order]


def _can(source: Path, dbc_files: tuple[Path, ...], skipped: Skipped) -> Iterator[Event]:
    """Raw frames in bus order and what the DBC makes of those on the vehicle's bus."""
    files = dbc_files or tuple(sorted((source / "dbc").glob("*.dbc")))
    if not files:
        raise SourceError(f"{source}: expected a DBC for its CAN log (--dbc FILE, or FILE in dbc/), got none")
    stamps_s = _array(source / CAN / "t")
    buses, ids = (_array(source / CAN / name, kinds="iu") for name in ("src", "address"))
    payloads = _array(source / CAN / "data", kinds="S")
    lengths = {len(stamps_s), len(buses), len(ids), len(payloads)}
    if len(lengths) != 1 or payloads.dtype.itemsize != PAYLOAD_BYTES:
        raise SourceError(
            f"{source / CAN}: expected t, src, address and data (8 bytes each) of one length, "
            f"got lengths {sorted(lengths)} and data of type {payloads.dtype}"
        )
    if len(ids) and not (ids.min() >= 0 and ids.max() <= MAX_ID and buses.min() >= 0 and buses.max() <= MAX_BUS):
        raise SourceError(
            f"{source / CAN}: expected buses of 0..{MAX_BUS} and ids of 0..{MAX_ID:#x}, "
            f"got {buses.min()}..{buses.max()} and {ids.min()}..{ids.max()}"
        )
    keys = np.unique(np.stack([buses.astype(np.int64), ids.astype(np.int64)]), axis=1).T.tolist()
    present = [(bus, can_id, can_id > 0x7FF) for bus, can_id in keys]
    decoder = dbc.Decoder(dbc.load(files), present, skipped, bus=VEHICLE_BUS)
    order = np.argsort(stamps_s, kind="stable")

    def read() -> Iterator[Event]:
        for at in order.tolist():
            can_id = int(ids[at])
            payload = bytes(payloads[at]).ljust(PAYLOAD_BYTES, b"\0")  # NumPy strips trailing zeros
            yield from decoder.feed(
                seconds_to_ns(float(stamps_s[at])), (int(buses[at]), can_id, can_id > 0x7FF), payload
            )

    return read()


def _imu(source: Path, skipped: Skipped) -> Iterator[ImuSample]:
    stamps_s, accel = _table(source, ACCEL, 3)
    gyro_stamps_s, gyro = _table(source, GYRO, 3)
    if not np.array_equal(stamps_s, gyro_stamps_s, equal_nan=True):
        raise SourceError(f"{source}: expected accelerometer and gyro at the same instants, got different ones")
    stamps, rows = _in_order(IMU, stamps_s, np.hstack([accel, gyro]), skipped)
    for seq, (stamp_ns, (ax, ay, az, gx, gy, gz)) in enumerate(zip(stamps, rows.tolist())):
        yield ImuSample(stamp_ns, seq, (ax, -ay, -az), (gx, -gy, -gz))


def _gnss(source: Path, skipped: Skipped) -> Iterator[GnssFix]:
    """Columns: latitude, longitude (deg), speed (m/s), UTC, altitude (m), bearing (deg from north)."""
    stamps, rows = _in_order(GNSS, *_table(source, GNSS, 6), skipped)
    bearings = np.radians(rows[:, 5])
    east_mps, north_mps = rows[:, 2] * np.sin(bearings), rows[:, 2] * np.cos(bearings)
    for seq, (stamp_ns, row, east, north) in enumerate(
        zip(stamps, rows.tolist(), east_mps.tolist(), north_mps.tolist())
    ):
        yield GnssFix(stamp_ns, seq, row[0], row[1], row[4], (east, north, 0.0))


def _frames(source: Path, skipped: Skipped) -> Iterator[Frame]:
    """The pictures of the whole set's segments, each at its instant of global_pose."""
    stamps = [seconds_to_ns(float(stamp)) for stamp in _array(source / FRAME_TIMES)]
    seq = 0
    with media.opened(source / VIDEO) as container:
        for picture in container.decode(video=0):
            if seq >= len(stamps):
                skipped.count(VIDEO, f"more pictures than the {len(stamps)} instants")
                continue
            yield Frame(stamps[seq], seq, picture.to_ndarray(format="bgr24"))
            seq += 1
    skipped.count(VIDEO, "an instant without a picture", len(stamps) - seq)
