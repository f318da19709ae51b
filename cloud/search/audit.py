"""Whether search finds what is there: a share of live queries is repeated by the database, which ranks every vector.

One at a time, the oldest waiting ones are dropped, and what takes too long is given up: search itself never waits.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cloud.search import metrics
from cloud.search.rows import LENGTHS

_LOG: Final = logging.getLogger(__name__)
AT: Final = 10
TIMEOUT_MS: Final = 15_000
_LATE: Final = 200  # audits that the gauge speaks of
# Cosines that differ by rounding alone are as good as each other.
_TIE: Final = 1e-4
_EXACT: Final = text("""
SELECT scene_id, max(cosine) AS cosine FROM (
    SELECT scene_id, -(vector <#> CAST(:query AS halfvec)) * scale AS cosine FROM vectors
    WHERE model = :model AND space = :space AND modality = 'scene' AND vector_dims(vector) = :dimensions
    UNION ALL
    SELECT id, -(embedding <#> CAST(:query AS halfvec)) * embedding_scale FROM scenes
    WHERE bundle_id = :space AND embedding IS NOT NULL AND vector_dims(embedding) = :dimensions
      AND embedding_scale BETWEEN :shortest / NULLIF(l2_norm(embedding), 0) AND :longest / NULLIF(l2_norm(embedding), 0)
      AND NOT EXISTS (SELECT FROM moments WHERE moments.scene_id = scenes.id AND moments.model = :model)
) AS every_moment GROUP BY scene_id ORDER BY cosine DESC, scene_id LIMIT :count
""")


@dataclass(frozen=True, slots=True)
class _Audit:
    space: str
    model: str
    vector: NDArray[np.float32]
    ids: tuple[int, ...]


class Auditor:
    """Repeats queries in a thread of its own.

    Args:
        engine: of the database.
        share: of what is offered.
    """

    def __init__(self, engine: Engine, share: float) -> None:
        self._engine = engine
        self._share = share
        self._random = random.Random(0)
        self._queue: queue.Queue[_Audit | None] = queue.Queue(maxsize=1)
        self._recalls: deque[float] = deque(maxlen=_LATE)
        self._thread: threading.Thread | None = None

    def offer(
        self, space: str, model: str, vector: NDArray[np.float32], ids: Sequence[int], scores: NDArray[np.float32]
    ) -> None:
        """Perhaps audit an answer: the scenes that were found, best first."""
        if self._random.random() >= self._share or not ids:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="search-audit", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(_Audit(space, model, vector, tuple(ids[:AT])))
        except queue.Full:
            return

    def close(self) -> None:
        """Stop after the audit under way."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (audit := self._queue.get()) is not None:
            try:
                recall = recall_of(self._engine, audit.space, audit.model, audit.vector, audit.ids)
            except SQLAlchemyError as error:
                metrics.AUDIT_FAILED.inc()
                _LOG.info("audit_failed error=%s", str(error).splitlines()[0])
                continue
            self._recalls.append(recall)
            metrics.AUDITED.inc()
            metrics.AUDIT_RECALL.set(sum(self._recalls) / len(self._recalls))
            if recall < 1.0:
                _LOG.info("audit_missed recall=%.2f", recall)


def recall_of(engine: Engine, space: str, model: str, vector: NDArray[np.float32], ids: Sequence[int]) -> float:
    """Of the nearest scenes that the database finds, the share that search found; ties count as found.

    Raises:
        SQLAlchemyError: the database is away or took too long.
    """
    query = "[" + ",".join(f"{value:.6g}" for value in vector) + "]"
    asked = {
        "query": query, "model": model, "space": space, "dimensions": len(vector), "count": 4 * len(ids),
        "shortest": LENGTHS[0], "longest": LENGTHS[1],
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL statement_timeout = {TIMEOUT_MS}"))
        exact = connection.execute(_EXACT, asked).all()
    nearest = exact[: len(ids)]
    if not nearest:
        return 1.0
    cosines = {row.scene_id: float(row.cosine) for row in exact}
    bound = float(nearest[-1].cosine) - _TIE
    return min(sum(cosines.get(one, -np.inf) >= bound for one in ids) / len(nearest), 1.0)
