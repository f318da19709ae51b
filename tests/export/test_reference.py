"""The committed bundle on worlds it never saw: every head is clearly above chance, on the very engines that ship."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle import REFERENCE, load
from export import metrics
from export.dataset import Split, prepare
from export.labels import OBJECTS, SCENE_TAGS, SOUND_EVENTS
from export.pack import folder_bytes
from export.plan import HELD_OUT_SEED, WorldPlan
from export.runner import Encoded, Fused, encode, fuse, open_folder

FIRST_SEED = HELD_OUT_SEED + 5_000
SECONDS = 6
WORLDS = (
    ("urban", "clear", "day"),
    ("siren", "rain", "night"),
    ("highway", "fog", "day"),
    ("crossing", "clear", "dusk"),
    ("tunnel", "clear", "day"),
    ("highway", "rain", "dusk"),
)
ALL = (True, True, True)


@dataclass(frozen=True)
class Run:
    split: Split
    encoded: Encoded
    fused: dict[str, Fused]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plans = [WorldPlan(FIRST_SEED + i, *kind, SECONDS) for i, kind in enumerate(WORLDS)]
    split = prepare(tmp_path_factory.mktemp("held_out"), plans, 1)
    sessions = open_folder(REFERENCE)
    encoded = encode(sessions, split)
    subsets = {
        "all": ALL,
        "camera": (True, False, False),
        "audio": (False, True, False),
        "motion": (False, False, True),
    }
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
    assert folder_bytes(REFERENCE) <= 3_000_000
    assert bundle.encoders["camera"].precision == bundle.encoders["audio"].precision == "int8"
    assert bundle.heads == {"scene_tags": SCENE_TAGS, "sound_events": SOUND_EVENTS, "objects": OBJECTS}
    assert "status" not in bundle.manifest["figures"]


def test_scene_tags_are_above_chance(run: Run) -> None:
    assert mean_auroc(run.fused["all"].tags, run.split.tags) > 0.75
    night = SCENE_TAGS.index("night")
    assert metrics.auroc(run.fused["all"].tags[:, night], run.split.tags[:, night]) > 0.8


def test_sound_events_are_above_chance(run: Run) -> None:
    for name in ("siren", "rain"):
        column = SOUND_EVENTS.index(name)
        assert metrics.auroc(run.fused["all"].sounds[:, column], run.split.sounds[:, column]) > 0.75


def test_vehicles_are_found_far_above_chance(run: Run) -> None:
    truth = list(run.split.boxes)
    own = metrics.box_average_precision(*metrics.box_matches(list(run.encoded.objects), truth, 0, 0.3))
    foreign = np.roll(run.encoded.objects, len(truth) // 2, axis=0)
    chance = metrics.box_average_precision(*metrics.box_matches(list(foreign), truth, 0, 0.3))
    assert own > 0.2
    assert own > 3.0 * chance


@pytest.mark.parametrize("alone", ["camera", "audio", "motion"])
def test_any_modality_alone_still_says_something(run: Run, alone: str) -> None:
    assert mean_auroc(run.fused[alone].tags, run.split.tags) > 0.6


def test_scores_lie_within_bounds(run: Run) -> None:
    scores = run.fused["all"].scores
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0
