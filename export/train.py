"""`roadfuse train`: renders worlds, trains, lowers to int8, measures on held-out worlds, writes a bundle."""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch

from calibration.ranges import Ranges, collect, write_ranges
from edge.errors import ConfigError
from export.dataset import Split, prepare
from export.evaluate import Figures, Thresholds, choose_thresholds, difference, evaluate
from export.labels import OBJECTS, SCENE_TAGS, SOUND_EVENTS
from export.learn import Network, Schedule, embeddings_of, fit_scores, train_encoders, train_fusion
from export.lower import lower_all, store_half
from export.lowerings import lower_to
from export.pack import BundleContent, folder_bytes, write_bundle
from export.plan import FULL, HELD_OUT_SEED, SMALL, Size, plans
from export.runner import ENGINES, latency_ms, open_engines
from export.weights import save_weights

FULL_SCHEDULE = Schedule(1080, 64, 1.5e-3, 300, 64, 2e-3, 16)
SMALL_SCHEDULE = Schedule(24, 32, 1.5e-3, 24, 16, 2e-3, 6)
QUANTISED = ("camera", "audio")  # motion and fuse gain nothing from int8: 0.03 and 0.1 ms in float
CALIBRATION_FRAMES = 768


def main(argv: list[str]) -> int:
    """Entry point of `roadfuse train`."""
    options = _options(argv)
    size, schedule = (SMALL, SMALL_SCHEDULE) if options.small else (FULL, FULL_SCHEDULE)
    size = dataclasses.replace(size, train=options.worlds or size.train)
    schedule = dataclasses.replace(schedule, steps=options.steps or schedule.steps)
    _seed_everything(options.seed, options.threads)
    splits = _splits(options.cache, size, options.seed, options.workers)
    net, training = _train(splits["train"], schedule, options.seed)
    graphs = lower_all(net.camera, net.audio, net.motion, net.fuse)
    engines, ranges = _lower_precision(graphs, splits["train"])
    figures, thresholds = _measure(graphs, engines, splits)
    lineage = {
        "command": "roadfuse train " + " ".join(_command(options)),
        "seed": options.seed,
        "training": training | {"schedule": dataclasses.asdict(schedule), "threads": options.threads},
        "worlds": _worlds(size, options.seed, splits),
        "ranges": {name: {"id": found.id, "samples": found.samples} for name, found in ranges.items()},
    }
    _write(options, engines, ranges, figures, thresholds, lineage)
    if options.weights:
        save_weights(options.weights, net)
    print(f"bundle {options.out}  {folder_bytes(options.out) / 1e6:.2f} MB  {_summary(figures)}")
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="roadfuse train", description="Train the reference bundle.")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    parser.add_argument("--seed", type=int, default=1, help="weights, batches and training worlds (1 .. 100)")
    parser.add_argument("--small", action="store_true", help="a minute's training on a few short worlds, for tests")
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds")
    parser.add_argument("--weights", type=Path, help="also save float weights here (.npz), int8 ranges beside")
    parser.add_argument("--threads", type=int, default=1, help="of the training; results depend on it")
    parser.add_argument("--workers", type=int, default=2, help="processes that render worlds")
    parser.add_argument("--steps", type=int, help="optimiser steps of the encoders")
    parser.add_argument("--worlds", type=int, help="training worlds")
    options = parser.parse_args(argv)
    if not 1 <= options.seed <= 100:
        raise ConfigError(f"--seed: expected 1..100, got {options.seed}")
    if options.small:
        options.cache = options.cache / "small"
    return options


def _command(options: argparse.Namespace) -> list[str]:
    """The options that decide the result."""
    words = ["--seed", str(options.seed), "--threads", str(options.threads)]
    words += ["--small"] if options.small else []
    for name in ("steps", "worlds"):
        words += [f"--{name}", str(getattr(options, name))] if getattr(options, name) else []
    return words


def _seed_everything(seed: int, threads: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nothing of ours draws from it; a library may
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _splits(cache: Path, size: Size, seed: int, workers: int) -> dict[str, Split]:
    return {
        split: prepare(cache / split, plans(split, size, seed), workers, split)
        for split in ("validation", "held_out", "train")
    }


def _train(split: Split, schedule: Schedule, seed: int) -> tuple[Network, dict[str, object]]:
    net = Network()
    start = time.monotonic()
    encoder_losses = train_encoders(net, split, schedule, seed)
    found = embeddings_of(net, split, 2, seed)
    fusion_losses = train_fusion(net, found, split, schedule, seed)
    fit_scores(net, found, split, seed)
    print(f"trained in {time.monotonic() - start:.0f} s", file=sys.stderr)
    return net, {"encoder_losses": encoder_losses, "fusion_losses": fusion_losses}


def _lower_precision(
    graphs: Mapping[str, onnx.ModelProto], split: Split
) -> tuple[dict[str, onnx.ModelProto], dict[str, Ranges]]:
    """int8 for camera and audio, float stored as float16 for the rest."""
    engines, ranges = {}, {}
    for name in ENGINES:
        model = graphs[name]
        if name in QUANTISED:
            ranges[name] = collect(model.SerializeToString(deterministic=True), _feeds(name, split))
            model = lower_to(model, ranges[name], "x86")
        engines[name] = store_half(model)
    return engines, ranges


def _feeds(name: str, split: Split) -> Iterator[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]]:
    """Frames spread over all training worlds."""
    for row in np.linspace(0, len(split) - 1, min(CALIBRATION_FRAMES, len(split))).astype(int):
        if name == "camera":
            yield {"image": np.asarray(split.image[row : row + 1])}
        else:
            yield {"pcm": split.pcm[row : row + 1].astype(np.float32) / np.float32(32768.0)}


def _measure(
    graphs: Mapping[str, onnx.ModelProto], engines: Mapping[str, onnx.ModelProto], splits: Mapping[str, Split]
) -> tuple[Figures, Thresholds]:
    """Held-out figures of the int8 engines and of their float twins, with one set of thresholds."""
    low, full = (
        open_engines({name: model.SerializeToString(deterministic=True) for name, model in models.items()})
        for models in (engines, graphs)
    )
    thresholds = choose_thresholds(low, splits["validation"])
    int8 = evaluate(low, splits["held_out"], thresholds)
    fp32 = evaluate(full, splits["held_out"], thresholds)
    latency = {name: {"int8": latency_ms(low[name]), "fp32": latency_ms(full[name])} for name in ENGINES}
    return {
        "int8": int8,
        "fp32": fp32,
        "int8_minus_fp32_ap": difference(int8, fp32),
        "latency_ms_one_thread_p50": latency,
        "bytes": {name: len(model.SerializeToString()) for name, model in engines.items()},
        "machine": "2-core AMD EPYC, Python 3.11, shared with other work",
        "held_out": f"worlds of seeds from {HELD_OUT_SEED} on; training and validation use other seeds",
    }, thresholds


def _worlds(size: Size, seed: int, splits: Mapping[str, Split]) -> dict[str, object]:
    described: dict[str, object] = {}
    for name, split in splits.items():
        drawn = plans(name, size, seed)
        described[name] = {
            "seeds": [drawn[0].seed, drawn[-1].seed], "frames": len(split), "seconds_each": drawn[0].seconds,
            "world_sha256": split.world_sha256,
        }  # fmt: skip
    return described


def _write(
    options: argparse.Namespace, engines: Mapping[str, onnx.ModelProto], ranges: Mapping[str, Ranges],
    figures: Figures, thresholds: Thresholds, lineage: dict[str, object],
) -> None:  # fmt: skip
    precisions = {name: "int8" if name in QUANTISED else "fp32" for name in ENGINES}
    heads = {"scene_tags": list(SCENE_TAGS), "sound_events": list(SOUND_EVENTS), "objects": list(OBJECTS)}
    identities = {name: found.id for name, found in ranges.items()}
    name = "small" if options.small else "reference"
    content = BundleContent(
        engines, precisions, heads, thresholds.as_json(), figures, lineage, name=name, ranges=identities
    )
    write_bundle(options.out, content)
    if options.weights:
        options.weights.parent.mkdir(parents=True, exist_ok=True)
        for engine, found in ranges.items():
            write_ranges(options.weights.parent / f"{engine}.ranges.json", found)


def _summary(figures: Figures) -> str:
    whole = figures["int8"]
    assert isinstance(whole, dict)
    best = whole["missing"]["camera+audio+motion"]
    return f"held-out mean AP: tags {best['scene_tags_ap']:.3f}, sounds {best['sound_events_ap']:.3f}"
