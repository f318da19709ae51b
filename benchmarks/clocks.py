"""Planted clock shifts: how far the recovered offsets are off, and how often within their own uncertainty.

    python benchmarks/clocks.py DRIVE... [--recorded] [--window-s 20]

Every drive is cut into windows; in each, the second signal of every pair is moved by a drawn shift of up to 0.5 s. A
simulated drive's true offsets are 0; for a recorded one the offset of the whole drive stands in for the truth, which
tells repeatability, not correctness.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from calibration.rig.clocks import clock_offsets
from calibration.rig.correlate import Series
from calibration.rig.signals import Signals, read_signals
from edge.drive.reader import DriveReader

SHIFT_S = 0.5
SECOND = {"imu-camera": "camera", "imu-vehicle": "vehicle", "vehicle-gnss": "gnss", "camera-audio": "audio"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("drives", type=Path, nargs="+")
    parser.add_argument("--recorded", action="store_true", help="the whole drive's offsets stand in for the truth")
    parser.add_argument("--window-s", type=float, default=20.0)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    windows: dict[str, int] = defaultdict(int)
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in options.drives:
        with DriveReader(path) as drive:
            whole = read_signals(drive)
        truth = {name: found.offset_s for name, found in clock_offsets(whole).items()} if options.recorded else {}
        for window in _windows(whole, options.window_s):
            for pair, stream in SECOND.items():
                shift = float(rng.uniform(-SHIFT_S, SHIFT_S))
                for name, found in clock_offsets(_moved(window, stream, shift)).items():
                    expected = truth.get(name) if options.recorded else 0.0
                    if not name.startswith(pair) or expected is None:
                        continue
                    windows[name] += 1
                    if found.offset_s is not None and found.std_s is not None:
                        errors[name].append((found.offset_s - shift - expected, found.std_s))
    print(json.dumps({name: _figures(count, errors[name]) for name, count in windows.items()}, indent=1))


def _figures(windows: int, found: list[tuple[float, float]]) -> dict[str, float]:
    if not found:
        return {"windows": windows, "told": 0}
    error, std = np.abs(np.array(found)).T
    return {
        "windows": windows,
        "told": len(found),
        "median_ms": round(1e3 * float(np.median(error)), 2),
        "p90_ms": round(1e3 * float(np.percentile(error, 90)), 2),
        "median_std_ms": round(1e3 * float(np.median(std)), 2),
        "within_2_std": round(float((error <= 2 * std).mean()), 3),
        "worst_in_std": round(float((error / std).max()), 2),
    }


def _windows(signals: Signals, length_s: float) -> list[Signals]:
    stamps = [series.stamps_s for group in _groups(signals).values() for series in group.values()]
    end = max(float(s[-1]) for s in stamps)
    starts = np.arange(0.0, max(end - length_s, 0.0) + 1e-6, length_s / 2)
    return [_cut(signals, float(start), float(start) + length_s) for start in starts]


def _groups(signals: Signals) -> dict[str, dict[str, Series]]:
    return {field.name: getattr(signals, field.name) for field in fields(signals)}


def _cut(signals: Signals, start: float, end: float) -> Signals:
    def part(series: Series) -> Series:
        kept = (series.stamps_s >= start) & (series.stamps_s < end)
        return Series(series.stamps_s[kept], series.values[kept])

    cut = {
        name: {key: part(series) for key, series in group.items() if part(series).stamps_s.size > 2}
        for name, group in _groups(signals).items()
    }
    return Signals(**cut)


def _moved(signals: Signals, stream: str, shift_s: float) -> Signals:
    group = {k: Series(s.stamps_s + shift_s, s.values) for k, s in getattr(signals, stream).items()}
    return replace(signals, **{stream: group})


if __name__ == "__main__":
    main()
