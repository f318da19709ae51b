"""What a bundle is, for people and for scripts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any, Final

from edge import golden
from edge.bundle import Bundle, EngineSpec
from edge.engine import BoundEngine
from edge.model_file import target_of
from edge.perception import Perception
from edge.streams import STREAMS

_TIMED_CALLS: Final = 9
_MAX_LINES: Final = 24  # of figures and of lineage, each
_MAX_VALUE: Final = 72  # characters


def described(bundle: Bundle, *, timed: bool = False) -> dict[str, Any]:
    """All that the bundle's manifest and files say, and with `timed` the time of a call of each engine here, ms.

    Raises:
        BundleError: `timed`, and an engine does not run.
    """
    perception = Perception(bundle, STREAMS) if timed else None
    engines = {name: _engine(bundle, name, perception.engines[name] if perception else None) for name in bundle.engines}
    heads = {
        name: {"kind": head.kind, "labels": list(head.labels), "threshold": bundle.thresholds.get(name)}
        for name, head in bundle.head_specs.items()
    }
    return {
        "bundle": str(bundle.path),
        "id": bundle.id,
        "name": bundle.name,
        "version": bundle.version,
        "bytes": sum(path.stat().st_size for path in bundle.path.iterdir() if path.is_file()),
        "threads": bundle.threads,
        "warm_up": bundle.warm_up,
        "engines": engines,
        "heads": heads,
        "confidence": bundle.confidence,
        "golden": _golden(bundle),
        "figures": bundle.manifest.get("figures", {}),
        "lineage": bundle.manifest.get("lineage", {}),
    }


def text(shown: Mapping[str, Any]) -> str:
    """`described`, as a page for the terminal."""
    lines = [
        f"{shown['bundle']}: {shown['name']} {shown['version']}, {shown['bytes'] / 1e6:.2f} MB",
        f"id       {shown['id']}",
        f"runs     {shown['threads']} thread{'s' * (shown['threads'] != 1)} a call, {shown['warm_up']} warm-up calls",
        "engines",
    ]
    for name, engine in shown["engines"].items():
        call = f", {engine['call_ms']:g} ms a call" if "call_ms" in engine else ""
        lines.append(f"  {name:<8} {engine['precision']}, {engine['bytes'] / 1e6:.3f} MB{call}")
        for target, lowering in engine["lowerings"].items():
            lines.append(f"    {target:<6} {lowering['file']}, {lowering['bytes'] / 1e6:.3f} MB on disk")
        if engine["input"]:
            lines.append(f"    input  {_pairs(engine['input'])}")
        lines.append(f"    output {', '.join(engine['outputs'])}")
    lines.append("heads")
    for name, head in shown["heads"].items():
        at = "" if head["threshold"] is None else f" at {_short(head['threshold'])}"
        lines.append(f"  {name}: {head['kind']} of {len(head['labels'])}: {_short(', '.join(head['labels']))}{at}")
    if shown["confidence"]:
        lines.append(f"confidence {_short(', '.join(shown['confidence']))}")
    lines.append(f"golden   {_pairs(shown['golden']) if shown['golden'] else 'none'}")
    for part in ("figures", "lineage"):
        found = leaves(shown[part])
        lines += [part if found else f"{part}  none"]
        lines += [f"  {key:<52} {_short(value)}" for key, value in list(found.items())[:_MAX_LINES]]
        if len(found) > _MAX_LINES:
            lines.append(f"  and {len(found) - _MAX_LINES} more (--json)")
    return "\n".join(map(printable, lines))


def printable(line: str) -> str:
    """A line for the terminal: signs that it would obey, or that can't be written, are question marks."""
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every value that is no object, by its dotted path; lists stay whole."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def call_ms(engine: BoundEngine) -> float:
    """Median time of a call, ms."""
    spans_ns = []
    for _ in range(_TIMED_CALLS):
        start_ns = time.perf_counter_ns()
        engine.run()
        spans_ns.append(time.perf_counter_ns() - start_ns)
    return round(statistics.median(spans_ns) / 1e6, 3)


def _engine(bundle: Bundle, name: str, engine: BoundEngine | None) -> dict[str, Any]:
    spec = bundle.engines[name]
    found: dict[str, Any] = {
        "file": spec.path.name,
        "sha256": spec.file.sha256,
        "precision": spec.precision,
        "bytes": spec.path.stat().st_size,
        "runs_here": target_of("cpu") if target_of("cpu") in spec.lowerings else golden.FILE,
        "lowerings": {
            target: {"file": file.path.name, "sha256": file.sha256, "bytes": file.path.stat().st_size}
            for target, file in spec.lowerings.items()
        },
        "input": dict(spec.input) if isinstance(spec, EngineSpec) else {},
        "outputs": dict(spec.outputs),
        "state": dict(spec.state),
    }
    entry = bundle.manifest.get("fuse" if name == "fuse" else "encoders", {})
    ranges = (entry if name == "fuse" else entry[name]).get("ranges_id")
    found |= {"ranges_id": ranges} if ranges else {}
    found |= {"call_ms": call_ms(engine)} if engine is not None else {}
    return found


def _golden(bundle: Bundle) -> dict[str, Any]:
    if bundle.golden is None:
        return {}
    vectors = golden.read(bundle.golden.path)
    cases = max((len(values) for tensors in vectors.inputs.values() for values in tensors.values()), default=0)
    targets = sorted({target for answers in vectors.answers.values() for target in answers})
    return {"file": bundle.golden.path.name, "cases": cases, "engines": list(vectors.answers), "targets": targets}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return said if len(said) <= _MAX_VALUE else f"{said[: _MAX_VALUE - 3]}..."
