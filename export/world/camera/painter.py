"""The painter: shapes far to near, culled, lit, faded by the air; and the box of each in the picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import NEAR_M, SHIFT, Lens, clip_near, clip_to_picture, fixed_corners
from export.world.camera.light import air_colour, brightness
from export.world.camera.model import CORNERS, Lamp, Model
from export.world.camera.signs import draw_plate, plate_corners
from export.world.motion import Pose
from export.world.town import SignStyle
from export.world.weather import Atmosphere

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

INDOORS = (95.0, 175.0, 228.0)  # colour of a lit room
MASK_SCALE = 2  # the mask of what hides what is this much smaller than the picture


@dataclass(frozen=True, slots=True)
class Placed:
    """A model at a place of the levelled ego frame. id < 0: scenery without truth. lit: names of lamps that burn."""

    id: int
    model: Model
    x_m: float
    y_m: float
    turn_rad: float
    lit: tuple[str, ...] = ()
    plate: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a placed shape is in the picture: box (left, top, right, bottom; px, clipped) and visible share."""

    id: int
    box_px: tuple[float, float, float, float]
    visibility: float


class Painter:
    """Draws placed shapes; owns the hidden-share mask."""

    def __init__(self, lens: Lens, signs: SignStyle | None = None) -> None:
        self.lens = lens
        self._signs = signs or SignStyle()
        self._glows: dict[tuple[int, tuple[float, float, float]], U8] = {}

    def paint(
        self, picture: U8, placed: list[Placed], pose: Pose, air: Atmosphere,
        sun_ego: tuple[float, float, float], lamps_ego: F64,
    ) -> tuple[list[Seen], U8]:  # fmt: skip
        """Draws everything; says where each shape is, and what hides the ground (1; at 1 / MASK_SCALE of the size)."""
        placed = [p for p in placed if len(p.model.faces)]
        if not placed:
            return [], self._mask()
        placed.sort(key=lambda p: (-math.hypot(p.x_m - self.lens.forward_m, p.y_m), p.id))
        ego, starts = self._assemble(placed)
        faces = np.concatenate([p.model.faces + starts[i] for i, p in enumerate(placed)])
        owner_first = np.concatenate([[0], np.cumsum([len(p.model.faces) for p in placed])])
        camera = self.lens.to_camera(ego, pose.pitch_rad, pose.heave_m)
        pixels, alive = self._clipped(camera, faces)
        colours = self._colours(placed, ego, faces, air, sun_ego, lamps_ego)
        two_sided = np.concatenate([p.model.two_sided for p in placed])
        visible = alive & (two_sided | (_areas(pixels) < 0.0))
        seen, hidden = self._look(placed, pixels, alive, visible, owner_first, pose)
        fixed = fixed_corners(pixels)
        shades = colours.tolist()
        for i, p in enumerate(placed):
            for f in self._order(p, int(owner_first[i]), int(owner_first[i + 1])):
                if visible[f]:
                    cv2.fillConvexPoly(picture, fixed[f], shades[f], cv2.LINE_AA, SHIFT)
            if p.plate:
                draw_plate(picture, self.lens, self._plate_ego(p), p.plate, self._signs, pose, air)
            for lamp in p.model.lamps:
                if lamp.kind in p.lit:
                    self._lamp(picture, p, lamp, pose, air)
        return seen, hidden

    def _order(self, p: Placed, first: int, last: int) -> Iterable[int]:
        """Face numbers in drawing order: the pieces of a long shape go far to near."""
        if len(p.model.parts) < 2:
            return range(first, last)
        ahead = math.cos(p.turn_rad) * (self.lens.forward_m - p.x_m) - math.sin(p.turn_rad) * p.y_m
        starts = [*(start for start, _ in p.model.parts), last - first]
        pieces = [(middle, range(first + a, first + b)) for (_, middle), a, b in zip(p.model.parts, starts, starts[1:])]
        pieces.sort(key=lambda piece: piece[0], reverse=ahead < 0.0)
        return chain.from_iterable(piece for _, piece in pieces)

    def _assemble(self, placed: list[Placed]) -> tuple[F64, NDArray[np.int64]]:
        counts = [len(p.model.vertices_m) for p in placed]
        starts = np.concatenate([[0], np.cumsum(counts)])
        vertices = np.concatenate([p.model.vertices_m for p in placed])
        turn = np.repeat([p.turn_rad for p in placed], counts)
        x0, y0 = np.repeat([p.x_m for p in placed], counts), np.repeat([p.y_m for p in placed], counts)
        c, s = np.cos(turn), np.sin(turn)
        x, y = vertices[:, 0], vertices[:, 1]
        return np.stack([x0 + x * c - y * s, y0 + x * s + y * c, vertices[:, 2]], axis=1), starts[:-1]

    def _clipped(self, camera: F64, faces: NDArray[np.int64]) -> tuple[F64, NDArray[np.bool_]]:
        """Pixels (f, 8, 2) of the faces, cut at the near plane, and which remain."""
        depth = camera[:, 2][faces]
        pixels = self.lens.to_pixels(camera)[faces]
        behind = depth < NEAR_M
        alive: NDArray[np.bool_] = np.asarray(~behind.all(axis=1))
        for f in np.flatnonzero(alive & np.asarray(behind.any(axis=1))):
            index = faces[f]
            cut = clip_near(camera[index[np.concatenate([[True], index[1:] != index[:-1]])]])
            if not 3 <= len(cut) <= CORNERS:
                alive[f] = False
                continue
            corner = self.lens.to_pixels(cut)
            pixels[f, : len(cut)] = corner
            pixels[f, len(cut) :] = corner[-1]
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        size = (self.lens.width_px, self.lens.height_px)
        return pixels, alive & (high > 0.0).all(axis=1) & (low < size).all(axis=1)

    def _colours(
        self, placed: list[Placed], ego: F64, faces: NDArray[np.int64], air: Atmosphere,
        sun_ego: tuple[float, float, float], lamps_ego: F64,
    ) -> F64:  # fmt: skip
        a, b, c = ego[faces[:, 0]], ego[faces[:, 1]], ego[faces[:, 2]]
        normals = np.cross(b - a, c - a)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        middle = 0.5 * (a + c)
        two_sided = np.concatenate([p.model.two_sided for p in placed])
        normals[two_sided & ((normals * middle).sum(axis=1) > 0.0)] *= -1.0
        light = brightness(middle, normals, air, sun_ego, lamps_ego)
        glow = np.concatenate([p.model.glow for p in placed])
        colours = np.concatenate([p.model.colours for p in placed]) * np.maximum(light, glow)[:, None]
        lit = np.concatenate([p.model.windows for p in placed])
        colours[lit] += (np.array(INDOORS) - colours[lit]) * (0.9 * air.lamps)
        kept = np.exp(-air.extinction_per_m * np.linalg.norm(middle, axis=1))[:, None]
        return np.asarray(np.clip(colours * kept + (1.0 - kept) * air_colour(air), 0.0, 255.0))

    def _look(
        self, placed: list[Placed], pixels: F64, alive: NDArray[np.bool_], visible: NDArray[np.bool_],
        first: NDArray[np.int64], pose: Pose,
    ) -> tuple[list[Seen], U8]:  # fmt: skip
        """Boxes, and near to far what each box loses to nearer shapes."""
        width, height = self.lens.width_px, self.lens.height_px
        mask = self._mask()
        small = fixed_corners(pixels, MASK_SCALE)
        seen: list[Seen] = []
        for i in range(len(placed) - 1, -1, -1):
            of = slice(first[i], first[i + 1])
            if not alive[of].any():
                continue
            corners = pixels[of][alive[of]].reshape(-1, 2)
            if placed[i].plate:
                corners, depth = self.lens.project(self._plate_ego(placed[i]), pose.pitch_rad, pose.heave_m)
                if depth.min() < 1.0:
                    continue
            if placed[i].id < 0:
                low, high = np.maximum(corners.min(axis=0), 0.0), np.minimum(corners.max(axis=0), (width, height))
            else:
                low, high = self._extent(corners, pixels[of][visible[of]] if not placed[i].plate else corners[None])
            if placed[i].id >= 0 and (high > low).all():
                x0, y0 = int(low[0] / MASK_SCALE), int(low[1] / MASK_SCALE)
                x1 = max(math.ceil(high[0] / MASK_SCALE), x0 + 1)
                y1 = max(math.ceil(high[1] / MASK_SCALE), y0 + 1)
                window = mask[y0:y1, x0:x1]
                share = 1.0 - float(window.mean()) if window.size else 0.0
                seen.append(Seen(placed[i].id, (float(low[0]), float(low[1]), float(high[0]), float(high[1])), share))
            if (high - low).min() < 3.0:
                continue
            for face in small[of][visible[of]]:
                cv2.fillConvexPoly(mask, face, 1, cv2.LINE_8, SHIFT)
            if placed[i].plate:
                cv2.fillConvexPoly(mask, fixed_corners(corners, MASK_SCALE), 1, cv2.LINE_8, SHIFT)
        return seen, mask

    def _mask(self) -> U8:
        return np.zeros((self.lens.height_px // MASK_SCALE, self.lens.width_px // MASK_SCALE), np.uint8)

    def _extent(self, corners: F64, polygons: F64) -> tuple[F64, F64]:
        """Low and high corner of the box around what lies inside the picture; low > high if nothing does."""
        size = np.array([self.lens.width_px, self.lens.height_px], dtype=np.float64)
        low, high = corners.min(axis=0), corners.max(axis=0)
        if (low >= 0.0).all() and (high <= size).all():
            return low, high
        inside = [c for polygon in polygons for c in clip_to_picture(polygon, self.lens.width_px, self.lens.height_px)]
        if not inside:
            return size, np.zeros(2)
        return np.maximum(np.min(inside, axis=0), 0.0), np.minimum(np.max(inside, axis=0), size)

    def _lamp(self, picture: U8, p: Placed, lamp: Lamp, pose: Pose, air: Atmosphere) -> None:
        c, s = math.cos(p.turn_rad), math.sin(p.turn_rad)
        x, y, z = lamp.at_m
        at = np.array([p.x_m + x * c - y * s, p.y_m + x * s + y * c, z])
        if lamp.facing and lamp.facing * (c * at[0] + s * at[1]) > 0.0:
            return
        pixel, depth = self.lens.project(at, pose.pitch_rad, pose.heave_m)
        if depth < 1.0:
            return
        kept = math.exp(-air.extinction_per_m * float(depth))
        power = (0.35 + 0.65 * air.lamps) * (0.25 + 0.75 * kept)
        radius = min(max(lamp.radius_m * self.lens.focal_px / float(depth), 2.5), 70.0)
        self._add_glow(picture, pixel, radius, lamp.colour, power)
        if air.weather == "rain" and air.lamps > 0.3:  # the wet road mirrors it, drawn out towards us
            mirrored, _ = self.lens.project(at * (1.0, 1.0, -1.0), pose.pitch_rad, pose.heave_m)
            for share in (0.6, 1.0, 1.5):
                drawn_out = pixel + (mirrored - pixel) * share
                self._add_glow(picture, drawn_out, 0.8 * radius, lamp.colour, 0.35 * power)

    def _add_glow(
        self, picture: U8, pixel: F64, radius: float, colour: tuple[float, float, float], power: float
    ) -> None:
        size = max(round(radius), 2)
        key = (size, colour)
        if key not in self._glows:
            y, x = np.mgrid[-size : size + 1, -size : size + 1] / size
            fall = np.clip(1.0 - np.hypot(x, y), 0.0, 1.0)
            shape = 0.55 * fall**2.2 + 1.2 * np.exp(-((x**2 + y**2) / 0.03))
            self._glows[key] = np.clip(shape[..., None] * np.array(colour), 0, 255).astype(np.uint8)
        sprite = self._glows[key]
        left, top = math.floor(pixel[0]) - size, math.floor(pixel[1]) - size
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + 2 * size + 1, picture.shape[1]), min(top + 2 * size + 1, picture.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        patch = picture[y0:y1, x0:x1]
        part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
        picture[y0:y1, x0:x1] = cv2.addWeighted(patch, 1.0, part, power, 0.0)

    def _plate_ego(self, p: Placed) -> F64:
        """(4, 3) corners of a sign's plate in the ego frame."""
        c, s = math.cos(p.turn_rad), math.sin(p.turn_rad)
        corners = plate_corners(p.plate, float(p.model.vertices_m[:, 2].max()) + 0.1, self._signs)
        x, y = corners[:, 0].copy(), corners[:, 1].copy()
        corners[:, 0], corners[:, 1] = p.x_m + x * c - y * s, p.y_m + x * s + y * c
        return corners


def _areas(pixels: F64) -> F64:
    """Signed areas (f,) of polygons in the picture; negative = counter-clockwise as seen by a person."""
    x, y = pixels[..., 0], pixels[..., 1]
    return 0.5 * np.asarray((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1))
