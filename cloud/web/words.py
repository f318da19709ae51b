"""Labels, sizes, instants and states in a person's words."""

from __future__ import annotations

import datetime
from typing import Final

from cloud.labels import LABELS
from edge.report.words import WHY_HARD
from edge.report.words import clock as clock
from edge.report.words import percent as percent

_SAID: Final = {
    "light:day": "daylight",
    "weather:clear": "clear",
    "action:cruise": "cruises",
    "action:accelerate": "accelerates",
    "action:brake": "brakes",
    "action:stop": "stands",
    "action:turn_left": "turns left",
    "action:turn_right": "turns right",
    "vehicles:none": "no vehicle",
    "vehicles:one": "one vehicle",
    "vehicles:several": "several vehicles",
    "emergency:yes": "emergency vehicle",
    "intent:waits": "pedestrian waits",
    "intent:will_cross": "pedestrian will cross",
    "intent:crosses": "pedestrian crosses",
    "sound:rain": "rain heard",
}
_MEDIA: Final = {
    "here": "clip here",
    "held": "clip on board",
    "evicted": "clip let go",
    "lost": "clip lost",
}


def said(label: str) -> str:
    """A label: `sound:siren` is "siren", `sign:stop` is "sign: stop"."""
    if label in _SAID:
        return _SAID[label]
    fact, _, value = label.partition(":")
    spoken = (value or fact).replace("_", " ")
    return f"sign: {spoken}" if fact == "sign" and value else spoken


def sense(label: str) -> str:
    """Whether it is heard or seen; the page's colours follow."""
    return "hears" if label.startswith("sound:") else "sees"


def choices() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """All labels for a menu: the fact, in words, and its labels with theirs."""
    facts: dict[str, list[tuple[str, str]]] = {}
    for label in LABELS:
        facts.setdefault(label.partition(":")[0], []).append((label, said(label)))
    return [(fact, fact.replace("_", " "), values) for fact, values in facts.items()]


def media(state: str) -> str:
    """Where a clip is."""
    return _MEDIA.get(state, state)


def why_hard(name: str) -> str:
    """A score of hardness, in a sentence."""
    return WHY_HARD.get(name, name.replace("_", " "))


def size(count: float) -> str:
    """69 MB, 1.4 GB; decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def instant(when: datetime.datetime | None) -> str:
    """2026-11-21 18:20:05, UTC."""
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S") if when is not None else "unknown"


def ago(when: datetime.datetime | None, now: datetime.datetime | None = None) -> str:
    """just now, 5 min ago, 3 h ago, 12 days ago; "in 3 h" of what is to come."""
    if when is None:
        return "never"
    seconds = ((now or datetime.datetime.now(datetime.timezone.utc)) - when).total_seconds()
    steps = ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h"), (float("inf"), 86_400, "days"))
    unit_s, unit = next((unit_s, unit) for until, unit_s, unit in steps if abs(seconds) < until)
    if abs(seconds) < 10:
        return "just now"
    count = f"{abs(seconds) / unit_s:.0f} {unit}"
    return f"{count} ago" if seconds > 0 else f"in {count}"
