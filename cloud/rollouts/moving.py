"""What vehicles said a while ago leaves the database: into segments, and in the end, if somebody wants that, for good.

A thread of the part "control", with connections of its own: the engine that leads is the one that writes logs, is there
whenever they grow, and waits for none of this: no lock is shared. A block of a log is moved when all of it is old and
covered by what the engine kept, so nobody but a replay needs it.

    the object is put, durable, and read back; nobody knows of it yet
    one transaction deletes the rows and notes the segment

Killed between the two, rows and object are both there; the next pass makes the same object of the same rows. Should two
ever work at once, the rows are deleted for one of them, and the other begins again.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import threading
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, Engine, delete, func, select, text, update

from cloud.objects import Objects
from cloud.rollouts import book, log, segments
from cloud.rollouts.evidence import ABORTED, STOPPED
from cloud.settings import Settings
from cloud.tables import ROLLOUT_LOG, ROLLOUT_SEGMENTS, ROLLOUTS

_LOG: Final = logging.getLogger(__name__)
HOUR_S: Final = 3_600.0
DAY_S: Final = 24 * HOUR_S
LOOK_S: Final = 60.0
# Who is asked to end is waited for so long; a block that is cut short is moved later.
_END_S: Final = 1.0
_FETCHED: Final = 50
# The first block of each log that is not moved, where its last row is old and the engine kept what came to it. The last
# word of a log stays: who writes the next row looks at its number and time.
_DUE: Final = """
SELECT one.id, told.first, final.number FROM rollouts AS one
CROSS JOIN LATERAL (
    SELECT min(number) AS first FROM rollout_log WHERE rollout = one.id AND kind = 'observed' AND number > coalesce(
        (SELECT max(last) FROM rollout_segments WHERE rollout = one.id), 0)
) AS told
JOIN rollout_log AS final ON final.rollout = one.id AND final.number = (told.first + :block - 1) / :block * :block
    AND final.at <= now() - make_interval(secs => :old_s)
WHERE one.let_go_at IS NULL AND (one.folded->>'number')::bigint >= final.number AND EXISTS (
    SELECT FROM rollout_log WHERE rollout = one.id AND number > final.number AND kind <> 'recorded'
) ORDER BY one.id"""


class Moving(threading.Thread):
    """Moves and lets go, once a minute. To be started and ended.

    Args:
        engine: of a migrated database.
        settings: where objects lie, and how long what stays where.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        super().__init__(name="moving", daemon=True)
        self._engine, self._settings = engine, settings
        self._ending = threading.Event()

    def end(self) -> None:
        """Stop moving."""
        self._ending.set()
        self.join(_END_S)

    def run(self) -> None:
        """Until the end."""
        objects: Objects | None = None
        while not self._ending.is_set():
            try:
                objects = objects or Objects(self._settings.objects_place)
                self._look(objects)
            except Exception as error:  # rows stay where they are; the next look tries again
                _LOG.warning("log_not_moved error=%s: %s", type(error).__name__, str(error).partition("\n")[0])
            self._ending.wait(LOOK_S)

    def _look(self, objects: Objects) -> None:
        for _ in move_all(self._engine, objects, self._settings.log_hours * HOUR_S):
            if self._ending.is_set():
                return
        if self._settings.log_days is not None:
            let_go(self._engine, objects, self._settings.log_days * DAY_S)


def move_all(engine: Engine, objects: Objects, old_s: float) -> Iterator[int]:
    """Move all blocks that are due, one a step; gives how many observations each had.

    Args:
        old_s: of a block's last row.

    Raises:
        SQLAlchemyError, CloudError, OSError: database, store or disk are away; what was begun is done later.
    """
    while True:
        with engine.connect() as connection:
            due = connection.execute(text(_DUE), {"block": segments.BLOCK, "old_s": old_s}).all()
        if not due:
            return
        for rollout, first, last in due:
            yield _move(engine, objects, rollout, first, last)


def let_go(engine: Engine, objects: Objects, old_s: float) -> list[str]:
    """Let go of what vehicles said in rollouts that ended so long ago and can't be followed any more.

    Returns:
        Which rollouts.
    """
    followed = datetime.timedelta(days=book.FOLLOWED_DAYS)
    row, now = ROLLOUTS.c, func.now()
    is_left = row.state.in_((STOPPED, ABORTED)) | (row.ended_at <= now - followed)
    ended = row.ended_at <= now - datetime.timedelta(seconds=old_s)
    with engine.connect() as connection:
        found = list(connection.execute(select(row.id).where(row.let_go_at.is_(None), ended, is_left)).scalars())
    for rollout in found:
        _let_go(engine, objects, rollout)
    return found


def _move(engine: Engine, objects: Objects, rollout: str, first: int, last: int) -> int:
    with engine.connect() as connection:
        rows = _rows(connection, rollout, first, last)
        if (begin := next(rows, None)) is None:
            return 0  # another moved them
        segment, content = segments.packed(rollout, itertools.chain((begin,), rows))
    objects.put_contents([(segment.key, content)])
    segments.entries(segment, objects)  # raises where it is not what was put
    with engine.connect() as connection, connection.begin() as transaction:
        row = ROLLOUT_LOG.c
        is_in = (row.rollout == rollout) & (row.kind == log.OBSERVED) & row.number.between(first, last)
        if connection.execute(delete(ROLLOUT_LOG).where(is_in)).rowcount != segment.rows:
            transaction.rollback()  # another moved them
            return 0
        segments.note(connection, segment)
    return segment.rows


def _rows(connection: Connection, rollout: str, first: int, last: int) -> Iterator[tuple[int, str, str]]:
    query = text(
        "SELECT number, at, content::text FROM rollout_log WHERE rollout = :rollout AND kind = 'observed' "
        "AND number BETWEEN :first AND :last ORDER BY number"
    ).execution_options(yield_per=_FETCHED)
    for number, at, content in connection.execute(query, {"rollout": rollout, "first": first, "last": last}):
        yield number, at.isoformat(), content


def _let_go(engine: Engine, objects: Objects, rollout: str) -> None:
    """Objects first: whoever is killed on the way does it again."""
    with engine.connect() as connection:
        moved = segments.of(connection, rollout)
        kept = connection.execute(select(ROLLOUTS.c.folded["number"]).where(ROLLOUTS.c.id == rollout)).scalar_one()
    for segment in moved:
        objects.delete(segment.key)
    with engine.begin() as connection:
        connection.execute(delete(ROLLOUT_SEGMENTS).where(ROLLOUT_SEGMENTS.c.rollout == rollout))
        row = ROLLOUT_LOG.c  # what the engine did not keep is needed still
        is_kept = (row.rollout == rollout) & (row.kind == log.OBSERVED) & (row.number <= int(kept or 0))
        connection.execute(delete(ROLLOUT_LOG).where(is_kept))
        connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.id == rollout).values(let_go_at=func.now()))
