"""One web server for all tests of the pages, on a real database, with the scenes of a short simulated drive."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .scenery import Vehicle, Visitor, Web


@dataclass
class Stage:
    """What tests find.

    Attributes:
        scene_ids: of scenes whose clips are here.
        told_id: of one whose clip is on board.
        key, reading_key: API keys; the second may look alone.
    """

    web: Web
    engine: Engine
    data: Path
    vehicle: Vehicle
    scene_ids: list[int]
    told_id: int
    key: str
    reading_key: str

    def visitor(self, key: str | None = None) -> Visitor:
        """Somebody who is signed in."""
        from .scenery import Visitor

        visitor = Visitor(self.web.address)
        visitor.sign_in(key or self.key)
        return visitor

    @property
    def clip(self) -> Path:
        """Of the first scene."""
        from sqlalchemy import select

        from cloud.tables import SCENES

        with self.engine.connect() as connection:
            key = connection.execute(select(SCENES.c.object_key).where(SCENES.c.id == self.scene_ids[0])).scalar_one()
        return self.data / "objects" / str(key)

    def another(self, name: str) -> Vehicle:
        """Another vehicle."""
        from cloud.objects import Objects

        from .scenery import Vehicle

        return Vehicle(self.engine, Objects(str(self.data / "objects")), name)


@pytest.fixture(scope="session")
def stage(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The server and what is in it."""
    from cloud.database import connect, migrate
    from cloud.objects import Objects

    from ..fleet import fresh_database
    from .scenery import Vehicle, Web, key, spool, summary

    data = tmp_path_factory.mktemp("web")
    with fresh_database(postgres) as url:
        engine = connect(url)
        migrate(engine)
        vehicle = Vehicle(engine, Objects(str(data / "objects")), "car-1")
        scene_ids = vehicle.unload(spool(tmp_path_factory.mktemp("drive")))
        assert scene_ids, "the drive had no hard scene"
        (told_id,) = vehicle.tell(summary(vehicle.last + 1))
        keys = key(engine, "alice"), key(engine, "reader", may_write=False)
        web = Web(data, url)
        try:
            yield Stage(web, engine, data, vehicle, scene_ids, told_id, *keys)
        finally:
            web.stop()
            engine.dispose()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser. Its event loop runs in this thread as long as it lives, so that others wait for its end."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed here")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
