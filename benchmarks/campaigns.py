"""What campaigns cost the loop: time of the judge's stage a frame, with 0 to 1,000 probes, in a replayed drive.

    python benchmarks/campaigns.py [--seconds 10] [--rounds 3]

Half of the probes have an embedding and eight conditions, the other half eight conditions alone, the worse case:
nothing is ruled out by nearness. None matches, so that all runs decide the same. Rounds alternate between the counts.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from pathlib import Path

import numpy as np

from edge import bundle as bundles
from edge.campaigns.probe import AllOf, Bounds, Likely, Negated, Probe, ProbeSet
from edge.loop import LoopConfig
from edge.replay import Replay
from export.world.command import main as simulate

COUNTS = (0, 10, 100, 1_000)
CONDITIONS = AllOf((*[Negated(Likely("none", 0.5)) for _ in range(3)], Bounds("hardness", 2.0)))  # 8, the last fails


def probes(count: int, bundle_id: str) -> ProbeSet:
    """So many, none of which matches."""
    rng = np.random.default_rng(1)
    made = []
    for number in range(count):
        embedding = rng.integers(-127, 128, 192).astype(np.int8).tobytes() if number % 2 else b""
        made.append(
            Probe(
                f"{number:04}",
                bundle_id=bundle_id if embedding else "",
                embedding=embedding,
                least_cosine=0.99 if embedding else 0.0,
                condition=CONDITIONS,
                expires_ns=1 << 62,
            )
        )
    return ProbeSet(tuple(made))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bundle = bundles.load(None)
    config = LoopConfig()
    taken: dict[int, list[float]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as folder:
        drive = Path(folder) / "drive.mcap"
        simulate(
            ["--scenario", "demo", "--seed", "7", "--seconds", str(options.seconds), "--out", str(drive), "--json"]
        )
        for _ in range(options.rounds):
            for count in COUNTS:
                looked_for = probes(count, bundle.id) if count else None
                with Replay(drive, bundle, config=config, probes=looked_for) as run:
                    taken[count] += [decision.timings_ns["judge"] / 1e6 for decision in run]
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {len(taken[0])} frames each"
    )
    print(f"{'probes':>8} {'p50 ms':>9} {'p99 ms':>9} {'p50 more than none, ms':>24}")
    none = statistics.median(taken[0])
    for count, values in taken.items():
        p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
        print(f"{count:>8} {p50:>9.3f} {p99:>9.3f} {p50 - none:>24.3f}")


if __name__ == "__main__":
    main()
