"""The second gate: manifest and graphs, read but not run; at its end the loop's own engines open once."""

from __future__ import annotations

from typing import Any

from cloud.gates.candidate import Candidate
from cloud.gates.graphs import check_graph
from cloud.gates.settings import check_settings
from edge.bundle import EngineSpec, FuseSpec
from edge.loop import Loop


def static(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Settings beside the current ones, each graph of each target, and whether the loop takes it.

    Raises:
        GateRefused, BundleError: what, expected, got.
    """
    check_settings(candidate)
    counts: dict[str, Any] = {}
    before = candidate.current.graphs
    for name, targets in candidate.graphs.items():
        fed = _fed(candidate.bundle.engines[name])
        for target, model in targets.items():
            current = before.get(name, {}).get(target)
            counts[f"{name} {target}"] = check_graph(f"{name} ({target})", model, current, fed, candidate.policy)
    Loop(candidate.bundle)
    return f"{len(counts)} graphs, {sum(entry['nodes'] for entry in counts.values())} operators", counts


def _fed(spec: EngineSpec | FuseSpec) -> set[str]:
    if isinstance(spec, FuseSpec):
        return {*spec.inputs, spec.presence, *spec.state}
    return {spec.input["name"], *spec.state, *spec.constants}
