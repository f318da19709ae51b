"""What kind of ground each cell of the picture shows: the strips that are drawn, as classes, less what hides them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.ground import Ground
from export.world.camera.lens import SHIFT, fixed_corners
from export.world.camera.painter import MASK_SCALE
from export.world.scene import Scene

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

OTHER, EGO_LANE, DRIVABLE, MARKING, SIDEWALK = range(5)
COLUMNS, ROWS = 80, 48
MARKING_SIGHT_M = 60.0  # beyond, a line is thinner than a pixel
CONTRAST_LIMIT = 0.04


class Surface:
    """Classes of the ground of one journey; drawn at 1 / MASK_SCALE of the picture's size."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._lens = ground, ground.lens

    def cells(self, scene: Scene, hidden: U8) -> U8:
        """(48, 80) uint8 class of each cell; `hidden` is the painter's mask of what stands in front."""
        pose, ground = scene.pose, self._ground
        classes = np.zeros_like(hidden)
        at = ground.knots(scene.station_m)
        strips = ground.strips(at, pose)
        ego = self._ego_lane(scene, at)
        depth = self._lens.ground_depth_m(pose.pitch_rad, pose.heave_m)
        for section, first, last in reversed(ground.spans(at)):
            part = slice(first, last)
            near = np.flatnonzero(depth < max(section.end_m - scene.station_m - self._lens.forward_m, 1.0))
            if len(near):
                classes[int(near[0]) // MASK_SCALE :] = OTHER
            self._band(classes, strips["walk_left"][part], strips["walk_right"][part], SIDEWALK)
            self._band(classes, strips["edge_left"][part], strips["edge_right"][part], DRIVABLE)
            if section.median_m > 0.5:
                self._band(classes, strips["median_left"][part], strips["median_right"][part], OTHER)
            self._band(classes, ego[0][part], ego[1][part], EGO_LANE)
        self._mark(classes, scene, at, strips)
        seen = (depth < np.inf) & (np.exp(-scene.air.extinction_per_m * np.minimum(depth, 1e4)) > CONTRAST_LIMIT)
        classes[~seen[::MASK_SCALE][: len(classes)]] = OTHER
        classes[hidden > 0] = OTHER
        return reduced(classes)

    def _ego_lane(self, scene: Scene, at: NDArray[np.int64]) -> tuple[F64, F64]:
        """Pixels of the left and right boundary of the ego's lane, as far as it goes on."""
        road = self._ground.road
        lane = road.lane_of(scene.station_m, scene.offset_m)
        left = road.half_median_m[at] + np.minimum(lane, road.lanes[at]) * road.lane_width_m[at]
        right = road.half_median_m[at] + np.minimum(lane + 1, road.lanes[at]) * road.lane_width_m[at]
        x, y, heading = road.x_m[at], road.y_m[at], road.heading_rad[at]
        sides = [
            self._ground.project(x + d * np.sin(heading), y - d * np.cos(heading), scene.pose) for d in (left, right)
        ]
        return sides[0], sides[1]

    def _mark(self, classes: U8, scene: Scene, at: NDArray[np.int64], strips: dict[str, F64]) -> None:
        ground = self._ground
        near = at < scene.station_m + MARKING_SIGHT_M
        for section, first, last in ground.spans(at):
            part = slice(first, min(last, int(near.sum())))
            if section.place.name == "residential" or part.stop - part.start < 2:
                continue
            for line in ("line_right", "line_left", "inner_right", "inner_left"):
                self._band(classes, strips[line + "_a"][part], strips[line + "_b"][part], MARKING)
        for quads in (ground.dashes, ground.zebras):
            for quad in ground.quads(quads, scene.pose, scene.station_m, MARKING_SIGHT_M):
                cv2.fillConvexPoly(classes, fixed_corners(quad, MASK_SCALE), MARKING, cv2.LINE_8, SHIFT)

    def _band(self, classes: U8, left: F64, right: F64, kind: int) -> None:
        outline = np.concatenate([left, right[::-1]])
        cv2.fillPoly(classes, [fixed_corners(outline, MASK_SCALE)], kind, cv2.LINE_8, SHIFT)


def reduced(classes: U8) -> U8:
    """(48, 80) cells of a finer map of classes: a marking anywhere in a cell makes it one, else the class of most."""
    height, width = classes.shape
    whole = classes if (height % ROWS, width % COLUMNS) == (0, 0) else _fitted(classes)
    shares = np.stack(
        [cv2.resize(cv2.inRange(whole, kind, kind), (COLUMNS, ROWS), interpolation=cv2.INTER_AREA) for kind in range(5)]
    )
    cells = np.asarray(shares.argmax(axis=0), dtype=np.uint8)
    cells[shares[MARKING] > 0] = MARKING
    return cells


def _fitted(classes: U8) -> U8:
    """The map at the next larger size that the grid divides (pictures of other sizes than 640 x 384)."""
    height, width = (-(-size // cells) * cells for size, cells in zip(classes.shape, (ROWS, COLUMNS)))
    return np.asarray(cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
