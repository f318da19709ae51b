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
            if count > 2 and samples[-1].seq - samples[0].seq == count - 1:
                samples = (samples[0], samples[-1])  # a window without a gap is named by its ends
            named = [number for sample in samples for number in (sample.stamp_ns, sample.seq)]
            parts.append(struct.pack(f"<qH{len(named)}q", pick.age_ns, count, *named))
        return b"".join(parts)
