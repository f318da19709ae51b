"""`roadfuse calibrate ranges`: drives through the loop's own sync and preprocessing, then histograms of a float model.

The inputs are the very tensors that the loop feeds its engines with. A bundle says how to make them; a bare ONNX file
takes them from the engine of the bundle that has the same inputs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.coverage import choose, describe, radius
from calibration.ranges import Ranges, collect, read_ranges, write_ranges
from edge import bundle as bundles
from edge.bundle import Bundle
from edge.decision import Decision
from edge.durable import refuse_output
from edge.errors import ConfigError
from edge.loop import LoopConfig
from edge.perception import Perception
from edge.replay import Replay
from edge.streams import STREAMS

FRAMES = 512  # enough for the tails, by the figures in docs/quantisation.md
_STREAMS_OF = {"camera": ("camera",), "audio": ("audio",), "motion": ("imu", "vehicle"), "lidar": ("lidar",)}
Inputs = dict[str, NDArray[Any]]


def main(argv: list[str]) -> int:
    """The command."""
    options = _parser().parse_args(argv)
    bundle = bundles.load(options.model if options.model.is_dir() else options.bundle)
    inputs = [options.model, *options.drives, *(spec.path for spec in bundle.engines.values())]
    refuse_output(options.out, *inputs)
    refuse_output(options.keep, *inputs, *options.merge)
    name, content = _engine(options, bundle)
    frames = _frames(options.drives, bundle, name)
    features = [describe(decision, inputs, bundle.heads) for _, decision, inputs in frames]
    if not features:
        raise ConfigError(f"{options.drives[0]}: expected frames with the inputs of {name}, got none")
    table = np.stack(features)
    chosen = choose(table, options.frames)
    kept: list[Inputs] = []
    found = collect(content, _chosen(options, bundle, name, chosen, kept))
    merged = _merged(found, options.merge)
    identity = write_ranges(options.out, merged)
    if options.keep is not None:
        columns: dict[str, Any] = {port: np.concatenate([one[port] for one in kept]) for port in kept[0]}
        np.savez_compressed(options.keep, allow_pickle=False, **columns)
    result = {
        "out": str(options.out), "id": identity, "engine": name, "model_sha256": merged.model_sha256,
        "frames": len(features), "chosen": len(chosen), "samples": merged.samples, "tensors": len(merged.tensors),
        "radius": round(radius(table, chosen), 3),
    }  # fmt: skip
    print(json.dumps(result) if options.json else _text(result))
    return 0


def _engine(options: argparse.Namespace, bundle: Bundle) -> tuple[str, bytes]:
    """The engine to calibrate, and its float model."""
    engines = Perception(bundle, STREAMS).engines
    if options.engine is not None and options.engine not in engines:
        raise ConfigError(f"--engine: expected one of {', '.join(engines)}, got {options.engine!r}")
    if options.model.is_dir():
        if options.engine is None and len(engines) > 1:
            raise ConfigError(f"--engine: expected one of {', '.join(engines)}, got none")
        name = options.engine or next(iter(engines))
        spec = bundle.fuse if name == "fuse" and bundle.fuse is not None else bundle.encoders[name]
        path = spec.path
    else:
        name, path = options.engine, options.model
    model = _load(path)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ConfigError(f"{path}: expected a float model, got int8: give the ONNX file it was lowered from")
    wanted = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in model.graph.input
    }
    fitting = [key for key, engine in engines.items() if _shapes(engine.inputs) == wanted]
    if name is None and len(fitting) != 1:
        offered = "; ".join(f"{key} {_shapes(engine.inputs)}" for key, engine in engines.items())
        raise ConfigError(f"{path}: expected the inputs of one engine of the bundle ({offered}), got {wanted}")
    if name is not None and name not in fitting:
        raise ConfigError(f"{path}: expected the inputs of {name}, {_shapes(engines[name].inputs)}, got {wanted}")
    return name or fitting[0], path.read_bytes()


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's errors differ between its versions
        raise ConfigError(f"{path}: expected an ONNX model, got {type(error).__name__}") from None


def _shapes(inputs: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: values.shape for name, values in inputs.items()}


def _frames(drives: list[Path], bundle: Bundle, name: str) -> Iterator[tuple[int, Decision, Inputs]]:
    """Running number, decision and input tensors (valid until the next) of each frame that has the engine's streams."""
    streams = _STREAMS_OF.get(name, ())
    index = 0
    for drive in tqdm(drives, unit="drive", disable=not sys.stderr.isatty()):
        with Replay(drive, bundle, config=LoopConfig(encode_ahead=False)) as run:  # inputs are those of the decision
            engine = run.loop.perception.engines[name]
            for decision in run:
                present = {state.stream for state in decision.modalities if state.present}
                if not streams or present.intersection(streams):
                    yield index, decision, dict(engine.inputs)
                    index += 1


def _chosen(
    options: argparse.Namespace, bundle: Bundle, name: str, chosen: list[int], kept: list[Inputs]
) -> Iterator[Inputs]:
    """The inputs of the chosen frames; kept too where they shall be written."""
    wanted = set(chosen)
    for index, _, inputs in _frames(options.drives, bundle, name):
        if index in wanted:
            copies = {port: values.copy() for port, values in inputs.items()}
            if options.keep is not None:
                kept.append(copies)
            yield copies


def _merged(found: Ranges, others: list[Path]) -> Ranges:
    for path in others:
        try:
            found = found.merged(read_ranges(path))
        except ConfigError as error:
            raise ConfigError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    return found


def _text(result: dict[str, Any]) -> str:
    return (
        f"{result['out']}: ranges {result['id'][:16]} of {result['engine']} (model {result['model_sha256'][:12]})\n"
        f"  {result['chosen']} of {result['frames']} frames chosen, none left farther than {result['radius']:g} away\n"
        f"  {result['tensors']} tensors over {result['samples']} samples"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse calibrate ranges", description="Activation histograms of a float model over drives, for int8."
    )
    parser.add_argument("model", type=Path, metavar="MODEL.onnx|BUNDLE", help="float model, or a bundle that has it")
    parser.add_argument("--drives", type=Path, nargs="+", required=True, metavar="DRIVE", help="MCAP drives")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="ranges file to write")
    parser.add_argument("--bundle", type=Path, help="that says how inputs are made (default: the reference bundle)")
    parser.add_argument("--engine", help="of the bundle; needed where several would do")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], metavar="FILE.json", help="ranges to add")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"to choose for coverage (default {FRAMES})")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE.npz", help="also write the chosen inputs, for roadfuse export"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
