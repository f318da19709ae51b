"""Camera and sound: shifts that were planted come back, and unrelated sound is not taken for sure."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.alignment.activity import PictureActivity, sound_level
from edge.alignment.methods import METHODS, aligned, aligned_embeddings
from edge.alignment.offset import _around, camera_sound_evidence, told
from edge.alignment.series import Series
from edge.errors import AlignmentError
from edge.samples import AudioChunk

MS = 1_000_000
RATE_HZ = 16_000


def scene(seed: int, shift_ns: int, seconds: float = 10.0, related: bool = True) -> tuple[PictureActivity, Series]:
    """A patch that opens and closes at random instants in a noisy picture; bangs at the same ones, later by shift."""
    rng = np.random.default_rng(seed)
    instants = np.cumsum(rng.uniform(0.3, 0.9, 40))
    heard = instants if related else np.cumsum(rng.uniform(0.3, 0.9, 40))
    picture = PictureActivity()
    for stamp in np.arange(0.0, seconds, 0.04):
        image = rng.integers(90, 110, (108, 180, 3)).astype(np.uint8)
        open_ = np.exp(-np.square((stamp - instants) / 0.08)).max()
        image[40:60, 60:90] = np.clip(110 + 120 * open_ + rng.integers(-8, 8, (20, 30, 3)), 0, 255)
        picture.see(round(stamp * 1e9), image)
    times = np.arange(int((seconds + 2) * RATE_HZ)) / RATE_HZ - 1.0
    loud = np.exp(-np.square((times[:, None] - shift_ns / 1e9 - heard[None]) / 0.08)).max(1)
    pcm = (rng.normal(size=len(times)) * (60 + 6000 * loud)).astype(np.int16)
    return picture, sound_level([AudioChunk(-1_000 * MS, 0, RATE_HZ, pcm)])


@pytest.mark.parametrize("shift_ms", [-500, -130, 0, 250, 500])
def test_planted_shift_comes_back_surely(shift_ms: int) -> None:
    found = told(camera_sound_evidence(*scene(1, shift_ms * MS)))
    assert abs(found.offset_ns - shift_ms * MS) <= 40 * MS
    assert found.is_sure


@pytest.mark.parametrize("max_lag_ms", [1_260, 1_300, 2_560])
def test_lags_of_any_documented_length_are_tried(max_lag_ms: int) -> None:
    picture, level = scene(1, 130 * MS, 12.0)
    evidence = camera_sound_evidence(picture, level, max_lag_ms * MS)
    assert len(evidence.lags_ns) == 2 * (max_lag_ms // 20) + 1
    assert abs(told(evidence).offset_ns - 130 * MS) <= 40 * MS


def test_each_lag_is_blurred_as_it_is_alone() -> None:
    maps = np.random.default_rng(0).normal(size=(6 * 9, 300)).astype(np.float32)
    alone = [cv2.GaussianBlur(one.reshape(6, 9), (0, 0), 1.0).reshape(-1) for one in np.ascontiguousarray(maps.T)]
    assert np.allclose(_around(maps, (6, 9)), np.stack(alone, axis=1), atol=1e-6)


def test_unrelated_sound_is_seldom_sure() -> None:
    sure = [told(camera_sound_evidence(*scene(seed, 0, related=False))).is_sure for seed in range(12)]
    assert sum(sure) <= 3


def test_evidence_of_stretches_adds_up_and_knows_where_the_sound_comes_from() -> None:
    both = camera_sound_evidence(*scene(2, 200 * MS)) + camera_sound_evidence(*scene(3, 200 * MS))
    found = told(both)
    assert abs(found.offset_ns - 200 * MS) <= 30 * MS and found.is_sure
    row, column = np.unravel_index(both.origin[..., both.scores[0].argmax()].argmax(), both.origin.shape[:2])
    assert 6 <= row <= 10 and 9 <= column <= 15


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_clear_events(method: str) -> None:
    found = aligned(*scene(4, 100 * MS), method)  # type: ignore[arg-type]
    assert abs(found.offset.offset_ns - 100 * MS) <= 120 * MS
    assert (found.warp is None) == (method == "attention")


def test_embeddings_that_belong_together_tell_their_lag() -> None:
    rng = np.random.default_rng(5)
    rows, stamps = rng.normal(size=(120, 16)), np.arange(120) * 50 * MS
    found = aligned_embeddings(Series(stamps, rows), Series(stamps + 150 * MS, rows))
    assert found.offset_ns == pytest.approx(150 * MS, abs=10 * MS) and found.is_sure


@pytest.mark.parametrize("method", METHODS)
def test_what_fits_best_at_the_last_lag_that_is_tried_is_never_sure(method: str) -> None:
    found = aligned(*scene(4, 640 * MS), method, max_lag_ns=600 * MS)  # type: ignore[arg-type]
    assert not found.offset.is_sure, found.offset


def test_embeddings_that_fit_best_at_the_last_lag_are_never_sure() -> None:
    rows, stamps = np.random.default_rng(5).normal(size=(120, 16)), np.arange(120) * 50 * MS
    slow = cv2.GaussianBlur(rows, (1, 0), 0, sigmaY=3.0)  # as pictures are: like those shortly before and after
    found = aligned_embeddings(Series(stamps, slow), Series(stamps + 900 * MS, slow))
    assert abs(found.offset_ns) == 800 * MS and not found.is_sure


def test_sound_that_leaves_a_gap_has_no_level_there() -> None:
    pcm = np.full(RATE_HZ // 2, 1000, np.int16)
    level = sound_level([AudioChunk(0, 0, RATE_HZ, pcm), AudioChunk(1_000 * MS, 1, RATE_HZ, pcm)])
    assert not ((level.stamps_ns > 500 * MS) & (level.stamps_ns < 1_000 * MS)).any()
    assert np.allclose(level.values, np.log((1000 / 32768) ** 2), atol=1e-3)


def test_too_little_of_both_is_refused_in_one_line() -> None:
    picture, level = scene(6, 0)
    with pytest.raises(AlignmentError, match="of both at every offset"):
        camera_sound_evidence(picture, level.later(9_000 * MS))
    with pytest.raises(AlignmentError, match="at least 3 pictures"):
        camera_sound_evidence(PictureActivity(), level)
    with pytest.raises(AlignmentError, match="ms of it"):
        sound_level([])
