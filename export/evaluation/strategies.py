"""Which way of fusing is best: every strategy trained on the same embeddings, and every modality alone.

    python -m export.evaluation.strategies --weights export/reference/weights.npz --cache out/train-cache \\
        --out export/reference/strategies.json

A row is the same schedule and seed with another strategy: mean over the fusion's heads with everything there
(accuracy), its worst fall with one modality absent and the fall with the camera alone (robustness), one step's time
on one thread.
The rows of one modality alone are networks that never saw another one: what fusion has to beat, head by head.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.evaluation.figures import SUBSETS
from export.evaluation.heads import fused_summary
from export.evaluation.runner import F32, latency_ms, open_engines
from export.lower import lower
from export.model.fusion import STATE, FuseNet
from export.model.labels import MODALITIES
from export.model.layers import EMBEDDING
from export.model.network import Network
from export.model.strategies import FEATURES, STRATEGIES
from export.training import schedule as schedules
from export.training.dataset import Split, prepare
from export.training.encoders import embeddings_from, features_of
from export.training.plan import FULL, SMALL, plans
from export.training.progress import Progress
from export.training.sequences import Labels, train_fusion
from export.training.weights import load_weights


def main(argv: list[str]) -> int:
    """Entry point of `python -m export.evaluation.strategies`."""
    options = _options(argv)
    size, schedule = (SMALL, schedules.SMALL) if options.small else (FULL, schedules.FULL)
    stage = dataclasses.replace(schedule.fusion, steps=options.steps or schedule.fusion.steps)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    device, cache = torch.device("cpu"), options.cache / "small" if options.small else options.cache
    splits = {name: prepare(cache / name, plans(name, size, options.seed), 1, name) for name in ("fresh", "held_out")}
    trained = load_weights(options.weights)
    features = {name: features_of(trained, split, device) for name, split in splits.items()}
    found = {name: embeddings_from(trained, given)[None] for name, given in features.items()}
    labels = Labels.of(splits["fresh"])
    rows: dict[str, Any] = {}
    for name in STRATEGIES:
        torch.manual_seed(options.seed)
        net = _with(trained, name)
        early = features["fresh"] if name == "early" else None
        train_fusion(net, found["fresh"], labels, stage, schedule.unroll, options.seed, Progress(None, {}, 1), early)
        rows[name] = strategy_row(net, found["held_out"][0], features["held_out"], splits["held_out"])
        print(name, json.dumps(rows[name]["all"]), file=sys.stderr)
    alone: dict[str, Any] = {}
    for i, name in enumerate(MODALITIES):
        torch.manual_seed(options.seed)
        net = _with(trained, "intermediate")
        train_fusion(
            net, found["fresh"], labels, stage, schedule.unroll, options.seed, Progress(None, {}, 1), only=i, name=name
        )
        only = tuple(k == i for k in range(len(MODALITIES)))
        alone[name] = fused_summary(run(net, found["held_out"][0], None, splits["held_out"], only), splits["held_out"])
        print(name, json.dumps(alone[name]), file=sys.stderr)
    options.out.write_text(
        json.dumps({"steps": stage.steps, "seed": options.seed, "strategies": rows, "alone": alone}, indent=1) + "\n"
    )
    return 0


def strategy_row(net: Network, found: Tensor, features: Tensor, split: Split) -> dict[str, Any]:
    """Accuracy, robustness, time and size of a trained strategy."""
    early = features if net.fuse.strategy == "early" else None
    runs = {name: fused_summary(run(net, found, early, split, present), split) for name, present in SUBSETS.items()}
    whole = runs["all"]["mean"]
    falls = {name: 100.0 * (1.0 - row["mean"] / whole) for name, row in runs.items()}
    return {
        "all": runs["all"],
        "worst_fall_percent": max(fall for name, fall in falls.items() if name.startswith("without")),
        "camera_only_fall_percent": falls["camera only"],
        "falls_percent": falls,
        "latency_ms": step_latency_ms(net.fuse),
        "parameters": sum(p.numel() for p in net.fuse.parameters()),
    }


@torch.no_grad()
def run(
    net: Network, found: Tensor, features: Tensor | None, split: Split, present: tuple[bool, ...]
) -> dict[str, F32]:
    """(n, ...) probabilities by head, each world from its start; all worlds side by side."""
    net.eval()
    worlds = len(found) // split.per_world
    presence = torch.tensor(present, dtype=torch.float32).expand(worlds, -1)
    state = torch.zeros(worlds, STATE)
    outputs: dict[str, list[Tensor]] = {}
    for step in range(split.per_world):
        rows = torch.arange(worlds) * split.per_world + step
        given = found[rows] * presence[:, :, None] if features is None else features[rows].float()
        fused = net.fuse(given, presence, state)
        state = fused.state
        for name, logits in fused.logits.items():
            exclusive = name in ("ego_action", "intent")
            outputs.setdefault(name, []).append(torch.softmax(logits, 1) if exclusive else torch.sigmoid(logits))
    return {name: torch.stack(steps, 1).flatten(0, 1).numpy() for name, steps in outputs.items()}


class _Step(torch.nn.Module):
    """One step of any strategy with all its heads, for timing."""

    def __init__(self, net: FuseNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, given: Tensor, presence: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        seen, told, following = self.net.step(given, presence, state)
        return self.net.embed(seen), following, *(head(told) for head in self.net.heads.values())


def step_latency_ms(fuse: FuseNet) -> float:
    """Of one step in ONNX Runtime, float, one thread."""
    given = torch.zeros(1, sum(FEATURES)) if fuse.strategy == "early" else torch.zeros(1, len(MODALITIES), EMBEDDING)
    inputs = (given, torch.ones(1, len(MODALITIES)), torch.zeros(1, STATE))
    names = ["embedding", "state_next", *fuse.heads]
    model = lower(_Step(fuse), inputs, ["given", "presence", "state"], names)
    return latency_ms(open_engines({"fuse": model.SerializeToString()})["fuse"])[0]


def _with(trained: Network, strategy: str) -> Network:
    """A network of the strategy with the trained encoders and a fresh fusion."""
    net = Network(strategy)
    kept = {name: value for name, value in trained.state_dict().items() if not name.startswith("fuse.")}
    net.load_state_dict(kept, strict=False)
    return net


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.evaluation.strategies", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="of `roadfuse train`")
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of each strategy's training")
    parser.add_argument("--small", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
