"""What a vehicle says of itself over MQTT, parsed and checked: whatever a payload holds, at worst it is refused.

    roadfuse/VEHICLE/reported   {"stage", "active", "previous", "staged", "counter", "rollout", "why", "refused",
                                "state", "evidence": [base64 of roadfuse.v1.Evidence, ...]}
    roadfuse/VEHICLE/status     {"state": "online" | "offline" | "gone", ...}

Who says it is told by the topic: the broker lets each client write under its own name alone.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from roadfuse.v1 import updates_pb2

MOST_BYTES: Final = 64 << 10
MOST_EVIDENCE: Final = 16
MOST_TALLIES: Final = 64
MOST_METRICS: Final = 64
MOST_ACCOUNT_BYTES: Final = 64
STATES: Final = ("driving", "parked")
STATUSES: Final = ("online", "offline", "gone")
_MOST_WHY: Final = 500
_MOST_COUNT: Final = 1 << 53  # JSON readers keep these exact
_MOST_SECONDS: Final = 1e10
_BUNDLE: Final = re.compile(r"([0-9a-f]{64})?")  # empty: the bundle that came with the vehicle
_ROLLOUT: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_STAGES: Final = {
    word: number
    for name, number in updates_pb2.Stage.items()
    for word in (name, name.removeprefix("STAGE_"), name.removeprefix("STAGE_").lower())
}


@dataclass(frozen=True, slots=True)
class Report:
    """What runs on a vehicle, by its own word; `evidence` is as it came, not yet parsed."""

    stage: int
    active: str
    previous: str
    staged: str
    counter: int
    rollout: str
    why: str
    refused: str
    refused_until: int
    state: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """One row of TALLIES, but for its vehicle."""

    bundle: str
    is_shadow: bool
    account: bytes
    slice: str
    seconds: float
    frames: int
    counts: str  # JSON


def report(payload: bytes) -> Report:
    """A vehicle's report.

    Raises:
        ValueError: it is none.
    """
    said = _object(payload)
    evidence = said.get("evidence", [])
    if not isinstance(evidence, list) or len(evidence) > MOST_EVIDENCE or not all(isinstance(e, str) for e in evidence):
        raise ValueError(f"evidence: expected up to {MOST_EVIDENCE} texts")
    stage = said.get("stage", 0)
    if isinstance(stage, str):
        stage = _STAGES.get(stage)
    if not isinstance(stage, int) or isinstance(stage, bool) or stage not in updates_pb2.Stage.values():
        raise ValueError("stage: expected one of roadfuse.v1.Stage")
    state = said.get("state", "")
    if state not in ("", *STATES):
        raise ValueError(f"state: expected one of {', '.join(STATES)}")
    rollout = said.get("rollout", "")
    if not isinstance(rollout, str) or not _ROLLOUT.fullmatch(rollout):
        raise ValueError("rollout: expected an id")
    why = said.get("why", "")
    if not isinstance(why, str):
        raise ValueError("why: expected a text")
    why = why[:_MOST_WHY].replace("\0", "?").encode(errors="replace").decode()
    return Report(
        stage, _bundle(said, "active"), _bundle(said, "previous"), _bundle(said, "staged"), _counter(said, "counter"),
        rollout, why, _bundle(said, "refused"), _counter(said, "refused_until"), state, tuple(evidence),
    )  # fmt: skip


def status(payload: bytes) -> str:
    """online, offline or gone.

    Raises:
        ValueError: it is no status.
    """
    state = _object(payload).get("state")
    if not isinstance(state, str) or state not in STATUSES:
        raise ValueError(f"state: expected one of {', '.join(STATUSES)}")
    return state


def tallies(texts: Iterable[str]) -> list[Tally]:
    """Evidence as rows.

    Raises:
        ValueError: it is none, or a count can't be one.
    """
    rows: list[Tally] = []
    for text in texts:
        try:
            one = updates_pb2.Evidence.FromString(binascii.a2b_base64(text, strict_mode=True))
        except (binascii.Error, DecodeError, UnicodeError) as error:
            raise ValueError(f"evidence: {error}") from None
        if not _BUNDLE.fullmatch(one.bundle_id) or not 1 <= len(one.account) <= MOST_ACCOUNT_BYTES:
            raise ValueError("evidence: expected a bundle and an account")
        if len(one.tallies) > MOST_TALLIES:
            raise ValueError(f"evidence: expected up to {MOST_TALLIES} slices, got {len(one.tallies)}")
        bundle, is_shadow, account = one.bundle_id, one.is_shadow, one.account
        rows.extend(
            Tally(bundle, is_shadow, account, _name(tally.slice), _seconds(tally.seconds), _count(tally.frames),
                  _counts(tally.counts))
            for tally in one.tallies
        )  # fmt: skip
    return rows


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes, got {len(payload)}")
    try:
        said = json.loads(payload)
    except RecursionError:
        raise ValueError("expected an object, got something nested") from None
    if not isinstance(said, dict):
        raise ValueError("expected an object")
    return said


def _counter(said: dict[str, Any], name: str) -> int:
    counter = said.get(name, 0)
    if not isinstance(counter, int) or isinstance(counter, bool) or not 0 <= counter < _MOST_COUNT:
        raise ValueError(f"{name}: expected the counter of a release")
    return counter


def _bundle(said: dict[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or not _BUNDLE.fullmatch(value):
        raise ValueError(f"{name}: expected the id of a bundle")
    return value


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("evidence: expected names of slices and metrics in small letters")
    return name


def _seconds(seconds: float) -> float:
    if not math.isfinite(seconds) or not 0.0 <= seconds <= _MOST_SECONDS:
        raise ValueError("evidence: expected seconds")
    return seconds


def _count(count: int) -> int:
    if count > _MOST_COUNT:
        raise ValueError("evidence: expected a count")
    return count


def _counts(counts: Any) -> str:
    if len(counts) > MOST_METRICS:
        raise ValueError(f"evidence: expected up to {MOST_METRICS} metrics, got {len(counts)}")
    if not counts:
        return "{}"
    return json.dumps({_name(name): _count(counts[name]) for name in sorted(counts)})
