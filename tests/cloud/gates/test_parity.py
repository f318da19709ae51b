"""The float twin of an int8 engine, which the gates compare it with."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402

from calibration.ranges import collect  # noqa: E402
from cloud.gates.parity import unrounded  # noqa: E402
from export.lowerings import TARGETS, lower_to  # noqa: E402
from tests.export import graphs  # noqa: E402


@pytest.mark.parametrize("target", TARGETS)
def test_a_float_twin_neither_rounds_nor_cuts_off(target: str) -> None:
    model = graphs.camera()
    feeds = graphs.pictures(8)
    dark = [{"image": feed["image"] // 4} for feed in feeds]
    lowered = lower_to(model, collect(model.SerializeToString(), dark), target)
    twin = unrounded(lowered)
    assert twin is not None
    exact, rounded, said = (
        np.array([_run(graph).run(None, feed)[0].ravel() for feed in feeds]) for graph in (model, lowered, twin)
    )
    reach = np.abs(exact).max()
    assert np.abs(exact - rounded).max() > 0.1 * reach  # the bright ones are cut off
    assert np.abs(exact - said).max() < 0.03 * reach  # of weights and biases alone


def _run(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
