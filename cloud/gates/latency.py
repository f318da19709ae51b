"""The sixth gate: the candidate's engines take no more of the processor than the current ones, call by call in turn."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from cloud.gates.candidate import Candidate
from cloud.gates.moments import Moments, opened
from cloud.gates.verdict import GateRefused
from edge.bundle import Bundle, EngineSpec
from edge.engine import OrtEngine

_ROUNDS: Final = 15
_CALLS: Final = 8
_FIRST: Final = 2  # calls of a turn that find a cold cache


def latency(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Medians of the CPU time of each engine's calls, as a ratio to the current one's.

    Both run in this process and take turns, so that both meet the same load; what other processes do is in neither.

    Raises:
        GateRefused: what, expected, got.
    """
    policy = candidate.policy
    own, usual = (
        _opened(candidate.bundle, candidate.inputs()),
        _opened(candidate.current.bundle, candidate.current.inputs()),
    )
    detail: dict[str, Any] = {}
    sums = np.zeros(2)
    for name in usual:
        times = _timed(usual[name], own[name])
        medians = [float(np.median(row)) for row in times]
        detail[name] = {
            "current_ms": medians[0] * 1e-6,
            "candidate_ms": medians[1] * 1e-6,
            "ratio": medians[1] / medians[0],
        }
        sums += medians
    ratio = float(sums[1] / sums[0])
    detail["ratio"] = ratio
    if ratio > policy.slower:
        raise GateRefused(
            f"CPU time of all engines: expected at most {policy.slower:g} times the current, got {ratio:.2f}", detail
        )
    for name in usual:
        is_small = detail[name]["candidate_ms"] - detail[name]["current_ms"] < 0.1
        if detail[name]["ratio"] > policy.slower_engine and not is_small:
            raise GateRefused(
                f"CPU time of {name}: expected at most {policy.slower_engine:g} times the current, "
                f"got {detail[name]['ratio']:.2f}",
                detail,
            )
    return f"{ratio:.2f} times the current CPU time ({sums[1] * 1e-6:.2f} ms a frame)", detail


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
    for _ in range(_ROUNDS):
        for engine, times in zip(engines, took):
            for call in range(_CALLS):
                start = time.process_time_ns()
                engine.run()
                if call >= _FIRST:
                    times.append(time.process_time_ns() - start)
    return took
