"""The two repositories as the server answers with them: read again every second, its own timestamp kept fresh."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from sqlalchemy import Engine, func, select
from tuf.api.metadata import Root  # type: ignore[attr-defined]

from cloud.errors import Refused, ReleaseError
from cloud.releases import stored
from cloud.releases.director import Director
from cloud.releases.keys import DIRECTOR, IMAGE
from cloud.releases.renewal import keep_fresh
from cloud.releases.roles import ROOT, TIMESTAMP
from cloud.releases.signing import Keys, read
from cloud.releases.stored import Stored
from cloud.tables import RELEASES

_LOG: Final = logging.getLogger(__name__)
# A new root or release is answered with after this long at the latest.
TRUST_S: Final = 1.0
# Between looks whether the timestamp must be signed anew.
FRESH_S: Final = 600.0
# Versions of metadata that are kept in memory: they never change.
MOST_FILES: Final = 256
NONE_YET: Final = "this cloud has no release repositories yet: roadfuse release keys create makes them"


@dataclass(frozen=True, slots=True)
class Trust:
    """What a check-in is answered with, beside the order.

    Attributes:
        highest_counter: of the releases that the image repository has by then.
    """

    highest_counter: int
    director: Director
    director_roots: tuple[Stored, ...]
    image_roots: tuple[Stored, ...]
    image_timestamp: bytes


class Repositories:
    """The published metadata, and the director.

    Args:
        data: the cloud's folder, with the online keys.
    """

    def __init__(self, engine: Engine, data: Path) -> None:
        self._engine = engine
        self._data = data
        self._lock = threading.Lock()
        self._trust: tuple[float, Trust] | None = None
        self._fresh_at = 0.0
        self._files: dict[tuple[str, int], bytes] = {}

    def remembered(self, counter: int = 0) -> Trust | None:
        """What was read a moment ago, with this release in it; None where it must be read."""
        until, known = self._trust or (0.0, None)
        is_fresh = known is not None and time.monotonic() < until and known.highest_counter >= counter
        return known if is_fresh else None

    def trust(self, counter: int = 0) -> Trust:
        """What counts now; waits for the catalogue.

        Args:
            counter: of a release that must be in it: it was made just now.

        Raises:
            Refused: FAILED_PRECONDITION: there are no repositories, or the director's keys are not here.
        """
        with self._lock:
            known = self.remembered(counter)
            if known is None:
                self._keep_fresh()
                known = self._read(self._trust[1] if self._trust else None)
                self._trust = time.monotonic() + TRUST_S, known
            return known

    def image_file(self, role: str, version: int) -> bytes | None:
        """A file of the image repository; None where there is none."""
        content = self._files.get((role, version))
        if content is None:
            with self._engine.connect() as connection:
                content = stored.get(connection, IMAGE, role, version)
            if content is not None:
                with self._lock:
                    if len(self._files) >= MOST_FILES:
                        self._files.clear()
                    self._files[role, version] = content
        return content

    def _read(self, before: Trust | None) -> Trust:
        with self._engine.connect() as connection:
            # Before the timestamp, which then is as new at least.
            counter = connection.execute(select(func.coalesce(func.max(RELEASES.c.counter), 0))).scalar_one()
            director_roots = tuple(stored.roots(connection, DIRECTOR))
            image_roots = tuple(stored.roots(connection, IMAGE))
            timestamp = stored.latest(connection, IMAGE, TIMESTAMP)
        if not director_roots or not image_roots or timestamp is None:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, NONE_YET)
        if before is not None and before.director_roots == director_roots:
            director = before.director
        else:
            director = self._director(director_roots[-1].content)
        return Trust(int(counter), director, director_roots, image_roots, timestamp.content)

    def _director(self, content: bytes) -> Director:
        try:
            root = read(content, DIRECTOR, ROOT).signed
            assert isinstance(root, Root)
            return Director.by(root, Keys.at(self._data))
        except (ReleaseError, OSError) as error:
            _LOG.error("director_unable error=%s", error)
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, "the director's keys are not at this server; its log says which"
            ) from None

    def _keep_fresh(self) -> None:
        if time.monotonic() < self._fresh_at:
            return
        self._fresh_at = time.monotonic() + FRESH_S
        try:
            with self._engine.begin() as connection:
                if keep_fresh(connection, Keys.at(self._data), datetime.datetime.now(datetime.timezone.utc)):
                    _LOG.warning("image_timestamp_renewed")
        except (ReleaseError, OSError) as error:
            _LOG.error("image_timestamp_not_renewed error=%s", error)
