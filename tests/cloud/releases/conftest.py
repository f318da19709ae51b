"""Fresh repositories for each test, and bundles that many share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .shelf import Shelf


@pytest.fixture
def bare(database: str) -> Iterator[Shelf]:
    """A cloud without repositories."""
    from .shelf import shelf_at

    with shelf_at(database, folders=3) as one:
        with one.engine.begin() as connection:
            connection.exec_driver_sql("TRUNCATE metadata_files, stops, deltas, releases RESTART IDENTITY CASCADE")
        yield one


@pytest.fixture
def shelf(bare: Shelf) -> Shelf:
    """Both repositories, made just now; all keys in one folder."""
    bare.folders = bare.folders[:1]
    bare.create()
    return bare


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small bundles."""
    from .shelf import bundle

    folder = tmp_path_factory.mktemp("bundles")
    return [bundle(folder, str(number)) for number in range(1, 5)]
