"""What the gallery is asked for: filters out of a query string, as conditions, and where the next page begins."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, or_

from cloud.errors import QueryError
from cloud.labels import of_tag
from cloud.report import EVICTED, HELD, LOST
from cloud.search import predicate
from cloud.tables import MOMENTS, SCENES
from export.model.labels import SCENE_TAGS

LIKELY: Final = 0.5
MEDIA: Final = (*predicate.MEDIA, "asked")
STATES: Final = {HELD: "held", EVICTED: "evicted", LOST: "lost"}
# The bundle's tag for each label; one that no tag has is looked for in analyses alone.
_TAG_OF: Final = {of_tag(tag): tag for tag in SCENE_TAGS}
_BOTTOM: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


@dataclass(frozen=True, slots=True)
class Filters:
    """What the gallery shows; "" and None leave one open."""

    vehicle: str = ""
    state: str = ""
    label: str = ""
    hardness: float | None = None
    since: datetime.date | None = None
    until: datetime.date | None = None

    @staticmethod
    def of(words: Any) -> Filters:
        """Out of a query string.

        Raises:
            QueryError: a value that is none.
        """
        state = str(words.get("state", ""))
        if state and state not in MEDIA:
            raise QueryError(f"expected a state of {', '.join(MEDIA)}, got {state[:40]!r}")
        return Filters(
            _text(words.get("vehicle", "")),
            state,
            _text(words.get("label", "")),
            _share(words.get("hardness", "")),
            _day(words.get("since", "")),
            _day(words.get("until", "")),
        )


def conditions(filters: Filters) -> list[ColumnElement[bool]]:
    """What a scene must be."""
    columns = SCENES.c
    wanted: list[ColumnElement[bool]] = []
    if filters.vehicle:
        wanted.append(columns.vehicle == filters.vehicle)
    if filters.state == "here":
        wanted.append(columns.received_at.is_not(None))
    elif filters.state == "asked":
        wanted.append(columns.wanted & columns.received_at.is_(None))
    elif filters.state:
        media = next(number for number, name in STATES.items() if name == filters.state)
        wanted.append((columns.media == media) & columns.received_at.is_(None))
    if filters.hardness is not None:
        wanted.append(columns.hardness >= filters.hardness)
    if filters.since is not None:
        wanted.append(columns.recorded_at >= _midnight(filters.since))
    if filters.until is not None:
        wanted.append(columns.recorded_at < _midnight(filters.until) + datetime.timedelta(days=1))
    if filters.label:
        wanted.append(_labelled(filters.label))
    return wanted


def _labelled(label: str) -> ColumnElement[bool]:
    """Told by the vehicle, or found by the analyst at some moment."""
    columns = SCENES.c
    fact, _, value = label.partition(":")
    told: list[ColumnElement[bool]] = []
    if fact == "sound":
        told.append(columns.sound_events.contains([{"name": value}]))
    else:
        names = [_TAG_OF[label]] if label in _TAG_OF else [value] if fact == "tag" else []
        told += [columns.scene_tags.contains([{"name": name}]) for name in names]
    seen = exists().where(MOMENTS.c.scene_id == columns.id, MOMENTS.c.labels[label].as_float() >= LIKELY)
    return or_(*told, seen)


def cursor_of(recorded_at: datetime.datetime | None, scene_id: int) -> str:
    """Where the page behind this scene begins."""
    micros = "x" if recorded_at is None else (recorded_at - _BOTTOM) // datetime.timedelta(microseconds=1)
    return f"{micros}-{scene_id}"


def behind(cursor: str) -> list[ColumnElement[bool]]:
    """Rows behind the last one of the page before."""
    if not cursor:
        return []
    micros, _, number = cursor.partition("-")
    columns = SCENES.c
    if not (number.isdecimal() and number.isascii() and len(number) < 19):
        raise QueryError(f"expected a cursor of this gallery, got {cursor[:40]!r}")
    is_after = columns.id < int(number)
    if micros == "x":
        return [columns.recorded_at.is_(None) & is_after]
    if not (micros.isdecimal() and micros.isascii() and len(micros) < 19):
        raise QueryError(f"expected a cursor of this gallery, got {cursor[:40]!r}")
    try:
        when = _BOTTOM + datetime.timedelta(microseconds=int(micros))
    except OverflowError:
        raise QueryError(f"expected a cursor of this gallery, got {cursor[:40]!r}") from None
    before = columns.recorded_at < when
    return [or_(before, and_(columns.recorded_at == when, is_after), columns.recorded_at.is_(None))]


def _midnight(day: datetime.date) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(), datetime.timezone.utc)


def _text(value: str) -> str:
    if len(value) > 128 or not value.isprintable():
        raise QueryError(f"expected at most 128 printable characters, got {value[:40]!r}")
    return value


def _share(value: str) -> float | None:
    if not value:
        return None
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise QueryError(f"expected a hardness from 0 to 1, got {value[:40]!r}")
    return share


def _day(value: str) -> datetime.date | None:
    if not value:
        return None
    try:
        day = datetime.date.fromisoformat(value)
    except ValueError:
        raise QueryError(f"expected a day as 2026-11-21, got {value[:40]!r}") from None
    if not 1970 <= day.year <= 9998:
        raise QueryError(f"expected a day from 1970 on, got {value[:40]!r}")
    return day
