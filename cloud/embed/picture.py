"""Pictures that people hand in: what their header claims is checked before a pixel is decoded."""

from __future__ import annotations

import struct
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.embed.refusals import malformed
from edge.drive.codec import MAX_IMAGE_PX, decode_jpeg
from edge.errors import DriveFormatError

JPEG: Final = b"\xff\xd8\xff"
PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD: Final = struct.Struct(">8sI4sII")


def read_picture(content: bytes) -> NDArray[np.uint8]:
    """A JPEG or PNG as a (height, width, 3) uint8 BGR picture.

    Raises:
        Refused: it is neither, damaged, or claims more than 64 megapixels.
    """
    if content.startswith(JPEG):
        try:
            return decode_jpeg(content)
        except DriveFormatError as error:
            raise malformed(str(error).removeprefix("camera ")) from None
    if content.startswith(PNG) and len(content) >= _PNG_HEAD.size:
        _, length, kind, width, height = _PNG_HEAD.unpack_from(content)
        if kind != b"IHDR" or length != 13 or not width or not height:
            raise malformed("picture: expected a PNG, got one without a header")
        if width * height > MAX_IMAGE_PX:
            raise malformed(f"picture: expected at most {MAX_IMAGE_PX} pixels, got {width}x{height}")
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is None or image.shape[:2] != (height, width):
            raise malformed(f"picture: expected a whole PNG, got {len(content)} bytes that are none")
        return np.asarray(image, np.uint8)
    raise malformed(f"picture: expected a JPEG or PNG, got {len(content)} bytes that begin with {content[:4]!r}")
