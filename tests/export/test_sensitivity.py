"""SQNR of a whole int8 graph and of each layer; where decisions hide it."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

from onnx import TensorProto, numpy_helper  # noqa: E402

from calibration.ranges import collect  # noqa: E402
from edge.errors import ConfigError  # noqa: E402
from export.sensitivity import EXACT_DB, Meter, probes  # noqa: E402
from tests.export import graphs  # noqa: E402


@pytest.fixture(scope="module")
def meter() -> Meter:
    model, feeds = graphs.camera(), graphs.pictures(24)
    return Meter(model, collect(model.SerializeToString(), feeds), feeds)


def test_each_layer_alone_costs_less_than_all_together(meter: Meter) -> None:
    whole = meter.worst_db()
    layers = meter.layers()
    assert [layer.node for layer in layers] == ["first", "inner", "far", "lateral", "blend", "head"]
    assert all(layer.only_db > whole for layer in layers)
    assert any(layer.without_db > whole for layer in layers)


def test_all_float_is_exact(meter: Meter) -> None:
    assert meter.worst_db(floats=[layer.node for layer in meter.layers()]) == EXACT_DB


def test_a_layer_of_coarse_weights_is_found() -> None:
    model, feeds = graphs.camera(), graphs.pictures(24)
    for tensor in model.graph.initializer:
        if tensor.name == "far_w":  # one huge weight a channel leaves few quanta for the others
            values = numpy_helper.to_array(tensor).copy()
            values[:, 0, 0, 0] = 30.0 * values.std()
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    layers = Meter(model, collect(model.SerializeToString(), feeds), feeds).layers()
    assert min(layers, key=lambda layer: layer.only_db).node == "far"


def test_parity_says_how_far_the_twins_are_apart(meter: Meter) -> None:
    for found in meter.parity().values():
        assert 0.0 <= found["largest_quanta"] <= 1.0
        assert found["within_one_quantum"] == found["same_top1"] == 1.0
        assert found["kernels"]["within_one_quantum"] > 0.999
        assert found["kernels"]["same_top1"] > 0.9


def test_where_an_output_is_a_decision_the_products_before_it_are_compared() -> None:
    b = graphs.Builder()
    maps = b.conv(b.relu(b.conv("x", 3, 8, "inner")), 8, 4, "maps")
    b.node("Cast", [b.node("ArgMax", [maps], "best", axis=1)], "kind", to=TensorProto.FLOAT)
    model = b.model({"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"kind_out": [1, 1, 8, 8], "inner_out": [1, 8, 8, 8]})
    assert probes(model) == ("maps_out", "inner_out")
    assert probes(graphs.camera()) == ("maps_out", "head_out")


def test_no_inputs_are_refused() -> None:
    model = graphs.camera()
    with pytest.raises(ConfigError, match="expected at least one"):
        Meter(model, collect(model.SerializeToString(), graphs.pictures(1)), [])
