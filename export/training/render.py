"""Renders planned worlds into arrays: the tensors that the vehicle would build, and the truth beside them.

Tensors come from `edge.preprocess`, the vehicle's own code, from the samples that the vehicle's stream table would pick
for the frame instant had nothing been late. Pictures stay JPEG, as in a drive.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.drive import topics
from edge.preprocess import lidar_into, motion_into, pcm_into
from edge.samples import AudioChunk, Frame, GnssFix, ImuSample, Sweep, VehicleState
from edge.streams import SECOND
from export.model.contract import LIDAR_VIEW
from export.training.plan import WARM_UP_S, WorldPlan
from export.training.targets import surface_of
from export.world.simulate import WorldConfig, simulate
from roadfuse.v1.truth_pb2 import GroundTruth

AUDIO_WINDOW_NS = 1_040_000_000
GNSS_TOLERANCE_NS = 1_500_000_000
VEHICLE_AHEAD_NS = 25_000_000
LIDAR_AHEAD_NS, LIDAR_TOLERANCE_NS = 20_000_000, 150_000_000

S = TypeVar("S", AudioChunk, ImuSample, GnssFix)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Frames of one world, in time.

    jpeg: by frame. pcm: (n, 16000) int16. motion: (n, 12, 50) float32. lidar: (n, 2, 16, 256) float16. surface:
    (n, 48, 80) uint8. truths: serialised GroundTruth without lanes and surface.
    """

    jpeg: list[bytes]
    pcm: NDArray[np.int16]
    motion: NDArray[np.float32]
    lidar: NDArray[np.float16]
    surface: NDArray[np.uint8]
    truths: list[bytes]


@dataclass(slots=True)
class Streams:
    """Samples so far, by stream and stamp."""

    audio: list[AudioChunk] = field(default_factory=list)
    imu: list[ImuSample] = field(default_factory=list)
    vehicle: list[VehicleState] = field(default_factory=list)
    gnss: list[GnssFix] = field(default_factory=list)
    lidar: list[Sweep] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    truths: dict[int, GroundTruth] = field(default_factory=dict)

    def rendered(self, used: Sequence[Frame]) -> Rendered:
        """These frames with what the vehicle would have had at each; every one has its truth."""
        count = len(used)
        pcm = np.zeros((count, 16000), np.int16)
        motion = np.zeros((count, 12, 50), np.float32)
        lidar = np.zeros((count, 2, 16, 256), np.float16)
        wave, ranges = np.zeros(16000, np.float32), np.zeros((2, 16, 256), np.float32)
        for row, frame in enumerate(used):
            stamp = frame.stamp_ns
            sound = window(self.audio, stamp, AUDIO_WINDOW_NS)
            if sound:
                pcm_into(wave, sound, stamp, 16000)
                pcm[row] = np.round(wave * 32768.0).clip(-32768, 32767)
            gnss = window(self.gnss, stamp, GNSS_TOLERANCE_NS)[-1:]
            imu = window(self.imu, stamp, SECOND)
            motion_into(motion[row], stamp, SECOND, imu, around(self.vehicle, stamp), gnss)
            sweep = nearest_sweep(self.lidar, stamp)
            if sweep is not None:
                lidar_into(ranges, sweep.points_lidar, **LIDAR_VIEW)
                lidar[row] = ranges
        truths = [self.truths[frame.stamp_ns] for frame in used]
        surface = np.stack([surface_of(truth) for truth in truths])
        return Rendered([frame.jpeg for frame in used], pcm, motion, lidar, surface, [_slim(truth) for truth in truths])

    def add(self, sample: object) -> None:
        """Keeps a sample of one of the streams; others are let go."""
        kept: dict[type, Any] = {
            AudioChunk: self.audio, ImuSample: self.imu, VehicleState: self.vehicle, GnssFix: self.gnss,
            Sweep: self.lidar, Frame: self.frames,
        }  # fmt: skip
        if type(sample) in kept:
            kept[type(sample)].append(sample)


def render(plan: WorldPlan) -> Rendered:
    """One world, as arrays of `plan.frames` frames."""
    cv2.setNumThreads(1)
    streams = _gather(plan)
    return streams.rendered(streams.frames[WARM_UP_S * plan.fps :])


def window(samples: Sequence[S], stamp_ns: int, length_ns: int) -> Sequence[S]:
    """Samples of (stamp - length, stamp]."""
    first = bisect_right(samples, stamp_ns - length_ns, key=lambda sample: sample.stamp_ns)
    return samples[first : bisect_right(samples, stamp_ns, key=lambda sample: sample.stamp_ns)]


def around(samples: Sequence[VehicleState], stamp_ns: int) -> Sequence[VehicleState]:
    """The sample at or before an instant and the one after it, where they exist."""
    after = bisect_left(samples, stamp_ns, key=lambda sample: sample.stamp_ns)
    pair = samples[max(after - 1, 0) : after + 1]
    return [sample for sample in pair if sample.stamp_ns - stamp_ns <= VEHICLE_AHEAD_NS]


def nearest_sweep(sweeps: Sequence[Sweep], stamp_ns: int) -> Sweep | None:
    """The sweep nearest to an instant, unless it is too old or too young."""
    fit = [s for s in sweeps if -LIDAR_TOLERANCE_NS <= s.stamp_ns - stamp_ns <= LIDAR_AHEAD_NS]
    return min(fit, key=lambda sweep: abs(sweep.stamp_ns - stamp_ns), default=None)


def _gather(plan: WorldPlan) -> Streams:
    streams = Streams()
    config = WorldConfig(
        plan.seed, float(plan.seconds), plan.scenario, plan.weather, plan.light, fps=plan.fps, town=plan.town,
        lidar=not plan.pictures_only,
    )  # fmt: skip
    for event in simulate(config):
        if event.topic == topics.TRUTH and isinstance(event.message, GroundTruth):
            streams.truths[event.capture_ns] = event.message
        else:
            streams.add(event.sample)
    return streams


def _slim(truth: GroundTruth) -> bytes:
    del truth.lanes[:]
    truth.surface_mask = b""
    return truth.SerializeToString(deterministic=True)
