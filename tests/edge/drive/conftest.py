"""Small drives, and what every reader finds in a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import NonSeekingReader, make_reader

from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.samples import CanFrame, GnssFix, ImuSample

LONG = os.environ.get("ROADFUSE_LONG") == "1"


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether the long variants are wanted (ROADFUSE_LONG=1)."""
    return LONG


@pytest.fixture(scope="session")
def agreed_payloads() -> Callable[[Path], list[bytes]]:
    """Reads a file with both stock readers and ours, and gives the payloads on which all three agree."""

    def read(path: Path) -> list[bytes]:
        content = path.read_bytes()
        seeking = [message.data for _, _, message in make_reader(BytesIO(content), validate_crcs=True).iter_messages()]
        streaming = NonSeekingReader(BytesIO(content), validate_crcs=True)
        streamed = [message.data for _, _, message in streaming.iter_messages()]
        with DriveReader(path) as drive:
            ours = [message.payload for message in drive.messages()]
        assert seeking == streamed == ours
        return ours

    return read


@pytest.fixture(scope="session")
def write_small() -> Callable[..., None]:
    """Writes a drive of a few streams, 10 ms a message, with stamps that come twice."""

    def write(path: Path, messages: int = 200, **options: Any) -> None:
        with DriveWriter(path, {"source": "test"}, **options) as drive:
            for seq in range(messages):
                arrival_ns = (seq // 2) * 20_000_000
                stamp_ns = max(0, arrival_ns - 3_000_000)
                drive.write(
                    topics.IMU, ImuSample(stamp_ns, seq, (0.0, 0.1, 9.81), (0.0, 0.0, seq / 7)), arrival_ns=arrival_ns
                )
                if seq % 3 == 0:
                    drive.write(
                        topics.CAN, CanFrame(stamp_ns, seq, 0, 0x123, bytes([seq % 256] * 8)), arrival_ns=arrival_ns
                    )
                if seq % 10 == 0:
                    drive.write(topics.GNSS, GnssFix(stamp_ns, seq, 48.1, 11.5, 520.0), arrival_ns=arrival_ns)

    return write
