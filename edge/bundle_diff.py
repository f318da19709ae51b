"""What changed from one bundle to another: manifest, engines, weights, heads, figures, answers to the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge import golden
from edge.bundle import Bundle
from edge.bundle_show import leaves, printable
from edge.engine import BoundEngine
from edge.errors import BundleError
from edge.heads import VECTORS
from edge.onnx_weights import weights
from edge.perception import Perception
from edge.streams import STREAMS

_APART: Final = ("figures", "lineage", "heads", "golden", "confidence")  # have their own part, or are told whole
_MAX_ROWS: Final = 12


def difference(ours: Bundle, theirs: Bundle) -> dict[str, Any]:
    """Everything that differs between two bundles; `same` where nothing does.

    Raises:
        BundleError: an engine of one does not run.
    """
    both = [name for name in ours.engines if name in theirs.engines]
    return {
        "a": {"bundle": str(ours.path), "id": ours.id},
        "b": {"bundle": str(theirs.path), "id": theirs.id},
        "same": ours.id == theirs.id,
        "manifest": _changed(_fields(ours), _fields(theirs)),
        "engines": _engines(ours, theirs),
        "weights": {name: changes for name in both if (changes := _weights(ours, theirs, name))},
        "heads": _heads(ours, theirs),
        "figures": _changed(leaves(ours.manifest.get("figures", {})), leaves(theirs.manifest.get("figures", {}))),
        "predictions": _predictions(ours, theirs, both),
    }


def text(found: Mapping[str, Any]) -> str:
    """`difference`, for the terminal."""
    lines = [f"a  {found['a']['bundle']} {found['a']['id'][:16]}", f"b  {found['b']['bundle']} {found['b']['id'][:16]}"]
    if found["same"]:
        return "\n".join(map(printable, [*lines, "the same bundle"]))
    lines += _table("manifest", found["manifest"])
    if found["engines"]:
        lines.append("engines")
        lines += [f"  {name:<14} {change}" for name, change in found["engines"].items()]
    for name, changes in found["weights"].items():
        others = f"; {len(changes['only_in_a'])} tensors only in a, {len(changes['only_in_b'])} only in b"
        lines.append(
            f"weights of {name}: {100 * changes['share']:.2f} % of the {changes['values']} values in both differ"
            + (others if changes["only_in_a"] or changes["only_in_b"] else "")
        )
        rows = list(changes["tensors"].items())
        lines += [f"  {tensor:<52} {100 * share:6.2f} %" for tensor, share in rows[:_MAX_ROWS]]
        lines += [f"  and {len(rows) - _MAX_ROWS} more tensors (--json)"] if len(rows) > _MAX_ROWS else []
    if found["heads"]:
        lines.append("heads")
        lines += [f"  {name}: {change}" for name, change in found["heads"].items()]
    lines += _table("figures", found["figures"])
    if found["predictions"]:
        lines.append("predictions on the same inputs")
        for name, change in found["predictions"].items():
            agree = "" if change["top_1"] is None else f", same first label in {100 * change['top_1']:.0f} %"
            lines.append(f"  {name:<28} at most {change['largest']:.3g} apart, mean {change['mean']:.3g}{agree}")
    return "\n".join(map(printable, lines))


def _table(title: str, changes: Mapping[str, Any]) -> list[str]:
    if not changes:
        return []
    rows = list(changes.items())
    lines = [f"  {key:<52} {_short(a):>20} -> {_short(b)}" for key, (a, b) in rows[:_MAX_ROWS]]
    return [title, *lines, *([f"  and {len(rows) - _MAX_ROWS} more (--json)"] if len(rows) > _MAX_ROWS else [])]


def _short(value: Any) -> str:
    said = "-" if value is None else str(value)
    return said if len(said) <= 20 else f"{said[:17]}..."


def _fields(bundle: Bundle) -> dict[str, Any]:
    kept = {key: value for key, value in bundle.manifest.items() if key not in _APART}
    kept["confidence"] = bundle.confidence
    return {key: value for key, value in leaves(kept).items() if not key.endswith("sha256")}


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys([*ours, *theirs])
    return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def _engines(ours: Bundle, theirs: Bundle) -> dict[str, str]:
    changes = {}
    for name in dict.fromkeys([*ours.engines, *theirs.engines]):
        known = [golden.files(bundle, name) if name in bundle.engines else {} for bundle in (ours, theirs)]
        for target in dict.fromkeys([*known[0], *known[1]]):
            a, b = (files.get(target) for files in known)
            if a is None or b is None:
                changes[f"{name} ({target})"] = "only in b" if a is None else "only in a"
            elif a.sha256 != b.sha256:
                changes[f"{name} ({target})"] = f"{a.path.stat().st_size} -> {b.path.stat().st_size} bytes"
    return changes


def _weights(ours: Bundle, theirs: Bundle, name: str) -> dict[str, Any]:
    a, b = ours.engines[name].file, theirs.engines[name].file
    if a.sha256 == b.sha256:
        return {}
    try:
        ours_by_name, theirs_by_name = weights(a.read()), weights(b.read())
    except BundleError as error:
        raise BundleError(f"{a.path} and {b.path}: {error}") from None
    tensors, changed, count = {}, 0.0, 0
    for tensor, ours_of_it in ours_by_name.items():
        if tensor not in theirs_by_name:
            continue
        share, size = ours_of_it.changed(theirs_by_name[tensor]), prod(ours_of_it.shape)
        changed, count = changed + share * size, count + size
        if share:
            tensors[tensor] = share
    return {
        "values": count,
        "share": changed / count if count else 0.0,
        "tensors": dict(sorted(tensors.items(), key=lambda row: -row[1])),
        "only_in_a": [tensor for tensor in ours_by_name if tensor not in theirs_by_name],
        "only_in_b": [tensor for tensor in theirs_by_name if tensor not in ours_by_name],
    }


def _heads(ours: Bundle, theirs: Bundle) -> dict[str, str]:
    changes = {}
    for name in dict.fromkeys([*ours.heads, *theirs.heads]):
        a, b = ours.head_specs.get(name), theirs.head_specs.get(name)
        if a is None or b is None:
            changes[name] = "only in b" if a is None else "only in a"
        elif a != b:
            gone, new = (sorted(set(x.labels) - set(y.labels)) for x, y in ((a, b), (b, a)))
            said = [f"kind {a.kind} -> {b.kind}"] if a.kind != b.kind else []
            said += [f"gone {', '.join(gone)}"] if gone else []
            said += [f"new {', '.join(new)}"] if new else []
            changes[name] = "; ".join(said) or "other order or kinds of labels"
    return changes


def _predictions(ours: Bundle, theirs: Bundle, both: list[str]) -> dict[str, Any]:
    """Differences of the answers to a's golden inputs, else b's, else made-up ones, of engines that take the same."""
    if ours.id == theirs.id:
        return {}
    spec = ours.golden or theirs.golden
    inputs = golden.read(spec.path).inputs if spec else golden.made_inputs(ours)
    first, second = Perception(ours, STREAMS), Perception(theirs, STREAMS)
    found = {}
    for name in both:
        if name not in inputs or not (
            _takes(first.engines[name], inputs[name]) and _takes(second.engines[name], inputs[name])
        ):
            continue
        a = golden.answer(first.engines[name], inputs[name], ours.path)
        b = golden.answer(second.engines[name], inputs[name], theirs.path)
        heads = {tensor: role for role, tensor in ours.engines[name].outputs.items()}
        for tensor in a:
            if tensor in b and a[tensor].shape == b[tensor].shape:
                kind = ours.head_specs[heads[tensor]].kind if heads.get(tensor) in ours.head_specs else ""
                found[f"{name} {tensor}"] = _apart(a[tensor], b[tensor], kind in VECTORS)
    return found


def _takes(engine: BoundEngine, inputs: golden.Tensors) -> bool:
    return all(
        name in engine.inputs
        and (engine.inputs[name].shape[1:], engine.inputs[name].dtype) == (values.shape[1:], values.dtype)
        for name, values in inputs.items()
    )


def _apart(ours: NDArray[Any], theirs: NDArray[Any], labels: bool) -> dict[str, Any]:
    apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    rows = [values.reshape(len(values), -1).argmax(axis=1) for values in (ours, theirs)]
    return {
        "largest": float(apart.max(initial=0.0)),
        "mean": float(apart.mean()) if apart.size else 0.0,
        "top_1": float((rows[0] == rows[1]).mean()) if labels else None,
    }
