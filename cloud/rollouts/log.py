"""A rollout's log: all that went into the rules and all that they ordered, one row after the other, and its replay.

    recorded    {"what": "created", ...}: the first row, what the rollout is; {"what": "promote" | "stop", ...}: records
    commanded   an observation: what people said, and what gates said before
    observed    an observation by the engine, after which it asked the rules; with it the scenes of its verdicts
    ordered     {"at_s", "orders"}: what the rules answered, and what was carried out in the same transaction

A row is never changed. After each `observed` the rules are asked, so the replay knows when nothing was ordered as well.
Observations that the engine kept leave the table after a while, and lie in segments then (cloud/rollouts/segments.py);
no other row does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Select, Text, cast, func, select, text

from cloud.errors import RolloutError
from cloud.rollouts import evidence as known
from cloud.rollouts import orders, rules
from cloud.rollouts.evidence import Evidence, Observation
from cloud.rollouts.orders import Order
from cloud.rollouts.policy import Policy
from cloud.tables import ROLLOUT_LOG

RECORDED: Final = "recorded"
COMMANDED: Final = "commanded"
OBSERVED: Final = "observed"
ORDERED: Final = "ordered"
_FETCHED: Final = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """A row.

    Attributes:
        at: UTC, ISO 8601: when it was written; the rules know nothing of it.
    """

    number: int
    kind: str
    content: dict[str, Any]
    at: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a log gives when the rules are asked again.

    Attributes:
        rows: that were read.
        asked: how often they were.
        ordered: orders in all.
        differs: the first row that says something else than the rules; "" where none does.
        evidence: at the end.
    """

    rows: int
    asked: int
    ordered: int
    differs: str
    evidence: Evidence


def append(connection: Connection, rollout: str, rows: Iterable[tuple[str, dict[str, Any]]], after: int) -> int:
    """Write rows; whoever does holds the lock of the rollout's row.

    Args:
        after: the last number that is there.

    Returns:
        The last number then.
    """
    written = [(after + n, kind, json.dumps(content)) for n, (kind, content) in enumerate(rows, 1)]
    if written:
        connection.exec_driver_sql(
            "INSERT INTO rollout_log (rollout, number, kind, content, at) "
            "SELECT %s, n, k, c::jsonb, clock_timestamp() "
            "FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS r (n, k, c)",
            (rollout, *map(list, zip(*written))),
        )
    return after + len(written)


def read(connection: Connection, rollout: str, after: int = 0) -> list[Entry]:
    """Rows in their order; for what is new, or younger than what was kept.

    Args:
        after: only later ones than this number.

    Raises:
        RolloutError: some of them left the table.
    """
    found = [_entry(row) for row in connection.execute(_rows(rollout, after, ()))]
    for number, entry in enumerate(found, after + 1):
        if entry.number != number:
            raise RolloutError(f"expected row {number} of {rollout} in the database, got {entry.number} as the next")
    return found


def streamed(connection: Connection, rollout: str, after: int = 0, *, without: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Those rows that are in the table, in their order; few of them are in memory.

    Args:
        after: only later ones than this number.
        without: kinds that are left out.
    """
    query = _rows(rollout, after, without).execution_options(yield_per=_FETCHED)
    yield from map(_entry, connection.execute(query))


def parsed(content: str) -> dict[str, Any]:
    """JSON as PostgreSQL writes it."""
    return json.loads(content, parse_int=_whole)  # type: ignore[no-any-return]


def last(connection: Connection, rollout: str) -> tuple[int, float]:
    """Number of the last row, and the latest `at_s` that one says."""
    rows = ROLLOUT_LOG.c
    query = select(rows.number, cast(rows.content, Text)).where(rows.rollout == rollout)
    found = connection.execute(query.where(rows.kind != RECORDED).order_by(rows.number.desc()).limit(1)).one_or_none()
    number = connection.execute(select(func.coalesce(func.max(rows.number), 0)).where(rows.rollout == rollout))
    return int(number.scalar_one()), 0.0 if found is None else float(json.loads(found[1])["at_s"])


def now_s(connection: Connection) -> float:
    """UTC of the database's clock: the one that all writers share."""
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())::float8")).scalar_one())


def begun(entry: Entry) -> Evidence:
    """What the rules know before anything happened.

    Args:
        entry: the first row.

    Raises:
        RolloutError: it is not the first row of a log.
    """
    said = entry.content
    if entry.kind != RECORDED or said.get("what") != "created":
        raise RolloutError("expected a log that begins with what was created, got another row")
    policy = Policy.of_kept(said["policy"])
    return known.begin(policy, said["rollout"], said["bundle"], int(said["counter"]), tuple(said["hardware"]))


def folded(evidence: Evidence, entry: Entry) -> Evidence:
    """What the rules know after a row."""
    if entry.kind == OBSERVED:
        return rules.fold(evidence, Observation.of_dict(entry.content))
    if entry.kind == COMMANDED:
        said = Observation.of_dict(entry.content)
        if evidence.started_s is not None:
            # A word of a person ends no interval: what vehicles said in it may not have been heard yet.
            said = replace(said, at_s=evidence.at_s)
        return rules.fold(evidence, said)
    if entry.kind == ORDERED:
        return rules.fold(evidence, Observation(float(entry.content["at_s"]), ordered=orders_of(entry)))
    return evidence


def orders_of(entry: Entry) -> tuple[Order, ...]:
    """What an `ordered` row says."""
    return tuple(orders.of_dict(one) for one in entry.content["orders"])


def replayed(entries: Iterable[Entry]) -> Replay:
    """Ask the rules again, at each instant at which they were asked.

    Raises:
        RolloutError: it is no log.
    """
    rows = iter(entries)
    first = next(rows, None)
    if first is None:
        raise RolloutError("expected a log, got no rows")
    evidence, asked, ordered, number = begun(first), 0, 0, first.number
    for entry, following in _pairs(rows):
        if entry.number != number + 1:
            return Replay(number, asked, ordered, f"row {number + 1} is missing", evidence)
        number = entry.number
        evidence = folded(evidence, entry)
        if entry.kind != OBSERVED:
            continue
        asked += 1
        got = [orders.to_dict(one) for one in rules.decide(evidence.policy, evidence, float(entry.content["at_s"]))]
        said = following.content["orders"] if following is not None and following.kind == ORDERED else []
        if json.loads(json.dumps(got)) != said:
            differs = f"row {number}: the log says {_short(said)}, the rules {_short(got)}"
            return Replay(number, asked, ordered, differs, evidence)
        ordered += len(got)
    return Replay(number, asked, ordered, "", evidence)


def _rows(rollout: str, after: int, without: tuple[str, ...]) -> Select[Any]:
    rows = ROLLOUT_LOG.c
    # As text: numbers keep their kind, which the cloud's reader of JSON does not leave them.
    query = select(rows.number, rows.kind, cast(rows.content, Text), rows.at)
    query = query.where(rows.rollout == rollout, rows.number > after).order_by(rows.number)
    return query.where(rows.kind.not_in(without)) if without else query


def _entry(row: Any) -> Entry:
    number, kind, content, at = row
    return Entry(number, kind, parsed(content), at.isoformat())


def _pairs(entries: Iterator[Entry]) -> Iterator[tuple[Entry, Entry | None]]:
    before: Entry | None = None
    for entry in entries:
        if before is not None:
            yield before, entry
        before = entry
    if before is not None:
        yield before, None


def _whole(digits: str) -> float:
    """PostgreSQL writes large floats without a point."""
    return int(digits) if len(digits) < 17 else float(digits)


def _short(said: list[dict[str, Any]]) -> str:
    return json.dumps(said)[:200] if said else "nothing"
