"""Planted modality faults: how many are named, how soon, what for what; and how often clean drives are called faulty.

Short drives over all scenarios, weathers and lights run clean through synchronisation and Agreement. At 6 s the state
is frozen, and each of the 12 faults (planted_faults.py) is planted into a copy of the drive from there on. A case is
right if within 2 s its stream is named with its kind, nothing else is named before, and no other stream at all. Cases
whose stream is not there all through those 2 s (GNSS in tunnels) are left out. Besides, long drives of sound, motion
and LiDAR without pictures add hours of clean driving.

    python benchmarks/modality_faults.py [--drives 100] [--clean 0] [--hours 1] [--cache FOLDER] [--quick] [--json FILE]
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import heapq
import json
import pickle
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from planted_faults import FAULTS, Planted

from edge import bundle as bundles
from edge.alignment.agreement import Agreement, Reading
from edge.alignment.watch import is_due
from edge.drive import codec
from edge.frameset import FrameSet
from edge.perception import Perception
from edge.samples import AudioChunk, Frame, GnssFix, ImuSample, Sweep, VehicleState
from edge.streams import ENCODERS, MS, SECOND, STREAMS
from edge.sync import Sync
from export.world.simulate import START_NS, WorldConfig, simulate

SCENARIOS = ("mixed", "highway", "urban", "residential", "tunnel", "siren", "crossing", "night", "varied")
WEATHERS, LIGHTS = ("clear", "rain", "fog", "snow"), ("day", "dusk", "night")
SPLITS = {"train": (0, 200, 910_000), "validation": (200, 50, 920_000), "held": (300, 100, 930_000)}
SECONDS = 12.0
FAULT_NS = START_NS + 6 * SECOND
WITHIN_NS = 2 * SECOND
LEAST_GAP_NS = 300 * MS  # a stream that is absent for so long at either end is no case
LONG_S = 120.0
PERIOD_NS = 50 * MS
CAMERA_DELAY_NS = 18 * MS
SMALL_PX = (160, 96)
ROW = {stream.name: row for row, stream in enumerate(STREAMS)}
NAME = {stream.topic: stream.name for stream in STREAMS}
SAMPLES: dict[str, Any] = {
    "camera": Frame, "audio": AudioChunk, "imu": ImuSample, "gnss": GnssFix, "vehicle": VehicleState, "lidar": Sweep
}  # fmt: skip
Arrival = tuple[int, str, Any]  # ns, stream, sample
Embeddings = dict[str, NDArray[np.float32]]


class Case(NamedTuple):
    """One planted fault in one drive."""

    fault: str
    drive: int
    named: str  # first, and all that were named beside it; "" nothing
    after_s: float
    is_right: bool
    least_agreement: float
    least_space: float  # of the embeddings alone


class Clean(NamedTuple):
    """One drive as it is."""

    readings: list[Reading]
    alarms: int  # suspects that began
    named: list[str]
    seconds: float
    cpu_s: float
    frozen: dict[str, Any]
    smalls: dict[int, NDArray[np.uint8]]
    embeddings: dict[int, Embeddings]
    space: list[float]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drives", type=int, default=100, help="in which every fault is planted (default 100)")
    parser.add_argument("--clean", type=int, default=0, help="further drives that are only driven clean (default 0)")
    parser.add_argument("--embedded", type=int, default=20, help="drives in which the encoders run, too (default 20)")
    parser.add_argument("--hours", type=float, default=1.0, help="of clean driving without pictures (default 1)")
    parser.add_argument("--split", choices=SPLITS, default="held", help="whose towns (default held)")
    parser.add_argument("--cache", type=Path, help="folder in which rendered drives are kept (25 MB each)")
    parser.add_argument("--quick", action="store_true", help="9 drives, 2 with encoders, 6 minutes without pictures")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args(argv)
    if args.quick:
        args.drives, args.embedded, args.hours = 9, 2, 0.1
    cv2.setNumThreads(1)
    perception = Perception(bundles.load(), STREAMS) if args.embedded else None
    cases: list[Case] = []
    alarms: list[str] = []
    clean_s = cpu_s = 0.0
    frames = 0
    space: list[float] = []
    for drive in range(args.drives + args.clean):
        arrivals = _rendered(args.split, drive, args.cache)
        encoders = perception if drive < args.embedded else None
        clean = _drive(arrivals, encoders)
        clean_s, cpu_s, frames = clean_s + clean.seconds, cpu_s + clean.cpu_s, frames + len(clean.readings)
        alarms += [f"{args.split} {drive}: {name}" for name in clean.named]
        space += clean.space
        if drive < args.drives:
            cases += [case for fault in FAULTS if (case := _case(arrivals, drive, fault, clean, encoders))]
        right = sum(case.is_right for case in cases)
        print(f"\r{drive + 1} drives, {right} of {len(cases)} right, {len(alarms)} false", end="", file=sys.stderr)
    long_s, long_alarms = _long(args.split, args.hours)
    print(file=sys.stderr)
    figures = _figures(cases) | {
        "split": args.split, "drives": args.drives,
        "clean_hours": clean_s / 3600, "false_alarms": len(alarms), "false": alarms,
        "clean_hours_without_pictures": long_s / 3600, "false_alarms_without_pictures": len(long_alarms),
        "false_without_pictures": long_alarms, "cpu_ms_a_frame": 1e3 * cpu_s / max(frames, 1),
        "clean_space_p1_p50": [float(np.quantile(space, q)) for q in (0.01, 0.5)] if space else [],
    }  # fmt: skip
    _print(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


# --- drives -----------------------------------------------------------------------------------------------------------


def _config(split: str, drive: int, seconds: float, fps: int = 20, offset: int = 0) -> WorldConfig:
    first, towns, seed = SPLITS[split]
    weather, light = WEATHERS[drive // 2 % 4], LIGHTS[(drive + drive // 9) % 3]
    town = first + drive * 7 % towns
    return WorldConfig(seed + offset + drive, seconds, SCENARIOS[drive % 9], weather, light, fps=fps, town=town)


def _rendered(split: str, drive: int, cache: Path | None) -> list[Arrival]:
    """A drive's samples, pictures as JPEG and points as float16, as they arrive."""
    path = cache / f"{split}-{drive:04d}.pickle" if cache else None
    if path and path.exists():
        return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]  # of our own making
    arrivals: list[Arrival] = []
    for event in simulate(_config(split, drive, SECONDS), encode=False):
        name, sample = NAME.get(event.topic), event.sample
        if name is None or sample is None:
            continue
        if isinstance(sample, Frame):
            assert sample.image is not None
            sample = Frame(sample.stamp_ns, sample.seq, None, codec.encode_jpeg(sample.image))
        elif isinstance(sample, Sweep):
            points: Any = sample.points_lidar.astype(np.float16)
            sample = Sweep(sample.stamp_ns, sample.seq, points)
        arrivals.append((event.arrival_ns, name, tuple(sample)))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_bytes(pickle.dumps(arrivals, protocol=5))
        path.with_suffix(".part").rename(path)
    return arrivals


def _framesets(arrivals: Iterator[Arrival], plant: Callable[[str, Any], Any]) -> Iterator[FrameSet]:
    """What sync makes of them; `plant` changes samples on their way."""
    sync = Sync()
    pushes = sync.pushes
    for arrival_ns, name, fields in arrivals:
        sample = SAMPLES[name](*fields)
        if name == "lidar":
            sample = sample._replace(points_lidar=sample.points_lidar.astype(np.float32))
        while sync.due_ns <= arrival_ns and (frames := sync.pop(arrival_ns)) is not None:
            yield frames
        if pushes[ROW[name]](plant(name, sample), arrival_ns):
            while (frames := sync.pop(arrival_ns)) is not None:
                yield frames


def _shown(frame: Frame | None) -> Frame | None:
    """With its picture."""
    if frame is None or frame.image is not None or not frame.jpeg:
        return frame
    return frame._replace(image=codec.decode_jpeg(frame.jpeg))


def _small(frame: Frame | None) -> NDArray[np.uint8] | None:
    if frame is None or frame.image is None:
        return None
    shrunk = cv2.resize(frame.image, SMALL_PX, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(shrunk, cv2.COLOR_BGR2GRAY), np.uint8)


def _embedded(perception: Perception, frames: FrameSet, names: tuple[str, ...]) -> Embeddings:
    found = {}
    for name in names:
        if perception.present(name, frames):
            perception.encode(name, frames)
            spec = perception.bundle.encoders[name]
            found[name] = perception.encoders[name].outputs[spec.outputs["embedding"]].copy()
    return found


# --- runs -------------------------------------------------------------------------------------------------------------


class _Watched:
    """Agreement on the frames that the loop looks at; what it says of one stands for those in between."""

    def __init__(self) -> None:
        self.agreement = Agreement(STREAMS)
        self._last_ns: int | None = None
        self._said = Reading(1.0, ())

    def see(self, frames: FrameSet, small: NDArray[np.uint8] | None, embeddings: Embeddings) -> Reading:
        if is_due(frames.stamp_ns, self._last_ns):
            self._last_ns = frames.stamp_ns
            self._said = self.agreement.see(frames, small, embeddings)
        return self._said


def _drive(arrivals: list[Arrival], perception: Perception | None) -> Clean:
    """Without any fault; the state is frozen where the faults will begin."""
    watched = _Watched()
    agreement = watched.agreement
    clean = Clean([], 0, [], 0.0, 0.0, {}, {}, {}, [])
    frozen: dict[str, Any] = {}
    before: set[tuple[str, str]] = set()
    first_ns = last_ns = 0
    cpu_s = 0.0
    for frames in _framesets(iter(arrivals), lambda name, sample: sample):
        if not frozen and frames.stamp_ns >= FAULT_NS:
            frozen = agreement.freeze()
        frames.frame = _shown(frames.frame)
        small = _small(frames.frame)
        embeddings = _embedded(perception, frames, perception.names) if perception else {}
        started_s = time.process_time()
        reading = watched.see(frames, small, embeddings)
        cpu_s += time.process_time() - started_s
        if FAULT_NS <= frames.stamp_ns < FAULT_NS + WITHIN_NS:
            clean.embeddings[frames.stamp_ns] = embeddings
            if small is not None:
                clean.smalls[frames.stamp_ns] = small
        now = {suspect[:2] for suspect in reading.suspects}
        clean.named.extend(f"{stream} {kind}" for stream, kind in sorted(now - before))
        if embeddings:
            clean.space.append(agreement.space)
        before = now
        clean.readings.append(reading)
        first_ns, last_ns = first_ns or frames.stamp_ns, frames.stamp_ns
    return clean._replace(frozen=frozen, seconds=(last_ns - first_ns) / SECOND, cpu_s=cpu_s, alarms=len(clean.named))


def _case(arrivals: list[Arrival], drive: int, fault: str, clean: Clean, perception: Perception | None) -> Case | None:
    """A fault planted where the clean drive was frozen; None where its stream does not give samples throughout."""
    plant = Planted(fault, FAULT_NS, drive)
    struck_ns: list[int] = []

    def planted(name: str, sample: Any) -> Any:
        if name == plant.stream and FAULT_NS <= sample.stamp_ns < FAULT_NS + WITHIN_NS:
            struck_ns.append(sample.stamp_ns - FAULT_NS)
            if name == "camera":
                sample = _shown(sample)
            return plant(name, sample)
        return sample

    watched = _Watched()
    agreement = watched.agreement
    agreement.thaw(clean.frozen)
    encoders = tuple(name for name, stream in ENCODERS.items() if stream == plant.stream) or ("motion",)
    named: list[str] = []
    after_s = 0.0
    least = least_space = 1.0
    part = (one for one in arrivals if one[0] < FAULT_NS + WITHIN_NS + SECOND)
    for frames in _framesets(part, planted):
        if not FAULT_NS <= frames.stamp_ns < FAULT_NS + WITHIN_NS:
            continue
        embeddings = clean.embeddings.get(frames.stamp_ns, {})
        if perception:
            embeddings = embeddings | _embedded(perception, frames, encoders)
        small = _small(frames.frame) if plant.stream == "camera" else clean.smalls.get(frames.stamp_ns)
        reading = watched.see(frames, small, embeddings)
        least, least_space = min(least, reading.agreement), min(least_space, agreement.space)
        for suspect in reading.suspects:
            name = f"{suspect.stream} {suspect.kind}"
            if name not in named:
                after_s = after_s if named else (frames.stamp_ns - FAULT_NS) / SECOND
                named.append(name)
    if not struck_ns or struck_ns[0] > LEAST_GAP_NS or struck_ns[-1] < WITHIN_NS - LEAST_GAP_NS:
        return None
    others = [name for name in named if name.split()[0] != plant.stream]
    is_right = bool(named) and named[0] == fault and not others
    return Case(fault, drive, " + ".join(named), after_s, is_right, least, least_space if perception else -1.0)


def _long(split: str, hours: float) -> tuple[float, list[str]]:
    """Clean driving without pictures, seconds of it and what was named."""
    driven_s, alarms, drive = 0.0, [], 0
    while driven_s < hours * 3600:
        config = _config(split, drive, LONG_S, fps=1, offset=5_000)
        sensors = (
            (event.arrival_ns, name, tuple(event.sample))
            for event in simulate(config, encode=False)
            if event.sample is not None and (name := NAME.get(event.topic)) not in (None, "camera")
        )
        paces = (
            (START_NS + n * PERIOD_NS + CAMERA_DELAY_NS, "camera", (START_NS + n * PERIOD_NS, n, None))
            for n in range(int(LONG_S * SECOND) // PERIOD_NS)
        )
        merged: Iterator[Any] = heapq.merge(sensors, paces, key=lambda arrival: arrival[0])
        watched, before = _Watched(), set[tuple[str, str]]()
        for frames in _framesets(merged, lambda name, sample: sample):
            now = {suspect[:2] for suspect in watched.see(frames, None, {}).suspects}
            alarms += [f"{split} long {drive}: {stream} {kind}" for stream, kind in sorted(now - before)]
            before = now
        driven_s, drive = driven_s + LONG_S, drive + 1
        print(f"\r{driven_s / 3600:.2f} h without pictures, {len(alarms)} false", end="", file=sys.stderr)
    return driven_s, alarms


# --- figures ----------------------------------------------------------------------------------------------------------


def _figures(cases: list[Case]) -> dict[str, Any]:
    by_fault: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_fault[case.fault].append(case)
    rows = {}
    for fault, some in by_fault.items():
        right = [case for case in some if case.is_right]
        space = [case.least_space for case in some if case.least_space >= 0.0]
        rows[fault] = {
            "cases": len(some),
            "right": len(right),
            "right_stream": sum(case.named.startswith(fault.split()[0] + " ") for case in some),
            "median_s": statistics.median(case.after_s for case in right) if right else None,
            "named_as": dict(Counter(case.named or "nothing" for case in some).most_common()),
            "wrong_in_drives": [case.drive for case in some if not case.is_right],
            "median_least_space_agreement": statistics.median(space) if space else None,
        }
    total = len(cases)
    return {
        "cases": total,
        "right_share": sum(case.is_right for case in cases) / max(total, 1),
        "median_s": statistics.median([case.after_s for case in cases if case.is_right] or [0.0]),
        "faults": rows,
    }


def _print(figures: dict[str, Any]) -> None:
    print(f"{'planted':<17} cases right median s  space  named as (number)")
    for fault, row in figures["faults"].items():
        named = ", ".join(f"{name} ({n})" for name, n in row["named_as"].items())
        median = f"{row['median_s']:.2f}" if row["median_s"] is not None else "-"
        space = row["median_least_space_agreement"]
        print(f"{fault:<17} {row['cases']:>5} {row['right']:>5} {median:>8}", end="  ")
        print(f"{space:>5.2f}" if space is not None else "    -", named, sep="  ")
    print(f"right: {figures['right_share']:.1%} of {figures['cases']}, median {figures['median_s']:.2f} s")
    print(f"clean: {figures['false_alarms']} false in {figures['clean_hours']:.2f} h with pictures: {figures['false']}")
    without = figures["clean_hours_without_pictures"], figures["false_without_pictures"]
    print(f"clean: {len(without[1])} false in {without[0]:.2f} h without pictures: {without[1]}")
    print(f"cost: {figures['cpu_ms_a_frame']:.3f} ms a frame; embeddings' agreement when clean, p1 and p50: ", end="")
    print(figures["clean_space_p1_p50"])


if __name__ == "__main__":
    sys.exit(main())
