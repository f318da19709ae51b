"""What every contender does with a frame (shrink it, run one int8 model, on buffers bound once), and how it is timed.

Overhead of a call: from handing the frame over until its result is there, minus the time of the work itself, which the
work measures where it is done. Needs nothing but NumPy, OpenCV and ONNX Runtime, so that it runs inside each peer's own
environment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

HEIGHT_PX, WIDTH_PX = 720, 1280
FRAME_COUNT = 4  # as many as a camera driver has buffers
WARM_UP = 30


def time_calls(calls: int, period_s: float, hand_over: Callable[[Any], int]) -> list[int]:
    """The overhead of each call, ns.

    Args:
        period_s: between frames, slept; 0 sends the next as soon as the last result is there.
        hand_over: gives the picture to the contender, returns when its result is there: the work's own time, ns.
    """
    pictures = frames()
    overheads = []
    for i in range(WARM_UP + calls):
        if period_s:
            time.sleep(period_s)
        picture = pictures[i % FRAME_COUNT]
        started_ns = time.perf_counter_ns()
        work_ns = hand_over(picture)
        overheads.append(time.perf_counter_ns() - started_ns - work_ns)
    return overheads[WARM_UP:]


def report(path: str, calls: int, period_ms: float, hand_over: Callable[[Any], int]) -> None:
    """Write the overheads of paced calls, and of calls back to back, to a JSON file."""
    paced = time_calls(calls, period_ms / 1e3, hand_over)
    at_once = time_calls(calls, 0.0, hand_over)
    Path(path).write_text(json.dumps({"paced_ns": paced, "at_once_ns": at_once}))


def arguments() -> tuple[str, int, float, str]:
    """model, calls, period_ms and the file for the results, from the command line."""
    model, calls, period_ms, path = sys.argv[1:5]
    return model, int(calls), float(period_ms), path


def frames(seed: int = 0) -> list[Any]:
    """A few (720, 1280, 3) BGR pictures with structure, to be shown in turn."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (FRAME_COUNT, 45, 80, 3), dtype=np.uint8)
    return [cv2.resize(picture, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC) for picture in small]


class Work:
    """Resize + call.

    Args:
        model: an ONNX file with one uint8 input (1, height, width, 3) and static outputs.

    Attributes:
        elapsed_ns: that the last call took.
    """

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        node = self._session.get_inputs()[0]
        self._input = np.zeros(node.shape, np.uint8)
        self._binding.bind_input(node.name, "cpu", 0, np.uint8, self._input.shape, self._input.ctypes.data)
        self._outputs = []
        for node in self._session.get_outputs():
            output = np.zeros(node.shape, np.float32)
            self._binding.bind_output(node.name, "cpu", 0, np.float32, output.shape, output.ctypes.data)
            self._outputs.append(output)
        self.elapsed_ns = 0

    def __call__(self, picture: Any) -> Any:
        """The model's first output, valid until the next call."""
        started_ns = time.perf_counter_ns()
        height, width = self._input.shape[1:3]
        cv2.resize(picture, (width, height), dst=self._input[0], interpolation=cv2.INTER_LINEAR)
        self._session.run_with_iobinding(self._binding)
        self.elapsed_ns = time.perf_counter_ns() - started_ns
        return self._outputs[0]
