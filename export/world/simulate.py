"""`simulate`: a seeded drive as a stream of events, in the order in which they would arrive on the vehicle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edge.drive import codec, topics
from edge.errors import ConfigError
from edge.samples import AudioChunk, Frame, Sweep
from export.world import can, rig
from export.world.bumps import SURFACES
from export.world.camera.camera import Camera
from export.world.delivery import Delivery, WorldEvent
from export.world.faults import Fault
from export.world.journey import undertake
from export.world.lidar import AZIMUTHS, RINGS, Lidar
from export.world.motion import Motion
from export.world.scenario import LIGHTS, SCENARIOS, WEATHERS, compose, require
from export.world.scene import Stage
from export.world.scenery import build_scenery
from export.world.sound.microphone import RATE_HZ, Microphone
from export.world.town import split_of, town, town_of
from export.world.truth import ground_truth
from export.world.weather import Weather

__all__ = ["START_NS", "Fault", "WorldConfig", "WorldEvent", "simulate"]

START_NS = 1_000_000_000_000  # drives start at 1000 s of the vehicle's clock
AUDIO_HZ, IMU_HZ, VEHICLE_HZ, GNSS_HZ, LIDAR_HZ = 50, 100, 50, 10, 10
LONGEST_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """What to simulate; weather, light and town None leave them to the scenario and the seed.

    lidar_columns, lidar_rings: rays of a sweep, around and upward. Any other LiDAR than the default one sees the
    shapes that the camera draws, where the default one sees boxes, and comes with a calibration that is not half a
    pixel off.
    """

    seed: int
    seconds: float = 60.0
    scenario: str = "mixed"
    weather: str | None = None
    light: str | None = None
    faults: tuple[Fault, ...] = ()
    width_px: int = 640
    height_px: int = 384
    fps: int = 20
    lidar: bool = True
    town: int | None = None
    surface: str = "smooth"
    lidar_columns: int = AZIMUTHS
    lidar_rings: int = RINGS

    def __post_init__(self) -> None:
        require("scenario", self.scenario, SCENARIOS)
        require("surface", self.surface, SURFACES)
        if self.weather is not None:
            require("weather", self.weather, WEATHERS)
        if self.light is not None:
            require("light", self.light, LIGHTS)
        if not 0.1 <= self.seconds <= LONGEST_S:
            raise ConfigError(f"seconds: expected 0.1..{LONGEST_S:g}, got {self.seconds:g}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected 0..2^63-1, got {self.seed}")
        if not (64 <= self.width_px <= 4096 and 64 <= self.height_px <= 4096):
            raise ConfigError(f"picture: expected 64..4096 pixels a side, got {self.width_px}x{self.height_px}")
        if self.town is not None:
            split_of(self.town)
        if not 1 <= self.fps <= 60:
            raise ConfigError(f"fps: expected 1..60, got {self.fps}")
        if not 90 <= self.lidar_columns <= 2048:
            raise ConfigError(f"lidar columns: expected 90..2048, got {self.lidar_columns}")
        if not 8 <= self.lidar_rings <= 128:
            raise ConfigError(f"lidar rings: expected 8..128, got {self.lidar_rings}")


def simulate(config: WorldConfig, encode: bool = True) -> Iterator[WorldEvent]:
    """The drive's events, ascending in arrival.

    Args:
        encode: put a JPEG into each Frame; without, only `Frame.image` is set.
    """
    drive = _Drive(config, encode)
    yield from drive.run()


@dataclass(slots=True)
class _Due:
    """The next sample of each stream, as counts since the start."""

    counts: dict[str, int] = field(default_factory=dict)

    def until(self, stream: str, rate_hz: float, end_s: float) -> range:
        """The numbers of the samples that fall before an instant, not handed out yet."""
        first = self.counts.get(stream, 0)
        last = math.ceil(end_s * rate_hz - 1e-6)
        self.counts[stream] = max(last, first)
        return range(first, max(last, first))


class _Drive:
    """All sensors of one drive."""

    def __init__(self, config: WorldConfig, encode: bool) -> None:
        scenario = compose(config.seed, config.scenario, config.seconds, config.weather, config.light)
        own = tuple(Fault(w.stream, w.kind, w.start_s, w.end_s) for w in scenario.faults)
        self.config, self.encode = config, encode
        self.town = town_of(config.seed) if config.town is None else config.town
        self.faults = (*own, *config.faults)
        place = town(self.town)
        journey = undertake(config.seed, place, scenario, config.seconds, config.surface)
        weather = Weather(config.seed, scenario)
        self.road = journey.road
        self.motion = Motion(config.seed, journey.road, journey.ego, journey.bumps)
        self.stage = Stage(journey, build_scenery(config.seed, place, scenario, journey), weather, self.motion)
        self.camera = Camera(config.seed, place, journey, weather, config.width_px, config.height_px)
        rays = config.lidar_columns, config.lidar_rings
        # drives with the default LiDAR keep the bytes that they had before there was another
        self.is_plain = rays == (AZIMUTHS, RINGS)
        self.lidar = Lidar(config.seed, *rays, None if self.is_plain else self.camera.drawn)
        self.microphone = Microphone(config.seed, place, journey, weather, self.motion)
        self.delivery = Delivery(config.seed, START_NS, self.faults)
        self.due = _Due()
        self.gnss_seq = 0

    def run(self) -> Iterator[WorldEvent]:
        """Advances from camera frame to camera frame."""
        first_centre_px = 0.0 if self.is_plain else 0.5
        for sequence, (topic, message) in enumerate(rig.messages(self.camera.lens, START_NS, first_centre_px)):
            self.delivery.tell(topic, message, START_NS, 0 if topic == topics.CALIBRATION else sequence - 1)
        frames = math.ceil(self.config.seconds * self.config.fps - 1e-6)
        for frame in range(frames):
            end_s = min((frame + 1) / self.config.fps, self.config.seconds)
            self._frame(frame)
            self._motion_sensors(end_s)
            self._sound(end_s)
            if self.config.lidar:
                self._lidar(end_s)
            yield from self.delivery.arrived(_stamp_ns(end_s))
        yield from self.delivery.arrived(2**63)

    def _frame(self, frame: int) -> None:
        time_s = frame / self.config.fps
        stamp = _stamp_ns(time_s)
        scene = self.stage.at(time_s)
        shot = self.camera.render(scene, frame)
        levels = self.microphone.levels(time_s)
        truth = ground_truth(scene, shot, levels, self.road, self.camera.lens, self.faults, stamp, frame)
        truth.town = self.town
        self.delivery.tell(topics.TRUTH, truth, stamp, frame)
        jpeg = codec.encode_jpeg(shot.picture) if self.encode else b""
        self.delivery.send("camera", Frame(stamp, frame, shot.picture, jpeg))

    def _motion_sensors(self, end_s: float) -> None:
        numbers = self.due.until("imu", IMU_HZ, end_s)
        if len(numbers):
            times = np.array(numbers) / IMU_HZ
            stamps = [_stamp_ns(n / IMU_HZ) for n in numbers]
            for imu in self.motion.imu(times, stamps, numbers.start):
                self.delivery.send("imu", imu)
        for number in self.due.until("vehicle", VEHICLE_HZ, end_s):
            time_s = number / VEHICLE_HZ
            state = self.motion.vehicle(time_s, _stamp_ns(time_s), number)
            self.delivery.send("vehicle", state)
            for frame in can.frames(state, _stamp_ns(time_s), 2 * number):
                self.delivery.send("can", frame)
        for number in self.due.until("gnss", GNSS_HZ, end_s):
            time_s = number / GNSS_HZ
            if self.road.section(self.motion.station_m(time_s)[0]).place.name == "tunnel":
                continue  # no satellites inside
            self.delivery.send("gnss", self.motion.gnss(time_s, _stamp_ns(time_s), self.gnss_seq, number))
            self.gnss_seq += 1

    def _sound(self, end_s: float) -> None:
        block = RATE_HZ // AUDIO_HZ
        for number in self.due.until("audio", AUDIO_HZ, end_s):
            pcm = self.microphone.pcm(number * block, block)
            self.delivery.send("audio", AudioChunk(_stamp_ns(number / AUDIO_HZ), number, RATE_HZ, pcm))

    def _lidar(self, end_s: float) -> None:
        for number in self.due.until("lidar", LIDAR_HZ, end_s):
            time_s = number / LIDAR_HZ
            points = self.lidar.sweep(self.stage.at(time_s), number)
            self.delivery.send("lidar", Sweep(_stamp_ns(time_s), number, points))


def _stamp_ns(time_s: float) -> int:
    return START_NS + round(time_s * 1e9)
