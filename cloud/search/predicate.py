"""What a scene must be to be found: a tree of conditions, which people may edit and campaigns carry.

Its JSON is one object a node:

    {"and": [...]}   {"or": [...]}   {"not": ...}   {"then": [first, second], "within_s": 3}
    {"has": "sound:siren", "least": 0.5}   {"field": "hardness", "from": 0.5, "to": 1}
    {"field": "vehicle", "in": ["car-1"]}   {"near": [48.1, 11.5], "radius_m": 500}
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cloud.errors import QueryError

# Numbers by which scenes are told apart, and texts.
NUMBERS: Final = (
    "hardness",
    "recorded_s",
    "duration_s",
    "bytes",
    "novelty",
    "uncertainty",
    "disagreement",
    "misaligned",
)
TEXTS: Final = ("vehicle", "bundle", "media")
MEDIA: Final = ("here", "held", "evicted", "lost")  # where a clip can be
SURE: Final = 0.5  # from here on a moment has a label, unless somebody says otherwise
MAX_NODES: Final = 256
MAX_DEPTH: Final = 16
_EARTH_M: Final = 20_037_508.0


@dataclass(frozen=True, slots=True)
class Has:
    """A label (cloud/labels.py) with at least this probability."""

    label: str
    least: float = SURE


@dataclass(frozen=True, slots=True)
class Between:
    """A number of NUMBERS from `low` to `high`, both included; recorded_s is seconds since 1970."""

    field: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, slots=True)
class In:
    """A text of TEXTS that is one of these; media is one of MEDIA."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Near:
    """Within a distance of a place."""

    latitude_deg: float
    longitude_deg: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class And:
    """All of these, at one moment; of none: always."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of these; of none: never."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Not this."""

    part: Predicate


@dataclass(frozen=True, slots=True)
class Then:
    """A moment of a scene at which `first` holds, and a later one, within so many seconds, at which `second` does."""

    first: Predicate
    second: Predicate
    within_s: float = 3.0


Predicate: TypeAlias = Has | Between | In | Near | And | Or | Not | Then
ANY: Final = And(())


def nodes(predicate: Predicate) -> int:
    """How many conditions a tree has, itself included."""
    match predicate:
        case And(parts) | Or(parts):
            return 1 + sum(map(nodes, parts))
        case Not(part):
            return 1 + nodes(part)
        case Then(first, second):
            return 1 + nodes(first) + nodes(second)
        case _:
            return 1


def depth(predicate: Predicate) -> int:
    """How many conditions lie within each other at most."""
    match predicate:
        case And(parts) | Or(parts):
            return 1 + max(map(depth, parts), default=0)
        case Not(part):
            return 1 + depth(part)
        case Then(first, second):
            return 1 + max(depth(first), depth(second))
        case _:
            return 1


def labels_of(predicate: Predicate) -> tuple[str, ...]:
    """Labels that a predicate asks for, in its order, each once; those under a `not` too."""
    match predicate:
        case Has(label):
            return (label,)
        case And(parts) | Or(parts):
            return tuple(dict.fromkeys(label for part in parts for label in labels_of(part)))
        case Not(part):
            return labels_of(part)
        case Then(first, second):
            return tuple(dict.fromkeys((*labels_of(first), *labels_of(second))))
        case _:
            return ()


def to_json(predicate: Predicate) -> dict[str, Any]:
    """As its JSON says it."""
    match predicate:
        case Has(label, least):
            return {"has": label, "least": least}
        case Between(field, low, high):
            ends = {"from": low, "to": high}
            return {"field": field, **{name: end for name, end in ends.items() if math.isfinite(end)}}
        case In(field, values):
            return {"field": field, "in": list(values)}
        case Near(latitude_deg, longitude_deg, radius_m):
            return {"near": [latitude_deg, longitude_deg], "radius_m": radius_m}
        case And(parts):
            return {"and": [to_json(part) for part in parts]}
        case Or(parts):
            return {"or": [to_json(part) for part in parts]}
        case Not(part):
            return {"not": to_json(part)}
        case Then(first, second, within_s):
            return {"then": [to_json(first), to_json(second)], "within_s": within_s}


def from_json(value: object) -> Predicate:
    """What `to_json` wrote, or a person.

    Raises:
        QueryError: another form, or more than MAX_NODES or MAX_DEPTH.
    """
    left = MAX_NODES

    def node(value: object, depth: int) -> Predicate:
        nonlocal left
        left -= 1
        _expect(left >= 0 and depth <= MAX_DEPTH, f"at most {MAX_NODES} conditions, {MAX_DEPTH} deep", "more")
        _expect(isinstance(value, dict), "a condition as an object", value)
        assert isinstance(value, dict)
        keys = frozenset(map(str, value))
        if keys in ({"and"}, {"or"}):
            (name, parts), *_ = value.items()
            _expect(isinstance(parts, list), f"a list of conditions in {name!r}", parts)
            inner = tuple(node(part, depth + 1) for part in parts)
            return And(inner) if name == "and" else Or(inner)
        if keys == {"not"}:
            return Not(node(value["not"], depth + 1))
        if "then" in keys and keys <= {"then", "within_s"}:
            pair = value["then"]
            _expect(isinstance(pair, list) and len(pair) == 2, "two conditions in 'then'", pair)
            within_s = _number("within_s", value.get("within_s", 3.0), 0.0, 3600.0)
            return Then(node(pair[0], depth + 1), node(pair[1], depth + 1), within_s)
        return _leaf(value, keys)

    return node(value, 1)


def _leaf(value: dict[str, Any], keys: frozenset[str]) -> Predicate:
    if "has" in keys and keys <= {"has", "least"}:
        return Has(_text("has", value["has"]), _number("least", value.get("least", SURE), 0.0, 1.0))
    if keys == {"near", "radius_m"}:
        place = value["near"]
        _expect(isinstance(place, list) and len(place) == 2, "latitude and longitude in 'near'", place)
        return Near(
            _number("latitude", place[0], -90.0, 90.0),
            _number("longitude", place[1], -180.0, 180.0),
            _number("radius_m", value["radius_m"], 0.0, _EARTH_M),
        )
    if "field" in keys and keys <= {"field", "in"} and "in" in keys:
        field, values = value["field"], value["in"]
        _expect(field in TEXTS, f"a field of {', '.join(TEXTS)} with 'in'", field)
        _expect(isinstance(values, list) and len(values) <= MAX_NODES, "a list of texts in 'in'", values)
        return among(field, tuple(_text("in", one) for one in values))
    if "field" in keys and keys <= {"field", "from", "to"}:
        _expect(value["field"] in NUMBERS, f"a field of {', '.join(NUMBERS)} with 'from' and 'to'", value["field"])
        return Between(
            value["field"],
            _number("from", value["from"], -math.inf, math.inf) if "from" in keys else -math.inf,
            _number("to", value["to"], -math.inf, math.inf) if "to" in keys else math.inf,
        )
    raise QueryError(f"expected a condition (and, or, not, then, has, field, near), got {sorted(keys)}")


def among(field: str, values: tuple[str, ...]) -> In:
    """The condition, where the values can be the field's.

    Raises:
        QueryError: one can't be.
    """
    for value in values if field == "media" else ():
        _expect(value in MEDIA, f"media of {', '.join(MEDIA)}", value)
    return In(field, values)


def _number(name: str, value: object, low: float, high: float) -> float:
    # A whole number may be larger than any float, which math.isfinite does not take.
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    _expect(is_number and low <= float(value) <= high, f"{name} as a number from {low:g} to {high:g}", value)  # type: ignore[arg-type]
    return float(value)  # type: ignore[arg-type]


def _text(name: str, value: object) -> str:
    _expect(isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable(), f"a text in {name!r}", value)
    return str(value)


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise QueryError(f"expected {expected}, got {str(got)[:80]!r}")
