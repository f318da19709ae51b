"""What rollouts' logs amount to, kept between two looks: a page that is looked at again reads only what is new."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, func, select

from cloud.rollouts import book, log
from cloud.rollouts.evidence import Evidence
from cloud.tables import ROLLOUT_LOG

_MOST: Final = 8
# With more rows to catch up on, what the engine wrote down lately is nearer.
_MOST_ROWS: Final = 200


@dataclass(slots=True)
class _Held:
    lock: threading.Lock = field(default_factory=threading.Lock)
    evidence: Evidence | None = None
    number: int = 0


class Watch:
    """Evidence of the rollouts that were looked at last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def evidence(self, connection: Connection, rollout: str) -> Evidence:
        """All that the rules know of a rollout, up to the last row of its log.

        Args:
            rollout: the id of one that is there.

        Raises:
            RolloutError: its log can't be understood.
        """
        with self._lock:
            held = self._held.pop(rollout, None) or _Held()
            self._held[rollout] = held  # the youngest is the last
            while len(self._held) > _MOST:
                del self._held[next(iter(self._held))]
        with held.lock:
            evidence = held.evidence
            if evidence is None or _is_far(connection, rollout, held.number):
                evidence, held.number, _, _ = book.loaded(connection, rollout)
            else:
                for entry in log.read(connection, rollout, held.number):
                    evidence, held.number = log.folded(evidence, entry), entry.number
            held.evidence = evidence
            return evidence


def _is_far(connection: Connection, rollout: str, number: int) -> bool:
    """Whether many rows came since, or some that left the table already."""
    rows = ROLLOUT_LOG.c
    query = select(func.coalesce(func.max(rows.number), 0), func.count()).where(
        rows.rollout == rollout, rows.number > number
    )
    last, count = map(int, connection.execute(query).one())
    return count > _MOST_ROWS or count < last - number
