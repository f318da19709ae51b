"""Clips as objects, in a local folder or in S3, by one setting.

A key is made of checked parts (`clip_key`), never of what a vehicle sends as text. An object appears whole or not at
all, and putting the same clip again changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from cloud.errors import ObjectError


def clip_key(vehicle: str, outbox: bytes, sequence: int) -> str:
    """Where a scene's clip lies.

    Args:
        vehicle: a name that enrolment accepted: no slash, no leading dot.
        outbox: 16 bytes.
        sequence: within the outbox.
    """
    return f"clips/{vehicle}/{outbox.hex()}/{sequence}.mcap"


class Objects:
    """A store of clips.

    Args:
        place: a folder, or a URL that obstore knows (s3://bucket/prefix; credentials from the environment, AWS_*).

    Raises:
        ObjectError: the folder can't be made, or the URL is none that is known.
    """

    def __init__(self, place: str) -> None:
        self._folder: Path | None = None
        self._store: ObjectStore
        try:
            if "://" in place:
                self._store = from_url(place)
            else:
                self._folder = Path(place).resolve()
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._store = LocalStore(prefix=self._folder)
        except (BaseError, ValueError, OSError) as error:
            raise ObjectError(f"{place}: expected a folder or s3://bucket/prefix, got: {_line(error)}") from None

    def put(self, key: str, path: Path) -> None:
        """Keep the file's content under `key`; durable on return, the file itself stays.

        The file must be on disk already (fdatasync) and never change again: locally the object is a second name of it
        where that is possible, so that a clip is written once.

        Raises:
            ObjectError: the store refused.
        """
        try:
            if self._folder is None:
                obstore.put(self._store, key, path)
            else:
                _put_locally(self._folder / key, path)
        except (BaseError, OSError) as error:
            raise ObjectError(f"{key}: could not be kept: {_line(error)}") from None

    def get(self, key: str) -> bytes:
        """An object's content.

        Raises:
            ObjectError: there is none, or it can't be read.
        """
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except (BaseError, OSError) as error:
            raise ObjectError(f"{key}: could not be read: {_line(error)}") from None


def _put_locally(target: Path, path: Path) -> None:
    folder = target.parent
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{target.name}.{secrets.token_hex(4)}"
    try:
        try:
            os.link(path, fresh)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(path, fresh)
            _sync(fresh)
        fresh.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()  # also where both were names of one file already: rename leaves such a pair alone
    _sync(folder)
    if is_new:
        _sync(folder.parent)
        _sync(folder.parent.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
