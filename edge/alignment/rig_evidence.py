"""What one sweep and one picture say of the rig: log-likelihoods of "as calibrated" and of each fault.

For each edge of the sweep the picture's edge strength along a line across it tells how likely the edge really is
there, or a little beside; how the edge would move under a fault ("turned by 0.5 deg about y", "sweep 50 ms late") says
where to read that. An edge may be anywhere between its two rays, so the likelihood is that of an interval. Edges in one
line belong to one thing and count as its square root; edges where the last sweeps had some count less, so that a lorry
that is followed for a minute can't say the same thing again and again.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.alignment.deskew import deskewed
from edge.alignment.projection import F32, F64, Rig, project
from edge.alignment.range_edges import KINDS, TOP, RangeEdges, range_edges

AXES: Final = ("pitch_deg", "yaw_deg", "roll_deg", "right_cm", "down_cm", "ahead_cm", "late_ms")
STEPS: Final = (0.5, 0.5, 0.5, 5.0, 5.0, 5.0, 50.0)  # of the hypotheses, up and down, in the axes' units
FAULTS: Final = 2 * len(AXES)  # up, down of the first axis, up, down of the second ...
SEEN_SHAPE: Final = (KINDS, 128, 40)  # of what was seen lately: kind, place in the picture, range

_TO_SI: Final = np.array([math.pi / 180] * 3 + [0.01] * 3 + [0.001])
_FOCAL_PX: Final = 500.0  # pictures are brought to at most this focal length: a pixel is then 2 mrad
_REACH_PX: Final = 20  # a likelihood spans +-2.3 deg
_RIM_PX: Final = 8  # more on each side, so that smoothing has no ends
_AROUND_PX: Final = _REACH_PX + _RIM_PX + 6  # and for the filters
_WEAK: Final = 12.0  # edge strength (half grey levels a pixel) that is noise
_CLUTTER: Final = 0.02  # likelihood of an edge anywhere, against the mean along the line
_IN_LINE_PX, _LINE_PX = 6, 150
_SEEN_PX, _SEEN_RANGE = 10.0, 0.12  # a place is that many pixels and that share of the range wide
_SEEN_COSTS: Final = 4.0
_SEEN_FADES: Final = 0.9  # a sweep
_FOOT_HALF_PX: Final = 1
_WIDEST_PX: Final = 6


class Evidence(NamedTuple):
    """What one sweep and one picture say.

    ratios: (KINDS, FAULTS) log-likelihood ratios of all faults against "as calibrated", by kind of edge. edges: how
    many spoke. is_fine: whether the LiDAR's rays are close, see FINE_RAD.
    """

    ratios: F64
    edges: int
    is_fine: bool


def evidence(
    rig: Rig,
    points_lidar: F32,
    image: NDArray[np.uint8],
    lead_s: float,
    speed_mps: float,
    yaw_rate_radps: float,
    seen: F32,
) -> Evidence:
    """Compares a sweep and a picture.

    Args:
        points_lidar: (n, 3 or more) one sweep, recorded ring by ring.
        image: (height, width) grey or (height, width, 3) BGR, of the rig's size.
        lead_s: the picture was taken this long after the sweep's stamp.
        speed_mps, yaw_rate_radps: of the vehicle, ahead and to the left.
        seen: SEEN_SHAPE, what the last sweeps showed; this sweep is added in place.
    """
    ratios = np.zeros((KINDS, FAULTS))
    edges = range_edges(rig, points_lidar)
    if not len(edges.kinds):
        return Evidence(ratios, 0, edges.is_fine)
    points = deskewed(edges.points_lidar, -lead_s, speed_mps, yaw_rate_radps)
    scale = min(1.0, _FOCAL_PX / rig.fx_px)
    at = project(rig, points)
    kept = np.flatnonzero(at.is_seen)
    if not len(kept):
        return Evidence(ratios, 0, edges.is_fine)
    kinds = edges.kinds[kept]
    moves_px = _moves(rig, points[kept], kinds, speed_mps, yaw_rate_radps) * scale
    exact_px = np.stack([at.u_px[kept], at.v_px[kept]], axis=1) * scale
    at_px = np.rint(exact_px).astype(np.intp)
    rest_px = (exact_px - at_px)[np.arange(len(kept)), (kinds >= TOP).astype(np.intp)]
    range_m = np.sqrt((points[kept] ** 2).sum(axis=1))
    likelihood = _log_likelihood(_strength_across(image, scale, at_px, kinds), _half_px(edges, rig, scale)[kinds])
    weights = _fresh(seen, line_weights(at_px, kinds), at_px, kinds, range_m)
    gains = weights[:, None] * _gains(likelihood, moves_px, rest_px if edges.is_fine else np.zeros(len(kept)))
    for kind in range(KINDS):
        ratios[kind] = gains[kinds == kind].sum(axis=0)
    return Evidence(ratios, len(kept), edges.is_fine)


def _strength_across(
    image: NDArray[np.uint8], scale: float, at_px: NDArray[np.intp], kinds: NDArray[np.intp]
) -> NDArray[np.float32]:
    """(n, 57) strength of the picture's edges along lines across the sweep's, 0 beyond the picture."""
    # the LiDAR sees a part of the picture's height
    first, last = max(int(at_px[:, 1].min()) - _AROUND_PX, 0), int(at_px[:, 1].max()) + _AROUND_PX + 1
    if scale == 1.0:
        grey = _grey(image[first:last])
    else:
        how = cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA  # the mean of areas costs three times as much
        grey = cv2.resize(_grey(image), None, fx=scale, fy=scale, interpolation=how)[first:last]
    grey = cv2.GaussianBlur(grey, (5, 5), 1.0)
    at_px = at_px - (0, first)
    height, width = grey.shape
    along = np.arange(-_REACH_PX - _RIM_PX, _REACH_PX + _RIM_PX + 1)
    strength = np.zeros((len(kinds), len(along)), np.float32)
    columns, rows = np.minimum(at_px[:, 0], width - 1), np.minimum(at_px[:, 1], height - 1)
    lying = kinds >= TOP
    for is_lying in (False, True):
        chosen = np.flatnonzero(lying == is_lying)
        if not len(chosen):
            continue
        across = cv2.convertScaleAbs(cv2.Sobel(grey, cv2.CV_16S, 1 - is_lying, int(is_lying)), alpha=0.5)
        if not is_lying:
            across = cv2.transpose(across)  # a quarter of what it takes to smooth columns
        across = cv2.blur(across, (5, 1))  # an edge goes on along itself
        line = (rows if is_lying else columns)[chosen, None] + along
        size = height if is_lying else width
        place = np.clip(line, 0, size - 1)
        read = across[place, (columns if is_lying else rows)[chosen, None]]
        strength[chosen] = np.where(place == line, read, 0)
    return strength


def _grey(image: NDArray[np.uint8]) -> cv2.typing.MatLike:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image


def _moves(rig: Rig, points: F32, kinds: NDArray[np.intp], speed_mps: float, yaw_rate_radps: float) -> F64:
    """(n, 7) by how many pixels a step of each axis moves places across their edge."""
    rotation = rig.cam_SE3_lidar[:3, :3]
    x, y, z = (points.astype(np.float64) @ rotation.T + rig.cam_SE3_lidar[:3, 3]).T
    flow = np.zeros((len(points), 3))  # of what stands, in the LiDAR frame, m/s
    flow[:, 0], flow[:, 1] = yaw_rate_radps * points[:, 1] - speed_mps, -yaw_rate_radps * points[:, 0]
    flow = flow @ rotation.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    right = np.stack([zero, z, -y, one, zero, zero, flow[:, 0]], axis=1)
    down = np.stack([-z, zero, x, zero, one, zero, flow[:, 1]], axis=1)
    ahead = np.stack([y, -x, zero, zero, zero, one, flow[:, 2]], axis=1)
    lying = (kinds >= TOP)[:, None]
    focal_px = np.where(lying, rig.fy_px, rig.fx_px)
    place = np.where(lying[:, 0], y, x) / z
    moves_px = focal_px / z[:, None] * (np.where(lying, down, right) - place[:, None] * ahead)
    steps: F64 = moves_px * (_TO_SI * np.array(STEPS))
    return steps


def _half_px(edges: RangeEdges, rig: Rig, scale: float) -> NDArray[np.intp]:
    """(KINDS,) half the interval in which an edge of a kind may be."""
    step, rise = (
        min(max(int(0.5 * angle * focal_px * scale), 1), _WIDEST_PX)
        for angle, focal_px in zip(edges.step_rad, (rig.fx_px, rig.fy_px), strict=True)
    )
    return np.array([step, step, rise, _FOOT_HALF_PX])


def _kernel(half_px: int) -> NDArray[np.float32]:
    """(1, 2 half_px + 5) an interval of that half width, its ends rounded by a pixel."""
    shape = np.convolve(np.ones(2 * half_px + 1), np.exp(-0.5 * np.arange(-2, 3) ** 2))
    return np.asarray((shape / shape.sum())[None], np.float32)


_KERNELS: Final = tuple(_kernel(half_px) for half_px in range(1, _WIDEST_PX + 1))  # reach _RIM_PX at most


def _log_likelihood(strength: NDArray[np.float32], half_px: NDArray[np.intp]) -> NDArray[np.float32]:
    """(n, 41) of the edge being that far to the right of, or below, where it is expected."""
    strength /= np.maximum(strength.max(axis=1, keepdims=True), np.float32(_WEAK))
    around = np.empty((len(strength), 2 * _REACH_PX + 1), np.float32)
    for half in np.unique(half_px):
        chosen = half_px == half
        smooth = cv2.filter2D(strength[chosen], -1, _KERNELS[half - 1])  # a product of matrices would start threads
        around[chosen] = smooth[:, _RIM_PX:-_RIM_PX]
    around /= np.maximum(around.mean(axis=1, keepdims=True), np.float32(1e-3))
    return np.asarray(np.log(np.float32(_CLUTTER) + around), np.float32)


def _gains(likelihood: NDArray[np.float32], moves_px: F64, rest_px: F64) -> F64:
    """(n, FAULTS) what each edge says of each fault, against its saying of none; rest_px: of its place in its pixel."""
    shifts = np.stack([moves_px, -moves_px], axis=2).reshape(len(moves_px), FAULTS)
    return _read(likelihood, shifts + rest_px[:, None]) - _read(likelihood, rest_px[:, None])


def _read(likelihood: NDArray[np.float32], shifts_px: F64) -> F64:
    at = np.clip(shifts_px + _REACH_PX, 0.0, 2 * _REACH_PX - 1e-6)
    left = at.astype(np.intp)
    rest = at - left
    edge = np.arange(len(likelihood))[:, None]
    read: F64 = likelihood[edge, left] * (1.0 - rest) + likelihood[edge, left + 1] * rest
    return read


def line_weights(at_px: NDArray[np.intp], kinds: NDArray[np.intp]) -> F64:
    """(n,) one over the square root of how many edges of a kind stand in one line; what stands alone, as where a ring
    leaves a guard rail, is no thing's end."""
    weights, at_px = np.empty(len(kinds)), at_px.astype(np.int16)  # all pairs: small numbers are quick
    for kind in range(KINDS):
        chosen = np.flatnonzero(kinds == kind)
        across, along = at_px[chosen, int(kind >= TOP)], at_px[chosen, int(kind < TOP)]
        in_line = np.abs(across[:, None] - across) < _IN_LINE_PX
        in_line &= np.abs(along[:, None] - along) <= _LINE_PX
        count = in_line.sum(axis=1)
        weights[chosen] = np.where(count > 1, 1.0 / np.sqrt(count), 0.0)
    return weights


def _fresh(seen: F32, weights: F64, at_px: NDArray[np.intp], kinds: NDArray[np.intp], range_m: F32) -> F64:
    """(n,) the weights, less where the last sweeps had edges; what is left of them is marked as seen."""
    across = np.where(kinds >= TOP, at_px[:, 1], at_px[:, 0])
    place = np.clip(across / _SEEN_PX, 0, SEEN_SHAPE[1] - 1).astype(np.intp)
    far = np.clip(np.log(range_m) / _SEEN_RANGE, 0, SEEN_SHAPE[2] - 1).astype(np.intp)
    fresh: F64 = weights / (1.0 + _SEEN_COSTS * seen[kinds, place, far])
    seen *= np.float32(_SEEN_FADES)
    np.add.at(seen, (kinds, place, far), fresh.astype(np.float32))
    return fresh
