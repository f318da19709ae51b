"""Dynamic time warping beside its peers on one core: one pair, one pair in a band, many pairs; and equal answers.

All run in one process of an environment of their own, in turn in each round, so that the ratios hold on a busy machine.
Peers: dtaidistance (its C), tslearn, librosa, dtw-python. Where definitions coincide (squared differences, each step
once, no ends open; dtw-python: symmetric2) the answers must, too.

    python benchmarks/time_warping.py [--rounds 7] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / "out" / "bench-venvs" / "dtw"
PACKAGES = ("dtaidistance", "tslearn", "librosa", "dtw-python", "numba")
OURS = "roadfuse"
LENGTH, PAIRS, SHORT = 1000, 4096, 256
BAND = 0.1  # of the length, to each side
TIMED_PAIRS = 128  # of a peer, whose time for all is told from these

Contender = Callable[[], float]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds; the median counts (default 7)")
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inside:
        json.dump(_measured(args.rounds), sys.stdout)
        return 0
    if not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True)
    subprocess.run([VENV / "bin" / "pip", "install", "-q", *PACKAGES], check=True)
    command = [VENV / "bin" / "python", __file__, "--inside", "--rounds", str(3 if args.quick else args.rounds)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        command, env={**os.environ, **threads, "PYTHONPATH": str(HERE.parent)}, check=True, stdout=subprocess.PIPE
    )
    results: dict[str, Any] = json.loads(done.stdout)
    for task, times in results.items():
        peers = {name: ms for name, ms in times.items() if name != OURS}
        best = min(peers, key=lambda name: peers[name])
        print(f"{task}: best peer {best}, roadfuse {peers[best] / times[OURS]:.1f} x as fast")
        for name, ms in sorted(times.items(), key=lambda row: row[1]):
            print(f"  {name:14} {ms:10.3f} ms")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _measured(rounds: int) -> dict[str, dict[str, float]]:
    """Median ms by task and contender."""
    found = {}
    for task, contenders in _tasks().items():
        answers = {name: run() for name, (run, _) in contenders.items()}  # compiles, too
        first = answers[OURS]
        for name, answer in answers.items():
            if abs(answer - first) > 1e-4 * abs(first) and not name.endswith("*"):
                raise SystemExit(f"{task}: {name} says {answer}, roadfuse {first}")
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, (run, scale) in contenders.items():
                repeats = 10 if name == OURS else 1
                started = time.perf_counter()
                for _ in range(repeats):
                    run()
                times[name].append(1e3 * scale * (time.perf_counter() - started) / repeats)
        found[task] = {name: statistics.median(values) for name, values in times.items()}
    return found


def _tasks() -> dict[str, dict[str, tuple[Contender, float]]]:
    """(call, how many times the call's time is the task's) by contender; * where the definition is another one."""
    import dtw as dtw_python
    import librosa
    import numpy as np
    from dtaidistance import dtw as dtai
    from tslearn.metrics import dtw as tslearn_dtw

    from edge.alignment.band import Columns, SakoeChiba
    from edge.alignment.dtw import cost, costs
    from edge.alignment.series import Series

    rng = np.random.default_rng(0)
    x, y = (np.cumsum(rng.normal(size=LENGTH)) for _ in range(2))
    stamps = np.arange(LENGTH) * 1_000_000
    a, b, width = Series(stamps, x), Series(stamps, y), round(BAND * LENGTH)
    near = SakoeChiba(width * 1_000_000)

    def squared(distance: float) -> float:
        return float(distance) ** 2

    def warped(**how: Any) -> float:
        return float(dtw_python.dtw(x, y, distance_only=True, **how).distance)

    many_x, many_y = (np.cumsum(rng.normal(size=(PAIRS, SHORT)), 1) for _ in range(2))
    singles = [(np.ascontiguousarray(u), np.ascontiguousarray(v)) for u, v in zip(many_x, many_y)][:TIMED_PAIRS]
    lanes = many_x[..., None].astype(np.float32), many_y[..., None].astype(np.float32)
    scale = PAIRS / TIMED_PAIRS

    def one_by_one(distance: Callable[[Any, Any], float]) -> float:
        return sum(squared(distance(u, v)) for u, v in singles)

    def ours() -> float:
        every = Columns(np.zeros(SHORT, np.int64), np.full(SHORT, SHORT - 1))
        return float(costs(*lanes, every, pattern="symmetric1")[:TIMED_PAIRS].sum(dtype=np.float64))

    return {
        f"one pair, n = {LENGTH}, full": {
            OURS: (lambda: cost(a, b, pattern="symmetric1"), 1),
            "dtaidistance": (lambda: squared(dtai.distance_fast(x, y)), 1),
            "tslearn": (lambda: squared(tslearn_dtw(x, y)), 1),
            "librosa": (lambda: float(librosa.sequence.dtw(x, y, metric="sqeuclidean", backtrack=False)[-1, -1]), 1),
            "dtw-python *": (lambda: warped(step_pattern="symmetric1"), 1),
        },
        f"one pair, n = {LENGTH}, band of {BAND:.0%}": {
            OURS: (lambda: cost(a, b, near, pattern="symmetric1"), 1),
            "dtaidistance": (lambda: squared(dtai.distance_fast(x, y, window=width + 1)), 1),
            "tslearn": (
                lambda: squared(tslearn_dtw(x, y, global_constraint="sakoe_chiba", sakoe_chiba_radius=width)),
                1,
            ),
            "librosa *": (
                lambda: float(
                    librosa.sequence.dtw(
                        x, y, metric="sqeuclidean", backtrack=False, global_constraints=True, band_rad=BAND
                    )[-1, -1]
                ),
                1,
            ),
            "dtw-python *": (
                lambda: warped(step_pattern="symmetric1", window_type="sakoechiba", window_args={"window_size": width}),
                1,
            ),
        },
        f"{PAIRS} pairs, n = {SHORT}": {
            OURS: (ours, 1),
            "dtaidistance": (lambda: one_by_one(dtai.distance_fast), scale),
            "tslearn": (lambda: one_by_one(tslearn_dtw), scale),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
