"""What goes into the encoders and what comes out: content of one modality, a point of the shared space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Modality: TypeAlias = Literal["text", "image", "audio", "video", "motion", "lidar"]
MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)


@dataclass(frozen=True, slots=True)
class Item:
    """Content to be embedded.

    Attributes:
        modality: one of MODALITIES.
        content: text: UTF-8; image: JPEG or PNG; audio: WAV, FLAC or OGG; video: a drive clip (MCAP) or, where PyAV is
            installed, a video file; motion, lidar: a drive clip.
    """

    modality: Modality
    content: bytes

    @staticmethod
    def of_text(text: str) -> Item:
        """An item of text."""
        return Item("text", text.encode())


@dataclass(frozen=True, slots=True)
class Vector:
    """A point of the shared space.

    Attributes:
        values: float32, little-endian, of unit length.
        space: the bundle whose embeddings it compares with, and no others.
        model: SHA-256 of the encoder.
        modality: of the content.
        instant_ns: the instant of a drive clip that it speaks of, vehicle monotonic clock; 0 of all other content.
    """

    values: bytes = field(repr=False)
    space: str
    model: str
    modality: Modality
    instant_ns: int = 0

    @property
    def array(self) -> NDArray[np.float32]:
        """(d,) float32, read-only."""
        return np.frombuffer(self.values, "<f4")
