"""Points in the picture: the kernel's spec bit for bit, nearest returns, open views only, whole objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge.alignment import reference
from edge.alignment.projection import NEAREST_M, Rig, box_ranges, coloured, project, rasterised
from edge.errors import AlignmentError, DriveFormatError
from export.world.camera.lens import Lens
from export.world.rig import messages

F32 = np.float32
CAM_SE3_LIDAR = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, -0.3], [0, 0, 0, 1]], np.float64)
POINTS = arrays.arrays(
    F32, st.tuples(st.integers(0, 60), st.just(4)), elements=st.floats(-40, 40, width=32) | st.just(math.nan)
)


def a_rig(width: int = 64, height: int = 40, distortion: tuple[float, ...] = ()) -> Rig:
    return Rig(50.0, 50.0, width / 2, height / 2, width, height, CAM_SE3_LIDAR, distortion)


def ahead(x_m: float, left_m: float = 0.0, up_m: float = 0.0, intensity: float = 0.5) -> list[float]:
    """A point in the LiDAR's axes that the camera sees at depth x_m, left_m beside and up_m above its middle."""
    return [x_m + 0.3, left_m + 0.1, up_m + 0.2, intensity]


@settings(max_examples=150)
@given(POINTS)
def test_images_are_the_kernels_spec_bit_for_bit(points: np.ndarray) -> None:
    rig = a_rig()
    pinhole = rig.fx_px, rig.fy_px, rig.cx_px, rig.cy_px
    pose = CAM_SE3_LIDAR[:3].astype(F32)
    wanted = reference.project(points, pose, pinhole, (rig.height_px, rig.width_px), NEAREST_M)
    got = rasterised(rig, points)
    for image, spec in zip((got.depth_m, got.intensity, got.index), wanted, strict=True):
        assert image.tobytes() == spec.tobytes()


@settings(max_examples=60)
@given(POINTS, st.randoms(use_true_random=False))
def test_order_of_points_decides_no_depth(points: np.ndarray, random: object) -> None:
    order = np.random.default_rng(random.randint(0, 99)).permutation(len(points))  # type: ignore[attr-defined]
    assert rasterised(a_rig(), points).depth_m.tobytes() == rasterised(a_rig(), points[order]).depth_m.tobytes()


@settings(max_examples=60)
@given(POINTS, st.integers(1, 50))
def test_a_coarse_cell_holds_the_nearest_of_its_pixels(points: np.ndarray, cell_px: int) -> None:
    fine, coarse = rasterised(a_rig(), points), rasterised(a_rig(), points, cell_px)
    assert coarse.depth_m.shape == (-(-40 // cell_px), -(-64 // cell_px))
    for row in range(coarse.depth_m.shape[0]):
        for column in range(coarse.depth_m.shape[1]):
            part = fine.depth_m[row * cell_px : (row + 1) * cell_px, column * cell_px : (column + 1) * cell_px]
            nearest = part[part > 0].min() if (part > 0).any() else 0.0
            assert coarse.depth_m[row, column] == nearest


def test_of_equally_near_points_the_first_stays() -> None:
    points = np.array([ahead(9, intensity=0.1), ahead(5, intensity=0.2), ahead(5, intensity=0.3)], F32)
    raster = rasterised(a_rig(), points)
    assert raster.index.max() == 1
    assert raster.intensity.max() == F32(0.2)


def test_without_a_fourth_column_there_is_no_intensity() -> None:
    raster = rasterised(a_rig(), np.array([ahead(5)], F32)[:, :3])
    assert raster.depth_m.max() > 0
    assert raster.intensity.max() == 0


def test_pixels_end_at_halves() -> None:
    rig = Rig(1.0, 1.0, 0.0, 0.0, 4, 1, np.eye(4))
    u_px = np.array([-0.501, -0.5, 0.499, 0.5, 3.499, 3.5], F32)
    points = np.stack([u_px, u_px * 0, u_px * 0 + 1], 1)
    assert project(rig, points).is_seen.tolist() == [False, True, True, True, True, False]
    assert rasterised(rig, points).index.tolist() == [[1, 3, -1, 4]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_points_that_are_not_finite_are_nowhere(bad: float) -> None:
    points = np.tile(np.array(ahead(5), F32), (3, 1))
    points[np.arange(3), np.arange(3)] = bad
    assert not project(a_rig(), points).is_seen.any()


def test_no_points_make_empty_images() -> None:
    none = np.zeros((0, 4), F32)
    assert (rasterised(a_rig(), none).index == -1).all()
    assert coloured(a_rig(), none, np.zeros((40, 64, 3), np.uint8))[0].shape == (0, 3)
    assert np.isnan(box_ranges(a_rig(), none, np.array([[0.0, 0.0, 1.0, 1.0]]))[0]).all()


def test_a_lens_bends_as_opencv_says() -> None:
    cv2 = pytest.importorskip("cv2")
    k = (-0.28, 0.07, 0.001, -0.002, 0.01)
    rig = a_rig(distortion=k)
    points = np.array([ahead(5, left, up) for left in (-2, 0, 1) for up in (-1, 0.5, 1)], F32)
    camera = (points[:, :3] @ CAM_SE3_LIDAR[:3, :3].T + CAM_SE3_LIDAR[:3, 3]).astype(np.float64)
    matrix = np.array([[50.0, 0, 32], [0, 50, 20], [0, 0, 1]])
    wanted = cv2.projectPoints(camera, np.zeros(3), np.zeros(3), matrix, np.array(k))[0][:, 0]
    at = project(rig, points)
    np.testing.assert_allclose(np.stack([at.u_px, at.v_px], 1), wanted, atol=1e-3)


def test_what_a_lens_polynomial_folds_back_is_not_seen() -> None:
    wide = np.array([ahead(1.0, 2.5)], F32)
    assert not project(a_rig(distortion=(-0.28, 0.0, 0.0, 0.0, 0.0)), wide).is_seen.any()


def test_a_point_takes_the_colour_of_its_pixel_and_a_hidden_one_none() -> None:
    picture = np.zeros((40, 64, 3), np.uint8)
    picture[:, :, 1] = np.arange(64)
    points = np.array([ahead(5), ahead(20), ahead(5, left_m=-1.0), ahead(-5)], F32)
    colours, is_seen = coloured(a_rig(), points, picture)
    assert is_seen.tolist() == [True, False, True, False]
    assert colours[:, 1].tolist() == [32, 0, 42, 0]


def test_colours_from_a_picture_of_another_size_are_refused() -> None:
    with pytest.raises(AlignmentError, match="expected a picture of"):
        coloured(a_rig(), np.zeros((1, 4), F32), np.zeros((10, 10, 3), np.uint8))


def test_a_boxs_range_is_its_nearest_dense_group() -> None:
    stray = [ahead(3)]
    car = [ahead(10 + 0.05 * i, left_m=0.02 * i) for i in range(12)]
    wall = [ahead(30, left_m=0.05 * i) for i in range(20)]
    box = np.array([[0.3, 0.3, 0.7, 0.7], [0.0, 0.0, 0.1, 0.1], [math.nan] * 4])
    ranges_m, support = box_ranges(a_rig(), np.array(stray + car + wall, F32), box)
    assert ranges_m[0] == pytest.approx(10.275, abs=0.05)
    assert support.tolist() == [12, 0, 0]
    assert np.isnan(ranges_m[1:]).all()


def test_the_rig_of_a_drive_puts_the_road_ahead_below_the_horizon() -> None:
    (_, calibration), *poses = messages(Lens(640, 384), 0)
    rig = Rig.from_messages(calibration, [message for _, message in poses])  # type: ignore[arg-type,misc]
    road = np.array([[10.0, 0.0, -1.85], [50.0, 0.0, -1.85]], F32)
    at = project(rig, road)
    assert at.is_seen.all()
    assert at.v_px[0] > at.v_px[1] > 0.4 * 384
    assert abs(at.u_px - 320).max() < 1


def test_a_drive_without_a_chain_of_frames_has_no_rig() -> None:
    (_, calibration), *poses = messages(Lens(640, 384), 0)
    with pytest.raises(DriveFormatError, match="connect camera and lidar"):
        Rig.from_messages(calibration, [poses[0][1]])  # type: ignore[arg-type,list-item]


@pytest.mark.parametrize(
    "change",
    [
        {"fx_px": 0.0}, {"fy_px": math.nan}, {"width_px": 0}, {"distortion": (0.1,)}, {"cam_SE3_lidar": np.eye(3)},
        {"cam_SE3_lidar": np.full((4, 4), math.nan)}, {"cam_SE3_lidar": np.diag([2.0, 1, 1, 1])},
        {"cam_SE3_lidar": np.diag([-1.0, 1, 1, 1])},
    ],
)  # fmt: skip
def test_numbers_that_describe_no_rig_are_refused_in_one_line(change: dict[str, object]) -> None:
    sound = {"fx_px": 50.0, "fy_px": 50.0, "cx_px": 32.0, "cy_px": 20.0, "width_px": 64, "height_px": 40}
    with pytest.raises(AlignmentError, match=r"^rig: expected .*$"):
        Rig(**{**sound, "cam_SE3_lidar": CAM_SE3_LIDAR, **change})  # type: ignore[arg-type]
