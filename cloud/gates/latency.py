"""The sixth gate: the candidate's engines take no more of the processor than the current ones, call by call in turn."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from cloud.gates.candidate import Candidate
from cloud.gates.moments import Moments, opened
from cloud.gates.policy import Policy
from cloud.gates.verdict import GateRefused
from edge.bundle import Bundle, EngineSpec
from edge.engine import OrtEngine

_CALLS: Final = 80
_FIRST: Final = 4  # calls that find a cold cache
_ATTEMPTS: Final = 3
_LEAST_MS: Final = 0.1  # more of a single engine; below it nobody cares


def latency(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """The CPU time of each engine's calls, as a ratio to the current one's.

    Both run in this process and take turns, call by call, so that both meet the same load, and of each the fastest
    quarter counts, which met little of it. Who is too slow is measured again, and refused only if it stays so.

    Raises:
        GateRefused: what, expected, got.
    """
    own = _opened(candidate.bundle, candidate.inputs())
    usual = _opened(candidate.current.bundle, candidate.current.inputs())
    for attempt in range(_ATTEMPTS):
        detail = _measured(usual, own)
        slow = _too_slow(detail, candidate.policy)
        if not slow:
            break
        if attempt == _ATTEMPTS - 1:
            raise GateRefused(slow, detail)
    return f"{detail['ratio']:.2f} times the current CPU time ({detail['candidate_ms']:.2f} ms a frame)", detail


def _measured(usual: dict[str, OrtEngine], own: dict[str, OrtEngine]) -> dict[str, Any]:
    detail: dict[str, Any] = {}
    sums = np.zeros(2)
    for name in usual:
        times = [float(np.quantile(row, 0.25)) * 1e-6 for row in _timed(usual[name], own[name])]
        detail[name] = {"current_ms": times[0], "candidate_ms": times[1], "ratio": times[1] / times[0]}
        sums += times
    return detail | {"current_ms": float(sums[0]), "candidate_ms": float(sums[1]), "ratio": float(sums[1] / sums[0])}


def _too_slow(detail: dict[str, Any], policy: Policy) -> str:
    """What is; "" where nothing is."""
    if detail["ratio"] > policy.slower:
        return (
            f"CPU time of all engines: expected at most {policy.slower:g} times the current, got {detail['ratio']:.2f}"
        )
    for name, found in detail.items():
        if isinstance(found, dict) and found["ratio"] > policy.slower_engine:
            more_ms = found["candidate_ms"] - found["current_ms"]
            if more_ms > _LEAST_MS:
                return f"CPU time of {name}: expected at most {policy.slower_engine:g} times, got {found['ratio']:.2f}"
    return ""


def _opened(bundle: Bundle, inputs: Moments) -> dict[str, OrtEngine]:
    engines = {name: opened(bundle, name) for name in bundle.engines}
    for name, spec in bundle.encoders.items():
        assert isinstance(spec, EngineSpec)
        for tensor, rows in inputs[name].items():
            engines[name].inputs[tensor][...] = rows[len(rows) // 2]
    if bundle.fuse is not None:
        engines["fuse"].inputs[bundle.fuse.presence][...] = 1.0
    return engines


def _timed(*engines: OrtEngine) -> list[list[int]]:
    """CPU time of calls, ns, of all threads of this process."""
    took: list[list[int]] = [[] for _ in engines]
    for call in range(_CALLS):
        for engine, times in zip(engines, took):
            start = time.process_time_ns()
            engine.run()
            if call >= _FIRST:
                times.append(time.process_time_ns() - start)
    return took
