"""The recorder: what passed, and what was decided, to a drive; hard scenes, as clips, to the spool.

It has a thread of its own and a bounded queue, so that the loop never waits for a disk. A full queue drops the oldest
batch and counts it (live), or makes the producer wait (replay, where nothing may be lost).

Every scene gets a number in the spool's outbox before a byte of it is written. A clip is written beside its final name,
made durable, and only then renamed: it is in the spool whole or not at all, and the outbox says which.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from edge.annotations import image_annotations
from edge.asked import add_matches, cut, standing
from edge.decision import Decision
from edge.drive import codec, topics
from edge.drive.reader import DriveMessage
from edge.drive.writer import DriveWriter
from edge.durable import sync
from edge.errors import DriveFormatError
from edge.feed import Fed
from edge.samples import GnssFix
from edge.scenes import Scene, SceneConfig
from edge.uplink.asks import GONE, KEPT, Ask, Asks
from edge.uplink.outbox import Outbox, Quota, digest
from edge.uplink.summary import doubt, summary_of, worth
from roadfuse.v1.ingest_pb2 import ShadowOpinion

_QUEUE: Final = 256
_ASKS_S: Final = 0.5  # between looks for what the cloud asks for
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
        spool: folder for the clips of hard scenes and their outbox; None writes none.
        scenes: pre- and post-roll.
        metadata: of the drive.
        lossless: wait rather than drop when the queue is full.
        quota: what clips may take.
        wall_clock: ns since 1970; metadata of a scene, which nothing here depends on.
        opinion: what a staged bundle said of the frame at this instant, where one decides in the shadow.

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
        quota: Quota | None = None,
        wall_clock: Callable[[], int] = time.time_ns,
        opinion: Callable[[int], ShadowOpinion | None] | None = None,
    ) -> None:
        self._scenes = scenes or SceneConfig()
        self._lossless = lossless
        self._wall_clock = wall_clock
        self._opinion = opinion
        self._metadata = metadata or {}
        self.dropped_batches = 0
        self.clips: list[Path] = []
        self._outbox = Outbox(spool, quota) if spool is not None else None
        if self._outbox is not None:
            self._outbox.recover()
            self._asks = Asks(self._outbox)
        self._looked_s = -math.inf  # when asks were looked for last
        self._peaks: dict[int, Decision] = {}  # hardest frame of each scene that is not over
        self._matches: dict[int, dict[str, float]] = {}  # of its frames: campaigns, and the best score of each
        self._doubts: dict[int, float] = {}  # of its frames, together
        self._fix: GnssFix | None = None
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
                self._answer_asks()
            self._answer_asks(at_once=True)
            if self._outbox is not None:
                self._outbox.close()
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
                self._answer_asks()

    def _record(self, batch: _Batch) -> None:
        messages = batch.messages.copy()
        for decision in batch.decisions:
            messages += _as_messages(decision, boxes=bool(decision.objects) or self._boxes_shown)
            self._boxes_shown = bool(decision.objects)
        writer = self._writer
        if writer is not None:
            for message in messages:
                _write(writer, message)
        if self._outbox is not None:
            for message in messages:
                self._ring.append(message)
                self._ring_bytes += len(message.payload)
            self._follow(batch)
            for scene in batch.scenes:
                self._keep(scene)
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

    def _follow(self, batch: _Batch) -> None:
        """Remembers the hardest decision of each scene that goes on, and where the vehicle is."""
        for decision in batch.decisions:
            hardest = self._peaks.get(decision.scene)
            if decision.scene and (hardest is None or decision.hardness > hardest.hardness):
                self._peaks[decision.scene] = decision
            if decision.scene:
                self._doubts[decision.scene] = self._doubts.get(decision.scene, 0.0) + doubt(decision)
            if decision.scene and decision.campaigns:
                add_matches(self._matches.setdefault(decision.scene, {}), decision)
        self._fix = _last_fix(batch.messages) or self._fix

    def _keep(self, scene: Scene) -> None:
        """Numbers a scene that ended, and keeps its clip, or says why not."""
        assert self._outbox is not None
        outbox = self._outbox
        peak = self._peaks.pop(scene.number, None)
        matches = self._matches.pop(scene.number, None)
        summary = summary_of(scene, peak, self._wall_clock(), self._fix, matches, self._in_shadow(scene))
        sequence, lane = outbox.give(summary, worth(summary, self._doubts.pop(scene.number, 0.0)))
        if scene.refusal and not lane:
            outbox.refuse(sequence, scene.refusal)
            return
        messages = [
            message for message in self._ring if message.capture_ns >= scene.first_ns - self._scenes.pre_roll_ns
        ]
        self._keep_clip(scene, sequence, messages, {})

    def _in_shadow(self, scene: Scene) -> ShadowOpinion | None:
        return None if self._opinion is None else self._opinion(scene.peak_ns)

    def _answer_asks(self, *, at_once: bool = False) -> None:
        """What the cloud asked for, out of the ring. Here a disk that is full costs the answer, not the recording."""
        now_s = time.monotonic()
        if self._outbox is None or (now_s - self._looked_s < _ASKS_S and not at_once):
            return
        self._looked_s = now_s
        with suppress(OSError):
            for ask in self._asks.open() if self._ring else ():
                stands = standing(ask, self._ring[0].arrival_ns, self._ring[-1].arrival_ns)
                if stands == "gone":
                    self._asks.answer(ask, GONE)
                elif stands == "held" and self._asks.is_kept(ask):
                    self._asks.answer(ask, KEPT)
                elif stands == "held":
                    self._keep_asked(ask)
                    if not at_once:
                        return  # writing takes a while, and what is recorded waits in a queue that has an end

    def _keep_asked(self, ask: Ask) -> None:
        assert self._outbox is not None
        scene, messages, peak, matches, doubts = cut(ask, self._ring)
        summary = summary_of(
            scene, peak, self._wall_clock(), _last_fix(messages) or self._fix, matches, self._in_shadow(scene)
        )
        sequence, _ = self._outbox.give(summary, worth(summary, doubts), ask.id)
        self._keep_clip(scene, sequence, messages, {"ask": ask.id, "reason": ask.reason})

    def _keep_clip(self, scene: Scene, sequence: int, messages: list[DriveMessage], facts: dict[str, str]) -> None:
        assert self._outbox is not None
        outbox = self._outbox
        outbox.make_room(sum(len(message.payload) for message in messages))
        path = outbox.path(sequence)
        try:
            self._write_clip(scene, sequence, messages, path, facts)
        except OSError as error:
            path.with_suffix(".part").unlink(missing_ok=True)
            outbox.lose(sequence, f"not written: {error.strerror or error}")
            return
        outbox.hold(sequence, *digest(path))
        self.clips.append(path)

    def _write_clip(
        self, scene: Scene, sequence: int, messages: list[DriveMessage], path: Path, further: dict[str, str]
    ) -> None:
        facts = {
            **further,
            "scene": str(scene.number),
            "sequence": str(sequence),
            "first_ns": str(scene.first_ns),
            "last_ns": str(scene.last_ns),
            "peak_ns": str(scene.peak_ns),
            "peak_hardness": f"{scene.peak_hardness:.6f}",
        }
        part = path.with_suffix(".part")
        with DriveWriter(part, self._metadata, durable=True) as clip:
            clip.add_metadata(CLIP_METADATA, facts)
            for message in messages:
                _write(clip, message)
        part.replace(path)
        sync(path.parent)


def _last_fix(messages: list[DriveMessage]) -> GnssFix | None:
    fix = next((message for message in reversed(messages) if message.topic == topics.GNSS), None)
    if fix is None:
        return None
    with suppress(DriveFormatError):
        sample = codec.decode(fix.topic, fix.payload, fix.sequence)
        return sample if isinstance(sample, GnssFix) else None
    return None


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
