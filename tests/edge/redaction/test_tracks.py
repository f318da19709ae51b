"""Boxes joined in time: what a detector missed between two pictures is covered too."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.redaction.regions import MAX_BOXES, Box
from edge.redaction.tracks import REACH_NS, Tracks

FRAME_NS = 50_000_000


def walker(at: int, pace_px: float = 4.0) -> Box:
    """A person who walks to the right."""
    left = 100 + pace_px * at
    return Box("pedestrian", left, 100, left + 40, 200)


def holds(found: list[Box] | None, box: Box) -> bool:
    assert found is not None
    return any(
        one.left <= box.left and one.top <= box.top and one.right >= box.right and one.bottom >= box.bottom
        for one in found
    )


@given(st.sets(st.integers(1, 58), max_size=40), st.floats(-6, 6))
def test_pictures_between_two_boxes_of_a_thing_are_covered(missed: set[int], pace_px: float) -> None:
    tracks, last, longest = Tracks(), 0, 0
    for at in range(60):
        seen = at not in missed
        tracks.add(at * FRAME_NS, [walker(at, pace_px)] if seen else [])
        if seen:
            longest, last = max(longest, at - last), at
    if longest * FRAME_NS > REACH_NS:
        return  # a gap longer than a second is two sights
    for at in range(60):
        assert holds(tracks.at(at * FRAME_NS), walker(at, pace_px)), at


def test_half_a_second_before_and_behind_is_covered_and_no_more() -> None:
    tracks = Tracks()
    for at in range(20, 30):
        tracks.add(at * FRAME_NS, [walker(at)])
    for at in (*range(10, 20), *range(30, 40)):
        assert holds(tracks.at(at * FRAME_NS), walker(at)), at
    assert tracks.at(9 * FRAME_NS) == tracks.at(40 * FRAME_NS) == []


def test_a_single_sight_is_covered_around_its_instant() -> None:
    tracks = Tracks()
    tracks.add(20 * FRAME_NS, [walker(20, 0)])
    assert holds(tracks.at(11 * FRAME_NS), walker(0, 0)) and holds(tracks.at(29 * FRAME_NS), walker(0, 0))


def test_things_that_cross_keep_tracks_of_their_own() -> None:
    tracks = Tracks()
    for at in range(40):
        tracks.add(at * FRAME_NS, [walker(at), Box("vehicle", 300 - 4 * at, 100, 400 - 4 * at, 180)])
    found = tracks.at(20 * FRAME_NS)
    assert found is not None and sorted(box.name for box in found) == ["pedestrian", "vehicle"]


def test_a_picture_with_more_boxes_than_can_be_meant_is_covered_whole() -> None:
    tracks = Tracks()
    tracks.add(0, [walker(at) for at in range(MAX_BOXES + 1)])
    assert tracks.at(0) is None and tracks.at(FRAME_NS) == []


@given(st.integers(0, 1000), st.data())
def test_pictures_out_of_order_are_still_covered(seed: int, data: st.DataObject) -> None:
    order = list(range(30))
    rng = random.Random(seed)
    for _ in range(5):
        a, b = rng.randrange(30), rng.randrange(30)
        order[a], order[b] = order[b], order[a]
    tracks = Tracks()
    for at in order:
        tracks.add(at * FRAME_NS, [walker(at)])
    for at in range(30):
        assert holds(tracks.at(at * FRAME_NS), walker(at))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_boxes_that_are_no_numbers_leave_the_others_as_they_are(bad: float) -> None:
    tracks = Tracks()
    tracks.add(0, [walker(0), Box("pedestrian", bad, bad, bad, bad), Box("vehicle", 50, 50, 10, 10)])
    found = tracks.at(0)
    assert found is not None and len(found) == 1 and holds(found, walker(0))


def test_more_boxes_of_one_instant_than_can_be_meant_cover_the_whole_picture_whoever_has_them() -> None:
    tracks = Tracks()
    for at in range(MAX_BOXES):
        tracks.add(0, [walker(at)])
    assert len(tracks.at(0) or ()) == MAX_BOXES
    tracks.add(0, [walker(0)])
    assert tracks.at(0) is None
