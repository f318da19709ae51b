"""The process in which a staged bundle decides what the active one decided: the same messages, the same instants.

It is niced, bounded in memory, first to go when memory is short, and may be killed at any time. It reads batches from
stdin and answers each on a pipe; what a bundle's libraries print goes nowhere near it.
"""

from __future__ import annotations

import copy
import os
import pickle
import resource
import signal
import struct
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.decision import Decision, Tag
from edge.drive import topics
from edge.drive.reader import DriveMessage
from edge.errors import RoadfuseError
from edge.feed import event_of, rows_of
from edge.loop import Loop, LoopConfig
from edge.realtime import without_spinning
from edge.streams import SECOND
from edge.updates.evidence import ALL, Evidence
from edge.updates.opinion import Opinion, is_over, opinion_of
from edge.updates.pairs import Pairs

HEAD: Final = struct.Struct("<I")  # length of the pickle that follows
# After a gap, and at the beginning: the windows of sensors and the recurrent state fill. It remembers longer that it
# began anew: the reference bundle differs from itself on a fifth of the frames then, a tenth after 8 s, none after 20.
WARM_NS: Final = 3 * SECOND
_NICE: Final = 10
_MOST_WAITING: Final = 64
_DEFAULT_PERIOD_NS: Final = SECOND // 20
# Nothing for a bundle that decides alone, and whose matches nobody acts on.
_OF_NO_INTEREST: Final = frozenset({topics.BUNDLE, topics.CAMPAIGNS, topics.CAN})


@dataclass(frozen=True, slots=True)
class Task:
    """What the process is for.

    Attributes:
        folder: of the bundle; None is the reference bundle.
        evidence: so far.
        memory_bytes: that it may have mapped.
    """

    folder: Path | None
    config: LoopConfig
    provider: str
    evidence: Evidence
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What passed since the last one.

    Attributes:
        is_after_gap: something before it is missing.
        opinions: of the active bundle.
    """

    is_after_gap: bool
    messages: list[DriveMessage]
    opinions: list[Opinion]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer to a task or a batch.

    Attributes:
        failed: why the bundle can't be opened; "" where it could.
        said: frames of hard scenes: stamp, scene tags and sound events.
        seen: batches so far.
    """

    failed: str
    evidence: Evidence | None
    said: list[tuple[int, tuple[Tag, ...], tuple[Tag, ...]]]
    seen: int


def serve(stdin: IO[bytes], answers: int) -> None:
    """The process."""
    with os.fdopen(answers, "wb") as out:
        task = take(stdin)
        if task is None:
            return
        _step_back(task.memory_bytes if task.provider == "cpu" else 0)
        without_spinning()
        try:
            bundle = bundles.load(task.folder)
            shadowing = Shadowing(bundle, task)
        except (RoadfuseError, MemoryError) as error:
            with suppress(BrokenPipeError):
                give(out, Told(str(error) or "expected to fit into its memory, got no more", None, [], 0))
            return
        with suppress(BrokenPipeError):
            give(out, Told("", task.evidence, [], 0))
            seen = 0
            while (batch := take(stdin)) is not None:
                said = shadowing.take(batch)
                seen += 1
                give(out, Told("", task.evidence, said, seen))


def take(stream: IO[bytes]) -> Any:
    """The next object; None where the stream is over."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    (length,) = HEAD.unpack(head)
    content = stream.read(length)
    return pickle.loads(content) if len(content) == length else None


def give(stream: IO[bytes], value: Any) -> None:
    """Send an object.

    Raises:
        BrokenPipeError: nobody takes it.
    """
    content = pickle.dumps(value, 5)
    stream.write(HEAD.pack(len(content)) + content)
    stream.flush()


class Shadowing:
    """A staged bundle's own loop, fed with what the active one saw."""

    def __init__(self, bundle: Bundle, task: Task) -> None:
        # Processor time is fair on a busy machine, but says nothing of engines that wait for a GPU.
        is_on_cpu = task.provider == "cpu"
        clock = time.process_time_ns if is_on_cpu else time.perf_counter_ns
        self._threads = bundle.threads if is_on_cpu else 1
        self.loop = Loop(bundle, replace(task.config, align=False, encode_ahead=False), task.provider, clock)
        self.evidence = task.evidence
        self._bundle = bundle
        self._rows = rows_of(task.config.streams)
        self._pairs = Pairs(task.evidence)
        self._active: deque[Opinion] = deque(maxlen=_MOST_WAITING)
        self._warm_from_ns = 0  # frames from here on count

    def take(self, batch: Batch) -> list[tuple[int, tuple[Tag, ...], tuple[Tag, ...]]]:
        """Decide what the active bundle decided; what is said of frames in hard scenes."""
        if not self._warm_from_ns or batch.is_after_gap:
            self._active.clear()
            self._pairs.pause()
            first_ns = batch.messages[0].arrival_ns if batch.messages else 0
            self._warm_from_ns = first_ns + WARM_NS if first_ns else 0
        self._active += batch.opinions
        if batch.opinions:
            first = batch.opinions[0]
            self.loop.keep_step(first.number, first.level, {one.stamp_ns: one.shed for one in batch.opinions})
        decisions: list[Decision] = []
        now_ns = 0
        for message in batch.messages:
            if message.topic in _OF_NO_INTEREST:
                continue
            event = event_of(message, self._rows)
            now_ns = event.now_ns
            decisions += self.loop.step(event, now_ns)
        if batch.opinions and batch.opinions[-1].emitted_ns > now_ns:  # time alone brought it
            decisions += self.loop.step(None, batch.opinions[-1].emitted_ns)
        return [said for decision in decisions if (said := self._pair(decision)) is not None]

    def _pair(self, decision: Decision) -> tuple[int, tuple[Tag, ...], tuple[Tag, ...]] | None:
        while self._active and self._active[0].stamp_ns < decision.stamp_ns:
            self._active.popleft()  # a frame that this one did not see
        if not self._active or self._active[0].stamp_ns != decision.stamp_ns:
            return None
        active = self._active.popleft()
        if not self._warm_from_ns or active.emitted_ns < self._warm_from_ns:
            return None
        period_ns = self.loop.sync.metronome.period_ns or _DEFAULT_PERIOD_NS
        timings = decision.timings_ns
        elapsed_ns = (timings["encode"] + timings["fuse"]) // self._threads
        staged = opinion_of(decision, self._bundle, is_late=is_over(elapsed_ns, period_ns))
        if not staged.is_whole:
            for name in active.slices:
                self.evidence.of(name).add("engine_error")
        if active.is_whole and active.level == staged.level:
            self._pairs.add(active, staged)
        return (decision.stamp_ns, decision.scene_tags, decision.sound_events) if active.scene else None


def counted(evidence: Evidence, metric: str) -> Evidence:
    """With one more of what belongs to no frame; others may be reading the one there is."""
    evidence = copy.deepcopy(evidence)
    evidence.of(ALL).add(metric)
    return evidence


def _step_back(memory_bytes: int) -> None:
    """Let everything else come first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it decides
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)  # whatever started it
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
