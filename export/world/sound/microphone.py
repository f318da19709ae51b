"""The microphone: every source of a journey mixed second by second, and the level of each as it was mixed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export.world.journey import Journey
from export.world.motion import Motion
from export.world.seeds import generator
from export.world.sound import noise
from export.world.sound.engine import Engine
from export.world.sound.path import SourcePath
from export.world.sound.sirens import HORN_DBFS_10M, SIREN_DBFS_10M, SirenTone, horn
from export.world.sound.thump import THUMP_S, thump
from export.world.sound.voice import Voice
from export.world.town import Town
from export.world.track import Track
from export.world.weather import Weather

F64 = NDArray[np.float64]

RATE_HZ = 16_000
BIN_HZ = 100  # levels are kept in bins of 10 ms
AUDIBLE_DBFS = -45.0
MASKED_DB = 22.0  # a source this far below everything else is not heard
SLOW = ("footsteps", "speech")  # come in bursts: judged over a longer time
FAST_S, SLOW_S = 0.1, 0.6  # how long before an instant its sounds are judged
ONSET_HZ = 20  # onsets are told on this grid
PAUSE_S = {"footsteps": 1.5, "speech": 2.0, "siren": 1.0}  # a shorter silence does not end a sound
SHORT_PAUSE_S = 0.3
ECHOES = ((0.043, 0.45), (0.071, 0.36), (0.113, 0.28), (0.167, 0.2), (0.239, 0.14))


@dataclass(frozen=True, slots=True)
class Level:
    """One audible source at one instant.

    prominence_db: level against everything else. onset_s: how long it has been heard.
    """

    name: str
    level_dbfs: float
    bearing_rad: float | None
    prominence_db: float
    onset_s: float


@dataclass(slots=True)
class _Heard:
    """Power per bin of one source in one second, and its bearing at the bins."""

    name: str
    power: F64
    bearing_rad: F64 | None


class Microphone:
    """Sound of one journey at 16 kHz, full scale 1."""

    def __init__(self, seed: int, town: Town, journey: Journey, weather: Weather, motion: Motion) -> None:
        rng = generator(seed, "sound")
        self._seed, self._journey, self._weather, self._motion = seed, journey, weather, motion
        self._hearing = town.hearing
        self._blows_s = np.array([blow.time_s for blow in motion.blows])
        self._engine = Engine(seed, town.hearing, journey.ego)
        self._response = noise.response(town.hearing.response_db, RATE_HZ)
        self._lead_s = (len(self._response) // 2) / RATE_HZ  # that the response delays what it hears
        self._response_tail = np.zeros(len(self._response) - 1)
        self._loops = {
            "tyres": noise.loop(rng, 7.3, RATE_HZ, noise.TYRES),
            "wind": noise.loop(rng, 9.1, RATE_HZ, noise.WIND),
            "rain": noise.loop(rng, 6.7, RATE_HZ, noise.RAIN),
            "hiss": noise.loop(rng, 5.9, RATE_HZ, noise.HISS),
        }
        self._tyre_db = float(rng.uniform(-34.0, -28.0))
        self._rain_db = float(rng.uniform(-34.0, -26.0))
        self._passenger = Voice(seed, town.hearing, 1, RATE_HZ) if rng.random() < 0.3 else None
        self._passenger_db = float(rng.uniform(-30.0, -24.0))
        self._tracks = {track.id: track for track in (*journey.vehicles, *journey.pedestrians)}
        self._paths: dict[int, SourcePath] = {}
        self._voices: dict[int, Voice] = {}
        self._seconds: dict[int, tuple[NDArray[np.int16], list[_Heard], F64]] = {}
        self._echo_tail = np.zeros(int(0.25 * RATE_HZ))
        self._runs: dict[str, tuple[float, float]] = {}
        self._begun: dict[int, dict[str, float]] = {}
        self._next = 0

    def pcm(self, first: int, count: int) -> NDArray[np.int16]:
        """Samples of the drive from a running index; indices must not fall more than two seconds back."""
        parts = []
        while count > 0:
            second, at = divmod(first, RATE_HZ)
            take = min(count, RATE_HZ - at)
            parts.append(self._second(second)[0][at : at + take])
            first, count = first + take, count - take
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def levels(self, time_s: float) -> list[Level]:
        """The sources that can be heard at an instant, loudest first."""
        begun = self._begun_at(time_s) | self._last_blow(time_s)
        levels = [
            Level(name, level, bearing, prominence, max(time_s - begun.get(name, time_s), 0.0))
            for name, level, prominence, bearing in self._audible(time_s)
        ]
        return sorted(levels, key=lambda level: (-level.level_dbfs, level.name))

    def _audible(self, time_s: float) -> list[tuple[str, float, float, float | None]]:
        """Name, level, prominence and bearing of what can be heard."""
        time_s = max(time_s, FAST_S)  # at the very start there is nothing before
        found: dict[str, tuple[float, float | None]] = {}
        total = self._noise_power(time_s)
        for name, power, bearing in self._powers(time_s):
            total += power
            before = found.get(name, (0.0, None))
            found[name] = (before[0] + power, bearing if power > 0.5 * before[0] else before[1])
        audible = []
        for name, (power, bearing) in found.items():
            level = 10.0 * math.log10(max(power, 1e-12))
            prominence = level - 10.0 * math.log10(max(total - power, 1e-12))
            if level > AUDIBLE_DBFS and prominence > -MASKED_DB:
                audible.append((name, level, prominence, bearing))
        return audible

    def _begun_at(self, time_s: float) -> dict[str, float]:
        """When each sound that is heard began to be, by name."""
        number = int(time_s * ONSET_HZ + 1e-6)
        self._second(number // ONSET_HZ)
        return self._begun.get(number, {})

    def _last_blow(self, time_s: float) -> dict[str, float]:
        """When an axle last hit something: thumps are too short for the grid of onsets."""
        before = int(np.searchsorted(self._blows_s, time_s + self._lead_s, side="right"))
        return {"thump": float(self._blows_s[before - 1])} if before else {}

    def _follow(self, second: int) -> None:
        """Keeps, on the grid of a second that was just mixed, since when each sound has been heard."""
        for number in range(second * ONSET_HZ, (second + 1) * ONSET_HZ):
            time_s = number / ONSET_HZ
            for name, *_ in self._audible(time_s):
                since, last = self._runs.get(name, (time_s, time_s))
                paused = time_s - last > PAUSE_S.get(name, SHORT_PAUSE_S)
                self._runs[name] = (time_s if paused else since, time_s)
            self._begun[number] = {name: since for name, (since, last) in self._runs.items() if last == time_s}
            self._begun.pop(number - 5 * ONSET_HZ, None)

    def _powers(self, time_s: float) -> list[tuple[str, float, float | None]]:
        """Mean power of every source just before an instant."""
        sums: list[tuple[str, float, float | None]] = []
        now = int(time_s)
        for second in range(max(now - 1, 0), now + 1):
            for heard in self._second(second)[1]:
                length = SLOW_S if heard.name in SLOW else FAST_S
                low = max(math.floor((time_s - length - second) * BIN_HZ + 1e-6), 0)
                high = min(math.ceil((time_s - second) * BIN_HZ - 1e-6), BIN_HZ)
                if low >= high:
                    continue
                power = float(heard.power[low:high].sum()) / (length * BIN_HZ)
                bearing = None if heard.bearing_rad is None else _wrapped(float(heard.bearing_rad[high - 1]))
                sums.append((heard.name, power, bearing))
        return sums

    def _noise_power(self, time_s: float) -> float:
        second = int(time_s)
        bins = self._second(second)[2]
        return float(bins[min(int((time_s - second) * BIN_HZ), BIN_HZ - 1)])

    def _second(self, index: int) -> tuple[NDArray[np.int16], list[_Heard], F64]:
        while self._next <= index:
            self._seconds[self._next] = self._mix(self._next)
            self._seconds.pop(self._next - 5, None)
            self._next += 1
            self._follow(self._next - 1)
        return self._seconds[index]

    def _mix(self, second: int) -> tuple[NDArray[np.int16], list[_Heard], F64]:
        time_s = second + np.arange(RATE_HZ) / RATE_HZ
        heard: list[_Heard] = []
        total = np.zeros(RATE_HZ)

        def add(name: str, wave: F64, bearing: F64 | None = None) -> None:
            power = (wave**2).reshape(BIN_HZ, -1).mean(axis=1)
            if power.max() > 1e-7:
                nonlocal total
                total = total + wave
                heard.append(_Heard(name, power, None if bearing is None else bearing[:: RATE_HZ // BIN_HZ]))

        add("engine", self._engine.sound(time_s))
        self._add_sirens(time_s, add)
        self._add_horns(time_s, add)
        self._add_people(second, time_s, add)
        self._add_thumps(time_s, add)
        if self._weather.rain:
            dry = self._sheltered(time_s)
            wave = noise.window(self._loops["rain"], second * RATE_HZ, RATE_HZ)
            wave = wave + 0.9 * noise.drops(
                generator(self._seed, "drops", second), RATE_HZ, RATE_HZ, 90 * self._weather.rain
            )
            add("rain", wave * dry * 10.0 ** ((self._rain_db + 6.0 * (self._weather.rain - 1.0)) / 20.0))
        rolling = self._rolling(second, time_s)
        mixed = self._echoed(total + rolling, 1.0 - self._sheltered(time_s))
        mixed = self._coloured(mixed)
        mixed += noise.window(self._loops["hiss"], second * RATE_HZ, RATE_HZ) * 10.0 ** (-68.0 / 20.0)
        pcm = np.round(np.tanh(mixed) * 32767.0).astype(np.int16)
        return pcm, heard, (rolling**2).reshape(BIN_HZ, -1).mean(axis=1)

    def _add_sirens(self, time_s: F64, add: _Add) -> None:
        for siren in self._journey.sirens:
            track = self._tracks.get(siren.vehicle_id)
            if track is None or not track.start_s - 1.0 < time_s[-1] or time_s[0] > track.end_s + 2.0:
                continue
            path = self._path(track).heard(self._motion, time_s)
            fade = np.clip((path.emitted_s - track.start_s) / 1.5, 0, 1) * np.clip(
                (track.end_s - path.emitted_s) / 1.0, 0, 1
            )
            wave = self._siren(siren.kind, track.look).sound(path.emitted_s)
            wave = wave * self._far(path.distance_m, SIREN_DBFS_10M)
            add("siren", wave * fade, path.bearing_rad)

    def _add_horns(self, time_s: F64, add: _Add) -> None:
        for blow in self._journey.horns:
            if not blow.start_s - 0.1 < time_s[-1] or time_s[0] > blow.start_s + blow.seconds + 1.0:
                continue
            track = self._tracks.get(blow.vehicle_id)
            if track is None:
                continue
            path = self._path(track).heard(self._motion, time_s)
            since = path.emitted_s - blow.start_s
            gate = np.clip(since / 0.02, 0, 1) * np.clip((blow.seconds - since) / 0.04, 0, 1)
            wave = horn(path.emitted_s, track.look, self._hearing.horn_hz, self._hearing.horn_ratio) * gate
            add("horn", wave * self._far(path.distance_m, HORN_DBFS_10M), path.bearing_rad)

    def _siren(self, kind: str, look: int) -> SirenTone:
        return SirenTone(kind, look, self._hearing.siren_pitch, self._hearing.siren_pace)

    def _add_people(self, second: int, time_s: F64, add: _Add) -> None:
        ego_s, _ = self._motion.station_m(second + 0.5)
        for track in self._journey.pedestrians:
            near = abs(track.sample(track.s_m, second + 0.5) - ego_s) < 26.0
            if not near or not track.alive(second + 0.5):
                continue
            path = self._path(track).heard(self._motion, time_s)
            if path.distance_m.min() > 22.0:
                continue
            add(
                "footsteps",
                self._footsteps(track, time_s) * (1.0 - 0.4 * self._weather.snow) * self._far(path.distance_m, -38.0),
                path.bearing_rad,
            )
            if track.look % 10 < 4:
                voice = self._voices.setdefault(track.id, Voice(self._seed, self._hearing, track.id, RATE_HZ))
                add("speech", voice.second(second) * self._far(path.distance_m, -36.0), path.bearing_rad)
        if self._passenger is not None:
            add("speech", self._passenger.second(second) * 10.0 ** (self._passenger_db / 20.0))

    def _add_thumps(self, time_s: F64, add: _Add) -> None:
        """What the wheels hit, through the body and so at once; mixed earlier by the response's own delay."""
        start_s = float(time_s[0]) + self._lead_s
        first, last = np.searchsorted(self._blows_s, [start_s - THUMP_S, start_s + len(time_s) / RATE_HZ])
        if first == last:
            return
        wave = np.zeros(len(time_s))
        for number in range(int(first), int(last)):
            one = thump(self._seed, number, self._motion.blows[number], RATE_HZ)
            at = round((float(self._blows_s[number]) - start_s) * RATE_HZ)
            low, high = max(at, 0), min(at + len(one), len(wave))
            wave[low:high] += one[low - at : max(high - at, 0)]
        add("thump", wave * (1.0 - 0.3 * self._weather.snow))

    def _footsteps(self, track: Track, time_s: F64) -> F64:
        """Footfalls wherever the stride count passes a whole number; unit peak before distance."""
        wave = np.zeros(len(time_s))
        low = max(int(time_s[0] / 0.05) - 4 - track.first_step, 0)
        high = min(int(time_s[-1] / 0.05) + 3 - track.first_step, len(track.s_m))
        if high - low < 2:
            return wave
        times = track.times_s()[low:high]
        walked = np.abs(track.s_m[low:high] - track.s_m[0]) + np.abs(track.d_m[low:high] - track.d_m[0])
        steps = walked / (0.42 * track.size_m[2])
        rng = np.random.Generator(np.random.PCG64(track.look))
        fall = noise.footfall(rng, RATE_HZ, self._hearing.sole) * 6.0
        for n in range(math.ceil(steps[0]), math.floor(steps[-1]) + 1):
            at = float(np.interp(n, steps, times))
            first = round((at - time_s[0]) * RATE_HZ)
            low_i, high_i = max(first, 0), min(first + len(fall), len(wave))
            if low_i < high_i and steps[-1] > steps[0]:
                wave[low_i:high_i] += fall[low_i - first : high_i - first]
        return wave

    def _rolling(self, second: int, time_s: F64) -> F64:
        """Tyres and wind of the ego, and the rush of vehicles that pass; never listed as sounds."""
        speed = np.interp(time_s, self._motion.time_s, self._motion.speed_mps)
        wet = 1.6 if self._weather.rain else 1.0 - 0.65 * self._weather.snow  # snow dampens
        tyres = noise.window(self._loops["tyres"], second * RATE_HZ, RATE_HZ)
        wave = tyres * (speed / 20.0) ** 1.3 * (wet * 10.0 ** (self._tyre_db / 20.0))
        wave = wave + noise.window(self._loops["wind"], second * RATE_HZ, RATE_HZ) * (speed / 30.0) ** 2.2 * 0.03
        rush = np.zeros(len(time_s))
        for track in self._journey.vehicles:
            if track.alive(second + 0.5) and track.variant != "emergency":
                ego_s, _ = self._motion.station_m(second + 0.5)
                if abs(track.sample(track.s_m, second + 0.5) - ego_s) < 60.0:
                    path = self._path(track).heard(self._motion, time_s[:: RATE_HZ // BIN_HZ])
                    distance = np.interp(time_s, time_s[:: RATE_HZ // BIN_HZ], path.distance_m)
                    moving = track.sample(track.speed_mps, second + 0.5) / 20.0
                    rush += moving**1.3 * (4.0 / np.maximum(distance, 2.5)) ** 2
        far = noise.window(self._loops["tyres"], second * RATE_HZ + 40_000, RATE_HZ)
        return np.asarray(wave + far * np.sqrt(rush) * 10.0 ** ((self._tyre_db - 1.0) / 20.0))

    def _sheltered(self, time_s: F64) -> F64:
        """1 in the open, 0 inside a tunnel, per sample."""
        knots = np.linspace(time_s[0], time_s[-1], 21)
        inside = [
            0.0 if self._journey.road.section(self._motion.station_m(float(t))[0]).place.name == "tunnel" else 1.0
            for t in knots
        ]
        return np.interp(time_s, knots, inside)

    def _echoed(self, dry: F64, wet: F64) -> F64:
        """Early reflections of a tunnel."""
        joined = np.concatenate([self._echo_tail, dry])
        self._echo_tail = dry[-len(self._echo_tail) :].copy()
        if wet.max() <= 0.0:
            return dry
        echo = np.zeros_like(dry)
        start = len(joined) - len(dry)
        for delay_s, gain in ECHOES:
            shift = int(delay_s * RATE_HZ)
            echo += gain * joined[start - shift : len(joined) - shift]
        return np.asarray(dry + wet * echo)

    def _coloured(self, mixed: F64) -> F64:
        """The microphone's own response."""
        joined = np.concatenate([self._response_tail, mixed])
        self._response_tail = joined[len(mixed) :].copy()
        return np.asarray(np.convolve(joined, self._response, mode="valid"))

    def _far(self, distance_m: F64, dbfs_10m: float) -> F64:
        """Amplitude over distance: 1/r from 2 m on, and what the air (and falling snow) absorbs."""
        absorbed = (0.01 + 0.05 * self._weather.snow) * distance_m
        level = dbfs_10m - 20.0 * np.log10(np.maximum(distance_m, 2.0) / 10.0) - absorbed
        return np.asarray(10.0 ** (level / 20.0))

    def _path(self, track: Track) -> SourcePath:
        if track.id not in self._paths:
            self._paths[track.id] = SourcePath(self._journey.road, track)
        return self._paths[track.id]


class _Add(Protocol):
    """How a source joins the mix: name, sound, and where it comes from (typing only)."""

    def __call__(self, name: str, wave: F64, bearing: F64 | None = None) -> None: ...


def _wrapped(angle: float) -> float:
    return math.atan2(math.sin(angle), math.cos(angle))
