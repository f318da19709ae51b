"""Traffic signs: plates as small pictures, warped into place."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import Lens
from export.world.camera.light import air_colour, beam
from export.world.weather import Atmosphere

U8 = NDArray[np.uint8]

PLATE_PX = 96
RED, WHITE, BLACK, BLUE, GREEN = (40, 30, 200), (235, 238, 238), (25, 25, 25), (170, 80, 20), (70, 120, 20)
SIZES_M = {"guide": (2.6, 1.5), "crossing": (0.7, 0.7)}


@cache
def plate(variant: str) -> tuple[U8, U8]:
    """Picture (96, 96, 3) and mask (96, 96) of a plate."""
    picture, mask = np.zeros((PLATE_PX, PLATE_PX, 3), np.uint8), np.zeros((PLATE_PX, PLATE_PX), np.uint8)
    middle = (48, 48)
    if variant.startswith("speed_"):
        _disc(picture, mask, RED, WHITE, 34)
        text = variant[6:]
        scale = 1.45 if len(text) == 2 else 1.05
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 3)
        cv2.putText(
            picture, text, (48 - width // 2, 48 + height // 2), cv2.FONT_HERSHEY_DUPLEX, scale, BLACK, 3, cv2.LINE_AA
        )
    elif variant == "stop":
        ring = [
            (round(48 + 47 * math.cos(a)), round(48 + 47 * math.sin(a)))
            for a in np.arange(8) * math.pi / 4 + math.pi / 8
        ]
        cv2.fillConvexPoly(mask, np.array(ring), 255, cv2.LINE_AA)
        cv2.fillConvexPoly(picture, np.array(ring), WHITE, cv2.LINE_AA)
        inner = [
            (round(48 + 42 * math.cos(a)), round(48 + 42 * math.sin(a)))
            for a in np.arange(8) * math.pi / 4 + math.pi / 8
        ]
        cv2.fillConvexPoly(picture, np.array(inner), RED, cv2.LINE_AA)
        cv2.putText(picture, "STOP", (12, 58), cv2.FONT_HERSHEY_DUPLEX, 0.9, WHITE, 2, cv2.LINE_AA)
    elif variant in ("yield", "curve"):
        outer = [(2, 8), (94, 8), (48, 90)] if variant == "yield" else [(2, 88), (94, 88), (48, 6)]
        inner = [(18, 17), (78, 17), (48, 71)] if variant == "yield" else [(18, 79), (78, 79), (48, 25)]
        cv2.fillConvexPoly(mask, np.array(outer), 255, cv2.LINE_AA)
        cv2.fillConvexPoly(picture, np.array(outer), RED, cv2.LINE_AA)
        cv2.fillConvexPoly(picture, np.array(inner), WHITE, cv2.LINE_AA)
        if variant == "curve":
            cv2.polylines(picture, [np.array([(44, 76), (44, 60), (54, 52), (52, 40)])], False, BLACK, 5, cv2.LINE_AA)
    elif variant == "no_parking":
        _disc(picture, mask, RED, BLUE, 36)
        cv2.line(picture, (22, 22), (74, 74), RED, 9, cv2.LINE_AA)
    elif variant == "crossing":
        mask[:] = 255
        picture[:] = BLUE
        cv2.fillConvexPoly(picture, np.array([(48, 12), (8, 84), (88, 84)]), WHITE, cv2.LINE_AA)
        cv2.circle(picture, (50, 36), 6, BLACK, -1, cv2.LINE_AA)
        for a, b in (((50, 42), (46, 60)), ((46, 60), (38, 76)), ((46, 60), (56, 76)), ((49, 48), (60, 56))):
            cv2.line(picture, a, b, BLACK, 5, cv2.LINE_AA)
    else:
        mask[:] = 255
        picture[:] = GREEN if variant == "guide" else BLUE
        cv2.rectangle(picture, (4, 4), (91, 91), WHITE, 2)
        for row in (28, 54, 78):
            cv2.line(picture, (14, row), (70, row), WHITE, 6)
        cv2.arrowedLine(picture, (82, 84), (82, 24), WHITE, 4, tipLength=0.3)
    cv2.circle(mask, middle, 1, 255, -1)
    return picture, mask


def plate_corners(variant: str, top_m: float) -> NDArray[np.float64]:
    """(4, 3) corners of a plate in its sign's frame, clockwise from the upper left as seen from -x."""
    width, height = SIZES_M.get(variant, (0.75, 0.75))
    low, half = top_m - height, 0.5 * width
    return np.array([[-0.06, half, top_m], [-0.06, -half, top_m], [-0.06, -half, low], [-0.06, half, low]])


def draw_plate(
    picture: U8, lens: Lens, corners_ego: NDArray[np.float64], variant: str, pitch_rad: float, air: Atmosphere
) -> None:
    """Warps the plate onto the picture, lit (plates throw the ego's own light back) and faded by the air."""
    pixels, depth = lens.project(corners_ego, pitch_rad)
    if depth.min() < 1.0:
        return
    low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0)) + 1
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), lens.width_px), min(int(high[1]), lens.height_px)
    if right - left < 2 or bottom - top < 2:
        return
    away = pixels[0, 0] > pixels[1, 0]
    source, mask = plate(variant)
    square = np.array([[0, 0], [PLATE_PX, 0], [PLATE_PX, PLATE_PX], [0, PLATE_PX]], np.float32)
    shrink = max((pixels.max(axis=0) - pixels.min(axis=0)).max(), 2.0) / PLATE_PX
    if shrink < 0.5:
        size = max(round(PLATE_PX * shrink * 1.5), 4)
        source, mask = _small(variant, size)
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
def _small(variant: str, size: int) -> tuple[U8, U8]:
    picture, mask = plate(variant)
    shape = (size, size)
    small = np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return small, np.asarray(cv2.resize(mask, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _disc(picture: U8, mask: U8, rim: tuple[int, int, int], field: tuple[int, int, int], radius: int) -> None:
    cv2.circle(mask, (48, 48), 46, 255, -1, cv2.LINE_AA)
    cv2.circle(picture, (48, 48), 46, rim, -1, cv2.LINE_AA)
    cv2.circle(picture, (48, 48), radius, field, -1, cv2.LINE_AA)
