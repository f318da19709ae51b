"""The committed bundle on worlds it never saw: every head is clearly above chance, on the very engines that ship."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle import REFERENCE, load
from export.evaluation import metrics
from export.evaluation.command import TOWERS
from export.evaluation.figures import clip_embeddings, text_embeddings
from export.evaluation.runner import F32, Encoded, encode, fuse, open_bundle, open_engines
from export.model.contract import HEADS
from export.model.labels import EGO_ACTIONS, MODALITIES, OBJECTS, SCENE_TAGS, SOUND_EVENTS, SURFACES
from export.model.tokens import Vocabulary
from export.pack import folder_bytes
from export.training.dataset import Split, prepare
from export.training.plan import FIRST_SEED, WorldPlan

SECONDS = 5
WORLDS = (
    ("urban", "clear", "day"), ("siren", "rain", "night"), ("highway", "fog", "day"), ("crossing", "clear", "dusk"),
    ("tunnel", "clear", "day"), ("varied", "snow", "day"), ("varied", "rain", "dusk"),
)  # fmt: skip
ALL = (True,) * len(MODALITIES)


@dataclass(frozen=True)
class Run:
    split: Split
    encoded: Encoded
    fused: dict[str, dict[str, F32]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plans = [WorldPlan(FIRST_SEED["held_out"] + 5_000 + i, 390 + i, *kind, SECONDS) for i, kind in enumerate(WORLDS)]
    split = prepare(tmp_path_factory.mktemp("held_out"), plans, 1)
    sessions = open_bundle(REFERENCE)
    encoded = encode(sessions, split)
    subsets = {"all": ALL} | {
        name: tuple(i == k for i in range(len(MODALITIES))) for k, name in enumerate(MODALITIES)
    }  # fmt: skip
    fused = {
        name: fuse(sessions["fuse"], encoded.embeddings, split.per_world, present) for name, present in subsets.items()
    }
    return Run(split, encoded, fused)


def mean_auroc(given: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """Over the labels that occur at least five times and not always."""
    counts = truth.sum(0)
    usable = [i for i in range(truth.shape[1]) if 5 <= counts[i] <= len(truth) - 5]
    assert len(usable) >= 3
    return float(np.mean([metrics.auroc(given[:, i], truth[:, i]) for i in usable]))


def test_the_bundle_is_small_trained_and_whole() -> None:
    bundle = load()
    assert folder_bytes(REFERENCE) <= 6_000_000
    analyst = (TOWERS / "analyst.onnx").stat().st_size  # the cloud's variant, beside the vehicle's and its towers
    assert folder_bytes(REFERENCE) + folder_bytes(TOWERS) - analyst <= 16_000_000
    assert analyst <= 3_500_000
    assert all(bundle.encoders[name].precision == "int8" for name in ("camera", "audio", "lidar"))
    assert set(bundle.heads) == set(HEADS)
    assert bundle.heads["scene_tags"] == SCENE_TAGS
    assert bundle.golden is not None


def test_every_head_of_labels_is_far_above_chance(run: Run) -> None:
    assert mean_auroc(run.fused["all"]["scene_tags"], run.split.tags) > 0.85
    for name in ("siren", "rain"):
        column = SOUND_EVENTS.index(name)
        assert metrics.auroc(run.fused["all"]["sound_events"][:, column], run.split.sounds[:, column]) > 0.8
    truth = run.split.single[:, 0]
    accuracy = (run.fused["all"]["ego_action"].argmax(1) == truth).mean()
    assert accuracy > np.bincount(truth, minlength=len(EGO_ACTIONS)).max() / len(truth)


def test_objects_are_found_far_above_chance(run: Run) -> None:
    truth = list(run.split.boxes)
    for kind in range(len(OBJECTS)):
        own = metrics.box_average_precision(*metrics.box_matches(list(run.encoded.objects), truth, kind, 0.3))
        foreign = np.roll(run.encoded.objects, len(truth) // 2, axis=0)
        chance = metrics.box_average_precision(*metrics.box_matches(list(foreign), truth, kind, 0.3))
        assert own > 0.3
        assert own > 3.0 * chance


def test_the_ego_lane_is_found(run: Run) -> None:
    iou = dict(zip(SURFACES, metrics.class_iou(run.encoded.lanes, run.split.surface, len(SURFACES))))
    moved = metrics.class_iou(np.roll(run.encoded.lanes, len(run.split) // 2, 0), run.split.surface, len(SURFACES))
    assert iou["ego_lane"] > max(0.6, moved[SURFACES.index("ego_lane")])


@pytest.mark.parametrize("alone", MODALITIES)
def test_any_modality_alone_still_says_something(run: Run, alone: str) -> None:
    assert mean_auroc(run.fused[alone]["scene_tags"], run.split.tags) > 0.6


def test_scores_lie_within_bounds(run: Run) -> None:
    scores = run.fused["all"]["scores"]
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0


@pytest.mark.parametrize("language", ["en", "de", "es", "fr"])
def test_captions_find_their_moments_far_above_chance(run: Run, language: str) -> None:
    towers = open_engines({name: (TOWERS / f"{name}.onnx").read_bytes() for name in ("text", "video")})
    words = Vocabulary.open(Path(TOWERS, "vocabulary.json"))
    first = np.unique(run.split.facts, axis=0, return_index=True)[1]
    text = text_embeddings(towers["text"], run.split.captions[language], words)[first]
    assert metrics.recall_at(text, run.fused["all"]["embedding"][first], (5,))[0] > 5.0 * 5 / len(first)
    if language == "en":
        clip = clip_embeddings(towers["video"], run.encoded.embeddings[:, 0], run.split.per_world)[first]
        assert metrics.recall_at(text, clip, (5,))[0] > 3.0 * 5 / len(first)
