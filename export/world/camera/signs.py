"""Traffic signs: plates as small pictures in a town's design, warped into place."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import Lens
from export.world.camera.light import air_colour, beam
from export.world.motion import Pose
from export.world.town import Colour, SignStyle
from export.world.weather import Atmosphere

U8 = NDArray[np.uint8]

PLATE_PX = 96
MIDDLE = (48, 48)
WHITE, BLACK, YELLOW = (235, 238, 238), (25, 25, 25), (40, 200, 240)
GUIDE_M = (2.6, 1.5)
AA = cv2.LINE_AA


@cache
def plate(variant: str, style: SignStyle) -> tuple[U8, U8]:
    """Picture (96, 96, 3) and mask (96, 96) of a plate; variants are those of export.world.grammar.SIGNS."""
    picture, mask = np.zeros((PLATE_PX, PLATE_PX, 3), np.uint8), np.zeros((PLATE_PX, PLATE_PX), np.uint8)
    if variant.startswith("speed_"):
        _round(picture, mask, style.red, style.ground, 46 - style.rim)
        _number(picture, variant[6:], style)
    elif variant == "stop":
        _polygon(picture, mask, _octagon(47), WHITE)
        _polygon(picture, mask, _octagon(42), style.red)
        cv2.putText(picture, "STOP", (12, 58), cv2.FONT_HERSHEY_DUPLEX, 0.9, WHITE, 2, AA)
    elif variant == "yield":
        _polygon(picture, mask, [(2, 8), (94, 8), (48, 90)], style.red)
        _polygon(picture, mask, _inner([(2, 8), (94, 8), (48, 90)], (48, 35), style.rim), style.ground)
    elif variant in ("curve", "roadworks"):
        _warning(picture, mask, variant, style)
    elif variant == "no_parking":
        _round(picture, mask, style.red, style.blue, 48 - style.rim)
        cv2.line(picture, (22, 22), (74, 74), style.red, 9, AA)
    elif variant == "no_entry":
        _round(picture, mask, WHITE, style.red, 43)
        cv2.rectangle(picture, (17, 39), (79, 57), WHITE, -1)
    elif variant == "priority":
        _polygon(picture, mask, [(48, 1), (95, 48), (48, 95), (1, 48)], WHITE)
        _polygon(picture, mask, [(48, 16), (80, 48), (48, 80), (16, 48)], YELLOW)
    elif variant == "keep_right":
        _round(picture, mask, WHITE, style.blue, 43)
        cv2.arrowedLine(picture, (28, 28), (70, 70), WHITE, 10, AA, tipLength=0.5)
    elif variant == "crossing":
        _crossing(picture, mask, style)
    else:
        mask[:], picture[:] = 255, style.green if style.font != 3 else style.blue
        cv2.rectangle(picture, (4, 4), (91, 91), WHITE, 2)
        for row in (28, 54, 78):
            cv2.line(picture, (14, row), (70, row), WHITE, 6)
        cv2.arrowedLine(picture, (82, 84), (82, 24), WHITE, 4, tipLength=0.3)
    return picture, mask


def plate_corners(variant: str, top_m: float, style: SignStyle) -> NDArray[np.float64]:
    """(4, 3) corners of a plate in its sign's frame, clockwise from the upper left as seen from -x."""
    width, height = GUIDE_M if variant == "guide" else (style.size_m, style.size_m)
    low, half = top_m - height, 0.5 * width
    return np.array([[-0.06, half, top_m], [-0.06, -half, top_m], [-0.06, -half, low], [-0.06, half, low]])


def draw_plate(
    picture: U8, lens: Lens, corners_ego: NDArray[np.float64], variant: str, style: SignStyle, pose: Pose,
    air: Atmosphere,
) -> None:  # fmt: skip
    """Warps the plate onto the picture, lit (plates throw the ego's own light back) and faded by the air."""
    pixels, depth = lens.project(corners_ego, pose.pitch_rad, pose.heave_m)
    if depth.min() < 1.0:
        return
    low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0)) + 1
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), lens.width_px), min(int(high[1]), lens.height_px)
    if right - left < 2 or bottom - top < 2:
        return
    away = pixels[0, 0] > pixels[1, 0]
    source, mask = plate(variant, style)
    square = np.array([[0, 0], [PLATE_PX, 0], [PLATE_PX, PLATE_PX], [0, PLATE_PX]], np.float32)
    shrink = max((pixels.max(axis=0) - pixels.min(axis=0)).max(), 2.0) / PLATE_PX
    if shrink < 0.5:
        size = max(round(PLATE_PX * shrink * 1.5), 4)
        source, mask = _small(variant, style, size)
        square = square * (size / PLATE_PX)
    matrix = cv2.getPerspectiveTransform(square, (pixels - (left + 0.5, top + 0.5)).astype(np.float32))
    area = (right - left, bottom - top)
    light = min(
        air.ambient * 0.95 + air.lamps * 1.6 * float(beam(*(corners_ego[:1, k] for k in range(3)))[0] + 0.12), 1.15
    )
    kept = math.exp(-air.extinction_per_m * float(depth[0]))
    face = (
        cv2.warpPerspective(source, matrix, area).astype(np.float32) * (light * kept)
        if not away
        else np.full((area[1], area[0], 3), 120.0 * light * kept, np.float32)
    )
    alpha = cv2.warpPerspective(mask, matrix, area).astype(np.float32)[..., None] / 255.0
    face += (1.0 - kept) * air_colour(air).astype(np.float32)
    patch = picture[top:bottom, left:right]
    picture[top:bottom, left:right] = np.clip(patch * (1.0 - alpha) + face * alpha, 0, 255).astype(np.uint8)


@cache
def _small(variant: str, style: SignStyle, size: int) -> tuple[U8, U8]:
    picture, mask = plate(variant, style)
    shape = (size, size)
    small = np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return small, np.asarray(cv2.resize(mask, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _round(picture: U8, mask: U8, rim: Colour, field: Colour, radius: int) -> None:
    cv2.circle(mask, MIDDLE, 46, 255, -1, AA)
    cv2.circle(picture, MIDDLE, 46, rim, -1, AA)
    cv2.circle(picture, MIDDLE, radius, field, -1, AA)


def _polygon(picture: U8, mask: U8, corners: list[tuple[int, int]], colour: Colour) -> None:
    cv2.fillConvexPoly(mask, np.array(corners), 255, AA)
    cv2.fillConvexPoly(picture, np.array(corners), colour, AA)


def _octagon(radius: int) -> list[tuple[int, int]]:
    angles = [(k + 0.5) * math.pi / 4 for k in range(8)]
    return [(round(48 + radius * math.cos(a)), round(48 + radius * math.sin(a))) for a in angles]


def _inner(corners: list[tuple[int, int]], middle: tuple[int, int], rim: int) -> list[tuple[int, int]]:
    """The corners drawn in towards the middle so that a rim remains."""
    share = 1.0 - rim / 28.0
    return [
        (round(middle[0] + (x - middle[0]) * share), round(middle[1] + (y - middle[1]) * share)) for x, y in corners
    ]


def _number(picture: U8, text: str, style: SignStyle) -> None:
    scale = (1.5 if style.font == 2 else 1.4) if len(text) == 2 else 1.05
    thick = 4 if style.font != 2 else 3
    (width, height), _ = cv2.getTextSize(text, style.font, scale, thick)
    cv2.putText(picture, text, (48 - width // 2, 48 + height // 2), style.font, scale, BLACK, thick, AA)


def _warning(picture: U8, mask: U8, variant: str, style: SignStyle) -> None:
    corners = [(2, 88), (94, 88), (48, 6)]
    _polygon(picture, mask, corners, style.red)
    _polygon(picture, mask, _inner(corners, (48, 61), style.rim), style.ground)
    if variant == "curve":
        cv2.polylines(picture, [np.array([(44, 76), (44, 60), (54, 52), (52, 40)])], False, BLACK, 6, AA)
        return
    cv2.fillConvexPoly(picture, np.array([(50, 77), (76, 77), (63, 60)]), BLACK, AA)
    cv2.circle(picture, (44, 41), 5, BLACK, -1, AA)
    for a, b in (((43, 46), (36, 62)), ((36, 62), (28, 77)), ((36, 62), (43, 77)), ((42, 50), (56, 66))):
        cv2.line(picture, a, b, BLACK, 5, AA)


def _crossing(picture: U8, mask: U8, style: SignStyle) -> None:
    mask[:], picture[:] = 255, style.blue
    cv2.fillConvexPoly(picture, np.array([(48, 12), (8, 84), (88, 84)]), WHITE, AA)
    cv2.circle(picture, (50, 36), 6, BLACK, -1, AA)
    for a, b in (((50, 42), (46, 60)), ((46, 60), (38, 76)), ((46, 60), (56, 76)), ((49, 48), (60, 56))):
        cv2.line(picture, a, b, BLACK, 5, AA)
