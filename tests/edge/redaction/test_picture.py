"""Covered pixels are gone; the others are as they were, to within what JPEG costs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.drive.codec import decode_jpeg
from edge.errors import DriveFormatError
from edge.redaction.picture import GRID_PX, Rectangle, cover, covered_jpeg, quality_of, rectangles, size_of
from edge.redaction.regions import FACE, Region

REGIONS = st.builds(
    lambda x, y, w, h: Region(FACE, x, y, x + w, y + h),
    st.floats(-50, 350), st.floats(-50, 250), st.floats(1, 200), st.floats(1, 200),
)  # fmt: skip


def street(seed: int = 1, width: int = 320, height: int = 208) -> NDArray[np.uint8]:
    """A picture with detail at every size."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float64)
    for size in (4, 16, 64):
        coarse = rng.uniform(0, 80, (height // size + 2, width // size + 2, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def inside(shape: tuple[int, ...], covered: list[Rectangle]) -> NDArray[np.bool_]:
    mask = np.zeros(shape[:2], np.bool_)
    for left, top, right, bottom in covered:
        mask[top:bottom, left:right] = True
    return mask


@settings(max_examples=40)
@given(st.lists(REGIONS, min_size=1, max_size=4), st.sampled_from([60, 85, 90, 95]), st.sampled_from(["444", "420"]))
def test_covered_pixels_are_the_fill_and_the_others_differ_by_jpeg_s_error(
    regions: list[Region], quality: int, sampling: str
) -> None:
    image = street()
    jpeg = simplejpeg.encode_jpeg(image, quality=quality, colorspace="BGR", colorsubsampling=sampling)
    covered = rectangles(regions, 320, 208)
    decoded = decode_jpeg(jpeg)
    wanted = decoded.copy()
    cover(wanted, covered)
    made = decode_jpeg(covered_jpeg(jpeg, covered))
    mask = inside(image.shape, covered)
    assert np.array_equal(wanted[~mask], decoded[~mask])
    again = simplejpeg.encode_jpeg(
        wanted, quality=quality_of(jpeg), colorspace="BGR", colorsubsampling=sampling, fastdct=False
    )
    assert np.array_equal(made, decode_jpeg(again))  # the covered picture, and no more than what one encoding costs
    if sampling == "444":  # else a decoder smooths colours over the edges of blocks
        assert np.abs(made.astype(int) - wanted)[mask].max(initial=0) <= 8
    assert simplejpeg.decode_jpeg_header(covered_jpeg(jpeg, covered))[3] == sampling


@given(REGIONS, st.integers(0, 1 << 30))
def test_what_is_left_of_a_region_is_a_few_levels_of_a_few_blocks(region: Region, seed: int) -> None:
    image = street(seed % 7)
    covered = rectangles([region], 320, 208)
    cover(image, covered)
    for left, top, right, bottom in covered:
        part = image[top:bottom, left:right]
        assert set(np.unique(part).tolist()) <= set(range(8, 256, 16))
        shorter, longer = sorted(part.shape[:2])
        size = max(-(-shorter // 48), 1) * GRID_PX
        across, along = -(-shorter // size), -(-longer // size)
        assert across <= 3
        assert len(np.unique(part.reshape(-1, 3), axis=0)) <= across * along


def test_two_faces_in_one_region_of_equal_means_become_the_same() -> None:
    first, second = street(3), street(3)
    second[64:112, 64:112] = second[64:112, 64:112][::-1, ::-1]  # another picture, of the same pixels
    for image in (first, second):
        image[64:112, 64:112] = image[64:112, 64:112] // 64 * 64 + 32
    whole = [(64, 64, 80, 80)]
    first[64:80, 64:80] = np.sort(first[64:80, 64:80], axis=0)
    second[64:80, 64:80] = first[64:80, 64:80][::-1]
    cover(first, whole)
    cover(second, whole)
    assert np.array_equal(first[64:80, 64:80], second[64:80, 64:80])


@pytest.mark.parametrize("quality", [10, 50, 75, 90, 95, 100])
def test_the_quality_is_that_of_the_picture(quality: int) -> None:
    jpeg = simplejpeg.encode_jpeg(street(), quality=quality, colorspace="BGR")
    assert abs(quality_of(jpeg) - quality) <= 1
    made = covered_jpeg(jpeg, [(0, 0, 64, 64)])
    assert abs(quality_of(made) - quality) <= 1 and size_of(made) == (320, 208)


def test_a_grey_picture_stays_grey() -> None:
    grey = np.ascontiguousarray(street()[:, :, :1])
    jpeg = simplejpeg.encode_jpeg(grey, quality=90, colorspace="GRAY", colorsubsampling="Gray")
    made = covered_jpeg(jpeg, [(16, 16, 96, 96)])
    assert simplejpeg.decode_jpeg_header(made)[2].lower() == "gray"


def test_a_thumbnail_in_the_header_is_gone() -> None:
    jpeg = simplejpeg.encode_jpeg(street(), quality=90, colorspace="BGR")
    secret = simplejpeg.encode_jpeg(street()[:64, :64].copy(), quality=50, colorspace="BGR")
    exif = b"\xff\xe1" + (len(secret) + 8).to_bytes(2, "big") + b"Exif\0\0" + secret
    made = covered_jpeg(jpeg[:2] + exif + jpeg[2:], [(0, 0, 64, 64)])
    assert secret not in made and b"Exif" not in made


@given(st.binary(max_size=300), st.integers(0, 200))
def test_what_is_no_jpeg_is_refused(junk: bytes, cut: int) -> None:
    jpeg = simplejpeg.encode_jpeg(street(width=64, height=64), quality=50, colorspace="BGR")
    for content in (junk, jpeg[:cut], jpeg[:2] + junk):
        try:
            size_of(content)
            covered_jpeg(content, [(0, 0, 16, 16)])
        except DriveFormatError:
            continue
        quality_of(content)
