"""The loop: samples in, one decision a camera frame out.

`step` is a pure function of the loop's state, the event and `now_ns`: no clock is read here and no I/O waited for, so
that whoever feeds the same events gets the same decisions. The state can be frozen between any two steps.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from edge.alignment.watch import Watch
from edge.bundle import Bundle
from edge.campaigns.matching import Known, Matcher
from edge.campaigns.probe import ProbeSet
from edge.decision import (
    IN_ORDER,
    Alignment,
    CampaignMatch,
    Decision,
    DetectedObject,
    Digests,
    Mask,
    ModalityState,
    Score,
    Tag,
)
from edge.frameset import FrameSet
from edge.judge import Judge, JudgeWeights
from edge.overload import OverloadLadder
from edge.perception import Perception, no_clock
from edge.samples import BundleInUse, Event, Frame
from edge.scenes import Scene, SceneConfig, SceneCutter
from edge.streams import DEADLINE_NS, ENCODERS, SECOND, STREAMS, Stream
from edge.sync import Sync
from edge.updates.in_charge import InCharge, Seen
from edge.uplink.summary import quantised

_DEFAULT_PERIOD_NS: Final = SECOND // 20
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How the loop runs; the defaults need no file.

    Attributes:
        align: watch whether the streams agree; without, decisions say nothing of it.
        encode_ahead: encode a picture while its frame waits for other streams. Changes no decision.
    """

    deadline_ns: int = DEADLINE_NS
    align: bool = True
    encode_ahead: bool = True
    streams: tuple[Stream, ...] = STREAMS
    weights: JudgeWeights = field(default_factory=JudgeWeights)
    scenes: SceneConfig = field(default_factory=SceneConfig)


class Loop:
    """One vehicle's loop.

    Args:
        bundle: verified.
        config: stream table, deadline, judging and scenes.
        provider: of ONNX Runtime (cpu, cuda, tensorrt), or trt: native TensorRT.
        clock: for stage timings alone, which no decision depends on; None measures nothing.
        perception: of the bundle, where it is open already.
        work: a clock of the processor's time that a thread was given, where engines need nothing else: two bundles are
            compared by it, fairly on a busy machine; None compares by `clock`.

    Attributes:
        charge: the bundle that decides, and those that could.
        due_ns: when `step` wants to be called even if nothing arrives.
        scenes: hard scenes that ended in the last step.
        coming: the picture that arrives next, where that is known; to be set before the one before it arrives.
        lane: one thread, in which a part of each step runs; between two it may compare camera and LiDAR, and encode the
            next picture.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: LoopConfig | None = None,
        provider: str = "cpu",
        clock: Callable[[], int] | None = None,
        perception: Perception | None = None,
        work: Callable[[], int] | None = None,
    ) -> None:
        self.config = config or LoopConfig()
        self._clock = clock or no_clock
        opened = perception or Perception(bundle, self.config.streams, provider)
        self.lane = ThreadPoolExecutor(1, "lane")
        self._placed: Future[None] = self.lane.submit(lambda: None)
        self.charge = InCharge(opened, self.lane, self._clock, work)
        self.ladder = OverloadLadder()
        self._watch = Watch(self.config.streams)
        self._judge = Judge(self.config.weights)
        self.cutter = SceneCutter(self.config.scenes)
        self.scenes: list[Scene] = []
        self.coming: Frame | None = None
        self._names = [stream.name for stream in self.config.streams]
        self._required = [stream.required for stream in self.config.streams]
        self._vehicle = _index("vehicle", self._names[1:])  # among the picks
        self._gnss = _index("gnss", self._names[1:])
        self._look_for(ProbeSet())
        self._seen = [False] * len(self._names)
        self._objects: tuple[DetectedObject, ...] = ()
        self._masks: tuple[Mask, ...] = ()
        self._index = 0
        self._bytes = 0  # that arrived since the last frame
        self._last_stamp_ns = 0
        self._take_sync(Sync(self.config.streams, self.config.deadline_ns))

    @property
    def perception(self) -> Perception:
        """Of the bundle that decides."""
        return self.charge.perception

    @property
    def bundle(self) -> Bundle:
        """That decides."""
        return self.charge.perception.bundle

    @property
    def due_ns(self) -> int:
        """The next instant at which a frame may leave without anything arriving."""
        return self.sync.due_ns

    @property
    def waiting(self) -> bool:
        """Whether a camera frame waits for its decision."""
        return bool(self.sync.camera.stamps)

    def step(self, event: Event | None, now_ns: int) -> list[Decision]:
        """Take what arrived (None: time passed) and give the decisions that are due.

        Args:
            now_ns: never less than at the last step.
        """
        decisions: list[Decision] = []
        if now_ns >= self.sync.due_ns:
            self._drain(now_ns, decisions)
        if event is None:
            return decisions
        row = event.row
        self._bytes += event.size_bytes
        if row < 0:
            if isinstance(event.sample, ProbeSet):
                self._look_for(event.sample)
            elif isinstance(event.sample, BundleInUse):
                if self.charge.use(event.sample, self._index):
                    self._forget()
            elif event.sample is not None:
                self._placed.result()
                self._watch.learn(event.sample)
            return decisions
        if event.sample is None:
            self.sync.refuse(row, "corrupt")
        elif self._pushes[row](event.sample, now_ns):
            self._drain(now_ns, decisions)
        if not row:
            self.charge.encode_ahead(self._next_picture())
        return decisions

    def finished(self, decision: Decision, done_ns: int, timings_ns: Mapping[str, int] | None = None) -> None:
        """Tell the overload ladder when a decision was done (replay: when it was, by the recording).

        Args:
            timings_ns: of the decision; None takes those that it carries.
        """
        period_ns = self.sync.metronome.period_ns or _DEFAULT_PERIOD_NS
        late_ns = max(decision.emitted_ns - decision.stamp_ns - self.config.deadline_ns, 0)
        timings_ns = decision.timings_ns if timings_ns is None else timings_ns
        self.charge.observe(timings_ns, self.ladder.level, period_ns)
        self.ladder.observe(done_ns - decision.emitted_ns, late_ns, period_ns)

    def keep_step(self, index: int, level: int, shed: Mapping[int, frozenset[str]]) -> None:
        """Decide the next frames as another loop does: with its count and service, and without the streams it shed.

        Args:
            shed: by the stamp of a frame.
        """
        self._index, self.ladder.level = index, level
        self.charge.keep_shed(shed)

    def accounts(self) -> dict[str, dict[str, int]]:
        """By stream: used, buffered, and dropped by reason."""
        return self.sync.accounts()

    def freeze(self) -> bytes:
        """The whole state; `thaw` it into a loop of the same bundle and configuration."""
        self._placed.result()
        state = {
            "sync": self.sync,
            "charge": self.charge.freeze(),
            "ladder": self.ladder,
            "watch": self._watch.freeze(),
            "judge": self._judge.freeze(),
            "cutter": self.cutter.freeze(),
            "loop": (self._seen, self._objects, self._masks, self._index, self._bytes, self._last_stamp_ns),
            "campaigns": self._probes,
        }
        return pickle.dumps(state, protocol=5)

    def thaw(self, frozen: bytes) -> None:
        """Take a frozen state (of our own making: it is a pickle, so never one from elsewhere).

        Raises:
            ValueError: it belongs to a bundle that is not open here.
        """
        state = pickle.loads(frozen)
        self._placed.result()
        self.charge.thaw(state["charge"])
        self.ladder = state["ladder"]
        self._watch.thaw(state["watch"])
        self._judge.thaw(state["judge"])
        self.cutter.thaw(state["cutter"])
        self._seen, self._objects, self._masks, self._index, self._bytes, self._last_stamp_ns = state["loop"]
        self._look_for(state["campaigns"])
        self._take_sync(state["sync"])

    def _take_sync(self, sync: Sync) -> None:
        self.sync = sync
        self._pushes = sync.pushes

    def _drain(self, now_ns: int, decisions: list[Decision]) -> None:
        self.scenes.clear()
        while (frames := self.sync.pop(now_ns)) is not None:
            decisions.append(self._decide(frames))

    def _decide(self, frames: FrameSet) -> Decision:
        """One tick: a synchronised FrameSet in, a decision out."""
        modalities, degraded_share = self._modalities(frames)
        is_ahead = self.perception.is_ahead(frames)
        begun = self.charge.begin(frames, self._index, self.ladder)
        watching = self._watch_in_lane(frames) if self.config.align and not is_ahead else ()
        seen, put_back = self.charge.perceive(frames, self._index, self.ladder, begun, self._next_picture())
        if put_back is not None:
            self._forget()
        perception, fresh = self.perception, seen.fresh
        if seen.failed:
            degraded_share = max(degraded_share, len(seen.failed) / len(seen.present))
        of_previous_ns = self.charge.time_previous(frames, fresh)
        watched_ns = self._clock()
        alignment = self._watched(frames, perception.embeddings(fresh), watching) if self.config.align else IN_ORDER
        aligned_ns = self._clock()
        scene_tags, sound_events = perception.tags("scene_tags"), perception.tags("sound_events")
        camera = _index("camera", perception.names)
        if camera in seen.failed:
            self._objects, self._masks = (), ()
        elif camera is not None and camera not in seen.shed:
            self._objects = perception.objects(frames)
            self._masks = perception.masks(frames)
        vehicle = () if self._vehicle is None else frames.picks[self._vehicle].samples
        hardness, scores = self._judge(
            frames.stamp_ns,
            perception.scores(scene_tags + sound_events),
            scene_tags,
            sound_events,
            vehicle,
            degraded_share,
            alignment.agreement,
        )
        fused = perception.embedding()
        embedding = b"" if fused is None else fused.tobytes()
        campaigns: tuple[CampaignMatch, ...] = ()
        if self._matcher:
            campaigns = self._matching(frames, embedding, scene_tags, sound_events, hardness, scores)
            weight = max([self._matcher.weights[match.campaign] for match in campaigns], default=0.0)
            hardness, scores = self._judge.with_campaign(hardness, scores, weight)
        scene_state, scene, refusal = self.cutter(frames.stamp_ns, hardness, embedding, self._bytes)
        if self.cutter.ended is not None:
            self.scenes.append(self.cutter.ended)
        self._bytes = 0
        judged_ns = self._clock()
        decision = Decision(
            stamp_ns=frames.stamp_ns,
            frame_seq=frames.seq,
            index=self._index,
            emitted_ns=frames.emitted_ns,
            reason=frames.reason,
            modalities=self._mark_shed(modalities, seen),
            overload_level=self.ladder.level,
            hardness=hardness,
            scores=scores,
            scene_tags=scene_tags,
            sound_events=sound_events,
            objects=self._objects,
            heads=perception.heads(),
            masks=self._masks,
            alignment=alignment,
            campaigns=campaigns,
            put_back=put_back,
            embedding=embedding,
            scene_state=scene_state,
            scene=scene,
            scene_refusal=refusal,
            digests=Digests(
                [
                    ("sync", "frameset", frames.key()),
                    *perception.encoded(seen.present),
                    *([("fuse", "embedding", embedding)] if embedding else []),
                ]
            ),
            bundle_id=self.bundle.id,
            degraded=degraded_share > 0,
            timings_ns={
                "encode": seen.encoded_ns - seen.started_ns,
                "align": aligned_ns - watched_ns,
                "fuse": seen.fused_ns - seen.encoded_ns,
                "judge": judged_ns - aligned_ns,
                **of_previous_ns,
            },
        )
        self._index += 1
        return decision

    def _next_picture(self) -> Frame | None:
        """The picture that is to be encoded before its frame leaves. What may be shed is not."""
        if self.ladder.level or not self.config.encode_ahead:
            return None
        waiting = self.sync.camera.samples
        return waiting[0] if waiting else self.coming

    def _watch_in_lane(self, frames: FrameSet) -> tuple[Future[None], Future[None]]:
        """Behind the encoders: the look at this frame, and before it what was compared of the last one."""
        before, watched = self._placed, self.lane.submit(self._watch.look, frames)
        self._placed = self.lane.submit(self._watch.place, frames)
        return before, watched

    def _watched(
        self, frames: FrameSet, embeddings: Mapping[str, NDArray[Any]], watching: Sequence[Future[None]]
    ) -> Alignment:
        """What alignment says; without a look in the lane, which has or had the picture to encode, it is taken here."""
        for watched in watching:
            watched.result()
        if not watching:
            self._placed.result()
            self._watch.look(frames)
            self._placed = self.lane.submit(self._watch.place, frames)
        return self._watch.conclude(embeddings)

    def _forget(self) -> None:
        """Another bundle begins: what rests on the last one's values goes."""
        self._objects, self._masks = (), ()
        self._judge.forget_tags()
        self._watch.forget_space()
        self.cutter.forget_embeddings()

    def _look_for(self, probes: ProbeSet) -> None:
        self._probes = probes
        self._matcher = Matcher(probes)

    def _matching(
        self, frames: FrameSet, embedding: bytes, scene_tags: Sequence[Tag], sound_events: Sequence[Tag],
        hardness: float, scores: Sequence[Score],
    ) -> tuple[CampaignMatch, ...]:  # fmt: skip
        """The campaigns that look for such a frame."""
        fixes = () if self._gnss is None else frames.picks[self._gnss].samples
        signed = b""
        if self._matcher.wants_embedding(self.bundle.id, len(embedding) // _FLOAT_BYTES):
            signed, _ = quantised(embedding)
        return self._matcher(
            Known(
                self.bundle.id,
                signed,
                dict(scene_tags),
                dict(sound_events),
                {"hardness": hardness, **{name: value for name, value, _ in scores}},
                (fixes[-1].latitude_deg, fixes[-1].longitude_deg) if fixes else None,
            )
        )

    def _modalities(self, frames: FrameSet) -> tuple[list[ModalityState], float]:
        """Each stream's part, in the table's order, and the share of expected streams that are absent."""
        frame = frames.frame
        camera_absence = frames.camera_absence
        if frame is not None and frame.image is None:
            camera_absence = "corrupt"
        states = [ModalityState(self._names[0], not camera_absence, 0, int(not camera_absence), camera_absence)]
        for name, pick in zip(self._names[1:], frames.picks):
            states.append(ModalityState(name, not pick.absence, pick.age_ns, len(pick.samples), pick.absence))
        seen = self._seen
        expected = missing = 0
        for i, state in enumerate(states):
            if state.present:
                seen[i] = True
                expected += 1
            elif seen[i] or self._required[i]:
                expected += 1
                missing += 1
        return states, missing / expected if expected else 0.0

    def _mark_shed(self, states: list[ModalityState], seen: Seen) -> tuple[ModalityState, ...]:
        for i in seen.shed | seen.failed:
            if seen.present[i] or i in seen.failed:
                row = self._names.index(ENCODERS[self.perception.names[i]])
                states[row] = states[row]._replace(absence="failed" if i in seen.failed else "shed")
        return tuple(states)


def _index(name: str, names: Sequence[str]) -> int | None:
    return names.index(name) if name in names else None
