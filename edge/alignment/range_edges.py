"""Where a picture should have edges, read off one LiDAR sweep: sides, tops and feet of what stands on the road.

Four kinds are told apart, since each errs in its own way. *Side*: the range jumps along a ring, to what lies further
back or to nothing (the sky gives no return); *left* and *right* say where the nearer surface ends. *Top*: the same
between rings. *Foot*: where a wall meets the ground; both surfaces are measured, so that this place lies between no two
rays and is known to centimetres. A jump counts only if the slope of the nearer surface does not explain it (on a plane
the inverse range is linear in the angle), and lies between the two rays, at the nearer range.

Frames: x forward, y left, z up (m). Sweeps must be recorded ring by ring, as KITTI's and the world's are, and reach
further to the sides than the picture does: where a ring ends, a thing would seem to.

Ref: Levinson, Thrun, "Automatic Online Calibration of Cameras and Lasers", RSS 2013 (for jumps along rings).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.alignment.projection import F32, Rig, project

LEFT, RIGHT, TOP, FOOT = range(4)
KINDS: Final = 4

_F64 = NDArray[np.float64]
_Index = NDArray[np.intp]
_LEAST_POINTS: Final = 50
_MOST_POINTS: Final = 20_000  # in the picture; of a denser sweep every second, third ... is read
_MOST_RINGS, _LEAST_STEP_RAD = 256, 7e-4  # beyond these it is no spinning LiDAR, or not recorded ring by ring
_SAMPLED: Final = 4_000  # steps that a median is taken of
_MOST_EDGES: Final = 400  # of a kind, evenly over the sweep
_NEAREST_M, _FURTHEST_M, _FURTHEST_FOOT_M = 6.0, 60.0, 40.0  # nearer than 6 m the camera looks at another side of it
_JUMP_M, _JUMP_SHARE = 1.0, 0.05  # least jump, and as a share of the nearer range
_NEXT: Final = 1.5  # neighbours along a ring are at most that many steps apart
_RING_BACK_RAD: Final = 0.02  # a ring ends where the azimuth goes back by this
_SIDE_STANDS: Final = 0.2  # share of the range by which the ring above or below may differ beside a side
_TOP_WIDE: Final = 0.05  # and the next ray of the ring beside a top, and the ring below
_GROUND_SLOPE, _GROUND_BEND, _GROUND_STEP_M = 0.08, 0.02, 0.3  # beyond this bend the last ring is on the wall already
_WALL_SLOPE: Final = 0.3  # of a wall: m sideways a metre up
_FOOT_LEAST_M: Final = 0.1  # height of the lowest ray on a wall
# an end's share of the way to the next ray, sideways and upward: things are narrower than half-way would have it
_BESIDE, _ABOVE = 0.25, 0.4
FINE_RAD: Final = 0.01  # between the rays of a fine LiDAR, along a ring
_HALF_WAY: Final = 0.5  # of those an end lies on average where it should
_NOTHING: Final = np.inf


@dataclass(frozen=True, slots=True, eq=False)
class RangeEdges:
    """Edges of one sweep.

    Attributes:
        points_lidar: (n, 3) float32, m.
        kinds: (n,) LEFT, RIGHT, TOP or FOOT.
        step_rad: angle between neighbouring rays, along a ring and between rings.
    """

    points_lidar: F32
    kinds: NDArray[np.intp]
    step_rad: tuple[float, float]

    @property
    def is_fine(self) -> bool:
        """Whether the rays are close enough to say to a pixel where a thing ends."""
        return self.step_rad[0] < FINE_RAD


NO_EDGES: Final = RangeEdges(np.zeros((0, 3), np.float32), np.zeros(0, np.intp), (0.0, 0.0))


def range_edges(rig: Rig, points_lidar: F32) -> RangeEdges:
    """The edges of a sweep in the picture.

    Args:
        points_lidar: (n, 3 or more) float32, ring by ring; points that are not finite do not count.
    """
    points, is_seen = _in_view(rig, points_lidar)
    if len(points) < _LEAST_POINTS:
        return NO_EDGES
    rays = _Rays.of(points, is_seen, math.atan2(rig.cam_SE3_lidar[2, 1], rig.cam_SE3_lidar[2, 0]))
    if rays is None:
        return NO_EDGES
    found = [_thinned(edges) for edges in (*_sides(rays), _tops(rays), _feet(rays))]
    kinds = np.repeat(np.arange(KINDS), [len(edges) for edges in found])
    return RangeEdges(np.concatenate(found), kinds, (rays.step_rad, rays.rise_rad))


def _in_view(rig: Rig, points_lidar: F32) -> tuple[F32, NDArray[np.bool_]]:
    """(n, 3) the points that fall in the picture or a little beside it, and (n,) which of them in it."""
    row = rig.cam_SE3_lidar[2].astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        depth_m = row[0] * points_lidar[:, 0] + row[1] * points_lidar[:, 1] + row[2] * points_lidar[:, 2] + row[3]
        points_lidar = points_lidar.take(np.flatnonzero(depth_m > 1.0), axis=0)  # the others are behind
    at = project(rig, points_lidar)
    around_px = 0.1 * rig.width_px
    with np.errstate(invalid="ignore"):
        inside = (at.depth_m > 1.0) & (at.depth_m < _NOTHING)
        inside &= (at.u_px > -around_px) & (at.u_px < rig.width_px + around_px)
        inside &= (at.v_px > -around_px) & (at.v_px < rig.height_px + around_px)
    index = np.flatnonzero(inside)
    index = index[:: -(-len(index) // _MOST_POINTS) or 1]
    return points_lidar.take(index, axis=0)[:, :3], at.is_seen[index]


@dataclass(frozen=True, slots=True, eq=False)
class _Rays:
    """The rays in view in recorded order, and what their neighbours met.

    is_seen: in the picture; what ends beside it may end only because nothing further out was read.
    across_m: along the ground, range_m: all of it.
    azimuth_rad grows along a ring; `turn` is the sign that makes it so, `ahead_rad` where it is 0.
    next_m, previous_m: range of the neighbours in the ring; above, below: index of those in the next rings, -1 without;
    above_m, below_m their ranges, inf where there is no return, NaN where no ring is.
    """

    points: F32
    is_seen: NDArray[np.bool_]
    across_m: F32
    range_m: F32
    azimuth_rad: F32
    elevation_rad: F32
    turn: float
    ahead_rad: float
    step_rad: float
    rise_rad: float
    next_m: F32
    previous_m: F32
    above: _Index
    below: _Index
    above_m: F32
    below_m: F32

    @classmethod
    def of(cls, points: F32, is_seen: NDArray[np.bool_], ahead_rad: float) -> _Rays | None:
        """None where the points form no rings."""
        x, y, z = points.T
        across_m = np.sqrt(x * x + y * y)
        range_m = np.sqrt(across_m * across_m + z * z)
        azimuth = np.arctan2(y, x) - np.float32(ahead_rad)
        azimuth -= np.float32(2 * np.pi) * np.rint(azimuth / np.float32(2 * np.pi))
        elevation = np.arctan2(z, across_m)
        steps = azimuth[1:] - azimuth[:-1]
        turn = 1.0 if 2 * np.count_nonzero(steps > 0.0) > len(steps) else -1.0
        azimuth, steps = azimuth * np.float32(turn), steps * np.float32(turn)
        ring = np.concatenate([[0], np.cumsum(steps < -_RING_BACK_RAD)])
        if ring[-1] >= _MOST_RINGS:
            return None
        starts = np.flatnonzero(np.diff(ring, prepend=-1))
        heights = np.add.reduceat(elevation, starts) / np.diff(starts, append=len(ring))
        rises = np.abs(np.diff(heights))
        rises, steps_ahead = rises[rises > 1e-3], steps[steps > 0.0]
        if not len(rises) or not len(steps_ahead):
            return None
        some = slice(None, None, len(steps_ahead) // _SAMPLED or 1)
        step, rise = float(np.median(steps_ahead[some])), float(np.median(rises))
        is_next = (ring[1:] == ring[:-1]) & (steps < _NEXT * step)
        next_m, previous_m = np.full(len(ring), _NOTHING, np.float32), np.full(len(ring), _NOTHING, np.float32)
        np.copyto(next_m[:-1], range_m[1:], where=is_next)
        np.copyto(previous_m[1:], range_m[:-1], where=is_next)
        column = np.rint((azimuth - azimuth.min()) / np.float32(max(step, _LEAST_STEP_RAD))).astype(np.intp)
        table = np.full((ring[-1] + 1, int(column.max()) + 1), -1, np.intp)
        table[ring, column] = np.arange(len(ring))
        above, above_m = _stacked(ring, column, table, heights, azimuth, range_m, rise, step)
        below, below_m = _stacked(ring, column, table, heights, azimuth, range_m, -rise, step)
        return cls(
            points, is_seen, across_m, range_m, azimuth, elevation, turn, ahead_rad, step, rise,
            next_m, previous_m, above, below, above_m, below_m,
        )  # fmt: skip

    def at(self, index: _Index, further_rad: float, higher_rad: float) -> F32:
        """(n, 3) places beside rays, at the rays' range."""
        azimuth = self.turn * (self.azimuth_rad[index] + further_rad) + self.ahead_rad
        elevation, range_m = self.elevation_rad[index] + higher_rad, self.range_m[index]
        across_m = range_m * np.cos(elevation)
        places = [across_m * np.cos(azimuth), across_m * np.sin(azimuth), range_m * np.sin(elevation)]
        return np.stack(places, axis=1).astype(np.float32)

    def jumps(self, far_m: F32) -> NDArray[np.bool_]:
        """Which rays are well nearer than their neighbours on one side."""
        near_m = self.range_m
        inside = self.is_seen & (near_m > _NEAREST_M) & (near_m < _FURTHEST_M)
        is_jump: NDArray[np.bool_] = inside & (far_m - near_m > np.maximum(_JUMP_M, _JUMP_SHARE * near_m))
        return is_jump


def _stacked(
    ring: _Index, column: _Index, table: _Index, heights: _F64, azimuth: F32, range_m: F32,
    rise_rad: float, step_rad: float,
) -> tuple[_Index, F32]:  # fmt: skip
    """Of each ray the one in the ring that is `rise_rad` higher: index and range. table: (rings, columns) of rays."""
    order = np.argsort(heights, kind="stable")
    sorted_heights, wanted = heights[order], heights + rise_rad
    place = np.clip(np.searchsorted(sorted_heights, wanted - 0.5 * abs(rise_rad)), 0, len(order) - 1)
    is_there = np.abs(sorted_heights[place] - wanted) < 0.5 * abs(rise_rad)
    margin = 0.3 * abs(rise_rad)
    is_inside = (wanted < sorted_heights[-1] + margin) & (wanted > sorted_heights[0] - margin)
    other = np.where(is_there, order[place], 0).take(ring)
    nearest = table.take(other * table.shape[1] + column)
    met = is_there.take(ring) & (nearest >= 0) & (np.abs(azimuth.take(nearest) - azimuth) < 0.75 * step_rad)
    without = np.where(is_inside, np.float32(_NOTHING), np.float32(np.nan)).take(ring)
    return np.where(met, nearest, -1), np.where(met, range_m.take(nearest), without)


def _sides(rays: _Rays) -> tuple[F32, F32]:
    """Places where a surface ends on its left, and on its right."""
    ends = []
    beside = _HALF_WAY if rays.step_rad < FINE_RAD else _BESIDE
    for far_m, behind_m, sign in ((rays.next_m, rays.previous_m, 1.0), (rays.previous_m, rays.next_m, -1.0)):
        index = np.flatnonzero(rays.jumps(far_m))
        range_m = rays.range_m[index]
        with np.errstate(invalid="ignore"):
            differs_m = np.fmin(np.abs(rays.below_m[index] - range_m), np.abs(rays.above_m[index] - range_m))
            index = index[differs_m < _SIDE_STANDS * range_m]
        index = index[_unexplained(rays.range_m[index], far_m[index], behind_m[index])]
        ends.append(rays.at(index, sign * beside * rays.step_rad, 0.0))
    return (ends[0], ends[1]) if rays.turn > 0.0 else (ends[1], ends[0])


def _tops(rays: _Rays) -> F32:
    """Places where a surface at least two rings high and two rays wide ends above."""
    with np.errstate(invalid="ignore"):
        beside_m = np.minimum(np.abs(rays.next_m - rays.range_m), np.abs(rays.previous_m - rays.range_m))
        whole = (beside_m < _TOP_WIDE * rays.range_m) & (np.abs(rays.below_m - rays.range_m) < _TOP_WIDE * rays.range_m)
        index = np.flatnonzero(rays.jumps(rays.above_m) & whole)
    index = index[_unexplained(rays.range_m[index], rays.above_m[index], rays.below_m[index])]
    return rays.at(index, 0.0, (_HALF_WAY if rays.step_rad < FINE_RAD else _ABOVE) * rays.rise_rad)


def _unexplained(near_m: F32, far_m: F32, behind_m: F32) -> NDArray[np.bool_]:
    """Whether the nearer surface, followed straight on, explains less than half of the jump."""
    drop = 1.0 / near_m - 1.0 / far_m
    slope = np.where(behind_m < _NOTHING, 1.0 / behind_m - 1.0 / near_m, 0.0)
    unexplained: NDArray[np.bool_] = slope < 0.5 * drop
    return unexplained


def _feet(rays: _Rays) -> F32:
    """Places where the ground, followed straight on from three rings, meets the two rings on a wall."""
    (x, y, z), across_m = rays.points.T, rays.across_m
    near = rays.is_seen & (rays.range_m > _NEAREST_M) & (rays.range_m < _FURTHEST_FOOT_M)
    wall = np.flatnonzero(near & (rays.above >= 0) & (rays.below >= 0))
    higher = rays.above[wall]
    is_wall = np.abs(across_m[higher] - across_m[wall]) < _WALL_SLOPE * np.abs(z[higher] - z[wall])
    wall = wall[is_wall]
    wall = wall[rays.below[rays.below[wall]] >= 0]
    wall = wall[rays.below[rays.below[rays.below[wall]]] >= 0]
    ground = rays.below[wall]
    nearer = rays.below[ground]
    slope, step_m = _slope(across_m, z, ground, nearer)
    before, _ = _slope(across_m, z, nearer, rays.below[nearer])
    foot_m = z[ground] + slope * (across_m[wall] - across_m[ground])
    is_flat = (np.abs(slope) < _GROUND_SLOPE) & (np.abs(slope - before) < _GROUND_BEND) & (step_m > _GROUND_STEP_M)
    is_beyond = (across_m[wall] > across_m[ground] - 0.05) & (z[wall] > foot_m + _FOOT_LEAST_M)
    kept = np.flatnonzero(is_flat & is_beyond)
    return np.stack([x[wall[kept]], y[wall[kept]], foot_m[kept]], axis=1)


def _slope(across_m: F32, z: F32, further: _Index, nearer: _Index) -> tuple[F32, F32]:
    """Rise a metre between two rings, and how far they are apart (m)."""
    step_m = across_m[further] - across_m[nearer]
    return (z[further] - z[nearer]) / np.maximum(step_m, np.float32(1e-3)), step_m


def _thinned(edges: F32) -> F32:
    return edges[:: -(-len(edges) // _MOST_EDGES) or 1]
