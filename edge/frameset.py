"""A FrameSet: one camera frame and what every other stream has to say about its instant."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from edge.samples import Frame


class EmitReason(IntEnum):
    """Why a FrameSet left when it did; the numbers of roadfuse.v1.EmitReason."""

    SETTLED = 1
    DEADLINE = 2
    VALUE = 3


class Pick(NamedTuple):
    """What one stream gives to a frame.

    Attributes:
        samples: by stamp; empty when absent. INTERPOLATE gives the one before (or at) and the one after the frame, or
            only one of them; WINDOW all of the window.
        age_ns: frame instant minus the capture of the nearest sample (the last one of a window); 0 when absent.
        absence: why there is none: silent, stale; "" when present.
    """

    samples: Sequence[Any]
    age_ns: int
    absence: str


@dataclass(slots=True)
class FrameSet:
    """The samples that belong to one frame instant.

    Attributes:
        stamp_ns: the frame instant (capture of the camera frame).
        frame: the picture; None where the camera gave none for this instant.
        seq: the camera's sequence number; of the last frame before where there is none.
        emitted_ns: `now` of the step that emitted it.
        reason: why it left then.
        picks: one a stream of the table, in its order, without the camera.
        camera_absence: "" | silent | corrupt | shed.
    """

    stamp_ns: int
    frame: Frame | None
    seq: int
    emitted_ns: int
    reason: EmitReason
    picks: list[Pick]
    camera_absence: str = ""

    def key(self) -> bytes:
        """Bytes that name all that was chosen: equal keys, equal FrameSets. When it left is not part of it."""
        parts = [struct.pack("<qq?", self.stamp_ns, self.seq, self.frame is not None)]
        for pick in self.picks:
            samples = pick.samples
            count = len(samples)
            named = [0] * (2 * count)
            named[::2] = [sample.stamp_ns for sample in samples]
            named[1::2] = [sample.seq for sample in samples]
            parts.append(struct.pack(f"<qH{2 * count}q", pick.age_ns, count, *named))
        return b"".join(parts)
