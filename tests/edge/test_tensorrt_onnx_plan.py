"""What an ONNX file asks of TensorRT; what TensorRT would compute wrongly is refused before it sees it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edge.errors import BundleError
from edge.trt.onnx_plan import read_plan
from tests.edge.quantised_models import INT8_NODES, classifier, floats


def test_nodes_between_dequantised_operands_are_asked_for_in_int8() -> None:
    plan = read_plan(classifier(), "net")
    assert plan.int8 == INT8_NODES
    assert plan.nodes == len(onnx.load_from_string(classifier()).graph.node)


def test_a_float_model_asks_for_nothing() -> None:
    assert read_plan(floats(), "net").int8 == ()


def test_a_node_with_one_float_operand_is_not_asked_for() -> None:
    changed = onnx.load_from_string(classifier())
    conv = next(node for node in changed.graph.node if node.name == "conv1")
    conv.input[0] = "r0"  # what was before it is quantised
    assert read_plan(changed.SerializeToString(), "net").int8 == ("conv0", "gemm")


def test_a_node_without_name_is_called_by_its_output() -> None:
    changed = onnx.load_from_string(classifier())
    for node in changed.graph.node:
        node.name = ""
    assert read_plan(changed.SerializeToString(), "net").int8 == ("c0", "c1", "y")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (classifier(zero=3), "QuantizeLinear x_Q with zero point 3"),
        (classifier(kind=np.uint8), "QuantizeLinear x_Q of uint8"),
        (classifier(int32_bias=True), "DequantizeLinear b0_DQ of int32"),
    ],
)
def test_a_quantiser_that_tensorrt_gets_wrong_is_named(model: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=rf"^net: expected int8 with zero point 0 \(a trt lowering\), got {says}$"):
        read_plan(model, "net")


def test_a_quantiser_without_zero_point_is_refused_because_onnx_calls_it_uint8() -> None:
    changed = onnx.load_from_string(classifier())
    quantiser = next(node for node in changed.graph.node if node.name == "x_Q")
    del quantiser.input[2]
    with pytest.raises(BundleError, match="x_Q without zero point, which is uint8"):
        read_plan(changed.SerializeToString(), "net")


def test_a_zero_point_that_is_computed_is_refused() -> None:
    changed = onnx.load_from_string(classifier())
    changed.graph.node.insert(0, helper.make_node("Identity", ["r0.zero"], ["computed"]))
    next(node for node in changed.graph.node if node.name == "x_Q").input[2] = "computed"
    with pytest.raises(BundleError, match="x_Q with a zero point that is computed"):
        read_plan(changed.SerializeToString(), "net")


def test_a_zero_point_in_any_encoding_is_read() -> None:
    changed = onnx.load_from_string(classifier())
    zero = next(tensor for tensor in changed.graph.initializer if tensor.name == "x.zero")
    zero.ClearField("raw_data")
    zero.int32_data[:] = [-5]
    with pytest.raises(BundleError, match="x_Q with zero point -5"):
        read_plan(changed.SerializeToString(), "net")


@pytest.mark.parametrize("opset", [9, 12, 21, 99])
def test_an_opset_that_not_every_tensorrt_knows_is_refused(opset: int) -> None:
    with pytest.raises(BundleError, match=rf"^net: expected ONNX opset 13\.\.20, got {opset}$"):
        read_plan(classifier(opset=opset), "net")


@pytest.mark.parametrize("content", [b"", b"no model at all" * 20, classifier()[:-100]])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"^net: expected an ONNX model, got "):
        read_plan(content, "net")


@given(st.binary(max_size=400))
def test_no_bytes_escape_as_another_error(content: bytes) -> None:
    with pytest.raises(BundleError):
        read_plan(content, "net")
