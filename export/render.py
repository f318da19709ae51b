"""Renders planned worlds into arrays: the tensors that the vehicle would build, and the truth beside them.

Tensors come from `edge.preprocess`, the vehicle's own code, from the samples that the vehicle's stream table would pick
for the frame instant had nothing been late.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.drive import topics
from edge.preprocess import image_into, motion_into, pcm_into
from edge.samples import AudioChunk, Frame, GnssFix, ImuSample, VehicleState
from edge.streams import SECOND
from export.plan import FPS, WARM_UP_S, WorldPlan
from export.world.simulate import WorldConfig, simulate
from roadfuse.v1.truth_pb2 import GroundTruth

AUDIO_WINDOW_NS = 1_040_000_000
GNSS_TOLERANCE_NS = 1_500_000_000
VEHICLE_AHEAD_NS = 25_000_000

S = TypeVar("S", AudioChunk, ImuSample, GnssFix)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Frames of one world, in time.

    image: (n, 192, 320, 3) uint8. pcm: (n, 16000) int16. motion: (n, 12, 50) float32. truths: serialised GroundTruth
    without lanes.
    """

    image: NDArray[np.uint8]
    pcm: NDArray[np.int16]
    motion: NDArray[np.float32]
    truths: list[bytes]


@dataclass(slots=True)
class _Streams:
    """Samples so far, by stream and stamp."""

    audio: list[AudioChunk] = field(default_factory=list)
    imu: list[ImuSample] = field(default_factory=list)
    vehicle: list[VehicleState] = field(default_factory=list)
    gnss: list[GnssFix] = field(default_factory=list)
    pictures: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)
    truths: dict[int, bytes] = field(default_factory=dict)


def render(plan: WorldPlan) -> Rendered:
    """One world, as arrays of `plan.frames` frames."""
    cv2.setNumThreads(1)
    streams = _gather(plan)
    used = streams.pictures[WARM_UP_S * FPS :]
    image = np.stack([picture for _, picture in used])
    pcm = np.zeros((len(used), 16000), np.int16)
    motion = np.zeros((len(used), 12, 50), np.float32)
    wave = np.zeros(16000, np.float32)
    for row, (stamp, _) in enumerate(used):
        pcm_into(wave, window(streams.audio, stamp, AUDIO_WINDOW_NS), stamp, 16000)
        pcm[row] = np.round(wave * 32768.0)
        gnss = window(streams.gnss, stamp, GNSS_TOLERANCE_NS)[-1:]
        imu = window(streams.imu, stamp, SECOND)
        motion_into(motion[row], stamp, SECOND, imu, around(streams.vehicle, stamp), gnss)
    return Rendered(image, pcm, motion, [streams.truths[stamp] for stamp, _ in used])


def window(samples: Sequence[S], stamp_ns: int, length_ns: int) -> Sequence[S]:
    """Samples of (stamp - length, stamp]."""
    first = bisect_right(samples, stamp_ns - length_ns, key=lambda sample: sample.stamp_ns)
    return samples[first : bisect_right(samples, stamp_ns, key=lambda sample: sample.stamp_ns)]


def around(samples: Sequence[VehicleState], stamp_ns: int) -> Sequence[VehicleState]:
    """The sample at or before an instant and the one after it, where they exist."""
    after = bisect_left(samples, stamp_ns, key=lambda sample: sample.stamp_ns)
    pair = samples[max(after - 1, 0) : after + 1]
    return [sample for sample in pair if sample.stamp_ns - stamp_ns <= VEHICLE_AHEAD_NS]


def _gather(plan: WorldPlan) -> _Streams:
    streams = _Streams()
    config = WorldConfig(plan.seed, float(plan.seconds), plan.scenario, plan.weather, plan.light, fps=FPS, lidar=False)
    for event in simulate(config, encode=False):
        sample = event.sample
        if isinstance(sample, Frame) and sample.image is not None:
            small = np.empty((192, 320, 3), np.uint8)
            image_into(small, sample.image)
            streams.pictures.append((sample.stamp_ns, small))
        elif isinstance(sample, AudioChunk):
            streams.audio.append(sample)
        elif isinstance(sample, ImuSample):
            streams.imu.append(sample)
        elif isinstance(sample, VehicleState):
            streams.vehicle.append(sample)
        elif isinstance(sample, GnssFix):
            streams.gnss.append(sample)
        elif event.topic == topics.TRUTH and isinstance(event.message, GroundTruth):
            del event.message.lanes[:]
            streams.truths[event.capture_ns] = event.message.SerializeToString(deterministic=True)
    return streams
