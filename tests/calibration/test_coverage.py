"""Choosing frames: the rare is in, the choice is the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.coverage import choose, describe, radius
from edge.decision import Decision, ModalityState, SceneState, Tag
from edge.errors import ConfigError
from edge.frameset import EmitReason


def many_alike_and_few_rare() -> np.ndarray:
    features = np.random.default_rng(0).normal(0, 0.05, (300, 6)).astype(np.float32)
    features[150] += [0, 3, 0, 0, 0, 0]  # the one night
    features[200] += [0, 0, 0, -1, 0, 0]  # the one dead sensor
    return features


def test_the_rare_frames_are_chosen() -> None:
    assert {150, 200} <= set(choose(many_alike_and_few_rare(), 5))


def test_coverage_beats_even_spacing() -> None:
    features = many_alike_and_few_rare()
    evenly = list(range(0, 300, 60))
    assert radius(features, choose(features, 5)) < 0.5 * radius(features, evenly)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
def test_as_many_as_wanted_or_all_ascending_and_never_twice(frames: int, count: int, seed: int) -> None:
    features = np.random.default_rng(seed).integers(0, 3, (frames, 2)).astype(np.float32)
    chosen = choose(features, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, frames)
    assert chosen == choose(features.copy(), count)


def test_frames_of_which_a_head_says_nothing_have_as_many_features_as_the_others() -> None:
    heads = {"scene_tags": ("night",), "sound_events": ("siren", "horn"), "objects": ("car",)}

    def features(sounds: tuple[Tag, ...]) -> list[float]:
        decision = Decision(
            stamp_ns=0, frame_seq=0, index=0, emitted_ns=0, reason=EmitReason.SETTLED,
            modalities=(ModalityState("audio", bool(sounds), 0, 1, "" if sounds else "silent"),), overload_level=0,
            hardness=0.0, scores=(), scene_tags=(Tag("night", 0.5),), sound_events=sounds, objects=(), embedding=b"",
            scene_state=SceneState.QUIET, scene=0, scene_refusal="", digests=(), bundle_id="", degraded=False,
        )  # fmt: skip
        return describe(decision, {}, heads).tolist()

    assert features((Tag("siren", 0.25), Tag("horn", 0.75))) == [1.0, 0.5, 0.25, 0.75]
    assert features(()) == [0.0, 0.5, 0.0, 0.0]


def test_within_twice_the_best_radius() -> None:
    line = np.arange(0, 101, dtype=np.float32)[:, None]  # 3 centres cover it at radius 17 at best
    assert radius(line, choose(line, 3)) <= 2 * 17


@pytest.mark.parametrize(("frames", "count"), [(0, 1), (3, 0)])
def test_nothing_to_choose_is_refused(frames: int, count: int) -> None:
    with pytest.raises(ConfigError, match="expected at least one"):
        choose(np.zeros((frames, 2), np.float32), count)
