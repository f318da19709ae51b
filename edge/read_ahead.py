"""Reads a drive ahead in a process of its own: decoding costs the loop neither its core nor the interpreter's lock.

Batches of events come through shared memory. Pictures and point clouds are used where they lie; their room is taken
again when nobody holds them any more.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import subprocess
import sys
import weakref
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from edge.drive.reader import DriveMessage, DriveReader
from edge.errors import DriveDamaged, DriveError
from edge.feed import Fed, events
from edge.realtime import ordinary
from edge.streams import Stream

_BATCH: Final = 48  # events
_BATCH_BYTES: Final = 8 << 20
_AHEAD: Final = 6  # batches
_SHARED_BYTES: Final = 32 << 10  # an array below it is copied: it may be held for long
_ALIGNMENT: Final = 64
# Slab, its offset and size in the shared file, bytes of its index; of size 0 where there was no room for a slab, and
# the pickled batch of so many bytes follows.
_TOKEN: Final = struct.Struct("<QQQQ")
_RETURN: Final = struct.Struct("<Q")  # a slab that is free again
# Of the process that reads: a picture's memory is kept for the next one (to have it back cleared takes a fifth of the
# time), and no thread of OpenBLAS spins for matrices that never come.
_SETTINGS: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}
_CHILD: Final = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that iterates decides
sys.path[:] = sys.argv.pop().split("\\n")
from edge.read_ahead import serve
serve(sys.stdin.buffer)
"""


class ReadAhead:
    """The events of a drive, read and decoded a bounded number of batches ahead.

    The process starts at once, beside whatever its owner has to load, and reads from `events` on. To be closed, or used
    in a `with` block.

    Args:
        drive: open; says which file, and what becomes of damage.
        niceness: of the process; where its owner's threads take all processors, it is the one that should wait.
        cores: that its owner's process had before `realtime`, which is not for this one.
    """

    def __init__(self, drive: DriveReader, niceness: int = 0, cores: Collection[int] = ()) -> None:
        self._drive = drive
        self._shared = os.memfd_create("roadfuse-read-ahead")
        self._slabs: dict[int, mmap.mmap] = {}
        self._free: list[int] = []
        tokens, give_token = os.pipe()
        take_return, self._returns = os.pipe()
        self._tokens = os.fdopen(tokens, "rb")
        self._childs = (self._shared, give_token, take_return)
        path = "\n".join(os.fspath(Path(folder).absolute()) for folder in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _CHILD, path],
                pass_fds=self._childs,
                stdin=subprocess.PIPE,
                env={**os.environ, **_SETTINGS},
            )
        finally:
            os.close(give_token)
            os.close(take_return)
        if cores:
            ordinary(cores, self._process.pid)
        os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + niceness)

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, wherever it is."""
        if self._tokens.closed:
            return
        self._process.kill()
        self._process.communicate()
        self._tokens.close()
        os.close(self._returns)
        os.close(self._shared)

    def events(self, streams: tuple[Stream, ...], *, messages: bool = True) -> Iterator[Fed]:
        """The drive's events; to be asked for once. An error of the drive is raised after the last event before it.

        Args:
            streams: the loop's table.
            messages: whether those that the events were made of are wanted; without a recorder their topics will do.

        Raises:
            DriveError: the drive can't be read, or the process that reads it was killed.
        """
        skip_damage = self._drive.on_damage is not None
        task = pickle.dumps((self._drive.path.absolute(), streams, messages, skip_damage, *self._childs))
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:  # it was killed: no token will come
            stdin.write(task)
        while True:
            token = self._tokens.read(_TOKEN.size)
            if len(token) < _TOKEN.size:
                status = self._process.wait()
                raise DriveError(f"{self._drive.path}: expected its reader to finish, got exit status {status}")
            slab, offset, size, length = _TOKEN.unpack(token)
            if size:
                batch, damages, end = self._load(slab, offset, size, length)
            else:
                batch, damages, end = pickle.loads(self._tokens.read(length))
            yield from batch
            for damage in damages:
                assert self._drive.on_damage is not None  # else it would be the end
                self._drive.on_damage(damage)
            if isinstance(end, BaseException):
                raise end
            if end:
                return
            del batch
            self._give_back()

    def _load(self, slab: int, offset: int, size: int, index_bytes: int) -> Any:
        if slab not in self._slabs:
            self._slabs[slab] = mmap.mmap(self._shared, size, offset=offset)
        room: Any = np.frombuffer(self._slabs[slab], np.uint8)
        weakref.finalize(room, self._free.append, slab).atexit = False
        view = memoryview(room)
        lengths = np.frombuffer(view[:index_bytes], np.int64).tolist()
        parts, at = [], index_bytes
        for length in lengths:
            parts.append(view[at : at + length])
            at += length + -length % _ALIGNMENT
        return pickle.loads(parts[0], buffers=parts[1:])

    def _give_back(self) -> None:
        """Tell the reader that it may go on a batch further, and in which room."""
        freed, self._free[:] = self._free[:], []
        with suppress(BrokenPipeError):  # it sent all there is, and ended
            os.write(self._returns, b"".join(map(_RETURN.pack, [len(freed), *freed])))


def serve(task: IO[bytes]) -> None:
    """The process that reads: sends batches until the drive is over or nobody wants them any more."""
    try:
        path, streams, messages, skip_damage, shared, tokens, returns = pickle.load(task)
    except EOFError:  # nobody wanted any
        return
    room = _Room(shared, os.fdopen(tokens, "wb"), os.fdopen(returns, "rb"))
    damages: list[DriveDamaged] = []
    batch: list[Fed] = []
    end: BaseException | bool = True
    try:
        with DriveReader(path, damages.append if skip_damage else None) as drive:
            size = 0
            for fed in events(drive, streams):
                size += len(fed.message.payload) + _decoded_bytes(fed)
                batch.append(fed if messages else Fed(fed.event, _unwanted(fed.message.topic)))
                if len(batch) == _BATCH or size > _BATCH_BYTES:
                    room.send((batch, damages, False))
                    batch, size = [], 0
                    damages.clear()
    except (BrokenPipeError, EOFError):
        return
    except BaseException as error:  # at a process's top: the consumer raises it
        end = error
    room.send((batch, damages, end))


@cache
def _unwanted(topic: str) -> DriveMessage:
    """What stands for a message of a topic: one object, so that a batch holds it once."""
    return DriveMessage(0, 0, 0, 0, topic, b"")


def _decoded_bytes(fed: Fed) -> int:
    image = getattr(fed.event.sample, "image", None)
    return 0 if image is None else int(image.nbytes)


class _Room:
    """The sender's side of the shared file: a slab a batch, taken again once the receiver let go of all in it."""

    def __init__(self, shared: int, tokens: Any, returns: Any) -> None:
        self._shared = shared
        self._tokens = tokens
        self._returns = returns
        self._slabs: list[tuple[int, mmap.mmap]] = []  # offset, memory
        self._free: list[int] = []
        self._end = 0
        self._ahead = 0

    def send(self, batch: Any) -> None:
        """Hand over a batch; waits while the receiver is far behind.

        Raises:
            BrokenPipeError, EOFError: nobody receives any more.
        """
        if self._ahead == _AHEAD:
            self._await_return()
        self._ahead += 1
        shared: list[memoryview] = []

        def inside(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < _SHARED_BYTES:
                return True
            shared.append(raw)
            return False

        parts = [memoryview(pickle.dumps(batch, 5, buffer_callback=inside)), *shared]
        index = np.array([part.nbytes for part in parts], np.int64).tobytes()
        try:
            slab = self._slab(len(index) + sum(part.nbytes + -part.nbytes % _ALIGNMENT for part in parts))
        except OSError:  # a limit on files or memory: slower, then
            whole = pickle.dumps(batch, 5)
            self._tokens.write(_TOKEN.pack(0, 0, 0, len(whole)) + whole)
            self._tokens.flush()
            return
        offset, memory = self._slabs[slab]
        memory[: len(index)] = index
        at = len(index)
        for part in parts:
            memory[at : at + part.nbytes] = part
            at += part.nbytes + -part.nbytes % _ALIGNMENT
        self._tokens.write(_TOKEN.pack(slab, offset, len(memory), len(index)))
        self._tokens.flush()

    def _slab(self, size: int) -> int:
        """A free slab with that much room: one that is there, or a new one."""
        for slab in self._free:
            if len(self._slabs[slab][1]) >= size:
                self._free.remove(slab)
                return slab
        size = max(1 << (size - 1).bit_length(), mmap.ALLOCATIONGRANULARITY)  # few sizes, so that each is found again
        os.ftruncate(self._shared, self._end + size)
        self._slabs.append((self._end, mmap.mmap(self._shared, size, offset=self._end)))
        self._end += size
        return len(self._slabs) - 1

    def _await_return(self) -> None:
        head = self._returns.read(_RETURN.size)
        if len(head) < _RETURN.size:
            raise EOFError
        (count,) = _RETURN.unpack(head)
        freed = self._returns.read(_RETURN.size * count)
        self._free += [slab for (slab,) in _RETURN.iter_unpack(freed)]
        self._ahead -= 1
