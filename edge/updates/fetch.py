"""Files come down as parts/HEX, which grow, are durable as far as they go, and count only once all of one is right.

A try reads no more than the signed length, and ends when the link brings less than a least rate over a window: who
drips bytes holds nothing up for long, and a link that is honest and slow still ends, since each try goes on where the
one before ended. What differences give is checked like any other bytes; what they don't give is fetched whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Final

from edge.errors import UpdateError
from edge.updates.assignment import Cloud, TargetFile
from edge.updates.disk import Disk
from edge.updates.slots import PARTS
from edge.uplink.pace import Backoff

_DIGEST_BYTES: Final = 32
# Applies a delta: base, delta, length of the result.
Applies = Callable[[bytes, bytes, int], bytes]


@dataclass(frozen=True, slots=True)
class Pace:
    """Below which a link is none.

    Attributes:
        least_bytes_per_s: over the window. The slowest mobile link that carries anything (GPRS) brings twice as much.
        window_s: long enough for a tunnel's mouth; what came until a try was cut off is kept.
        sync_bytes: what a power cut may cost.
    """

    least_bytes_per_s: float = 1024.0
    window_s: float = 30.0
    sync_bytes: int = 1 << 20


class TryLater(OSError):
    """The file is not there yet; what came is kept.

    Attributes:
        again_in_s: when to try again: twice as long after each failure in a row.
    """

    def __init__(self, message: str, again_in_s: float) -> None:
        super().__init__(message)
        self.again_in_s = again_in_s


class WrongBytes(UpdateError):
    """What came is not what was signed; the release itself may be fine."""


class Fetcher:
    """Fetches one file after the other.

    Args:
        disk: of the updates folder.
        clock: seconds, never going back.
        deltas: applies differences; None: all is fetched whole.
        is_wanted: asked at each chunk; when it says no, the try ends.
    """

    def __init__(
        self,
        disk: Disk,
        cloud: Cloud,
        clock: Callable[[], float] = time.monotonic,
        deltas: Applies | None = None,
        pace: Pace | None = None,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        rng: Random | None = None,
    ) -> None:
        self._disk, self._cloud, self._clock, self._deltas = disk, cloud, clock, deltas
        self._pace = pace or Pace()
        self._is_wanted = is_wanted
        self._backoff = Backoff(rng)
        self._bad_deltas: set[bytes] = set()

    def fetch(self, file: TargetFile, have: Mapping[bytes, str] | None = None) -> str:
        """The name of the part that holds the whole file, durable and as it was signed.

        Args:
            have: SHA-256 -> name of files on board, which a difference may be built on.

        Raises:
            WrongBytes: what came is not what was signed.
            UpdateError: the cloud refuses.
            TryLater: the link or the disk failed, or the link is too slow.
        """
        with self._on_disk(file.name):
            self._disk.make_folder(PARTS)
        if not (have and self._by_delta(file, have)):
            self._whole(file)
        self._backoff.succeeded()
        return _part(file)

    def _by_delta(self, file: TargetFile, have: Mapping[bytes, str]) -> bool:
        """Whether the file is there by a difference; whatever is wrong with that one, the whole file still comes."""
        if self._deltas is None:
            return False
        with self._on_disk(file.name):
            missing = file.length - (self._disk.size(_part(file)) or 0)
        if missing <= 0:
            return False
        with self._on_link(file.name):
            try:
                answer = self._cloud.delta(sorted(have), file.sha256)
            except UpdateError:
                return False
        base, digest = answer.base_sha256, answer.delta_sha256
        is_cheaper = 0 < answer.delta_bytes < missing
        if base not in have or len(digest) != _DIGEST_BYTES or digest in self._bad_deltas or not is_cheaper:
            return False
        delta = TargetFile(f"difference to {file.name}", answer.delta_bytes, digest)
        try:
            self._whole(delta)
            with self._on_disk(file.name):
                content = self._deltas(self._disk.read(have[base]), self._disk.read(_part(delta)), file.length)
                if len(content) != file.length or sha256(content).digest() != file.sha256:
                    raise WrongBytes(f"{delta.name}: expected one that makes the file, got another")
                self._disk.write(_part(file), content)
                self._disk.sync(_part(file))
                self._disk.sync_folder(PARTS)
        except UpdateError:
            self._bad_deltas.add(digest)
            return False
        finally:
            with self._on_disk(file.name):
                if self._disk.digest(_part(delta)) == digest or digest in self._bad_deltas:
                    self._disk.remove(_part(delta))
        return True

    def _whole(self, file: TargetFile) -> None:
        """Go on where the last try ended; bytes that turn out wrong then are fetched anew once."""
        part = _part(file)
        with self._on_disk(file.name):
            offset = self._disk.size(part) or 0
            if offset > file.length:
                self._disk.remove(part)
                offset = 0
        self._append(file, offset)
        if self._is_right(file):
            return
        if offset > 0:
            self._append(file, 0)
            if self._is_right(file):
                return
        raise WrongBytes(f"{file.name}: expected the SHA-256 {file.sha256.hex()}, got another")

    def _append(self, file: TargetFile, offset: int) -> None:
        part, unsynced = _part(file), 0
        with self._on_disk(file.name):
            if offset == 0:
                self._disk.write(part, b"")
                self._disk.sync_folder(PARTS)
        rate = _Rate(self._clock, self._pace)
        try:
            with closing(self._chunks(file, offset)) as chunks:
                for content in chunks:
                    if offset + len(content) > file.length:
                        raise WrongBytes(f"{file.name}: expected {file.length} bytes, got more")
                    with self._on_disk(file.name):
                        self._disk.append(part, offset, content)
                        offset += len(content)
                        unsynced += len(content)
                        if unsynced >= self._pace.sync_bytes:
                            self._disk.sync(part)
                            unsynced = 0
                    if offset == file.length:
                        break
                    if not content or rate.is_too_slow(len(content)):
                        least = f"{self._pace.least_bytes_per_s:.0f} bytes/s over {self._pace.window_s:.0f} s"
                        raise self._later(f"{file.name}: expected at least {least}, got fewer; {offset} are kept")
                    if not self._is_wanted():
                        raise self._later(f"{file.name}: no longer wanted just now; {offset} bytes are kept")
        finally:
            with self._on_disk(file.name):
                self._disk.sync(part)
        if offset < file.length:
            raise self._later(f"{file.name}: expected {file.length} bytes, got {offset}, which are kept")

    def _chunks(self, file: TargetFile, offset: int) -> Generator[bytes, None, None]:
        """The cloud's; its call ends with this."""
        if offset == file.length:
            return
        chunks = self._cloud.fetch(file.sha256, offset)
        try:
            while True:
                with self._on_link(file.name):
                    content = next(chunks, None)
                if content is None:
                    return
                yield content
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def _is_right(self, file: TargetFile) -> bool:
        """Whether the part is the file; else it is removed."""
        with self._on_disk(file.name):
            if self._disk.digest(_part(file)) == file.sha256:
                return True
            self._disk.remove(_part(file))
            return False

    def _later(self, message: str) -> TryLater:
        return TryLater(message, self._backoff.wait_s())

    @contextmanager
    def _on_disk(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._later(f"{name}: can't be put on board: {_said(error)}") from None

    @contextmanager
    def _on_link(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._later(f"{name}: did not come: {_said(error)}") from None


class _Rate:
    """Of what came within a window that slides."""

    def __init__(self, clock: Callable[[], float], pace: Pace) -> None:
        self._clock, self._pace = clock, pace
        self._began_s = clock()
        self._came: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def is_too_slow(self, size_bytes: int) -> bool:
        """Count what came just now; a try that has not lasted for a window is not judged."""
        now_s, window_s = self._clock(), self._pace.window_s
        self._came.append((now_s, size_bytes))
        self._bytes += size_bytes
        while self._came[0][0] < now_s - window_s:
            self._bytes -= self._came.popleft()[1]
        return now_s - self._began_s >= window_s and self._bytes < self._pace.least_bytes_per_s * window_s


def _part(file: TargetFile) -> str:
    return f"{PARTS}/{file.sha256.hex()}"


def _said(error: OSError) -> str:
    return " ".join(str(error.strerror or error).split())[:160]
