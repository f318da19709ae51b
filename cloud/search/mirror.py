"""The gallery follows the database: what was committed is in it a moment later, whatever happened in between.

Each look asks for what changed in transactions that were open at the last look, or began since; what is known already
is passed over, so that looking twice changes nothing. Another space or model is loaded whole, beside the gallery that
is searched until then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from cloud.metrics import SEARCHABLE_S
from cloud.search import rows as reading
from cloud.search.gallery import Gallery, View

_LOG: Final = logging.getLogger(__name__)
LOOK_S: Final = 0.25
# A database that is away is asked less often.
AWAY_S: Final = 1.0
# Without a word on which space is searched, it is found out by counting, now and then.
COUNT_S: Final = 30.0
CHUNK: Final = 2_000

_XMIN: Final = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
_SEARCHED: Final = text("SELECT value FROM facts WHERE name = 'searched'")
_SPACE: Final = text(
    "SELECT bundle_id FROM scenes WHERE embedding IS NOT NULL GROUP BY bundle_id "
    "ORDER BY count(*) DESC, bundle_id LIMIT 1"
)
_MODEL: Final = text(
    "SELECT model FROM analyses WHERE space = :space GROUP BY model ORDER BY count(*) DESC, model LIMIT 1"
)
_DIMENSIONS: Final = text("SELECT vector_dims(vector) FROM vectors WHERE space = :space AND modality = 'scene' LIMIT 1")
_TOLD_DIMENSIONS: Final = text(
    "SELECT vector_dims(embedding) FROM scenes WHERE bundle_id = :space AND embedding IS NOT NULL LIMIT 1"
)
_CHANGED: Final = text(
    "SELECT id, changed, 0 AS of FROM scenes WHERE changed >= :since "
    "UNION ALL SELECT scene_id, changed, 1 FROM analyses WHERE changed >= :since AND model = :model"
)
_WAITED: Final = text("SELECT extract(epoch FROM clock_timestamp() - told_at)::float8 FROM scenes WHERE id = ANY(:ids)")
_NEXT_IDS: Final = text("SELECT id FROM scenes WHERE id > :after ORDER BY id LIMIT :chunk")


@dataclass(frozen=True, slots=True)
class Searched:
    """What is compared with what: a bundle's space, and the model whose analyses count; "" for none."""

    space: str
    model: str


class Mirror:
    """Keeps a gallery.

    Args:
        engine: of the database.
        grown: called, from the mirror's thread, when the gallery changed.
    """

    def __init__(self, engine: Engine, grown: Callable[[], None] = lambda: None) -> None:
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._grown = grown
        self._gallery: Gallery | None = None
        self._searched: Searched | None = None
        self._since = 0
        self._seen: dict[tuple[int, int], int] = {}
        self._counted_at = -COUNT_S
        self._counted: Searched | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.looks = 0
        self.looked_at = 0.0  # monotonic; of the last look that succeeded
        self.is_loaded = False

    @property
    def current(self) -> tuple[Searched, View] | None:
        """What is searched now; None before anything is there."""
        searched, gallery = self._searched, self._gallery
        return None if searched is None or gallery is None else (searched, gallery.view())

    def start(self) -> None:
        """Follow in a thread of its own."""
        self._thread = threading.Thread(target=self._follow, name="search-mirror", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> int:
        """Take over what changed; gives how many scenes did.

        Raises:
            SQLAlchemyError: the database is away; nothing is lost by it.
        """
        with self._single.connect() as connection:
            searched = self._to_search(connection)
            xmin = int(connection.execute(_XMIN).scalar_one())
            if searched is None:
                count = 0
            elif searched != self._searched or self._gallery is None or xmin < self._since:
                count = self._load(connection, searched, xmin)
            else:
                count = self._take_changes(connection, searched, xmin)
        self.looks += 1
        self.looked_at = time.monotonic()
        self.is_loaded = True
        if count:
            self._grown()
        return count

    def _follow(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            try:
                self.look()
                wait_s = LOOK_S
            except SQLAlchemyError as error:
                if wait_s != AWAY_S:
                    _LOG.warning("search_database_away error=%s", str(error).splitlines()[0])
                wait_s = AWAY_S
            except Exception:
                _LOG.exception("search_mirror_failed")
                wait_s = AWAY_S

    def _to_search(self, connection: Connection) -> Searched | None:
        told = connection.execute(_SEARCHED).scalar_one_or_none()
        if told is not None:
            return Searched(str(told.get("space", "")), str(told.get("model", "")))
        waited = time.monotonic() - self._counted_at >= COUNT_S
        if self._counted is None or waited or not self._counted.model:
            if self._counted is None or waited:
                space = connection.execute(_SPACE).scalar_one_or_none()
                self._counted_at = time.monotonic()
            else:
                space = self._counted.space
            if space is None:
                return None
            model = connection.execute(_MODEL, {"space": space}).scalar_one_or_none()
            self._counted = Searched(str(space), str(model or ""))
        return self._counted

    def _load(self, connection: Connection, searched: Searched, xmin: int) -> int:
        """Everything, into a gallery beside the one that is searched."""
        start = time.perf_counter()
        # A model that comes to what was searched without one finds the gallery's scenes as they were told.
        dimensions = (
            connection.execute(_DIMENSIONS, {"space": searched.space}).scalar_one_or_none()
            or connection.execute(_TOLD_DIMENSIONS, {"space": searched.space}).scalar_one_or_none()
        )
        if dimensions is None:
            return 0
        gallery, after, count = Gallery(int(dimensions)), 0, 0
        while ids := list(connection.execute(_NEXT_IDS, {"after": after, "chunk": CHUNK}).scalars()):
            self._put(connection, gallery, searched, ids)
            after, count = ids[-1], count + len(ids)
            if self._stopping.is_set():
                return 0
        self._gallery, self._searched, self._since, self._seen = gallery, searched, xmin, {}
        _LOG.info(
            "gallery_loaded space=%.12s model=%s scenes=%d rows=%d seconds=%.1f",
            searched.space, searched.model, count, gallery.view().rows, time.perf_counter() - start,
        )  # fmt: skip
        return count

    def _take_changes(self, connection: Connection, searched: Searched, xmin: int) -> int:
        rows = connection.execute(_CHANGED, {"since": self._since, "model": searched.model}).all()
        changed = {(int(row.id), int(row.of)): int(row.changed) for row in rows}
        fresh = sorted({scene for (scene, of), at in changed.items() if self._seen.get((scene, of)) != at})
        assert self._gallery is not None
        known = self._gallery.view().slots
        new = [scene for scene in fresh if scene not in known]
        for first in range(0, len(fresh), CHUNK):
            self._put(connection, self._gallery, searched, fresh[first : first + CHUNK])
        if new:
            for seconds in connection.execute(_WAITED, {"ids": new[:CHUNK]}).scalars():
                SEARCHABLE_S.observe(max(float(seconds), 0.0))
        self._since, self._seen = xmin, changed
        return len(fresh)

    @staticmethod
    def _put(connection: Connection, gallery: Gallery, searched: Searched, ids: Iterable[int]) -> None:
        gallery.put(reading.read(connection, searched.space, searched.model, list(ids), gallery.dimensions))


def set_searched(connection: Connection, space: str, model: str) -> None:
    """Say which space is searched, by which model's analyses; searches switch to it all at once."""
    value: dict[str, Any] = {"space": space, "model": model}
    connection.execute(
        text(
            "INSERT INTO facts (name, value) VALUES ('searched', CAST(:value AS jsonb)) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value, set_at = now()"
        ),
        {"value": reading.json_text(value)},
    )
