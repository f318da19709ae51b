"""H.264 and H.265 video (foxglove.CompressedVideo), decoded and encoded again picture by picture, through PyAV.

A message that gives no picture, or more than one, has none: nothing of the recorded stream is ever taken over.
"""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.drive.codec import MAX_IMAGE_PX, timestamp_ns
from edge.errors import DriveFormatError

_CODECS: Final = {"h264": ("h264", "libx264"), "h265": ("hevc", "libx265")}
_OPTIONS: Final = {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}


def is_available() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def parsed(payload: bytes) -> tuple[Any, int] | None:
    """A message of video and its instant; None where it is none."""
    message = CompressedVideo()
    try:
        message.ParseFromString(payload)
        stamp_ns = timestamp_ns(message.timestamp)
    except (DecodeError, DriveFormatError):
        return None
    return (message, stamp_ns) if message.format in _CODECS else None


class VideoDecoder:
    """One channel's pictures, one a message."""

    def __init__(self) -> None:
        self._decoder: Any = None
        self._format = ""

    def picture(self, message: Any) -> NDArray[np.uint8] | None:
        """The (height, width, 3) BGR picture of a message; None where it gives none."""
        import av

        if self._decoder is None or message.format != self._format:
            self._decoder = av.CodecContext.create(_CODECS[message.format][0], "r")
            self._decoder.thread_count = 1
            self._decoder.flags |= av.codec.context.Flags.low_delay
            self._format = message.format
        try:
            pictures = self._decoder.decode(av.Packet(message.data))
        except (av.error.FFmpegError, ValueError):
            return None
        if len(pictures) != 1 or pictures[0].width * pictures[0].height > MAX_IMAGE_PX:
            return None
        return np.array(pictures[0].to_ndarray(format="bgr24"))


class VideoEncoder:
    """One channel's pictures as video again; each message has its own picture at once."""

    def __init__(self) -> None:
        self._encoder: Any = None
        self._kind: tuple[Any, ...] = ()
        self._count = 0

    def encoded(self, image: NDArray[np.uint8], kind: str) -> bytes:
        """The picture's part of the stream; empty where the encoder refuses it (an odd number of pixels)."""
        import av

        if self._encoder is None or (kind, image.shape) != self._kind:
            encoder: Any = av.CodecContext.create(_CODECS[kind][1], "w")
            encoder.width, encoder.height = image.shape[1], image.shape[0]
            encoder.pix_fmt, encoder.time_base, encoder.max_b_frames = "yuv420p", Fraction(1, 30), 0
            encoder.thread_count, encoder.options = 1, dict(_OPTIONS)
            self._encoder, self._kind = encoder, (kind, image.shape)
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = self._count
        self._count += 1
        try:
            return b"".join(bytes(packet) for packet in self._encoder.encode(frame))
        except (av.error.FFmpegError, ValueError):
            return b""
