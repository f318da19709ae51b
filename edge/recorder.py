"""The recorder: what passed, and what was decided, to a drive; hard scenes, as clips, to the spool.

Drive and clips have a thread and a bounded queue each, so that the loop never waits for a disk, nor the drive for a
clip that is made durable. A full queue drops the oldest batch and counts it (live), or makes the producer wait (replay,
where nothing may be lost). A scene that ended is never dropped: it gets its number, and a clip of what is left.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from edge.annotations import image_annotations
from edge.clips import Clips
from edge.decision import Decision
from edge.drive import topics
from edge.drive.reader import DriveMessage
from edge.drive.writer import DRIVE_METADATA, DriveWriter
from edge.feed import Fed
from edge.scenes import Scene, SceneConfig
from edge.uplink.outbox import Quota
from roadfuse.v1.ingest_pb2 import ShadowOpinion

_QUEUE: Final = 256  # batches
_IDLE_S: Final = 0.5
# What the run amounted to: `statistics` is the object of `roadfuse replay --json`.
RUN_METADATA: Final = "roadfuse.run"


class _Batch(NamedTuple):
    messages: list[DriveMessage]
    decisions: list[Decision]
    scenes: list[Scene]


class _Queue:
    """Batches on their way to a thread.

    Attributes:
        dropped: batches of which only the scenes are left, because the thread was too slow.
    """

    def __init__(self, *, lossless: bool) -> None:
        self.dropped = 0
        self._lossless = lossless
        self._batches: deque[_Batch] = deque()
        self._ended = False
        self._changed = threading.Condition()

    def put(self, batch: _Batch) -> None:
        """Never blocks when live."""
        with self._changed:
            if self._lossless:
                self._changed.wait_for(lambda: len(self._batches) < _QUEUE)
            elif len(self._batches) == _QUEUE:
                # To the next one, not the newest: the ring still holds what passed of a scene; numbers stay in order.
                dropped, following = self._batches.popleft(), self._batches[0]
                self._batches[0] = following._replace(scenes=dropped.scenes + following.scenes)
                self.dropped += 1
            self._batches.append(batch)
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, idle: Callable[[], None]) -> Iterator[_Batch]:
        """Batches until the end; calls `idle` twice a second while none comes."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batches or self._ended, _IDLE_S)
                if not self._batches and self._ended:
                    return
                batch = self._batches.popleft() if self._batches else None
                self._changed.notify()
            if batch is None:
                idle()
            else:
                yield batch

    def drain(self) -> None:
        """Takes what still comes, so that who puts never waits for a thread that failed."""
        for _ in self.take(lambda: None):
            pass


class Recorder:
    """Writes a run in the background.

    Args:
        drive: the drive to write; None writes none.
        spool: folder for the clips of hard scenes and their outbox; None writes none.
        scenes: pre- and post-roll.
        metadata: of the drive.
        lossless: wait rather than drop when a queue is full.
        quota: what clips may take.
        wall_clock: ns since 1970; metadata of a scene, which nothing here depends on.
        opinion: what a staged bundle said of the frame at this instant, where one decides in the shadow.
    """

    def __init__(
        self,
        drive: Path | None,
        spool: Path | None,
        scenes: SceneConfig | None = None,
        metadata: dict[str, str] | None = None,
        *,
        lossless: bool,
        quota: Quota | None = None,
        wall_clock: Callable[[], int] = time.time_ns,
        opinion: Callable[[int], ShadowOpinion | None] | None = None,
    ) -> None:
        self._metadata = dict(metadata or {})  # the clips' too
        self._clips = (
            Clips(spool, scenes or SceneConfig(), self._metadata, quota, wall_clock, opinion) if spool else None
        )
        self._writer = DriveWriter(drive, self._metadata) if drive is not None else None
        self._error: Exception | None = None
        self._complete = True
        self._statistics: dict[str, Any] | None = None
        self._boxes_shown = False
        self._passed = _Queue(lossless=lossless)
        self._recorded = _Queue(lossless=lossless)
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("recorder", self._write_drive), ("clips", self._cut_clips))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dropped_batches(self) -> int:
        """Batches lost, to the drive or to the clips, because the disk was too slow."""
        return self._passed.dropped + self._recorded.dropped

    @property
    def clips(self) -> list[Path]:
        """Written to the spool."""
        return [] if self._clips is None else self._clips.written

    def describe(self, facts: Mapping[str, str]) -> None:
        """Add to the metadata what was not known at first; to be said before anything is offered.

        Raises:
            OSError: the disk refused.
        """
        self._metadata.update(facts)
        if self._writer is not None:
            self._writer.add_metadata(DRIVE_METADATA, facts)

    def offer(self, batch: list[Fed], decisions: list[Decision], scenes: list[Scene]) -> None:
        """Take what passed since the last offer. Never blocks when live.

        Raises:
            OSError: the disk refused an earlier batch.
        """
        if self._error is not None:
            raise self._error
        self._passed.put(_Batch([fed.message for fed in batch], decisions, list(scenes)))

    def close(self, *, complete: bool = True, statistics: dict[str, Any] | None = None) -> None:
        """Write what is left and finish the drive.

        Args:
            complete: False leaves the drive unfinished (but readable), as after a kill.
            statistics: of the run, to be kept in the drive.

        Raises:
            OSError: the disk refused.
        """
        self._complete, self._statistics = complete, statistics
        self._passed.end()
        for thread in self._threads:
            thread.join()
        if self._error is not None and complete:
            raise self._error

    def _write_drive(self) -> None:
        writer, clips = self._writer, self._clips
        try:
            for batch in self._passed.take(self._flush):
                messages = self._as_recorded(batch)
                if writer is not None:
                    for message in messages:
                        writer.copy(message)
                if clips is not None:
                    self._recorded.put(batch._replace(messages=messages))
            if writer is not None:
                if self._statistics is not None:
                    writer.add_metadata(RUN_METADATA, {"statistics": json.dumps(self._statistics)})
                if self._complete:
                    writer.close()
                else:
                    writer.leave()
        except Exception as error:  # at the thread's top: the loop hears of it at its next offer
            self._error = error
            self._passed.drain()
        finally:
            self._recorded.end()

    def _cut_clips(self) -> None:
        clips = self._clips
        if clips is None:
            return
        try:
            with closing(clips):
                for batch in self._recorded.take(clips.answer_asks):
                    clips.take(*batch)
                clips.answer_asks(at_once=True)
        except Exception as error:  # as above
            self._error = error
            self._recorded.drain()

    def _flush(self) -> None:
        """While nothing comes, what was written is made to survive a kill."""
        if self._writer is not None:
            self._writer.flush()

    def _as_recorded(self, batch: _Batch) -> list[DriveMessage]:
        messages = [message for message in batch.messages if message.topic in topics.SCHEMAS]
        for decision in batch.decisions:
            messages += _as_messages(decision, boxes=bool(decision.objects) or self._boxes_shown)
            self._boxes_shown = bool(decision.objects)
        return messages


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
