"""The analyst on simulated drives through held-out towns: how often its labels hold, how sure it is, what it costs.

    python benchmarks/analyst.py [--drives 12] [--seconds 10]

Each drive goes through the analyst as a clip would. Truth is the world's: the facts of a caption
(export/world/facts.py), a label that they say holds. At the same moments the bundle's heads, the network and their mean
are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from cloud.analyst.analyst import Analyst
from cloud.analyst.clip import replayed
from cloud.labels import LABELS
from edge.drive import topics
from edge.drive.codec import timestamp_ns
from edge.drive.reader import DriveReader
from export.world.command import main as simulate
from export.world.facts import Facts, facts
from roadfuse.v1.truth_pb2 import GroundTruth

SCENARIOS = ("demo", "mixed")
HELD_OUT = range(300, 400)
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
RAIN_DB, RAIN_DBFS = -12.0, -42.0
BINS = 10


def true_labels(path: Path) -> dict[int, tuple[set[str], set[str]]]:
    """What holds at each camera frame, and the facts that can't be known there: light and weather in a tunnel."""
    found = {}
    with DriveReader(path) as drive:
        for message in drive.messages(topics=[topics.TRUTH]):
            truth = GroundTruth.FromString(message.payload)
            told = facts(truth)
            unknown = {name for name in ("light", "weather") if not getattr(told, name)}
            found[timestamp_ns(truth.timestamp)] = labels_of(told, truth), unknown
    return found


def labels_of(told: Facts, truth: GroundTruth) -> set[str]:
    """Facts by the names of labels."""
    found = {f"{name}:{getattr(told, name)}" for name in ("place", "light", "weather", "action", "vehicles", "sign")}
    found |= {f"large:{told.kind}", f"intent:{told.intent}", *(f"sound:{name}" for name in told.sounds)}
    if told.emergency:
        found.add("emergency:yes")
    if any(s.name == "rain" and s.prominence_db >= RAIN_DB and s.level_dbfs >= RAIN_DBFS for s in truth.sounds):
        found.add("sound:rain")
    return found & set(LABELS)


class Score:
    """Statements and what came of them."""

    def __init__(self) -> None:
        self.said: list[float] = []
        self.was: list[bool] = []

    def add(self, probability: float, is_so: bool) -> None:
        """One statement."""
        self.said.append(probability)
        self.was.append(is_so)

    def figures(self) -> dict[str, float]:
        """Accuracy at 0.5, F1, and the expected calibration error over ten bins."""
        said, was = np.array(self.said), np.array(self.was)
        yes = said >= 0.5
        hits = float((yes & was).sum())
        place = np.minimum((said * BINS).astype(int), BINS - 1)
        apart = [abs(said[place == i].sum() - was[place == i].sum()) for i in range(BINS)]
        return {
            "statements": len(said),
            "accuracy": float((yes == was).mean()),
            "f1": 2 * hits / max(float(yes.sum() + was.sum()), 1.0),
            "ece": float(sum(apart)) / len(said),
        }


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drives", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--first-seed", type=int, default=9_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    analyst = Analyst.open()
    if analyst.network is None:
        print(f"no network: {analyst.without_network}", file=sys.stderr)
        return 2
    shared: dict[str, Score] = defaultdict(Score)  # labels that heads and network both say
    alone: dict[str, Score] = defaultdict(Score)
    vehicle = np.zeros(5)
    cpu_s = wall_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.drives):
            path = Path(folder) / f"{i}.mcap"
            words = ["--seed", options.first_seed + i, "--town", HELD_OUT[i % 100], "--seconds", options.seconds]
            with contextlib.redirect_stdout(io.StringIO()):
                simulate([*map(str, words), "--scenario", SCENARIOS[i % 2], "--out", str(path), "--json"])
            truth = true_labels(path)
            started, before = time.perf_counter(), cpu()
            clip = replayed(path, analyst.bundle, analyst.heads, lambda _: None)
            analyst.look(clip)
            cpu_s, wall_s = cpu_s + cpu() - before, wall_s + time.perf_counter() - started
            network = analyst.network.look(clip.embeddings, clip.presence, clip.boxes).labels
            views: dict[str, Any] = {f"{part:g}": mixed(clip.labels, network, part) for part in PARTS}
            for m, stamp_ns in enumerate(clip.stamps_ns):
                if stamp_ns not in truth:  # the camera gave no picture
                    continue
                here, unknown = truth[stamp_ns]
                for label in LABELS:
                    if label.partition(":")[0] in unknown:
                        continue
                    if label in clip.labels[m]:
                        is_said = clip.labels[m][label] >= 0.5
                        doubt = 1.0 - network[m][label] if is_said else network[m][label]
                        is_wrong = is_said != (label in here)
                        vehicle += [1.0, is_wrong, doubt, doubt > 0.5, is_wrong and doubt > 0.5]
                        for name, labels in views.items():
                            shared[name].add(labels[m][label], label in here)
                    elif label in network[m]:
                        alone[label.partition(":")[0]].add(network[m][label], label in here)
            path.unlink()
            print(f"{i + 1} of {options.drives}", file=sys.stderr)
    result = {
        "both say, by the network's part": {name: score.figures() for name, score in shared.items()},
        "the network alone": {name: score.figures() for name, score in alone.items()},
        "vehicle": dict(
            zip(("statements", "wrong", "wrong as expected", "found", "found and wrong"), vehicle.tolist())
        ),
        "cpu_s_per_s": cpu_s / (options.drives * options.seconds),
        "wall_s_per_s": wall_s / (options.drives * options.seconds),
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    for name in ("both say, by the network's part", "the network alone"):
        print(name)
        for row, figures in result[name].items():  # type: ignore[attr-defined]
            print(f"  {row:<12}" + "  ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    print(f"vehicle: {result['vehicle']}")
    print(f"cost: {result['cpu_s_per_s']:.3f} s of processor, {result['wall_s_per_s']:.3f} s, a second of clip")
    return 0


def mixed(heads: list[dict[str, float]], network: list[dict[str, float]], part: float) -> list[dict[str, float]]:
    """The weighted mean of log-odds where both know a label."""
    return [
        {**here, **{name: _mean(here[name], p, part) if name in here else p for name, p in there.items()}}
        for here, there in zip(heads, network)
    ]


def _mean(heads: float, network: float, part: float) -> float:
    odds = [math.log(p / (1.0 - p)) for p in (min(max(p, 1e-6), 1.0 - 1e-6) for p in (heads, network))]
    return 1.0 / (1.0 + math.exp(-((1.0 - part) * odds[0] + part * odds[1])))


def cpu() -> float:
    """Of this process and of those that it ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    sys.exit(main())
