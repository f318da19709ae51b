"""Camera intrinsics from views of a chessboard: focal lengths, centre, distortion, and how sure each of them is.

Rules: a view is dropped while it is the worst, its error is over OUTLIER times the median of all views, and more than
LEAST_VIEWS remain. The figure to trust is the held-out error: the lens found without a view, the board's pose in that
view fitted, the rest compared. Standard deviations take the corners' errors as independent; a bent board's are not.

Ref: Zhang, "A flexible new technique for camera calibration", 2000; Strobl, Hirzinger, "More accurate pinhole camera
calibration with imperfect planar target", 2011 (a board whose shape is estimated too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.rig.chessboard import Board, View
from edge.errors import ConfigError

F64 = NDArray[np.float64]
LEAST_VIEWS: Final = 5
OUTLIER: Final = 2.5
FOLDS: Final = 5
GRID: Final = 8  # cells of the picture across and down, for coverage
NAMES: Final = ("fx_px", "fy_px", "cx_px", "cy_px", "k1", "k2", "p1", "p2", "k3")


@dataclass(frozen=True, slots=True)
class Lens:
    """The fit.

    Attributes:
        matrix: (3, 3) K, px.
        distortion: (5,) k1, k2, p1, p2, k3 of the plumb-bob model.
        deviations: (9,) standard deviations in the order of NAMES.
        rms_px: over all corners.
        views: those that were kept; errors_px: their RMS.
        residuals_px: (views, corners, 2) seen minus projected.
        points_board: (corners, 3) the board, m; its shape as found where it was free.
    """

    matrix: F64
    distortion: F64
    deviations: F64
    rms_px: float
    views: tuple[View, ...]
    errors_px: F64
    residuals_px: F64
    points_board: NDArray[np.float32]


def fit(views: Sequence[View], board: Board, size_px: tuple[int, int], *, free_board: bool = False) -> Lens:
    """The lens that explains the views.

    Args:
        views: of one camera and picture size.
        size_px: width and height.
        free_board: estimate the board's shape too (printed boards bend).

    Raises:
        ConfigError: too few views, or views that determine nothing.
    """
    if len(views) < LEAST_VIEWS:
        raise ConfigError(f"expected at least {LEAST_VIEWS} pictures with the whole board, got {len(views)}")
    points = board.points_board
    objects = [points] * len(views)
    corners = [view.corners_px.reshape(-1, 1, 2) for view in views]
    no_guess: Any = None  # which OpenCV takes and its stubs do not know
    try:
        if free_board:
            fixed = board.columns - 1  # with the first and the last corner the three that fix the frame
            rms, matrix, distortion, turns, places, shape, deviations, _, _, errors = cv2.calibrateCameraROExtended(
                objects, corners, size_px, fixed, no_guess, no_guess
            )
            points = np.asarray(shape, np.float32).reshape(-1, 3)
        else:
            rms, matrix, distortion, turns, places, deviations, _, errors = cv2.calibrateCameraExtended(
                objects, corners, size_px, no_guess, no_guess
            )
    except cv2.error as error:
        raise ConfigError(f"the views determine no lens ({error.err or error.code})") from None
    fitted = np.concatenate([np.ravel(matrix), np.ravel(distortion)])
    if not (np.isfinite(fitted).all() and 0.0 < rms < np.inf):
        raise ConfigError("the views determine no lens: expected boards at several tilts, got numbers without end")
    residuals = [
        view.corners_px - cv2.projectPoints(points, turn, place, matrix, distortion)[0].reshape(-1, 2)
        for view, turn, place in zip(views, turns, places)
    ]
    return Lens(
        np.asarray(matrix, np.float64), np.ravel(distortion)[:5].astype(np.float64),
        np.ravel(deviations)[:9].astype(np.float64), float(rms), tuple(views), np.ravel(errors).astype(np.float64),
        np.asarray(residuals, np.float64), points,
    )  # fmt: skip


def fit_without_outliers(
    views: Sequence[View], board: Board, size_px: tuple[int, int], *, free_board: bool = False
) -> tuple[Lens, dict[str, float]]:
    """The lens of the views that agree, and the error (px) that each other view was dropped for."""
    dropped: dict[str, float] = {}
    kept = list(views)
    lens = fit(kept, board, size_px, free_board=free_board)
    while len(kept) > LEAST_VIEWS:
        worst = int(np.argmax(lens.errors_px))
        if lens.errors_px[worst] <= OUTLIER * float(np.median(lens.errors_px)):
            break
        dropped[kept[worst].name] = round(float(lens.errors_px[worst]), 3)
        del kept[worst]
        lens = fit(kept, board, size_px, free_board=free_board)
    return lens, dropped


def held_out_px(lens: Lens, board: Board, size_px: tuple[int, int], *, free_board: bool = False) -> dict[str, float]:
    """RMS error (px) of each view under a lens that was found without it (FOLDS folds); {} with too few views."""
    if len(lens.views) < LEAST_VIEWS + 2:
        return {}
    errors = {}
    folds = min(FOLDS, len(lens.views))
    for fold in range(folds):
        left_out = lens.views[fold::folds]
        rest = [view for i, view in enumerate(lens.views) if i % folds != fold]
        if len(rest) < LEAST_VIEWS:
            return {}
        other = fit(rest, board, size_px, free_board=free_board)
        for view in left_out:
            _, turn, place = cv2.solvePnP(other.points_board, view.corners_px, other.matrix, other.distortion)
            seen, _ = cv2.projectPoints(other.points_board, turn, place, other.matrix, other.distortion)
            distance = ((view.corners_px - seen.reshape(-1, 2)) ** 2).sum(axis=1)
            errors[view.name] = round(float(np.sqrt(distance.mean())), 3)
    return errors


def measured(lens: Lens, size_px: tuple[int, int]) -> dict[str, Any]:
    """The lens as the rig file holds it; K and D are those of Foxglove's CameraCalibration."""
    matrix, distortion = lens.matrix, lens.distortion
    values = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *distortion]
    return {
        "width_px": size_px[0],
        "height_px": size_px[1],
        "distortion_model": "plumb_bob",
        "K": matrix.reshape(-1).tolist(),
        "D": distortion.tolist(),
        "parameters": {
            name: {"value": float(value), "std": float(std)} for name, value, std in zip(NAMES, values, lens.deviations)
        },
        "rms_px": round(lens.rms_px, 4),
        "view_rms_px": {view.name: round(float(error), 3) for view, error in zip(lens.views, lens.errors_px)},
        "coverage": round(coverage(lens.views, size_px), 3),
        "board_bend_mm": round(1000.0 * _bend_m(lens.points_board), 3),
    }


def coverage(views: Sequence[View], size_px: tuple[int, int]) -> float:
    """Share of the picture's 8x8 cells in which some view has a corner."""
    corners = np.concatenate([view.corners_px for view in views])
    cells = np.clip((corners / np.array(size_px) * GRID).astype(int), 0, GRID - 1)
    return len(np.unique(cells[:, 0] * GRID + cells[:, 1])) / GRID**2


def _bend_m(points: NDArray[np.float32]) -> float:
    """How far the board's farthest corner is from its best plane."""
    centred = points.astype(np.float64) - points.mean(axis=0)
    normal = np.linalg.svd(centred)[2][2]
    return float(np.abs(centred @ normal).max())
