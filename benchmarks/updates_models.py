"""Makes updates of the reference bundle for benchmarks/updates.py: heads retrained, or all layers fine-tuned.

    python benchmarks/updates_models.py heads --steps 150 --rate 1e-3 --out out/updates/heads
    python benchmarks/updates_models.py all --steps 200 --rate 2e-5 --out out/updates/all

The weights are those of export/reference, the worlds those of the training cache (out/train-cache: it is rendered
where it is missing, 23 minutes). Batch norm keeps its statistics; int8 scales are those of the reference bundle
(`lower_to(..., base=)`). Thresholds, confidence and figures are measured anew, as for any release; golden inputs stay.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge import golden
from edge.bundle import REFERENCE, Bundle, load
from export.evaluation.figures import measure
from export.lower import store_half
from export.lowerings import lower_to
from export.model.engines import lower_edge
from export.model.fusion import STATE
from export.model.network import Network
from export.model.tokens import Vocabulary
from export.pack import folder_bytes, write_bundle
from export.training.batches import Batch, batches
from export.training.command import FURTHER, QUANTISED, Lowered, bundle_content
from export.training.dataset import Split, prepare
from export.training.encoders import NCE, draw_presence
from export.training.losses import camera_loss, facts_loss, label_loss, nce_loss, onset_loss
from export.training.plan import FULL, plans
from export.training.schedule import Stage
from export.training.weights import load_weights, rounded, save_weights

WEIGHTS = Path("export/reference/weights.npz")
SEED = 1


def main() -> None:
    options = _options()
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    splits = {name: _split(options.cache, name) for name in ("train", "validation", "held_out")}
    net = load_weights(WEIGHTS)
    began = time.monotonic()
    losses = tune(net, splits["train"], Stage(options.steps, options.batch, options.rate), options.what)
    rounded(net)
    print(
        f"{options.what}: {options.steps} steps in {time.monotonic() - began:.0f} s, loss "
        f"{np.mean(losses[:10]):.4f} (first ten), {np.mean(losses[-10:]):.4f} (last ten)", flush=True
    )  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    save_weights(options.out.with_suffix(".npz"), net)
    lowered, graphs = lower_frozen(net, load(REFERENCE))
    towers = {name: onnx.load(WEIGHTS.parent / f"{name}.onnx") for name in ("text", "video")}
    words = Vocabulary.open(WEIGHTS.parent / "vocabulary.json")
    measured = measure(lowered.engines, graphs, towers, words, splits["validation"], splits["held_out"])
    base = load(REFERENCE)
    lineage = {
        **base.manifest["lineage"],
        "command": f"updates_models {options.what} --steps {options.steps} --rate {options.rate}",
        "scales_of": base.id,
    }
    content = bundle_content(lowered, measured, lineage, splits["held_out"], base.name)
    assert base.golden is not None
    kept = golden.read(base.golden.path).inputs
    ranges = {name: base.manifest["encoders"][name]["ranges_id"] for name in QUANTISED}
    precisions = {name: spec.precision for name, spec in base.engines.items()}
    content = dataclasses.replace(content, version="4", golden=kept, ranges=ranges, precisions=precisions)
    write_bundle(options.out, content)
    print(f"{options.out}  {folder_bytes(options.out)} bytes  {measured.line()}", flush=True)


def tune(net: Network, split: Split, stage: Stage, what: str) -> list[float]:
    """Trains the fused heads alone, or all that the vehicle carries; gives the loss of each step."""
    for parameter in net.parameters():
        parameter.requires_grad_(what == "all")
    trained = list(net.fuse.heads.parameters())
    if what == "all":
        parts = (net.camera, net.audio, net.motion, net.lidar, net.fuse)
        left_out = {id(p) for p in net.fuse.rebuild.parameters()}
        trained = [p for part in parts for p in part.parameters() if id(p) not in left_out]
    for parameter in trained:
        parameter.requires_grad_(True)
    net.eval()  # batch norm keeps its statistics
    optimiser = torch.optim.AdamW(trained, lr=stage.rate, weight_decay=0.01)
    losses = []
    for step, batch in enumerate(batches(split, 0, stage.steps, stage.batch, SEED + 70)):
        for group in optimiser.param_groups:
            group["lr"] = stage.rate_at(step)
        loss = _loss(net, batch, torch.Generator().manual_seed(step), what)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            print(f"  step {step}: {losses[-1]:.4f}", flush=True)
    return losses


def _loss(net: Network, batch: Batch, rng: torch.Generator, what: str) -> Tensor:
    with torch.set_grad_enabled(what == "all"):
        found = net.encode(batch.image, batch.pcm, batch.motion, batch.lidar, fast=True)
        anchor = net.facts(batch.facts).detach()
    presence = draw_presence(len(anchor), rng)
    fused = net.fuse(found.embeddings * presence[:, :, None], presence, torch.zeros(len(anchor), STATE))
    total = label_loss(fused.logits["scene_tags"], batch.tags) + label_loss(fused.logits["sound_events"], batch.sounds)
    total = total + 0.3 * F.cross_entropy(fused.logits["ego_action"], batch.single[:, 0])
    total = total + 0.3 * F.cross_entropy(fused.logits["intent"], batch.single[:, 1])
    if what == "all":
        total = total + torch.stack(list(camera_loss(found.maps, batch).values())).sum()
        total = total + onset_loss(found.onsets, batch.onsets) + facts_loss(fused.facts, batch.facts)
        total = total + NCE * nce_loss(fused.embedding, anchor, net.temperature.detach(), batch.moment)
    return total


def lower_frozen(net: Network, base: Bundle) -> tuple[Lowered, dict[str, onnx.ModelProto]]:
    """The engines with the scales of a bundle, and the float graphs."""
    graphs = lower_edge(net)
    found = Lowered({}, {}, {})
    for name, model in graphs.items():
        if name in QUANTISED:
            frozen = onnx.load_from_string(base.engines[name].file.read())
            found.targets[name] = {
                target: store_half(lower_to(model, None, target, base=frozen)) for target in FURTHER
            }  # fmt: skip
            model = lower_to(model, None, "x86", base=frozen)
        found.engines[name] = store_half(model)
    return found, graphs


def _split(cache: Path, name: str) -> Split:
    return prepare(cache / name, plans(name, FULL, SEED), 2, name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("heads", "all"))
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"))
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
