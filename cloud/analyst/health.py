"""What the sensors of a clip were like, as the vehicle recorded it, else as the replay finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloud.analyst.clip import Replayed, Told
from edge.alignment.offset import SURE


def health(clip: Replayed) -> dict[str, Any]:
    """The report's part on the sensors: absent streams, suspects, late clocks, a rig in doubt."""
    told = clip.edge or clip.again
    first_ns = told[0].stamp_ns
    return {
        "by": "edge" if clip.edge else "analyst",
        "agreement_least": min(one.alignment.agreement for one in told),
        "absences": _absences(told, first_ns),
        "suspects": _suspects(told, first_ns),
        "clocks": _clocks(told),
        "rig": _rig(told, first_ns),
    }


def _absences(told: Sequence[Told], first_ns: int) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[int]] = {}
    for one in told:
        for stream, reason in one.absences.items():
            found.setdefault((stream, reason), []).append(one.stamp_ns)
    return [
        {"stream": stream, "reason": reason, "share": len(stamps) / len(told), "from_s": _s(stamps[0] - first_ns),
         "to_s": _s(stamps[-1] - first_ns)}
        for (stream, reason), stamps in sorted(found.items())
    ]  # fmt: skip


def _suspects(told: Sequence[Told], first_ns: int) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in told:
        for suspect in one.alignment.suspects:
            row = found.setdefault(
                (suspect.stream, suspect.kind),
                {"evidence": 0.0, "frames": 0, "since_s": _s(suspect.since_ns - first_ns)},
            )
            row["frames"] += 1
            row["evidence"] = max(row["evidence"], suspect.evidence)
    return [{"stream": stream, "kind": kind, **row} for (stream, kind), row in sorted(found.items())]


def _clocks(told: Sequence[Told]) -> list[dict[str, Any]]:
    """The last sure word on each stream."""
    last = {clock.stream: clock for one in told for clock in one.alignment.clocks if clock.confidence >= SURE}
    return [
        {"stream": stream, "late_ms": clock.late_ns / 1e6, "confidence": clock.confidence}
        for stream, clock in sorted(last.items())
    ]


def _rig(told: Sequence[Told], first_ns: int) -> dict[str, Any] | None:
    doubts = [one.alignment.rig for one in told if one.alignment.rig is not None]
    if not doubts:
        return None
    worst = max(doubts, key=lambda doubt: doubt.score)
    return {"axis": worst.axis, "amount": worst.amount, "score": worst.score, "since_s": _s(worst.since_ns - first_ns)}


def _s(ns: int) -> float:
    return ns / 1e9
