"""A staged bundle in the shadow: fed from the loop without ever holding it up, in a process that may die.

The queue is bounded; when it is full the oldest batch goes, and the frames around the gap make no pairs. A process that
is killed from outside is started again and nothing is held against the bundle; one that dies of itself, or gives no
answer, is a failure of the bundle. What cannot be opened at all is said, and not tried again.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge.decision import Tag
from edge.drive.reader import DriveMessage
from edge.loop import LoopConfig
from edge.updates.evidence import Evidence
from edge.updates.opinion import Opinion
from edge.updates.shadow_process import Batch, Task, Told, counted, give, take
from roadfuse.v1 import decision_pb2, ingest_pb2

QUEUE: Final = 64  # batches of about a frame
MEMORY_BYTES: Final = 4 << 30  # mapped, of which engines use a part; the reference bundle maps 0.6 GB
_MOST_OPENINGS: Final = 3
_OPEN_S: Final = 120.0
_ANSWER_S: Final = 30.0
_RESTART_S: Final = 1.0
_REMEMBERED: Final = 2400  # frames of hard scenes
_LIKELY: Final = 0.5  # as in the summary of a scene
_FROM_OUTSIDE: Final = (-signal.SIGKILL, -signal.SIGTERM)
_CHILD: Final = """
import os, sys
sys.path[:] = sys.argv.pop().split("\\n")
answers = os.dup(1)
os.dup2(2, 1)
from edge.updates.shadow_process import serve
serve(sys.stdin.buffer, answers)
"""
_log = logging.getLogger(__name__)


class Shadow:
    """One staged bundle that decides in the shadow. To be closed.

    Args:
        folder: of the bundle; None is the reference bundle.
        evidence: its account so far.
        memory_bytes: that it may map; what runs on a GPU maps far more than it uses, and is not bounded.
        open_s: how long opening may take.

    Attributes:
        bundle: as slots name it.
        evidence: as told last.
        trouble: why it can't decide; "" while it can, or may.
        is_ready: whether it decides.
        dropped: batches that the queue had no room for.
        processes: that were started.
    """

    def __init__(
        self, folder: Path | None, config: LoopConfig, provider: str, evidence: Evidence,
        memory_bytes: int = MEMORY_BYTES, open_s: float = _OPEN_S,
    ) -> None:  # fmt: skip
        self._folder, self._config, self._provider, self._memory_bytes = folder, config, provider, memory_bytes
        self._open_s = open_s
        self.bundle, self.evidence = evidence.bundle, evidence
        self.trouble = ""
        self.is_ready = False
        self.dropped = self.processes = 0
        self._queue: deque[tuple[list[DriveMessage], list[Opinion]]] = deque()
        self._ready = threading.Condition()
        self._gap = True
        self._hung = False
        self._is_closed = False
        self._said: OrderedDict[int, tuple[tuple[Tag, ...], tuple[Tag, ...]]] = OrderedDict()
        self._process: subprocess.Popen[bytes] | None = None
        self._sent = self._seen = 0
        self._since_s = 0.0  # that it owes an answer
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process; 0 where none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    def offer(self, messages: list[DriveMessage], opinions: list[Opinion], *, is_after_gap: bool = False) -> None:
        """Take what passed and what the active bundle said. Never blocks."""
        if not self.is_ready or is_after_gap:
            self._gap = True
        if not self.is_ready:
            return
        with self._ready:
            if len(self._queue) >= QUEUE:
                self._queue.popleft()
                self._gap = True
                self.dropped += 1
            self._queue.append((messages, opinions))
            self._ready.notify()

    def opinion(self, stamp_ns: int) -> ingest_pb2.ShadowOpinion | None:
        """What it said of a frame; None where that is not known."""
        with self._ready:
            said = self._said.get(stamp_ns)
        if said is None:
            return None
        told = ingest_pb2.ShadowOpinion(bundle_id=self.bundle)
        for tags, field in zip(said, (told.scene_tags, told.sound_events)):
            field.extend(
                decision_pb2.Tag(name=name, probability=value) for name, value in tags if value >= _LIKELY
            )  # fmt: skip
        return told

    def check(self) -> None:
        """Kill a process that owes an answer for too long; to be called now and then."""
        process, since_s = self._process, self._since_s
        if process is None or not since_s or process.poll() is not None:
            return
        if time.monotonic() - since_s > (_ANSWER_S if self.is_ready else self._open_s):
            self._hung = True
            process.kill()

    def close(self) -> None:
        """End the process, wherever it is."""
        with self._ready:
            self._is_closed = True
            self._ready.notify()
            process = self._process
        if process is not None:
            process.kill()
        self._thread.join()

    def _run(self) -> None:
        openings = 0
        while not self._is_over():
            was_ready, status = self._process_once()
            if self._is_over():
                return
            if was_ready and self._hung:
                self.evidence = counted(self.evidence, "silent")
            elif was_ready and status not in _FROM_OUTSIDE:
                self.evidence = counted(self.evidence, "engine_error")
            openings = 0 if was_ready else openings + 1
            if openings == _MOST_OPENINGS:
                self.trouble = f"expected to open in the shadow, got exit status {status}, {openings} times"
            _log.warning("shadow_ended status=%s ready=%s hung=%s", status, was_ready, self._hung)
            self._hung = False
            with self._ready:
                self._ready.wait_for(lambda: self._is_closed, _RESTART_S)

    def _is_over(self) -> bool:
        return self._is_closed or bool(self.trouble)

    def _process_once(self) -> tuple[bool, int]:
        """A life of the process: whether it came to decide, and its exit status."""
        path = "\n".join(os.fspath(Path(folder).absolute()) for folder in sys.path)
        with self._ready:
            if self._is_closed:
                return False, 0
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-c", _CHILD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        self.processes += 1
        self._sent = self._seen = 0
        self._since_s = time.monotonic()
        reader = threading.Thread(target=self._hear, args=(process,), name="shadow-answers", daemon=True)
        reader.start()
        task = Task(self._folder, self._config, self._provider, self.evidence, self._memory_bytes)
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError, OSError):
            give(process.stdin, task)
            while (batch := self._next(process)) is not None:
                give(process.stdin, batch)
        reader.join()
        was_ready, self.is_ready = self._seen > 0 or self.is_ready, False
        process.kill()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        status = process.wait()
        self._process = None
        with self._ready:
            self._queue.clear()
            self._gap = True
        return was_ready, status

    def _next(self, process: subprocess.Popen[bytes]) -> Batch | None:
        """The next batch; None where there is nobody to take it."""
        with self._ready:
            while not self._queue:
                if self._is_closed or process.poll() is not None:
                    return None
                self._ready.wait(0.5)
            messages, opinions = self._queue.popleft()
            is_after_gap, self._gap = self._gap, False
            self._sent += 1
            if not self._since_s:
                self._since_s = time.monotonic()
        return Batch(is_after_gap, messages, opinions)

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        """What the process answers, until it ends."""
        assert process.stdout is not None
        while (told := take(process.stdout)) is not None:
            self._take(told)

    def _take(self, told: Told) -> None:
        if told.failed:
            self.trouble = told.failed
            return
        with self._ready:
            if told.evidence is not None:
                self.evidence = told.evidence
            self._seen = told.seen
            self._since_s = time.monotonic() if self._sent > self._seen else 0.0
            for stamp_ns, tags, sounds in told.said:
                self._said[stamp_ns] = tags, sounds
            while len(self._said) > _REMEMBERED:
                self._said.popitem(last=False)
        self.is_ready = True
