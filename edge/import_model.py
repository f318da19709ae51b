"""`roadfuse import-model MODEL.onnx --as KIND|--mapping FILE.json --out BUNDLE`: a bundle of someone else's model.

The bundle appears under its name only when the loop's own engines have loaded and run it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge import bundle as bundles
from edge.bundle_show import call_ms, printable
from edge.bundle_write import Parts, write
from edge.errors import BundleError, ConfigError
from edge.foreign_model import StaticModel, static_model
from edge.golden import made_inputs
from edge.model_file import sha256_of
from edge.model_mapping import KNOWN, ModelMapping, known, read
from edge.perception import Perception
from edge.streams import STREAMS

_WARM_UP: Final = 3


def main(argv: list[str] | None = None) -> int:
    """Make a bundle of a foreign ONNX model and say what was made."""
    args = _parser().parse_args(argv)
    mapping = read(KNOWN / f"{args.kind}.json" if args.kind else args.mapping)
    made = import_model(args.model, mapping, args.out)
    print(json.dumps(made, indent=2) if args.json else _text(made))
    return 0


def import_model(model: Path, mapping: ModelMapping, out: Path) -> dict[str, Any]:
    """Write the bundle folder `out` and prove that it runs.

    Returns:
        What was made: bundle, id, name, version, and engines by modality with sizes and time of a call.

    Raises:
        BundleError: the model can't be used.
        ConfigError: the mapping does not fit it, or `out` is already there.
    """
    if out.exists():
        raise ConfigError(f"--out: expected a folder that is not there yet, got {out}")
    static = static_model(model, mapping)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run: in a container each run has the same number
    partial.mkdir(parents=True)
    try:
        _write(partial, model, mapping, static)
        made = _proved(partial)
        partial.rename(out)
    except BundleError as error:  # say what was given, not where it was tried
        raise BundleError(str(error).replace(str(partial / f"{mapping.modality}.onnx"), str(model))) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"bundle": str(out), **made}


def _write(folder: Path, model: Path, mapping: ModelMapping, static: StaticModel) -> None:
    encoder = {
        "precision": static.precision,
        "input": mapping.input,
        "outputs": static.outputs,
        "state": mapping.state,
        "constants": mapping.constants,
        "decoder": mapping.decoder,
    }
    manifest = {
        "name": mapping.name,
        "version": mapping.version,
        "encoders": {mapping.modality: encoder},
        "heads": mapping.heads,
        "thresholds": mapping.thresholds,
        "threads": 1,
        "warm_up": _WARM_UP,
        "figures": {},
        "lineage": {
            "imported_from": model.name,
            "sha256": sha256_of(model),
            "origin": mapping.origin,
        },
    }
    parts = Parts(manifest, {mapping.modality: static.content})
    write(folder, parts)
    write(folder, replace(parts, golden=made_inputs(bundles.load(folder))))


def _proved(folder: Path) -> dict[str, Any]:
    """Load the bundle as the loop does, warm it up, and describe it."""
    bundle = bundles.load(folder)
    perception = Perception(bundle, STREAMS)
    engines = {}
    for name, spec in bundle.encoders.items():
        engine = perception.encoders[name]
        engines[name] = {
            "file": spec.path.name,
            "bytes": spec.path.stat().st_size,
            "precision": spec.precision,
            "inputs": {tensor: _described(values) for tensor, values in engine.inputs.items()},
            "outputs": {tensor: _described(values) for tensor, values in engine.outputs.items()},
            "call_ms": call_ms(engine),
        }
    heads = {head: len(labels) for head, labels in bundle.heads.items()}
    return {"id": bundle.id, "name": bundle.name, "version": bundle.version, "heads": heads, "engines": engines}


def _described(values: Any) -> str:
    return f"{values.dtype}[{','.join(map(str, values.shape))}]"


def _text(made: dict[str, Any]) -> str:
    lines = [f"{made['bundle']}: bundle {made['name']} {made['version']}, id {made['id'][:16]}"]
    for name, engine in made["engines"].items():
        lines.append(
            f"  {name:<7} {engine['file']}, {engine['precision']}, {engine['bytes'] / 1e6:.2f} MB, "
            f"{engine['call_ms']:g} ms a call on one CPU thread"
        )
        for what in ("inputs", "outputs"):
            tensors = ", ".join(f"{tensor} {described}" for tensor, described in engine[what].items())
            lines.append(f"          {what:<8}{tensors}")
    heads = ", ".join(f"{head} ({count} label{'s' * (count != 1)})" for head, count in made["heads"].items())
    return "\n".join(map(printable, [*lines, f"  heads   {heads or 'none'}"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roadfuse import-model", description="Make a bundle of a foreign ONNX model.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--as", dest="kind", choices=known(), help="a model that roadfuse knows")
    how.add_argument("--mapping", type=Path, metavar="FILE.json", help="what its tensors mean; see docs/bundles.md")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
