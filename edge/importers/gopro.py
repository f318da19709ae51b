"""GoPro MP4: pictures, sound, and the telemetry's ACCL + GYRO to /imu and GPS5 or GPS9 to /gnss, on one media clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.drive import topics
from edge.errors import SourceError
from edge.importers import gpmf, gpmf_tracks, media, video
from edge.importers.recording import Options, Recording, Skipped, events
from edge.samples import GnssFix, ImuSample

_FIRST_KEY: Final = b"DEVC"  # what every GPMF packet begins with
# Position streams and their channels, the better one first; newer cameras write both.
_POSITIONS: Final = {b"GPS9": 9, b"GPS5": 5}
_NO_TOPIC: Final = "a drive has no topic for it"
_REASONS: Final = {
    b"ACCL": "no gyro comes with it",
    b"GYRO": "no accelerometer comes with it",
    b"GPS5": "the same positions as GPS9",
}
_NO_FIX: Final = 0  # GPSF, and the last channel of GPS9


def telemetry_track(source: Path) -> int | None:
    """Index of the GPMF track of a media file, None if there is none."""
    with media.opened(source) as container:
        candidates = [stream.index for stream in container.streams if stream.type == "data"]
    for index in candidates:
        with media.opened(source) as container:
            packet = next(iter(container.demux(container.streams[index])), None)
            if packet is not None and bytes(packet)[:4] == _FIRST_KEY:
                return int(index)
    return None


def open_recording(source: Path, options: Options) -> Recording:
    """Opens a GoPro file.

    Raises:
        SourceError: it is no media file, it is cut off, or its telemetry is missing or damaged.
    """
    track = telemetry_track(source)
    if track is None:
        raise SourceError(f"{source}: expected a GoPro telemetry (GPMF) track, got a media file without one")
    with media.opened(source) as container:
        tracks = gpmf_tracks.tracks(list(_payloads(container, track)))
    recording = video.pictures_and_sound(source, "gopro", claimed=track, grey=options.grey)
    used = _add_sensors(recording, tracks)
    for key, found in tracks.items():
        if key not in used:
            reason = _REASONS.get(key, _NO_TOPIC) if len(found.values) else "it is empty"
            recording.skipped.stream(f"GPMF {key.decode('latin-1')} ({found.name})", reason)
    return recording


def _payloads(container: Any, track: int) -> Iterator[gpmf_tracks.Payload]:
    """The telemetry packets, parsed."""
    stream = container.streams[track]
    for packet in container.demux(stream):
        if packet.size and packet.pts is not None:
            base = packet.time_base
            start_ns, duration_ns = media.span_ns(packet.pts, base), media.span_ns(packet.duration or 0, base)
            yield gpmf_tracks.Payload(start_ns, duration_ns, gpmf.parse(bytes(packet)))


def _add_sensors(recording: Recording, tracks: dict[bytes, gpmf_tracks.Track]) -> set[bytes]:
    """Adds /imu and /gnss where the telemetry has them; the keys that went in."""
    used: set[bytes] = set()
    tracks = {key: track for key, track in tracks.items() if len(track.values)}
    if b"ACCL" in tracks and b"GYRO" in tracks:
        used |= {b"ACCL", b"GYRO"}
        recording.streams.append(events(topics.IMU, _imu(tracks[b"ACCL"], tracks[b"GYRO"], recording)))
    position = next((tracks[key] for key in _POSITIONS if key in tracks), None)
    if position is not None:
        used.add(position.key)
        recording.streams.append(events(topics.GNSS, _gnss(position, recording.skipped)))
    return used


def _imu(accel: gpmf_tracks.Track, gyro: gpmf_tracks.Track, recording: Recording) -> Iterator[ImuSample]:
    """Accelerometer samples in order of time, each with the gyro at its instant."""
    accel_mps2, gyro_radps = gpmf_tracks.forward_left_up(accel), gpmf_tracks.forward_left_up(gyro)
    stamps_ns = accel.stamps_ns
    if not np.array_equal(stamps_ns, gyro.stamps_ns):
        recording.metadata["imu"] = "gyro interpolated at the accelerometer's instants"
        order = np.argsort(gyro.stamps_ns, kind="stable")
        gyro_radps = np.stack(
            [np.interp(stamps_ns, gyro.stamps_ns[order], gyro_radps[order, axis]) for axis in range(3)], axis=1
        )
    order = np.argsort(stamps_ns, kind="stable")
    finite = np.asarray(np.isfinite(np.hstack([accel_mps2, gyro_radps])).all(axis=1), np.bool_)
    recording.skipped.count("GPMF ACCL and GYRO", "a value is not finite", int((~finite).sum()))
    order = order[finite[order]]
    rows = zip(stamps_ns[order].tolist(), accel_mps2[order].tolist(), gyro_radps[order].tolist())
    for seq, (stamp_ns, a, g) in enumerate(rows):
        yield ImuSample(media.ORIGIN_NS + stamp_ns, seq, (a[0], a[1], a[2]), (g[0], g[1], g[2]))


def _gnss(track: gpmf_tracks.Track, skipped: Skipped) -> Iterator[GnssFix]:
    """Positions with a lock; GoPro gives speed but no course, so no velocity."""
    name = f"GPMF {track.key.decode('latin-1')}"
    if track.values.shape[1] != _POSITIONS[track.key]:
        raise SourceError(f"{name}: expected {_POSITIONS[track.key]} channels, got {track.values.shape[1]}")
    fixes: NDArray[Any] = track.values[:, -1] if track.key == b"GPS9" else track.fixes
    finite = np.isfinite(track.values[:, :3]).all(axis=1)
    locked = np.asarray(np.not_equal(fixes, _NO_FIX) & finite, np.bool_)
    skipped.count(name, "position without a lock", int((~locked).sum()))
    order = np.argsort(track.stamps_ns, kind="stable")
    order = order[locked[order]]
    for seq, (stamp_ns, row) in enumerate(zip(track.stamps_ns[order].tolist(), track.values[order].tolist())):
        yield GnssFix(media.ORIGIN_NS + stamp_ns, seq, row[0], row[1], row[2])
