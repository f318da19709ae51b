"""An MCAP file that is whole at every instant, so that `kill -9` at any byte leaves one that any reader opens.

A plain MCAP writer appends, and a reader looks for the footer at the end of the file: killed in between, there is none.
Here a footer stands at the end from the first moment. Between it and the records lies one *fill* record of a private
opcode (readers must skip those) over a hole that takes no disk:

    magic | header | records ... | FILL (hole) | data end | footer | magic

Appending writes the new records' bytes and the next fill behind the current fill's header, and only then turns that
header into the first new record's: 9 bytes within one disk sector, the only step that changes what a reader sees.
Closing writes the summary the same way and cuts the rest off. The file appears under its name with its first footer.
While it is written it is locked (flock, which ends with the process): a second writer of the same name is refused.

Spec: https://mcap.dev/spec (private records: opcode >= 0x80).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from mcap.data_stream import RecordBuilder
from mcap.records import DataEnd, Footer, Header

from edge.durable import sync

LIBRARY: Final = "roadfuse"
MAGIC: Final = b"\x89MCAP0\r\n"
FILL_OPCODE: Final = 0x80
RECORD_HEADER_BYTES: Final = 9
# How far the hole reaches ahead. It takes no disk, but a reader of an unfinished file reads it as zeros.
EXTENT_BYTES: Final = 16 << 20
# Neither a kill nor a power cut leaves a write within one sector half done; no header and no tail straddles two.
SECTOR_BYTES: Final = 512
_BUSY: Final = "expected a file that nobody writes, got one that another run is writing"


class Journal:
    """Appends whole records to an MCAP file; see the module's docstring.

    Args:
        path: the file; replaced if it exists, by one of the same mode.
        durable: wait for the disk before and after each step, so that a power cut loses no more than a kill does.

    Raises:
        BlockingIOError: another writer is at this file.
        OSError: the file can't be created here.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        header = RecordBuilder()
        Header(profile="", library=LIBRARY).write(header)
        head = MAGIC + header.end()
        self._durable = durable
        self._tail = _tail()
        self._position = len(head)  # of the fill record's header
        self._end = _extent_end(len(head) + RECORD_HEADER_BYTES)  # of the fill record
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "expected a file to replace", str(path))
        fresh = target.with_name(target.name + ".new")
        try:
            self._file = _claimed(fresh)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        try:
            if target.exists():
                self._take_over(target)
            os.ftruncate(self._file, 0)
            self._write(head + self._fill_header(len(head), self._end), 0)
            self._write(self._tail, self._end)
            self._sync()
            fresh.replace(target)
            self._sync_folder(target.parent)
        except OSError:
            fresh.unlink(missing_ok=True)  # while it is locked, and so ours
            self.abandon()
            raise

    @property
    def position(self) -> int:
        """Offset at which the next record will stand."""
        return self._position

    def append(self, records: bytes) -> None:
        """Append whole records (each with its 9-byte header).

        Raises:
            OSError: the disk refused; what was appended before stands, and appending may be tried again.
        """
        records += self._padding(self._position + len(records))
        self._reserve(len(records))
        position = self._position + len(records)
        self._replace_fill(records + self._fill_header(position, self._end))
        self._position = position

    def close(self, summary: bytes, summary_offset_start: int, summary_crc: int) -> None:
        """Finish the file with a summary section, whose first byte stands at `position` + 13 (after DataEnd)."""
        builder = RecordBuilder()
        DataEnd(0).write(builder)
        data_end = builder.end()
        Footer(self._position + len(data_end), summary_offset_start, summary_crc).write(builder)
        closing = data_end + summary + builder.end() + MAGIC
        self._reserve(len(closing))
        self._replace_fill(closing)
        os.ftruncate(self._file, self._position + len(closing))
        self._sync()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it stands."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take_over(self, target: Path) -> None:
        """Refuse a file that is being written (nobody begins one while ours is claimed), and take its mode."""
        with suppress(PermissionError):  # nobody of ours writes it
            written = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _lock(written)
            except BlockingIOError as error:
                raise BlockingIOError(error.errno, error.strerror, str(target)) from None
            finally:
                os.close(written)
        os.fchmod(self._file, stat.S_IMODE(target.stat().st_mode))

    def _replace_fill(self, records: bytes) -> None:
        self._write(records[RECORD_HEADER_BYTES:], self._position + RECORD_HEADER_BYTES)
        self._sync()
        self._write(records[:RECORD_HEADER_BYTES], self._position)
        self._sync()

    def _reserve(self, size: int) -> None:
        """Move the end of the fill so that `size` bytes and another fill header find room before it."""
        needed = self._position + size + RECORD_HEADER_BYTES
        if needed <= self._end:
            return
        end = _extent_end(needed)
        try:
            self._write(self._tail, end)
        except OSError:
            os.ftruncate(self._file, self._end + len(self._tail))  # half a tail would hide the one before it
            raise
        self._sync()
        self._write(self._fill_header(self._position, end), self._position)
        self._sync()
        self._end = end

    @staticmethod
    def _fill_header(position: int, end: int) -> bytes:
        return struct.pack("<BQ", FILL_OPCODE, end - position - RECORD_HEADER_BYTES)

    @staticmethod
    def _padding(position: int) -> bytes:
        """A fill record that keeps the next header from straddling two sectors."""
        room = SECTOR_BYTES - position % SECTOR_BYTES
        if room >= RECORD_HEADER_BYTES:
            return b""
        return struct.pack("<BQ", FILL_OPCODE, room) + bytes(room)

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def _sync(self) -> None:
        if not self._durable:
            return
        try:
            os.fdatasync(self._file)
        except OSError:
            self.abandon()  # nobody knows what reached the disk, so nothing more may be built on it
            raise

    def _sync_folder(self, folder: Path) -> None:
        if self._durable:
            sync(folder)


def _claimed(fresh: Path) -> int:
    """The fresh file, open, and locked for as long as it is, whatever its name becomes."""
    file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(file)
        if not os.path.samestat(os.fstat(file), fresh.stat()):  # who had it gave it the target's name in between
            raise BlockingIOError(errno.EWOULDBLOCK, _BUSY)
    except OSError:
        os.close(file)
        raise
    return file


def _lock(file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EWOULDBLOCK, _BUSY) from None
    except OSError:
        return  # a file system that has no locks


def _extent_end(needed: int) -> int:
    """Where a fill ends that leaves an extent behind `needed`: on a sector, so that the tail lies within one."""
    return -(-(needed + EXTENT_BYTES) // SECTOR_BYTES) * SECTOR_BYTES


def _tail() -> bytes:
    builder = RecordBuilder()
    DataEnd(0).write(builder)
    Footer(0, 0, 0).write(builder)
    tail: bytes = builder.end()
    return tail + MAGIC
