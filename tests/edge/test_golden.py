"""Golden vectors: what counts as the same answer, of rows of objects, of masks, and to a fusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import bundle, golden
from edge.bundle import GoldenSpec
from tests.edge.test_heads import VALUES, many_headed

ROWS = VALUES["objects"]  # as probable as 0.9, 0.8 and 0.7; the threshold is 0.5


def compared(folder: Path, tensor: str, expected: Any, got: Any) -> golden.Answer:
    """How a camera that says `got` compares with the golden answer, by a tolerance as of rows with thirteen kinds."""
    made = bundle.load(many_headed(folder / "many", values={tensor: got}))
    made = replace(made, golden=GoldenSpec(folder, {"camera": {"file": {tensor: 0.26}}}))
    vectors = golden.Golden(golden.made_inputs(made, 1), {"camera": {"file": {tensor: expected[None]}}})
    (answer,) = golden.check(made, vectors, "file")
    return answer


def with_cell(rows: Any, row: int, column: int, value: float) -> Any:
    changed = rows.copy()
    changed[0, row, column] = value
    return changed


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 0.8), (1, 0.65), (2, 0.25), (3, 0.03), (4, 0.25), (5, 0.25), (6, 0.9), (1, float("nan"))],
)
def test_a_wide_tolerance_of_objects_hides_no_other_label_probability_box_or_kind(
    tmp_path: Path, column: int, value: float
) -> None:
    answer = compared(tmp_path, "objects", ROWS, with_cell(ROWS, 0, column, value))
    assert answer.where is not None and answer.where[0][2] == 0 and answer.tolerance == 0.02


def test_an_object_that_nobody_expected_diverges(tmp_path: Path) -> None:
    answer = compared(tmp_path, "objects", with_cell(ROWS, 2, 1, 0.0), with_cell(ROWS, 2, 1, 0.99))
    assert answer.where is not None and answer.where[0][:3] == (0, 0, 2)
    assert "objects[0, 2, 1] of case 0: expected 0, got 0.99 (tolerance 0.02)" in str(answer)


def test_objects_may_change_places_and_what_is_below_the_threshold_may_differ(tmp_path: Path) -> None:
    unlikely = with_cell(ROWS, 1, 1, 0.2)
    got = unlikely[:, [2, 1, 0]]
    got[0, 1, 2:6], got[0, 0, 1], got[0, 2, 3] = 0.9, 0.71, 0.01
    assert compared(tmp_path, "objects", unlikely, got).where is None


def test_an_object_that_a_rounding_lifts_over_the_threshold_does_not_diverge(tmp_path: Path) -> None:
    left_out = ROWS.copy()
    left_out[0, 2] = 0.0
    assert compared(tmp_path, "objects", left_out, with_cell(ROWS, 2, 1, 0.51)).where is None


@pytest.mark.parametrize(("cells", "holds"), [(1, True), (2, True), (3, False)])
def test_half_a_percent_of_a_mask_s_cells_may_differ_by_any_label(tmp_path: Path, cells: int, holds: bool) -> None:
    expected = np.zeros((1, 20, 20), np.uint8)
    got = expected.copy()
    got[0, 4, :cells] = 1
    answer = compared(tmp_path, "lanes", expected, got)
    assert answer.largest == cells / 400 and answer.where == (None if holds else ((0, 0, 4, 0), 0.0, 1.0))


def test_made_up_inputs_let_the_fusion_see_each_modality() -> None:
    presence = golden.made_inputs(bundle.load(), 3)["fuse"]["presence"]
    assert presence.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1]]


def test_the_reference_bundle_s_golden_vectors_hold() -> None:
    made = bundle.load()
    assert made.golden is not None
    assert [str(a) for a in golden.check(made, golden.read(made.golden.path)) if a.where is not None] == []
