"""Alignment in meaning: notices that one modality has gone wrong, and names it, from three kinds of evidence.

    vital signs     what a modality shows of itself: picture_signs, sound_signs, lidar_signs
    motion          what sensors say of the same motion: motion_signs
    shared space    how like each other the encoders' embeddings are, against how like they were: shared_space

Each sign is a measure with a limit; evidence grows while the measure is over its limit, is named when it has been for
the sign's patience, and fades as it grew. Of several signs of one stream the first of the table that is full is named.
A stream that is absent is the loop's to name; here it only fades. Time is the frames' own, so replay says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.alignment import lidar_signs, motion_signs, picture_signs, sound_signs
from edge.alignment.lidar_signs import LidarSigns
from edge.alignment.motion_signs import MotionSigns
from edge.alignment.picture_signs import PictureSigns
from edge.alignment.shared_space import SharedSpace
from edge.alignment.sound_signs import SoundSigns
from edge.decision import Suspect
from edge.frameset import FrameSet
from edge.streams import ENCODERS, SECOND, Stream

_LONGEST_S: Final = 0.25  # between frames: what a pause or a step of the clock adds at most
_FULL: Final = 1.3  # evidence beyond 1 delays its fading
_KEPT: Final = 0.5  # a named sign is named until its evidence falls below


@dataclass(frozen=True, slots=True)
class Sign:
    """One way in which a stream goes wrong.

    Attributes:
        limit: of its measure, in the measure's unit.
        patience_s: how long the measure must be over it.
    """

    stream: str
    kind: str
    limit: float
    patience_s: float


# Limits lie between what clean drives of the training towns reach and what planted faults give.
SIGNS: Final = (
    Sign("camera", "frozen", 0.25, 0.25),
    Sign("camera", "exposure", 0.5, 0.6),
    Sign("camera", "blurred", 0.92, 0.6),
    Sign("camera", "dirty", picture_signs.SPLASH, 0.6),
    Sign("audio", "dead", 64.0, 0.3),
    Sign("audio", "wind", 0.45, 0.6),
    Sign("audio", "clipping", 0.1, 0.6),
    Sign("lidar", "blocked", 4.0, 0.5),
    Sign("lidar", "ghosts", 0.033, 1.0),
    Sign("imu", "stuck", 0.2, 0.1),
    Sign("imu", "biased", 1.0, 0.6),
    Sign("gnss", "jumping", 2.0, 0.1),
    Sign("gnss", "frozen", 1.0, 0.5),
    Sign("vehicle", "speed", 1.0, 1.0),
    Sign("vehicle", "yaw", 0.06, 0.6),
)
_ORDER: Final = (
    *(("camera", kind) for kind in picture_signs.KINDS),
    *(("audio", kind) for kind in sound_signs.KINDS),
    *(("lidar", kind) for kind in lidar_signs.KINDS),
    *(("imu", kind) for kind in motion_signs.KINDS),
    *(("gnss", kind) for kind in motion_signs.GNSS_KINDS),
    *(("vehicle", kind) for kind in motion_signs.VEHICLE_KINDS),
)


class Reading(NamedTuple):
    """What a frame's modalities say of each other.

    Attributes:
        agreement: 0..1; 1 where all is as usual.
        suspects: at most one a stream.
    """

    agreement: float
    suspects: tuple[Suspect, ...]


class Agreement:
    """Watches the streams of one vehicle.

    Args:
        streams: the stream table of the loop, in whose order the picks come.

    Attributes:
        space: 0..1, how much the last frame's embeddings agreed; 1 where nothing was known.
    """

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self._row = {stream.name: row - 1 for row, stream in enumerate(streams)}
        self._picture, self._sound = PictureSigns(), SoundSigns()
        self._lidar, self._motion = LidarSigns(), MotionSigns()
        self._space = SharedSpace(tuple(ENCODERS))
        self.space = 1.0
        self._last_ns: int | None = None
        self._elapsed_s = 0.0  # of the frame that was looked at
        self._present: set[str] = set()
        self._evidence = [0.0] * len(SIGNS)
        self._since_ns = [0] * len(SIGNS)
        self._named = [False] * len(SIGNS)
        self._suspected: frozenset[str] = frozenset()

    def see(self, frames: FrameSet, small: NDArray[np.uint8] | None, embeddings: Mapping[str, NDArray[Any]]) -> Reading:
        """Take a frame.

        Args:
            frames: what the streams gave to it; any may be absent.
            small: (about 96, about 160) grey picture; None where there is none.
            embeddings: by encoder, of this frame; empty without a shared space.
        """
        self.look(frames, small)
        return self.conclude(embeddings)

    def look(self, frames: FrameSet, small: NDArray[np.uint8] | None) -> None:
        """Take a frame's samples, before its embeddings are known."""
        last_ns = self._last_ns
        self._elapsed_s = 0.0 if last_ns is None else min(max(frames.stamp_ns - last_ns, 0) / SECOND, _LONGEST_S)
        self._last_ns = frames.stamp_ns
        self._present = self._take(frames, small, self._elapsed_s)

    def conclude(self, embeddings: Mapping[str, NDArray[Any]]) -> Reading:
        """What the frame that was looked at says, with its embeddings."""
        assert self._last_ns is not None  # a frame was seen
        self.space = self._space.see(embeddings, self._elapsed_s, self._encoders_suspected())
        suspects = self._name(self._present, self._elapsed_s, self._last_ns)
        worst = max([suspect.evidence for suspect in suspects], default=0.0)
        return Reading(min(self.space, 1.0 - worst), suspects)

    def forget_space(self) -> None:
        """Embeddings come from another bundle from here on: how like each other they are is to be learned anew."""
        self._space = SharedSpace(tuple(ENCODERS))
        self.space = 1.0

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        own = (
            self.space,
            self._last_ns,
            list(self._evidence),
            list(self._since_ns),
            list(self._named),
            self._suspected,
        )
        return {"own": own, **{name: _copied(vars(part)) for name, part in self._parts().items()}}

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Take a frozen state."""
        self.space, self._last_ns, evidence, since_ns, named, self._suspected = frozen["own"]
        self._evidence, self._since_ns, self._named = list(evidence), list(since_ns), list(named)
        for name, part in self._parts().items():
            vars(part).update(_copied(frozen[name]))

    def _parts(self) -> dict[str, Any]:
        return {
            "picture": self._picture,
            "sound": self._sound,
            "lidar": self._lidar,
            "motion": self._motion,
            "space": self._space,
        }

    def _take(self, frames: FrameSet, small: NDArray[np.uint8] | None, elapsed_s: float) -> set[str]:
        """Let each part see what is its; the streams that gave something."""
        samples = {name: frames.picks[row].samples for name, row in self._row.items() if row >= 0}
        present = {name for name, some in samples.items() if some}
        if small is not None and small.size:
            present.add("camera")
            self._picture.see(small, elapsed_s, "camera" in self._suspected)
        if samples.get("audio"):
            self._sound.hear(samples["audio"])
        if samples.get("lidar"):
            self._lidar.see(samples["lidar"][0], "lidar" in self._suspected)
        self._motion.feel(
            elapsed_s,
            samples.get("imu", ()),
            samples.get("vehicle", ()),
            samples.get("gnss", ()),
            "imu" in self._suspected,
        )
        return present

    def _encoders_suspected(self) -> list[str]:
        return [name for name, stream in ENCODERS.items() if stream in self._suspected]

    def _name(self, present: set[str], elapsed_s: float, stamp_ns: int) -> tuple[Suspect, ...]:
        motion = self._motion
        measures = (
            *self._picture.measures,
            *self._sound.measures,
            *self._lidar.measures,
            *motion.imu,
            *motion.gnss,
            *motion.vehicle,
        )
        suspected: set[str] = set()
        growing: set[str] = set()  # streams of which an earlier sign of the table is over its limit: it goes first
        suspects: dict[str, Suspect] = {}
        for i, sign in enumerate(SIGNS):
            over = sign.stream in present and measures[_PLACE[i]] >= sign.limit
            before = self._evidence[i]
            step = elapsed_s / sign.patience_s if sign.patience_s else 1.0
            evidence = min(before + step, _FULL) if over else max(before - step, 0.0)
            if over and before == 0.0:
                self._since_ns[i] = stamp_ns
            self._evidence[i] = evidence
            self._named[i] = evidence >= (_KEPT if self._named[i] else 1.0)
            if evidence:
                suspected.add(sign.stream)
            if self._named[i] and sign.stream not in suspects and sign.stream not in growing:
                suspects[sign.stream] = Suspect(sign.stream, sign.kind, min(evidence, 1.0), self._since_ns[i])
            if over:
                growing.add(sign.stream)
        self._suspected = frozenset(suspected)
        return tuple(suspects.values())


_PLACE: Final = tuple(_ORDER.index((sign.stream, sign.kind)) for sign in SIGNS)


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.copy() if isinstance(value, np.ndarray | list | dict) else value for name, value in state.items()
    }
