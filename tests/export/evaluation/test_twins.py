"""Lowerings of one bundle are compared answer by answer, and a difference shows."""

from __future__ import annotations

import numpy as np
import pytest

from edge.bundle import REFERENCE
from export.evaluation.runner import Encoded, open_bundle
from export.evaluation.twins import _same_boxes, _within, agreement
from export.model.labels import MODALITIES
from export.training.dataset import Split, prepare
from export.training.plan import FIRST_SEED, WorldPlan


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    plan = WorldPlan(FIRST_SEED["held_out"] + 6_000, 395, "varied", "clear", "day", 3)
    return prepare(tmp_path_factory.mktemp("twins"), [plan], 1)


def test_lowerings_of_the_reference_bundle_are_twins_as_written_and_nearly_so_as_they_run(split: Split) -> None:
    own, written = (open_bundle(REFERENCE, target, as_written=True) for target in ("x86", "trt"))
    twins = agreement(own, written, split)
    assert set(twins["top"].values()) == set(twins["within_a_quantum"].values()) == {1.0}
    assert set(twins["within_a_quantum"]) == set(MODALITIES)
    kernels = agreement(open_bundle(REFERENCE, "x86"), open_bundle(REFERENCE, "trt"), split)
    assert min(kernels["top"].values()) > 0.99
    assert min(kernels["within_a_quantum"].values()) > 0.99  # ties round as each kernel likes


def encoded(objects: np.ndarray) -> Encoded:
    return Encoded(np.zeros((1, 4, 2), np.float32), objects[None], np.zeros((1, 2, 2), np.uint8), np.zeros((1, 1)))


def test_a_box_counts_as_the_same_with_its_class_kind_and_place() -> None:
    mine = np.array([[0, 0.9, 0.1, 0.1, 0.2, 0.2, 3], [2, 0.8, 0.5, 0.5, 0.1, 0.1, 1], [1, 0.3, 0, 0, 1, 1, 0]])
    moved, other_kind = mine[::-1].copy(), mine.copy()
    moved[-1, 2] += 0.05
    other_kind[1, 6] = 2
    assert _same_boxes(encoded(mine), encoded(mine[::-1])) == {"objects, class and kind": 1.0}
    assert _same_boxes(encoded(mine), encoded(moved)) == {"objects, class and kind": 0.5}
    assert _same_boxes(encoded(mine), encoded(other_kind)) == {"objects, class and kind": 0.5}


def test_a_quantum_is_a_127th_of_the_largest_magnitude() -> None:
    first = np.array([[1.27, -0.5, 0.0]], np.float32)
    assert _within(first, first + np.float32(0.0099)) == 1.0
    assert _within(first, first + np.array([0.0, 0.0101, 0.0], np.float32)) == pytest.approx(2 / 3)
