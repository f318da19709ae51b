"""`roadfuse train`: renders worlds, trains, lowers to int8, measures on held-out worlds, writes a bundle."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from calibration.canonical import canonical_id
from calibration.ranges import Ranges, collect, read_ranges, write_ranges
from edge.bundle import load
from edge.errors import ConfigError
from edge.model_file import sha256_of
from export.evaluation.figures import ALL, Measured, learn_confidence, measure
from export.evaluation.runner import encode, fuse, open_engines
from export.lower import store_half
from export.lowerings import lower_to
from export.model import contract
from export.model.engines import lower_cloud, lower_edge
from export.model.fusion import STATE, FuseNet
from export.model.labels import MODALITIES
from export.model.network import Network
from export.model.strategies import STRATEGIES
from export.model.tokens import Vocabulary
from export.pack import BundleContent, folder_bytes, write_bundle
from export.training import schedule as schedules
from export.training.batches import Batch, plain
from export.training.curves import write_curves
from export.training.dataset import Split, prepare
from export.training.encoders import embeddings_of, train_camera, train_encoders
from export.training.equalise import equalise
from export.training.grow import settle
from export.training.language import learn_vocabulary, train_text
from export.training.mixin import Mixin, read_mixin
from export.training.plan import FULL, SMALL, Size, plans
from export.training.progress import Progress
from export.training.sequences import Labels, fit_scores, train_clips, train_fusion
from export.training.weights import VOCABULARY, load_weights, read_towers, rounded, save_towers, save_weights

QUANTISED = ("camera", "audio", "lidar")  # motion and fuse gain nothing from int8: 0.02 and 0.1 ms in float
SEEN_IN = {"camera": "pictures", "audio": "train", "lidar": "train"}  # the worlds that each saw last
ENCODING = ("encoders", "camera")  # stages that --steps is for
FURTHER = ("trt", "arm")  # targets beside x86
CALIBRATION_FRAMES = 2048
AT_ONCE = 16
SCALES = "percentile"
RANGES = "{}.ranges.json"  # of an encoder, beside the weights
GOLDEN_FRAMES = 4  # of a picture, the first alone: it is as large as all the rest


def main(argv: list[str]) -> int:
    """Entry point of `roadfuse train`."""
    options = _options(argv)
    size, schedule = (SMALL, schedules.SMALL) if options.small else (FULL, schedules.FULL)
    if options.worlds:
        size = dataclasses.replace(size, **{"pictures" if options.only == "camera" else "train": options.worlds})
    if options.steps:
        stages = {name: dataclasses.replace(getattr(schedule, name), steps=options.steps) for name in ENCODING}
        schedule = dataclasses.replace(schedule, **stages)
    mixin = read_mixin(options.audio_dir, options.image_dir)
    _seed_everything(options.seed, options.threads)
    net = _first(options)
    start = sha256_of(options.start) if options.start else None  # --weights may take its place
    kept = read_towers(options.start.parent) if options.only else {}
    trained = {"camera": ("camera",), "fusion": ()}.get(options.only, QUANTISED)
    ranges = kept_ranges(lower_edge(net), set(QUANTISED) - set(trained), options.start.parent) if options.only else {}
    if options.only == "camera":
        del kept["video"]  # it looks at clips of what the camera says
    seen = dict.fromkeys(SEEN_IN[name] for name in trained)
    splits = {
        split: prepare(options.cache / split, plans(split, size, options.seed), options.workers, split)
        for split in ("validation", "held_out", "fresh", *seen)
    }
    if options.only == "camera":
        settle(net.camera, splits["pictures"])
    progress = Progress(options.run, _key(options, schedule, size, start), schedule.checkpoint, options.resume)
    words = train(net, splits, schedule, options, progress, mixin)
    for split in seen:
        equalise(net, [name for name in trained if SEEN_IN[name] == split], batches_of(splits[split]))
    rounded(net)
    if options.run:
        write_curves(options.run, progress.history)
    graphs = lower_edge(net)
    ranges |= {name: range_of(name, graphs[name], splits[SEEN_IN[name]]) for name in trained}
    lowered = lower_precision(graphs, ranges)
    tempers = temper(net, lowered.engines, splits["validation"])
    graphs["fuse"] = lower_edge(net)["fuse"]
    lowered.engines["fuse"] = store_half(graphs["fuse"])
    if options.weights:
        save_weights(options.weights, net)
        words.save(options.weights.parent / VOCABULARY)
    towers = lower_cloud(net) | kept
    measured = measure(lowered.engines, graphs, towers, words, splits["validation"], splits["held_out"])
    lineage = {
        "command": "roadfuse train " + " ".join(_command(options)),
        "seed": options.seed,
        **({"from": start} if start else {}),
        "training": {
            "schedule": dataclasses.asdict(schedule), "threads": options.threads, "fusion": options.fusion,
            "trained_s": round(progress.seconds), "tempered": tempers,
            **({"only": options.only} if options.only else {}),
            "mixed_in": {"sounds": len(mixin.sounds), "pictures": len(mixin.pictures)} if mixin else {},
        },
        "worlds": _worlds(size, options.seed, splits),
        "ranges": {name: {"id": found.id, "samples": found.samples} for name, found in lowered.ranges.items()},
    }  # fmt: skip
    _write(options, lowered, measured, lineage, splits["held_out"])
    if options.weights:
        save_towers(options.weights.parent, towers, load(options.out).id)
    print(f"bundle {options.out}  {folder_bytes(options.out) / 1e6:.2f} MB  {measured.line()}")
    return 0


def train(
    net: Network, splits: Mapping[str, Split], schedule: schedules.Schedule, options: argparse.Namespace,
    progress: Progress, mixin: Mixin | None,
) -> Vocabulary:  # fmt: skip
    """All stages, one after the other, in place; with `--only`, that alone and what reads it.

    What reads the encoders learns from worlds that they have not seen: of the others they are surer than they will be.
    """
    device, only, fresh = torch.device(options.device), options.only, splits["fresh"]
    words = (
        Vocabulary.open(options.start.parent / VOCABULARY) if only else learn_vocabulary(splits["train"], options.seed)
    )
    if progress.restored("text", net):
        return words
    if not only:
        train_encoders(net, splits["train"], schedule.encoders, options.seed, progress, device, mixin)
    if only != "fusion":
        train_camera(net, splits["pictures"], schedule.camera, options.seed, progress, device)
    found = embeddings_of(net, fresh, 2, options.seed, device)
    net.to("cpu")
    labels = Labels.of(fresh)
    train_fusion(net, found, labels, schedule.fusion, schedule.unroll, options.seed, progress, facts=not only)
    if only != "fusion":
        train_clips(net, found, labels, schedule.clips, options.seed, progress)
    fit_scores(net, found, labels, options.seed)
    if not only:
        train_text(net, splits["train"], words, schedule.text, options.seed, progress)
    return words


def _first(options: argparse.Namespace) -> Network:
    """The network before the first step; where not all is trained, the fusion is begun anew, of whatever strategy."""
    if options.start is None:
        return Network(options.fusion)
    net = load_weights(options.start, grow=options.only == "camera", fusion=options.fusion if options.only else None)
    if net.fuse.strategy != options.fusion:
        net.fuse = FuseNet(options.fusion)
    return net


@dataclasses.dataclass(frozen=True, slots=True)
class Lowered:
    """engines: as they run by default. targets: int8 engine -> further target -> the same for it. ranges: by engine."""

    engines: dict[str, onnx.ModelProto]
    targets: dict[str, dict[str, onnx.ModelProto]]
    ranges: dict[str, Ranges]


def range_of(name: str, graph: onnx.ModelProto, split: Split) -> Ranges:
    """Of an encoder that int8 makes faster, on frames spread over all worlds."""
    return collect(graph.SerializeToString(deterministic=True), feeds(name, split))


def kept_ranges(graphs: Mapping[str, onnx.ModelProto], encoders: Iterable[str], folder: Path) -> dict[str, Ranges]:
    """Those beside the weights that a run started from: encoders that stay keep their engines, bit for bit.

    Raises:
        OSError: a file is not there.
        ConfigError: it is of another model.
    """
    found = {}
    for name in sorted(encoders):
        path, digest = folder / RANGES.format(name), canonical_id(graphs[name])
        found[name] = read_ranges(path)
        if found[name].model_sha256 != digest:
            got = found[name].model_sha256[:12]
            raise ConfigError(f"{path}: expected ranges of the model {digest[:12]} ({name}), got those of {got}")
    return found


def lower_precision(graphs: Mapping[str, onnx.ModelProto], ranges: Mapping[str, Ranges]) -> Lowered:
    """int8 where there are ranges, float stored as float16 for the rest."""
    found = Lowered({}, {}, dict(ranges))
    for name, model in graphs.items():
        if name in ranges:
            lowered = {target: lower_to(model, ranges[name], target, scales=SCALES) for target in ("x86", *FURTHER)}
            model = lowered.pop("x86")
            found.targets[name] = {target: store_half(other) for target, other in lowered.items()}
        found.engines[name] = store_half(model)
    return found


def temper(net: Network, engines: Mapping[str, onnx.ModelProto], validation: Split) -> dict[str, list[float]]:
    """Folds each fused head's confidence into its last layer, so that what the engine says is how often it is so.

    Returns:
        the temperatures, by head; a head with too few validation worlds keeps what it says.
    """
    sessions = open_engines({name: model.SerializeToString() for name, model in engines.items()})
    fused = fuse(sessions["fuse"], encode(sessions, validation).embeddings, validation.per_world, ALL)
    found: dict[str, list[float]] = {}
    for head, confidence in learn_confidence(fused, validation).items():
        net.fuse.temper(head, confidence.temperatures, confidence.biases)
        found[head] = [round(value, 4) for value in confidence.temperatures]
    rounded(net)
    return found


def feeds(name: str, split: Split) -> Iterator[dict[str, NDArray[np.generic]]]:
    """An encoder's inputs on frames spread over all worlds."""
    port = str(contract.INPUTS[name]["name"])
    for row in spread_rows(split, CALIBRATION_FRAMES):
        yield {port: _input(name, split, int(row))}


def batches_of(split: Split) -> Iterator[Batch]:
    """All encoders' inputs on the frames of `feeds`."""
    rows = spread_rows(split, CALIBRATION_FRAMES)
    for start in range(0, len(rows), AT_ONCE):
        yield plain(split, rows[start : start + AT_ONCE])


def spread_rows(split: Split, count: int) -> NDArray[np.int64]:
    """Frames spread over all worlds."""
    return np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64)


def _input(name: str, split: Split, row: int) -> NDArray[np.generic]:
    if name == "camera":
        return split.image(row)[None]
    if name == "audio":
        return split.pcm[row : row + 1].astype(np.float32) / np.float32(32768.0)
    return np.array((split.motion if name == "motion" else split.lidar)[row : row + 1], np.float32)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="roadfuse train", description="Train the reference bundle.")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    parser.add_argument("--seed", type=int, default=1, help="weights, batches and training worlds (1 .. 90)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="a minute's training on a few short worlds, for tests")
    size.add_argument("--full", action="store_true", help="the full setting, which is the default")
    parser.add_argument("--fusion", choices=sorted(STRATEGIES), default="intermediate", help="how modalities are mixed")
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds")
    parser.add_argument("--run", type=Path, help="folder of checkpoint, record and curves")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --run")
    parser.add_argument("--weights", type=Path, help="also save float weights here (.npz); ranges and towers beside")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the encoders' training")
    parser.add_argument("--threads", type=int, default=1, help="of the training; results depend on it")
    parser.add_argument("--workers", type=int, default=2, help="processes that render worlds")
    parser.add_argument("--from", dest="start", type=Path, metavar="WEIGHTS.npz", help="start from these weights")
    parser.add_argument(
        "--only", choices=("camera", "fusion"),
        help="with --from: train the camera on (an earlier version's grows into today's), or none of the encoders, and "
        "then what reads them; the others, the shared space and the text tower beside them stay",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="optimiser steps of the encoders, and of the camera by itself")
    parser.add_argument("--worlds", type=int, help="training worlds; with --only camera those of pictures alone")
    parser.add_argument("--audio-dir", type=Path, help="real sounds to mix in; labels.csv says what they are")
    parser.add_argument("--image-dir", type=Path, help="real pictures to mix in")
    options = parser.parse_args(argv)
    if not 1 <= options.seed <= 90:
        raise ConfigError(f"--seed: expected 1..90, got {options.seed}")
    for name in ("threads", "workers", "steps", "worlds"):
        if (count := getattr(options, name)) is not None and count < 1:
            raise ConfigError(f"--{name}: expected at least 1, got {count}")
    if options.resume and not options.run:
        raise ConfigError("--resume: expected --run with the folder of the checkpoint, got none")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: expected a CUDA device that PyTorch can use, got none")
    for name, path in (("--out", options.out), ("--run", options.run)):
        if path is not None and path.exists() and not path.is_dir():  # said before an hour's training
            raise ConfigError(f"{name} {path}: expected a folder, or none yet, got a file")
    if options.weights and options.weights.is_dir():
        raise ConfigError(f"--weights {options.weights}: expected a file to write, got a folder")
    if options.only and not options.start:
        raise ConfigError("--only: expected --from with the weights of all that stays, got none")
    if options.only == "fusion" and (options.steps or options.worlds or options.audio_dir or options.image_dir):
        raise ConfigError(
            "--only fusion: expected no --steps, --worlds, --audio-dir or --image-dir, which are for the encoders"
        )
    if options.only == "camera" and (options.audio_dir or options.image_dir):
        raise ConfigError("--only camera: expected no --audio-dir or --image-dir, which say nothing of what it learns")
    if options.fusion == "early":
        raise ConfigError(
            "--fusion: expected a strategy that a bundle can hold, got 'early': its engine would take features that no "
            "encoder gives out; `python -m export.evaluation.strategies` compares it"
        )
    if options.small:
        options.cache = options.cache / "small"
    return options


def _command(options: argparse.Namespace) -> list[str]:
    """The options that decide the result."""
    words = ["--seed", str(options.seed), "--threads", str(options.threads)]
    words += ["--small"] if options.small else []
    words += ["--device", options.device] if options.device != "cpu" else []
    words += ["--from", options.start.name] if options.start else []
    words += ["--only", options.only] if options.only else []
    words += ["--fusion", options.fusion] if options.fusion != "intermediate" else []
    for name in ("steps", "worlds"):
        words += [f"--{name}", str(getattr(options, name))] if getattr(options, name) else []
    for name in ("audio_dir", "image_dir"):
        words += [f"--{name.replace('_', '-')}", getattr(options, name).name] if getattr(options, name) else []
    return words


def _key(options: argparse.Namespace, schedule: schedules.Schedule, size: Size, start: str | None) -> dict[str, object]:
    return {
        "seed": options.seed, "threads": options.threads, "fusion": options.fusion, "device": options.device,
        "schedule": dataclasses.asdict(schedule), "size": dataclasses.asdict(size),
        "audio_dir": str(options.audio_dir), "image_dir": str(options.image_dir),
        "from": start, "only": options.only,
    }  # fmt: skip


def _seed_everything(seed: int, threads: int) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # dear, and decides nothing


def _worlds(size: Size, seed: int, splits: Mapping[str, Split]) -> dict[str, object]:
    described: dict[str, object] = {}
    for name, split in splits.items():
        drawn = plans(name, size, seed)
        towns = sorted({plan.town for plan in drawn})
        described[name] = {
            "worlds": len(drawn), "seeds": [drawn[0].seed, drawn[-1].seed], "towns": [towns[0], towns[-1]],
            "frames": len(split), "seconds_each": drawn[0].seconds, "world_sha256": split.world_sha256,
        }  # fmt: skip
    return described


def _write(
    options: argparse.Namespace, lowered: Lowered, measured: Measured, lineage: dict[str, object], split: Split
) -> None:
    name = "small" if options.small else "reference"
    write_bundle(options.out, bundle_content(lowered, measured, lineage, split, name))
    if options.weights:
        options.weights.parent.mkdir(parents=True, exist_ok=True)
        for engine, found in lowered.ranges.items():
            write_ranges(options.weights.parent / RANGES.format(engine), found)


def bundle_content(
    lowered: Lowered, measured: Measured, lineage: dict[str, object], split: Split, name: str
) -> BundleContent:
    """The vehicle's bundle."""
    return BundleContent(
        lowered.engines,
        {engine: "int8" if engine in lowered.ranges else "fp32" for engine in lowered.engines},
        contract.HEADS,
        measured.thresholds.as_json(),
        measured.figures,
        lineage,
        name=name,
        version="7",
        ranges={engine: found.id for engine, found in lowered.ranges.items()},
        confidence=measured.confidence,
        lowerings=lowered.targets,
        golden=golden_inputs(lowered.engines, split),
        inputs=contract.INPUTS,
        outputs={engine: {role: role for role in roles} for engine, roles in contract.OUTPUTS.items()}
        | {"fuse": {role: role for role in contract.FUSE_OUTPUTS}},
    )


def golden_inputs(lowered: Mapping[str, onnx.ModelProto], split: Split) -> dict[str, dict[str, NDArray[np.generic]]]:
    """A few held-out moments as each engine's input; for the fusion what the encoders then say, one modality absent."""
    rows = np.linspace(0, len(split) - 1, GOLDEN_FRAMES).astype(int)
    golden: dict[str, dict[str, NDArray[np.generic]]] = {}
    fuse: dict[str, NDArray[np.generic]] = {}
    sessions = open_engines({name: model.SerializeToString() for name, model in lowered.items()})
    for name in MODALITIES:
        port = str(contract.INPUTS[name]["name"])
        tensors = [_input(name, split, int(row)) for row in rows]
        golden[name] = {port: np.concatenate(tensors[:1] if name == "camera" else tensors)}
        fuse[name] = np.concatenate([sessions[name].run(["embedding"], {port: tensor})[0] for tensor in tensors])
    presence = np.ones((GOLDEN_FRAMES, len(MODALITIES)), np.float32)
    presence[1:, :][np.arange(GOLDEN_FRAMES - 1), np.arange(GOLDEN_FRAMES - 1)] = 0.0
    state = np.linspace(-0.5, 0.5, GOLDEN_FRAMES * STATE).reshape(GOLDEN_FRAMES, -1).astype(np.float32)
    golden["fuse"] = {**fuse, "presence": presence, "state": state}
    return golden
