"""One cycle of the rollouts: what is new goes into the log and through the rules, and what they order is carried out.

All of a cycle that concerns a rollout is one transaction: the observation, the orders, the assignments and stops that
they are, and the rollout's state. A cycle that is killed leaves nothing, and the next one begins where the log ends.

Exposure is counted once an interval (policy.tests.interval_s), shortly before its end: the tests go on no more often.
That a vehicle was seen again is written down only where its silence would otherwise be decided on too early.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from prometheus_client import Gauge, Histogram
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from cloud.metrics import SECONDS
from cloud.releases import stops
from cloud.rollouts import book, changes, log, orders, rules, stop_line
from cloud.rollouts.changes import Count, Counts, Fleet, Key
from cloud.rollouts.desires import Wanted
from cloud.rollouts.evidence import CREATED, ENDED, STOP, Command, Evidence, Increment, Judged, Observation
from cloud.rollouts.orders import Assign, Order, Promote, Stop, Withdraw
from cloud.tables import ROLLOUTS
from edge.updates.evidence import BETTER, DIFFERS, SAME, WORSE

_LOG: Final = logging.getLogger(__name__)
# Rules are asked at least so often: schedules and durations pass without a word of anybody.
ASK_S: Final = 5.0
# Orders lead to orders; a cycle follows them so far.
MOST_STEPS: Final = 12
# What the log amounts to is written down so often, so that a start need not read all of it.
KEEP_S: Final = 300.0
_RECENT_S: Final = 10.0
# After a start nobody is taken for silent before vehicles had the time to come back and say a word.
GRACE_S: Final = 150.0
# A rollout whose log or policy can't be understood is tried again after so long.
BROKEN_S: Final = 60.0
# Between two looks at most, in quiet times: no interval may end between them uncounted.
_BETWEEN_S: Final = 2.0
# Longer between two looks, and what vehicles said meanwhile is heard before an interval ends.
_GAP_S: Final = 30.0
_CYCLE_S: Final = Histogram("roadfuse_rollout_cycle_seconds", "One look at all rollouts", buckets=SECONDS)
_ACTIVE: Final = Gauge("roadfuse_rollouts_active", "Rollouts that are under way")
_AGAINST: Final = Gauge("roadfuse_rollout_peak_e_value", "Largest e-value against a release so far", ["rollout"])


class Control:
    """Carries rollouts out. One at a time: its caller holds the lock.

    Args:
        connection: its transactions are this one's.
        want: is given what vehicles are to be told, once that is committed.
        clock: UTC in seconds, by the database.
        grace_s: for which rollouts that were under way stay at the instant at which they were left.
    """

    def __init__(
        self,
        connection: Connection,
        want: Callable[[dict[str, Wanted]], object] = lambda _: None,
        clock: Callable[[Connection], float] = log.now_s,
        grace_s: float = GRACE_S,
    ) -> None:
        self._connection, self._want, self._clock, self._grace_s = connection, want, clock, grace_s
        self._thaw_s: float | None = None
        self._broken: dict[str, float] = {}  # rollout -> until when it is left alone
        self._fleet, self._counts = Fleet(), Counts()
        self._active: dict[str, _Active] = {}

    def cycle(self) -> int:
        """Look at all rollouts that are under way.

        Returns:
            How many there are.

        Raises:
            SQLAlchemyError: the database is away. Nothing of this object counts any more.
        """
        start = time.perf_counter()
        with self._connection.begin():
            now_s = self._clock(self._connection)
            self._thaw_s = now_s + self._grace_s if self._thaw_s is None else self._thaw_s
            found = book.followed(self._connection)
            ids = [one.id for one, _ in found]
            changed = self._fleet.look(self._connection, now_s) if ids else set()
        for id in self._active.keys() - set(ids):
            del self._active[id]
            _AGAINST.remove(id)
        for one, taken in found:
            if now_s < self._broken.get(one.id, 0.0):
                continue
            try:
                self._look(one.id, now_s, changed, taken)
            except SQLAlchemyError:
                raise
            except Exception:  # one rollout that breaks the rules stops neither others nor stops
                _LOG.exception("rollout_broken rollout=%s again_in_s=%.0f", one.id, BROKEN_S)
                self._broken[one.id] = now_s + BROKEN_S
                self._active.pop(one.id, None)
        _ACTIVE.set(sum(not one.is_over for one, _ in found))
        _CYCLE_S.observe(time.perf_counter() - start)
        return len(ids)

    def _look(self, id: str, now_s: float, changed: set[str], taken: tuple[str, ...]) -> None:
        assert self._thaw_s is not None
        known = self._active.get(id)
        if known is None:
            known = self._active[id] = _Active(id, self._fleet, self._counts, self._thaw_s - self._grace_s)
        with self._connection.begin():
            wanted = known.cycle(self._connection, now_s, changed, taken, is_early=now_s < self._thaw_s)
        self._want(wanted)
        _AGAINST.labels(id).set(known.evidence.peak)


class _Active:
    """A rollout that is under way.

    Args:
        began_s: when the engine did; what was started before waits until vehicles had the time to come back.
    """

    def __init__(self, id: str, fleet: Fleet, counts: Counts, began_s: float) -> None:
        self.id, self._began_s = id, began_s
        self.evidence: Evidence
        self._fleet, self._counts = fleet, counts
        self._number = 0
        self._counted: dict[Key, Count] | None = None  # None: it was not started
        self._scenes: set[int] = set()
        self._rows: list[tuple[str, dict[str, Any]]] = []
        self._wanted: dict[str, Wanted] = {}
        self._asked_at = self._kept_at = self._all_at = -math.inf
        self._flushed = -1
        self._was_under_way = False
        self._looked_at = -math.inf

    def cycle(
        self, connection: Connection, now_s: float, changed: set[str], taken: tuple[str, ...], is_early: bool = False
    ) -> dict[str, Wanted]:
        """One look, in the caller's transaction; gives what vehicles are to be told when it is committed.

        Args:
            taken: classes of hardware that a later rollout has.
        """
        connection.execute(select(ROLLOUTS.c.id).where(ROLLOUTS.c.id == self.id).with_for_update())
        self._rows, self._wanted = [], {}
        was = self.evidence.state if self._number else ""  # what is read next may end it
        is_commanded = self._read(connection)
        now_s = max(now_s, self.evidence.at_s)
        if self._counted is None:
            if self.evidence.state == CREATED:
                if is_commanded:
                    self._sync(connection)
                return {}
            self._begin(connection, now_s)
        if is_early and self._was_under_way:
            now_s = self.evidence.at_s
        elif now_s - self._looked_at > _GAP_S:
            self._hear_all(connection)
            self._looked_at = now_s
        else:
            self._looked_at = now_s
        observation, scenes = self._observe(connection, now_s, changed)
        if taken != self.evidence.taken:
            observation = replace(observation, taken=taken)
        parts = observation.reports, observation.increments, observation.judged, observation.commands
        is_new = is_commanded or any(parts) or observation.taken is not None
        if is_new or self._is_over_interval(now_s) or abs(now_s - self._asked_at) >= ASK_S:
            self._ask(connection, observation, scenes, is_new)
            self._asked_at = now_s
        if self._rows:
            self._number = log.append(connection, self.id, self._rows, self._number)
            self._sync(connection)
        ends = self.evidence.state in ENDED and self.evidence.state != was
        if self._rows and (ends or now_s - self._kept_at >= KEEP_S):
            self._keep(connection, now_s)
        return self._wanted

    def _read(self, connection: Connection) -> bool:
        """Rows that others wrote, or all of them at the start; whether there are any."""
        if not self._number:
            self.evidence, self._number, aside, rows = book.loaded(connection, self.id)
            started_s = self.evidence.started_s
            self._was_under_way = started_s is not None and started_s < self._began_s
            if "counted" in aside:
                self._counted = changes.of_json(aside["counted"])
                self._scenes = set(aside["scenes"])
                for entry in rows:
                    if entry.kind == log.OBSERVED:
                        for more in Observation.of_dict(entry.content).increments:
                            changes.add(self._counted, more)
                        self._scenes.update(entry.content.get("scenes", ()))
                self._flushed = self.evidence.interval if self.evidence.pending else -1
            return True
        rows = log.read(connection, self.id, self._number)
        for entry in rows:
            self.evidence, self._number = log.folded(self.evidence, entry), entry.number
        return bool(rows)

    def _begin(self, connection: Connection, now_s: float) -> None:
        """Counts from here on; what was before is nobody's evidence."""
        self._counts.look(connection, now_s)
        self._counted = dict(self._counts.sums)
        self._keep(connection, now_s)

    def _hear_all(self, connection: Connection) -> None:
        """What vehicles said while nobody looked, before the interval that was under way then is over."""
        reports = [
            report
            for vehicle, report in sorted(self._fleet.reports.items())
            if (known := self.evidence.vehicles.get(vehicle)) is None or report.seen_s > known.report.seen_s
        ]
        if reports:
            self._ask(connection, Observation(self.evidence.at_s, tuple(reports)), [], True)

    def _observe(self, connection: Connection, now_s: float, changed: set[str]) -> tuple[Observation, list[int]]:
        is_all = now_s - self._all_at >= _RECENT_S
        self._all_at = now_s if is_all else self._all_at
        refresh_s = self.evidence.policy.silence.after_s / 2
        reports = []
        for vehicle in sorted(self._fleet.reports if is_all else changed):
            report, known = self._fleet.reports[vehicle], self.evidence.vehicles.get(vehicle)
            if known is not None:
                said = known.report
                if report.seen_s <= said.seen_s and report == said:
                    continue
                is_same = replace(report, seen_s=said.seen_s) == said
                if is_same and now_s - said.seen_s < refresh_s:
                    continue
                if report.seen_s < said.seen_s:  # a word that came late
                    continue
            reports.append(report)
        judged: list[tuple[int, Judged]] = []
        started_s = self.evidence.started_s if self.evidence.started_s is not None else now_s
        since_s = started_s if is_all else now_s - changes.OVERLAP_S
        judged = list(changes.verdicts(connection, self.evidence.bundle, since_s, self._scenes))
        commands: tuple[Command, ...] = ()
        if not self.evidence.stop_said and (why := stops.reason(connection, self.evidence.bundle)) is not None:
            commands = (Command(STOP, "the list of stopped bundles", why),)
        found = Observation(
            now_s, tuple(reports), tuple(self._increments(connection, now_s)), tuple(one for _, one in judged), commands
        )
        return found, [scene for scene, _ in judged]

    def _increments(self, connection: Connection, now_s: float) -> list[Increment]:
        """Once an interval, shortly before it ends."""
        tests = self.evidence.policy.tests
        interval = math.floor(now_s / tests.interval_s)
        rest_s = (interval + 1) * tests.interval_s - now_s
        if interval <= self._flushed or rest_s > max(min(3.0, 0.2 * tests.interval_s), _BETWEEN_S):
            return []
        self._flushed = interval
        self._counts.look(connection, now_s)
        assert self._counted is not None
        metrics = {WORSE, BETTER, SAME, DIFFERS, *(name for metric in tests.metrics for name in metric.of)}
        slices = {one.name for one in tests.slices}
        return changes.increments(self._counts.sums, self._counted, slices, metrics)

    def _is_over_interval(self, now_s: float) -> bool:
        return math.floor(now_s / self.evidence.policy.tests.interval_s) > self.evidence.interval

    def _ask(self, connection: Connection, observation: Observation, scenes: list[int], is_new: bool) -> None:
        """Ask the rules until they order nothing more; what they order is carried out at once."""
        for _ in range(MOST_STEPS):
            evidence = rules.fold(self.evidence, observation)
            ordered = rules.decide(evidence.policy, evidence, observation.at_s)
            is_closed = evidence.interval > self.evidence.interval
            if not (is_new or ordered or is_closed):
                return  # nothing happened: the log need not say so
            self.evidence = evidence
            self._rows.append((log.OBSERVED, observation.to_dict() | ({"scenes": scenes} if scenes else {})))
            self._scenes.update(scenes)
            if not ordered:
                return
            said = [orders.to_dict(order) for order in ordered]
            self._rows.append((log.ORDERED, {"at_s": observation.at_s, "orders": said}))
            self._carry_out(connection, ordered)
            self.evidence = rules.fold(self.evidence, Observation(observation.at_s, ordered=ordered))
            observation, scenes, is_new = Observation(observation.at_s), [], False
        _LOG.warning("rollout_steps rollout=%s orders go on in the next cycle", self.id)

    def _carry_out(self, connection: Connection, ordered: tuple[Order, ...]) -> None:
        n = int(self._micros(connection))
        assigned = [order for order in ordered if isinstance(order, Assign)]
        if assigned:
            rows = ([order.vehicle for order in assigned], [order.mode for order in assigned],
                    [order.wave for order in assigned])  # fmt: skip
            connection.exec_driver_sql(_ASSIGN, (self.id, self.evidence.counter, n, *rows))
        dropped = [order.vehicle for order in ordered if isinstance(order, Withdraw)]
        for order in ordered:
            if isinstance(order, Stop):
                if stops.reason(connection, self.evidence.bundle) is None:
                    stop_line.stop(connection, self.evidence.bundle, order.why, self.id)
                dropped += [name for name, one in self.evidence.vehicles.items() if one.mode]
                self._rows.append((log.RECORDED, {"what": "stop", "why": order.why, "record": dict(order.record)}))
            elif isinstance(order, Promote):
                record = {"what": "promote", "wave": order.wave, "record": dict(order.record)}
                self._rows.append((log.RECORDED, record))
        if dropped:  # who follows another rollout by now hears nothing of it
            dropped = list(connection.exec_driver_sql(_WITHDRAW, (self.id, dropped)).scalars())
        for order in assigned:
            self._wanted[order.vehicle] = Wanted(n, self.id, self.evidence.counter, order.mode)
        for vehicle in dropped:
            self._wanted[vehicle] = Wanted(n)

    def _micros(self, connection: Connection) -> int:
        """An instant that grows, by the clock of the database."""
        return int(log.now_s(connection) * 1e6)

    def _sync(self, connection: Connection) -> None:
        """The rollout's row says what the log amounts to."""
        is_over = self.evidence.state in ENDED
        values = {"state": self.evidence.state, "why": self.evidence.why or self.evidence.held}
        connection.execute(
            update(ROLLOUTS)
            .where(ROLLOUTS.c.id == self.id)
            .values(**values, ended_at=func.coalesce(ROLLOUTS.c.ended_at, func.now()) if is_over else None)
        )

    def _keep(self, connection: Connection, now_s: float) -> None:
        assert self._counted is not None
        aside = {"counted": changes.to_json(self._counted), "scenes": sorted(self._scenes)}
        book.keep(connection, self.evidence, self._number, aside)
        self._kept_at = now_s


_ASSIGN: Final = """
INSERT INTO assignments (vehicle, rollout, release, mode, wave, assigned_at)
SELECT told.vehicle, one.id, one.counter, told.mode, told.wave, to_timestamp(one.n::numeric / 1000000)
FROM (SELECT %s::text AS id, %s::bigint AS counter, %s::bigint AS n) AS one,
    unnest(%s::text[], %s::smallint[], %s::smallint[]) AS told (vehicle, mode, wave)
JOIN vehicles ON vehicles.name = told.vehicle
ON CONFLICT (vehicle) DO UPDATE SET
    rollout = excluded.rollout, release = excluded.release, mode = excluded.mode, wave = excluded.wave,
    assigned_at = excluded.assigned_at"""
_WITHDRAW: Final = "DELETE FROM assignments WHERE rollout = %s AND vehicle = ANY(%s::text[]) RETURNING vehicle"
