"""An empty database with fresh repositories for each test, and bundles that many share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .shelf import Shelf


@pytest.fixture
def shelf(postgres: str) -> Iterator[Shelf]:
    """Both repositories, made just now."""
    from ..fleet import fresh_database
    from .shelf import shelf_at

    with fresh_database(postgres) as url, shelf_at(url) as one:
        one.create()
        yield one


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small bundles."""
    from .shelf import bundle

    folder = tmp_path_factory.mktemp("bundles")
    return [bundle(folder, str(number)) for number in range(1, 5)]
