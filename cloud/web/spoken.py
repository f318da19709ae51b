"""A predicate in a person's words, for chips and lists of campaigns."""

from __future__ import annotations

import datetime
import math
from typing import Final

from cloud.search.predicate import And, Between, Has, In, Near, Not, Or, Predicate, Then
from cloud.web import words

_NUMBERS: Final = {"recorded_s": "recorded", "duration_s": "lasts", "bytes": "size"}


def spoken(predicate: Predicate, *, inner: bool = False) -> str:
    """A condition in words: "night and not rain", "siren, then within 3 s pedestrian waits"."""
    match predicate:
        case Has(label, least):
            return words.said(label) + ("" if least == 0.5 else f" at least {100 * least:.0f} %")
        case Between(field, low, high):
            return _between(field, low, high)
        case In(field, values):
            return f"{field} {' or '.join(values) or 'none'}"
        case Near(latitude_deg, longitude_deg, radius_m):
            return f"within {radius_m:,.0f} m of {latitude_deg:.4f}, {longitude_deg:.4f}"
        case And(parts):
            return _listed(parts, " and ", "anything", inner)
        case Or(parts):
            return _listed(parts, " or ", "nothing", inner)
        case Not(part):
            return f"not {spoken(part, inner=True)}"
        case Then(first, second, within_s):
            return f"{spoken(first, inner=True)}, then within {within_s:g} s {spoken(second, inner=True)}"


def _listed(parts: tuple[Predicate, ...], joint: str, none: str, inner: bool) -> str:
    if not parts:
        return none
    listed = joint.join(spoken(part, inner=True) for part in parts)
    return f"({listed})" if inner and len(parts) > 1 else listed


def _between(field: str, low: float, high: float) -> str:
    name = _NUMBERS.get(field, field)
    ends = [_figure(field, end) if math.isfinite(end) else "" for end in (low, high)]
    if ends[0] and ends[1]:
        return f"{name} {ends[0]} to {ends[1]}"
    if ends[0]:
        return f"{name} from {ends[0]}"
    return f"{name} up to {ends[1]}" if ends[1] else f"any {name}"


def _figure(field: str, value: float) -> str:
    if field == "recorded_s":
        try:
            return datetime.datetime.fromtimestamp(value, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
        except (ValueError, OverflowError, OSError):
            return f"{value:g}"
    if field == "bytes":
        return words.size(value)
    return f"{value:g} s" if field == "duration_s" else f"{value:g}"
