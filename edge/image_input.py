"""A camera engine's input: the picture in the size, layout, colour order and scale that the model was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import image_into


class ImageInput:
    """Fills one tensor from pictures of any size: (pixel * scale - mean) / std.

    Args:
        out: (1, height, width, 3) or (1, 3, height, width), uint8 or float32; filled in place.
        spec: of the manifest: layout, color, scale, mean, std.
    """

    def __init__(self, out: NDArray[Any], spec: Mapping[str, Any]) -> None:
        # In every layout, the target seen as (height, width, 3).
        self._target = out[0] if spec.get("layout", "NHWC") == "NHWC" else out[0].transpose(1, 2, 0)
        swapped = spec.get("color", "BGR") == "RGB"
        self._direct = out.dtype == np.uint8 and self._target.flags.c_contiguous and not swapped
        self._resized = np.zeros(self._target.shape, dtype=np.uint8)
        self._source = self._resized[:, :, ::-1] if swapped else self._resized
        self._gain: NDArray[np.float32] | None = None
        if out.dtype != np.uint8:
            std = np.asarray(spec.get("std") or (1.0, 1.0, 1.0), np.float64)
            mean = np.asarray(spec.get("mean") or (0.0, 0.0, 0.0), np.float64)
            self._gain = (float(spec.get("scale", 1.0)) / std).astype(np.float32)
            self._offset = (-mean / std).astype(np.float32)

    def is_as_wanted(self, image: NDArray[np.uint8]) -> bool:
        """Whether a (height, width, 3) BGR picture is what `fill` would make of it."""
        is_alike = image.shape == self._target.shape and image.dtype == self._target.dtype
        return self._direct and is_alike and image.flags.c_contiguous

    def fill(self, image: NDArray[np.uint8]) -> None:
        """Take a (height, width, 3) BGR picture."""
        if self._direct:
            image_into(self._target, image)
            return
        image_into(self._resized, image)
        if self._gain is None:
            np.copyto(self._target, self._source)
            return
        for channel in range(3):  # plane by plane: one pass over a transposed view is slower
            plane = self._target[:, :, channel]
            np.multiply(self._source[:, :, channel], self._gain[channel], out=plane)
            if self._offset[channel]:
                plane += self._offset[channel]
