"""The bytes of an MCAP file, read with a bound on everything a record claims.

A length, a count or a size is checked before a byte is allocated for it; what does not hold together is a
`DriveDamaged` that names the offset.
"""

from __future__ import annotations

import os
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
RECORD_HEAD: Final = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
_MAX_COMPRESSION_NAME_BYTES: Final = 64


class McapBytes:
    """Positioned reads of one file.

    Raises:
        DriveFormatError: the path is a folder.
        OSError: the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise DriveFormatError(f"{path}: expected an MCAP file, got a folder")
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size
        self._zstd = zstandard.ZstdDecompressor()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer at the end of the file."""
        self.check_size(offset, length)
        parts = []
        while length > 0 and (part := os.pread(self._file, length, offset)):
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_record(self, at: int, opcode: int) -> bytes:
        """The body of the record at `at`, which must be of this opcode and whole."""
        head = self.read(at, RECORD_HEADER_BYTES)
        if len(head) < RECORD_HEADER_BYTES or head[0] != opcode:
            raise self.damaged(at, f"expected a record of opcode {opcode}, got {head[:1].hex() or 'the end'}")
        (length,) = struct.unpack_from("<Q", head, 1)
        body = self.read(at + RECORD_HEADER_BYTES, length)
        if len(body) < length:
            raise self.damaged(at, f"expected {length} bytes of a record (opcode {opcode}), got {len(body)}")
        return body

    def chunk_span_ns(self, at: int, body: int, length: int) -> tuple[int, int]:
        """First and last arrival instant of the chunk record at `at`, by its own words."""
        self.check_size(at, length)
        start_ns, end_ns, uncompressed_bytes, _, _ = self._chunk_head(at, self.read(body, _CHUNK_HEAD.size), length)
        self.check_size(at, uncompressed_bytes)
        return start_ns, end_ns

    def read_chunk(self, at: int) -> bytes:
        """The records inside the chunk at `at`, decompressed and checked."""
        raw = self.read_record(at, Opcode.CHUNK)
        _, _, uncompressed_bytes, crc, name_bytes = self._chunk_head(at, raw[: _CHUNK_HEAD.size], len(raw))
        self.check_size(at, uncompressed_bytes)
        data_at = _CHUNK_HEAD.size + name_bytes + 8
        compression = raw[_CHUNK_HEAD.size : _CHUNK_HEAD.size + name_bytes]
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

    def _chunk_head(self, at: int, head: bytes, length: int) -> tuple[int, int, int, int, int]:
        """start, end, uncompressed size, CRC, length of the compression's name."""
        if len(head) < _CHUNK_HEAD.size:
            raise self.damaged(at, f"expected a chunk, got a record of {length} bytes")
        fields = _CHUNK_HEAD.unpack(head)
        if fields[4] > _MAX_COMPRESSION_NAME_BYTES or _CHUNK_HEAD.size + fields[4] + 8 > length:
            raise self.damaged(at, f"expected a compression's name, got one of {fields[4]} bytes")
        return fields

    def _decompress(self, at: int, compression: bytes, data: bytes, expected_bytes: int) -> bytes:
        records: bytes
        try:
            if compression == b"zstd":
                if zstandard.frame_content_size(data) not in (expected_bytes, -1):
                    raise self.damaged(at, f"expected a zstd frame of {expected_bytes} bytes")
                records = self._zstd.decompress(data, max_output_size=expected_bytes)
            elif compression == b"lz4":
                records = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=expected_bytes + 1)
            elif compression == b"":
                records = data
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
        struct.error: the last record is cut short.
    """
    unpack: Any = RECORD_HEAD.unpack_from
    at, end = 0, len(section)
    while at < end:
        opcode, length = unpack(section, at)
        at += RECORD_HEADER_BYTES
        if at + length > end:
            raise struct.error(f"a record of {length} bytes where {end - at} are left")
        yield opcode, at, length
        at += length
