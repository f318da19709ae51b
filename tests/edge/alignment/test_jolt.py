"""Jolts of the whole picture: found in a shaken picture, none from driving on, and in time with what thumps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.alignment.jolt import ANSWER_NS, PictureJolts, jolt_evidence
from edge.alignment.offset import told
from edge.alignment.series import Series
from edge.errors import AlignmentError

FRAME_NS, MS, SECONDS = 50_000_000, 1_000_000, 20
BLOWS_S = (1.13, 2.31, 4.02, 4.77, 7.4, 8.05, 10.21, 11.96, 13.3, 15.18, 16.02, 18.49)


def texture(seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(128.0, 60.0, (240, 400)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 4.0) * 3.0 - 256.0, 0, 255)


def seen(down_px: np.ndarray) -> PictureJolts:
    jolts, picture = PictureJolts(), texture()
    for i, shift in enumerate(down_px):
        moved = cv2.warpAffine(picture, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, shift]]), (360, 216))
        jolts.see(i * FRAME_NS, moved.astype(np.uint8))
    return jolts


def test_a_jolt_is_the_change_of_vertical_speed() -> None:
    down = np.zeros(20)
    down[10:] = np.arange(10) * 0.8  # sets off at frame 9: 0.4 px a frame of the small picture, 8 a second
    found = seen(down).series()
    assert found.stamps_ns.tolist() == [FRAME_NS * n for n in range(1, 19)]
    at = int(found.values[:, 0].argmax())
    assert found.stamps_ns[at] == 10 * FRAME_NS
    assert found.values[at, 0] == pytest.approx(8.0, rel=0.3)
    assert np.delete(found.values[:, 0], at).max() < 0.25 * found.values[at, 0]


def test_a_missing_frame_is_no_jolt() -> None:
    jolts, picture = PictureJolts(), texture()
    for i in (0, 1, 2, 3, 5, 6, 7):
        moved = cv2.warpAffine(picture, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.6 * i]]), (360, 216))
        jolts.see(i * FRAME_NS, moved.astype(np.uint8))
    assert jolts.series().values.max() < 2.0  # px a second, of a speed of 6


def drive(shift_ns: int) -> tuple[Series, Series]:
    """Jolts of blows, as long after them as a body takes, and the level of thumps that are later by a shift."""
    stamps = np.arange(SECONDS * 20) * FRAME_NS
    blows = np.array(BLOWS_S) * 1e9
    jolts = np.exp(-0.5 * ((stamps[:, None] - blows - ANSWER_NS) / 40e6) ** 2).sum(axis=1)
    rng = np.random.default_rng(2)
    times = np.arange(0, SECONDS * 100) * 10 * MS
    since = times[:, None] - blows - shift_ns
    thumps = np.where(since >= 0, np.exp(-np.maximum(since, 0) / 50e6), 0.0).sum(axis=1)
    return Series(stamps, jolts[:, None]), Series(times, 2.0 * thumps + rng.normal(0.0, 0.1, len(times)))


@pytest.mark.parametrize("shift_ms", [-500, -120, 0, 333, 500])
def test_a_shift_comes_back_with_its_sign(shift_ms: int) -> None:
    found = told(jolt_evidence(*drive(shift_ms * MS)))
    assert found.offset_ns / MS == pytest.approx(shift_ms, abs=12.0)
    assert found.is_sure


def test_too_little_is_refused() -> None:
    jolts, level = drive(0)
    with pytest.raises(AlignmentError, match="jolts and sound: expected"):
        jolt_evidence(jolts.between(0, 5_000_000_000), level)
    with pytest.raises(AlignmentError, match="expected at least 4 pictures, got 3"):
        seen(np.zeros(3)).series()
