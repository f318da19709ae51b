"""What people and rules said, as one line each: for `roadfuse rollout watch`, and for the log's page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cloud.rollouts.log import Entry

_MODES: Final = {1: "shadow", 2: "run"}
_NAMED: Final = 5


def happened(entry: Entry) -> Iterator[dict[str, Any]]:
    """What an entry says to people, and the figures beside it; of observations nothing."""
    content = entry.content
    for one in content.get("commands", ()):
        yield {"number": entry.number, "command": one, "says": commanded(one)}
    told: dict[tuple[int, int], list[str]] = {}
    for one in content.get("orders", ()):
        if one["order"] == "assign":
            told.setdefault((one["wave"], one["mode"]), []).append(one["vehicle"])
            continue
        is_out = one["order"] == "withdraw"
        says = f"{one['vehicle']} is taken out: {one['why']}" if is_out else ordered(one)
        yield {"number": entry.number, "order": one, "says": says}
    for (wave, mode), vehicles in told.items():
        names = ", ".join(vehicles[:_NAMED]) + (", ..." if len(vehicles) > _NAMED else "")
        who = "1 vehicle is" if len(vehicles) == 1 else f"{len(vehicles)} vehicles are"
        says = f"{step(wave)}: {who} told to {_MODES[mode]} it ({names})"
        yield {"number": entry.number, "assigned": vehicles, "says": says}


def commanded(one: Mapping[str, Any]) -> str:
    """A command, of a row of the log: `approve wave 2 by ann: the yard looked fine`."""
    what = f" wave {one['wave']:.0f}" if one.get("wave") else f" {one['vehicle']}" if one.get("vehicle") else ""
    return f"{one['kind']}{what} by {one['by']}{_why(one)}"


def ordered(one: Mapping[str, Any]) -> str:
    """An order that is about no single vehicle: `wave 1 begins`."""
    if one["order"] == "promote":
        return f"{step(one['wave'])} begins"
    if one["order"] == "ask_approval":
        return f"{step(one['wave'])} waits for approval"
    return f"{one['order'].replace('_', ' ')}{_why(one)}"


def step(wave: float) -> str:
    """Of its number; 0 is the shadow."""
    return f"wave {wave:.0f}" if wave else "the shadow"


def _why(one: Mapping[str, Any]) -> str:
    return f": {one['why']}" if one.get("why") else ""
