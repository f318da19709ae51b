"""What an ONNX file asks of TensorRT: which nodes are to run in int8; and what TensorRT must not be given.

TensorRT's parser takes some files that it then computes wrongly: a uint8 quantiser with zero point 0 becomes int8, so
that all above 127 saturates. Such files are refused here, by name, before TensorRT sees them.

Reads the few fields that it needs; the package `onnx` is not on the vehicle. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from edge.errors import BundleError

OPSETS: Final = range(13, 21)  # 13: scales per channel; 20: the newest that TensorRT 10.3 knows
_INT8: Final = 3  # TensorProto.DataType
_TYPES: Final = {1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 17: "float8"}
_MULTIPLIES: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES_ONLY: Final = ("Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_QUANTISERS: Final = ("QuantizeLinear", "DequantizeLinear")

_STRING, _BYTES, _INT64, _INT32, _MESSAGE = 9, 12, 3, 5, 11  # FieldDescriptorProto.Type
_ONE, _MANY = 1, 3  # FieldDescriptorProto.Label
_MESSAGES: Final[dict[str, tuple[tuple[str, int, int, int, str], ...]]] = {
    "Model": (("graph", 7, _MESSAGE, _ONE, "Graph"), ("opset_import", 8, _MESSAGE, _MANY, "Opset")),
    "Opset": (("domain", 1, _STRING, _ONE, ""), ("version", 2, _INT64, _ONE, "")),
    "Graph": (("node", 1, _MESSAGE, _MANY, "Node"), ("initializer", 5, _MESSAGE, _MANY, "Tensor")),
    "Node": (
        ("input", 1, _STRING, _MANY, ""),
        ("output", 2, _STRING, _MANY, ""),
        ("name", 3, _STRING, _ONE, ""),
        ("op_type", 4, _STRING, _ONE, ""),
    ),
    "Tensor": (
        ("data_type", 2, _INT32, _ONE, ""),
        ("int32_data", 5, _INT32, _MANY, ""),
        ("name", 8, _STRING, _ONE, ""),
        ("raw_data", 9, _BYTES, _ONE, ""),
    ),
}


@dataclass(frozen=True, slots=True)
class OnnxPlan:
    """What is asked.

    Attributes:
        int8: names of the nodes whose operands are all dequantised: TensorRT is to multiply them in int8.
        nodes: count of all nodes.
    """

    int8: tuple[str, ...]
    nodes: int


def read_plan(model: bytes, name: str) -> OnnxPlan:
    """The plan of an ONNX file.

    Args:
        model: its bytes.
        name: of the engine, for messages.

    Raises:
        BundleError: no ONNX model, of another opset, or quantised as TensorRT can't compute it.
    """
    try:
        proto = _message("Model").FromString(model)
    except DecodeError:
        raise BundleError(f"{name}: expected an ONNX model, got bytes that are none") from None
    if not proto.graph.node:
        raise BundleError(f"{name}: expected an ONNX model, got one without nodes")
    version = next((opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")), 0)
    if version not in OPSETS:
        raise BundleError(f"{name}: expected ONNX opset {OPSETS[0]}..{OPSETS[-1]}, got {version}")
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in _QUANTISERS:
            _check_quantiser(name, node, tensors)
    return OnnxPlan(int8=tuple(_int8_nodes(proto.graph.node)), nodes=len(proto.graph.node))


def _check_quantiser(engine: str, node: Any, tensors: dict[str, Any]) -> None:
    """Refuse all but int8 with zero point 0."""
    what = f"{engine}: expected int8 with zero point 0 (a trt lowering), got {node.op_type} {_name(node)}"
    values = tensors.get(node.input[0])
    if values is not None and values.data_type != _INT8:
        raise BundleError(f"{what} of {_type(values)}")
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == "QuantizeLinear":
            raise BundleError(f"{what} without zero point, which is uint8")
        return
    zero = tensors.get(node.input[2])
    if zero is None:
        raise BundleError(f"{what} with a zero point that is computed")
    if zero.data_type != _INT8:
        raise BundleError(f"{what} of {_type(zero)}")
    if any(zero.raw_data) or any(zero.int32_data):
        raise BundleError(f"{what} with zero point {(list(zero.raw_data) or list(zero.int32_data))[0]}")


def _int8_nodes(nodes: Any) -> Iterator[str]:
    dequantised: set[str] = set()
    for node in nodes:  # ONNX nodes are in topological order
        if node.op_type == "DequantizeLinear" or (node.op_type in _MOVES_ONLY and node.input[0] in dequantised):
            dequantised.update(node.output)
        elif node.op_type in _MULTIPLIES and all(operand in dequantised for operand in node.input[:2]):
            yield _name(node)


def _name(node: Any) -> str:
    return str(node.name or node.output[0])


def _type(tensor: Any) -> str:
    return _TYPES.get(tensor.data_type, f"type {tensor.data_type}")


@cache
def _message(name: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="onnx_plan.proto", package="onnx_plan", syntax="proto2")
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for field, number, kind, label, of in fields:
            added = descriptor.field.add(name=field, number=number)
            added.type, added.label = kind, label  # type: ignore[assignment]
            if of:
                added.type_name = f".onnx_plan.{of}"
    pool = descriptor_pool.DescriptorPool()  # its own: the package onnx may be loaded too
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"onnx_plan.{name}"))
