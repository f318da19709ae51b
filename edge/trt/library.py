"""TensorRT and the GPU on this machine, or one line that says what is missing."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any, Final

from edge.cuda import DeviceInfo, Driver, open_driver
from edge.errors import DeviceError

OLDEST: Final = (10, 3)
BEYOND: Final = (12, 0)  # names are checked up to 11.4; a new major version may drop some


@dataclass(frozen=True, slots=True)
class TensorRt:
    """What builds and runs plans here.

    Attributes:
        trt: TensorRT's Python module.
        driver: of the GPU.
        device: what the GPU is.
    """

    trt: Any
    driver: Driver
    device: DeviceInfo

    @property
    def version(self) -> str:
        """Of TensorRT, whole: a plan runs only where it was built."""
        return str(self.trt.__version__)


def open_tensorrt() -> TensorRt:
    """TensorRT and the first GPU.

    Raises:
        DeviceError: a library, the driver or the GPU is missing, or TensorRT is of a version that is not supported.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as error:
        raise DeviceError(f"TensorRT: expected the Python package tensorrt (extra edge-gpu), got: {error}") from None
    check_version(str(getattr(trt, "__version__", "none")))
    driver = open_driver()
    return TensorRt(trt, driver, driver.device())


def check_version(version: str) -> None:
    """Refuse a TensorRT that lacks what is used here, or that nobody checked.

    Raises:
        DeviceError: it is none of 10.3 .. 11.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not OLDEST <= (int(found[1]), int(found[2])) < BEYOND:
        raise DeviceError(f"TensorRT: expected a version of 10.3 or newer, below 12, got {version}")
