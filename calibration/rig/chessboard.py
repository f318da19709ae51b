"""Chessboards in pictures: the inner corners of a board, to a fraction of a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Board:
    """Inner corners across and down, and the side of a square (m)."""

    columns: int
    rows: int
    square_m: float

    @property
    def points_board(self) -> NDArray[np.float32]:
        """(corners, 3) row by row in the board's own frame, m."""
        points = np.zeros((self.rows * self.columns, 3), np.float32)
        points[:, :2] = np.mgrid[: self.columns, : self.rows].T.reshape(-1, 2) * self.square_m
        return points


@dataclass(frozen=True, slots=True)
class View:
    """One picture of the board; name: its path as given; corners_px: (corners, 2) float32, as Board.points_board."""

    name: str
    corners_px: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """Views of one picture size, and why the other pictures gave none."""

    width_px: int
    height_px: int
    views: tuple[View, ...]
    skipped: dict[str, str]


def parse_board(text: str, square_m: float) -> Board:
    """`9x6` as a board.

    Raises:
        ConfigError: not two numbers of at least 3, or a square without size.
    """
    columns, _, rows = text.partition("x")
    if not (columns.isdecimal() and rows.isdecimal() and 3 <= int(columns) <= 100 and 3 <= int(rows) <= 100):
        raise ConfigError(f"--board: expected inner corners as COLUMNSxROWS, 3 to 100 of each, got {text!r}")
    if not 0.0 < square_m < 10.0:
        raise ConfigError(f"--square-m: expected metres between 0 and 10, got {square_m:g}")
    return Board(int(columns), int(rows), square_m)


def find_boards(paths: Iterable[Path], board: Board) -> Found:
    """Looks for the whole board in each picture.

    Pictures of another size than most are skipped: they come from another mode of the camera, with other intrinsics.

    Raises:
        ConfigError: a file is no picture.
    """
    views: list[tuple[tuple[int, ...], View]] = []
    sizes: Counter[tuple[int, ...]] = Counter()
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            picture = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_GRAYSCALE)
        except cv2.error:  # its header claims more pixels than OpenCV takes
            picture = None
        if picture is None:
            raise ConfigError(f"{path}: expected a picture, got {path.stat().st_size} bytes that are none")
        sizes[picture.shape] += 1
        corners = corners_of(np.asarray(picture, np.uint8), board)
        if corners is None:
            skipped[str(path)] = f"no full board of {board.columns}x{board.rows} inner corners"
        else:
            views.append((picture.shape, View(str(path), corners)))
    if not sizes:
        raise ConfigError("expected pictures of a board, got none")
    most = sizes.most_common(1)[0][0]
    for shape, view in views:
        if shape != most:
            skipped[view.name] = f"{shape[1]}x{shape[0]} px, where most are {most[1]}x{most[0]}"
    return Found(most[1], most[0], tuple(view for shape, view in views if shape == most), skipped)


def corners_of(picture: NDArray[np.uint8], board: Board) -> NDArray[np.float32] | None:
    """(corners, 2) px, or None where the whole board is not seen.

    The sector-based detector finds boards that the older one misses and needs no separate refinement.

    Ref: Duda, Frese, "Accurate Detection and Localization of Checkerboard Corners for Calibration", BMVC 2018.
    """
    flags = cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_EXHAUSTIVE
    found, corners = cv2.findChessboardCornersSB(picture, (board.columns, board.rows), flags=flags)
    return np.asarray(corners, np.float32).reshape(-1, 2) if found else None
