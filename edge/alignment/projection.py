"""LiDAR points in the camera's picture: pixels, depth and intensity images, colours, the range of an object.

Camera axes are x right, y down, z ahead (m); depth is z. Pixel centres have whole coordinates: a point belongs to pixel
floor(u + 0.5). Everything is a function of its arguments alone, and the order of the points decides nothing but equal
depths (the smallest index wins). For a pinhole the images are bit for bit those of `reference.project`, the spec of the
kernel. Points that are not finite are nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import AlignmentError, DriveFormatError

if TYPE_CHECKING:  # the loop never loads protobufs for this
    from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
    from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
NEAREST_M: Final = 0.5  # what is nearer is the vehicle itself, or behind the lens
HIDDEN_SHARE: Final = 1.15  # a point this much deeper than its neighbourhood's nearest is behind it
_NO_ROTATION: Final = 1e-3  # files round their rotations
_MAX_STEPS: Final = 16  # transforms between a sensor and the root
_LEAST_POINTS, _LEAST_SHARE = 3, 0.15  # of a box's points, that make an object
_GAP_M, _GAP_SHARE = 0.6, 0.04  # an emptier stretch of range than this parts two objects
_BOX_RIM: Final = 0.1  # share of a box's width and height that is left out at each side: it shows what lies behind


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """One camera and one LiDAR, and how they sit to each other.

    Args:
        fx_px, fy_px, cx_px, cy_px: pinhole intrinsics.
        width_px, height_px: of the pictures.
        cam_SE3_lidar: (4, 4) pose of the LiDAR in the camera, m.
        distortion: plumb-bob k1, k2, p1, p2, k3; empty for rectified pictures.

    Raises:
        AlignmentError: numbers that describe no camera, or a pose that is no rotation and shift.
    """

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width_px: int
    height_px: int
    cam_SE3_lidar: F64
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        lens = self.fx_px, self.fy_px, self.cx_px, self.cy_px, *self.distortion
        if not all(map(math.isfinite, lens)) or min(self.fx_px, self.fy_px) <= 0.0:
            raise AlignmentError(f"rig: expected finite intrinsics, focal lengths above 0, got {lens}")
        if min(self.width_px, self.height_px) < 1:
            raise AlignmentError(f"rig: expected pictures with pixels, got {self.width_px}x{self.height_px}")
        if len(self.distortion) not in (0, 5):
            raise AlignmentError(f"rig: expected 5 coefficients of distortion or none, got {len(self.distortion)}")
        pose = np.asarray(self.cam_SE3_lidar)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise AlignmentError(f"rig: expected a finite (4, 4) pose, got shape {pose.shape}")
        turn = pose[:3, :3]
        if np.abs(turn @ turn.T - np.eye(3)).max() > _NO_ROTATION or np.linalg.det(turn) < 0.0:
            raise AlignmentError("rig: expected a pose that turns and shifts, got one that stretches or mirrors")

    @classmethod
    def from_messages(cls, calibration: CameraCalibration, transforms: Iterable[FrameTransform]) -> Rig:
        """The rig that a drive's /camera/calibration and /tf messages describe; of two of one frame the first counts.

        Raises:
            DriveFormatError: unusable intrinsics, a lens model other than plumb-bob, or no chain of transforms that
                connects camera and LiDAR.
            AlignmentError: as of the class.
        """
        matrix = np.array(calibration.K, np.float64)
        if matrix.shape != (9,) or not np.isfinite(matrix).all() or min(matrix[0], matrix[4]) <= 0:
            raise DriveFormatError(f"camera calibration: expected K with focal lengths above 0, got {matrix.tolist()}")
        if not (calibration.width and calibration.height):
            raise DriveFormatError("camera calibration: expected the size of the pictures, got none")
        distortion = tuple(calibration.D)
        if not any(distortion):
            distortion = ()
        elif len(distortion) != 5 or calibration.distortion_model not in ("", "plumb_bob"):
            got = f"{len(distortion)} of {calibration.distortion_model!r}"
            raise DriveFormatError(f"camera calibration: expected 5 plumb_bob coefficients, got {got}")
        fx, cx, fy, cy = (float(matrix[i]) for i in (0, 2, 4, 5))
        pose = pose_between(transforms, calibration.frame_id or "camera", "lidar")
        return cls(fx, fy, cx, cy, calibration.width, calibration.height, pose, distortion)

    def moved(self, step: F64) -> Rig:
        """The rig with its LiDAR moved by a (4, 4) step in camera axes: cam_SE3_lidar becomes step @ cam_SE3_lidar."""
        size = self.width_px, self.height_px
        return Rig(
            self.fx_px, self.fy_px, self.cx_px, self.cy_px, *size, step @ self.cam_SE3_lidar, self.distortion
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Projected:
    """u_px, v_px, depth_m: (n,) float32 each; is_seen: (n,) bool, ahead of the lens and inside the picture."""

    u_px: F32
    v_px: F32
    depth_m: F32
    is_seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """The nearest point of each cell: (rows, columns) images.

    depth_m: float32, 0 where no point is. intensity: float32, 0 there. index: int32 of the point, -1 there.
    """

    depth_m: F32
    intensity: F32
    index: NDArray[np.int32]


def project(rig: Rig, points_lidar: F32) -> Projected:
    """Where points fall in the picture.

    Args:
        points_lidar: (n, 3 or more) float32, m in the LiDAR frame.
    """
    px, py, pz = points_lidar[:, :3].T
    with np.errstate(all="ignore"):  # what is not finite, or in the lens's plane, is sorted out below
        x, y, depth_m = (
            row[0] * px + row[1] * py + row[2] * pz + row[3] for row in rig.cam_SE3_lidar[:3].astype(np.float32)
        )
        is_seen = (depth_m >= np.float32(NEAREST_M)) & (depth_m < np.inf)
        x, y = x / depth_m, y / depth_m
        if rig.distortion:
            x, y, is_unfolded = _distorted(x, y, rig.distortion)
            is_seen &= is_unfolded
        u_px = np.float32(rig.fx_px) * x + np.float32(rig.cx_px)
        v_px = np.float32(rig.fy_px) * y + np.float32(rig.cy_px)
        column, row = _pixels(u_px), _pixels(v_px)
        is_seen &= (column >= 0) & (column < rig.width_px) & (row >= 0) & (row < rig.height_px)
    return Projected(u_px, v_px, depth_m, is_seen)


def _pixels(at_px: F32) -> F32:
    """The pixel of a place, as a whole float32."""
    return np.asarray(np.floor(at_px + np.float32(0.5)), np.float32)


def rasterised(rig: Rig, points_lidar: F32, cell_px: int = 1) -> Raster:
    """Z-buffered images of a sweep: the nearest point of a cell wins, of equally near ones the smallest index.

    Args:
        points_lidar: (n, 3 or more) float32; a fourth column is the intensity, 0..1.
        cell_px: side of a cell; the images are ceil(height / cell_px) by ceil(width / cell_px).

    Raises:
        AlignmentError: a cell without size.
    """
    if cell_px < 1:
        raise AlignmentError(f"depth image: expected cells of at least 1 px, got {cell_px}")
    seen = project(rig, points_lidar)
    rows, columns = -(-rig.height_px // cell_px), -(-rig.width_px // cell_px)
    index = np.full(rows * columns, -1, np.int32)
    nearest, cell = _nearest(seen, cell_px, rows, columns)
    index[cell] = nearest
    depth_m, intensity = np.zeros(rows * columns, np.float32), np.zeros(rows * columns, np.float32)
    depth_m[cell] = seen.depth_m[nearest]
    if points_lidar.shape[1] > 3:
        intensity[cell] = points_lidar[nearest, 3]
    shape = rows, columns
    return Raster(depth_m.reshape(shape), intensity.reshape(shape), index.reshape(shape))


def coloured(
    rig: Rig, points_lidar: F32, picture: NDArray[np.uint8], cell_px: int = 8
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(n, 3) BGR colour of each point, and (n,) whether the camera sees it; colours of the others are 0.

    The LiDAR looks from elsewhere than the camera, often over things: a point well behind the nearest one around it
    would take that one's colour.

    Args:
        picture: (height, width, 3) uint8 BGR, of the rig's size.
        cell_px: side of the neighbourhood; about the LiDAR's spacing.

    Raises:
        AlignmentError: a picture of another size than the rig's.
    """
    if picture.shape != (rig.height_px, rig.width_px, 3):
        expected = rig.height_px, rig.width_px, 3
        raise AlignmentError(f"colours of points: expected a picture of {expected}, got {picture.shape}")
    at = project(rig, points_lidar)
    nearest_m = rasterised(rig, points_lidar, cell_px).depth_m
    seen = np.flatnonzero(at.is_seen)
    column, row = (_pixels(p[seen]).astype(np.intp) for p in (at.u_px, at.v_px))
    open_to_camera = at.depth_m[seen] <= HIDDEN_SHARE * nearest_m[row // cell_px, column // cell_px]
    seen, row, column = seen[open_to_camera], row[open_to_camera], column[open_to_camera]
    colours, is_seen = np.zeros((len(points_lidar), 3), np.uint8), np.zeros(len(points_lidar), np.bool_)
    colours[seen], is_seen[seen] = picture[row, column], True
    return colours, is_seen


def box_ranges(rig: Rig, points_lidar: F32, boxes: NDArray[np.floating]) -> tuple[F32, NDArray[np.int32]]:
    """How far the objects in boxes are: (m,) median depth (m) of the nearest dense group of points, NaN without one,
    and (m,) how many points that is.

    Points of a box's middle are sorted by depth and parted where the depth jumps; the nearest part that holds a fair
    share of them is the object, so that neither the wall behind it nor a stray return before it counts.

    Args:
        boxes: (m, 4) left, top, right, bottom in fractions of the picture; one that is not finite holds nothing.
    """
    at = project(rig, points_lidar)
    x, y = (at.u_px[at.is_seen] + 0.5) / rig.width_px, (at.v_px[at.is_seen] + 0.5) / rig.height_px
    depth_m = at.depth_m[at.is_seen]
    order = np.argsort(depth_m, kind="stable")
    x, y, depth_m = x[order], y[order], depth_m[order]
    ranges_m, support = np.full(len(boxes), np.nan, np.float32), np.zeros(len(boxes), np.int32)
    for number, (left, top, right, bottom) in enumerate(np.asarray(boxes, np.float64).tolist()):
        rim_x, rim_y = _BOX_RIM * (right - left), _BOX_RIM * (bottom - top)
        inside = (x > left + rim_x) & (x < right - rim_x) & (y > top + rim_y) & (y < bottom - rim_y)
        ranges_m[number], support[number] = _nearest_group(depth_m[inside])
    return ranges_m, support


def _nearest_group(depth_m: F32) -> tuple[float, int]:
    """Median depth and size of the first dense group of ascending depths."""
    if not len(depth_m):
        return np.nan, 0
    gaps = np.flatnonzero(np.diff(depth_m) > np.maximum(_GAP_M, _GAP_SHARE * depth_m[:-1])) + 1
    least = max(_LEAST_POINTS, _LEAST_SHARE * len(depth_m))
    for group in np.split(depth_m, gaps):
        if len(group) >= least:
            return float(np.median(group)), len(group)
    return np.nan, 0


def _nearest(seen: Projected, cell_px: int, rows: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Point and cell of each cell that has one: positive floats sort as their bits do, so one key holds both rules."""
    index = np.flatnonzero(seen.is_seen)
    column, row = (_pixels(p[index]).astype(np.intp) // cell_px for p in (seen.u_px, seen.v_px))
    key = (seen.depth_m[index].view(np.uint32).astype(np.uint64) << np.uint64(32)) | index.astype(np.uint64)
    best = np.full(rows * columns, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(best, row * columns + column, key)
    cell = np.flatnonzero(best != np.iinfo(np.uint64).max)
    return (best[cell] & np.uint64(0xFFFFFFFF)).astype(np.intp), cell


def _distorted(x: F32, y: F32, distortion: tuple[float, ...]) -> tuple[F32, F32, NDArray[np.bool_]]:
    """Plumb-bob lens; False for rays so far out that the polynomial folds them back into the picture.

    Ref: Brown, "Decentering distortion of lenses", 1966, as OpenCV writes it.
    """
    k1, k2, p1, p2, k3 = (np.float32(k) for k in distortion)
    r2 = np.minimum(x * x + y * y, np.float32(1e3))
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    growth = 1 + r2 * (3 * k1 + r2 * (5 * k2 + r2 * 7 * k3))  # of the radius, with the radius
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return u, v, growth > 0


def pose_between(transforms: Iterable[FrameTransform], dst: str, src: str) -> F64:
    """(4, 4) dst_SE3_src over the frames' common root; of two transforms of one frame the first counts.

    Raises:
        DriveFormatError: nothing connects them, or a pose on the way is none.
    """
    poses: dict[str, tuple[str, F64]] = {}
    for message in transforms:
        poses.setdefault(message.child_frame_id, (message.parent_frame_id, _pose(message)))
    chains = []
    for frame in (dst, src):
        at, root_SE3_frame = frame, np.eye(4)
        for _ in range(_MAX_STEPS):
            if at not in poses:
                break
            at, step = poses[at]
            root_SE3_frame = step @ root_SE3_frame
        chains.append((at, root_SE3_frame))
    (root, root_SE3_dst), (other, root_SE3_src) = chains
    if root != other or not (np.isfinite(root_SE3_dst).all() and np.isfinite(root_SE3_src).all()):
        raise DriveFormatError(f"/tf: expected transforms that connect {dst} and {src}, got {sorted(poses) or 'none'}")
    pose: F64 = np.linalg.inv(root_SE3_dst) @ root_SE3_src
    return pose


def _pose(message: FrameTransform) -> F64:
    """(4, 4) parent_SE3_child; NaN of a rotation without length."""
    q, t = message.rotation, message.translation
    length = math.sqrt(q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w)  # a power would raise where this is inf
    x, y, z, w = ((c / length if length > 1e-9 else np.nan) for c in (q.x, q.y, q.z, q.w))
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = t.x, t.y, t.z
    return pose
