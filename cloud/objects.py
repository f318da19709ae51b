"""Clips as objects, in a local folder or in S3, by one setting.

A key is made of checked parts (`clip_key`), never of what a vehicle sends as text. An object appears whole or not at
all, and putting the same clip again changes nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from cloud.errors import ObjectError
from edge.durable import sync

Answer = TypeVar("Answer")
READ_BYTES: Final = 4 << 20
# A store at a distance is asked again within what a call may take (Limits.call_s); then the caller is told.
RETRY_S: Final = 12.0
CONNECT_S: Final = 4.0
SILENCE_S: Final = 8.0
# Within a folder of objects: what is being written.
NEW: Final = ".new"
LEFT_S: Final = 3_600.0
# Small files that are written at once; threads are started as they are needed.
WRITERS: Final = 16


def clip_key(vehicle: str, outbox: bytes, sequence: int, sha256: bytes) -> str:
    """Where a scene's clip lies. One that was made anew lies elsewhere: a late call with the old one can't replace it.

    Args:
        vehicle: a name that enrolment accepted: no slash, no leading dot.
        outbox: 16 bytes.
        sequence: within the outbox.
        sha256: of the clip.
    """
    return f"clips/{vehicle}/{outbox.hex()}/{sequence}-{sha256.hex()}.mcap"


class Objects:
    """A store of clips.

    Args:
        place: a folder, or a URL that obstore knows (s3://bucket/prefix; credentials from the environment, AWS_*).
        make: a folder that is not there. Who only reads makes none, and writes nothing into one: its place may be
            mistyped.

    Raises:
        ObjectError: the folder can't be made or is not there, or the URL is none that is known.
    """

    def __init__(self, place: str, *, make: bool = True) -> None:
        self._folder: Path | None = None
        self._settled: set[Path] = set()
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="objects")
        self._store: ObjectStore
        try:
            if "://" in place:
                self._store = _from_url(place)
            else:
                self._folder = Path(place).resolve()
                if make:
                    self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                elif not self._folder.is_dir():
                    raise ObjectError(f"{place}: expected a folder with objects, got none")
                self._store = LocalStore(prefix=self._folder)
                if make:
                    _clear(self._folder / NEW)
        except (BaseError, ValueError, OSError) as error:
            raise ObjectError(f"{place}: expected a folder or s3://bucket/prefix, got: {_line(error)}") from None

    def put(self, key: str, path: Path) -> None:
        """Keep the file's content under `key`; durable on return, the file itself stays.

        The file must be on disk already (fdatasync) and never change again: locally the object is a second name of it
        where that is possible, so that a clip is written once.

        Raises:
            ObjectError: the store refused.
        """
        self._tried(lambda: self._put(key, path), key, "could not be kept")

    def put_contents(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Keep small objects, given as (key, content); durable on return, all of them or none is sure to be.

        Raises:
            ObjectError: the store refused.
            OSError: this machine's disk did.
        """
        if self._folder is not None:
            new = self._folder / NEW
            # Waits for the disk that begin together end together: the file system brings out all in one go.
            writing = [self._writers.submit(_write, self._folder / key, content, new) for key, content in items]
            wait(writing)
            for written in writing:
                written.result()
            self._settle({(self._folder / key).parent for key, _ in items})
        else:
            putting = [self._writers.submit(obstore.put, self._store, key, content) for key, content in items]
            wait(putting)
            for (key, _), put in zip(items, putting):
                self._tried(put.result, key, "could not be kept")

    def get(self, key: str) -> bytes:
        """An object's content.

        Raises:
            ObjectError: there is none, or it can't be read.
        """
        return self._tried(lambda: bytes(obstore.get(self._store, key).bytes()), key, "could not be read")

    def size(self, key: str) -> int:
        """An object's size, bytes.

        Raises:
            ObjectError: there is none, or the store can't be asked.
        """
        return self._tried(lambda: int(obstore.head(self._store, key)["size"]), key, "could not be read")

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (not included) of an object; fewer where it ends before.

        Raises:
            ObjectError: there is none, it has no byte at `start`, or it can't be read.
        """
        if not 0 <= start < end:
            raise ObjectError(f"{key}: expected a range of at least one byte, got {start} to {end}")
        return self._tried(
            lambda: bytes(obstore.get_range(self._store, key, start=start, end=end)), key, "could not be read"
        )

    def download(self, key: str, path: Path) -> int:
        """Copy an object into a file, which appears whole or not at all; holds a few MiB of it in memory.

        Returns:
            Its size, bytes.

        Raises:
            ObjectError: there is none, it can't be read, or the file can't be written.
        """
        return self._tried(lambda: _download(self._store, key, path), key, "could not be read")

    def delete(self, key: str) -> None:
        """Let go of an object; none is fine.

        Raises:
            ObjectError: the store refused.
        """
        self._tried(lambda: _delete(self._store, key), key, "could not be deleted")

    def _put(self, key: str, path: Path) -> None:
        if self._folder is None:
            obstore.put(self._store, key, path)
        else:
            _put_locally(self._folder / key, path, self._folder / NEW)
            self._settle({(self._folder / key).parent})

    def _settle(self, folders: set[Path]) -> None:
        """Bring names to the disk; those of the folders themselves too, once for each."""
        assert self._folder is not None
        for folder in folders:
            sync(folder)
        for folder in folders - self._settled:
            for parent in folder.parents:
                sync(parent)
                if parent == self._folder:
                    break
        self._settled |= folders

    def _tried(self, work: Callable[[], Answer], key: str, failed: str) -> Answer:
        try:
            return work()
        except (BaseError, OSError, ValueError) as error:
            raise ObjectError(f"{key}: {failed}: {_line(error)}") from None


def _from_url(url: str) -> ObjectStore:
    if url.partition("://")[0] in ("memory", "file"):
        return from_url(url)
    client: Any = {
        "connect_timeout": datetime.timedelta(seconds=CONNECT_S),
        "read_timeout": datetime.timedelta(seconds=SILENCE_S),
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
    if endpoint.startswith("http://"):  # somebody chose a store without TLS, such as one on this machine
        client["allow_http"] = True
    retry: Any = {"retry_timeout": datetime.timedelta(seconds=RETRY_S), "max_retries": 5}
    return from_url(url, client_options=client, retry_config=retry)


def _download(store: ObjectStore, key: str, path: Path) -> int:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    size = 0
    try:
        with fresh.open("xb") as file:
            for block in obstore.get(store, key).stream(min_chunk_size=READ_BYTES):
                size += file.write(block)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return size


def _delete(store: ObjectStore, key: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        obstore.delete(store, key)


def _clear(new: Path) -> None:
    """Let go of what killed processes left; what is young is another's, at work."""
    new.mkdir(mode=0o700, exist_ok=True)
    oldest = time.time() - LEFT_S
    for path in new.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def _write(target: Path, content: bytes, new: Path) -> None:
    fresh = new / secrets.token_hex(8)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            os.fdatasync(handle)
        finally:
            os.close(handle)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _put_locally(target: Path, path: Path, new: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = new / secrets.token_hex(8)
    try:
        try:
            os.link(path, fresh)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(path, fresh)
            sync(fresh)
        fresh.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()  # also where both were names of one file already: rename leaves such a pair alone


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
