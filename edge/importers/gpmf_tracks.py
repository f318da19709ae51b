"""GoPro telemetry over a whole file: one track a sensor, with an instant for each value and axes as ours.

In: the payloads of an MP4's metadata track, parsed, with their instants. Out: values in SI units and their instants on
the media clock (ns, 0 = first picture).

Axes: ORIN names the raw channels (capital = positive); GoPro's labels are X left, Y back, Z up as seen from behind the
camera, so forward = -Y, left = X, up = Z.

Time: STMP counts camera microseconds, and streams that follow the pictures (SHUT, ISOE, CORI) carry it too, so that
STMP minus the pictures' first STMP is media time. Files without STMP spread each payload's values over its duration.

Ref: https://github.com/gopro/gpmf-parser (README, "GPMF Deeper Dive" and "IMU Orientation").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.importers import gpmf

PICTURE_PACED: Final = (b"SHUT", b"ISOE", b"ISOG", b"CORI")
# Channel order by camera, where the file has no ORIN.
_ORIENTATIONS: Final = {b"Hero5": "ZXY", b"HERO5": "ZXY", b"Fusion": "yXZ", b"HERO6": "YxZ", b"HERO7": "YxZ"}
DEFAULT_ORIENTATION: Final = "ZXY"


@dataclass(slots=True)
class Track:
    """One sensor over the whole file: values (n, channels) and their instants (n,), ns of media time."""

    key: bytes
    name: str
    device: bytes
    orientation: str
    values: NDArray[np.float64]
    stamps_ns: NDArray[np.int64]
    fixes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Payload:
    """One packet of the metadata track."""

    start_ns: int
    duration_ns: int
    streams: list[gpmf.Stream] = field(default_factory=list)


def tracks(payloads: Sequence[Payload]) -> dict[bytes, Track]:
    """Joins the payloads' streams by key and gives each value its instant."""
    joined: dict[bytes, list[tuple[Payload, gpmf.Stream]]] = {}
    for payload in payloads:
        for stream in payload.streams:
            joined.setdefault(stream.key, []).append((payload, stream))
    origin_us = next(
        (
            stream.stamp_us - payload.start_ns // 1000
            for key in PICTURE_PACED
            for payload, stream in joined.get(key, [])[:1]
            if stream.stamp_us is not None
        ),
        None,
    )
    return {key: _join(key, parts, origin_us) for key, parts in joined.items()}


def forward_left_up(track: Track) -> NDArray[np.float64]:
    """The track's (n, 3) values on the axes x forward, y left, z up.

    Raises:
        SourceError: there are not three channels, or the orientation names no three axes.
    """
    orientation = track.orientation or _ORIENTATIONS.get(track.device.split()[0] if track.device else b"", "")
    orientation = orientation or DEFAULT_ORIENTATION
    if track.values.shape[1] != 3 or sorted(orientation.upper()) != ["X", "Y", "Z"]:
        raise SourceError(
            f"GPMF {track.key.decode('latin-1')}: expected three channels on axes X, Y and Z, "
            f"got {track.values.shape[1]} on {orientation!r}"
        )
    axes = {
        letter.upper(): track.values[:, channel] * (1.0 if letter.isupper() else -1.0)
        for channel, letter in enumerate(orientation)
    }
    return np.stack([-axes["Y"], axes["X"], axes["Z"]], axis=1)


def _join(key: bytes, parts: list[tuple[Payload, gpmf.Stream]], origin_us: int | None) -> Track:
    first = parts[0][1]
    widths = {stream.values.shape[1] for _, stream in parts if len(stream.values)}
    if len(widths) > 1:
        raise SourceError(f"GPMF {key.decode('latin-1')}: expected one number of channels, got {sorted(widths)}")
    parts = [(payload, stream) for payload, stream in parts if len(stream.values)] or parts[:1]
    stamped = origin_us is not None and all(stream.stamp_us is not None for _, stream in parts)
    starts = [
        (stream.stamp_us - origin_us) * 1000
        if stamped and stream.stamp_us is not None and origin_us is not None
        else payload.start_ns
        for payload, stream in parts
    ]
    counts = [len(stream.values) for _, stream in parts]
    periods = _periods(starts, counts, parts, stamped)
    return Track(
        key=key,
        name=first.name,
        device=first.device,
        orientation=first.orientation,
        values=np.concatenate([stream.values for _, stream in parts]),
        stamps_ns=np.concatenate(
            [
                start + np.rint(np.arange(count) * period).astype(np.int64)
                for start, count, period in zip(starts, counts, periods)
            ]
        ),
        fixes=np.concatenate(
            [
                np.full(count, -1 if stream.fix is None else stream.fix, np.int64)
                for count, (_, stream) in zip(counts, parts)
            ]
        ),
    )


def _periods(
    starts: list[int], counts: list[int], parts: list[tuple[Payload, gpmf.Stream]], stamped: bool
) -> list[float]:
    """The spacing of the values in each payload, ns."""
    if not stamped:
        return [payload.duration_ns / max(count, 1) for count, (payload, _) in zip(counts, parts)]
    measured = [(after - start) / max(count, 1) for start, after, count in zip(starts, starts[1:], counts)]
    usual = float(np.median(measured)) if measured else parts[0][0].duration_ns / max(counts[0], 1)
    # A payload that the camera lost stretches the one before it: there the usual period is the better guess.
    return [period if 0.8 * usual < period < 1.25 * usual else usual for period in [*measured, usual]]
