"""What is covered of a detected thing, whatever the detector says."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge.redaction.picture import GRID_PX, rectangles
from edge.redaction.regions import FACE, PLATE, Box, kind_of, region_of, sane

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)
BOXES = st.builds(Box, st.sampled_from(["pedestrian", "vehicle", "face", "plate", "sign"]), ANY, ANY, ANY, ANY)


@given(st.lists(BOXES, max_size=8), st.integers(1, 5000), st.integers(1, 5000))
def test_hostile_boxes_cover_whole_units_inside_the_picture_or_nothing(
    boxes: list[Box], width: int, height: int
) -> None:
    regions = [region for box in sane(boxes) if (region := region_of(box, height)) is not None]
    for left, top, right, bottom in rectangles(regions, width, height):
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert left % GRID_PX == top % GRID_PX == 0
        assert right % GRID_PX == 0 or right == width
        assert bottom % GRID_PX == 0 or bottom == height


@given(st.lists(BOXES, max_size=8))
def test_boxes_that_are_not_finite_or_have_no_size_say_nothing(boxes: list[Box]) -> None:
    kept = sane(boxes)
    assert all(math.isfinite(edge) and abs(edge) <= 1e6 for box in kept for edge in box[1:])
    assert all(box.left < box.right and box.top < box.bottom for box in kept)


@given(st.floats(70, 600), st.floats(0.2, 0.6), st.floats(50, 400), st.floats(50, 200))
def test_a_person_s_head_is_covered_even_where_the_box_begins_a_tenth_too_low(
    height: float, aspect: float, left: float, top: float
) -> None:
    region = region_of(Box("pedestrian", left, top, left + aspect * height, top + height), 2000)
    assert region is not None and region.kind == FACE
    assert region.top <= top - 0.1 * height and region.bottom >= top + 0.25 * height
    assert region.left <= left and region.right >= left + aspect * height
    assert region.bottom < top + 0.6 * height  # what a model learns of a person from is left


def test_a_small_person_is_covered_whole() -> None:
    region = region_of(Box("person", 100, 100, 115, 150), 480)
    assert region is not None and region.top < 100 and region.bottom >= 150


def test_of_a_person_cut_off_by_the_lower_edge_more_is_covered() -> None:
    whole = region_of(Box("pedestrian", 100, 100, 200, 400), 480)
    cut = region_of(Box("pedestrian", 100, 100, 200, 479), 480)
    assert whole is not None and cut is not None
    assert (cut.bottom - 100) / 379 > (whole.bottom - 100) / 300


def test_a_vehicle_s_lower_part_is_covered_unless_its_plate_has_no_legible_pixels() -> None:
    region = region_of(Box("vehicle", 100, 100, 220, 180), 480)
    assert region is not None and region.kind == PLATE
    assert (region.left, region.right) == (100, 220) and 120 < region.top < 140 and region.bottom >= 180
    assert region_of(Box("vehicle", 100, 100, 140, 130), 480) is None


def test_signs_are_left() -> None:
    assert kind_of("sign") == kind_of("speed_50") == kind_of("") == ""
    assert region_of(Box("sign", 10, 10, 100, 100), 480) is None
