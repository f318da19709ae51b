"""The loop's own clocks on the world's drives: how late picture and sound are, by what the IMU felt.

Drives of held-out towns, smooth and rough; each once as it is and with the sound or the picture moved. Then every
drive's pictures and sound run beside every other drive's IMU, which nothing may be taken for sure of.

    python benchmarks/online_clocks.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.alignment.online import OnlineClocks
from edge.alignment.watch import is_due
from edge.samples import AudioChunk, Frame, ImuSample
from export.world.simulate import WorldConfig, simulate

MS = 1_000_000
DRIVES = (("highway", "day"), ("urban", "day"), ("residential", "dusk"), ("mixed", "day"), ("highway", "night"),
          ("urban", "night"))  # fmt: skip
CLOCKS = ("sound", "picture", "camera_sound")
SHIFTS_MS = ((0, 0), (200, 0), (-300, 0), (0, 120), (0, -250))  # of sound, of picture


class Trace(NamedTuple):
    """A drive without what the clocks don't need."""

    pictures: list[tuple[int, NDArray[np.uint8]]]
    sound: list[AudioChunk]
    imu: list[ImuSample]


class Told(NamedTuple):
    """What was told of one clock: s from the start until it was sure, errors of the sure ones (ms), and how many."""

    first_sure_s: float | None
    errors_ms: list[float]
    tells: int


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two drives of 40 s in place of six of 90 s")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    drives = DRIVES[:2] if args.quick else DRIVES
    seconds = 40 if args.quick else 90
    figures: dict[str, Any] = {}
    cost_ms: list[float] = []
    for surface in ("smooth", "rough"):
        traces = [trace(410 + n, seconds, *drive, surface) for n, drive in enumerate(drives)]
        told: dict[str, list[Told]] = {name: [] for name in CLOCKS}
        for one, (sound_ms, picture_ms) in itertools.product(traces, SHIFTS_MS):
            for name, found in run(one, one.imu, sound_ms, picture_ms, cost_ms).items():
                told[name].append(found)
        unrelated: dict[str, list[Told]] = {name: [] for name in CLOCKS}
        for one, other in itertools.permutations(traces, 2):
            for name, found in run(one, other.imu, 0, 0, cost_ms).items():
                unrelated[name].append(found)
        figures[surface] = {name: _figures(told[name], unrelated[name]) for name in told}
    figures["cpu_ms_a_frame"] = {"mean": round(statistics.mean(cost_ms), 4), "p99": round(_p99(cost_ms), 4)}
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def trace(seed: int, seconds: float, scenario: str, light: str, surface: str) -> Trace:
    """A drive of a held-out town."""
    kept = Trace([], [], [])
    config = WorldConfig(seed, seconds, scenario, light=light, lidar=False, surface=surface, town=300 + seed % 100)
    for event in simulate(config, encode=False):
        content = event.sample
        if isinstance(content, Frame) and content.image is not None:
            small = cv2.resize(content.image, (160, 96), interpolation=cv2.INTER_AREA)
            kept.pictures.append((content.stamp_ns, np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)))
        elif isinstance(content, AudioChunk):
            kept.sound.append(content)
        elif isinstance(content, ImuSample):
            kept.imu.append(content)
    return kept


def run(one: Trace, imu: list[ImuSample], sound_ms: float, picture_ms: float, cost_ms: list[float]) -> dict[str, Told]:
    """What the clocks tell of a drive whose sound and picture were moved, second by second."""
    clocks, last_ns = OnlineClocks(), 0
    errors: dict[str, list[float]] = {name: [] for name in CLOCKS}
    first: dict[str, float | None] = dict.fromkeys(CLOCKS)
    tells = 0
    begin_ns = one.pictures[0][0]
    looked_ns: int | None = None
    for stamp_ns, small, sound, felt in _moments(one, imu, sound_ms, picture_ms):
        if not is_due(stamp_ns, looked_ns):
            cost_ms.append(0.0)
            continue
        looked_ns = stamp_ns
        started = time.process_time_ns()
        clocks.see(stamp_ns, small, sound, felt)
        cost_ms.append((time.process_time_ns() - started) / MS)
        if clocks.told_ns == last_ns:
            continue
        last_ns, tells = clocks.told_ns, tells + 1
        offsets = (clocks.sound, clocks.picture, clocks.camera_sound)
        for name, offset, true_ms in zip(CLOCKS, offsets, (sound_ms, picture_ms, sound_ms - picture_ms)):
            if offset is not None and offset.is_sure:
                errors[name].append(abs(offset.offset_ns / MS - true_ms))
                if first[name] is None:
                    first[name] = (stamp_ns - begin_ns) / 1e9
    return {name: Told(first[name], errors[name], tells) for name in errors}


def _moments(
    one: Trace, imu: list[ImuSample], sound_ms: float, picture_ms: float
) -> Iterator[tuple[int, NDArray[np.uint8], list[AudioChunk], list[ImuSample]]]:
    """Each frame with the second of sound and motion before it, as the loop gets them."""
    chunks = [chunk._replace(stamp_ns=chunk.stamp_ns + round(sound_ms * MS)) for chunk in one.sound]
    heard = [chunk.stamp_ns for chunk in chunks]
    felt = [sample.stamp_ns for sample in imu]
    for captured_ns, small in one.pictures:
        stamp_ns = captured_ns + round(picture_ms * MS)
        upto, until = bisect_right(heard, stamp_ns), bisect_right(felt, stamp_ns)
        yield stamp_ns, small, chunks[max(upto - 52, 0) : upto], imu[max(until - 100, 0) : until]


def _figures(told: list[Told], unrelated: list[Told]) -> dict[str, Any]:
    errors = [error for one in told for error in one.errors_ms]
    finally_ = [one.errors_ms[-1] for one in told if one.errors_ms]
    first = [one.first_sure_s for one in told if one.first_sure_s is not None]
    return {
        "drives": len(told),
        "drives_sure": len(finally_),
        "median_first_sure_s": round(statistics.median(first), 1) if first else None,
        "median_error_ms": round(statistics.median(errors), 1) if errors else None,
        "worst_error_ms": round(max(errors), 1) if errors else None,
        "unrelated_tells": sum(one.tells for one in unrelated),
        "unrelated_sure": sum(len(one.errors_ms) for one in unrelated),
    }


def _p99(values: list[float]) -> float:
    return float(np.quantile(values, 0.99))


if __name__ == "__main__":
    sys.exit(main())
