"""Clock offsets of whole drives: sensors that share a motion tell it, a standing vehicle does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.rig.clocks import clock_offsets, main
from calibration.rig.rig_file import read_rig
from calibration.rig.signals import read_signals
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError, DriveFormatError
from edge.samples import AudioChunk, Frame, GnssFix, ImuSample, Sample, VehicleState

NS = 1_000_000_000
START_NS = 5 * NS


class Road:
    """A drive whose every stream shows one drawn motion; `late_s` moves a stream's stamps."""

    def __init__(self, seed: int, seconds: float, moving: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self.rng, self.seconds, self.size = rng, seconds, 1.0 if moving else 0.0
        self._hz, self._phase = rng.uniform(0.1, 1.2, (2, 15)), rng.uniform(0, 2 * np.pi, (2, 15))
        self._texture = np.kron(rng.integers(30, 220, (24, 200)), np.ones((8, 8))).astype(np.uint8)
        self.events_s = np.sort(rng.uniform(1.0, seconds - 1.0, round(seconds / 1.5)))

    def yaw_rate(self, at_s: float) -> float:
        return self.size * 0.05 * float(np.sin(2 * np.pi * self._hz[0] * at_s + self._phase[0]).sum())

    def heading(self, at_s: float) -> float:
        waves = -np.cos(2 * np.pi * self._hz[0] * at_s + self._phase[0]) / (2 * np.pi * self._hz[0])
        return self.size * 0.05 * float(waves.sum())

    def speed(self, at_s: float) -> float:
        return self.size * (12.0 + 0.6 * float(np.sin(2 * np.pi * self._hz[1] * at_s + self._phase[1]).sum()))

    def acceleration(self, at_s: float) -> float:
        return (self.speed(at_s + 0.01) - self.speed(at_s - 0.01)) / 0.02

    def samples(self, **late_s: float) -> list[tuple[str, Sample]]:
        noise = self.rng.normal
        found: list[tuple[str, Sample]] = []

        def stamps(stream: str, rate_hz: float) -> list[tuple[int, float, int]]:
            times = np.arange(0.0, self.seconds, 1 / rate_hz)
            return [(i, t, START_NS + round((t + late_s.get(stream, 0.0)) * NS)) for i, t in enumerate(times.tolist())]

        for i, t, at in stamps("imu", 100):
            accel = (self.acceleration(t) + noise(0, 0.1), noise(0, 0.1), 9.81 + noise(0, 0.1))
            gyro = (noise(0, 0.01), noise(0, 0.01), self.yaw_rate(t) + noise(0, 0.01))
            found.append(("/imu", ImuSample(at, i, accel, gyro)))
        for i, t, at in stamps("vehicle", 50):
            state = VehicleState(
                at, i, self.speed(t) + noise(0, 0.01), yaw_rate_radps=self.yaw_rate(t) + noise(0, 0.005)
            )
            found.append(("/vehicle", state))
        for i, t, at in stamps("gnss", 10):
            velocity = (self.speed(t) + noise(0, 0.05), 0.0, 0.0)
            found.append(("/gnss", GnssFix(at, i, 48.0, 11.0, 500.0, velocity)))
        for i, t, at in stamps("camera", 20):
            left = round(700 + 300 * self.heading(t))
            light = 60 * (np.count_nonzero(self.events_s <= t) % 2) if self.size else 0  # each event switches it
            picture = np.clip(self._texture[:, left : left + 320].astype(int) + light, 0, 255).astype(np.uint8)
            found.append(("/camera", Frame(at, i, np.repeat(picture[..., None], 3, axis=2))))
        for i, t, at in stamps("audio", 50):
            times = t + np.arange(320) / 16000
            since = times[:, None] - self.events_s[None]
            bang = np.where((since > 0) & (since < 0.1), np.exp(-40 * np.abs(since)), 0.0).sum(axis=1) * self.size
            pcm = (8000 * bang * np.sin(2 * np.pi * 900 * times) + noise(0, 30, 320)).astype(np.int16)
            found.append(("/audio", AudioChunk(at, i, 16000, pcm)))
        return sorted(found, key=lambda entry: entry[1].stamp_ns)


def write(path: Path, samples: list[tuple[str, Sample]]) -> Path:
    with DriveWriter(path) as drive:
        for topic, sample in samples:
            drive.write(topic, sample, arrival_ns=sample.stamp_ns)
    return path


def test_planted_offsets_of_every_pair_are_recovered(tmp_path: Path) -> None:
    late_s = {"vehicle": 0.08, "gnss": 0.23, "camera": -0.06, "audio": 0.11}
    with DriveReader(write(tmp_path / "drive.mcap", Road(1, 40.0).samples(**late_s))) as drive:
        found = clock_offsets(read_signals(drive))
    expected = {
        "imu-camera (turning)": -0.06,
        "imu-vehicle (turning)": 0.08,
        "imu-vehicle (accelerating)": 0.08,
        "vehicle-gnss (speed)": 0.15,
        "camera-audio (events)": 0.17,
    }
    assert found.keys() == expected.keys()
    for name, offset_s in expected.items():
        told = found[name]
        assert told.offset_s is not None and told.std_s is not None, f"{name}: {told.reason}"
        # Light shows in the change between two pictures, a bang in the rise of the level: half a picture's period.
        assert told.offset_s == pytest.approx(offset_s, abs=0.04 if name.startswith("camera-audio") else 0.02), name


def test_a_standing_vehicle_says_so_rather_than_giving_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "drive.mcap", Road(2, 20.0, moving=False).samples())
    assert main(["--drive", str(path), "--out", str(tmp_path / "rig.json")]) == 1
    assert capsys.readouterr().out.count("not identifiable") == 5
    measured = read_rig(tmp_path / "rig.json")["clocks"]["measured"]
    assert all(entry["offset_ms"] is None and entry["not_identifiable"] for entry in measured.values())


def test_damaged_pictures_are_gaps(tmp_path: Path) -> None:
    samples = Road(3, 30.0).samples(camera=0.05)
    damaged = [
        (
            topic,
            Frame(s.stamp_ns, s.seq, None, b"\xff\xd8 no picture") if isinstance(s, Frame) and s.seq % 97 == 5 else s,
        )
        for topic, s in samples
    ]
    with DriveReader(write(tmp_path / "drive.mcap", damaged)) as drive:
        told = clock_offsets(read_signals(drive))["imu-camera (turning)"]
    assert told.offset_s == pytest.approx(0.05, abs=0.02)


def test_a_drive_of_one_stream_is_refused(tmp_path: Path) -> None:
    samples = [(topic, sample) for topic, sample in Road(4, 10.0).samples() if topic == "/gnss"]
    with pytest.raises(DriveFormatError, match="expected two of camera, audio, imu, vehicle, gnss"):
        main(["--drive", str(write(tmp_path / "drive.mcap", samples)), "--out", str(tmp_path / "rig.json")])


def test_shifts_planted_in_a_real_drive_come_back(recordings: Path, tmp_path: Path) -> None:
    source = recordings / "drives" / "comma2k19-rav4-2018-08-02"
    if not source.is_dir():
        pytest.skip(f"no comma2k19 drive at {source}")
    from dataclasses import replace

    from calibration.rig.correlate import Series
    from edge.importers.command import import_recording
    from edge.importers.recording import Options

    import_recording(source, tmp_path / "drive.mcap", Options(()))
    with DriveReader(tmp_path / "drive.mcap") as drive:
        signals = read_signals(drive)
    before = clock_offsets(signals)
    moved = {name: Series(series.stamps_s + 0.137, series.values) for name, series in signals.vehicle.items()}
    after = clock_offsets(replace(signals, vehicle=moved))
    for name, sign in (("imu-vehicle (turning)", 1), ("imu-vehicle (accelerating)", 1), ("vehicle-gnss (speed)", -1)):
        first, second = before[name].offset_s, after[name].offset_s
        assert first is not None and second is not None
        assert second - first == pytest.approx(sign * 0.137, abs=0.01), name


def test_the_rig_file_never_takes_the_place_of_the_drive(tmp_path: Path) -> None:
    path = write(tmp_path / "drive.mcap", Road(4, 2.0).samples())
    content = path.read_bytes()
    with pytest.raises(ConfigError, match="expected another file than the input"):
        main(["--drive", str(path), "--out", str(path)])
    assert path.read_bytes() == content
