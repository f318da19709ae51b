"""Small sources that the tests make themselves, and the drives of the real ones, imported once a session."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest

from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.importers.command import Summary, import_recording
from edge.importers.recording import Options


class Arrived(NamedTuple):
    """A message and when it arrived."""

    arrival_ns: int
    capture_ns: int
    sequence: int
    topic: str
    payload: bytes

    @property
    def content(self) -> object:
        """The sample; the bytes on topics without one."""
        if self.topic in (topics.CALIBRATION, topics.TRANSFORM):
            return self.payload
        return codec.decode(self.topic, self.payload, self.sequence, pictures=False)


class Imported(NamedTuple):
    """An imported drive."""

    path: Path
    summary: Summary
    streams: dict[str, list[Arrived]]


def read_streams(path: Path) -> dict[str, list[Arrived]]:
    """All messages of a drive by topic, checked to be in the order of arrival."""
    streams: dict[str, list[Arrived]] = {}
    last_ns = 0
    with DriveReader(path) as drive:
        for message in drive.messages():
            assert message.arrival_ns >= last_ns
            last_ns = message.arrival_ns
            arrived = Arrived(message.arrival_ns, message.capture_ns, message.sequence, message.topic, message.payload)
            streams.setdefault(message.topic, []).append(arrived)
    return streams


@pytest.fixture(scope="session", autouse=True)
def _bytecode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Reader processes keep their bytecode, wherever the environment says otherwise: only the first one compiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(scope="session")
def importing(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Imported]:
    """Imports a source and reads the drive back."""

    def run(source: Path, *dbc: Path, **words: object) -> Imported:
        out = tmp_path_factory.mktemp("drive") / "drive.mcap"
        summary = import_recording(source, out, Options(dbc), **words)  # type: ignore[arg-type]
        assert [path.name for path in out.parent.iterdir()] == ["drive.mcap"]
        streams = read_streams(out)
        assert {topic: len(messages) for topic, messages in streams.items()} == summary.streams
        return Imported(out, summary, streams)

    return run


@pytest.fixture(scope="session")
def gopro_walk(recordings: Path, importing: Callable[..., Imported]) -> Imported:
    """The drive of the GoPro recording."""
    return importing(recordings / "drives/gopro-max-walk/max-heromode.mp4")


def klv(key: bytes, kind: str, size: int, payload: bytes) -> bytes:
    """One GPMF record, padded."""
    return key + kind.encode() + struct.pack(">BH", size, len(payload) // size) + payload + b"\0" * (-len(payload) % 4)


def nest(key: bytes, *records: bytes) -> bytes:
    """A GPMF record of records."""
    content = b"".join(records)
    return key + b"\0\x01" + struct.pack(">H", len(content)) + content


def sensor(key: bytes, rows: Iterable[Iterable[int]], scale: int, *facts: bytes, stamp_us: int | None = None) -> bytes:
    """A GPMF stream of int16 rows."""
    table = [list(row) for row in rows]
    width = len(table[0])
    payload = b"".join(struct.pack(f">{width}h", *row) for row in table)
    stamp = [] if stamp_us is None else [klv(b"STMP", "J", 8, struct.pack(">Q", stamp_us))]
    return nest(
        b"STRM", *stamp, *facts, klv(b"SCAL", "s", 2, struct.pack(">h", scale)), klv(key, "s", 2 * width, payload)
    )


def device(*streams: bytes, name: bytes = b"Test") -> bytes:
    """One GPMF payload."""
    return nest(b"DEVC", klv(b"DVNM", "c", 1, name), *streams)


def positions(rows: Iterable[tuple[float, float, float]], fix: int, stamp_us: int | None = None) -> bytes:
    """A GPS5 stream."""
    stamp = [] if stamp_us is None else [klv(b"STMP", "J", 8, struct.pack(">Q", stamp_us))]
    payload = b"".join(struct.pack(">5i", round(a * 1e7), round(b * 1e7), round(c * 1e3), 0, 0) for a, b, c in rows)
    scales = struct.pack(">5i", 10_000_000, 10_000_000, 1000, 1000, 100)
    facts = [klv(b"GPSF", "L", 4, struct.pack(">L", fix)), klv(b"SCAL", "l", 4, scales)]
    return nest(b"STRM", *stamp, *facts, klv(b"GPS5", "l", 20, payload))


def write_mp4(
    path: Path,
    *,
    pictures: int = 5,
    tones: tuple[tuple[int, int], ...] = ((8000, 8000),),
    payloads: tuple[bytes, ...] = (),
    container: str | None = None,
) -> None:
    """A 64x48 film at 10 Hz whose pictures get brighter, sound tracks of constant samples (left, right), telemetry."""
    with av.open(str(path), "w", format=container) as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = [file.add_stream("pcm_s16le" if container else "aac", rate=48_000, layout="stereo") for _ in tones]
        telemetry = file.add_data_stream("bin_data") if payloads else None
        for number in range(pictures):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number % 256, np.uint8), format="bgr24")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
        for stream, (left, right) in zip(sounds, tones):
            for number in range(pictures * 4800 // 1024):
                kind, scale = ("s16", 1) if container else ("fltp", 32768)
                both = np.stack([np.full(1024, left), np.full(1024, right)])
                both = both.T.reshape(1, -1).astype(np.int16) if container else (both / scale).astype(np.float32)
                block = av.AudioFrame.from_ndarray(both, format=kind, layout="stereo")
                block.rate, block.pts = 48_000, number * 1024
                file.mux(stream.encode(block))
            file.mux(stream.encode(None))
        for number, payload in enumerate(payloads):
            packet = av.Packet(payload)
            packet.stream, packet.time_base = telemetry, Fraction(1, 1000)
            packet.pts = packet.dts = number * 1000
            packet.duration = 1000
            file.mux(packet)


def huge_png() -> bytes:
    """A PNG whose header claims more pixels than OpenCV takes."""
    png = bytearray(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    png[16:24] = struct.pack(">II", 100_000, 100_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


class Make(NamedTuple):
    """The makers, as one fixture: test modules don't import each other."""

    klv: Callable[..., bytes] = klv
    nest: Callable[..., bytes] = nest
    sensor: Callable[..., bytes] = sensor
    device: Callable[..., bytes] = device
    positions: Callable[..., bytes] = positions
    mp4: Callable[..., None] = write_mp4
    huge_png: Callable[[], bytes] = huge_png


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()
