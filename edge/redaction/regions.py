"""What of a detected thing has to be covered: heads of people, the lower part of vehicles, faces and plates themselves.

Boxes are in pixels of the recorded picture: left, top, right, bottom. What a detector says is not believed further than
that: boxes that are not finite, or outside of the picture, say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

FACE: Final = "face"
PLATE: Final = "plate"
# Names of the labels that detectors give, by what is covered of them.
PEOPLE: Final = frozenset({"pedestrian", "person", "cyclist", "rider", "people"})
VEHICLES: Final = frozenset({
    "vehicle", "car", "van", "truck", "bus", "motorbike", "motorcycle", "emergency", "trailer",
})  # fmt: skip
FACES: Final = frozenset({"face", "head"})
PLATES: Final = frozenset({"plate", "licence_plate", "license_plate", "licence plate", "license plate"})
SMALL_PERSON_PX: Final = 64.0  # of height; below, a box is too uncertain to look for its head in it
# A plate is 0.29 of a car's width: of a narrower one it has 18 x 4 pixels, less than 3 a sign, which nobody reads.
SMALL_VEHICLE_PX: Final = 64.0
MAX_BOXES: Final = 256  # of one picture; of more nobody knows what they mean, and the whole picture is covered
_HEAD_SHARE: Final = 0.30  # of a person's height, from the top
_HEAD_SHARE_CLOSE: Final = 0.55  # of a person who is cut off by the picture's lower edge, or is as wide as high
_CLOSE_ASPECT: Final = 0.75
_ABOVE: Final = 0.12  # detectors' boxes begin up to this share of the height too low
_ASIDE: Final = 0.20  # of the width, on each side
_PLATE_FROM: Final = 0.40  # of a vehicle's height, from the top
_PLATE_BELOW: Final = 0.10
_FACE_MARGIN: Final = 0.30
_PLATE_MARGIN: Final = 0.25
_FAR_PX: Final = 1e6


class Region(NamedTuple):
    """A rectangle that is covered, and why: FACE or PLATE."""

    kind: str
    left: float
    top: float
    right: float
    bottom: float


class Box(NamedTuple):
    """What a detector found, px."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


def sane(boxes: Iterable[Box]) -> list[Box]:
    """The boxes that have a place and a size, cut to where a picture can be."""
    kept = []
    for box in boxes:
        edges = box[1:]
        if not all(math.isfinite(edge) for edge in edges):
            continue
        left, top, right, bottom = (min(max(edge, -_FAR_PX), _FAR_PX) for edge in edges)
        if right - left > 0.0 and bottom - top > 0.0:
            kept.append(Box(box.name, left, top, right, bottom))
    return kept


def kind_of(name: str) -> str:
    """What is covered of a thing of this label: FACE, PLATE, or "" for nothing."""
    if name in PEOPLE or name in FACES:
        return FACE
    return PLATE if name in VEHICLES or name in PLATES else ""


def region_of(box: Box, height_px: int) -> Region | None:
    """The part of a sane box that has to be covered; None where nothing has to be.

    Args:
        height_px: of the picture.
    """
    width, height = box.right - box.left, box.bottom - box.top
    if box.name in PEOPLE:
        aside, above = _ASIDE * width, _ABOVE * height
        if height < SMALL_PERSON_PX:
            return Region(FACE, box.left - aside, box.top - above, box.right + aside, box.bottom)
        close = box.bottom >= height_px - 2 or width > _CLOSE_ASPECT * height
        low = box.top + (_HEAD_SHARE_CLOSE if close else _HEAD_SHARE) * height
        return Region(FACE, box.left - aside, box.top - above, box.right + aside, low)
    if box.name in VEHICLES:
        if width < SMALL_VEHICLE_PX:
            return None
        return Region(
            PLATE, box.left, box.top + _PLATE_FROM * height, box.right, box.bottom + _PLATE_BELOW * height
        )  # fmt: skip
    if box.name in FACES:
        return _grown(FACE, box, _FACE_MARGIN)
    return _grown(PLATE, box, _PLATE_MARGIN) if box.name in PLATES else None


def _grown(kind: str, box: Box, share: float) -> Region:
    aside, above = share * (box.right - box.left), share * (box.bottom - box.top)
    return Region(kind, box.left - aside, box.top - above, box.right + aside, box.bottom + above)
