"""int8 for x86: explicit QDQ, per-channel symmetric int8 weights, uint8 activations, from a ranges file.

Only Conv (with the ReLU, Add and Resize behind it) and Gemm are quantised; log, normalising, softmax and sigmoid stay
float, and so do the object maps, whose logits and sizes are too unlike for one scale. ONNX Runtime's own QDQ writer
places the nodes; scales come from `calibration.ranges`, never from a calibrator.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from calibration.ranges import Ranges
from export.lower import stripped

FOLLOWERS = ("Relu", "Add", "Resize")  # quantised only where all their inputs come from a Conv
KEPT_FLOAT = ("/maps/", "/spectrum/")  # parts of node names


def quantise(model: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
    """The int8 twin.

    Args:
        model: float graph, as `export.lower` gives it.
        ranges: activation ranges of exactly this graph.
    """
    chosen = quantisable(model)
    tensors = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.bounds.items()
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantiser = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, tensors),
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", "Gemm", *FOLLOWERS],
        extra_options={
            "ActivationSymmetric": False,
            "WeightSymmetric": True,
            "OpTypesToExcludeOutputQuantization": ["Gemm"],  # its result is normalised in float
        },
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    return stripped(uint8_input(quantiser.model.model))


def quantisable(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes to quantise, in graph order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    from_conv: set[str] = set()
    chosen = []
    for node in model.graph.node:
        tensors = [name for name in node.input if name and name not in weights]
        if node.op_type == "Resize":
            tensors = tensors[:1]  # the others are its constant scales
        follows = node.op_type in FOLLOWERS and all(name in from_conv for name in tensors)
        if (node.op_type == "Conv" and not _is_float(node.name)) or follows:
            from_conv.update(node.output)
        elif node.op_type != "Gemm" or _is_float(node.name):
            continue
        chosen.append(node.name)
    return chosen


def _is_float(name: str) -> bool:
    return any(part in name for part in KEPT_FLOAT)


def uint8_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Feeds a uint8 picture straight into the first DequantizeLinear.

    Replaces Cast -> Mul(1/255) -> QuantizeLinear by nothing where the graph begins so: the pixel is the quantum.
    """
    nodes = {node.output[0]: node for node in model.graph.node}
    for quantise_node in [n for n in model.graph.node if n.op_type == "QuantizeLinear"]:
        scale = nodes.get(quantise_node.input[0])
        cast = nodes.get(scale.input[0]) if scale is not None and scale.op_type == "Mul" else None
        if scale is None or cast is None or cast.op_type != "Cast":
            continue
        for node in model.graph.node:
            node.input[:] = [cast.input[0] if name == quantise_node.output[0] else name for name in node.input]
        for gone in (quantise_node, scale, cast):
            model.graph.node.remove(gone)
        _set_scale(model, quantise_node.input[1], quantise_node.input[2])
        break
    return model


def _set_scale(model: onnx.ModelProto, scale: str, zero_point: str) -> None:
    """1/255 and 0, whatever range the calibration pictures happened to have."""
    for tensor in model.graph.initializer:
        if tensor.name == scale:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(1.0 / 255.0, np.float32), scale))
        elif tensor.name == zero_point:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(0, np.uint8), zero_point))
