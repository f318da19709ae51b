"""Alignment in meaning: who is named for what, who is not, and what a state is worth.

A small synthetic vehicle drives a slalom past a moving texture; faults are planted into its samples as the benchmark
plants them into the world's drives.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.planted_faults import FAULTS, Planted
from edge.alignment.agreement import SIGNS, Agreement, Reading
from edge.alignment.shared_space import SharedSpace
from edge.frameset import EmitReason, FrameSet, Pick
from edge.samples import AudioChunk, Frame, GnssFix, ImuSample, Sweep, VehicleState
from edge.streams import MS, SECOND, STREAMS

START = 1000 * SECOND
FAULT_S = 4.0
PERIOD_S = 0.05
ORDER = [stream.name for stream in STREAMS[1:]]
ABSENT = Pick((), 0, "silent")
Plant = Callable[[str, Any], Any]


@dataclass
class Vehicle:
    """Drives with 12 m/s; all sensors are healthy."""

    seed: int = 3
    speed_mps: float = 12.0

    def __post_init__(self) -> None:
        rng = self.rng = np.random.default_rng(self.seed)
        self.street = np.full((192, 1600, 3), 120, np.uint8)
        for _ in range(1600):  # things with edges
            x, y, wide, high = (int(rng.integers(most)) for most in (1600, 192, 40, 30))
            grey = int(rng.integers(40, 200))
            cv2.rectangle(self.street, (x, y), (x + wide, y + high), (grey, grey, grey), -1)
        self.noise = rng.normal(0.0, 2.0, (4, 192, 320, 3)).astype(np.float32)
        azimuth = np.repeat(np.linspace(-np.pi, np.pi, 360, endpoint=False), 8) + 0.001
        reach = np.tile(np.linspace(6.0, 40.0, 8), 360)
        flat = np.zeros_like(reach)
        self.points = np.stack([reach * np.cos(azimuth), reach * np.sin(azimuth), flat - 1.8, flat + 0.3], 1)
        self.windows: dict[str, list[Any]] = {"audio": [], "imu": []}
        self.made = {"audio": 0, "imu": 0, "lidar": 0}
        self.last: dict[str, Any] = {}

    def yaw_rate(self, time_s: float) -> float:
        return 0.1 * math.sin(0.8 * time_s) if self.speed_mps else 0.0

    def frames(self, number: int, plant: Plant, *absent: str) -> tuple[FrameSet, NDArray[np.uint8] | None]:
        """The FrameSet of a frame and its small picture."""
        time_s, now_ns = number * PERIOD_S, START + round(number * PERIOD_S * SECOND)
        self._until(time_s, plant)
        samples = {
            "audio": [chunk for chunk in self.windows["audio"] if chunk.stamp_ns > now_ns - SECOND],
            "imu": [sample for sample in self.windows["imu"] if sample.stamp_ns > now_ns - SECOND],
            "gnss": [self.last["gnss"]], "vehicle": [self.last["vehicle"]], "lidar": [self.last["lidar"]],
        }  # fmt: skip
        picks = [ABSENT if name in absent else Pick(samples[name], 0, "") for name in ORDER]
        frame = None
        if "camera" not in absent:
            at = int(100 * time_s * self.speed_mps / 12.0)
            shown = self.street[:, at : at + 320] + self.noise[number % 4]
            frame = plant("camera", Frame(now_ns, number, np.clip(shown, 0, 255).astype(np.uint8)))
        found = FrameSet(now_ns, frame, number, now_ns, EmitReason.SETTLED, picks)
        return found, None if frame is None else small(frame.image)

    def _until(self, time_s: float, plant: Plant) -> None:
        rng, yaw_rate = self.rng, self.yaw_rate(time_s)
        while self.made["imu"] <= time_s * 100:
            at_s = self.made["imu"] / 100
            shake = rng.normal(0.0, 0.05, 6)
            turn = self.yaw_rate(at_s)
            accel = shake[0], self.speed_mps * turn + shake[1], 9.81 + shake[2]
            sample = ImuSample(START + round(at_s * SECOND), self.made["imu"], accel, (0.0, 0.0, turn + 0.1 * shake[5]))
            self.windows["imu"] = [*self.windows["imu"][-110:], plant("imu", sample)]
            self.made["imu"] += 1
        while self.made["audio"] <= time_s * 50:
            pcm = np.asarray(rng.normal(0.0, 700.0, 320), np.int16)
            chunk = AudioChunk(START + self.made["audio"] * 20 * MS, self.made["audio"], 16_000, pcm)
            self.windows["audio"] = [*self.windows["audio"][-60:], plant("audio", chunk)]
            self.made["audio"] += 1
        now_ns = START + round(time_s * SECOND)
        self.last["vehicle"] = VehicleState(now_ns, round(time_s * 20), self.speed_mps, yaw_rate_radps=yaw_rate)
        while self.made["lidar"] <= time_s * 10:
            number, at_ns = self.made["lidar"], START + self.made["lidar"] * 100 * MS
            points = np.asarray(self.points * rng.uniform(0.98, 1.02, (len(self.points), 1)), np.float32)
            self.last["lidar"] = plant("lidar", Sweep(at_ns, number, points))
            heading = self.yaw_rate(time_s) and -0.125 * math.cos(0.8 * number * 0.1)
            self.east = getattr(self, "east", 0.0) + self.speed_mps * math.cos(heading) * 0.1
            self.north = getattr(self, "north", 0.0) + self.speed_mps * math.sin(heading) * 0.1
            velocity = self.speed_mps * math.cos(heading), self.speed_mps * math.sin(heading), 0.0
            place = 50.0 + self.north / 111_195.0, 8.0 + self.east / (111_195.0 * math.cos(math.radians(50.0)))
            self.last["gnss"] = plant("gnss", GnssFix(at_ns, number, *place, 100.0, velocity))
            self.made["lidar"] += 1


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shrunk = cv2.resize(image, (160, 96), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(shrunk, cv2.COLOR_BGR2GRAY), np.uint8)


def healthy(stream: str, sample: Any) -> Any:
    return sample


def driven(
    plant: Plant = healthy,
    seconds: float = 6.0,
    absent: Callable[[float], tuple[str, ...]] = lambda time_s: (),
    vehicle: Vehicle | None = None,
    agreement: Agreement | None = None,
) -> list[Reading]:
    vehicle, agreement = vehicle or Vehicle(), agreement or Agreement(STREAMS)
    return [
        agreement.see(*vehicle.frames(number, plant, *absent(number * PERIOD_S)), {})
        for number in range(round(seconds / PERIOD_S))
    ]


def named(readings: list[Reading]) -> set[str]:
    return {f"{suspect.stream} {suspect.kind}" for reading in readings for suspect in reading.suspects}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_planted_fault_is_named_within_two_seconds_and_no_other_stream(fault: str) -> None:
    readings = driven(Planted(fault, START + round(FAULT_S * SECOND), seed=1))
    first = next(reading for reading in readings if reading.suspects)
    assert [f"{suspect.stream} {suspect.kind}" for suspect in first.suspects] == [fault]
    assert {name.split()[0] for name in named(readings)} == {fault.split()[0]}
    since_s = (first.suspects[0].since_ns - START) / SECOND
    assert FAULT_S - 0.01 <= since_s < FAULT_S + 1.9
    assert readings[-1].agreement < 0.5 < readings[int(FAULT_S / PERIOD_S) - 5].agreement


def test_a_healthy_drive_names_nobody() -> None:
    readings = driven(seconds=8.0)
    assert not named(readings)
    assert min(reading.agreement for reading in readings) == 1.0


def test_standing_still_names_nobody() -> None:
    assert not named(driven(vehicle=Vehicle(speed_mps=0.0)))


@pytest.mark.parametrize("stream", ["camera", *ORDER])
def test_an_absent_stream_is_not_named_and_gets_nobody_else_named(stream: str) -> None:
    gone = driven(seconds=7.0, absent=lambda time_s: (stream,) if 2.0 < time_s < 4.5 else ())
    assert not named(gone)
    assert not named(driven(seconds=3.0, absent=lambda time_s: (stream,)))


def test_a_suspect_that_went_absent_is_no_longer_named() -> None:
    plant = Planted("imu stuck", START + round(FAULT_S * SECOND), seed=1)
    readings = driven(plant, 8.0, lambda time_s: ("imu",) if time_s > 6.0 else ())
    assert named(readings[100:120]) == {"imu stuck"}
    assert not readings[-1].suspects


def test_night_and_fog_that_come_slowly_over_all_of_the_picture_name_nobody() -> None:
    def darker(stream: str, sample: Any) -> Any:
        if stream != "camera":
            return sample
        part = min(max((sample.stamp_ns - START) / SECOND - 2.0, 0.0) / 3.0, 1.0)  # within 3 s
        veiled = 25.0 * part + (1.0 - 0.75 * part) * sample.image
        return sample._replace(image=veiled.astype(np.uint8))

    assert not named(driven(darker, 8.0))


def test_gnss_without_its_stamps_in_order_names_nobody() -> None:
    def stepping(stream: str, sample: Any) -> Any:
        late = stream == "gnss" and sample.stamp_ns > START + 3 * SECOND
        return sample._replace(stamp_ns=sample.stamp_ns + SECOND // 2) if late else sample

    assert not named(driven(stepping))


def test_the_bus_is_named_where_gnss_and_its_own_places_are_against_it() -> None:
    def slipping(stream: str, sample: Any) -> Any:
        return sample

    vehicle, agreement, found = Vehicle(), Agreement(STREAMS), set[str]()
    for number in range(140):
        frames, picture = vehicle.frames(number, slipping)
        if number > 60:
            row = ORDER.index("vehicle")
            state = frames.picks[row].samples[0]
            frames.picks[row] = Pick([state._replace(speed_mps=state.speed_mps * 1.3)], 0, "")
        found |= named([agreement.see(frames, picture, {})])
    assert "vehicle speed" in found
    assert not {name for name in found if name.startswith("gnss")}


@given(
    seed=st.integers(0, 50), number=st.integers(0, 60), later=st.integers(1, 40), fault=st.sampled_from(sorted(FAULTS))
)
@settings(max_examples=6)
def test_a_thawed_state_says_what_the_frozen_one_would(seed: int, number: int, later: int, fault: str) -> None:
    plant = Planted(fault, START + SECOND, seed)
    vehicle, one, other = Vehicle(seed, 12.0), Agreement(STREAMS), Agreement(STREAMS)
    embeddings = np.random.default_rng(seed).normal(size=(number + later, 2, 8)).astype(np.float32)
    for n in range(number + later):
        both = dict(zip(("camera", "audio"), embeddings[n]))
        frames, picture = vehicle.frames(n, plant)
        if n == number:
            other.thaw(pickle.loads(pickle.dumps(one.freeze())))
        reading = one.see(frames, picture, both)
        if n >= number:
            assert other.see(frames, picture, both) == reading


def test_a_state_does_not_grow() -> None:
    vehicle, agreement, sizes = Vehicle(), Agreement(STREAMS), []
    for number in range(160):
        agreement.see(*vehicle.frames(number, healthy), {})
        if number in (60, 159):
            sizes.append(len(pickle.dumps(agreement.freeze())))
    assert sizes[1] <= sizes[0] + 200  # numbers have more digits


NUMBER = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(
    numbers=st.lists(NUMBER, min_size=12, max_size=12),
    steps_ns=st.lists(st.integers(-3 * SECOND, 3 * SECOND), min_size=6, max_size=6),
    pcm=st.integers(0, 700),
    points=st.integers(0, 40),
)
@settings(max_examples=60)
def test_any_numbers_and_steps_of_the_clock_are_survived(
    numbers: list[float], steps_ns: list[int], pcm: int, points: int
) -> None:
    agreement, now_ns = Agreement(STREAMS), START
    a, b, c, d, e, f, g, h, i, j, k, m = numbers
    for number, step_ns in enumerate(steps_ns):
        now_ns += step_ns
        samples = {
            "audio": [AudioChunk(now_ns, number, 16_000, np.full(pcm, 32_767, np.int16))],
            "imu": [ImuSample(now_ns, number, (a, b, c), (d, e, f))],
            "gnss": [GnssFix(now_ns, number, g, h, 0.0, (i, j, 0.0))],
            "vehicle": [VehicleState(now_ns, number, k, yaw_rate_radps=m)],
            "lidar": [Sweep(now_ns, number, np.full((points, 4), a, np.float32))],
        }
        picks = [Pick(samples[name], 0, "") for name in ORDER]
        picture = np.full((96, 160), number, np.uint8)
        embeddings = {"camera": np.array(numbers, np.float32), "audio": np.ones((1, 12), np.float32)}
        frames = FrameSet(now_ns, None, number, now_ns, EmitReason.SETTLED, picks)
        reading = agreement.see(frames, picture, embeddings)
        assert 0.0 <= reading.agreement <= 1.0
        assert all(0.0 <= suspect.evidence <= 1.0 for suspect in reading.suspects)
    healthy_again = driven(agreement=agreement, seconds=1.0)[-1]
    assert math.isfinite(healthy_again.agreement)


def test_numbers_that_are_none_leave_nothing_behind() -> None:
    vehicle, agreement = Vehicle(), Agreement(STREAMS)
    for number in range(140):
        frames, picture = vehicle.frames(number, healthy)
        if number == 60:
            row = ORDER.index("imu")
            broken = frames.picks[row].samples[-1]._replace(accel_mps2=(math.nan,) * 3, gyro_radps=(math.nan,) * 3)
            frames.picks[row] = Pick([*frames.picks[row].samples[:-1], broken], 0, "")
        assert not agreement.see(frames, picture, {}).suspects


def test_a_modality_whose_embedding_turns_away_lowers_the_agreement_and_stands_out() -> None:
    rng = np.random.default_rng(1)
    space, names = SharedSpace(("camera", "audio", "lidar")), ("camera", "audio", "lidar")
    agreed = []
    for number in range(160):
        shared = rng.normal(size=64)
        embeddings = {name: (shared + rng.normal(0, 0.6, 64)).astype(np.float32) for name in names}
        if number >= 120:
            embeddings["audio"] = rng.normal(size=(1, 64)).astype(np.float32)
        agreed.append(space.see(embeddings, PERIOD_S, ()))
    assert min(agreed[:120]) > 0.9
    assert agreed[-1] < 0.4
    assert max(space.deviations, key=lambda name: space.deviations[name]) == "audio"


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_the_length_of_an_embedding_is_of_no_consequence(one: float, other: float) -> None:
    rng = np.random.default_rng(2)
    pairs = rng.normal(size=(60, 2, 16)).astype(np.float32)
    found = []
    for scales in ((1.0, 1.0), (one, other)):
        space = SharedSpace(("camera", "audio"))
        seen = [
            space.see({"camera": a * np.float32(scales[0]), "audio": b * np.float32(scales[1])}, 0.05, ())
            for a, b in pairs
        ]
        found.append(seen)
    np.testing.assert_allclose(*found, atol=1e-3)


def test_without_embeddings_nothing_is_known_of_the_space() -> None:
    space = SharedSpace(("camera", "audio"))
    assert space.see({}, 0.05, ()) == 1.0
    assert space.see({"camera": np.ones(4, np.float32)}, 0.05, ()) == 1.0
    assert space.see({"camera": np.ones(4, np.float32), "audio": np.ones(5, np.float32)}, 0.05, ()) == 1.0


def test_each_sign_has_a_limit_of_its_own() -> None:
    assert len({(sign.stream, sign.kind) for sign in SIGNS}) == len(SIGNS)
    assert set(FAULTS) <= {f"{sign.stream} {sign.kind}" for sign in SIGNS}
