"""Ranges files: what was seen, merged in any order, named by their content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.ranges import Ranges, collect, read_ranges, write_ranges
from edge.errors import ConfigError


def doubling() -> bytes:
    """y = relu(2 x) over four floats, as a serialised model."""
    two = numpy_helper.from_array(np.array(2.0, np.float32), "two")
    nodes = [helper.make_node("Mul", ["x", "two"], ["twice"]), helper.make_node("Relu", ["twice"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "doubling", ports[:1], ports[1:], [two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def feed(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


def test_ranges_hold_the_extremes_of_inputs_inner_tensors_and_outputs() -> None:
    found = collect(doubling(), [feed(-1, 0, 1, 2), feed(-3, 0, 0, 0)])
    assert found.bounds == {"x": (-3.0, 2.0), "twice": (-6.0, 4.0), "y": (0.0, 4.0)}
    assert found.samples == 2


def test_merging_in_any_order_equals_one_collection() -> None:
    first, second = collect(doubling(), [feed(-1, 0, 1, 2)]), collect(doubling(), [feed(-3, 0, 0, 0)])
    both = collect(doubling(), [feed(-1, 0, 1, 2), feed(-3, 0, 0, 0)])
    assert first.merged(second) == second.merged(first) == both
    assert first.merged(second).id == both.id


def test_the_id_is_the_content_and_survives_the_disk(tmp_path: Path) -> None:
    found = collect(doubling(), [feed(-1, 0, 1, 0.1)])
    assert write_ranges(tmp_path / "r.json", found) == found.id
    assert read_ranges(tmp_path / "r.json") == found
    assert read_ranges(tmp_path / "r.json").id == found.id
    assert collect(doubling(), [feed(1, 0.1, 0, -1)]).id == found.id  # the same values
    assert collect(doubling(), [feed(-1, 0, 1, 0.2)]).id != found.id


def test_ranges_of_another_model_are_refused() -> None:
    found = collect(doubling(), [feed(0, 0, 0, 0)])
    with pytest.raises(ConfigError, match="of the model"):
        found.merged(Ranges("0" * 64, 1, {}))


def test_the_exporter_of_a_model_does_not_matter() -> None:
    model = onnx.load_from_string(doubling())
    model.producer_name, model.doc_string = "someone", "/home/someone/model.py"
    model.graph.node[0].name = ""
    assert collect(model.SerializeToString(), [feed(0, 1, 2, 3)]) == collect(doubling(), [feed(0, 1, 2, 3)])


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ConfigError, match="finite"):
        collect(doubling(), [feed(0, 1, 2, float("inf"))])


def test_no_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one input"):
        collect(doubling(), [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 1, "model_sha256": "a", "samples": 1, "bounds": {"x": [0, 1]}}',
        '{"format": 2}',
        '{"format": 2, "model_sha256": "a", "samples": 1, "tensors": {"x": [2, 1, 0, -8, 0, [1]]}}',
        '{"format": 2, "model_sha256": "a", "samples": 1, "tensors": {"x": [0, NaN, 0, -8, 0, [1]]}}',
        '{"format": 2, "model_sha256": "a", "samples": 1, "tensors": {"x": [0, 1, 0, -8, 0, [1.5]]}}',
        '{"format": 2, "model_sha256": "a", "samples": 1, "tensors": {"x": [0, 1, 0, -8, 0, [true]]}}',
        '{"format": 2, "model_sha256": "a", "samples": 1, "tensors": {"x": [0, 1, 0, -8, 600, [1]]}}',
        '{"format": 2, "model_sha256": "a", "samples": 1, "tensors": {"x": [0, 1]}}',
    ],
)
def test_what_is_no_ranges_file_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="ranges"):
        Ranges.from_json(text)
