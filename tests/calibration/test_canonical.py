"""The canonical form: one name for one computation."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.canonical import canonical, canonical_bytes, model_id
from edge.errors import ConfigError


def exported(counter: int = 0, name: str = "main_graph") -> onnx.ModelProto:
    """relu(x w + 1) as an exporter might write it, with counted names from `counter` on."""
    w = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), f"onnx::MatMul_{counter}")
    unused = numpy_helper.from_array(np.zeros(3, np.float32), "unused")
    one = numpy_helper.from_array(np.ones(3, np.float32))
    nodes = [
        helper.make_node("Constant", [], [f"{counter + 1}"], value=one),
        helper.make_node("Identity", ["x"], [f"{counter + 2}"]),
        helper.make_node("MatMul", [f"{counter + 2}", w.name], [f"{counter + 3}"]),
        helper.make_node("Add", [f"{counter + 3}", f"{counter + 1}"], [f"{counter + 4}"], doc_string="/home/me.py"),
        helper.make_node("Relu", [f"{counter + 4}"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(*port) for port in (("x", TensorProto.FLOAT, [1, 2]), ("y", 1, [1, 3]))]
    graph = helper.make_graph(nodes, name, ports[:1], ports[1:], [unused, w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="pytorch")


def test_the_exporters_counters_order_and_notes_do_not_show() -> None:
    one, other = canonical(exported(3)), canonical(exported(500, "other"))
    assert canonical_bytes(one) == canonical_bytes(other)
    assert model_id(exported(3)) == model_id(one)
    assert b"/home" not in canonical_bytes(one)


def test_the_form_of_a_canonical_graph_is_itself() -> None:
    once = canonical(exported())
    assert canonical_bytes(canonical(once)) == canonical_bytes(once)


def test_it_computes_the_same() -> None:
    x = np.array([[-1.0, 2.0]], np.float32)
    answers = [
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for model in (exported(), canonical(exported()))
    ]
    np.testing.assert_array_equal(*answers)


def test_other_weights_are_another_model() -> None:
    other = exported()
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((2, 3), np.float32), "onnx::MatMul_0"))
    assert model_id(other) != model_id(exported())


def test_nodes_without_a_name_of_their_own_get_one() -> None:
    model = exported()
    for node in model.graph.node:
        node.name = "same"
    names = [node.name for node in canonical(model).graph.node]
    assert names == ["MatMul_0", "Add_1", "Relu_2"]


def test_the_given_model_stays_as_it_is() -> None:
    model = exported()
    before = model.SerializeToString(deterministic=True)
    canonical(model)
    assert model.SerializeToString(deterministic=True) == before


def test_weights_outside_the_file_and_broken_graphs_are_refused() -> None:
    outside = exported()
    outside.graph.initializer[1].data_location = TensorProto.EXTERNAL
    with pytest.raises(ConfigError, match="expected weights inside the file"):
        canonical(outside)
    broken = exported()
    broken.graph.node[4].input[0] = "nowhere"
    with pytest.raises(ConfigError, match="expected a valid graph") as caught:
        canonical(broken)
    assert "\n" not in str(caught.value)
