"""A rollout's log a page at a time, each row in words; what is large is counted by the database and stays there."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from cloud.rollouts import log, words
from cloud.web.rollout_words import at, count

PAGE: Final = 40
_MODES: Final = {1: "to shadow it", 2: "to run it"}
_COUNTED: Final = {"reports": "reports", "increments": "counts", "judged": "verdicts"}
# Orders to single vehicles are counted; of the others all but their records come along.
_ROWS: Final = text("""
SELECT number, at, kind, content->>'what' AS what, content->>'wave' AS wave, content->>'why' AS why,
    content->>'by' AS by, content->'commands' AS commands,
    CASE WHEN kind = 'commanded' THEN content->'gates' END AS gates,
    coalesce(content->>'at_s', content->'record'->>'at_s')::float8 AS at_s,
    CASE WHEN kind = 'observed' THEN jsonb_build_object(
        'reports', jsonb_array_length(content->'reports'), 'increments', jsonb_array_length(content->'increments'),
        'judged', jsonb_array_length(content->'judged')) END AS observed,
    CASE WHEN kind = 'ordered' THEN (SELECT jsonb_agg(one - 'record') FROM jsonb_array_elements(content->'orders') one
        WHERE one->>'order' NOT IN ('assign', 'withdraw')) END AS orders,
    CASE WHEN kind = 'ordered' THEN (SELECT jsonb_agg(jsonb_build_array(name, mode, wave, times, vehicle, why)) FROM (
        SELECT one->>'order' AS name, (one->>'mode')::int AS mode, (one->>'wave')::int AS wave, count(*) AS times,
            min(one->>'vehicle') AS vehicle, min(one->>'why') AS why FROM jsonb_array_elements(content->'orders') one
        WHERE one->>'order' IN ('assign', 'withdraw') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3) AS told) END AS told
FROM rollout_log WHERE rollout = :rollout AND number < :before AND kind <> ALL (:without)
ORDER BY number DESC LIMIT :most""")
# What left the database, by the number of its last row.
_SEGMENTS: Final = text("""
SELECT first, last, rows, moved_at FROM rollout_segments WHERE rollout = :rollout AND last < :before
ORDER BY last DESC LIMIT :most""")


@dataclass(frozen=True, slots=True)
class Row:
    """A row.

    Attributes:
        at: by the rules' time where it has one.
        said: in words.
    """

    number: int
    at: datetime.datetime
    kind: str
    said: list[str]


def page(
    connection: Connection, rollout: str, before: int | None, *, without: Sequence[str] = (), most: int = PAGE
) -> tuple[list[Row], int | None]:
    """Rows, the latest first, and before which number the next page begins; None behind the last.

    Args:
        before: only rows before this number.
        without: kinds that are left out.
    """
    asked = {"rollout": rollout, "before": before or 1 << 62, "without": list(without), "most": most + 1}
    found = [
        Row(int(row.number), at(row.at_s) if row.at_s is not None else row.at, row.kind, _said(row))
        for row in connection.execute(_ROWS, asked)
    ]
    if log.OBSERVED not in without:
        found += [
            Row(one.last, one.moved_at, log.OBSERVED, [
                f"{count(one.rows)} observations from row {one.first} on left the database: roadfuse rollout log"
            ])
            for one in connection.execute(_SEGMENTS, asked)
        ]  # fmt: skip
        found.sort(key=lambda row: -row.number)
    return found[:most], found[most - 1].number if len(found) > most else None


def _said(row: Any) -> list[str]:
    said = [_recorded(row)] if row.kind == "recorded" else []
    said += [words.commanded(one) for one in row.commands or ()]
    if row.gates:
        refused = sum(one.get("verdict") == "refused" for one in row.gates)
        said.append(f"{len(row.gates)} gates said their verdict" + (f", {refused} refused" if refused else ""))
    if row.observed:
        parts = [f"{count(row.observed[name])} {words}" for name, words in _COUNTED.items() if row.observed.get(name)]
        said.append("observed: " + (", ".join(parts) or "time went by"))
    said += [words.ordered(one) for one in row.orders or ()]
    said += [_told(*one) for one in row.told or ()]
    return said


def _recorded(row: Any) -> str:
    if row.what == "created":
        return f"created by {row.by}"
    if row.what == "promote":
        return f"record of the begin of {f'wave {row.wave}' if row.wave != '0' else 'the shadow'}"
    return f"record of the stop: {row.why}" if row.what == "stop" else str(row.what)


def _told(order: str, mode: float | None, wave: float | None, times: float, vehicle: str, why: str | None) -> str:
    who = vehicle if times == 1 else f"{count(times)} vehicles ({vehicle}, ...)"
    if order == "withdraw":
        return f"{who} taken out" + (f": {why}" if why else "")
    return f"{who} told {_MODES.get(int(mode or 0), '')}, wave {wave or 0:.0f}"
