"""One hard scene for all tests of the analyst."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .clips import Scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Four seconds of the demo: a pedestrian crosses, a siren comes near."""
    from .clips import recorded

    return recorded(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    """Of a migrated database."""
    from cloud.database import connect, migrate

    made = connect(database)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def data(open_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cloud's folder."""
    return tmp_path_factory.mktemp("data")
