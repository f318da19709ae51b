"""What alignment costs in the loop: CPU time a frame, of whichever thread it runs on, while a drive replays.

A simulated drive, all six streams, the reference bundle; between two frames the models push its code and data out of
the caches, as they do on the road. Each part is timed by itself in a replay of its own, so that no stopwatch is within
another's time. The decisions are the same in every replay, which is checked.

    python benchmarks/watch.py [--seconds 30] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge import bundle as bundles
from edge.alignment import watch
from edge.alignment.watch import Watch
from edge.bundle import Bundle
from edge.replay import Replay
from export.world.command import main as simulate

# Where each part is called: what has it as attributes, and the attributes.
PARTS: dict[str, tuple[Callable[[Watch], Any], tuple[str, ...]]] = {
    "all": (lambda one: one, ("look", "place", "conclude")),
    "small picture": (lambda one: watch, ("small_grey",)),
    "signs of the picture": (lambda one: one._agreement._picture, ("see",)),
    "signs of the sound": (lambda one: one._agreement._sound, ("hear",)),
    "signs of the LiDAR": (lambda one: one._agreement._lidar, ("see",)),
    "signs of the motion": (lambda one: one._agreement._motion, ("feel",)),
    "shared space": (lambda one: one._agreement._space, ("see",)),
    "naming": (lambda one: one._agreement, ("_name",)),
    "clocks": (lambda one: one._clocks, ("see",)),
    "rig": (lambda one: one, ("place",)),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the drive (default 30)")
    parser.add_argument("--repeats", type=int, default=3, help="replays for each part; the median counts (default 3)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(argv)
    bundle = bundles.load(None)
    with tempfile.TemporaryDirectory() as folder:
        drive = Path(folder) / "drive.mcap"
        simulate(
            ["--seed", "1", "--seconds", str(options.seconds), "--scenario", "mixed", "--out", str(drive), "--json"]
        )
        runs = {part: [_cost(drive, bundle, part) for _ in range(options.repeats)] for part in PARTS}
    if len({sha for runs_of in runs.values() for sha, _ in runs_of}) != 1:
        raise RuntimeError("expected one SHA-256 from all replays, got several")
    said = {
        part: {
            name: round(float(np.median([of(costs) for _, costs in runs_of])), 1)
            for name, of in (("mean_us", np.mean), ("p50_us", np.median))
        }
        for part, runs_of in runs.items()
    }
    for part, costs in said.items():
        print(f"{part:22s} mean {costs['mean_us']:6.1f} us a frame, half of them within {costs['p50_us']:6.1f}")
    if options.json:
        machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        options.json.write_text(json.dumps({**machine, "seconds": options.seconds, "parts": said}, indent=1))
    return 0


def _cost(drive: Path, bundle: Bundle, part: str) -> tuple[str, list[float]]:
    """The decisions' SHA-256, and us of the thread's CPU time in each frame."""
    costs: list[float] = []
    with Replay(drive, bundle) as run:
        holder, names = PARTS[part]
        place = holder(run.loop._watch)
        calls = {name: getattr(place, name) for name in names}
        for name, call in calls.items():
            setattr(place, name, _timed(call, costs))
        try:
            frames = sum(1 for _ in run)
            run.loop.lane.submit(lambda: None).result()  # the last frame's rig is compared after its decision
        finally:
            for name, call in calls.items():
                setattr(place, name, call)
        sha = run.statistics.sha256
    if len(names) > 1:  # a frame's calls follow each other, in some order
        costs = np.reshape(costs, (frames, len(names))).sum(axis=1).tolist()
    return sha, [*costs, *[0.0] * (frames - len(costs))]


def _timed(call: Callable[..., Any], costs: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        started_ns = time.thread_time_ns()
        result = call(*arguments)
        costs.append((time.thread_time_ns() - started_ns) / 1e3)
        return result

    return timed


if __name__ == "__main__":
    sys.exit(main())
