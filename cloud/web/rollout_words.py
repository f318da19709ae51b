"""Figures, states and stages of rollouts in a person's words."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, func, select

from cloud.rollouts.evidence import ACTIVATE, SHADOW, Vehicle
from cloud.tables import RELEASES
from roadfuse.v1.updates_pb2 import Stage

# What a vehicle is within a rollout: by what is known of it, and how that is said.
PARTS: Final = {
    "runs": "runs it",
    "told": "told to run it",
    "shadows": "shadows it",
    "told-shadow": "told to shadow it",
    "failed": "failed",
    "none": "no part",
}
KINDS: Final = {
    "active": "acted on",
    "shadow": "in the shadow",
    "paired": "on the same frames",
    "judged": "judged by the bigger model",
}
# Their counts are pairs that differ, of which the one or the other is wrong; hours have no part in them.
PAIRS: Final = ("paired", "judged")
_STAGES: Final[dict[int, str]] = {Stage.STAGE_UNSPECIFIED: "unknown", Stage.STAGE_IDLE: "settled"}
_THIN: Final = "\u2009"
_BADGES: Final = {"created": "", "running": "running", "paused": "paused", "stopped": "lost", "aborted": "evicted"}


def part(one: Vehicle) -> str:
    """What a vehicle is within its rollout, a key of PARTS."""
    if one.failed_s is not None:
        return "failed"
    if one.mode == ACTIVATE:
        return "runs" if one.settled >= ACTIVATE else "told"
    if one.mode == SHADOW:
        return "shadows" if one.settled >= SHADOW else "told-shadow"
    return "none"


def stage(number: int) -> str:
    """Of roadfuse.v1.Stage; one that is none, as its number."""
    if number in _STAGES:
        return _STAGES[number]
    try:
        name = Stage.Name(number)
    except ValueError:
        return f"stage {number}"
    return name.removeprefix("STAGE_").lower().replace("_", " ").replace("self tested", "self-tested")


def badge(state: str) -> str:
    """The class of a state's badge."""
    return _BADGES.get(state, "done")


def count(number: float) -> str:
    """1 234, whole."""
    return f"{number:,.0f}".replace(",", _THIN)


def e_value(value: float | None) -> str:
    """0.032, 12.4, 1 234, 1.2e9."""
    if value is None:
        return "none"
    if not math.isfinite(value) or value >= 1e100:
        return "beyond 1e100"
    if value < 0.001:
        return "0" if value == 0 else "below 0.001"
    if value < 100:
        return f"{value:.3g}"
    return count(value) if value < 1e6 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def hours(value: float) -> str:
    """Device-hours: 0.25 h, 12.5 h, 1 234 h."""
    return f"{value:.2g} h" if value < 1 else f"{value:.1f} h" if value < 100 else f"{count(value)} h"


def lasted(seconds: float) -> str:
    """40 s, 25 min, 3.5 h, 4 days."""
    for most, unit_s, unit in ((90, 1, "s"), (5_400, 60, "min"), (172_800, 3_600, "h")):
        if seconds < most:
            value = seconds / unit_s
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def at(seconds: float) -> datetime.datetime:
    """An instant of the rules."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def rate(events: int, in_hours: float) -> str:
    """Events an hour."""
    return f"{events / in_hours:.2g}/h" if in_hours > 0 else ""


def bundles(connection: Connection, ids: Iterable[str]) -> dict[str, str]:
    """Bundles by the newest release that brought them: "demo 1.2 (release 7)"; those that none did are left out."""
    rows = RELEASES.c
    wanted = {one for one in ids if one and "\0" not in one}
    query = (
        select(rows.bundle_id, rows.name, rows.version, rows.counter)
        .distinct(rows.bundle_id)
        .where(rows.bundle_id == func.any(list(wanted)))
        .order_by(rows.bundle_id, rows.counter.desc())
    )
    return {row.bundle_id: f"{row.name} {row.version} (release {row.counter:.0f})" for row in connection.execute(query)}


def bundle(names: dict[str, Any], id: str) -> str:
    """A bundle in words."""
    return names.get(id) or (f"bundle {id[:12]}" if id else "the reference bundle")
