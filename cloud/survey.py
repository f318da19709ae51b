"""What only the catalogue knows, looked up every few seconds for /metrics: lags, the queue, the gap report.

Lags are observed once for each scene: a look asks for rows whose transaction was open at the look before, or began
since, of these takes what happened within the last minute, and passes over what it has seen. What happened while the
catalogue was away for longer is not observed.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from typing import Any, Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cloud import metrics
from cloud.catalogue import Catalogue
from cloud.limits import Limits

_LOG: Final = logging.getLogger(__name__)
LOOK_S: Final = 5.0
# What happened longer ago is not observed any more.
LATE_S: Final = 60.0
# The gap report counts all scenes: it is made at most so often, and takes at most this share of the time.
COUNT_S: Final = 30.0
COUNT_SHARE: Final = 0.02
# Vehicles with missing scenes that are named; the others share one name.
NAMED: Final = 20
OTHERS: Final = "(others)"

_NOW: Final = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin, now() AS now")
_CHANGED: Final = text(
    """SELECT id,
        CASE WHEN told_at > :after THEN extract(epoch FROM told_at - recorded_at)::float8 END AS told,
        CASE WHEN received_at > :after THEN extract(epoch FROM received_at - told_at)::float8 END AS received,
        CASE WHEN told_at > :after THEN (
            SELECT (score ->> 'value')::float8 FROM jsonb_array_elements(scores) score
            WHERE score ->> 'name' = 'misaligned' LIMIT 1
        ) END AS misaligned
    FROM scenes WHERE changed >= :since"""
)
_ANALYSED: Final = text(
    """SELECT a.scene_id, a.model, extract(epoch FROM a.made_at - s.received_at)::float8 AS analysed
    FROM analyses a JOIN scenes s ON s.id = a.scene_id WHERE a.changed >= :since AND a.made_at > :after"""
)
_OPEN: Final = text(
    """SELECT kind, state, count(*) AS jobs,
        extract(epoch FROM now() - min(run_after) FILTER (WHERE state = 'queued'))::float8 AS oldest
    FROM jobs WHERE state IN ('queued', 'running') GROUP BY kind, state"""
)
_PARKED: Final = text("SELECT kind, count(*) AS jobs FROM jobs WHERE state = 'parked' GROUP BY kind")
_EXPIRING: Final = text(
    """SELECT count(*) FROM (
        SELECT max(expires_at) AS last FROM certificates c JOIN vehicles v ON v.name = c.vehicle
        WHERE c.revoked_at IS NULL AND v.revoked_at IS NULL GROUP BY c.vehicle
    ) lasting WHERE last < now() + interval '30 days'"""
)


class Survey:
    """Looks at the catalogue in a thread of its own.

    Args:
        engine: the migrated catalogue.
    """

    def __init__(self, engine: Engine) -> None:
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._catalogue = Catalogue(engine, Limits())
        self._since: int | None = None
        self._seen: dict[tuple[str, Any], float] = {}
        self._kinds: set[str] = set()
        self._count_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="survey", daemon=True)

    def start(self) -> None:
        """Look every few seconds."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> None:
        """Bring all figures up to date.

        Raises:
            SQLAlchemyError: the catalogue is away.
        """
        self._observe_lags()
        self._observe_queue()
        if time.monotonic() >= self._count_at:
            start = time.monotonic()
            self._count()
            took_s = time.monotonic() - start
            self._count_at = start + max(COUNT_S, took_s / COUNT_SHARE)
        metrics.SURVEYED_AT.set_to_current_time()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except SQLAlchemyError as error:  # health says it, loudly enough
                _LOG.debug("survey_failed error=%s", error)
            self._stopping.wait(LOOK_S)

    def _observe_lags(self) -> None:
        with self._single.connect() as connection:
            since, (self._since, now) = self._since, connection.execute(_NOW).one()
            if since is None:
                return
            place = {"since": since, "after": now - datetime.timedelta(seconds=LATE_S)}
            changed = connection.execute(_CHANGED, place).all()
            analysed = connection.execute(_ANALYSED, place).all()
        for row in changed:
            for stage, seconds in (("told", row.told), ("received", row.received)):
                if self._is_new(stage, row.id, seconds):
                    metrics.LAG_S.labels(stage).observe(max(seconds, 0.0))  # a vehicle's clock may be ahead
            if self._is_new("misaligned", row.id, row.misaligned):
                metrics.MISALIGNED.observe(row.misaligned)
        for row in analysed:
            if self._is_new("analysed", (row.scene_id, row.model), row.analysed):
                metrics.LAG_S.labels("analysed").observe(max(row.analysed, 0.0))
        forgotten = time.monotonic() - 2 * LATE_S
        self._seen = {key: at for key, at in self._seen.items() if at > forgotten}

    def _is_new(self, what: str, of: Any, value: float | None) -> bool:
        if value is None or (what, of) in self._seen:
            return False
        self._seen[what, of] = time.monotonic()
        return True

    def _observe_queue(self) -> None:
        with self._single.connect() as connection:
            rows = connection.execute(_OPEN).all()
        self._kinds |= {row.kind for row in rows}
        found = {(row.kind, row.state): row for row in rows}
        for kind in self._kinds:
            for state in ("queued", "running"):
                row = found.get((kind, state))
                metrics.QUEUE_JOBS.labels(kind, state).set(0 if row is None else row.jobs)
            queued = found.get((kind, "queued"))
            metrics.QUEUE_OLDEST_S.labels(kind).set(0.0 if queued is None else max(queued.oldest, 0.0))

    def _count(self) -> None:
        with self._single.connect() as connection:
            parked = {row.kind: row.jobs for row in connection.execute(_PARKED)}
            metrics.EXPIRING.set(connection.execute(_EXPIRING).scalar_one())
        self._kinds |= parked.keys()
        for kind in self._kinds:
            metrics.QUEUE_JOBS.labels(kind, "parked").set(parked.get(kind, 0))
        accounts = self._catalogue.accounts()
        for state in ("given", "received", "evicted", "lost", "on_board", "missing"):
            metrics.SCENES.labels(state).set(sum(getattr(account, state) for account in accounts))
        missing: dict[str, int] = {}
        for account in accounts:
            if account.missing:
                missing[account.vehicle] = missing.get(account.vehicle, 0) + account.missing
        ranked = sorted(missing.items(), key=lambda item: (-item[1], item[0]))
        metrics.MISSING.clear()
        metrics.MISSING.labels(OTHERS).set(sum(count for _, count in ranked[NAMED:]))
        for vehicle, count in ranked[:NAMED]:
            metrics.MISSING.labels(vehicle).set(count)
