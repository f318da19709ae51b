"""Alignment in the loop: whether the streams of a frame tell of one event, one instant and one place.

    in time      how late picture and sound are, by what the IMU felt (online)
    in space     whether LiDAR and camera still sit to each other as calibrated (rig_monitor)
    in meaning   whether one modality has gone wrong, and which (agreement)

None of it changes what is fused: it says what to trust. What it costs is in docs/alignment.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.alignment.activity import small_grey
from edge.alignment.agreement import Agreement
from edge.alignment.offset import SURE
from edge.alignment.online import OnlineClocks
from edge.alignment.projection import Rig
from edge.alignment.rig_monitor import RigMonitor, RigReading
from edge.decision import IN_ORDER, Alignment, ClockOffset, RigDoubt
from edge.drive import topics
from edge.errors import AlignmentError, DriveFormatError
from edge.frameset import FrameSet
from edge.samples import RigMessage
from edge.streams import Stream

_MOST_TRANSFORMS: Final = 64
# A clock this late is no longer the microphone's place in the car, or a sensor's delay.
LATE_FROM_NS: Final = 60_000_000
# Between frames that are looked at; what they say stands for those in between. The rig is compared when it is due.
EVERY_NS: Final = 75_000_000
_LATE_FULL_NS: Final = 200_000_000


class Watch:
    """Watches one vehicle's streams.

    Args:
        streams: the stream table of the loop, in whose order the picks come.
    """

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self._row = {stream.name: row - 1 for row, stream in enumerate(streams)}
        self._agreement = Agreement(streams)
        self._clocks = OnlineClocks()
        self._rig: RigMonitor | None = None
        self._rig_doubt: RigDoubt | None = None  # as the last frame began
        self._looked_ns: int | None = None
        self._is_new = False  # whether the last frame was looked at
        self._said = IN_ORDER  # of the frame that was looked at last, but for the rig
        self._calibration = b""
        self._transforms: dict[str, bytes] = {}  # by the frame that each places

    def learn(self, message: RigMessage) -> None:
        """Takes a word on how camera and LiDAR sit; what is no use, or known already, leaves things as they were.

        Drives may repeat these with every frame: what was gathered about a rig must outlive that.
        """
        calibration = self._calibration
        try:
            if message.topic == topics.CALIBRATION:
                told = CameraCalibration.FromString(message.payload)
                told.ClearField("timestamp")
                calibration = told.SerializeToString(deterministic=True)
                if calibration == self._calibration:
                    return
            else:
                frame = FrameTransform.FromString(message.payload).child_frame_id
                is_full = len(self._transforms) == _MOST_TRANSFORMS
                if self._rig is not None or frame in self._transforms or is_full:  # a thaw builds the same rig again
                    return
                self._transforms[frame] = message.payload
        except DecodeError:
            return
        rig = self._monitor(calibration)
        if rig is not None or self._rig is None:
            self._calibration, self._rig = calibration, rig

    def look(self, frames: FrameSet) -> None:
        """Takes a frame's samples, before its embeddings are known."""
        self._rig_doubt = None if self._rig is None else _doubt(self._rig.reading)
        self._is_new = is_due(frames.stamp_ns, self._looked_ns)
        if not self._is_new:
            return
        self._looked_ns = frames.stamp_ns
        picture = None if frames.frame is None else frames.frame.image
        small = None if picture is None else small_grey(picture)
        self._agreement.look(frames, small)
        self._clocks.see(frames.stamp_ns, small, self._samples("audio", frames), self._samples("imu", frames))

    def place(self, frames: FrameSet) -> None:
        """Compares the frame's picture and sweep, if that is due: the next frame says what the rig looks like with it.

        After `look`; `conclude` may run meanwhile. Comparing takes longer than all else here, so nobody waits for it.
        """
        sweeps, states = self._samples("lidar", frames), self._samples("vehicle", frames)
        yaw_rate = states[-1].yaw_rate_radps if states else None
        if self._rig is not None and frames.frame is not None and sweeps and yaw_rate is not None:
            frame = frames.frame._replace(stamp_ns=frames.stamp_ns)  # its own clock may have been set
            self._rig.update(frame, sweeps[0], states[-1].speed_mps, yaw_rate)

    def conclude(self, embeddings: Mapping[str, NDArray[Any]]) -> Alignment:
        """What the frame that was looked at says.

        Args:
            embeddings: of this frame, by encoder, in one space; empty where a bundle has none.
        """
        if self._is_new:
            self._said = self._conclusion(embeddings)
        said, rig = self._said, self._rig_doubt
        return said if rig is None else said._replace(agreement=0.0, rig=rig)

    def _conclusion(self, embeddings: Mapping[str, NDArray[Any]]) -> Alignment:
        """Of all but the rig."""
        reading, clocks = self._agreement.conclude(embeddings), self._clocks
        both = (("camera", clocks.picture), ("audio", clocks.sound))
        told = [ClockOffset(stream, late.offset_ns, late.confidence) for stream, late in both if late is not None]
        late_ns = max([abs(clock.late_ns) for clock in told if clock.confidence >= SURE], default=0)
        in_time = 1.0 - min(max((late_ns - LATE_FROM_NS) / (_LATE_FULL_NS - LATE_FROM_NS), 0.0), 1.0)
        return Alignment(min(reading.agreement, in_time), reading.suspects, tuple(told), None)

    def forget_space(self) -> None:
        """Embeddings come from another bundle from here on."""
        self._agreement.forget_space()

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        return {
            "agreement": self._agreement.freeze(),
            "clocks": self._clocks.freeze(),
            "told": (self._calibration, dict(self._transforms)),
            "rig": None if self._rig is None else self._rig.freeze(),
            "said": (self._looked_ns, self._said),
        }

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Takes a frozen state."""
        self._agreement.thaw(frozen["agreement"])
        self._clocks.thaw(frozen["clocks"])
        self._looked_ns, self._said = frozen["said"]
        self._calibration, transforms = frozen["told"]
        self._transforms = dict(transforms)
        self._rig = self._monitor(self._calibration)
        if self._rig is not None:
            self._rig.thaw(frozen["rig"])

    def _monitor(self, calibration: bytes) -> RigMonitor | None:
        """Of the rig that is described; None where that is not known, or makes no sense."""
        if not calibration or not self._transforms:
            return None
        transforms = [FrameTransform.FromString(payload) for payload in self._transforms.values()]
        try:
            return RigMonitor(Rig.from_messages(CameraCalibration.FromString(calibration), transforms))
        except (DriveFormatError, AlignmentError):
            return None

    def _samples(self, stream: str, frames: FrameSet) -> Any:
        row = self._row.get(stream)
        return () if row is None else frames.picks[row].samples


def _doubt(reading: RigReading) -> RigDoubt | None:
    """What is wrong with the rig; None while nothing is."""
    if not reading.is_in_doubt:
        return None
    return RigDoubt(reading.axis, reading.amount, reading.since_ns, reading.score)


def is_due(stamp_ns: int, last_ns: int | None) -> bool:
    """Whether a frame is looked at, where one was looked at last; after a clock that went back, at once."""
    return last_ns is None or not last_ns <= stamp_ns < last_ns + EVERY_NS
