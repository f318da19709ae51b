"""The durable queue of jobs, in the catalogue's database.

A worker takes a job with a lease: a random word and an instant by the database's clock, until which no other worker
takes it. While it works it extends the lease; a worker that dies lets it lapse, and the job is taken again and goes on
from its checkpoint. Who lost the lease can neither finish the job nor fail it. Each take counts as an attempt before it
begins, so that a job which kills its worker is parked in the end, with the last word that was heard of it.

    queued -> running -> done
      ^          |-----> queued, later   (failed; or handed back, which is no attempt)
      |          |-----> parked          (too many attempts, or trying again would not help)
      |          `-----> cancelled       (the worker learns of it at its next word)
      `------------------- retry
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Engine,
    Text,
    and_,
    any_,
    case,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from cloud.errors import Hopeless, JobError, LeaseLost
from cloud.lease import Job, Lease, from_now, hold
from cloud.tables import JOBS

__all__ = ["ENDED", "STATES", "Hopeless", "Job", "JobError", "Lease", "LeaseLost", "Queue", "hold"]

LEASE_S: Final = 30.0
# After so many the job itself is taken for the cause.
MOST_ATTEMPTS: Final = 5
STATES: Final = ("queued", "running", "done", "parked", "cancelled")
ENDED: Final = ("done", "parked", "cancelled")

_COLUMNS: Final = [
    column for column in JOBS.c if column.name not in ("lease", "lease_until")  # the word is its worker's alone
]  # fmt: skip
_IS_OPEN: Final = JOBS.c.state.in_(("queued", "running"))  # the words of the index of open jobs


class Queue:
    """Jobs in PostgreSQL. Each call is one transaction, committed on return.

    Args:
        engine: of a migrated database.
        most_attempts: after so many a job is parked.
    """

    def __init__(self, engine: Engine, most_attempts: int = MOST_ATTEMPTS) -> None:
        self._engine = engine
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._most_attempts = most_attempts

    def put(
        self, kind: str, subject: str, arguments: Mapping[str, Any] | None = None, priority: int = 0,
        *, again: bool = False,
    ) -> int:  # fmt: skip
        """Ask for a job; of one kind each subject is there once, so that asking twice is asking once.

        Args:
            kind: whose handler runs it.
            subject: what it is about.
            arguments: for the handler, JSON.
            priority: larger ones go first.
            again: one that has ended begins anew, with these arguments.

        Returns:
            The job's id.
        """
        fresh = insert(JOBS).values(kind=kind, subject=subject, arguments=dict(arguments or {}), priority=priority)
        put = fresh.on_conflict_do_nothing(constraint="jobs_once")
        if again:
            new = fresh.excluded
            put = fresh.on_conflict_do_update(
                constraint="jobs_once",
                set_={**_anew(), "arguments": new.arguments, "priority": new.priority, "checkpoint": null()},
                where=JOBS.c.state.in_(ENDED),
            )
        with self._engine.begin() as connection:
            id = connection.execute(put.returning(JOBS.c.id)).scalar_one_or_none()
            if id is None:
                is_it = (JOBS.c.kind == kind) & (JOBS.c.subject == subject)
                id = connection.execute(select(JOBS.c.id).where(is_it)).scalar_one()
        return int(id)

    def take(self, kinds: Sequence[str], lease_s: float = LEASE_S) -> Lease | None:
        """The next job of these kinds that is due, or whose worker fell silent; None when there is none.

        Jobs whose workers fell silent too often are parked on the way.
        """
        of_kinds = JOBS.c.kind == any_(literal(list(kinds), ARRAY(Text)))
        lapsed = (JOBS.c.state == "running") & (JOBS.c.lease_until < func.now())
        is_due = (JOBS.c.state == "queued") & (JOBS.c.run_after <= func.now())
        worn_out = JOBS.c.attempts >= self._most_attempts
        word = os.urandom(16)
        chosen = (
            select(JOBS.c.id)
            .where(of_kinds, _IS_OPEN, or_(is_due, and_(lapsed, ~worn_out)))
            .order_by(JOBS.c.priority.desc(), JOBS.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        taken = {"state": "running", "lease": word, "lease_until": from_now(lease_s), "attempts": JOBS.c.attempts + 1}
        silent = func.concat("its worker fell silent in attempt ", JOBS.c.attempts, ", at: ", _last_stage())
        parked = {"state": "parked", "error": silent, "lease": None, "ended_at": func.now()}
        with self._single.connect() as connection:
            connection.execute(update(JOBS).where(of_kinds, _IS_OPEN, lapsed, worn_out).values(parked))
            row = connection.execute(
                update(JOBS).where(JOBS.c.id == chosen).values(taken).returning(*_COLUMNS)
            ).one_or_none()
        return None if row is None else Lease(self._engine, _job(row), word, lease_s, self._most_attempts)

    def cancel(self, id: int) -> bool:
        """End a job that has not ended; a worker that runs it stops at its next word. False: it had ended already.

        Raises:
            JobError: there is no such job.
        """
        ended = {"state": "cancelled", "lease": None, "ended_at": func.now()}
        return self._change(id, _IS_OPEN, ended)

    def retry(self, id: int) -> bool:
        """Give a parked or cancelled job all its attempts again; it goes on from its checkpoint. False: it was neither.

        Raises:
            JobError: there is no such job.
        """
        return self._change(id, JOBS.c.state.in_(("parked", "cancelled")), _anew())

    def job(self, id: int) -> Job:
        """One job.

        Raises:
            JobError: there is no such job.
        """
        with self._single.connect() as connection:
            row = connection.execute(select(*_COLUMNS).where(JOBS.c.id == id)).one_or_none()
        if row is None:
            raise JobError(f"expected the number of a job, got {id}")
        return _job(row)

    def list(
        self, states: Sequence[str] = STATES, kinds: Sequence[str] | None = None, limit: int = 100,
        before: int | None = None,
    ) -> list[Job]:  # fmt: skip
        """Jobs, newest first.

        Args:
            before: of a page: the last id of the page before.
        """
        query = select(*_COLUMNS).where(JOBS.c.state.in_(list(states))).order_by(JOBS.c.id.desc()).limit(limit)
        if kinds is not None:
            query = query.where(JOBS.c.kind.in_(kinds))
        if before is not None:
            query = query.where(JOBS.c.id < before)
        with self._single.connect() as connection:
            return [_job(row) for row in connection.execute(query)]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs there are, by kind and state."""
        query = select(JOBS.c.kind, JOBS.c.state, func.count()).group_by(JOBS.c.kind, JOBS.c.state)
        found: dict[str, dict[str, int]] = {}
        with self._single.connect() as connection:
            for kind, state, count in connection.execute(query):
                found.setdefault(kind, dict.fromkeys(STATES, 0))[state] = count
        return found

    def oldest_s(self) -> float:
        """For how long the job that waits longest could have run; 0 when none waits."""
        waited = func.extract("epoch", func.now() - func.min(JOBS.c.run_after))
        query = select(func.coalesce(waited, 0.0)).where(_IS_OPEN, JOBS.c.state == "queued")
        with self._single.connect() as connection:
            return max(float(connection.execute(query).scalar_one()), 0.0)

    def pulse(self) -> tuple[Any, ...]:
        """Another one whenever something of a job that has not ended changes, or one of them ends; cheap."""
        running = (
            select(JOBS.c.id, JOBS.c.attempts, JOBS.c.stage, JOBS.c.progress, JOBS.c.error)
            .where(_IS_OPEN, JOBS.c.state == "running")
            .order_by(JOBS.c.id)
        )
        queued = select(func.count(), func.max(JOBS.c.id), func.max(JOBS.c.run_after)).where(
            _IS_OPEN, JOBS.c.state == "queued"
        )
        with self._single.connect() as connection:
            return tuple(map(tuple, (*connection.execute(running).all(), connection.execute(queued).one())))

    def watch(self, id: int | None = None, every_s: float = 0.5) -> Iterator[Job]:
        """A job each time that a word of it comes in, until it has ended; without `id` all that run, for ever.

        Raises:
            JobError: there is no such job.
        """
        told: dict[int, tuple[Any, ...]] = {}
        while True:
            jobs = [self.job(id)] if id is not None else self._moving(list(told))
            for job in jobs:
                now = (job.state, job.attempts, job.stage, job.progress, job.error)
                if told.get(job.id) != now:
                    told[job.id] = now
                    yield job
                if job.state != "running" and id is None:
                    del told[job.id]
            if id is not None and jobs[0].state in ENDED:
                return
            time.sleep(every_s)

    def _moving(self, known: Sequence[int]) -> Sequence[Job]:
        """Jobs that run, and these."""
        query = select(*_COLUMNS).where(or_(and_(_IS_OPEN, JOBS.c.state == "running"), JOBS.c.id.in_(known)))
        with self._single.connect() as connection:
            return [_job(row) for row in connection.execute(query.order_by(JOBS.c.id))]

    def _change(self, id: int, condition: Any, values: dict[str, Any]) -> bool:
        with self._single.connect() as connection:
            if connection.execute(update(JOBS).where(JOBS.c.id == id, condition).values(values)).rowcount:
                return True
        self.job(id)
        return False


def _anew() -> dict[str, Any]:
    """A job that ended begins again."""
    clean = {"state": "queued", "attempts": 0, "error": "", "stage": "", "progress": 0.0, "lease": None}
    return {**clean, "run_after": func.now(), "ended_at": None, "result": null()}


def _last_stage() -> Any:
    return case((JOBS.c.stage == "", "its start"), else_=JOBS.c.stage)


def _job(row: Any) -> Job:
    return Job(**row._mapping)
