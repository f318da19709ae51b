"""Rays cast at the very faces that the camera draws: crowns leaf by leaf, gables, wheels, limbs.

What is drawn facing the camera (trees, people) is met as it stands there, a flat shape across the camera's view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from export.world.camera.painter import Placed

F64 = NDArray[np.float64]
Index = NDArray[np.int64]

NEAREST_M = 0.3


class Fan:
    """Rays on a grid of even azimuths and even elevations, (rings, columns).

    Args:
        azimuth_rad: (columns,) ascending; all round, or a part that does not reach the rear.
        elevation_rad: (rings,) ascending.
    """

    def __init__(self, azimuth_rad: F64, elevation_rad: F64) -> None:
        self.columns, self.rings = len(azimuth_rad), len(elevation_rad)
        self._first, self._step = float(azimuth_rad[0]), float(azimuth_rad[1] - azimuth_rad[0])
        self._lowest, self._rise = float(elevation_rad[0]), float(elevation_rad[1] - elevation_rad[0])
        self._is_round = self.columns * self._step > 2.0 * math.pi - 0.5 * self._step
        level, up = np.cos(elevation_rad), np.sin(elevation_rad)
        across = np.broadcast_to(up[:, None], (self.rings, self.columns))
        rays = [level[:, None] * np.cos(azimuth_rad), level[:, None] * np.sin(azimuth_rad), across]
        self._rays = np.stack(rays, axis=-1).reshape(-1, 3)

    def hits(
        self, placed: Sequence[Placed], at_ego: tuple[float, float, float], pitch_rad: float, range_m: float
    ) -> tuple[F64, Index]:
        """The nearest face that each ray meets.

        Args:
            placed: what is drawn, in the levelled ego frame.
            at_ego: where the rays start, m.
            pitch_rad: nose down, by which the rays are turned.

        Returns:
            (rings, columns) distance (m), inf where nothing is met; and the number of what is met in `placed`, -1.
        """
        distance = np.full(self.rings * self.columns, np.inf)
        owner = np.full(self.rings * self.columns, -1, np.int64)
        corners, owners = _corners(placed, at_ego, pitch_rad)
        if len(corners):
            face, ray = self._candidates(corners, range_m)
            following = np.roll(corners, -1, axis=1)
            edges = np.cross(corners, following)  # a ray inside the cone over a face is on one side of all of these
            edges *= np.sign((edges.sum(axis=1) * corners.mean(axis=1)).sum(axis=1))[:, None, None]
            for side in range(edges.shape[1]):
                inside = np.einsum("ij,ij->i", edges[face, side], self._rays[ray]) >= 0.0
                face, ray = face[inside], ray[inside]
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            offsets = (normals * corners[:, 0]).sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                met_m = offsets[face] / np.einsum("ij,ij->i", normals[face], self._rays[ray])
                kept = (met_m > NEAREST_M) & (met_m < range_m)
            face, ray, met_m = face[kept], ray[kept], met_m[kept]
            order = np.argsort(-met_m, kind="stable")  # of several values for one ray the last stays: the nearest
            distance[ray[order]], owner[ray[order]] = met_m[order], owners[face[order]]
        return distance.reshape(self.rings, self.columns), owner.reshape(self.rings, self.columns)

    def _candidates(self, corners: F64, range_m: float) -> tuple[Index, Index]:
        """Pairs of face and ray, by the window of azimuth and elevation in which a face lies."""
        x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
        azimuth = np.arctan2(y, x)
        turns = np.roll(azimuth, -1, axis=1) - azimuth
        turns -= 2.0 * np.pi * np.rint(turns / (2.0 * np.pi))
        azimuth = azimuth[:, :1] + np.concatenate([np.zeros((len(x), 1)), turns[:, :-1].cumsum(axis=1)], axis=1)
        around = np.abs(turns.sum(axis=1)) > 1.0  # above or below: in every direction
        first = np.ceil((azimuth.min(axis=1) - self._first) / self._step - 1e-9)
        last = np.floor((azimuth.max(axis=1) - self._first) / self._step + 1e-9)
        first, last = np.where(around, 0.0, first), np.where(around, self.columns - 1.0, last)
        if self._is_round:
            last = np.minimum(last, first + self.columns - 1.0)
        else:
            first, last = np.maximum(first, 0.0), np.minimum(last, self.columns - 1.0)
        nearest = np.where(around, 0.0, _plan_distance(x, y))
        furthest = np.hypot(x, y).max(axis=1)
        low, high = z.min(axis=1), z.max(axis=1)
        lower = np.arctan2(low, np.where(low < 0.0, nearest, furthest))
        upper = np.arctan2(high, np.where(high > 0.0, nearest, furthest))
        bottom = np.maximum(np.ceil((lower - self._lowest) / self._rise - 1e-9), 0.0)
        top = np.minimum(np.floor((upper - self._lowest) / self._rise + 1e-9), self.rings - 1.0)
        wide = np.maximum(last - first + 1.0, 0.0).astype(np.int64)
        counts = wide * np.maximum(top - bottom + 1.0, 0.0).astype(np.int64) * (nearest < range_m)
        face = np.repeat(np.arange(len(corners)), counts)
        place = np.arange(len(face)) - np.repeat(counts.cumsum() - counts, counts)
        row, column = np.divmod(place, wide[face])
        ring, column = row + bottom.astype(np.int64)[face], (column + first.astype(np.int64)[face]) % self.columns
        return face, ring * self.columns + column


def _corners(placed: Sequence[Placed], at_ego: tuple[float, float, float], pitch_rad: float) -> tuple[F64, Index]:
    """(faces, 8, 3) corners of all faces that can be seen from a place, in the axes of the rays; (faces,) whose."""
    number = [n for n, p in enumerate(placed) if len(p.model.faces)]
    if not number:
        return np.zeros((0, 8, 3)), np.zeros(0, np.int64)
    models = [placed[n].model for n in number]
    vertices = [len(model.vertices_m) for model in models]
    turn = np.repeat([placed[n].turn_rad for n in number], vertices)
    middle = np.repeat([(placed[n].x_m, placed[n].y_m, 0.0) for n in number], vertices, axis=0)
    own = np.concatenate([model.vertices_m for model in models])
    x, y, z = (middle - at_ego).T
    x, y = (
        x + own[:, 0] * np.cos(turn) - own[:, 1] * np.sin(turn),
        y + own[:, 0] * np.sin(turn) + own[:, 1] * np.cos(turn),
    )
    z = z + own[:, 2]
    c, s = math.cos(pitch_rad), math.sin(pitch_rad)
    points = np.stack([x * c - z * s, y, x * s + z * c], axis=1)
    starts = np.cumsum([0, *vertices[:-1]])
    corners = points[np.concatenate([model.faces + start for model, start in zip(models, starts.tolist())])]
    owners = np.repeat(number, [len(model.faces) for model in models])
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    seen = (outward * corners[:, 0]).sum(axis=1) < 0.0
    seen |= np.concatenate([model.two_sided for model in models])
    return corners[seen], owners[seen]


def _plan_distance(x: F64, y: F64) -> F64:
    """(faces,) how near the outlines of faces come, seen from above."""
    dx, dy = np.roll(x, -1, axis=1) - x, np.roll(y, -1, axis=1) - y
    along = np.clip(-(x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0.0, 1.0)
    nearest: F64 = np.hypot(x + along * dx, y + along * dy).min(axis=1)
    return nearest
