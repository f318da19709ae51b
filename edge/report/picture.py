"""Camera pictures for a page: small enough to embed, with boxes as vectors over them."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2

from edge.drive.codec import decode_jpeg, encode_jpeg
from edge.report.markup import Markup, el, number


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture at two sizes: as recorded (what boxes count in), and as embedded."""

    jpeg: bytes
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of the recorded picture."""

    label: str
    kind: str
    left_px: float
    top_px: float
    width_px: float
    height_px: float


def shrink(jpeg: bytes, width_px: int, quality: int) -> Picture:
    """A recorded JPEG, no wider than `width_px`.

    Raises:
        DriveFormatError: it is none.
    """
    image = decode_jpeg(jpeg)
    height, width = image.shape[:2]
    if width > width_px:
        size = (width_px, max(round(height * width_px / width), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment,unused-ignore]
    return Picture(encode_jpeg(image, quality), width, height)


def data_uri(media_type: str, content: bytes) -> str:
    """The content inside its address."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def with_boxes(picture: Picture, said: Iterable[Box], true: Iterable[Box], label: str) -> Markup:
    """The picture with what was said (solid) and what is true (dashed) around its objects."""
    width, height = picture.width_px, picture.height_px
    scale = width / 640
    return el(
        "svg",
        el("image", href=data_uri("image/jpeg", picture.jpeg), width=width, height=height),
        el("g", [_box(box, scale, width, with_label=False) for box in true if _drawable(box)], class_="true-boxes"),
        el("g", [_box(box, scale, width, with_label=True) for box in said if _drawable(box)], class_="said-boxes"),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
    )


def _drawable(box: Box) -> bool:
    return all(math.isfinite(side) for side in (box.left_px, box.top_px, box.width_px, box.height_px))


def _box(box: Box, scale: float, picture_width_px: int, *, with_label: bool) -> Markup:
    rect = el(
        "rect",
        x=number(box.left_px),
        y=number(box.top_px),
        width=number(max(box.width_px, 0.0)),
        height=number(max(box.height_px, 0.0)),
        rx=number(2 * scale),
    )
    if not with_label:
        return el("g", el("title", f"true: {box.label}"), rect)
    size = 13 * scale
    left = min(max(box.left_px, 0.0), picture_width_px - 0.64 * size * len(box.label))
    text = el(
        "text",
        box.label,
        x=number(left + 2 * scale),
        y=number(max(box.top_px - 4 * scale, size)),
        font_size=number(size),
        stroke_width=number(3.5 * scale),
    )
    return el("g", rect, text, class_=f"box {box.kind}")
