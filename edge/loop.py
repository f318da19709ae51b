"""The loop: samples in, one decision a camera frame out.

`step` is a pure function of the loop's state, the event and `now_ns`: no clock is read here and no I/O waited for, so
that whoever feeds the same events gets the same decisions. The state can be frozen between any two steps.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edge.alignment.watch import Watch
from edge.bundle import Bundle
from edge.campaigns.matching import Known, Matcher
from edge.campaigns.probe import ProbeSet
from edge.decision import (
    IN_ORDER,
    CampaignMatch,
    Decision,
    DetectedObject,
    Digests,
    Mask,
    ModalityState,
    PutBack,
    Score,
    Tag,
)
from edge.errors import EngineError
from edge.frameset import FrameSet
from edge.judge import Judge, JudgeWeights
from edge.overload import OverloadLadder
from edge.perception import Perception
from edge.samples import BundleInUse, Event
from edge.scenes import Scene, SceneConfig, SceneCutter
from edge.streams import DEADLINE_NS, SECOND, STREAMS, Stream
from edge.sync import Sync
from edge.updates.health import ENGINE_ERROR, RIVAL, Health
from edge.updates.swap import OpenBundles
from edge.uplink.summary import quantised

_DEFAULT_PERIOD_NS: Final = SECOND // 20
_FLOAT_BYTES: Final = 4
_STREAM_OF: Final = {"camera": "camera", "audio": "audio", "motion": "imu", "lidar": "lidar"}


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How the loop runs; the defaults need no file.

    Attributes:
        align: watch whether the streams agree; without, decisions say nothing of it.
    """

    deadline_ns: int = DEADLINE_NS
    align: bool = True
    streams: tuple[Stream, ...] = STREAMS
    weights: JudgeWeights = field(default_factory=JudgeWeights)
    scenes: SceneConfig = field(default_factory=SceneConfig)


class _Seen(NamedTuple):
    """What perception made of a frame.

    Attributes:
        present: by encoder, whether fusion may use it.
        shed: encoders that did not run though they could.
        failed: encoders that could not run.
        trouble: why the bundle can't be trusted with this frame; "" where it can.
    """

    present: list[bool]
    shed: frozenset[int]
    failed: frozenset[int]
    encoded_ns: int
    fused_ns: int
    trouble: str = ""


class Loop:
    """One vehicle's loop.

    Args:
        bundle: verified.
        config: stream table, deadline, judging and scenes.
        provider: of ONNX Runtime (cpu, cuda, tensorrt), or trt: native TensorRT.
        clock: for stage timings alone, which no decision depends on; None measures nothing.
        perception: of the bundle, where it is open already.

    Attributes:
        bundle: that decides.
        bundles: that are open: a BundleInUse names one of them.
        failing: index of a decision -> why an engine failed at it, of a run that is repeated: not every failure
            of an engine comes back with its input.
        due_ns: when `step` wants to be called even if nothing arrives.
        scenes: hard scenes that ended in the last step.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: LoopConfig | None = None,
        provider: str = "cpu",
        clock: Callable[[], int] | None = None,
        perception: Perception | None = None,
    ) -> None:
        self.bundle = bundle
        self.config = config or LoopConfig()
        self.perception = perception or Perception(bundle, self.config.streams, provider)
        self.bundles = OpenBundles(self.perception)
        self.failing: dict[int, str] = {}
        self._previous: Perception | None = None
        self._health = Health()
        self._lost = ""  # why the bundle is not to decide the next frame
        self._clock = clock or _no_clock
        self.ladder = OverloadLadder()
        self._watch = Watch(self.config.streams)
        self._judge = Judge(self.config.weights)
        self.cutter = SceneCutter(self.config.scenes)
        self.scenes: list[Scene] = []
        self._names = [stream.name for stream in self.config.streams]
        self._required = [stream.required for stream in self.config.streams]
        self._camera = _index("camera", self.perception.names)  # among the encoders
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
                self._use(event.sample)
            elif event.sample is not None:
                self._watch.learn(event.sample)
            return decisions
        if event.sample is None:
            self.sync.refuse(row, "corrupt")
        elif self._pushes[row](event.sample, now_ns):
            self._drain(now_ns, decisions)
        return decisions

    def finished(self, decision: Decision, done_ns: int, timings_ns: Mapping[str, int] | None = None) -> None:
        """Tell the overload ladder when a decision was done (replay: when it was, by the recording).

        Args:
            timings_ns: of the decision; None takes those that it carries.
        """
        period_ns = self.sync.metronome.period_ns or _DEFAULT_PERIOD_NS
        late_ns = max(decision.emitted_ns - decision.stamp_ns - self.config.deadline_ns, 0)
        if self._previous is not None and not self._lost:
            timings_ns = decision.timings_ns if timings_ns is None else timings_ns
            self._lost = self._health.observe(timings_ns, self.ladder.level, period_ns)
        self.ladder.observe(done_ns - decision.emitted_ns, late_ns, period_ns)

    def keep_step(self, index: int, level: int) -> None:
        """Decide the next frame as another loop does: with its count and its service, so that both shed the same."""
        self._index, self.ladder.level = index, level

    def accounts(self) -> dict[str, dict[str, int]]:
        """By stream: used, buffered, and dropped by reason."""
        return self.sync.accounts()

    def freeze(self) -> bytes:
        """The whole state; `thaw` it into a loop of the same bundle and configuration."""
        previous = self._previous
        state = {
            "sync": self.sync,
            "perception": self.perception.freeze(),
            "ladder": self.ladder,
            "watch": self._watch.freeze(),
            "judge": self._judge.freeze(),
            "cutter": self.cutter.freeze(),
            "loop": (self._seen, self._objects, self._masks, self._index, self._bytes, self._last_stamp_ns),
            "campaigns": self._probes,
            "bundle": self.bundle.id,
            "previous": "" if previous is None else previous.bundle.id,
            "rival": None if previous is None else previous.freeze(),  # it is put to tests now and then
            "health": (self._health, self._lost),
        }
        return pickle.dumps(state, protocol=5)

    def thaw(self, frozen: bytes) -> None:
        """Take a frozen state (of our own making: it is a pickle, so never one from elsewhere).

        Raises:
            ValueError: it belongs to a bundle that is not open here.
        """
        state = pickle.loads(frozen)
        perception, previous = self.bundles.get(state["bundle"]), self.bundles.get(state["previous"])
        if perception is None:
            raise ValueError(f"state of bundle {state['bundle'][:12]}, expected {self.bundle.id[:12]}")
        if previous is None and state["previous"]:
            raise ValueError(f"state with bundle {state['previous'][:12]} to be put back, which is not open")
        self._take(perception)
        self._previous = previous
        if previous is not None:
            previous.thaw(state["rival"])
        self._health, self._lost = state["health"]
        self.perception.thaw(state["perception"])
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
        put_back = self._put_back(self._lost) if self._lost else None
        started_ns = self._clock()
        modalities, degraded_share = self._modalities(frames)
        seen = self._perceive(frames)
        if seen.trouble:
            put_back = self._put_back(seen.trouble)
            started_ns = self._clock()
            seen = self._perceive(frames)
        perception = self.perception
        present, shed, failed, encoded_ns, fused_ns, _ = seen
        if failed:
            degraded_share = max(degraded_share, len(failed) / len(present))
        fresh = [there and i not in shed for i, there in enumerate(present)]
        rival_ns = self._try_previous(frames, fresh) if self._previous is not None else 0
        watched_ns = self._clock()
        alignment = self._watch.see(frames, perception.embeddings(fresh)) if self.config.align else IN_ORDER
        aligned_ns = self._clock()
        scene_tags, sound_events = perception.tags("scene_tags"), perception.tags("sound_events")
        if self._camera in failed:
            self._objects, self._masks = (), ()
        elif self._camera is not None and self._camera not in shed:
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
            modalities=self._mark_shed(modalities, shed, failed, present),
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
                    *perception.encoded(present),
                    *([("fuse", "embedding", embedding)] if embedding else []),
                ]
            ),
            bundle_id=self.bundle.id,
            degraded=degraded_share > 0,
            timings_ns={
                "encode": encoded_ns - started_ns,
                "align": aligned_ns - watched_ns,
                "fuse": fused_ns - encoded_ns,
                "judge": judged_ns - aligned_ns,
                **({RIVAL: rival_ns} if rival_ns else {}),
            },
        )
        self._index += 1
        return decision

    def _use(self, in_use: BundleInUse) -> None:
        """Let an open bundle decide from the next frame on; one that decides already goes on as it is."""
        perception = self.bundles.get(in_use.bundle_id)
        if perception is None:
            return  # who feeds the loop opens bundles before it names them
        previous = self.bundles.get(in_use.previous_id)
        self._previous = previous if previous is not perception else None
        if perception is not self.perception or not self._index:
            self._begin(perception)
        elif self._previous is None:
            self._lost = ""

    def _begin(self, perception: Perception) -> None:
        """Let a bundle take over as if it had seen nothing; what rests on the last one's values is forgotten."""
        perception.begin_anew()
        self._take(perception)
        self._objects, self._masks = (), ()
        self._judge.forget_tags()
        self._watch.forget_space()
        self.cutter.forget_embeddings()
        self._health, self._lost = Health(), ""

    def _take(self, perception: Perception) -> None:
        self.perception, self.bundle = perception, perception.bundle
        self._camera = _index("camera", perception.names)

    def _put_back(self, why: str) -> PutBack:
        """The previous bundle decides from this frame on; there is none to put back after it."""
        assert self._previous is not None
        failed, previous = self.bundle.id, self._previous
        self._previous = None
        self._begin(previous)
        return PutBack(failed, why)

    def _try_previous(self, frames: FrameSet, fresh: Sequence[bool]) -> int:
        """How long the other bundle takes for what this one did, ns; 0 where nobody asks."""
        if not any(fresh) or not self._health.wants_trial():
            return 0
        assert self._previous is not None
        started_ns = self._clock()
        try:
            self._previous.decide(frames, [name for name, ran in zip(self.perception.names, fresh) if ran])
        except EngineError:
            return 0
        return self._clock() - started_ns

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

    def _perceive(self, frames: FrameSet) -> _Seen:
        """Encode and fuse. An engine that fails is trouble where another bundle could decide, else it says nothing."""
        perception, previous = self.perception, self._previous
        present, shed = self._shedding(frames)
        failed: set[int] = set()
        trouble = self.failing.get(self._index, "") if previous is not None else ""
        for i, name in enumerate(perception.names):
            if not present[i] or trouble:
                continue
            if i in shed:
                perception.ages[i] += 1
                continue
            try:
                perception.encode(name, frames)
                perception.ages[i] = 0
                perception.unheard.discard(i)
            except EngineError as error:
                if previous is not None:
                    trouble = f"{ENGINE_ERROR}: {error}"
                failed.add(i)
                present[i] = False
        encoded_ns = self._clock()
        if not trouble:
            try:
                perception.fuse(present)
            except EngineError as error:
                perception.mute(present)
                if previous is not None:
                    trouble = f"{ENGINE_ERROR}: {error}"
        fused_ns = self._clock()
        if previous is not None and not trouble:
            ran = [i for i, there in enumerate(present) if there and i not in shed]
            trouble = self._health.look(perception, ran, present, frames, previous)
        return _Seen(present, shed, frozenset(failed), encoded_ns, fused_ns, trouble)

    def _shedding(self, frames: FrameSet) -> tuple[list[bool], frozenset[int]]:
        """Which modalities the frame has, and which of them are not encoded anew."""
        perception = self.perception
        present = [perception.present(name, frames) for name in perception.names]
        if not self.ladder.level:
            return present, frozenset()
        shed = self.ladder.shed(perception.ages, self._index)
        return present, shed - perception.unheard if perception.unheard else shed

    def _mark_shed(
        self, states: list[ModalityState], shed: frozenset[int], failed: frozenset[int], present: list[bool]
    ) -> tuple[ModalityState, ...]:
        for i in shed | failed:
            if present[i] or i in failed:
                row = self._names.index(_STREAM_OF[self.perception.names[i]])
                states[row] = states[row]._replace(absence="failed" if i in failed else "shed")
        return tuple(states)


def _index(name: str, names: Sequence[str]) -> int | None:
    return names.index(name) if name in names else None


def _no_clock() -> int:
    return 0
