"""A cloud's folder with release repositories, small bundles, and python-tuf's own client against the catalogue."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from cloud.database import connect, migrate
from cloud.objects import Objects
from cloud.releases import publisher, releases, rotation, stored
from cloud.releases.keys import IMAGE
from cloud.releases.releases import Release
from cloud.releases.signing import Keys
from edge.bundle import MANIFEST, REFERENCE

DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    """UTC, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def bundle(folder: Path, version: str) -> Path:
    """A whole bundle with an id of its own: the reference bundle's audio engine alone, under another version."""
    made = folder / f"bundle-{version}"
    made.mkdir()
    manifest = json.loads((REFERENCE / MANIFEST).read_text())
    audio = manifest["encoders"]["audio"]
    manifest |= {"version": version, "encoders": {"audio": audio}, "fuse": None, "golden": None}
    roles = set(audio["outputs"])
    manifest["heads"] = {
        name: head for name, head in manifest["heads"].items() if isinstance(head, list) and name in roles
    }
    manifest["thresholds"] = {name: one for name, one in manifest["thresholds"].items() if name in manifest["heads"]}
    for name in [audio["file"], *(one["file"] for one in audio.get("lowerings", {}).values())]:
        shutil.copyfile(REFERENCE / name, made / name)
    (made / MANIFEST).write_text(json.dumps(manifest))
    return made


class Shelf:
    """Both repositories, their keys, and what can be done with them.

    Args:
        data: the cloud's folder.
        folders: of offline keys.
    """

    def __init__(self, database: str, data: Path, folders: list[Path]) -> None:
        self.engine: Engine = connect(database)
        migrate(self.engine)
        self.database, self.data, self.folders = database, data, folders
        self.objects = Objects(str(data / "objects"))

    @property
    def keys(self) -> Keys:
        """All keys, read anew."""
        return Keys.at(self.data, self.folders)

    @property
    def online(self) -> Keys:
        """The cloud's own alone."""
        return Keys.at(self.data)

    def create(self, at: datetime.datetime | None = None) -> None:
        """Make keys and repositories."""
        with self.engine.begin() as connection:
            rotation.create(connection, self.keys, at or now())

    def add(self, folder: Path, **named: Any) -> Release:
        """Release a bundle."""
        at = named.pop("at", None) or now()
        return publisher.add(
            self.engine, self.objects, named.pop("keys", self.keys), folder, at, work=self.data, **named
        )

    def revoke(self, counter: int, why: str = "worse at night") -> list[Release]:
        """Take a release back."""
        with self.engine.begin() as connection:
            return publisher.revoke(connection, self.keys, counter, why, now())

    def do(self, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """`work(connection, ...)` in a transaction of its own."""
        with self.engine.begin() as connection:
            return work(connection, *args, **named)

    def root(self, repository: str = IMAGE, version: int = 1) -> bytes:
        """A root as it was published."""
        content = self.do(stored.get, repository, "root", version)
        assert content is not None
        return bytes(content)


class Client(FetcherInterface):
    """python-tuf's client of the image repository; it knows a first root and keeps its files in a folder.

    Attributes:
        fetched: names of the files that it asked for, and their sizes.
    """

    def __init__(self, shelf: Shelf, folder: Path, root: bytes | None = None) -> None:
        self.fetched: list[tuple[str, int]] = []
        self._shelf, self._folder = shelf, folder
        self._root: bytes | None = root or shelf.root()
        (folder / "targets").mkdir(parents=True, exist_ok=True)

    def updater(self) -> Updater:
        """A fresh session."""
        config = UpdaterConfig(max_root_rotations=256)
        root, self._root = self._root, None
        return Updater(
            str(self._folder), "meta/", str(self._folder / "targets"), "targets/", self, config, bootstrap=root
        )

    def find(self, path: str) -> Any:
        """A target, once all metadata is verified; None where there is none."""
        updater = self.updater()
        updater.refresh()
        return updater.get_targetinfo(path)

    def download(self, path: str) -> bytes:
        """A target's content."""
        updater = self.updater()
        updater.refresh()
        info = updater.get_targetinfo(path)
        assert info is not None
        return Path(updater.download_target(info)).read_bytes()

    def _fetch(self, url: str) -> Iterator[bytes]:
        content = self._content(url)
        if content is None:
            raise DownloadHTTPError("there is none", 404)
        self.fetched.append((url, len(content)))
        yield content

    def _content(self, url: str) -> bytes | None:
        place, _, name = url.partition("/")
        if place == "targets":
            digest = name.rpartition("/")[2].partition(".")[0]
            return self._shelf.objects.get(releases.object_key(digest))
        if name == "timestamp.json":
            found = self._shelf.do(stored.latest, IMAGE, "timestamp")
            return None if found is None else bytes(found.content)
        version, role, _ = name.split(".")
        content: bytes | None = self._shelf.do(stored.get, IMAGE, role, int(version))
        return content


@contextlib.contextmanager
def shelf_at(database: str, folders: int = 1) -> Iterator[Shelf]:
    """A shelf in folders of its own, without repositories yet."""
    with tempfile.TemporaryDirectory(prefix="roadfuse-shelf-") as place:
        (Path(place) / "data").mkdir()
        shelf = Shelf(database, Path(place) / "data", [Path(place) / f"keys-{n}" for n in range(folders)])
        yield shelf
        shelf.engine.dispose()
