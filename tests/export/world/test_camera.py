"""Boxes and lanes against the pixels that were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.drive import topics
from edge.samples import Frame
from export.world.camera.bodywork import vehicle
from export.world.camera.figures import person
from export.world.camera.lens import Lens
from export.world.camera.painter import Painter, Placed
from export.world.motion import Pose
from export.world.simulate import WorldConfig, simulate
from export.world.town import town
from export.world.weather import Atmosphere

DAY = Atmosphere("clear", "day", 1.0, 0.0, 0.0, (1.0, 0.0, 0.0))
SUN = (0.0, 0.0, 1.0)
LENS = Lens()
POSE = Pose(0.0, 0.0, 0.0, 0.01, 0.0, 0.0, 0.0)
LOOK = town(0).look


def paint(placed: list[Placed]) -> tuple[np.ndarray, dict[int, tuple[tuple[float, ...], float]]]:
    picture = np.zeros((LENS.height_px, LENS.width_px, 3), np.uint8)
    seen, _ = Painter(LENS).paint(picture, placed, POSE, DAY, SUN, np.empty((0, 2)))
    return picture, {s.id: (s.box_px, s.visibility) for s in seen}


@pytest.mark.parametrize("variant", ["car", "van", "truck", "bus", "emergency"])
@pytest.mark.parametrize(("x", "y", "turn"), [(14.0, 1.0, 0.1), (22.0, -3.5, 3.0), (7.0, 3.5, 0.0), (60.0, 2.0, 1.5)])
def test_vehicle_boxes_are_the_drawn_pixels(variant: str, x: float, y: float, turn: float) -> None:
    model = vehicle(variant, 7, (4.6, 1.9, 1.6 if variant == "car" else 2.6), LOOK)
    picture, seen = paint([Placed(1, model, x, y, turn)])
    rows, columns = np.nonzero(picture.max(axis=2) > 12)
    left, top, right, bottom = seen[1][0]
    assert (columns.min(), rows.min()) == pytest.approx((left, top), abs=2.0), (x, y)
    assert (columns.max() + 1, rows.max() + 1) == pytest.approx((right, bottom), abs=2.0)


def test_pedestrian_boxes_are_the_drawn_pixels() -> None:
    for bearing, intent in ((0.0, "walks"), (1.6, "crosses"), (2.5, "waits"), (1.5, "will_cross")):
        model = person(3, 1.75, 2.3, intent, bearing, math.atan2(2.0, 12.0), LOOK)
        picture, seen = paint([Placed(5, model, 13.0, 2.0, 0.0)])
        rows, columns = np.nonzero(picture.max(axis=2) > 12)
        left, top, right, bottom = seen[5][0]
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == pytest.approx(
            (left, top, right, bottom), abs=2.0
        )
        assert bottom - top == pytest.approx(1.75 * LENS.focal_px / 11.75, rel=0.06)


def test_hidden_share_is_what_nearer_shapes_cover() -> None:
    car = vehicle("car", 1, (4.4, 1.8, 1.5), LOOK)
    truck = vehicle("truck", 2, (9.0, 2.5, 3.6), LOOK)
    _, apart = paint([Placed(1, car, 40.0, -6.0, 0.0), Placed(2, truck, 16.0, 3.0, 0.0)])
    _, behind = paint([Placed(1, car, 40.0, 0.0, 0.0), Placed(2, truck, 16.0, 0.0, 0.0)])
    assert apart[1][1] > 0.95 and apart[2][1] > 0.95
    assert behind[1][1] < 0.05 and behind[2][1] > 0.95


def test_lane_truth_lies_on_painted_lines() -> None:
    events = list(simulate(WorldConfig(21, 0.2, "highway", "clear", "day", lidar=False), encode=False))
    truth = next(e.message for e in events if e.topic == topics.TRUTH)
    frame = next(e.sample for e in events if isinstance(e.sample, Frame))
    grey = frame.image.astype(int).sum(axis=2)
    solid = [lane for lane in truth.lanes if lane.kind == "solid"]
    assert solid
    checked = 0
    for lane in solid:
        for x, y in zip(lane.x_px, lane.y_px):
            u, v = round(x), round(y)
            hidden = any(
                o.left_px - 2 <= x <= o.left_px + o.width_px + 2 and o.top_px <= y <= o.top_px + o.height_px + 2
                for o in truth.objects
            )
            if hidden or not (12 < u < 627 and 230 < v < 380):
                continue
            beside = 0.5 * (grey[v, u - 12] + grey[v, u + 12])
            assert grey[v, u - 2 : u + 3].max() > beside + 40
            checked += 1
    assert checked > 3


def test_snow_whitens_the_verge() -> None:
    def picture(weather: str) -> np.ndarray:
        events = simulate(WorldConfig(3, 0.1, "highway", weather, "day", lidar=False, town=4), encode=False)
        return next(e.sample.image for e in events if isinstance(e.sample, Frame)).astype(int)

    clear, snow = picture("clear"), picture("snow")
    foot = (slice(230, 300), slice(0, 640))
    assert snow[foot].mean() > clear[foot].mean() + 10
    saturation = [np.ptp(p[foot], axis=-1).mean() for p in (clear, snow)]
    assert saturation[1] < saturation[0]
