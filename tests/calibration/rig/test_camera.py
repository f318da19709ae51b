"""Intrinsics: known lenses come back, bad views are dropped and named, and the twenty real pictures give a lens."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.labels import file_sha256
from calibration.rig.camera import main
from calibration.rig.chessboard import Board, View, corners_of, parse_board
from calibration.rig.intrinsics import NAMES, fit, fit_without_outliers, held_out_px
from calibration.rig.rig_file import read_rig
from edge.errors import ConfigError

BOARD = Board(9, 6, 0.025)
SIZE_PX = (640, 480)
MATRIX = np.array([[520.0, 0.0, 310.0], [0.0, 515.0, 250.0], [0.0, 0.0, 1.0]])
DISTORTION = np.array([-0.22, 0.08, 0.001, -0.0005, 0.0])


def views(seed: int, count: int, noise_px: float, bend_m: float = 0.0) -> list[View]:
    """The board at drawn tilts, seen through a known lens."""
    rng = np.random.default_rng(seed)
    points = BOARD.points_board.astype(np.float64)
    middle = points.mean(axis=0)
    shape = points - middle
    shape[:, 2] = bend_m * (1.0 - (shape[:, 0] / 0.1) ** 2)
    found = []
    while len(found) < count:
        turn = rng.uniform(-0.6, 0.6, 3)
        place = np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.08, 0.08), rng.uniform(0.3, 0.6)])
        seen = cv2.projectPoints(shape, turn, place, MATRIX, DISTORTION)[0].reshape(-1, 2)
        if (seen > 5).all() and (seen < np.array(SIZE_PX) - 5).all():
            noisy = seen + noise_px * rng.normal(size=seen.shape)
            found.append(View(f"view{len(found)}", noisy.astype(np.float32)))
    return found


def picture(turn: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A rendered board, tilted."""
    square = 40
    flat = np.full((8 * square + 120, 11 * square + 120), 255, np.uint8)
    for row in range(7):
        for column in range(10):
            if (row + column) % 2 == 0:
                y, x = 60 + row * square, 60 + column * square
                flat[y : y + square, x : x + square] = 0
    height, width = flat.shape
    corners = np.array([[0, 0, 0], [width, 0, 0], [width, height, 0], [0, height, 0]], np.float64)
    corners -= corners.mean(axis=0)
    seen = cv2.projectPoints(corners / 1000, turn, np.array([0.0, 0.0, 0.75]), MATRIX, np.zeros(5))[0].reshape(4, 2)
    flat_corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    warp = cv2.getPerspectiveTransform(flat_corners, seen.astype(np.float32))
    return np.asarray(cv2.warpPerspective(flat, warp, SIZE_PX, borderValue=255.0), np.uint8)


def test_a_known_lens_comes_back_within_its_uncertainty() -> None:
    lens = fit(views(1, 20, 0.1), BOARD, SIZE_PX)
    truth = [*MATRIX[[0, 1, 0, 1], [0, 1, 2, 2]], *DISTORTION]
    values = [*lens.matrix[[0, 1, 0, 1], [0, 1, 2, 2]], *lens.distortion]
    assert len(values) == len(NAMES)
    assert (np.abs(np.subtract(values, truth)) <= 4 * lens.deviations).all()
    assert lens.matrix[0, 0] == pytest.approx(520.0, rel=0.005)
    assert lens.rms_px == pytest.approx(0.1 * np.sqrt(2), rel=0.15)


def test_a_view_that_disagrees_is_dropped_and_named() -> None:
    seen = views(2, 12, 0.1)
    bent = seen[4].corners_px + np.random.default_rng(0).normal(0, 3, (54, 2)).astype(np.float32)
    seen[4] = View("spoiled", bent)
    lens, dropped = fit_without_outliers(seen, BOARD, SIZE_PX)
    assert list(dropped) == ["spoiled"] and dropped["spoiled"] > 1.0
    assert len(lens.views) == 11 and lens.rms_px < 0.2


def test_held_out_views_are_never_those_that_were_fitted() -> None:
    lens, _ = fit_without_outliers(views(3, 15, 0.2), BOARD, SIZE_PX)
    held_out = held_out_px(lens, BOARD, SIZE_PX)
    assert held_out.keys() == {view.name for view in lens.views}
    assert np.mean(list(held_out.values())) > lens.errors_px.mean()


def test_a_bent_board_is_found_where_it_may_bend() -> None:
    seen = views(4, 20, 0.05, bend_m=0.002)
    rigid, free = (fit(seen, BOARD, SIZE_PX, free_board=free) for free in (False, True))
    assert free.rms_px < 0.6 * rigid.rms_px
    assert free.points_board[:, 2].max() - free.points_board[:, 2].min() == pytest.approx(0.002, rel=0.3)


def test_corners_of_a_rendered_board_lie_where_they_were_drawn() -> None:
    assert corners_of(np.full((480, 640), 128, np.uint8), BOARD) is None
    corners = corners_of(picture(np.array([0.3, 0.2, 0.1])), BOARD)
    assert corners is not None and corners.shape == (54, 2)
    across = corners.reshape(6, 9, 2)
    along, middle = across[0, 0] - across[0, -1], across[0, 4] - across[0, -1]
    aside_px = abs(along[0] * middle[1] - along[1] * middle[0]) / np.linalg.norm(along)
    assert aside_px < 0.3  # straight lines stay straight


def test_the_command_names_what_it_skips_and_keeps_other_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for i in range(8):
        paths.append(tmp_path / f"board{i}.png")
        cv2.imwrite(str(paths[-1]), picture(rng.uniform(-0.5, 0.5, 3)))
    paths.append(tmp_path / "road.png")
    cv2.imwrite(str(paths[-1]), np.full((480, 640), 90, np.uint8))
    paths.append(tmp_path / "small.png")
    cv2.imwrite(str(paths[-1]), cv2.resize(picture(np.array([0.3, 0.0, 0.0])), (600, 450)))
    out = tmp_path / "rig.json"
    out.write_text(json.dumps({"format": 1, "parts": {"clocks": {"measured": {}}}}))
    command = [*map(str, paths), "--square-m", "0.04", "--out", str(out), "--plot", str(tmp_path / "lens.svg")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "road.png: no full board" in printed and "small.png: 600x450 px, where most are 640x480" in printed
    rig = read_rig(out)
    assert rig.keys() == {"camera", "clocks"}
    assert len(rig["camera"]["sources"]) == 10
    assert rig["camera"]["measured"]["parameters"]["fx_px"]["value"] == pytest.approx(520, rel=0.03)
    assert (tmp_path / "lens.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("board", "square_m", "expected"),
    [("9", 0.02, "COLUMNSxROWS"), ("2x6", 0.02, "COLUMNSxROWS"), ("9x6", 0.0, "metres between 0 and 10")],
)
def test_boards_that_can_not_be_are_refused(board: str, square_m: float, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_board(board, square_m)


def test_too_few_views_and_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 5 pictures with the whole board, got 3"):
        fit(views(1, 3, 0.1), BOARD, SIZE_PX)
    text = tmp_path / "note.jpg"
    huge = bytearray(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    huge[16:24] = struct.pack(">II", 100_000, 100_000)  # more pixels than OpenCV takes
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    for content in (b"no picture", huge):
        text.write_bytes(content)
        with pytest.raises(ConfigError, match=r"note\.jpg: expected a picture"):
            main([str(text), "--out", str(tmp_path / "rig.json")])


def test_a_file_that_is_no_rig_is_not_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "notes.json"
    other.write_text("[1]")
    with pytest.raises(ConfigError, match="not a rig file"):
        read_rig(other)


def test_the_real_chessboards_give_a_lens_that_holds_on_views_left_out(recordings: Path, tmp_path: Path) -> None:
    folder = recordings / "images" / "udacity-camera-cal"
    if not folder.is_dir():
        pytest.skip(f"no chessboards at {folder}")
    out = tmp_path / "rig.json"
    assert main([*map(str, sorted(folder.glob("calibration*.jpg"))), "--out", str(out), "--json"]) == 0
    measured = read_rig(out)["camera"]["measured"]
    assert len(measured["view_rms_px"]) == 16 and len(measured["skipped"]) == 4
    assert measured["parameters"]["fx_px"]["value"] == pytest.approx(1160, abs=12)
    assert measured["rms_px"] < 0.9 and measured["held_out_px"] < 1.0


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / str(i) / "board.png" for i in range(8)]
    for i, path in enumerate(paths):
        path.parent.mkdir()
        cv2.imwrite(str(path), picture(rng.uniform(-0.5, 0.5, 3)) if i else np.full((480, 640), 90, np.uint8))
    out = tmp_path / "rig.json"
    assert main([*map(str, paths), "--out", str(out)]) == 0
    part = read_rig(out)["camera"]
    assert list(part["measured"]["skipped"]) == [str(paths[0])]
    seen = part["measured"]["view_rms_px"].keys() | part["measured"]["dropped_view_rms_px"].keys()
    assert seen == {str(path) for path in paths[1:]}
    assert part["sources"] == {str(path): file_sha256(path) for path in paths}


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_no_output_takes_the_place_of_a_picture(tmp_path: Path, option: str) -> None:
    board = tmp_path / "board.png"
    cv2.imwrite(str(board), picture(np.array([0.3, 0.2, 0.1])))
    content = board.read_bytes()
    with pytest.raises(ConfigError, match="expected another file than the input"):
        main([str(board), "--out", str(tmp_path / "rig.json"), option, str(board)])
    assert board.read_bytes() == content
