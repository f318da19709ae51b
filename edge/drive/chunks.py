"""The bytes of an MCAP file, read with a bound on everything a record claims.

A length, a count or a size is checked before a byte is allocated for it; what does not hold together is a
`DriveDamaged` that names the offset.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import lz4.frame
import zstandard
from mcap.opcode import Opcode

from edge.drive.journal import RECORD_HEADER_BYTES
from edge.errors import DriveDamaged, DriveFormatError

# No sensor sends more in half a second; a record or chunk that claims more is damaged or hostile.
MAX_RECORD_BYTES: Final = 256 << 20
# Nor more messages. A kilobyte of zstd can hold millions of empty records, each of which costs an object.
MAX_CHUNK_RECORDS: Final = 1 << 20
RECORD_HEAD: Final = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
_MAX_COMPRESSION_NAME_BYTES: Final = 64
_WINDOW_BYTES: Final = 16 << 10


class McapBytes:
    """Positioned reads of one file.

    Raises:
        DriveFormatError: the path is a folder, a pipe or a device.
        OSError: the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block us
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise DriveFormatError(f"{path}: expected an MCAP file, got {kind}")
        self.size = status.st_size
        self._window, self._window_at = b"", 0
        self._zstd = zstandard.ZstdDecompressor()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer at the end of the file."""
        length = min(length, self.size - offset)
        parts = []
        while length > 0 and (part := os.pread(self._file, length, offset)):
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def peek(self, offset: int, length: int) -> bytes:
        """The same for a few bytes, through a window that makes many small steps cheap."""
        start = offset - self._window_at
        if start < 0 or start + length > len(self._window):
            self._window, self._window_at = self.read(offset, max(length, _WINDOW_BYTES)), offset
            start = 0
        return self._window[start : start + length]

    def record_head(self, at: int) -> tuple[int, int]:
        """Opcode and length of the record at `at`, which must lie within the file."""
        head = self.peek(at, RECORD_HEADER_BYTES)
        if len(head) < RECORD_HEADER_BYTES:
            raise self.damaged(at, f"expected a record, got the end of the file ({len(head)} bytes)")
        opcode, length = RECORD_HEAD.unpack(head)
        left = self.size - at - RECORD_HEADER_BYTES
        if opcode == 0 or length > left:
            raise self.damaged(at, f"expected a record within {left} bytes, got opcode {opcode}, {length} bytes")
        return opcode, length

    def read_record(self, at: int, opcode: int, record_bytes: int | None = None) -> bytes:
        """The body of the record at `at`, which must be of this opcode, whole, and as long as an index said."""
        got, length = self.record_head(at)
        if got != opcode:
            raise self.damaged(at, f"expected a record of opcode {opcode}, got opcode {got}")
        if record_bytes not in (None, RECORD_HEADER_BYTES + length):
            raise self.damaged(at, f"expected a record of {record_bytes} bytes, got {RECORD_HEADER_BYTES + length}")
        self.check_size(at, length)
        return self.read(at + RECORD_HEADER_BYTES, length)

    def chunk_span_ns(self, at: int, length: int) -> tuple[int, int]:
        """First and last arrival instant of the chunk record at `at`, by its own words."""
        self.check_size(at, length)
        head = self.peek(at + RECORD_HEADER_BYTES, min(length, _CHUNK_HEAD.size))
        start_ns, end_ns, uncompressed_bytes, _, _ = self._chunk_head(at, head, length)
        self.check_size(at, uncompressed_bytes)
        return start_ns, end_ns

    def read_chunk(self, at: int, record_bytes: int | None = None) -> bytes:
        """The records inside the chunk at `at`, decompressed and checked."""
        raw = memoryview(self.read_record(at, Opcode.CHUNK, record_bytes))
        _, _, uncompressed_bytes, crc, name_bytes = self._chunk_head(at, raw[: _CHUNK_HEAD.size], len(raw))
        self.check_size(at, uncompressed_bytes)
        data_at = _CHUNK_HEAD.size + name_bytes + 8
        compression = bytes(raw[_CHUNK_HEAD.size : _CHUNK_HEAD.size + name_bytes])
        (data_bytes,) = struct.unpack_from("<Q", raw, data_at - 8)
        if data_at + data_bytes > len(raw):
            raise self.damaged(at, f"expected {data_bytes} bytes of chunk data, got {len(raw) - data_at}")
        records = self._decompress(at, compression, raw[data_at : data_at + data_bytes], uncompressed_bytes)
        if crc and zlib.crc32(records) != crc:
            raise self.damaged(at, f"expected chunk CRC {crc:#010x}, got {zlib.crc32(records):#010x}")
        return records

    def check_size(self, at: int, length: int) -> None:
        """Refuse what claims to be larger than any honest record."""
        if length > MAX_RECORD_BYTES:
            raise self.damaged(at, f"expected at most {MAX_RECORD_BYTES >> 20} MiB, got a record of {length} bytes")

    def damaged(self, at: int, what: str) -> DriveDamaged:
        """The error that says what was expected at byte `at`."""
        return DriveDamaged(f"{self.path}: damaged at byte {at}: {what}", at)

    def _chunk_head(self, at: int, head: bytes | memoryview, length: int) -> tuple[int, int, int, int, int]:
        """start, end, uncompressed size, CRC, length of the compression's name."""
        if len(head) < _CHUNK_HEAD.size:
            raise self.damaged(at, f"expected a chunk, got a record of {length} bytes")
        fields = _CHUNK_HEAD.unpack(head)
        if fields[4] > _MAX_COMPRESSION_NAME_BYTES or _CHUNK_HEAD.size + fields[4] + 8 > length:
            raise self.damaged(at, f"expected a compression's name, got one of {fields[4]} bytes")
        return fields

    def _decompress(self, at: int, compression: bytes, data: memoryview, expected_bytes: int) -> bytes:
        records: bytes
        try:
            if compression == b"zstd":
                if (stated := zstandard.frame_content_size(data)) not in (expected_bytes, -1):
                    raise self.damaged(at, f"expected a zstd frame of {expected_bytes} bytes, got one of {stated}")
                records = self._zstd.decompress(data, max_output_size=expected_bytes)
            elif compression == b"lz4":
                records = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=expected_bytes + 1)
            elif compression == b"":
                records = bytes(data)
            else:
                raise self.damaged(at, f"expected compression zstd, lz4 or none, got {compression!r}")
        except (zstandard.ZstdError, RuntimeError, EOFError) as error:
            raise self.damaged(at, f"expected {compression.decode()} data, got {error}") from None
        if len(records) != expected_bytes:
            raise self.damaged(at, f"expected {expected_bytes} bytes in the chunk, got {len(records)}")
        return records


def split_records(section: bytes) -> Iterator[tuple[int, int, int]]:
    """(opcode, offset of the body, its length) of each record in `section`.

    Raises:
        struct.error: the last record is cut short, or there are more than `MAX_CHUNK_RECORDS`.
    """
    unpack: Any = RECORD_HEAD.unpack_from
    at, end = 0, len(section)
    for _ in range(MAX_CHUNK_RECORDS):
        if at >= end:
            return
        opcode, length = unpack(section, at)
        at += RECORD_HEADER_BYTES
        if at + length > end:
            raise struct.error(f"a record of {length} bytes where {end - at} are left")
        yield opcode, at, length
        at += length
    if at < end:
        raise struct.error(f"more than {MAX_CHUNK_RECORDS} records")
