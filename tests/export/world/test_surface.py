"""The surface mask: classes of the ground against what was drawn, with what hides it left out."""

from __future__ import annotations

import zlib

import numpy as np

from edge.drive import topics
from edge.samples import Frame
from export.world.camera.surface import COLUMNS, DRIVABLE, EGO_LANE, MARKING, OTHER, ROWS, SIDEWALK, reduced
from export.world.simulate import WorldConfig, simulate
from roadfuse.v1.truth_pb2 import GroundTruth


def frames(config: WorldConfig) -> list[tuple[np.ndarray, np.ndarray, GroundTruth]]:
    """Picture, cells and truth of every frame."""
    events = list(simulate(config, encode=False))
    pictures = {e.capture_ns: e.sample.image for e in events if isinstance(e.sample, Frame)}
    found = []
    for e in events:
        if e.topic == topics.TRUTH:
            cells = np.frombuffer(zlib.decompress(e.message.surface_mask), np.uint8).reshape(ROWS, COLUMNS)
            found.append((pictures[e.capture_ns], cells, e.message))
    return found


def test_a_cell_with_a_marking_is_a_marking_and_else_the_most_of_it() -> None:
    classes = np.zeros((192, 320), np.uint8)
    classes[:4, :4] = DRIVABLE
    classes[0, 0] = MARKING
    classes[4:8, :2], classes[4:8, 2:4] = EGO_LANE, EGO_LANE
    classes[4, 0] = SIDEWALK
    cells = reduced(classes)
    assert cells.shape == (48, 80) and cells[0, 0] == MARKING and cells[1, 0] == EGO_LANE and cells[1, 1] == OTHER


def test_the_road_ahead_is_the_ego_lane_with_the_drivable_and_the_sidewalk_beside() -> None:
    _, cells, _ = frames(WorldConfig(1, 0.1, "urban", "clear", "day", lidar=False))[-1]
    assert cells[46, 40] == EGO_LANE
    assert {EGO_LANE, DRIVABLE, MARKING, SIDEWALK} <= set(np.unique(cells).tolist())
    assert (cells[:20] == OTHER).all()


def test_cells_in_the_middle_of_near_vehicles_show_no_road() -> None:
    checked = 0
    for _, cells, truth in frames(WorldConfig(3, 4.0, "urban", "clear", "day", lidar=False, fps=4)):
        for o in truth.objects:
            if o.kind == "vehicle" and min(o.width_px, o.height_px) > 24.0:
                row, column = int((o.top_px + 0.6 * o.height_px) // 8), int((o.left_px + 0.5 * o.width_px) // 8)
                assert cells[row, column] == OTHER
                checked += 1
    assert checked > 3


def test_marking_cells_are_brighter_than_the_lane_between_them() -> None:
    picture, cells, _ = frames(WorldConfig(21, 0.1, "highway", "clear", "day", lidar=False))[-1]
    grey = picture.astype(int).sum(axis=2).reshape(ROWS, 8, COLUMNS, 8).max(axis=(1, 3))[36:]
    assert grey[cells[36:] == MARKING].mean() > grey[cells[36:] == EGO_LANE].mean() + 30


def test_fog_hides_the_far_ground() -> None:
    clear, fog = (
        frames(WorldConfig(6, 0.1, "highway", weather, "day", lidar=False))[-1][1] for weather in ("clear", "fog")
    )
    assert 0 < (fog > 0).sum() < (clear > 0).sum()


def test_another_picture_size_has_the_same_grid() -> None:
    _, cells, _ = frames(WorldConfig(1, 0.1, "urban", "clear", "day", width_px=320, height_px=200, lidar=False))[-1]
    assert cells.shape == (48, 80) and cells[46, 40] == EGO_LANE
