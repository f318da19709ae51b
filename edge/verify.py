"""Compares decisions: a replay with its recording, bit for bit; two runs with each other, field by field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import ne
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from edge.decision import Decision, Mask, Score, Tag
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.errors import ConfigError, DriveFormatError
from roadfuse.v1 import decision_pb2

# In the order in which a frame passes them.
_STAGES = ("sync", "encode", "fuse")


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two runs part: the frame, and the first stage and tensor (or field) that differ."""

    index: int
    stamp_ns: int
    stage: str
    tensor: str
    expected: str
    got: str

    def __str__(self) -> str:
        return (
            f"decision {self.index} at {self.stamp_ns / 1e9:.6f} s diverges in stage {self.stage}, {self.tensor}: "
            f"expected {self.expected}, got {self.got}"
        )


def divergence(recorded: bytes | None, decision: Decision) -> Divergence | None:
    """The first difference between a recorded decision and a recomputed one; None if they are the same bytes."""
    if recorded is None:
        return Divergence(decision.index, decision.stamp_ns, "sync", "frame", "no decision", "a decision")
    message = decision_pb2.Decision.FromString(recorded)
    del message.timings[:]
    if message.SerializeToString(deterministic=True) == decision.canonical():
        return None
    try:
        expected = Decision.from_message(message)
    except ValueError as error:
        return Divergence(decision.index, decision.stamp_ns, "judge", "bytes", f"a decision ({error})", "another")
    got = Decision.from_message(decision.to_message(timings=False))
    theirs = {(d.stage, d.tensor): d.crc32 for d in expected.digests}
    ours = {(d.stage, d.tensor): d.crc32 for d in got.digests}
    for stage in _STAGES:
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            if key[0] == stage and theirs.get(key) != ours.get(key):
                return Divergence(
                    decision.index, decision.stamp_ns, *key, expected=_crc(theirs.get(key)), got=_crc(ours.get(key))
                )
    for name in Decision.__dataclass_fields__:
        if name not in ("timings_ns", "digests") and getattr(expected, name) != getattr(got, name):
            return Divergence(
                decision.index,
                decision.stamp_ns,
                "judge",
                name,
                expected=_short(getattr(expected, name)),
                got=_short(getattr(got, name)),
            )
    return Divergence(decision.index, decision.stamp_ns, "judge", "bytes", "the recorded bytes", "others")


def recorded_decisions(path: Path | str) -> Iterator[Decision]:
    """The decisions that a drive carries, in order.

    Raises:
        DriveFormatError: it carries none, or one that can't be read.
    """
    with DriveReader(path) as drive:
        if topics.DECISION not in drive.topics:
            raise DriveFormatError(
                f"{path}: expected recorded decisions ({topics.DECISION}), got none; "
                "`roadfuse replay DRIVE --out DECIDED.mcap` writes them"
            )
        for message in drive.messages(topics=[topics.DECISION]):
            try:
                yield Decision.from_message(decision_pb2.Decision.FromString(message.payload))
            except (DecodeError, ValueError) as error:
                raise DriveFormatError(f"{path}: expected a decision, got {error}") from None


@dataclass(slots=True)
class Difference:
    """How two runs differ.

    Attributes:
        compared: frames that both decided.
        only_a, only_b: frame instants that only one has.
        fields: field -> (frames in which it differs beyond its tolerance, largest numeric difference).
        first: the first frame that differs.
    """

    compared: int = 0
    only_a: list[int] = field(default_factory=list)
    only_b: list[int] = field(default_factory=list)
    fields: dict[str, tuple[int, float]] = field(default_factory=dict)
    first: Divergence | None = None

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.fields)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "same": self.same,
            "compared": self.compared,
            "only_a": len(self.only_a),
            "only_b": len(self.only_b),
            "fields": {
                name: {"frames": n, "largest": largest if math.isfinite(largest) else None}
                for name, (n, largest) in self.fields.items()
            },
            "first": str(self.first) if self.first else None,
        }


def compare(a: Path | str, b: Path | str, tolerances: Mapping[str, float], ignore: frozenset[str]) -> Difference:
    """Compare the decisions of two drives frame by frame (by capture instant).

    Args:
        tolerances: field -> largest numeric difference that counts as none (0 where not given).
        ignore: fields not compared.

    Raises:
        ConfigError: an unknown field.
    """
    known = set(Decision.__dataclass_fields__)
    unknown = (set(tolerances) | set(ignore)) - known
    if unknown:
        raise ConfigError(f"diff: expected fields of {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
    ours = {decision.stamp_ns: decision for decision in recorded_decisions(a)}
    theirs = {decision.stamp_ns: decision for decision in recorded_decisions(b)}
    result = Difference(only_a=sorted(ours.keys() - theirs.keys()), only_b=sorted(theirs.keys() - ours.keys()))
    names = [name for name in Decision.__dataclass_fields__ if name not in ignore and name != "timings_ns"]
    for stamp_ns in sorted(ours.keys() & theirs.keys()):
        result.compared += 1
        for name in names:
            x, y = getattr(ours[stamp_ns], name), getattr(theirs[stamp_ns], name)
            distance = _distance(x, y)
            if distance > tolerances.get(name, 0.0):
                count, largest = result.fields.get(name, (0, 0.0))
                result.fields[name] = count + 1, max(largest, distance)
                if result.first is None:
                    index = ours[stamp_ns].index
                    result.first = Divergence(index, stamp_ns, "decision", name, _short(x), _short(y))
    return result


def _distance(x: Any, y: Any) -> float:
    """0 for equal, the largest difference of the numbers in it, infinity where the structure or a word differs.

    NaN is as far from every number as a word is, and equal to NaN.
    """
    if x == y:
        return 0.0
    if isinstance(x, (int, float)) and isinstance(y, (int, float)):
        if math.isnan(x) or math.isnan(y):
            return 0.0 if math.isnan(x) and math.isnan(y) else math.inf
        return abs(x - y)
    if isinstance(x, Mask) and isinstance(y, Mask) and x[:-1] == y[:-1] and len(x.cells) == len(y.cells):
        return float(sum(map(ne, x.cells, y.cells)) / len(x.cells))  # share of the cells
    if isinstance(x, tuple) and isinstance(y, tuple) and len(x) == len(y):
        rows, others = (sorted(rows, key=_name) if _named(rows) else rows for rows in (x, y))
        return max((_distance(i, j) for i, j in zip(rows, others)), default=0.0)
    if isinstance(x, bytes) and isinstance(y, bytes) and len(x) == len(y) and len(x) % 4 == 0:
        import numpy as np

        ours, theirs = np.frombuffer(x, "<f4"), np.frombuffer(y, "<f4")
        differs = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
        apart = np.abs(ours[differs].astype(np.float64) - theirs[differs])
        return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
    return math.inf


def _name(row: tuple[str, float]) -> str:
    return row[0]


def _named(rows: tuple[Any, ...]) -> bool:
    """Whether these are scores or tags, which are the same in any order."""
    return bool(rows) and all(isinstance(row, (Score, Tag)) for row in rows)


def _crc(value: int | None) -> str:
    return "nothing" if value is None else f"{value:#010x}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
