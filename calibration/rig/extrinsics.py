"""The LiDAR's pose in the camera: the one at which range edges fall on picture edges.

Coarse to fine: a pattern search over three angles and three shifts, on edges that are blurred widely first. Shifts move
far points by less than a pixel, so a mild pull (PULL) keeps them near the guess where the frames don't say otherwise.

How sure each number is, is measured and not assumed: the search is repeated from other guesses (RESTARTS), and with
parts of the frames left out (jackknife). What moves by more than the limits below is called not observable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibration.rig.edges import picture_edges
from calibration.rig.poses import F64, difference, turned
from edge.errors import ConfigError

NAMES: Final = ("rx_deg", "ry_deg", "rz_deg", "x_cm", "y_cm", "z_cm")
FARTHEST_DEG: Final = 3.0  # of any axis from the guess
PULL: Final = 0.003  # of the score, at 10 cm from the guess
PLANTED_DEG: Final = 2.0
PLANTED_M: Final = 0.1
SURE_DEG: Final = 0.5
SURE_CM: Final = 5.0
LEAST_EDGES: Final = 100
RESTARTS: Final = 6
PARTS: Final = 5
# (blur of the picture's edges, px; first and last step of the search, rad; a shift's step is six times that, in m)
LEVELS: Final = ((12.0, 0.02, 0.004), (5.0, 0.006, 0.001), (2.0, 0.002, 0.0003))
_M_PER_RAD: Final = 6.0
_NEAREST_M: Final = 1.0

Edges = tuple[tuple[F64, F64], tuple[F64, F64]]
Maps = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Pair:
    """One sweep's edges (calibration.rig.edges) and the undistorted grey picture taken with it."""

    edges: Edges
    picture: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Refined:
    """camera_SE3_lidar: (4, 4). uncertainty: of each of NAMES, one standard deviation; score: of guess and result."""

    camera_SE3_lidar: F64
    uncertainty: dict[str, float]
    score: tuple[float, float]

    @property
    def unobservable(self) -> list[str]:
        """The numbers that these frames do not determine."""
        limits = {name: SURE_DEG if name.endswith("deg") else SURE_CM for name in NAMES}
        return [name for name in NAMES if not self.uncertainty[name] <= limits[name]]


class Alignment:
    """Frames prepared for the search.

    Args:
        frames: at least one.
        matrix: (3, 3) K of the pictures, px.

    Raises:
        ConfigError: no frames, or hardly an edge in them.
    """

    def __init__(self, frames: Sequence[Pair], matrix: F64) -> None:
        count = sum(len(weights) for frame in frames for _, weights in frame.edges)
        if count < LEAST_EDGES:
            raise ConfigError(
                f"lidar: expected at least {LEAST_EDGES} range edges, got {count} in {len(frames)} frames"
            )
        self.count = len(frames)
        self._matrix = matrix
        self._edges = [frame.edges for frame in frames]
        self._maps = [[picture_edges(frame.picture, blur_px) for frame in frames] for blur_px, _, _ in LEVELS]

    def score(self, camera_SE3_lidar: F64, level: int = len(LEVELS) - 1, frames: Sequence[int] | None = None) -> float:
        """Mean strength of the picture's edges under the range edges, in standard deviations; 0 by chance."""
        total = weighed = 0.0
        for number in range(self.count) if frames is None else frames:
            for (points, weights), strength in zip(self._edges[number], self._maps[level][number]):
                total += self._on(strength, points, weights, camera_SE3_lidar)
                weighed += float(weights.sum())
        return total / max(weighed, 1e-9)

    def search(self, guess: F64, frames: Sequence[int] | None = None) -> F64:
        """The best pose near the guess, over some or all frames."""
        pose = guess
        for level, (_, first, last) in enumerate(LEVELS):
            step, best = first, self._pulled(pose, guess, level, frames)
            while step > last:
                found = self._improved(pose, guess, level, frames, step, best)
                if found is None:
                    step *= 0.5
                else:
                    pose, best = found
        return pose

    def refine(self, guess: F64, seed: int = 0) -> Refined:
        """The best pose and how sure it is."""
        pose = self.search(guess)
        rng = np.random.default_rng(seed)
        restarts = [self.search(planted(guess, rng)) for _ in range(RESTARTS)]
        spread = np.std([_numbers(other, pose) for other in restarts], axis=0)
        parts = min(PARTS, self.count)
        if parts > 1:
            kept = [[i for i in range(self.count) if i % parts != part] for part in range(parts)]
            moved = np.array([_numbers(self.search(pose, some), pose) for some in kept])
            jackknife = np.sqrt((parts - 1) / parts * ((moved - moved.mean(axis=0)) ** 2).sum(axis=0))
        else:
            jackknife = np.full(6, np.inf)  # one frame says nothing of how another would differ
        uncertainty = dict(zip(NAMES, np.hypot(spread, jackknife).tolist()))
        return Refined(pose, uncertainty, (self.score(guess), self.score(pose)))

    def _pulled(self, pose: F64, guess: F64, level: int, frames: Sequence[int] | None) -> float:
        turn_deg, shift_cm = difference(pose, guess)
        if np.abs(turn_deg).max() > FARTHEST_DEG:
            return -np.inf
        return self.score(pose, level, frames) - PULL * float((shift_cm**2).sum()) / 100.0

    def _improved(
        self, pose: F64, guess: F64, level: int, frames: Sequence[int] | None, step: float, best: float
    ) -> tuple[F64, float] | None:
        """A round over the six directions; None where none is better."""
        before = best
        for axis in range(6):
            for sign in (step, -step):
                change = np.zeros(6)
                change[axis] = sign if axis < 3 else sign * _M_PER_RAD
                candidate = turned(change[:3], change[3:]) @ pose
                score = self._pulled(candidate, guess, level, frames)
                if score > best:
                    pose, best = candidate, score
                    break
        return (pose, best) if best > before else None

    def _on(self, strength: NDArray[np.float32], points: F64, weights: F64, camera_SE3_lidar: F64) -> float:
        """Sum of weights times the strength under each point, bilinear; 0 outside the picture."""
        camera = points @ camera_SE3_lidar[:3, :3].T + camera_SE3_lidar[:3, 3]
        ahead = camera[:, 2] > _NEAREST_M
        pixels = camera[ahead] @ self._matrix.T
        x, y = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
        height, width = strength.shape
        inside = (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)
        x, y, weight = x[inside], y[inside], weights[ahead][inside]
        column, row = x.astype(np.int64), y.astype(np.int64)
        right, down = x - column, y - row
        upper = strength[row, column] * (1 - right) + strength[row, column + 1] * right
        lower = strength[row + 1, column] * (1 - right) + strength[row + 1, column + 1] * right
        return float((weight * (upper * (1 - down) + lower * down)).sum())


def planted(pose: F64, rng: np.random.Generator) -> F64:
    """The pose with an error of up to PLANTED_DEG about each axis and PLANTED_M along each."""
    turn = np.radians(rng.uniform(-PLANTED_DEG, PLANTED_DEG, 3))
    return turned(turn, rng.uniform(-PLANTED_M, PLANTED_M, 3)) @ pose


def _numbers(pose: F64, other: F64) -> F64:
    return np.concatenate(difference(pose, other))
