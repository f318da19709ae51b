"""Scenes open on hard frames, close after them, keep to the budget and are not sent twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.decision import SceneState
from edge.scenes import Scene, SceneConfig, SceneCutter

FRAME_NS = 50_000_000
FRAME_BYTES = 100_000


def embedding(seed: int) -> bytes:
    vector = np.random.default_rng(seed).normal(size=128).astype(np.float32)
    return (vector / np.linalg.norm(vector)).tobytes()


def cut(hardness: list[float], config: SceneConfig | None = None, seeds: list[int] | None = None) -> list[Scene]:
    cutter = SceneCutter(config)
    scenes = []
    for i, value in enumerate(hardness):
        cutter(i * FRAME_NS, value, embedding(seeds[i] if seeds else i), FRAME_BYTES)
        if cutter.ended:
            scenes.append(cutter.ended)
    last = cutter.finish()
    return scenes + ([last] if last else [])


def test_an_easy_drive_has_no_scene() -> None:
    assert cut([0.3] * 400) == []


def test_a_hard_stretch_is_one_scene_with_its_peak() -> None:
    hardness = [0.1] * 100 + [0.9] * 40 + [0.97] + [0.9] * 39 + [0.1] * 200
    (scene,) = cut(hardness)
    assert scene.peak_ns == 140 * FRAME_NS
    assert 100 * FRAME_NS <= scene.first_ns <= 110 * FRAME_NS
    assert scene.last_ns >= 180 * FRAME_NS + SceneConfig().post_roll_ns - 10 * FRAME_NS
    assert scene.refusal == ""


def test_a_flash_of_one_frame_is_no_scene() -> None:
    assert cut([0.1] * 50 + [1.0] + [0.1] * 50) == []


def test_a_scene_without_end_is_cut() -> None:
    scenes = cut([0.9] * 2000)
    assert all(scene.last_ns - scene.first_ns <= SceneConfig().max_ns for scene in scenes)
    assert len(scenes) >= 2


def test_the_same_scene_again_is_refused_as_a_near_duplicate() -> None:
    hard = [0.1] * 100 + [0.9] * 60 + [0.1] * 100
    scenes = cut(hard * 2, seeds=[7] * len(hard * 2))
    assert [scene.refusal for scene in scenes] == ["", "near-duplicate"]


def test_scenes_of_two_bundles_are_no_duplicates_whatever_their_embeddings_look_like() -> None:
    hard = [0.1] * 100 + [0.9] * 60 + [0.1] * 100
    cutter, scenes = SceneCutter(), []
    for i, hardness in enumerate(hard * 2):
        if i == len(hard) + 130:  # in the middle of the second scene
            cutter.forget_embeddings()
        said = embedding(7) if i < len(hard) + 130 else embedding(7)[: 4 * 16]  # another bundle's is shorter
        cutter(i * FRAME_NS, hardness, said, 1000)
        scenes += [cutter.ended] if cutter.ended is not None else []
    assert [scene.refusal for scene in scenes] == ["", ""]


def test_a_spent_budget_refuses() -> None:
    config = SceneConfig(burst_bytes=20_000_000, budget_bytes_per_hour=0)
    hard = [0.1] * 100 + [0.95] * 60 + [0.1] * 100
    scenes = cut(hard * 4, config)
    assert scenes[0].refusal == ""
    assert scenes[-1].refusal == "budget"


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40)), max_size=40), st.integers(1_000_000, 50_000_000))
def test_queued_bytes_keep_to_the_budget_and_scenes_do_not_overlap(runs: list[tuple[float, int]], burst: int) -> None:
    config = SceneConfig(burst_bytes=burst, budget_bytes_per_hour=400_000_000, duplicate_cosine=2.0)
    cutter = SceneCutter(config)
    stamp_ns = sent = scene_bytes = 0
    last_end = -1
    for hardness, count in runs:
        for _ in range(count):
            stamp_ns += FRAME_NS
            state, number, _ = cutter(stamp_ns, hardness, b"", FRAME_BYTES)
            if state is SceneState.OPENED:
                scene_bytes = 0
            if state is not SceneState.QUIET:
                scene_bytes += FRAME_BYTES
                assert number > 0
            if cutter.ended:
                assert cutter.ended.first_ns > last_end
                last_end = cutter.ended.last_ns
                sent += 0 if cutter.ended.refusal else scene_bytes
    assert sent <= burst + 400_000_000 * stamp_ns / 3.6e12 + 1


def test_a_thawed_cutter_goes_on_the_same() -> None:
    hardness = [0.1] * 100 + [0.9] * 60 + [0.1] * 100
    plain, frozen = SceneCutter(), SceneCutter()
    for i, value in enumerate(hardness):
        expected = plain(i * FRAME_NS, value, embedding(i), FRAME_BYTES)
        if i == 130:
            other = SceneCutter()
            other.thaw(frozen.freeze())
            frozen = other
        assert frozen(i * FRAME_NS, value, embedding(i), FRAME_BYTES) == expected
