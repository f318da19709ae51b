"""The towers' ONNX files as search runs them: they fix batch and length and are in floats, search wants neither.

Ports get free dimensions, a reshape takes its batch and length from what it reshapes, and the table of places becomes
an input of which the caller gives as much as the sentence is long. The text tower multiplies matrices in integers.
The few messages of ONNX that this touches are declared here, all else goes through unread; `onnx` is not needed.

Ref: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (numbers of the fields).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cloud.errors import ModelError
from edge.engine import reason

PLACES: Final = "/Add.B"  # the text tower's table of places, (96, width)
_FLOAT, _INT8, _INT64, _HALF = 1, 3, 7, 10
# Weights are -63..63: a CPU without VNNI adds two products of bytes in 16 bits, which those of all 8 bits overflow.
_MOST: Final = 63
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
# Message -> field -> number, whether repeated, and its type (another message, or a scalar).
_MESSAGES: Final[dict[str, dict[str, tuple[int, bool, str | int]]]] = {
    "Model": {"graph": (7, False, "Graph"), "opset_import": (8, True, "Opset")},
    "Opset": {"domain": (1, False, _FIELD.TYPE_STRING), "version": (2, False, _FIELD.TYPE_INT64)},
    "Graph": {
        "node": (1, True, "Node"), "initializer": (5, True, "Tensor"), "input": (11, True, "Value"),
        "output": (12, True, "Value"),
    },
    "Node": {"input": (1, True, _FIELD.TYPE_STRING), "output": (2, True, _FIELD.TYPE_STRING),
             "op_type": (4, False, _FIELD.TYPE_STRING), "domain": (7, False, _FIELD.TYPE_STRING)},
    "Tensor": {"dims": (1, True, _FIELD.TYPE_INT64), "data_type": (2, False, _FIELD.TYPE_INT32),
               "name": (8, False, _FIELD.TYPE_STRING), "raw_data": (9, False, _FIELD.TYPE_BYTES)},
    "Value": {"name": (1, False, _FIELD.TYPE_STRING), "type": (2, False, "Type")},
    "Type": {"tensor_type": (1, False, "TensorType")},
    "TensorType": {"elem_type": (1, False, _FIELD.TYPE_INT32), "shape": (2, False, "Shape")},
    "Shape": {"dim": (1, True, "Dim")},
    "Dim": {"dim_value": (1, False, _FIELD.TYPE_INT64), "dim_param": (2, False, _FIELD.TYPE_STRING)},
}  # fmt: skip


def text_graph(model: bytes) -> tuple[bytes, NDArray[np.float32]]:
    """The text tower for any length, in integers: inputs `tokens` (1, length) and PLACES (length, width).

    What goes into a product of matrices is scaled by its own range, so sentences are not to be run together: each would
    get another vector in other company.

    Returns:
        the graph, and the table of all places.

    Raises:
        ModelError: it is no such tower.
    """
    whole = _parsed(model)
    graph = whole.graph
    _free(graph, batch_and_length=True)
    half = f"{PLACES}.half"
    tables = [weight for weight in graph.initializer if weight.name == half and weight.data_type == _HALF]
    casts = [at for at, node in enumerate(graph.node) if list(node.output) == [PLACES]]
    if len(tables) != 1 or len(casts) != 1 or len(tables[0].dims) != 2:
        raise ModelError(f"text tower: expected one table of places {PLACES}, got {len(tables)}")
    table = np.frombuffer(tables[0].raw_data, "<f2").astype(np.float32).reshape(tables[0].dims)
    del graph.node[casts[0]]
    port = graph.input.add(name=PLACES)
    port.type.tensor_type.elem_type = _FLOAT
    port.type.tensor_type.shape.dim.add(dim_param="length")
    port.type.tensor_type.shape.dim.add(dim_value=table.shape[1])
    _quantise(whole)
    return whole.SerializeToString(), table


def video_graph(model: bytes) -> bytes:
    """The clip encoder for any batch: input `moments` (batch, 8, d).

    Raises:
        ModelError: it is no such graph.
    """
    whole = _parsed(model)
    _free(whole.graph, batch_and_length=False)
    return bytes(whole.SerializeToString())


def session(name: str, model: bytes, threads: int) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        ModelError: it is no model that runs here.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class but this
        raise ModelError(f"{name}: expected a model that ONNX Runtime loads, got: {reason(error)}") from None


def _free(graph: Any, *, batch_and_length: bool) -> None:
    """Free the leading dimensions of ports, and let reshapes copy them (0 copies a dimension)."""
    names = ("batch", "length") if batch_and_length else ("batch",)
    for port, free in ((graph.input[0], names), (graph.output[0], names[:1])):
        for dim, name in zip(port.type.tensor_type.shape.dim, free):
            dim.ClearField("dim_value")
            dim.dim_param = name
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for weight in graph.initializer:
        if weight.name in shapes and weight.data_type == _INT64:
            shape = np.frombuffer(weight.raw_data, "<i8").copy()
            shape[: len(names)] = 0
            weight.raw_data = shape.tobytes()


def _quantise(whole: Any) -> None:
    """Products with a matrix of weights, and what is added to them, as one product of integers each."""
    graph = whole.graph
    halves = {weight.name: weight for weight in graph.initializer if weight.data_type == _HALF}
    casts = {node.output[0]: halves[node.input[0]] for node in graph.node if node.input and node.input[0] in halves}
    sums = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in casts]:
        (product,), (inward, name) = node.output, node.input
        if product not in sums:
            continue
        total = sums[product]
        (bias,) = [other for other in total.input if other != product]
        weight = casts[name]
        floats = np.frombuffer(weight.raw_data, "<f2").astype(np.float32).reshape(weight.dims)
        steps = np.maximum(np.abs(floats).max(0) / _MOST, np.finfo(np.float32).tiny)
        integers = np.rint(floats / steps).astype(np.int8)
        graph.initializer.add(name=f"{name}.i8", data_type=_INT8, dims=floats.shape, raw_data=integers.tobytes())
        graph.initializer.add(name=f"{name}.step", data_type=_FLOAT, dims=steps.shape, raw_data=steps.tobytes())
        node.op_type, node.domain = "DynamicQuantizeMatMul", "com.microsoft"
        node.input[:] = [inward, f"{name}.i8", f"{name}.step", "", bias]
        node.output[0] = total.output[0]
        graph.node.remove(total)
    whole.opset_import.add(domain="com.microsoft", version=1)


def _parsed(model: bytes) -> Any:
    whole = _model_class()()
    try:
        whole.ParseFromString(model)
    except DecodeError:
        raise ModelError(f"expected an ONNX model, got {len(model)} bytes that are none") from None
    if len(whole.graph.input) != 1 or len(whole.graph.output) != 1:
        raise ModelError(
            f"expected a tower of one input and one output, got {len(whole.graph.input)} and {len(whole.graph.output)}"
        )
    return whole


@cache
def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="roadfuse/part_of_onnx.proto", package="roadfuse.onnx")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, repeated, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".roadfuse.onnx.{kind}"
            else:
                added.type = _FIELD.Type.ValueType(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("roadfuse.onnx.Model"))
