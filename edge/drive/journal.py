"""An MCAP file that is whole at every instant, so that `kill -9` at any byte leaves one that any reader opens.

A plain MCAP writer appends, and a reader looks for the footer at the end of the file: killed in between, there is none.
Here a footer stands at the end from the first moment. Between it and the records lies one *fill* record of a private
opcode (readers must skip those) over a hole that takes no disk:

    magic | header | records ... | FILL (hole) | data end | footer | magic

Appending writes the new records' bytes and the next fill behind the current fill's header, and only then turns that
header into the first new record's: 9 bytes within one page, the only step that changes what a reader sees. Closing
writes the summary the same way and cuts the rest off.

Spec: https://mcap.dev/spec (private records: opcode >= 0x80).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from mcap.data_stream import RecordBuilder
from mcap.records import DataEnd, Footer, Header

LIBRARY: Final = "roadfuse"
MAGIC: Final = b"\x89MCAP0\r\n"
FILL_OPCODE: Final = 0x80
RECORD_HEADER_BYTES: Final = 9
# How far the hole reaches ahead. It takes no disk, but a reader of an unfinished file reads it as zeros.
EXTENT_BYTES: Final = 16 << 20
_PAGE_BYTES: Final = 4096


class Journal:
    """Appends whole records to an MCAP file; see the module's docstring.

    Args:
        path: the file; replaced if it exists.
        durable: wait for the disk before each step, so that a power cut loses no more than a kill does.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        header = RecordBuilder()
        Header(profile="", library=LIBRARY).write(header)
        self._durable = durable
        self._tail = _tail(0, 0, 0)
        self._position = 0  # of the fill record's header
        self._end = EXTENT_BYTES  # of the fill record
        head = MAGIC + header.end()
        self._position = len(head)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self._write(head + self._fill_header(len(head), self._end), 0)
            self._write(self._tail, self._end)
        except OSError:
            os.close(self._file)
            raise

    @property
    def position(self) -> int:
        """Offset at which the next record will stand."""
        return self._position

    def append(self, records: bytes) -> None:
        """Append whole records (each with its 9-byte header).

        Raises:
            OSError: the disk refused; what was appended before stands.
        """
        records += self._page_padding(self._position + len(records))
        self._reserve(len(records))
        position = self._position + len(records)
        self._replace_fill(records + self._fill_header(position, self._end))
        self._position = position

    def close(self, summary: bytes, summary_offset_start: int, summary_crc: int) -> None:
        """Finish the file with a summary section, whose first byte stands at `position` + 13 (after DataEnd)."""
        builder = RecordBuilder()
        DataEnd(0).write(builder)
        data_end = builder.end()
        Footer(self._position + len(data_end) if summary else 0, summary_offset_start, summary_crc).write(builder)
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

    def _replace_fill(self, records: bytes) -> None:
        self._write(records[RECORD_HEADER_BYTES:], self._position + RECORD_HEADER_BYTES)
        self._sync()
        self._write(records[:RECORD_HEADER_BYTES], self._position)

    def _reserve(self, size: int) -> None:
        """Move the end of the fill so that `size` bytes and another fill header find room before it."""
        needed = self._position + size + RECORD_HEADER_BYTES
        if needed <= self._end:
            return
        end = needed + EXTENT_BYTES
        self._write(self._tail, end)
        self._sync()
        self._write(self._fill_header(self._position, end), self._position)
        self._end = end

    @staticmethod
    def _fill_header(position: int, end: int) -> bytes:
        return struct.pack("<BQ", FILL_OPCODE, end - position - RECORD_HEADER_BYTES)

    @staticmethod
    def _page_padding(position: int) -> bytes:
        """A fill record that keeps the next header from straddling two pages (a kill can fall between them)."""
        room = _PAGE_BYTES - position % _PAGE_BYTES
        if room >= RECORD_HEADER_BYTES:
            return b""
        return struct.pack("<BQ", FILL_OPCODE, room) + bytes(room)

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def _sync(self) -> None:
        if self._durable:
            os.fdatasync(self._file)


def _tail(summary_start: int, summary_offset_start: int, summary_crc: int) -> bytes:
    builder = RecordBuilder()
    DataEnd(0).write(builder)
    Footer(summary_start, summary_offset_start, summary_crc).write(builder)
    tail: bytes = builder.end()
    return tail + MAGIC
