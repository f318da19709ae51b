"""Covers regions of a picture so that nothing brings back what was there.

A region is cut into a few blocks, each block becomes its mean, and the mean one of sixteen levels: a head keeps at most
three blocks along its shorter side. (A blur can be undone to a good part; a fine mosaic can be guessed.) Regions are
widened to JPEG's blocks of 16 pixels, so that no block of the picture mixes what is covered with what is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from edge.drive.codec import MAX_IMAGE_PX, MAX_JPEG_SCANS
from edge.errors import DriveFormatError
from edge.redaction.regions import Region

GRID_PX: Final = 16  # JPEG's largest unit
_BLOCKS: Final = 3  # along the shorter side of a region
_LEVEL: Final = 16  # of brightness, a colour
_DEFAULT_QUALITY: Final = 90
# Luminance of the JPEG standard's table at quality 50, in zigzag order (ITU-T T.81, K.1).
_LUMINANCE: Final = np.array(
    [16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61,
     60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113,
     121, 112, 100, 120, 92, 101, 103, 99]
)  # fmt: skip

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels


def rectangles(regions: Iterable[Region], width_px: int, height_px: int) -> list[Rectangle]:
    """The regions as rectangles of whole JPEG units that lie in the picture; those outside are gone."""
    found = []
    for region in regions:
        left, top = (max(int(edge // GRID_PX) * GRID_PX, 0) for edge in (region.left, region.top))
        right = min(-int(-region.right // GRID_PX) * GRID_PX, width_px)
        bottom = min(-int(-region.bottom // GRID_PX) * GRID_PX, height_px)
        if left < right and top < bottom:
            found.append((left, top, right, bottom))
    return found


def cover(image: NDArray[np.uint8], covered: Sequence[Rectangle]) -> None:
    """Replaces the rectangles of a (height, width, channels) picture by coarse blocks, in place."""
    for left, top, right, bottom in covered:
        part = image[top:bottom, left:right]
        block = max(-(-min(part.shape[:2]) // (_BLOCKS * GRID_PX)), 1) * GRID_PX
        for y in range(0, part.shape[0], block):
            for x in range(0, part.shape[1], block):
                cell = part[y : y + block, x : x + block]
                mean = cell.mean(axis=(0, 1))
                cell[...] = np.minimum(mean // _LEVEL * _LEVEL + _LEVEL // 2, 255).astype(np.uint8)


def covered_jpeg(jpeg: bytes, covered: Sequence[Rectangle]) -> bytes:
    """The JPEG with rectangles covered, in the quality and with the colours' sampling that it had.

    Nothing but pixels is taken over: a thumbnail in its header would show what is covered.

    Raises:
        DriveFormatError: the bytes are no JPEG that this decodes.
    """
    try:
        _, _, colours, sampling = simplejpeg.decode_jpeg_header(jpeg)
        colorspace = "GRAY" if colours.lower() == "gray" else "BGR"
        image = np.array(simplejpeg.decode_jpeg(jpeg, colorspace=colorspace, fastdct=False))
        cover(image, covered)
        wanted = "Gray" if colorspace == "GRAY" else sampling
        made: bytes = simplejpeg.encode_jpeg(
            image, quality=quality_of(jpeg), colorspace=colorspace, colorsubsampling=wanted, fastdct=False
        )
    except ValueError as error:
        raise DriveFormatError(f"camera picture: expected a JPEG, got {len(jpeg)} bytes ({error})") from None
    return made


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG, px.

    Raises:
        DriveFormatError: it is none, or claims an absurd size.
    """
    try:
        if jpeg.count(b"\xff\xda") > MAX_JPEG_SCANS:
            raise DriveFormatError(f"camera picture: expected at most {MAX_JPEG_SCANS} scans, got more")
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise DriveFormatError(f"camera picture: expected a JPEG, got {len(jpeg)} bytes ({error})") from None
    if height * width > MAX_IMAGE_PX or not height * width:
        raise DriveFormatError(f"camera picture: expected 1..{MAX_IMAGE_PX} pixels, got {width}x{height}")
    return width, height


def quality_of(jpeg: bytes) -> int:
    """The quality (1..100) whose table of luminance is nearest to the picture's own."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xDA or length < 2:
            break
        if marker == 0xDB and length >= 67 and jpeg[at + 4] == 0:  # 8-bit table 0
            if at + 69 > len(jpeg):
                break
            table = np.frombuffer(jpeg, np.uint8, 64, at + 5).astype(np.int64)
            return int(np.abs(_tables() - table).sum(axis=1).argmin()) + 1
        at += 2 + length
    return _DEFAULT_QUALITY


@lru_cache(maxsize=1)
def _tables() -> NDArray[np.int64]:
    """Tables of luminance by quality, 1 to 100. Ref: libjpeg, jpeg_quality_scaling."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.asarray(np.clip((_LUMINANCE * scale + 50) // 100, 1, 255))
