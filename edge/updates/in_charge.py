"""The bundle that decides, and the previous one, which is put back where this one can't be trusted with a frame.

What is wrong with a frame's values (an engine that fails, NaN, an embedding that froze) shows while the frame is
perceived, and the previous bundle perceives that very frame anew. That a bundle is slow shows once a decision is done,
and the previous one takes the next frame. After it there is none to put back: then an engine that fails says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Final, NamedTuple

from edge.bundle import Bundle
from edge.decision import PutBack
from edge.errors import EngineError
from edge.frameset import FrameSet
from edge.overload import OverloadLadder
from edge.perception import Perception
from edge.samples import BundleInUse, Frame
from edge.streams import ENCODERS
from edge.updates.health import ENGINE_ERROR, RIVAL, RIVAL_WORK, WORK, Health
from edge.updates.swap import OpenBundles

# Frames of another loop whose decisions may be known before they are decided here.
_MOST_KEPT: Final = 64


class Seen(NamedTuple):
    """What perception made of a frame.

    Attributes:
        present: by encoder, whether fusion may use it.
        shed: encoders that did not run though they could.
        failed: encoders that could not run.
        started_ns, encoded_ns, fused_ns: by the clock for timings.
        trouble: why the bundle can't be trusted with this frame; "" where it can.
    """

    present: list[bool]
    shed: frozenset[int]
    failed: frozenset[int]
    started_ns: int
    encoded_ns: int
    fused_ns: int
    trouble: str = ""

    @property
    def fresh(self) -> list[bool]:
        """By encoder, whether it ran on this frame."""
        return [there and i not in self.shed for i, there in enumerate(self.present)]


class Begun(NamedTuple):
    """A frame whose encoders run already.

    Attributes:
        present, shed, trouble, started_ns: as of Seen, so far.
        running: encoders that run on it: those of `here` are still to be begun.
        beside: the others, in the lane.
        put_back: what was put back before it.
    """

    present: list[bool]
    shed: frozenset[int]
    running: list[int]
    here: Sequence[str]
    beside: Future[dict[str, EngineError]] | None
    trouble: str
    started_ns: int
    put_back: PutBack | None


class InCharge:
    """Of one loop.

    Args:
        perception: of the bundle that decides first, open.
        lane: for what can run beside the costliest encoder.
        clock: for timings alone.
        work: of what a thread was given of a processor, where that is what engines need; None where they need more.

    Attributes:
        perception: of the bundle that decides.
        lane: as given.
        bundles: that are open: a BundleInUse names one of them.
        failing: index of a decision -> why an engine failed at it, of a run that is repeated: not every failure
            of an engine comes back with its input.
    """

    def __init__(
        self, perception: Perception, lane: Executor, clock: Callable[[], int], work: Callable[[], int] | None = None
    ) -> None:
        self.perception = perception
        self.lane = lane
        self.bundles = OpenBundles(perception)
        self.failing: dict[int, str] = {}
        self._shed: dict[int, frozenset[str]] = {}  # stamp of a frame -> streams that another loop shed of it
        self._previous: Perception | None = None
        self._health = Health()
        self._lost = ""  # why the bundle is not to decide the next frame
        self._clock, self._work = clock, work

    @property
    def bundle(self) -> Bundle:
        """That decides."""
        return self.perception.bundle

    def use(self, in_use: BundleInUse, index: int) -> bool:
        """Let an open bundle decide from the next frame on; one that decides already goes on as it is.

        Args:
            index: of the next decision.

        Returns:
            Whether a bundle begins.
        """
        perception = self.bundles.get(in_use.bundle_id)
        if perception is None:
            return False  # who feeds the loop opens bundles before it names them
        previous = self.bundles.get(in_use.previous_id)
        self._previous = previous if previous is not perception else None
        if self._work is not None and previous is not None:
            perception.clock = previous.clock = self._work
        if perception is not self.perception or not index:
            self._begin(perception)
            return True
        if self._previous is None:
            self._lost = ""
        return False

    def begin(self, frames: FrameSet, index: int, ladder: OverloadLadder) -> Begun:
        """Choose what of a frame is encoded, and let the lane begin with its part; `perceive` is to follow.

        Args:
            index: of the frame's decision.
            ladder: what is shed.
        """
        put_back = self._put_back(self._lost) if self._lost else None
        return self._begun(frames, index, ladder, put_back)

    def perceive(
        self, frames: FrameSet, index: int, ladder: OverloadLadder, begun: Begun, coming: Frame | None
    ) -> tuple[Seen, PutBack | None]:
        """Encode and fuse a frame, by the previous bundle where this one proves unfit; what was put back, if it was.

        Args:
            coming: the picture to be encoded ahead, once this one is.
        """
        put_back = begun.put_back
        seen = self._perceive(frames, begun, coming)
        if seen.trouble:
            put_back = self._put_back(seen.trouble)
            seen = self._perceive(frames, self._begun(frames, index, ladder), coming)
        return seen, put_back

    def encode_ahead(self, frame: Frame | None) -> None:
        """Let the lane encode a picture before its frame leaves, where nothing may come of it but time.

        While the previous bundle is open this one's time is compared with that one's, picture and all.
        """
        if frame is not None and self._previous is None:
            self.perception.encode_ahead(frame, self.lane)

    def time_previous(self, frames: FrameSet, fresh: Sequence[bool]) -> dict[str, int]:
        """Timings of the previous bundle at what this one did, and what engines of both worked; {} if nobody asks."""
        previous = self._previous
        if previous is None or not any(fresh) or not self._health.wants_trial():
            return {}
        self.lane.submit(lambda: None).result()  # what alignment still does there is not its time
        started_ns = self._clock()
        ran = [name for name, is_fresh in zip(self.perception.names, fresh) if is_fresh]
        try:
            previous.decide(frames, ran, self.lane)
        except EngineError:
            return {}
        timings_ns = {RIVAL: self._clock() - started_ns}
        if self._work is not None and self.bundle.threads == previous.bundle.threads == 1:
            for stage, one in ((WORK, self.perception), (RIVAL_WORK, previous)):
                timings_ns[stage] = sum(one.spent_ns.get(name, 0) for name in (*ran, "fuse"))
        return timings_ns

    def observe(self, timings_ns: Mapping[str, int], level: int, period_ns: int) -> None:
        """Take a decision's timings, as recorded, and the level of service that it was made with."""
        if self._previous is not None and not self._lost:
            self._lost = self._health.observe(timings_ns, level, period_ns)

    def keep_shed(self, shed: Mapping[int, frozenset[str]]) -> None:
        """Shed of frames, by their stamps, the streams that another loop shed; of others what the ladder says."""
        self._shed = dict([*self._shed.items(), *shed.items()][-_MOST_KEPT:])

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        previous = self._previous
        return {
            "perception": self.perception.freeze(),
            "bundle": self.bundle.id,
            "previous": "" if previous is None else previous.bundle.id,
            "rival": None if previous is None else previous.freeze(),  # it is put to tests now and then
            "health": (self._health, self._lost),
        }

    def thaw(self, frozen: Mapping[str, Any]) -> None:
        """Take a frozen state.

        Raises:
            ValueError: it belongs to a bundle that is not open here.
        """
        perception, previous = self.bundles.get(frozen["bundle"]), self.bundles.get(frozen["previous"])
        if perception is None:
            raise ValueError(f"state of bundle {frozen['bundle'][:12]}, expected {self.bundle.id[:12]}")
        if previous is None and frozen["previous"]:
            raise ValueError(f"state with bundle {frozen['previous'][:12]} to be put back, which is not open")
        self.perception, self._previous = perception, previous
        if previous is not None:
            previous.thaw(frozen["rival"])
        self._health, self._lost = frozen["health"]
        perception.thaw(frozen["perception"])

    def _begin(self, perception: Perception) -> None:
        """Let a bundle take over as if it had seen nothing."""
        perception.begin_anew()
        self.perception = perception
        self._health, self._lost = Health(), ""

    def _put_back(self, why: str) -> PutBack:
        """The previous bundle decides from this frame on; there is none to put back after it."""
        assert self._previous is not None
        failed, previous = self.bundle.id, self._previous
        self._previous = None
        self._begin(previous)
        return PutBack(failed, why)

    def _begun(self, frames: FrameSet, index: int, ladder: OverloadLadder, put_back: PutBack | None = None) -> Begun:
        started_ns = self._clock()
        present, shed = self._shedding(frames, index, ladder)
        trouble = self.failing.get(index, "") if self._previous is not None else ""
        running = [] if trouble else [i for i, there in enumerate(present) if there and i not in shed]
        names = [self.perception.names[i] for i in running]
        here, beside = self.perception.encode_beside(names, frames, self.lane)
        return Begun(present, shed, running, here, beside, trouble, started_ns, put_back)

    def _perceive(self, frames: FrameSet, begun: Begun, coming: Frame | None) -> Seen:
        """An engine that fails is trouble where another bundle could decide, else it says nothing."""
        perception, previous = self.perception, self._previous
        present, shed, running, here, beside, trouble, started_ns, _ = begun
        failed: set[int] = set()
        if not trouble:
            for i in shed:
                perception.ages[i] += 1
            errors = perception.encode_each(here, frames) | (beside.result() if beside else {})
            for i in running:
                error = errors.get(perception.names[i])
                if error is None:
                    perception.ages[i] = 0
                    perception.unheard.discard(i)
                    continue
                if previous is not None and not trouble:
                    trouble = f"{ENGINE_ERROR}: {error}"
                failed.add(i)
                present[i] = False
        self.encode_ahead(coming)
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
        return Seen(present, shed, frozenset(failed), started_ns, encoded_ns, fused_ns, trouble)

    def _shedding(self, frames: FrameSet, index: int, ladder: OverloadLadder) -> tuple[list[bool], frozenset[int]]:
        """Which modalities the frame has, and which of them are not encoded anew."""
        perception = self.perception
        present = [perception.present(name, frames) for name in perception.names]
        if not ladder.level:
            return present, frozenset()
        kept = self._shed.get(frames.stamp_ns)
        if kept is None:
            shed = ladder.shed(perception.ages, index)
        else:
            shed = frozenset(i for i, name in enumerate(perception.names) if ENCODERS[name] in kept)
        return present, frozenset(i for i in shed - perception.unheard if present[i])
