"""Clips on their way: one file each on this server's disk, which is all there is to know of an upload.

    staging/<vehicle>/<outbox>-<sequence>      the first bytes of the clip, in order

How much of a clip is here is how long its file is: no second record can disagree with it. A kill of the server leaves
what was written; after a power cut the file may end in bytes that never reached the disk, which the digest of the whole
finds out. Every method that touches the disk waits for it, so the server calls them from threads, one at a time for
each upload.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import threading
import time
import zlib
from pathlib import Path
from typing import Final

import grpc

from cloud.errors import Refused
from cloud.limits import Limits
from edge.durable import sync

READ_BYTES: Final = 1 << 20
Key = tuple[str, bytes, int]  # vehicle, outbox, sequence


class Upload:
    """One clip's file.

    Attributes:
        lock: held by whoever has a method running in a thread.
        owner: who appends at present; whoever comes last takes it over.
        size: of the whole clip, bytes.
        told_sha256: of the whole clip, as its scene was told of; None until Begin says so to this server.
        offset: bytes that are written.
    """

    def __init__(self, path: Path, size: int, offset: int = 0) -> None:
        self.lock = asyncio.Lock()
        self.owner: object = None
        self.path = path
        self.size = size
        self.told_sha256: bytes | None = None
        self.offset = offset
        self._synced = -1  # whether even its name is on disk is not known
        self._digest = hashlib.sha256()
        self._digested = 0

    def append(self, content: bytes, crc32: int, *, durable: bool) -> None:
        """Append bytes, and bring all that is written to the disk if it is to be durable.

        Raises:
            Refused: INVALID_ARGUMENT; the bytes are not those that were sent.
        """
        got = zlib.crc32(content)
        if got != crc32:
            message = f"chunk at {self.offset}: expected CRC-32 {crc32:08x}, got {got:08x}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, message)
        self.write(content)
        if durable:
            self.sync()

    def write(self, content: bytes) -> None:
        """Append bytes; a failure leaves the file as it was."""
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            view, offset = memoryview(content), self.offset
            try:
                while view:
                    written = os.pwrite(handle, view, offset)
                    view, offset = view[written:], offset + written
            except OSError:
                os.ftruncate(handle, self.offset)
                raise
        finally:
            os.close(handle)
        if self._digested == self.offset:
            self._digest.update(content)
            self._digested = offset
        self.offset = offset

    def sync(self) -> int:
        """Bring what is written to the disk.

        Returns:
            How many bytes are durable.
        """
        if self._synced == self.offset:
            return self.offset
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)  # made here: a clip of no bytes
        try:
            os.fdatasync(handle)
        except OSError:
            self.drop()  # nobody knows what reached the disk: the clip starts over
            raise
        finally:
            os.close(handle)
        if self._synced < 0:
            _sync_folder(self.path.parent)
        self._synced = self.offset
        return self.offset

    def sha256(self) -> bytes:
        """Of all that is written; what a former server wrote is read again."""
        if self._digested < self.offset:
            with self.path.open("rb") as file:
                file.seek(self._digested)
                while block := file.read(READ_BYTES):
                    self._digest.update(block)
                    self._digested += len(block)
        return self._digest.digest()

    def drop(self) -> None:
        """Let go of what is here; the upload starts over."""
        self.path.unlink(missing_ok=True)
        self.offset, self._synced = 0, -1
        self._digest, self._digested = hashlib.sha256(), 0


class Staging:
    """All uploads of this server.

    Args:
        folder: this server's alone.
        limits: quotas of a vehicle.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._lock = threading.Lock()
        self._uploads: dict[str, dict[tuple[bytes, int], Upload]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_up()

    def open(self, key: Key, size: int) -> Upload:
        """The upload of a scene, begun if need be.

        Raises:
            Refused: RESOURCE_EXHAUSTED; the vehicle has begun too much.
        """
        vehicle, outbox, sequence = key
        with self._lock:
            uploads = self._uploads.get(vehicle)
            if uploads is None:
                (self._folder / vehicle).mkdir(mode=0o700, exist_ok=True)
                uploads = self._uploads[vehicle] = {}
            upload = uploads.get((outbox, sequence))
            others = [other for other in uploads.values() if other is not upload]
            begun = sum(other.size for other in others) + size
            if len(others) >= self._limits.staging_clips or begun > self._limits.staging_bytes:
                raise Refused(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"expected at most {self._limits.staging_clips} clips and {self._limits.staging_bytes} bytes begun "
                    f"and not completed, got {len(others) + 1} and {begun}",
                )
            if upload is None:
                path = self._folder / vehicle / f"{outbox.hex()}-{sequence}"
                upload = uploads[outbox, sequence] = Upload(path, size)
            upload.size = size
        return upload

    def find(self, key: Key) -> Upload | None:
        """The upload of a scene, if it was begun."""
        vehicle, outbox, sequence = key
        return self._uploads.get(vehicle, {}).get((outbox, sequence))

    def measure(self) -> tuple[int, int]:
        """Bytes and clips that are on their way."""
        with self._lock:
            offsets = [upload.offset for uploads in self._uploads.values() for upload in uploads.values()]
        return sum(offsets), len(offsets)

    def close(self, key: Key) -> None:
        """Let go of an upload and its bytes."""
        vehicle, outbox, sequence = key
        with self._lock:
            upload = self._uploads.get(vehicle, {}).pop((outbox, sequence), None)
        if upload is not None:
            upload.owner = None
            upload.drop()

    def _take_up(self) -> None:
        """Find the uploads of the server before; what is no upload, or too old, goes."""
        oldest = time.time() - self._limits.staging_days * 86_400
        for path in self._folder.glob("*/*"):
            outbox, _, sequence = path.name.partition("-")
            try:
                name = bytes.fromhex(outbox), int(sequence)
                is_kept = path.is_file() and path.stat().st_mtime > oldest
            except ValueError:
                is_kept = False
            if is_kept:
                self._uploads.setdefault(path.parent.name, {})[name] = Upload(
                    path, path.stat().st_size, path.stat().st_size
                )
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def _sync_folder(folder: Path) -> None:
    for each in (folder, folder.parent):
        sync(each)
