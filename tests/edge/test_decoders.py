"""Decoders: a detector's tensors into boxes, each object once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.decoders import check_objects, fastestdet, in_graph, ssd, suppressed
from edge.errors import BundleError

ROLES = {"objects": "out"}
BOX = st.tuples(st.integers(0, 2), *[st.floats(0.06, 1)] * 5).map(list)


def grid(**cells: tuple[float, ...]) -> dict[str, NDArray[np.float32]]:
    """A FastestDet output of three classes over 4 x 2 cells; `x1_y0` names a cell."""
    values = np.zeros((1, 8, 2, 4), np.float32)
    for name, cell in cells.items():
        x, y = (int(part[1:]) for part in name.split("_"))
        values[0, :, y, x] = cell
    return {"out": values}


def test_a_cell_becomes_its_box() -> None:
    (row,) = fastestdet(grid(x2_y1=(0.9, 0.5, -0.5, -1.0, 0.0, 0.1, 0.8, 0.1)), ROLES, 0.5)
    kind, score, left, top, width, height = row
    assert kind == 1 and score == pytest.approx(0.9**0.6 * 0.8**0.4)
    assert (width, height) == pytest.approx((1 / (1 + math.e), 0.5))
    assert left + width / 2 == pytest.approx((2 + math.tanh(0.5)) / 4)
    assert top + height / 2 == pytest.approx((1 - math.tanh(0.5)) / 2)


def test_an_empty_grid_has_no_objects() -> None:
    assert fastestdet(grid(), ROLES, 0.0) == []


@given(values=st.lists(st.floats(0, 1, width=32), min_size=64, max_size=64), offsets=st.floats(-1e6, 1e6))
def test_every_grid_gives_finite_boxes_of_known_classes(values: list[float], offsets: float) -> None:
    tensor = np.array(values, np.float32).reshape(1, 8, 2, 4)
    tensor[0, 1:5] = (tensor[0, 1:5] - 0.5) * offsets
    rows = fastestdet({"out": tensor}, ROLES, 0.0)
    assert len(rows) <= 8
    for kind, score, *box in rows:
        assert kind in (0, 1, 2) and 0.05 <= score <= 1 and all(map(math.isfinite, box))
        assert 0 <= box[2] <= 1 and 0 <= box[3] <= 1


SSD_ROLES = {"objects": "out", "boxes": "corners"}


def anchors(*scores: list[float], corners: tuple[float, ...] = (0.1, 0.2, 0.5, 0.4)) -> dict[str, NDArray[np.float32]]:
    """An SSD output: background and classes of each box, all boxes in one place."""
    return {"out": np.array([scores], np.float32), "corners": np.array([[corners] * len(scores)], np.float32)}


def test_corners_become_boxes_and_the_background_is_none() -> None:
    (row,) = ssd(anchors([0.9, 0.05, 0.05], [0.1, 0.2, 0.7]), SSD_ROLES, 0.5)
    assert row == pytest.approx([1, 0.7, 0.1, 0.2, 0.4, 0.2])


def test_boxes_of_one_class_in_one_place_are_one_object_and_of_two_classes_two() -> None:
    found = ssd(anchors([0.0, 0.8, 0.6], [0.0, 0.9, 0.0]), SSD_ROLES, 0.5)
    assert [(kind, pytest.approx(score)) for kind, score, *_ in found] == [(0, 0.9), (1, 0.6)]


@pytest.mark.parametrize(
    ("outputs", "labels", "roles"),
    [
        (anchors([0.1, 0.9]), 2, SSD_ROLES),  # two labels need three scores
        (anchors([0.1, 0.9]), 1, ROLES),  # no boxes
        ({**anchors([0.1, 0.9]), "corners": np.zeros((1, 2, 4), np.float32)}, 1, SSD_ROLES),  # boxes without scores
    ],
)
def test_ssd_outputs_that_do_not_belong_together_are_refused(outputs: Any, labels: int, roles: dict[str, str]) -> None:
    with pytest.raises(BundleError, match="and an output boxes of"):
        check_objects(Path("camera.onnx"), "ssd", outputs, roles, labels)


def test_rows_of_the_graph_pass_through() -> None:
    rows = np.array([[[1, 0.9, 0.1, 0.2, 0.3, 0.4]]], np.float32)
    assert in_graph({"out": rows}, ROLES, 0.5) == rows[0].tolist()
    assert in_graph({"out": rows}, {}, 0.5) == []


def test_what_is_below_the_threshold_is_no_row() -> None:
    rows = np.array([[[1, 0.9, 0.1, 0.2, 0.3, 0.4], [1, 0.4, 0.1, 0.2, 0.3, 0.4]]], np.float32)
    assert len(in_graph({"out": rows}, ROLES, 0.5)) == 1
    cells = grid(x0_y0=(0.9, 0, 0, 0, 0, 0.9, 0, 0), x3_y1=(0.5, 0, 0, 0, 0, 0.5, 0, 0))
    assert [len(fastestdet(cells, ROLES, threshold)) for threshold in (0.95, 0.6, 0.4)] == [0, 1, 2]


def test_the_best_of_one_object_stays() -> None:
    best, worse, other = [0, 0.9, 0.1, 0.1, 0.4, 0.4], [0, 0.8, 0.12, 0.1, 0.4, 0.4], [1, 0.7, 0.1, 0.1, 0.4, 0.4]
    apart = [0, 0.6, 0.6, 0.6, 0.3, 0.3]
    assert suppressed([apart, worse, other, best]) == [best, other, apart]


def overlap(a: list[Any], b: list[Any]) -> float:
    width = max(min(a[2] + a[4], b[2] + b[4]) - max(a[2], b[2]), 0)
    height = max(min(a[3] + a[5], b[3] + b[5]) - max(a[3], b[3]), 0)
    return float(width * height / (a[4] * a[5] + b[4] * b[5] - width * height))


@given(rows=st.lists(BOX, max_size=90))
def test_suppression_keeps_the_best_and_drops_only_what_overlaps_it(rows: list[list[float]]) -> None:
    kept = suppressed([*rows])
    assert [row[1] for row in kept] == sorted((row[1] for row in kept), reverse=True) and len(kept) <= 64
    for i, row in enumerate(kept):
        assert all(row[0] != other[0] or overlap(row, other) < 0.45 + 1e-9 for other in kept[:i])
    if len(kept) < 64:
        for row in rows:
            assert any(row is other or (row[0] == other[0] and overlap(row, other) > 0.45 - 1e-9) for other in kept)


@pytest.mark.parametrize(
    ("decoder", "shape", "said"),
    [
        ("fastestdet", (1, 84, 22, 22), r"expected objects of \(1, 5 \+ 80, rows, columns\), got \(1, 84, 22, 22\)"),
        ("fastestdet", (85, 22, 22), "got"),
        ("", (1, 10, 7), r"expected objects of \(1, objects, 6\), got \(1, 10, 7\)"),
        ("", (10, 6), "got"),
        ("yolo", (1, 10, 6), "expected a decoder of"),
    ],
)
def test_an_output_of_another_shape_is_refused(decoder: str, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        check_objects(Path("camera.onnx"), decoder, {"out": np.zeros(shape, np.float32)}, ROLES, 80)


def test_outputs_that_fit_are_taken() -> None:
    check_objects(Path("camera.onnx"), "fastestdet", {"out": np.zeros((1, 85, 22, 22), np.float32)}, ROLES, 80)
    check_objects(Path("camera.onnx"), "", {"out": np.zeros((1, 12, 6), np.float32)}, ROLES, 3)
    check_objects(Path("camera.onnx"), "", {"out": np.zeros((1, 12, 7), np.float32)}, ROLES, 3, kinds=True)
    check_objects(Path("camera.onnx"), "ssd", anchors([0.1, 0.2, 0.7]), SSD_ROLES, 2)
