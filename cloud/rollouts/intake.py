"""Reports of the fleet into the database, many in one statement, and of each vehicle the last one alone.

`take` is called by the line's thread and only remembers; `flush` is called by another and writes what came since.
Counts are cumulative and states are whole, so a word that is lost or passed over does no harm: the next one says it
again. A report that says nothing new moves `seen_at`, in one statement for all of them. What waits is bounded by the
vehicles that there are, and by MOST_WAITING.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Counter
from sqlalchemy import Connection, Engine

from cloud.certificates import VEHICLE
from cloud.releases.tallies import MOST_ROWS
from cloud.rollouts import reports
from cloud.rollouts.reports import Report, Tally

MOST_WAITING: Final = 200_000
# A report that says nothing new is written in full this often, whatever others wrote meanwhile.
FULL_S: Final = 600.0

_TAKEN: Final = Counter("roadfuse_reports", "Words of vehicles over MQTT, by what became of them", ["what"])
_TOUCH: Final = "UPDATE fleet SET seen_at = now() WHERE vehicle = ANY(%s::text[])"
_STATE: Final = """
INSERT INTO fleet (vehicle, state)
SELECT said.vehicle, said.state FROM unnest(%s::text[], %s::text[]) AS said (vehicle, state)
JOIN vehicles ON vehicles.name = said.vehicle
ON CONFLICT (vehicle) DO UPDATE SET state = excluded.state"""
_COLUMNS: Final = ("stage", "active", "previous", "staged", "counter", "rollout", "why", "refused", "refused_until")
_FULL: Final = f"""
INSERT INTO fleet (vehicle, state, seen_at, {", ".join(_COLUMNS)})
SELECT said.vehicle, said.state, CASE WHEN said.is_fresh THEN now() END, {", ".join(f"said.{n}" for n in _COLUMNS)}
FROM unnest(
    %s::text[], %s::text[], %s::boolean[], %s::smallint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[],
    %s::text[], %s::text[], %s::bigint[]
) AS said (vehicle, state, is_fresh, {", ".join(_COLUMNS)})
JOIN vehicles ON vehicles.name = said.vehicle
ON CONFLICT (vehicle) DO UPDATE SET
    state = excluded.state, seen_at = coalesce(excluded.seen_at, fleet.seen_at),
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}"""
# Of two words about one account the later has more of everything.
_TALLIES: Final = """
INSERT INTO tallies (vehicle, bundle_id, is_shadow, account, slice, seconds, frames, counts)
SELECT said.vehicle, bundle_id, is_shadow, account, slice, seconds, frames, counts::jsonb
FROM unnest(
    %s::text[], %s::text[], %s::boolean[], %s::bytea[], %s::text[], %s::double precision[], %s::bigint[], %s::text[]
) AS said (vehicle, bundle_id, is_shadow, account, slice, seconds, frames, counts)
JOIN vehicles ON vehicles.name = said.vehicle
ON CONFLICT (vehicle, bundle_id, is_shadow, account, slice) DO UPDATE SET
    seconds = excluded.seconds, frames = excluded.frames, counts = excluded.counts, told_at = now()
WHERE tallies.seconds <= excluded.seconds AND tallies.frames <= excluded.frames AND (
    tallies.seconds < excluded.seconds OR tallies.frames < excluded.frames
    OR (SELECT coalesce(sum(value::numeric), 0) FROM jsonb_each_text(tallies.counts))
        < (SELECT coalesce(sum(value::numeric), 0) FROM jsonb_each_text(excluded.counts)))"""
_ROWS: Final = "SELECT vehicle, count(*) FROM tallies WHERE vehicle = ANY(%s::text[]) GROUP BY vehicle"


@dataclass(slots=True)
class _Waiting:
    """What a vehicle said last, since the last flush."""

    report: bytes | None = None
    is_fresh: bool = False
    status: bytes | None = None
    status_is_later: bool = False


@dataclass(slots=True)
class _Known:
    """What was written of a vehicle."""

    payload: int = 0  # its hash
    report: Report | None = None
    status: str = ""
    state: str = ""
    full_at: float = 0.0


class Intake:
    """Takes reports and writes them. `take` and `flush` may be called by two threads.

    Args:
        engine: of a migrated database.
        clock: seconds that go on evenly.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        self._waiting: dict[str, _Waiting] = {}
        self._known: dict[str, _Known] = {}
        self._rows: dict[str, set[int]] = {}  # hashes of the tallies' keys that are there
        self._lock = threading.Lock()
        self.dropped = 0

    def take(self, topic: str, payload: bytes, is_retained: bool) -> None:
        """Remember a message of roadfuse/VEHICLE/reported or /status.

        Args:
            is_retained: the broker had it in store: it says nothing of whether the vehicle is there.
        """
        _, _, rest = topic.partition("/")
        vehicle, _, what = rest.partition("/")
        with self._lock:
            waiting = self._waiting.get(vehicle)
            if waiting is None:
                if len(self._waiting) >= MOST_WAITING:
                    self._drop("overflow")
                    return
                waiting = self._waiting[vehicle] = _Waiting()
            if what == "reported":
                waiting.report = payload
                waiting.is_fresh = waiting.is_fresh or not is_retained
                waiting.status_is_later = waiting.status_is_later and is_retained
            elif what == "status":
                waiting.status, waiting.status_is_later = payload, True

    def flush(self) -> int:
        """Write what came since the last call, in one transaction.

        Returns:
            Of how many vehicles.

        Raises:
            SQLAlchemyError: the database is away; what came is kept, but for what newer words replace.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if not waiting:
            return 0
        batch = _Batch()
        for vehicle in sorted(waiting):  # in one order, so that no two writers wait for each other
            try:
                self._sort(batch, vehicle, waiting[vehicle])
            except ValueError:
                self._drop("refused")
        try:
            batch.write(self._engine, self._is_known)
        except BaseException:
            self._put_back(waiting)
            raise
        self._known.update(batch.known)
        for vehicle, tally in batch.tallies:
            self._rows.setdefault(vehicle, set()).add(_key(tally))
        _TAKEN.labels("unchanged").inc(len(batch.touched))
        _TAKEN.labels("changed").inc(len(batch.full))
        _TAKEN.labels("tallies").inc(len(batch.tallies))
        return len(waiting)

    def _sort(self, batch: _Batch, vehicle: str, said: _Waiting) -> None:
        """Into what is to be written of a vehicle.

        Raises:
            ValueError: a payload is not what it should be.
        """
        if not VEHICLE.fullmatch(vehicle):
            raise ValueError("expected the name of a vehicle")
        old = self._known.get(vehicle, _Known())
        status = old.status
        if said.status is not None:
            try:
                status = reports.status(said.status)
            except ValueError:
                self._drop("refused")
        if said.report is None:
            state = _state(status, old.report)
            if state != old.state:
                batch.states.append((vehicle, state))
            batch.known[vehicle] = _Known(old.payload, old.report, status, state, old.full_at)
            return
        digest, now = hash(said.report), self._clock()
        is_due = now - old.full_at >= FULL_S
        report = old.report if digest == old.payload and old.report is not None else reports.report(said.report)
        if said.is_fresh and not said.status_is_later:
            status = "online"  # it speaks, whatever the broker thought
        state = _state(status, report)
        before = old.report.evidence if old.report is not None and not is_due else ()
        fresh_evidence = [text for text in report.evidence if text not in before]
        rows = reports.tallies(fresh_evidence) if fresh_evidence else []
        batch.tallies += [(vehicle, row) for row in rows]
        is_same = old.report is not None and _core(report) == _core(old.report) and state == old.state
        if is_same and not is_due:
            if said.is_fresh:
                batch.touched.append(vehicle)
            batch.known[vehicle] = _Known(digest, report, status, state, old.full_at)
        else:
            batch.full.append((vehicle, state, said.is_fresh, report))
            batch.known[vehicle] = _Known(digest, report, status, state, now)

    def _put_back(self, older: dict[str, _Waiting]) -> None:
        """What could not be written, where nothing newer came meanwhile."""
        with self._lock:
            for vehicle, newer in self._waiting.items():
                old = older.setdefault(vehicle, newer)
                if newer.report is not None:
                    old.report, old.is_fresh = newer.report, newer.is_fresh
                if newer.status is not None:
                    old.status = newer.status
                old.status_is_later = newer.status_is_later
            self._waiting = older

    def _is_known(self, vehicle: str, tally: Tally) -> bool:
        return _key(tally) in self._rows.get(vehicle, ())

    def _drop(self, why: str) -> None:
        self.dropped += 1
        _TAKEN.labels(why).inc()


class _Batch:
    """Rows of one transaction."""

    def __init__(self) -> None:
        self.touched: list[str] = []
        self.states: list[tuple[str, str]] = []
        self.full: list[tuple[str, str, bool, Report]] = []
        self.tallies: list[tuple[str, Tally]] = []
        self.known: dict[str, _Known] = {}

    def write(self, engine: Engine, is_known: Callable[[str, Tally], bool]) -> None:
        with engine.begin() as connection:
            self.within(connection, is_known)
            columns: tuple[list[Any], ...]
            for statement, columns in (
                (_TOUCH, (self.touched,)),
                (_STATE, _columns(self.states)),
                (_FULL, _columns([(v, s, f, *(getattr(r, n) for n in _COLUMNS)) for v, s, f, r in self.full])),
                (_TALLIES, _columns(_rows(self.tallies))),
            ):
                if columns and columns[0]:
                    connection.exec_driver_sql(statement, columns)

    def within(self, connection: Connection, is_known: Callable[[str, Tally], bool]) -> None:
        """Leave out new rows of vehicles that have as many as they may."""
        new = [one for one in self.tallies if not is_known(*one)]
        if not new:
            return
        counted = connection.exec_driver_sql(_ROWS, ([vehicle for vehicle, _ in new],))
        rows = {row[0]: int(row[1]) for row in counted}
        full = {vehicle for vehicle, _ in new if rows.get(vehicle, 0) + reports.MOST_TALLIES > MOST_ROWS}
        if full:
            self.tallies = [one for one in self.tallies if one[0] not in full or is_known(*one)]


def _rows(tallies: list[tuple[str, Tally]]) -> list[tuple[Any, ...]]:
    """Each row once: a statement can't change one twice."""
    rows = {(vehicle, t.bundle, t.is_shadow, t.account, t.slice): t for vehicle, t in tallies}
    return [(*key, tally.seconds, tally.frames, tally.counts) for key, tally in rows.items()]


def _key(tally: Tally) -> int:
    return hash((tally.bundle, tally.is_shadow, tally.account, tally.slice))


def _columns(rows: list[Any]) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*rows)))


def _core(report: Report) -> tuple[Any, ...]:
    return tuple(getattr(report, name) for name in _COLUMNS)


def _state(status: str, report: Report | None) -> str:
    """driving, parked, offline or gone; empty while nothing is known."""
    if status in ("offline", "gone"):
        return status
    return report.state if report is not None else ""
