"""`roadfuse export`: float models into canonical ONNX and, with a ranges file, into int8 graphs for each runtime."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import platform
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from calibration.canonical import canonical, canonical_bytes, canonical_id
from calibration.ranges import Ranges, read_ranges
from edge.bundle import load as load_bundle
from edge.durable import refuse_output
from edge.errors import ConfigError
from export.guard import MIN_DB, Plan, guard, read_plan, structure
from export.lowerings import TARGETS, int8_nodes, lower_to
from export.scales import SCALES
from export.sensitivity import Feed, Layer, Meter

# What an .npz gives that is damaged, or none.
_UNREADABLE = (
    ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def main(argv: list[str]) -> int:
    """The command."""
    options = _parser().parse_args(argv)
    if options.samples < 1:
        raise ConfigError(f"--samples: expected at least 1, got {options.samples}")
    targets = _targets(options)
    models = _models(options)
    ranges = _by_model(options.ranges, models)
    plans = _by_structure(options.plan, models)
    bases = _bases(options.base)
    _check_outputs(options, models, targets)
    _check_measured(options, models, ranges)
    results = [_export(name, model, options, targets, ranges, plans, bases) for name, model in models.items()]
    print(json.dumps(results) if options.json else "\n".join(_text(result) for result in results))
    return 0


def _export(
    name: str,
    model: onnx.ModelProto,
    options: argparse.Namespace,
    targets: list[str],
    ranges: Mapping[str, Ranges],
    plans: Mapping[str, Plan],
    bases: Mapping[str, onnx.ModelProto],
) -> dict[str, Any]:
    """Writes all files of one model and says what they are."""
    result: dict[str, Any] = {"model": name, "model_sha256": canonical_id(model)}
    options.out.mkdir(parents=True, exist_ok=True)
    result["files"] = {"float": _write(options.out / f"{name}.onnx", model)}
    found, base = ranges.get(result["model_sha256"]), bases.get(name)
    if found is None and base is None:  # engines that gain nothing from int8 have no ranges
        return result
    if found is not None:
        result["ranges_id"] = found.id
    meter = _meter(name, model, found, options) if found is not None else None
    plan = plans.get(structure(model)) if plans else None
    if options.guard and meter is not None:
        plan = guard(meter, options.machine, options.min_db)
        (options.out / f"{name}.plan.json").write_text(plan.to_json())
    floats: Mapping[str, str] = {} if plan is None else plan.floats
    result |= {"int8": list(int8_nodes(model, floats)), "floats": dict(floats)}
    for target in targets:
        lowered = _as_stored(lower_to(model, found, target, floats, options.scales, base), base)
        result["files"][target] = _write(options.out / f"{name}.{target}.onnx", lowered)
    if meter is not None:
        result["sqnr_db"] = {target: meter.sqnr_db(target, floats) for target in targets}
        if "trt" in targets and "x86" in targets:
            result["parity"] = meter.parity(floats)
    if options.sensitivity and meter is not None:
        layers = meter.layers(floats=floats)
        result["sensitivity"] = [dataclasses.asdict(layer) for layer in layers]
        text = json.dumps(result["sensitivity"], indent=1) + "\n"
        (options.out / f"{name}.sensitivity.json").write_text(text)
    return result


def _targets(options: argparse.Namespace) -> list[str]:
    targets = [name for name in options.target.split(",") if name] if options.ranges or options.base else []
    if options.base and (options.inputs or options.guard or options.sensitivity):
        raise ConfigError("--base: expected no --inputs, --guard or --sensitivity, which draw scales anew, got one")
    for name in targets:
        if name not in TARGETS:
            raise ConfigError(f"--target: expected a list of {', '.join(TARGETS)}, got {name!r}")
    if (options.guard or options.sensitivity) and not (options.inputs and targets):
        raise ConfigError(
            "--guard and --sensitivity: expected --ranges and --inputs, which they measure with, got none"
        )
    return targets


def _check_measured(
    options: argparse.Namespace, models: Mapping[str, onnx.ModelProto], ranges: Mapping[str, Ranges]
) -> None:
    """Refuses a model with ranges that nothing is there to measure with: it would be lowered unguarded."""
    given = {path.stem for path in options.inputs}
    missing = [name for name, model in models.items() if canonical_id(model) in ranges and name not in given]
    if missing and (options.guard or options.sensitivity):
        raise ConfigError(
            f"--guard and --sensitivity: expected --inputs of each model with ranges, got no {missing[0]}"
        )


def _check_outputs(options: argparse.Namespace, names: Iterable[str], targets: list[str]) -> None:
    """Refuses a folder where a file to write has the name of one that was given."""
    given = [*options.models, *options.ranges, *options.plan, *options.inputs]
    given += options.base.rglob("*.onnx") if options.base else []
    endings = ["onnx", *(f"{target}.onnx" for target in targets)]
    endings += ["plan.json"] if options.guard else []
    endings += ["sensitivity.json"] if options.sensitivity else []
    for out in [options.out / f"{name}.{ending}" for name in names for ending in endings]:
        if out.exists():
            refuse_output(out, *given)


def _models(options: argparse.Namespace) -> dict[str, onnx.ModelProto]:
    """Canonical float graphs by name: of each ONNX file, and of each engine of a weights file."""
    models: dict[str, onnx.ModelProto] = {}
    for path in options.models:
        for name, model in _of_weights(path).items() if path.suffix == ".npz" else [(path.stem, _load(path))]:
            if name in models:
                raise ConfigError(f"models: expected different names, got two of {name}")
            models[name] = model
    foreign = [path for path in options.inputs if path.stem not in models]
    if foreign:
        raise ConfigError(
            f"--inputs: expected files named like the models ({', '.join(models)}), got {foreign[0].name}"
        )
    return models


def _of_weights(path: Path) -> dict[str, onnx.ModelProto]:
    from export.model.engines import lower_edge  # PyTorch is needed for this alone
    from export.training.weights import load_weights

    return lower_edge(load_weights(path))


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # protobuf's errors differ between its versions
        raise ConfigError(f"{path}: expected an ONNX model, got {type(error).__name__}") from None
    if not model.graph.node:
        raise ConfigError(f"{path}: expected an ONNX model, got one without nodes")
    try:
        return canonical(model)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _bases(folder: Path | None) -> dict[str, onnx.ModelProto]:
    """The int8 engines of a bundle, by name."""
    if folder is None:
        return {}
    engines = load_bundle(folder).engines
    return {name: onnx.load_from_string(spec.file.read()) for name, spec in engines.items() if spec.precision == "int8"}


def _as_stored(lowered: onnx.ModelProto, base: onnx.ModelProto | None) -> onnx.ModelProto:
    """With large floats in float16 where the base has them so: as it shipped, and a small update."""
    if base is None or not any(tensor.name.endswith(".half") for tensor in base.graph.initializer):
        return lowered
    from export.lower import store_half  # PyTorch comes with it

    return store_half(lowered)


def _by_model(paths: list[Path], models: Mapping[str, onnx.ModelProto]) -> dict[str, Ranges]:
    """The ranges by their model's digest; a file of none of the models is refused."""
    wanted = {canonical_id(model): name for name, model in models.items()}
    found = {}
    for path in paths:
        ranges = read_ranges(path)
        if ranges.model_sha256 not in wanted:
            known = ", ".join(f"{digest[:12]} ({name})" for digest, name in wanted.items())
            raise ConfigError(f"{path}: expected ranges of the model {known}, got those of {ranges.model_sha256[:12]}")
        found[ranges.model_sha256] = ranges
    return found


def _by_structure(paths: list[Path], models: Mapping[str, onnx.ModelProto]) -> dict[str, Plan]:
    """The plan by its graph's structure; a file of none of the models is refused."""
    wanted = {structure(model): name for name, model in models.items()} if paths else {}
    found = {}
    for path in paths:
        plan = read_plan(path)
        if plan.structure not in wanted:
            known = ", ".join(f"{digest[:12]} ({name})" for digest, name in wanted.items())
            raise ConfigError(f"{path}: expected a plan of the graph {known}, got that of {plan.structure[:12]}")
        found[plan.structure] = plan
    return found


def _meter(name: str, model: onnx.ModelProto, ranges: Ranges, options: argparse.Namespace) -> Meter | None:
    """Over the inputs that `roadfuse calibrate ranges --keep` wrote, spread to at most --samples."""
    source = next((path for path in options.inputs if path.stem == name), None)
    if source is None:
        return None
    try:
        with np.load(source, allow_pickle=False) as arrays:
            columns = {name: np.asarray(arrays[name]) for name in arrays.files}
    except _UNREADABLE as error:
        raise ConfigError(f"{source}: expected inputs as `calibrate ranges --keep` writes them, got {error}") from None
    wanted = {value.name: _port(value.type.tensor_type) for value in model.graph.input}
    given = {name: (values.dtype.name, [1, *values.shape[1:]]) for name, values in columns.items()}
    if wanted != given:
        raise ConfigError(f"{source}: expected the inputs of {name}, {wanted}, got {given}")
    rows = min(len(values) for values in columns.values())
    if rows == 0:
        raise ConfigError(f"{source}: expected at least one input, got none")
    picked = np.linspace(0, rows - 1, min(rows, options.samples)).astype(int)
    feeds: list[Feed] = [{name: values[row : row + 1] for name, values in columns.items()} for row in picked]
    return Meter(model, ranges, feeds, options.scales)


def _port(tensor: onnx.TypeProto.Tensor) -> tuple[str, list[int]]:
    """Its numpy type and shape."""
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return dtype.name, [dim.dim_value for dim in tensor.shape.dim]


def _write(path: Path, model: onnx.ModelProto) -> dict[str, Any]:
    content = canonical_bytes(model)
    path.write_bytes(content)
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['model']}: model {result['model_sha256'][:12]}"]
    for target, file in result["files"].items():
        db = ", ".join(f"{name} {value:.1f} dB" for name, value in result.get("sqnr_db", {}).get(target, {}).items())
        kilobytes = f"{file['bytes'] / 1e3:.1f} kB"
        lines.append(
            f"  {target:<6}{file['file']}, {kilobytes}, {file['sha256'][:12]}" + (f", SQNR {db}" if db else "")
        )
    if "int8" in result:
        lines.append(f"  int8  {len(result['int8'])} nodes")
        lines += [f"  kept float: {node}: {why}" for node, why in result["floats"].items()]
    for tensor, found in result.get("parity", {}).items():
        lines.append(f"  x86 and trt: {tensor} {_apart(found)}; by int8 kernels {_apart(found['kernels'])}")
    if "sensitivity" in result:
        lines.append(_table([Layer(**row) for row in result["sensitivity"]]))
    return "\n".join(lines)


def _apart(found: Mapping[str, Any]) -> str:
    within, same = 100 * found["within_one_quantum"], 100 * found["same_top1"]
    return (
        f"at most {found['largest_quanta']:.2f} quanta apart ({within:.3f} % within one), top-1 the same {same:.2f} %"
    )


def _table(layers: list[Layer]) -> str:
    width = max((len(layer.node) for layer in layers), default=5)
    lines = [f"  {'layer':<{width}}  operator  SQNR, dB: only it in int8, all but it"]
    lines += [
        f"  {layer.node:<{width}}  {layer.operator:<8}  {layer.only_db:6.1f}  {layer.without_db:6.1f}"
        for layer in layers
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse export",
        description="Write float models as canonical ONNX, and as int8 graphs for each runtime.",
        epilog="ONNX models: opset 17 to 20, static shapes, standard operators; ranges by `roadfuse calibrate ranges`.",
    )
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="WEIGHTS.npz|MODEL.onnx",
        help="weights of `roadfuse train`, or float ONNX",
    )
    parser.add_argument(
        "--ranges", type=Path, nargs="+", default=[], metavar="FILE", help="of the models, in any order"
    )
    parser.add_argument(
        "--base", type=Path, metavar="BUNDLE", help="keep the int8 scales of its engines of the same names"
    )
    parser.add_argument("--target", default=",".join(TARGETS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where NAME[.TARGET].onnx go")
    parser.add_argument("--plan", type=Path, nargs="+", default=[], metavar="FILE", help="nodes to keep float")
    parser.add_argument(
        "--scales", choices=tuple(SCALES), default="minmax", help="how they are drawn (default: minmax)"
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.npz",
        help="to measure with; NAME.npz belongs to NAME",
    )
    parser.add_argument("--samples", type=int, default=32, help="inputs to measure with (default: 32)")
    parser.add_argument(
        "--guard", action="store_true", help="measure here what loses in int8, and write NAME.plan.json"
    )
    parser.add_argument(
        "--min-db", type=float, default=MIN_DB, help="SQNR that the guard asks for (default: %(default)g)"
    )
    parser.add_argument("--machine", default=f"{platform.machine()} {platform.system()}", help="its name in the plan")
    parser.add_argument("--sensitivity", action="store_true", help="SQNR layer by layer, and NAME.sensitivity.json")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
