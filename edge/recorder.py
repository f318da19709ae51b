"""The recorder: what passed, and what was decided, to a drive; hard scenes, as clips, to the spool.

It has a thread of its own and a bounded queue, so that the loop never waits for a disk. A full queue drops the oldest
batch and counts it (live), or makes the producer wait (replay, where nothing may be lost).

A clip is written beside its final name, made durable, and only then renamed: a scene is in the spool whole or not at
all.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import deque
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from edge.annotations import image_annotations
from edge.decision import Decision
from edge.drive import topics
from edge.drive.reader import DriveMessage
from edge.drive.writer import DriveWriter
from edge.feed import Fed
from edge.scenes import Scene, SceneConfig

_QUEUE: Final = 256
# Sound and pictures of twenty seconds with a lot to spare; beyond, the oldest go, and are counted.
RING_BYTES: Final = 512 << 20
CLIP_METADATA: Final = "roadfuse.scene"
# What the run amounted to: `statistics` is the object of `roadfuse replay --json`.
RUN_METADATA: Final = "roadfuse.run"


class _Batch(NamedTuple):
    messages: list[DriveMessage]
    decisions: list[Decision]
    scenes: list[Scene]


class Recorder:
    """Writes a run in the background.

    Args:
        drive: the drive to write; None writes none.
        spool: folder for the clips of hard scenes; None writes none.
        scenes: pre- and post-roll.
        metadata: of the drive.
        lossless: wait rather than drop when the queue is full.

    Attributes:
        dropped_batches: batches lost because the disk was too slow.
        clips: written to the spool.
    """

    def __init__(
        self,
        drive: Path | None,
        spool: Path | None,
        scenes: SceneConfig | None = None,
        metadata: dict[str, str] | None = None,
        *,
        lossless: bool,
    ) -> None:
        self._scenes = scenes or SceneConfig()
        self._lossless = lossless
        self._spool = spool
        self._metadata = metadata or {}
        self.dropped_batches = 0
        self.clips: list[Path] = []
        if spool is not None:
            spool.mkdir(parents=True, exist_ok=True)
            for leftover in spool.glob("*.part"):  # of a run that was killed while it wrote
                leftover.unlink()
        self._writer = DriveWriter(drive, self._metadata) if drive is not None else None
        self._ring: deque[DriveMessage] = deque()
        self._ring_bytes = 0
        self._error: OSError | None = None
        self._statistics: dict[str, Any] | None = None
        self._boxes_shown = False
        self._queue: queue.Queue[_Batch | None] = queue.Queue(_QUEUE)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def offer(self, batch: list[Fed], decisions: list[Decision], scenes: list[Scene]) -> None:
        """Take what passed since the last offer. Never blocks when live.

        Raises:
            OSError: the disk refused an earlier batch.
        """
        if self._error is not None:
            raise self._error
        item = _Batch([fed.message for fed in batch], decisions, list(scenes))
        if self._lossless:
            self._queue.put(item)
            return
        while True:
            try:
                self._queue.put_nowait(item)
                return
            except queue.Full:
                try:
                    self._queue.get_nowait()
                    self.dropped_batches += 1
                except queue.Empty:
                    continue

    def close(self, *, complete: bool = True, statistics: dict[str, Any] | None = None) -> None:
        """Write what is left and finish the drive.

        Args:
            complete: False leaves the drive unfinished (but readable), as after a kill.
            statistics: of the run, to be kept in the drive.

        Raises:
            OSError: the disk refused.
        """
        self._statistics = statistics
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and complete:
            raise self._error

    def _run(self) -> None:
        try:
            while (batch := self._get()) is not None:
                self._record(batch)
            if self._writer is not None:
                if self._statistics is not None:
                    self._writer.add_metadata(RUN_METADATA, {"statistics": json.dumps(self._statistics)})
                self._writer.close()
        except OSError as error:  # at the thread's top: the loop hears of it at its next offer
            self._error = error
            while self._queue.get() is not None:
                pass

    def _get(self) -> _Batch | None:
        """The next batch; while none comes, what was written is made to survive a kill."""
        while True:
            try:
                return self._queue.get(timeout=0.5)
            except queue.Empty:
                if self._writer is not None:
                    self._writer.flush()

    def _record(self, batch: _Batch) -> None:
        messages = batch.messages.copy()
        for decision in batch.decisions:
            messages += _as_messages(decision, boxes=bool(decision.objects) or self._boxes_shown)
            self._boxes_shown = bool(decision.objects)
        writer = self._writer
        if writer is not None:
            for message in messages:
                _write(writer, message)
        if self._spool is not None:
            for message in messages:
                self._ring.append(message)
                self._ring_bytes += len(message.payload)
            for scene in batch.scenes:
                if not scene.refusal:
                    self._write_clip(scene)
            self._trim()

    def _trim(self) -> None:
        """Forget what no scene can reach back to."""
        config, ring = self._scenes, self._ring
        if not ring:
            return
        reach_ns = config.pre_roll_ns + config.max_ns + config.post_roll_ns
        oldest_ns = ring[-1].arrival_ns - reach_ns
        while ring and (ring[0].arrival_ns < oldest_ns or self._ring_bytes > RING_BYTES):
            self._ring_bytes -= len(ring.popleft().payload)

    def _write_clip(self, scene: Scene) -> None:
        assert self._spool is not None
        path = self._spool / f"scene-{self._next_number():06d}.mcap"
        part = path.with_suffix(".part")
        facts = {
            "scene": str(scene.number),
            "first_ns": str(scene.first_ns),
            "last_ns": str(scene.last_ns),
            "peak_ns": str(scene.peak_ns),
            "peak_hardness": f"{scene.peak_hardness:.6f}",
        }
        start_ns = scene.first_ns - self._scenes.pre_roll_ns
        with DriveWriter(part, self._metadata, durable=True) as clip:
            clip.add_metadata(CLIP_METADATA, facts)
            for message in self._ring:
                if message.capture_ns >= start_ns:
                    _write(clip, message)
        part.replace(path)
        _sync_folder(self._spool)
        self.clips.append(path)

    def _next_number(self) -> int:
        """Sequence numbers of the spool never repeat while a clip of it is there."""
        assert self._spool is not None
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._spool.glob("scene-*.mcap")]
        return max(numbers, default=0) + 1


def _as_messages(decision: Decision, *, boxes: bool) -> list[DriveMessage]:
    """The decision, and its boxes for a viewer (none, where it has to forget the last ones)."""
    parts: list[tuple[str, Message]] = [(topics.DECISION, decision.to_message())]
    if boxes:
        parts.append((topics.DECISION_ANNOTATIONS, image_annotations(decision)))
    sequence = decision.index & 0xFFFFFFFF
    return [
        DriveMessage(
            decision.emitted_ns,
            sequence,
            channel,
            decision.stamp_ns,
            topic,
            message.SerializeToString(deterministic=True),
        )
        for channel, (topic, message) in enumerate(parts)
    ]


def _write(writer: DriveWriter, message: DriveMessage) -> None:
    if message.topic in topics.SCHEMAS:
        writer.write_payload(
            message.topic,
            message.payload,
            capture_ns=message.capture_ns,
            arrival_ns=message.arrival_ns,
            sequence=message.sequence,
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
