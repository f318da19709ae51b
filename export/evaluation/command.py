"""`roadfuse evaluate BUNDLE`: the figures of a bundle on drives that it never saw, as JSON and as one page."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from edge.bundle import Bundle, load
from edge.durable import refuse_output
from edge.errors import ConfigError
from edge.heads import parse_heads
from edge.model_file import TARGETS, target_of
from export.evaluation.drives import split_of_drives
from export.evaluation.figures import ALL, evaluate
from export.evaluation.heads import Figures, Thresholds
from export.evaluation.page import page
from export.evaluation.real import real_figures
from export.evaluation.runner import Presence, Sessions, open_bundle, open_engines
from export.evaluation.twins import agreement
from export.model.contract import HEADS
from export.model.labels import MODALITIES
from export.model.tokens import Vocabulary
from export.training.dataset import Split, prepare
from export.training.plan import FULL, SMALL, plans

TOWERS = Path(__file__).parents[1] / "reference"
TOWER_FILES = ("text.onnx", "video.onnx", "vocabulary.json")


def main(argv: list[str]) -> int:
    """Entry point of `roadfuse evaluate`."""
    options = _options(argv)
    refuse_output(options.out, *(options.drives or ()), *filter(None, [options.weights]))
    bundle = load(options.bundle)
    _check(bundle, options.twin)
    sessions = open_bundle(options.bundle)
    folder = _folder(options.towers, bundle.id)
    towers, words = _towers(folder)
    twin = None if options.weights is None else _float_twin(options.weights)
    split, presence = _split(options)
    figures = evaluate(sessions, split, Thresholds.from_json(bundle.thresholds), towers, words, twin, presence)
    figures["bundle"] = {"name": bundle.name, "version": bundle.version, "id": bundle.id}
    figures["size"] = {name: spec.path.stat().st_size for name, spec in bundle.engines.items()}
    if options.twin is not None:
        figures["twin"] = _twin(options.bundle, options.twin, sessions, split, presence)
    if options.real is not None:
        figures["real"] = real_figures(sessions, options.real)
    strategies = TOWERS / "strategies.json"
    if folder == TOWERS and strategies.is_file() and not (options.drives or options.small):  # else of other frames
        figures["strategies"] = json.loads(strategies.read_text())
    if options.out is not None:
        options.out.write_text(page(figures))
    if options.json:
        print(json.dumps(_finite(figures), indent=1, sort_keys=True, allow_nan=False))
    else:
        _print(figures, options.out)
    return 0


def _check(bundle: Bundle, twin: str | None) -> None:
    """Refuses a bundle whose answers mean something else than the truth of the worlds, or that lacks the lowering."""
    missing = [name for name in (*MODALITIES, "fuse") if name not in bundle.engines]
    if missing:
        raise ConfigError(f"{bundle.path}: expected engines of {', '.join(MODALITIES)} and fuse, got no {missing[0]}")
    for name, wanted in parse_heads(HEADS, HEADS, HEADS).items():
        if (head := bundle.head_specs.get(name)) != wanted:
            raise ConfigError(f"{bundle.path}: expected the head {name} as {wanted}, got {str(head)[:400]}")
    if twin is not None and not any(twin in spec.lowerings for spec in bundle.engines.values()):
        raise ConfigError(f"--twin: expected a lowering {twin} of an engine of {bundle.path}, got none")


def _split(options: argparse.Namespace) -> tuple[Split, Presence]:
    if options.drives:
        return split_of_drives(options.drives)
    size = SMALL if options.small else FULL
    cache = options.cache / "small" if options.small else options.cache
    return prepare(cache / "held_out", plans("held_out", size, 1), options.workers, "held_out"), ALL


def _folder(given: Path | None, bundle: str) -> Path | None:
    """Of the towers: what was given, or the committed ones where they are of this bundle's space."""
    if given is not None:
        lacks = [name for name in TOWER_FILES if not (given / name).is_file()]
        if lacks:
            raise ConfigError(f"--towers: expected {', '.join(TOWER_FILES)} in {given}, got no {lacks[0]}")
        return given
    named = TOWERS / "towers.json"
    return TOWERS if named.is_file() and json.loads(named.read_text())["space"] == bundle else None


def _finite(value: Any) -> Any:
    """The same with None for what could not be measured: JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _towers(folder: Path | None) -> tuple[Sessions | None, Vocabulary | None]:
    """Text tower and clip encoder, where there are some."""
    if folder is None or not (folder / "text.onnx").is_file():
        return None, None
    models = {name: (folder / f"{name}.onnx").read_bytes() for name in ("text", "video")}
    return open_engines(models), Vocabulary.open(folder / "vocabulary.json")


def _float_twin(weights: Path) -> Sessions:
    try:
        from export.model.engines import lower_edge
        from export.training.weights import load_weights
    except ImportError:
        raise ConfigError("--weights: expected PyTorch to be installed (the extra `export`), got none") from None
    graphs = lower_edge(load_weights(weights))
    return open_engines({name: model.SerializeToString() for name, model in graphs.items()})


def _twin(folder: Path, target: str, shipped: Sessions, split: Split, presence: Presence) -> Figures:
    own, twin = (open_bundle(folder, lowering, as_written=True) for lowering in (target_of("cpu"), target))
    return {
        "lowering": target,
        "as_written": agreement(own, twin, split, presence),
        "by_kernels": agreement(shipped, open_bundle(folder, target), split, presence),
    }


def _print(figures: Figures, out: Path | None) -> None:
    print(f"{figures['bundle']['name']} {figures['bundle']['version']}  {figures['frames']} frames")
    for name, value in figures["int8"]["summary"].items():
        print(f"  {name:32} {value:.3f}")
    for name, row in figures["retrieval"]["pairs"].items():
        print(f"  {name:32} R@1 {row['r1']:.3f}  R@5 {row['r5']:.3f}  R@10 {row['r10']:.3f}")
    for name, row in figures["missing"].items():
        print(f"  {name:32} mean {row['mean']:.3f}  falls by {row['fall_percent']:.1f} %")
    if out is not None:
        print(f"page: {out}")


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="roadfuse evaluate", description="Figures of a bundle on unseen drives.")
    parser.add_argument("bundle", type=Path, help="bundle folder")
    parser.add_argument("--drives", type=Path, nargs="+", help="drives with ground truth, instead of held-out worlds")
    parser.add_argument("--out", type=Path, help="page to write (HTML, nothing else needed to open it)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--weights", type=Path, help="float weights (.npz) of the bundle: compare int8 with float")
    parser.add_argument("--twin", choices=TARGETS, help="compare with this lowering of the bundle, on this CPU")
    parser.add_argument(
        "--towers",
        type=Path,
        help="folder of text.onnx, video.onnx, vocabulary.json; of the reference bundle by itself",
    )
    parser.add_argument("--real", type=Path, help="folder of real recordings with labels (docs/training.md)")
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds")
    parser.add_argument("--workers", type=int, default=2, help="processes that render worlds")
    parser.add_argument("--small", action="store_true", help="a few short worlds, for tests")
    return parser.parse_args(argv)
