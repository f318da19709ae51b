"""Whether the bundle that decides has lost its health, while another one is open that could decide instead.

    engine_error   an engine raises; the loop says so itself
    not_finite     a value that the decision, or the next frame, is made of is NaN or infinite
    frozen         an embedding has not changed by a bit for FROZEN_FRAMES frames whose input did
    late           half of the last two seconds' frames took too long, or were made with less than full service

The last two may be the world's fault: what lies before the sensors may be too quiet to tell frames apart, and the
machine may be busy with other things. So the other bundle is put to the same test: it decides the same frames, and
only where it does what this one does not (tells the frames apart; takes clearly less time *now*) is this one to blame.
On a CPU the time that counts is what processors gave the engines: whatever else wakes when a picture arrives is in the
way of the bundle that goes first.
An acquittal holds for as long again as the suspicion took, twice as long each time.

All that is looked at is in the frame or in the recorded timings, so that a replay comes to the same verdicts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError
from edge.frameset import FrameSet
from edge.heads import VECTORS, Head
from edge.overload import OVER
from edge.perception import Perception

FROZEN_FRAMES: Final = 20
# Between the two frames that the other bundle has to tell apart.
_APART: Final = 5
LATE_WINDOW: Final = 40
LATE_FRAMES: Final = 20
# Frames that the other bundle is timed on, and how far they lie apart: more load on a machine that may have too much.
# Their median counts: whoever was on the processor's waiting list in some of them is not to blame.
TRIALS: Final = 9
_STRIDE: Final = 4
# What "clearly less" is: so many times as much, and so much of a period that it alone makes frames late. The other
# bundle runs second, when the processor is awake and the pictures are in its caches.
_WORSE: Final = 1.5
_WORSE_SHARE: Final = 0.25
_MOST_PATIENCE: Final = 1280
_SAMPLED: Final = 256  # values of an input that are compared
ENGINE_ERROR: Final = "engine_error"
STEP: Final = "step"
RIVAL: Final = "previous"  # stage of the timing
WORK, RIVAL_WORK = "work", "previous_work"  # of engines alone: time that a processor gave them


@dataclass(slots=True)
class _Still:
    """One embedding that is watched."""

    said: bytes = b""
    heard: bytes = b""
    frames: int = 0
    patience: int = FROZEN_FRAMES
    rival: bytes | None = None  # what the other bundle said at the first frame of its trial


@dataclass(slots=True)
class _Pace:
    """Whether frames take too long."""

    over: deque[bool] = field(default_factory=lambda: deque(maxlen=LATE_WINDOW))
    rest: int = 0  # frames before it may be suspected again
    patience: int = LATE_WINDOW
    own_ns: list[int] = field(default_factory=list)
    rival_ns: list[int] = field(default_factory=list)


class Health:
    """Of one bundle; begins anew with each that takes over. All attributes are plain state, frozen as they are."""

    def __init__(self) -> None:
        self._still: dict[str, _Still] = {}
        self._pace = _Pace()

    def look(
        self, perception: Perception, ran: Collection[int], present: Sequence[bool], frames: FrameSet, rival: Perception
    ) -> str:
        """What is wrong with the outputs of this frame; "" where nothing is.

        Args:
            ran: encoders that ran on it.
            rival: the other bundle.
        """
        changed = False
        for i in sorted(ran):
            name = perception.names[i]
            outputs = perception.outputs(name)
            for role, values in outputs:
                if not _is_sound(values, perception.bundle.head_specs.get(role), role):
                    return f"not_finite: {name} {role}"
            said = _told(outputs)
            still = self._still.setdefault(name, _Still())
            changed = changed or said != still.said
            if self._is_frozen(still, said, _sampled(perception.input(name)), name, frames, rival):
                return f"frozen: {name}, {still.frames} frames"
        if "fuse" not in perception.engines:
            return ""
        outputs = perception.outputs("fuse")
        for role, values in outputs:
            if not math.isfinite(values.sum()) and not np.isfinite(values).all():
                return f"not_finite: fuse {role}"
        still = self._still.setdefault("fuse", _Still())
        heard = bytes([not still.heard[0]]) if changed and still.heard else still.heard or b"\0"
        if self._is_frozen(still, _told(outputs), heard, "fuse", frames, rival, present):
            return f"frozen: fuse, {still.frames} frames"
        return ""

    def wants_trial(self) -> bool:
        """Whether the other bundle is to be timed on this frame."""
        pace = self._pace
        return not pace.rest and sum(pace.over) >= LATE_FRAMES

    def observe(self, timings_ns: Mapping[str, int], level: int, period_ns: int) -> str:
        """Take the timings of a decision, as recorded.

        Args:
            level: of the overload ladder: what is made with less than full service took too long before.

        Returns:
            What is wrong; "" where nothing is.
        """
        pace = self._pace
        rival_ns = timings_ns.get(RIVAL, 0)
        pace.over.append(level > 0 or timings_ns.get(STEP, 0) - rival_ns > OVER * period_ns)
        if pace.rest:
            pace.rest -= 1
        if not rival_ns:
            return ""
        if WORK in timings_ns:
            pace.own_ns.append(timings_ns[WORK])
            pace.rival_ns.append(timings_ns.get(RIVAL_WORK, 0))
        else:
            pace.own_ns.append(timings_ns.get("encode", 0) + timings_ns.get("fuse", 0))
            pace.rival_ns.append(rival_ns)
        pace.rest = _STRIDE
        if len(pace.own_ns) < TRIALS:
            return ""
        own_ns, rival_ns = sorted(pace.own_ns)[TRIALS // 2], sorted(pace.rival_ns)[TRIALS // 2]
        if own_ns > max(_WORSE * rival_ns, rival_ns + _WORSE_SHARE * period_ns):
            return f"late: {own_ns / 1e6:.1f} ms a frame, the previous bundle {rival_ns / 1e6:.1f} ms"
        pace.rest, pace.patience = pace.patience, min(2 * pace.patience, _MOST_PATIENCE)
        pace.own_ns, pace.rival_ns = [], []
        return ""

    def _is_frozen(
        self, still: _Still, said: bytes, heard: bytes, name: str, frames: FrameSet, rival: Perception,
        present: Sequence[bool] = (),
    ) -> bool:  # fmt: skip
        if said != still.said:
            still.said, still.heard, still.frames, still.rival = said, heard, 0, None
            still.patience = FROZEN_FRAMES
            return False
        if heard == still.heard or not said:
            return False
        still.heard = heard
        still.frames += 1
        if still.frames < still.patience or name not in rival.engines:
            return False
        now = _rival_says(rival, name, frames)
        if still.rival is None:
            still.rival, still.patience = now, still.frames + _APART
        elif now != still.rival:
            return True
        else:  # too quiet for the other one too
            still.rival, still.patience = None, min(2 * still.frames, _MOST_PATIENCE)
        return False


def _rival_says(rival: Perception, name: str, frames: FrameSet) -> bytes:
    try:
        if name != "fuse":
            rival.encode(name, frames)
        else:
            rival.decide(frames)
        return _told(rival.outputs(name))
    except EngineError:
        return b""  # it tells nothing apart


def _told(outputs: list[tuple[str, NDArray[Any]]]) -> bytes:
    """The embedding; of an engine without one its first output."""
    for role, values in outputs:
        if role == "embedding":
            return values.tobytes()
    return outputs[0][1].tobytes() if outputs else b""


def _sampled(values: NDArray[Any]) -> bytes:
    flat = values.reshape(-1)
    return flat[:: max(flat.size // _SAMPLED, 1)].tobytes()


def _is_sound(values: NDArray[Any], head: Head | None, role: str) -> bool:
    if values.dtype.kind != "f" or math.isfinite(values.sum()):
        return True  # a finite sum has no part that is not
    if role == "embedding" or (head is not None and head.kind in VECTORS):
        return bool(np.isfinite(values).all())
    return not np.isnan(values).any()  # boxes and masks may mean -infinity
