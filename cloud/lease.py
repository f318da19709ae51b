"""A lease: one worker's right to speak for a job, until an instant of the database's clock.

Every word is one statement that asks for the lease, too: whoever lost it is told so, and nothing changes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Interval, bindparam, func, literal, null, select, update

from cloud.errors import LeaseLost
from cloud.tables import JOBS

# A failed job waits twice as long each time, from the first number to the second, with jitter.
BACKOFF_S: Final = (2.0, 600.0)
MAX_ERROR: Final = 1_000  # characters
_IS_HELD: Final = (JOBS.c.id == bindparam("of_id")) & (JOBS.c.state == "running") & (JOBS.c.lease == bindparam("word"))


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the queue; see cloud.tables.JOBS."""

    id: int
    kind: str
    subject: str
    arguments: dict[str, Any]
    state: str
    priority: int
    attempts: int
    put_at: datetime
    run_after: datetime
    ended_at: datetime | None
    stage: str
    progress: float
    checkpoint: Any
    error: str
    result: Any


class Lease:
    """A job that this worker runs.

    Attributes:
        job: as it was taken.
        word: random; who knows it holds the lease.
        is_cancelled: somebody asked for the job's end, and this worker has heard of it.
    """

    def __init__(self, engine: Engine, job: Job, word: bytes, lease_s: float, most_attempts: int) -> None:
        self.job = job
        self.word = word
        self.is_cancelled = False
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lease_s = lease_s
        self._most_attempts = most_attempts

    def extend(self) -> None:
        """Hold on to the job for another while.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        self._tell({"lease_until": from_now(self._lease_s)})

    def progress(self, stage: str, share: float, checkpoint: Any = None) -> None:
        """Say how far the job is, and extend the lease.

        Args:
            stage: what is being done, in a word or two.
            share: of the whole, 0..1.
            checkpoint: JSON from which the next attempt may go on; None keeps the last one.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        values = {"lease_until": from_now(self._lease_s), "stage": stage[:MAX_ERROR], "progress": _share(share)}
        self._tell(values if checkpoint is None else {**values, "checkpoint": checkpoint})

    def done(self, result: Any = None) -> None:
        """End the job well.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        ended = {"state": "done", "progress": 1.0, "error": "", "ended_at": func.now()}
        self._tell({**ended, "checkpoint": null(), "result": null() if result is None else result, "lease": None})

    def fail(self, error: str, retry: bool = True) -> None:
        """Note what went wrong; tried again later, unless that is pointless or was done often enough.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        first_s, most_s = BACKOFF_S
        wait_s = min(first_s * 2.0 ** (self.job.attempts - 1), most_s) * (0.5 + os.urandom(1)[0] / 510.0)
        error = " ".join(error.split())[:MAX_ERROR] or "no reason was given"
        if retry and self.job.attempts < self._most_attempts:
            self._tell({"state": "queued", "error": error, "lease": None, "run_after": from_now(wait_s)})
        else:
            self._tell({"state": "parked", "error": error, "lease": None, "ended_at": func.now()})

    def hand_back(self, after_s: float = 0.0) -> None:
        """Let others have the job: this attempt was cut short by no fault of its own, and does not count.

        Raises:
            LeaseLost: it is not this worker's any more.
        """
        attempts = func.greatest(JOBS.c.attempts - 1, 0)
        self._tell({"state": "queued", "lease": None, "attempts": attempts, "run_after": from_now(after_s)})

    def _tell(self, values: dict[str, Any]) -> None:
        with self._single.connect() as connection:
            place = {"of_id": self.job.id, "word": self.word}
            if connection.execute(update(JOBS).where(_IS_HELD).values(values), place).rowcount == 0:
                try:
                    raise _lost(connection, self.job.id)
                except LeaseLost as lost:
                    self.is_cancelled = lost.is_cancelled
                    raise


def hold(connection: Connection, id: int, word: bytes) -> None:
    """Keep the lease of a job to the end of this transaction: what it writes is written by the job's worker alone.

    Raises:
        LeaseLost: it is not this worker's any more.
    """
    held = connection.execute(select(JOBS.c.id).where(_IS_HELD).with_for_update(), {"of_id": id, "word": word})
    if held.one_or_none() is None:
        raise _lost(connection, id)


def _lost(connection: Connection, id: int) -> LeaseLost:
    state = connection.execute(select(JOBS.c.state).where(JOBS.c.id == id)).scalar_one_or_none()
    return LeaseLost(f"job {id}: expected to hold its lease, got a job that is {state or 'gone'}", state == "cancelled")


def from_now(seconds: float) -> Any:
    """An instant by the database's clock."""
    return func.now() + literal(timedelta(seconds=seconds), Interval)


def _share(share: float) -> float:
    return min(max(share, 0.0), 1.0) if share == share else 0.0
