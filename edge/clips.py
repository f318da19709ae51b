"""The clips of hard scenes: what the spool keeps of what passed, and what the cloud asks for of it.

Every scene gets a number in the spool's outbox before a byte of it is written. A clip is written beside its final name,
made durable, and only then renamed: it is in the spool whole or not at all, and the outbox says which.
"""

from __future__ import annotations

import fcntl
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from edge.asked import add_matches, cut, standing
from edge.decision import Decision
from edge.drive import codec, topics
from edge.drive.reader import DriveMessage
from edge.drive.writer import DriveWriter
from edge.durable import sync
from edge.errors import ConfigError, DriveFormatError
from edge.samples import GnssFix
from edge.scenes import Scene, SceneConfig
from edge.uplink.asks import GONE, KEPT, Ask, Asks
from edge.uplink.outbox import Outbox, Quota, digest
from edge.uplink.summary import doubt, summary_of, worth
from roadfuse.v1.ingest_pb2 import ShadowOpinion

_ASKS_S: Final = 0.5  # between looks for what the cloud asks for
# Sound and pictures of twenty seconds with a lot to spare; beyond, the oldest go, and are counted.
RING_BYTES: Final = 512 << 20
CLIP_METADATA: Final = "roadfuse.scene"
LOCK: Final = "recorder.lock"


class Clips:
    """Cuts scenes out of a ring of what passed last. For one thread, which waits for the disk.

    Args:
        spool: folder for the clips and their outbox.
        scenes: pre- and post-roll.
        metadata: of the drive.
        quota: what clips may take.
        wall_clock: ns since 1970; metadata of a scene, which nothing here depends on.
        opinion: what a staged bundle said of the frame at this instant, where one decides in the shadow.

    Attributes:
        written: the clips that are in the spool.

    Raises:
        OSError: the outbox can't be opened.
        ConfigError: another recorder has the spool.
    """

    def __init__(
        self,
        spool: Path,
        scenes: SceneConfig,
        metadata: dict[str, str],
        quota: Quota | None,
        wall_clock: Callable[[], int],
        opinion: Callable[[int], ShadowOpinion | None] | None,
    ) -> None:
        self._scenes = scenes
        self._metadata = metadata
        self._wall_clock = wall_clock
        self._opinion = opinion
        self.written: list[Path] = []
        self._lock = _locked(spool)
        self._outbox = Outbox(spool, quota)
        self._outbox.recover()
        self._asks = Asks(self._outbox)
        self._looked_s = -math.inf  # when asks were looked for last
        self._peaks: dict[int, Decision] = {}  # hardest frame of each scene that is not over
        self._matches: dict[int, dict[str, float]] = {}  # of its frames: campaigns, and the best score of each
        self._doubts: dict[int, float] = {}  # of its frames, together
        self._fix: GnssFix | None = None
        self._ring: deque[DriveMessage] = deque()
        self._ring_bytes = 0

    def take(self, messages: list[DriveMessage], decisions: list[Decision], scenes: list[Scene]) -> None:
        """What passed, what was decided of it, and the scenes that ended with it.

        Raises:
            OSError: the outbox has no room to say what became of a scene.
        """
        for message in messages:
            self._ring.append(message)
            self._ring_bytes += len(message.payload)
        self._follow(messages, decisions)
        for scene in scenes:
            self._keep(scene)
        self._trim()
        self.answer_asks()

    def answer_asks(self, *, at_once: bool = False) -> None:
        """What the cloud asked for, out of the ring. Here a disk that is full costs the answer, not the recording."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _ASKS_S and not at_once:
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
                        return  # writing takes a while, and what passes waits in a queue that has an end

    def close(self) -> None:
        """Let go of the spool."""
        self._outbox.close()
        self._lock.close()

    def _trim(self) -> None:
        """Forget what no scene can reach back to."""
        config, ring = self._scenes, self._ring
        if not ring:
            return
        reach_ns = config.pre_roll_ns + config.max_ns + config.post_roll_ns
        oldest_ns = ring[-1].arrival_ns - reach_ns
        while ring and (ring[0].arrival_ns < oldest_ns or self._ring_bytes > RING_BYTES):
            self._ring_bytes -= len(ring.popleft().payload)

    def _follow(self, messages: list[DriveMessage], decisions: list[Decision]) -> None:
        """Remembers the hardest decision of each scene that goes on, and where the vehicle is."""
        for decision in decisions:
            hardest = self._peaks.get(decision.scene)
            if decision.scene and (hardest is None or decision.hardness > hardest.hardness):
                self._peaks[decision.scene] = decision
            if decision.scene:
                self._doubts[decision.scene] = self._doubts.get(decision.scene, 0.0) + doubt(decision)
            if decision.scene and decision.campaigns:
                add_matches(self._matches.setdefault(decision.scene, {}), decision)
        self._fix = _last_fix(messages) or self._fix

    def _keep(self, scene: Scene) -> None:
        """Numbers a scene that ended, and keeps its clip, or says why not."""
        outbox = self._outbox
        peak = self._peaks.pop(scene.number, None)
        matches = self._matches.pop(scene.number, None)
        summary = summary_of(scene, peak, self._wall_clock(), self._fix, matches, self._in_shadow(scene))
        sequence, lane = outbox.give(summary, worth(summary, self._doubts.pop(scene.number, 0.0)))
        if scene.refusal and not lane:
            outbox.refuse(sequence, scene.refusal)
            return
        first_ns, last_ns = scene.first_ns - self._scenes.pre_roll_ns, scene.last_ns + self._scenes.post_roll_ns
        messages = [  # none that arrived after the end; what only says to be of later has a clock that is ahead
            message
            for message in self._ring
            if first_ns <= message.capture_ns and min(message.capture_ns, message.arrival_ns) <= last_ns
        ]
        if any(scene.first_ns <= message.capture_ns <= scene.last_ns for message in messages):
            self._keep_clip(scene, sequence, messages, {})
        else:  # the disk was so slow that the batches of all of it were dropped
            outbox.lose(sequence, "overrun")

    def _in_shadow(self, scene: Scene) -> ShadowOpinion | None:
        return None if self._opinion is None else self._opinion(scene.peak_ns)

    def _keep_asked(self, ask: Ask) -> None:
        scene, messages, peak, matches, doubts = cut(ask, self._ring)
        summary = summary_of(
            scene, peak, self._wall_clock(), _last_fix(messages) or self._fix, matches, self._in_shadow(scene)
        )
        sequence, _ = self._outbox.give(summary, worth(summary, doubts), ask.id)
        self._keep_clip(scene, sequence, messages, {"ask": ask.id, "reason": ask.reason})

    def _keep_clip(self, scene: Scene, sequence: int, messages: list[DriveMessage], facts: dict[str, str]) -> None:
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
        self.written.append(path)

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
                clip.copy(message)
        part.replace(path)
        sync(path.parent)


def _locked(spool: Path) -> IO[bytes]:
    """The spool's lock, held while the file is open: a second recorder would clear away what the first one writes.

    Raises:
        ConfigError: another recorder has it.
    """
    spool.mkdir(parents=True, exist_ok=True)
    lock = (spool / LOCK).open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigError(f"{spool}: expected a spool of its own for each recorder, got one that is in use") from None
    return lock


def _last_fix(messages: list[DriveMessage]) -> GnssFix | None:
    fix = next((message for message in reversed(messages) if message.topic == topics.GNSS), None)
    if fix is None:
        return None
    with suppress(DriveFormatError):
        sample = codec.decode(fix.topic, fix.payload, fix.sequence)
        return sample if isinstance(sample, GnssFix) else None
    return None
