"""Hard-scene mining: how many of the vehicle's true errors are in the scenes that go up first.

    python benchmarks/mining.py [--more FOLDER]

Stretches of seven moments (1.75 s) of held-out worlds compete for a share of all bytes. An error is one head wrong at
one moment: a tag or sound on the wrong side of its threshold, the wrong action, the wrong pressing intent. Each way of
choosing sees what the vehicle knows, never the truth. Intervals: 1,000 bootstrap draws of whole worlds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from moments import BUNDLE, Moments, moments
from numpy.typing import NDArray

from edge.decision import HeadReadings, Reading, Tag, rows
from edge.judge import Judge
from edge.uplink.summary import doubt, worth
from export.evaluation.heads import Thresholds
from export.model.labels import SCENE_TAGS, SOUND_EVENTS
from roadfuse.v1.ingest_pb2 import SceneSummary

STRETCH: Final = 7
SHARES: Final = (0.01, 0.05, 0.10)
DRAWS: Final = 1_000
ENTROPY: Final = "entropy only"
HEADS: Final = ("scene_tags", "sound_events", "ego_action", "intent")
F64 = NDArray[np.float64]


def errors(known: Moments, limits: Thresholds) -> NDArray[np.int64]:
    """(n,) how many heads are wrong at each moment."""
    fused = known.fused
    tags = (fused["scene_tags"] >= np.array(limits.tags)) != (known.tags > 0)
    sounds = (fused["sound_events"] >= np.array(limits.sounds)) != (known.sounds > 0)
    action = fused["ego_action"].argmax(1) != known.single[:, 0]
    intent = fused["intent"].argmax(1) != known.single[:, 1]
    return np.asarray(tags.sum(1) + sounds.sum(1) + action + intent, np.int64)


def summaries(known: Moments) -> list[SceneSummary]:
    """What the vehicle tells of each stretch: its hardest frame, by the vehicle's own judge."""
    found = []
    for start in range(0, len(known), known.per_world):
        judge, frames = Judge(), []
        for row in range(start, start + known.per_world):
            tags = rows(Tag, SCENE_TAGS, map(float, known.fused["scene_tags"][row]))
            sounds = rows(Tag, SOUND_EVENTS, map(float, known.fused["sound_events"][row]))
            scores = tuple(map(float, known.fused["scores"][row]))
            frames.append((*judge(row, scores, tags, sounds, (), 0.0), tags, sounds))
        for at in range(0, known.per_world, STRETCH):
            hardness, told, tags, sounds = max(frames[at : at + STRETCH], key=lambda frame: frame[0])
            summary = SceneSummary(hardness=hardness)
            for name, value, weight in told:
                summary.scores.add(name=name, value=value, weight=weight)
            for kept, said in ((summary.scene_tags, tags), (summary.sound_events, sounds)):
                for name, p in said:
                    if p >= 0.5:
                        kept.add(name=name, probability=p)
            found.append(summary)
    return found


def values(known: Moments, limits: Thresholds, size: F64) -> dict[str, F64]:
    """What each way of choosing thinks of each stretch; those it likes most go up first."""
    told = summaries(known)
    vectors = known.fused["embedding"].reshape(-1, STRETCH, known.fused["embedding"].shape[1]).mean(1)
    entropy = mean_entropy(known)
    return {
        "random": np.random.default_rng(0).random(len(told)),
        "diversity only (k-center)": -np.argsort(k_centres(vectors)).astype(np.float64),
        ENTROPY: np.array([next(s.value for s in one.scores if s.name == "uncertainty") for one in told]),
        "entropy of all heads, whole stretch": entropy,
        "the same a byte": entropy / size,
        "worth a byte": np.array([worth(one, doubts) for one, doubts in zip(told, doubted(known))]) / size,
        "expected errors a byte": expected(known, limits) / size,
    }


def doubted(known: Moments) -> F64:
    """Of each stretch, what the vehicle's recorder sums up: doubt of its decisions."""
    found = []
    for row in range(len(known)):
        choices = tuple(
            HeadReadings(name, tuple(Reading(str(i), float(p)) for i, p in enumerate(known.fused[name][row])))
            for name in ("ego_action", "intent")
        )
        tags = rows(Tag, SCENE_TAGS, map(float, known.fused["scene_tags"][row]))
        sounds = rows(Tag, SOUND_EVENTS, map(float, known.fused["sound_events"][row]))
        found.append(doubt(SimpleNamespace(scene_tags=tags, sound_events=sounds, heads=choices)))  # type: ignore[arg-type]
    return np.array(found).reshape(-1, STRETCH).sum(1)


def mean_entropy(known: Moments) -> F64:
    """Of each stretch, bits a moment."""
    total = np.zeros(len(known))
    for name in HEADS:
        p = np.clip(known.fused[name], 1e-6, 1.0 - 1e-6)
        if name in ("ego_action", "intent"):
            total -= (p * np.log2(p)).sum(1)
        else:
            total -= (p * np.log2(p) + (1.0 - p) * np.log2(1.0 - p)).sum(1)
    return np.asarray(total.reshape(-1, STRETCH).mean(1), np.float64)


def expected(known: Moments, limits: Thresholds) -> F64:
    """Of each stretch the errors that calibrated heads expect of themselves, all its moments together."""
    fused = known.fused
    p = np.concatenate([fused["scene_tags"], fused["sound_events"]], 1)
    doubt = np.where(p >= np.array(limits.tags + limits.sounds), 1.0 - p, p).sum(1)
    doubt = doubt + sum(1.0 - fused[name].max(1) for name in ("ego_action", "intent"))
    return np.asarray(doubt.reshape(-1, STRETCH).sum(1), np.float64)


def k_centres(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Always the one that is farthest from all before it. Ref: Sener and Savarese, arXiv 1708.00489."""
    order = [0]
    near = 1.0 - vectors @ vectors[0]
    for _ in range(len(vectors) - 1):
        near[order[-1]] = -np.inf
        order.append(int(near.argmax()))
        near = np.minimum(near, 1.0 - vectors @ vectors[order[-1]])
    return np.array(order)


def recalls(value: F64, wrong: F64, size: F64) -> list[float]:
    """Share of all errors in what is sent, by share of bytes; what does not fit any more is not sent."""
    order = np.argsort(-value, kind="stable")
    spent = np.cumsum(size[order])
    return [float(wrong[order][spent <= share * size.sum()].sum() / wrong.sum()) for share in SHARES]


def bootstrapped(value: dict[str, F64], wrong: F64, size: F64, per_world: int) -> dict[str, Any]:
    """Recalls, and their ratio to entropy alone, with intervals of 95 % over worlds drawn again."""
    rng, worlds = np.random.default_rng(0), len(wrong) // per_world
    drawn = []
    for _ in range(DRAWS):
        chosen = (rng.integers(0, worlds, worlds)[:, None] * per_world + np.arange(per_world)).reshape(-1)
        drawn.append([recalls(each[chosen], wrong[chosen], size[chosen]) for each in value.values()])
    spread = np.array(drawn)
    ratio = spread / spread[:, [list(value).index(ENTROPY)]]
    whole = {name: recalls(each, wrong, size) for name, each in value.items()}
    return {
        name: {
            "recall": whole[name],
            "interval": np.quantile(spread[:, i], (0.025, 0.975), 0).T.round(4).tolist(),
            "to entropy": (np.array(whole[name]) / np.array(whole[ENTROPY])).tolist(),
            "to entropy, interval": np.quantile(ratio[:, i], (0.025, 0.975), 0).T.round(3).tolist(),
        }
        for i, name in enumerate(value)
    }


def main(argv: list[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds of the bundle")
    parser.add_argument(
        "--more", type=Path, default=Path("out/more-worlds"), help="further worlds, rendered if missing"
    )
    parser.add_argument("--out", type=Path, help="figures as JSON")
    options = parser.parse_args(argv)
    known = moments("held_out", options.cache, options.more)
    limits = Thresholds.from_json(json.loads((BUNDLE / "manifest.json").read_text())["thresholds"])
    wrong = errors(known, limits).reshape(-1, STRETCH).sum(1).astype(np.float64)
    size = known.clip_bytes.reshape(-1, STRETCH).sum(1).astype(np.float64)
    print(f"{len(wrong)} stretches, {int(wrong.sum())} errors at {len(known)} moments")
    value = values(known, limits, size) | {"the errors themselves, a byte (bound)": wrong / size}
    found = bootstrapped(value, wrong, size, known.per_world // STRETCH)
    for name, row in found.items():
        cells = [
            f"{r:.3f} ({low:.3f}..{high:.3f}) x{ratio:.2f} ({a:.2f}..{b:.2f})"
            for r, (low, high), ratio, (a, b) in zip(
                row["recall"], row["interval"], row["to entropy"], row["to entropy, interval"]
            )
        ]
        print(f"{name:40s}" + "   ".join(cells))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
