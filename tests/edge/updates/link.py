"""A cloud with one file, a link that takes its time, and a disk."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.updates import delta
from edge.updates.assignment import TargetFile
from edge.updates.fetch import Fetcher

from .repositories import SimulatedCloud
from .vehicle import FullDisk

CHUNK = 4096


class Clock:
    """Stands still but for what a link takes."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Link:
    """A cloud with one file, and a disk."""

    def __init__(self, root: Path, size: int = 50_000) -> None:
        self.cloud, self.disk, self.clock = SimulatedCloud(), FullDisk(root), Clock()
        self.content = random.Random(7).randbytes(size)
        self.file = self.holds(self.content, "camera.onnx")
        self.fetcher = Fetcher(self.disk, self.cloud, self.clock, delta.apply, rng=random.Random(1))

    def holds(self, content: bytes, name: str = "file") -> TargetFile:
        digest = hashlib.sha256(content).digest()
        self.cloud.files[digest] = content
        return TargetFile(name, len(content), digest)

    def chunks(self, offset: int, until: int | None = None) -> Iterator[bytes]:
        end = len(self.content) if until is None else until
        for start in range(offset, end, CHUNK):
            yield self.content[start : min(start + CHUNK, end)]

    def stream(self, give: Callable[[int], Iterator[bytes]]) -> None:
        self.cloud.stream = lambda _, offset: give(offset)

    def part(self, file: TargetFile | None = None) -> str:
        return f"parts/{(file or self.file).sha256.hex()}"

    def there(self) -> int:
        return self.disk.size(self.part()) or 0
