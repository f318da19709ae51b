"""How good a synchroniser's output is: coverage by deadline, ages, and what a better choice would have saved."""

from __future__ import annotations

import statistics
from bisect import bisect_right, insort
from typing import Any, NamedTuple

from sync_load import TABLE, Event

from edge.streams import DEADLINE_NS, MS, Policy


class Output(NamedTuple):
    """One synchronised set.

    Attributes:
        arrived: messages of the load that had arrived when it left.
        now_ns: when it left, in data time.
        frame_ns: capture of its camera frame.
        seq: of its camera frame.
        stamps: a row of the table each, without the camera: capture of the sample nearest to the frame; None if absent.
    """

    arrived: int
    now_ns: int
    frame_ns: int
    seq: int
    stamps: tuple[int | None, ...]


def score(load: list[Event], outputs: list[Output]) -> dict[str, Any]:
    """Figures of one contender on one load.

    Returns:
        coverage: share of the camera frames that came before their deadline and got a set by it.
        latency_ms: p50 and p99 of leaving minus capture.
        present: share of (frame, stream) with a sample.
        age_ms: stream -> p50, p99 of |capture - frame capture|.
        excess_ms: p50, p99 and the most by which a choice was worse than the best that had arrived.
    """
    in_time = {message.seq for now_ns, row, message in load if not row and now_ns < message.stamp_ns + DEADLINE_NS}
    covered = {output.seq for output in outputs if output.now_ns <= output.frame_ns + DEADLINE_NS} & in_time
    ages: list[list[float]] = [[] for _ in TABLE[1:]]
    excess = []
    arrived: list[list[int]] = [[] for _ in TABLE]
    at = 0
    for output in sorted(outputs, key=lambda output: output.arrived):
        while at < output.arrived:
            insort(arrived[load[at][1]], load[at][2].stamp_ns)
            at += 1
        for row, stamp_ns in enumerate(output.stamps):
            if stamp_ns is not None:
                age_ns = abs(stamp_ns - output.frame_ns)
                ages[row].append(age_ns / MS)
                excess.append(max(age_ns - _best_ns(row + 1, arrived[row + 1], output.frame_ns), 0) / MS)
    slots = len(outputs) * len(ages)
    return {
        "coverage": len(covered) / len(in_time),
        "sets": len(outputs),
        "latency_ms": _percentiles([(output.now_ns - output.frame_ns) / MS for output in outputs]),
        "present": sum(map(len, ages)) / slots if slots else 0.0,
        "age_ms": {stream.name: _percentiles(values) for stream, values in zip(TABLE[1:], ages)},
        "excess_ms": {**_percentiles(excess), "max": round(max(excess, default=0.0), 3)},
    }


def _best_ns(row: int, stamps: list[int], frame_ns: int) -> int:
    """The least distance that the stream's policy allows: held streams and windows look back only."""
    at = bisect_right(stamps, frame_ns)
    before_ns = frame_ns - stamps[at - 1] if at else 1 << 62
    if at == len(stamps) or TABLE[row].policy in (Policy.HOLD, Policy.WINDOW):
        return before_ns
    ahead_ns = stamps[at] - frame_ns
    return min(before_ns, ahead_ns) if ahead_ns <= TABLE[row].ahead_ns else before_ns


def _percentiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    parts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(parts[49], 3), "p99": round(parts[98], 3)}
