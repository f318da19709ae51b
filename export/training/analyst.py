"""Trains the analyst, the cloud's network over whole clips, on what the shipped engines say of worlds new to them:

    python -m export.training.analyst --bundle edge/bundles/reference --out export/reference/analyst.onnx

Its inputs are the engines' embeddings and boxes of every moment, as vehicles send them; modalities are missing now
and then. Temperatures are fitted on the validation worlds, figures come from the held-out ones. With `--keep` the
network stays and is measured with another version of the bundle, one whose encoders are the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edge.bundle import load
from export.evaluation.analyst import all_right, fact_figures, recall_figures
from export.evaluation.runner import engines_said
from export.lower import OPSET, store_half
from export.model.analyst import Analyst, Panel, probabilities
from export.model.analyst_outputs import BOXES, COLUMNS, GROUPS, STEP_S, WINDOW, fact_slices
from export.model.labels import FACT_VALUES, FACTS, MODALITIES
from export.model.layers import EMBEDDING
from export.model.network import Network
from export.training.analyst_clips import Clips
from export.training.analyst_confidence import fitted_absence, fitted_temperatures
from export.training.curves import write_curves
from export.training.dataset import Split, prepare
from export.training.encoders import draw_presence
from export.training.losses import facts_loss, nce_loss
from export.training.plan import FULL, SMALL, plans
from export.training.progress import Progress
from export.training.schedule import Stage
from export.training.sequences import near_miss_loss, run_worlds
from export.training.weights import load_weights

STAGE, SMALL_STAGE = Stage(1300, 64, 2e-3), Stage(6, 4, 2e-3)
SPLITS = ("fresh", "validation", "held_out")  # of worlds that they know, encoders are surer than they will be
WHOLE = 0.5  # share of the clips that lack no modality
FLICKER = 0.02  # chance that a modality is missing at one moment alone
NOISE = 0.02
FEW = 512  # moments of a batch that are told apart from each other
RETRIEVAL, NEAR_MISS = 0.5, 0.5  # weights


def main(argv: list[str]) -> int:
    """Entry point of `python -m export.training.analyst`."""
    options = _options(argv)
    stage = SMALL_STAGE if options.small else STAGE
    stage = dataclasses.replace(stage, steps=options.steps or stage.steps)
    torch.set_num_threads(options.threads)
    bundle, net = load(options.bundle), load_weights(options.weights)
    clips = {
        name: Clips.of(split, *engines_said(options.bundle, bundle.id, split, folder))
        for name, (split, folder) in _splits(options, ("held_out",) if options.keep else SPLITS).items()
    }
    beside = options.out.with_suffix(".json")
    if options.keep:
        model, said = options.out.read_bytes(), json.loads(beside.read_text())
    else:
        model, said = _trained(options, stage, bundle.id, net, clips)
    said |= {"space": bundle.id, "figures": figures_of(model, net, clips["held_out"])}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(model)
    beside.write_text(json.dumps(said, indent=1) + "\n")
    print(json.dumps(said["figures"]["analyst"] | {"bytes": len(model)}))
    return 0


def _trained(
    options: argparse.Namespace, stage: Stage, bundle_id: str, net: Network, clips: Mapping[str, Clips]
) -> tuple[bytes, dict[str, Any]]:
    """The network's file, and what its JSON says of it before it is measured."""
    key = {"analyst": options.seed, "members": options.members, "steps": stage.steps, "bundle": bundle_id}
    progress = Progress(options.run, key, 200, options.resume)
    panel = train_panel(net, clips["fresh"], stage, options.seed, options.members, progress)
    panel.temperatures.copy_(fitted_temperatures(panel, clips["validation"]))
    panel.absence.copy_(fitted_absence(panel, clips["validation"]))
    if options.run:
        write_curves(options.run, progress.history)
    model = lower_panel(panel).SerializeToString(deterministic=True)
    return model, {
        "model": hashlib.sha256(model).hexdigest(), "space": bundle_id, "step_s": STEP_S, "window": WINDOW,
        "columns": list(COLUMNS), "seed": options.seed, "members": options.members, "steps": stage.steps,
        "worlds": {name: len(one.facts) // one.per_world for name, one in clips.items()},
        "parameters": sum(p.numel() for p in panel.parameters()),
        "temperatures": dict(zip(GROUPS, (round(float(t), 4) for t in panel.temperatures))),
        "absence": dict(zip(GROUPS, panel.absence.numpy().round(4).tolist())),
    }  # fmt: skip


def train_panel(net: Network, clips: Clips, stage: Stage, seed: int, members: int, progress: Progress) -> Panel:
    """Analysts that differ in their seeds alone; the facts' tower stays as it is."""
    panel = Panel([_seeded(seed, i) for i in range(members)]).train()
    for i, analyst in enumerate(panel.members):
        assert isinstance(analyst, Analyst)
        train_member(net, panel, analyst, clips, stage, seed * 100 + i, progress, f"analyst {i + 1}")
    return panel.eval()


def train_member(
    net: Network, panel: Panel, analyst: Analyst, clips: Clips, stage: Stage, seed: int, progress: Progress, name: str
) -> None:
    """Trains one of a panel; no matter which ones were trained before it."""

    def loss(batch: object, step: int) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(seed * 1_000_003 + step)  # of dropout
        terms, figures = _losses(net, analyst, clips, stage.batch, torch.Generator().manual_seed(seed * 999_983 + step))
        total = torch.stack(list(terms.values())).sum()
        return total, figures | {name: float(term.detach()) for name, term in terms.items()}

    own = list(analyst.parameters())
    progress.stage(name, panel, own, stage, lambda first: iter(range(first, stage.steps)), loss)


def _seeded(seed: int, member: int) -> Analyst:
    torch.manual_seed(seed * 100 + member)
    return Analyst()


def _losses(
    net: Network, analyst: Analyst, clips: Clips, size: int, rng: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weighted terms of a batch of clips, and what share of it was right."""
    longest = min(WINDOW, clips.per_world)
    length = longest if torch.rand(1, generator=rng) < 0.5 else int(torch.randint(1, longest + 1, (1,), generator=rng))
    first = torch.randint(0, clips.per_world - length + 1, (size,), generator=rng)
    first = first + torch.randint(0, clips.worlds, (size,), generator=rng) * clips.per_world
    rows = first[:, None] + torch.arange(length)
    given = clips.found[rows]
    given = F.normalize(given + torch.randn(given.shape, generator=rng) * NOISE, dim=3)
    presence = draw_presence(size, rng)
    presence[torch.rand(size, generator=rng) < WHOLE] = 1.0
    steady = (torch.rand(size, length, len(MODALITIES), generator=rng) >= FLICKER).float()
    seen = analyst(given, presence[:, None] * steady, clips.boxes[rows])
    rows = rows.flatten()
    logits, embedding = seen.logits.flatten(0, 1), seen.embedding.flatten(0, 1)
    facts, moment = clips.facts[rows], clips.moment[rows]
    few = torch.randperm(len(rows), generator=rng)[:FEW]
    with torch.no_grad():
        anchor = net.facts(facts[few])
    terms = {
        "facts": facts_loss(logits[:, :FACT_VALUES], facts),
        "besides": 0.3 * F.binary_cross_entropy_with_logits(logits[:, FACT_VALUES:], clips.besides[rows]),
        "retrieval": RETRIEVAL * nce_loss(embedding[few], anchor, net.temperature.detach(), moment[few]),
        "near misses": NEAR_MISS * near_miss_loss(net, embedding[few], anchor, facts[few], rng),
    }
    best = (embedding[few] @ anchor.t()).argmax(1)
    right = [(logits[:, part].argmax(1) == facts[:, i]).float().mean() for i, part in enumerate(fact_slices())]
    return terms, {
        "R@1 in the batch": float((moment[few][best] == moment[few]).float().mean()),
        "facts right": float(torch.stack(right).mean()),
    }


def figures_of(model: bytes, net: Network, clips: Clips) -> dict[str, Any]:
    """Of the file as it ships, on held-out worlds, beside the vehicle's fusion, whose facts are not tempered."""
    said, embedding = _said(model, clips)
    facts, besides = clips.facts.numpy(), clips.besides.numpy().astype(np.int64)
    with torch.no_grad():
        anchor = net.facts(clips.facts).numpy()
        fused = run_worlds(net.fuse, clips.found, clips.per_world)
        ones = torch.ones(len(GROUPS))
        vehicle = probabilities(torch.cat([net.fuse.facts(fused * 8.0), torch.zeros(len(fused), 5)], 1), ones).numpy()
    own, theirs = fact_figures(said, facts, besides), fact_figures(vehicle, facts, besides)
    missing = {}
    for i, name in enumerate(MODALITIES):
        present = tuple(j != i for j in range(len(MODALITIES)))
        p, _ = _said(model, clips, present)
        missing[f"without {name}"] = all_right(fact_figures(p, facts, besides))
    return {
        "moments": len(facts),
        "analyst": all_right(own) | recall_figures(embedding, anchor, facts),
        "vehicle": all_right(theirs) | recall_figures(fused.numpy(), anchor, facts),
        "missing": missing,
        "facts": {
            name: one | ({"vehicle accuracy": theirs[name]["accuracy"]} if name in GROUPS[: len(FACTS)] else {})
            for name, one in own.items()
        },
    }


def _said(
    model: bytes, clips: Clips, present: tuple[bool, ...] = (True,) * len(MODALITIES)
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(frames, OUTPUTS) probabilities and (frames, 192): every world from end to end."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    worlds = clips.found.numpy().reshape(-1, clips.per_world, len(MODALITIES), EMBEDDING)
    presence = np.tile(np.array(present, np.float32), (clips.per_world, 1))
    boxes = clips.boxes.numpy().reshape(len(worlds), clips.per_world, *BOXES)
    found = [
        session.run(None, {"embeddings": world, "presence": presence, "boxes": seen})
        for world, seen in zip(worlds, boxes)
    ]
    said, embedding = (np.concatenate(column) for column in zip(*found))
    return said, embedding


def lower_panel(panel: Panel) -> onnx.ModelProto:
    """As an ONNX graph of any number of moments up to WINDOW; float16 weights, float32 arithmetic."""
    t, count = WINDOW // 2, len(MODALITIES)
    example = (torch.zeros(t, count, EMBEDDING), torch.ones(t, count), torch.zeros(t, *BOXES))
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder, "analyst.onnx")
        torch.onnx.export(
            panel.eval(), example, path, input_names=["embeddings", "presence", "boxes"],
            output_names=["probabilities", "embedding"], opset_version=OPSET, dynamo=False,
            dynamic_axes={name: {0: "t"} for name in ("embeddings", "presence", "boxes", "probabilities", "embedding")},
        )  # fmt: skip
        return store_half(onnx.load(path))


def _splits(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, tuple[Split, Path]]:
    """Splits and the folder of each one's worlds."""
    size, cache = (SMALL, options.cache / "small") if options.small else (FULL, options.cache)
    return {name: (prepare(cache / name, plans(name, size, 1), 1, name), cache / name) for name in names}


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.training.analyst", description=__doc__.split(":")[0])
    parser.add_argument("--bundle", type=Path, default=Path("edge/bundles/reference"))
    parser.add_argument("--weights", type=Path, default=Path("export/reference/weights.npz"), help="of that bundle")
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds")
    parser.add_argument("--out", type=Path, required=True, help="ONNX to write, figures beside (.json)")
    parser.add_argument("--run", type=Path, help="folder of checkpoints and curves")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--keep", action="store_true", help="measure the network at --out; train nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="of each member; 0: as shipped")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
