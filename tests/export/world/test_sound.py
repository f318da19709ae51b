"""Doppler, levels and bearings, measured from the audio."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export.world.journey import undertake
from export.world.motion import Motion
from export.world.places import PLACES
from export.world.road import Road, Section
from export.world.scenario import Stretch, compose
from export.world.seeds import generator
from export.world.sound.microphone import RATE_HZ, Microphone
from export.world.sound.path import SOUND_MPS, SourcePath
from export.world.sound.sirens import SirenTone
from export.world.town import town
from export.world.track import STEP_S, Track
from export.world.weather import Weather

SPEED_MPS = 25.0


def straight_road() -> Road:
    knots = np.arange(2001.0)
    zero, one = np.zeros(2001), np.ones(2001)
    section = Section(0.0, 2000.0, PLACES["highway"], 2, 3.5, 0.0, 30.0)
    return Road((section,), knots, zero, zero, zero, 2 * one, 3.5 * one, zero, 2.0 * one, zero)


def track(id: int, start_m: float, d_m: float, speed_mps: float, seconds: float) -> Track:
    steps = round(seconds / STEP_S) + 1
    s = start_m + speed_mps * STEP_S * np.arange(steps)
    flat = np.zeros(steps)
    return Track(id, "vehicle", "emergency", 0, s, flat + d_m, flat + speed_mps, flat, flat, (5.0, 2.0, 2.5), 3)


def peak_hz(wave: np.ndarray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * len(wave)))
    frequency = np.fft.rfftfreq(8 * len(wave), 1.0 / RATE_HZ)
    band = (frequency > low) & (frequency < high)
    return float(frequency[band][np.argmax(spectrum[band])])


def test_a_passing_siren_shifts_by_its_speed() -> None:
    road = straight_road()
    motion = Motion(1, road, track(1, 1000.0, -1.7, 0.0, 30.0))
    path = SourcePath(road, track(2, 700.0, 1.7, SPEED_MPS, 30.0))
    tone = SirenTone("hi_lo", 3)
    emitted_low = float(tone.frequency_hz[: len(tone.frequency_hz) // 2].mean())
    for second, sign in ((4.0, 1.0), (21.0, -1.0)):
        time_s = second + np.arange(2 * RATE_HZ) / RATE_HZ
        heard = path.heard(motion, time_s)
        low = np.mod(heard.emitted_s / tone.period_s, 1.0) < 0.5
        first = int(np.flatnonzero(low[:-1] & ~np.roll(low, 1)[:-1])[0])
        piece = tone.sound(heard.emitted_s)[first : first + int(0.4 * tone.period_s * RATE_HZ)]
        expected = emitted_low / (1.0 - sign * SPEED_MPS / SOUND_MPS)
        assert peak_hz(piece, 300.0, 700.0) == pytest.approx(expected, rel=0.006)


def test_distance_and_bearing_follow_the_source() -> None:
    road = straight_road()
    motion = Motion(1, road, track(1, 1000.0, -1.7, 0.0, 30.0))
    path = SourcePath(road, track(2, 700.0, 1.7, SPEED_MPS, 30.0))
    early, late = (path.heard(motion, np.array([t, t + 0.01])) for t in (2.0, 25.0))
    assert abs(early.bearing_rad[0]) > 3.0 and abs(late.bearing_rad[0]) < 0.1
    delay = early.distance_m[0] / SOUND_MPS
    assert early.distance_m[0] == pytest.approx(300.0 - SPEED_MPS * (2.0 - delay), abs=0.5)


@pytest.fixture(scope="module")
def siren_drive() -> tuple[Microphone, Motion, Track, float]:
    scenario = compose(5, "siren", 20.0, "clear", "day")
    journey = undertake(5, town(0), scenario, 20.0)
    motion = Motion(5, journey.road, journey.ego)
    microphone = Microphone(5, town(0), journey, Weather(5, scenario), motion)
    vehicle = next(t for t in journey.vehicles if t.id == journey.sirens[0].vehicle_id)
    path = SourcePath(journey.road, vehicle)
    grid = np.arange(0.0, 19.0, 0.05)
    distance = [float(path.heard(motion, np.array([t, t + 1e-3])).distance_m[0]) for t in grid]
    return microphone, motion, vehicle, float(grid[int(np.argmin(distance))])


def test_the_listed_level_of_a_near_siren_is_the_level_in_the_audio(
    siren_drive: tuple[Microphone, Motion, Track, float],
) -> None:
    microphone, _, _, passes_s = siren_drive
    levels = {level.name: level for level in microphone.levels(passes_s)}
    pcm = microphone.pcm(round((passes_s - 0.1) * RATE_HZ), RATE_HZ // 10).astype(float) / 32768.0
    measured = 10.0 * math.log10(float((np.arctanh(np.clip(pcm, -0.999, 0.999)) ** 2).mean()))
    assert levels["siren"].level_dbfs == pytest.approx(measured, abs=1.5)
    assert levels["siren"].level_dbfs > -20.0


def test_only_what_can_be_heard_is_listed() -> None:
    scenario = compose(9, "highway", 6.0, "rain", "day")
    journey = undertake(9, town(0), scenario, 6.0)
    motion = Motion(9, journey.road, journey.ego)
    microphone = Microphone(9, town(0), journey, Weather(9, scenario), motion)
    for time_s in (1.0, 3.0, 5.0):
        levels = microphone.levels(time_s)
        assert {"engine", "rain"} <= {level.name for level in levels}
        assert "footsteps" not in {level.name for level in levels}
        assert all(level.level_dbfs > -45.0 for level in levels)


def test_generator_names_are_independent() -> None:
    assert generator(1, "a").random() == generator(1, "a").random() != generator(1, "b").random()
    assert Stretch("urban", 1.0).place in PLACES


def test_an_onset_counts_from_when_a_sound_begins_to_be_heard() -> None:
    scenario = compose(42, "varied", 20.0, "clear", "day")
    journey = undertake(42, town(0), scenario, 20.0)
    motion = Motion(42, journey.road, journey.ego)
    microphone = Microphone(42, town(0), journey, Weather(42, scenario), motion)
    path = {t.id: SourcePath(journey.road, t) for t in journey.vehicles}
    checked = 0
    for horn in (h for h in journey.horns if h.start_s < 18.0 and h.vehicle_id in path):
        delay = float(path[horn.vehicle_id].heard(motion, np.array([horn.start_s, horn.start_s + 1e-3])).distance_m[0])
        time_s = horn.start_s + delay / SOUND_MPS + 0.4
        heard = {level.name: level for level in microphone.levels(time_s)}
        if "horn" in heard:
            assert heard["horn"].onset_s == pytest.approx(0.4, abs=0.11)
            checked += 1
    assert checked
    assert next(level for level in microphone.levels(18.5) if level.name == "engine").onset_s == pytest.approx(
        18.5, abs=0.06
    )


def test_snow_dampens_the_tyres_and_what_is_far() -> None:
    power = {}
    for weather in ("clear", "snow"):
        scenario = compose(9, "highway", 4.0, weather, "day")
        journey = undertake(9, town(0), scenario, 4.0)
        microphone = Microphone(9, town(0), journey, Weather(9, scenario), Motion(9, journey.road, journey.ego))
        spectrum = np.abs(np.fft.rfft(microphone.pcm(0, 3 * RATE_HZ).astype(float)))
        power[weather] = float((spectrum[900:6000] ** 2).mean())  # 300 to 2000 Hz, above the engine
    assert power["snow"] < 0.8 * power["clear"]
