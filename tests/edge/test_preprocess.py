"""Preprocessing: pictures, sound and motion into tensors, the same in training, on the road and in replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.image_input import ImageInput
from edge.preprocess import image_into, motion_into, pcm_into
from edge.samples import GnssFix, ImuSample, VehicleState
from edge.streams import SECOND
from tests.edge.frames import START_NS, sounds

RNG = np.random.default_rng(2)
PICTURE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)


def test_whole_ratios_average_areas() -> None:
    out = np.zeros((12, 10, 3), np.uint8)
    image_into(out, PICTURE)
    means = PICTURE.reshape(12, 2, 10, 4, 3).mean(axis=(1, 3))
    assert np.abs(out - means).max() <= 0.5001


def test_a_picture_of_the_right_size_is_unchanged() -> None:
    out = np.zeros_like(PICTURE)
    image_into(out, PICTURE)
    assert (out == PICTURE).all()


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("color", ["BGR", "RGB"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_layout_and_colour_order_are_the_models(layout: str, color: str, dtype: Any) -> None:
    out = np.zeros((1, 24, 40, 3) if layout == "NHWC" else (1, 3, 24, 40), dtype)
    ImageInput(out, {"layout": layout, "color": color}).fill(PICTURE)
    wanted = PICTURE if color == "BGR" else PICTURE[:, :, ::-1]
    assert (out[0] == (wanted if layout == "NHWC" else wanted.transpose(2, 0, 1))).all()


def test_pixels_are_scaled_then_centred_then_divided() -> None:
    out = np.zeros((1, 3, 24, 40), np.float32)
    spec = {"layout": "NCHW", "color": "RGB", "scale": 1 / 255, "mean": [0.4, 0.5, 0.0], "std": [0.2, 0.3, 1.0]}
    for _ in range(2):  # nothing of the first picture is left in the second
        ImageInput(out, spec).fill(PICTURE)
    wanted = (PICTURE[:, :, ::-1] / 255 - [0.4, 0.5, 0.0]) / [0.2, 0.3, 1.0]
    assert np.allclose(out[0], wanted.transpose(2, 0, 1), atol=1e-5)


def heard(chunks: Any, frame_ns: int, samples: int = 1600, rate_hz: int = 16000) -> NDArray[np.float32]:
    out = np.full(samples, 9.0, np.float32)
    pcm_into(out, chunks, frame_ns, rate_hz)
    return out


def ramp(samples: int) -> NDArray[np.int16]:
    return (np.arange(samples) % 30000).astype(np.int16)


def test_sound_ends_at_the_frame() -> None:
    chunks = sounds(ramp(3200), 16000, chunk=320)
    frame_ns = START_NS + 2000 * SECOND // 16000
    assert (heard(chunks, frame_ns) * 32768 == np.arange(400, 2000)).all()


def test_short_sound_is_right_aligned_after_silence() -> None:
    out = heard(sounds(ramp(500) + np.int16(1), 16000, chunk=100), START_NS + SECOND)
    assert (out[:1100] == 0).all() and (out[1100:] * 32768 == np.arange(1, 501)).all()


def test_a_lost_chunk_is_silence_of_its_length() -> None:
    chunks = sounds(np.full(1600, 1000, np.int16), 16000, chunk=160)
    del chunks[4]
    out = heard(chunks, START_NS + SECOND // 10)
    assert (out == 0).nonzero()[0].tolist() == list(range(640, 800))


@given(lost=st.sets(st.integers(0, 29), max_size=25), rate_hz=st.sampled_from([8000, 16000, 22050, 44100, 48000]))
def test_what_is_lost_moves_nothing_else(lost: set[int], rate_hz: int) -> None:
    pcm = RNG.integers(-20000, 20000, rate_hz * 6 // 10, dtype=np.int16)
    chunks = sounds(pcm, rate_hz, chunk=rate_hz // 50)
    frame_ns = START_NS + len(pcm) * SECOND // rate_hz
    there = [chunk for i, chunk in enumerate(chunks) if i not in lost or i in (0, len(chunks) - 1)]
    whole, part = heard(chunks, frame_ns, 9600), heard(there, frame_ns, 9600)
    for i in range(len(chunks)):
        if i not in lost and 0 < i < len(chunks) - 1:  # but for samples that blend with a lost neighbour
            middle = slice(i * 320 + 2, (i + 1) * 320 - 2)
            assert np.allclose(part[middle], whole[middle], atol=2e-3)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 32000, 44100, 48000, 96000])
@pytest.mark.parametrize("tone_hz", [440, 1000])
def test_a_tone_keeps_its_pitch_at_every_rate(rate_hz: int, tone_hz: int) -> None:
    instants_s = np.arange(rate_hz) / rate_hz
    pcm = (np.sin(2 * np.pi * tone_hz * instants_s) * 20000).astype(np.int16)
    out = heard(sounds(pcm, rate_hz, chunk=rate_hz // 50), START_NS + SECOND, samples=16000)
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    assert abs(int(spectrum.argmax()) - tone_hz) <= 1  # Hz
    assert np.abs(out).max() == pytest.approx(20000 / 32768, rel=0.08)  # lines cut peaks
    assert np.abs(out[:100]).max() > 0.3  # from the first sample on


def test_full_scale_is_one() -> None:
    out = heard(sounds(np.full(1600, -32768, np.int16), 16000, chunk=160), START_NS + SECOND)
    assert (out == -1.0).all()


def imu(stamps_ns: list[int]) -> list[ImuSample]:
    return [
        ImuSample(stamp_ns, seq, (seq * 9.81, 0.0, 9.81), (0.1, 0.2, 0.3)) for seq, stamp_ns in enumerate(stamps_ns)
    ]


def moved(imu: Any = (), vehicle: Any = (), gnss: Any = (), steps: int = 10) -> NDArray[np.float32]:
    out = np.full((12, steps), 9.0, np.float32)
    motion_into(out, START_NS, steps * 20_000_000, imu, vehicle, gnss)
    return out


def test_absent_motion_is_zero() -> None:
    assert (moved() == 0).all()


@given(offsets=st.lists(st.integers(-250_000_000, 0), min_size=1, max_size=60, unique=True))
def test_each_step_takes_the_nearest_imu_sample_within_one_step(offsets: list[int]) -> None:
    stamps = sorted(START_NS + offset for offset in offsets)
    out = moved(imu(stamps))
    for step in range(10):
        instant_ns = START_NS - (9 - step) * 20_000_000
        nearest_ns = min(abs(stamp_ns - instant_ns) for stamp_ns in stamps)
        if nearest_ns > 20_000_000:
            assert (out[:6, step] == 0).all() and out[10, step] == 0
        else:
            picked = stamps[round(float(out[0, step]))]
            assert out[10, step] == 1 and abs(abs(picked - instant_ns) - nearest_ns) <= 1  # ns: midpoints are whole


def test_acceleration_is_in_g_and_rates_in_radians() -> None:
    out = moved(imu([START_NS - 20_000_000, START_NS]))
    assert out[:6, -1].tolist() == pytest.approx([1.0, 0.0, 1.0, 0.1, 0.2, 0.3])


def state(after_ns: int, speed_mps: float, **fields: Any) -> VehicleState:
    return VehicleState(START_NS + after_ns, 0, speed_mps, **fields)


def test_the_vehicle_is_interpolated_to_the_frame() -> None:
    out = moved(vehicle=[state(-30, 10.0, brake=1.0), state(10, 14.0, brake=0.0)])
    assert out[6, 0] == pytest.approx(13 / 30) and out[8, 0] == pytest.approx(0.25) and (out[11] == 1).all()


def test_what_the_bus_does_not_say_is_zero() -> None:
    out = moved(vehicle=[state(-30, 15.0), state(10, 15.0, steering_wheel_angle_rad=np.pi / 2)])
    assert out[6, 0] == 0.5 and out[7, 0] == pytest.approx(0.5) and out[8, 0] == 0


def test_gnss_gives_ground_speed() -> None:
    fix = GnssFix(START_NS, 0, 48.0, 11.0, 500.0, (3.0, 4.0, 9.0))
    assert moved(gnss=[fix])[9] == pytest.approx(5 / 30)
    assert (moved(gnss=[GnssFix(START_NS, 0, 48.0, 11.0, 500.0)]) == 0).all()
