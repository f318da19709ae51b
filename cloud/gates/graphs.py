"""What may be in an ONNX graph that vehicles run: plain operators, finite weights, quantisers that make sense."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from cloud.gates.policy import Policy
from cloud.gates.verdict import GateRefused

OPSETS: Final = range(17, 21)
# What exports here are made of and both runtimes take; anything else must be in the current engine already.
OPERATORS: Final = frozenset((
    "Abs", "Add", "And", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "ConstantOfShape", "Conv", "ConvTranspose", "DequantizeLinear", "Div", "Equal", "Erf", "Exp", "Expand",
    "Flatten", "Floor", "Gather", "GatherElements", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "MatMul", "Max", "MaxPool", "Min", "Mod", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pad", "Pow", "QuantizeLinear", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
    "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Sqrt",
    "Squeeze", "Sub", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where", "Xor",
))  # fmt: skip
_WEIGHTED: Final = frozenset(("Conv", "Gemm", "MatMul", "ConvTranspose"))
_QUANTISERS: Final = ("QuantizeLinear", "DequantizeLinear")
_SCALES: Final = (1e-9, 1e3)
# Larger than this is no picture, sound or sweep of ours; as a constant's shape it would be memory that a vehicle lacks.
_MOST_VALUES: Final = 1 << 24
_ZERO_POINTS: Final = {"uint8": (0, 128), "int8": (0, -128), "int32": (0,)}
_LEAST_ENDS: Final = 64  # weights: in smaller layers each channel's own largest value is a good share
_NODES: Final = 64  # a small graph may grow by these whatever its size

Weights = dict[str, NDArray[Any]]


def check_graph(
    what: str, model: onnx.ModelProto, current: onnx.ModelProto | None, fed: set[str], policy: Policy
) -> dict[str, Any]:
    """Refuse a graph that does not belong on a vehicle.

    Args:
        what: engine and target, for messages.
        current: the same of the current bundle, whose operators are known to run.
        fed: input tensors that the loop fills.

    Returns:
        Counts for the record.

    Raises:
        GateRefused: what, expected, got.
    """
    _check_form(what, model, current)
    _check_ports(what, model, fed)
    weights = weights_of(what, model)
    before = weights_of(what, current) if current is not None else {}
    _check_weights(what, weights, policy)
    _check_quantisers(what, model, weights)
    if current is not None:
        _check_growth(what, model, current, weights, before, policy)
        _check_saturation(what, weights, before, policy)
        _check_dead(what, model, current, weights, before, policy)
        _check_precision(what, model, current, weights, before)
        _check_reach(what, model, current)
    return {"nodes": len(model.graph.node), "weights": int(sum(values.size for values in weights.values()))}


def weights_of(what: str, model: onnx.ModelProto) -> Weights:
    """Initializers by name.

    Raises:
        GateRefused: one lies outside the file, or its bytes are not its shape's.
    """
    found: Weights = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise GateRefused(f"{what}: expected all weights in the file, got {tensor.name[:60]!r} outside of it")
        try:
            found[tensor.name] = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise GateRefused(f"{what}: expected whole weights, got {tensor.name[:60]!r}: {error!s:.80}") from None
    return found


def _check_form(what: str, model: onnx.ModelProto, current: onnx.ModelProto | None) -> None:
    known = OPERATORS | ({node.op_type for node in current.graph.node} if current is not None else set())
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            raise GateRefused(f"{what}: expected ONNX's own operators alone, got the domain {entry.domain[:60]!r}")
        if entry.version not in OPSETS:
            raise GateRefused(f"{what}: expected opset {OPSETS[0]}..{OPSETS[-1]}, got {entry.version}")
    if model.functions:
        raise GateRefused(f"{what}: expected no functions of its own, got {model.functions[0].name[:60]!r}")
    if model.graph.sparse_initializer:
        raise GateRefused(f"{what}: expected no sparse weights, got some")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in known:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise GateRefused(f"{what}: expected operators that both runtimes take, got {name[:60]!r}")
        if any(
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute
        ):
            raise GateRefused(f"{what}: expected no graph within a graph, got one in {node.op_type}")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise GateRefused(f"{what}: expected a valid graph, got: {' '.join(str(error).split())[:140]}") from None


def _check_ports(what: str, model: onnx.ModelProto, fed: set[str]) -> None:
    names = {tensor.name for tensor in model.graph.initializer}
    there = {port.name for port in model.graph.input} - names
    if there != fed:
        extra, missing = sorted(there - fed), sorted(fed - there)
        raise GateRefused(
            f"{what}: expected inputs {', '.join(sorted(fed))}, got {'no ' if missing else ''}{(missing or extra)[0]}"
        )
    for port in (*model.graph.input, *model.graph.output):
        shape = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
        if np.prod([max(size, 1) for size in shape], dtype=np.float64) > _MOST_VALUES:
            raise GateRefused(f"{what}: expected tensors of at most {_MOST_VALUES} values, got {port.name} of {shape}")


def _check_weights(what: str, weights: Weights, policy: Policy) -> None:
    for name, values in weights.items():
        if values.dtype.kind != "f":
            continue
        if not np.isfinite(values).all():
            kind = "NaN" if np.isnan(values).any() else "infinity"
            raise GateRefused(f"{what}: expected finite weights, got {kind} in {name[:60]!r}")
        largest = float(np.abs(values).max(initial=0.0))
        if largest > policy.most_magnitude:
            raise GateRefused(
                f"{what}: expected weights of at most {policy.most_magnitude:g}, got {largest:.3g} in {name[:60]!r}"
            )


def _check_quantisers(what: str, model: onnx.ModelProto, weights: Weights) -> None:
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in weights:
            count = float(np.prod(weights[node.input[0]].astype(np.float64)))
            if count > _MOST_VALUES:
                raise GateRefused(f"{what}: expected tensors of at most {_MOST_VALUES} values, got one of {count:.3g}")
        if node.op_type not in _QUANTISERS:
            continue
        scale = weights.get(node.input[1])
        if scale is None:
            raise GateRefused(f"{what}: expected a constant scale, got {node.input[1][:60]!r}, which is computed")
        low, high = float(scale.min()), float(scale.max())
        if not (_SCALES[0] <= low and high <= _SCALES[1]):
            raise GateRefused(
                f"{what}: expected scales of {_SCALES[0]:g}..{_SCALES[1]:g}, got {low:.3g}..{high:.3g} in "
                f"{node.input[1][:60]!r}"
            )
        if len(node.input) > 2 and node.input[2]:
            zero = weights.get(node.input[2])
            if zero is None or not np.isin(zero, _ZERO_POINTS.get(zero.dtype.name, ())).all():
                got = "one that is computed" if zero is None else f"{zero.dtype}({zero.ravel()[0]})"
                raise GateRefused(
                    f"{what}: expected zero points at the ends or the middle, got {got} in {node.output[0][:60]!r}"
                )
            source = weights.get(node.input[0])
            if source is not None and source.dtype == np.int8 and zero.any():
                raise GateRefused(
                    f"{what}: expected symmetric weights, got a zero point of {zero.ravel()[0]} in "
                    f"{node.input[0][:60]!r}"
                )


def _check_growth(
    what: str, model: onnx.ModelProto, current: onnx.ModelProto, weights: Weights, before: Weights, policy: Policy
) -> None:
    nodes, had = len(model.graph.node), len(current.graph.node)
    if nodes > policy.growth * had + _NODES:
        raise GateRefused(f"{what}: expected at most {policy.growth:g} times the current {had} operators, got {nodes}")
    size, was = (sum(values.nbytes for values in table.values()) for table in (weights, before))
    if size > policy.growth * was + (1 << 16):
        raise GateRefused(
            f"{what}: expected at most {policy.growth:g} times the current {was} bytes of weights, got {size}"
        )


def _check_saturation(what: str, weights: Weights, before: Weights, policy: Policy) -> None:
    for name, values in weights.items():
        if values.dtype != np.int8 or values.size < _LEAST_ENDS or values.ndim < 2:
            continue
        ends = float((np.abs(values.astype(np.int16)) >= 127).mean())
        old = before.get(name)
        same = old is not None and old.shape == values.shape
        usual = (
            float((np.abs(old.astype(np.int16)) >= 127).mean())
            if same and old is not None
            else len(values) / values.size
        )
        if ends > usual + policy.most_saturated:
            raise GateRefused(
                f"{what}: expected {usual:.1%} of the weights {name[:60]!r} at the ends of int8, got {ends:.1%}"
            )


def _check_dead(
    what: str, model: onnx.ModelProto, current: onnx.ModelProto, weights: Weights, before: Weights, policy: Policy
) -> None:
    (dead, count, worst), (was, _, _) = _dead(model, weights), _dead(current, before)
    if worst is not None and worst not in {_dead(current, before)[2]}:
        raise GateRefused(f"{what}: expected weights, got nothing but zeros in {worst[:60]!r}")
    if count and (dead - was) / count > policy.most_dead:
        raise GateRefused(f"{what}: expected about {was} channels that are always zero, got {dead} of {count}")


def _dead(model: onnx.ModelProto, weights: Weights) -> tuple[int, int, str | None]:
    """Output channels of zeros, all of them, and a layer that has nothing else."""
    source = {out: node for node in model.graph.node for out in node.output}
    dead = count = 0
    worst = None
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        for given in node.input[: 1 if node.op_type == "MatMul" else 0] or node.input[1:2]:
            name = given
            while name not in weights and name in source and source[name].op_type in ("Cast", "DequantizeLinear"):
                name = source[name].input[0]
            values = weights.get(name)
            if values is None or values.ndim < 2:
                continue
            zero = ~values.reshape(len(values), -1).any(axis=1)
            dead, count = dead + int(zero.sum()), count + int(zero.size)
            worst = name if zero.all() else worst
    return dead, count, worst


def _check_precision(
    what: str, model: onnx.ModelProto, current: onnx.ModelProto, weights: Weights, before: Weights
) -> None:
    shares = []
    for table in (weights, before):
        int8 = sum(values.size for values in table.values() if values.dtype == np.int8)
        shares.append(int8 / max(sum(values.size for values in table.values()), 1))
    quantisers = [sum(node.op_type == "QuantizeLinear" for node in graph.graph.node) for graph in (model, current)]
    if shares[0] < 0.7 * shares[1] or quantisers[0] < 0.7 * quantisers[1]:
        raise GateRefused(
            f"{what}: expected an int8 engine as the current one ({shares[1]:.0%} of its weights, {quantisers[1]} "
            f"quantisers), got {shares[0]:.0%} and {quantisers[0]}"
        )


def _check_reach(what: str, model: onnx.ModelProto, current: onnx.ModelProto) -> None:
    """Each output depends on the inputs that it depended on before."""
    now, before = _reach(model), _reach(current)
    for output, inputs in before.items():
        lost = sorted(inputs - now.get(output, set())) if output in now else []
        if lost:
            raise GateRefused(
                f"{what}: expected {output} to depend on {', '.join(sorted(inputs))}, got none of {lost[0]}"
            )


def _reach(model: onnx.ModelProto) -> dict[str, set[str]]:
    names = {tensor.name for tensor in model.graph.initializer}
    reach = {port.name: {port.name} for port in model.graph.input if port.name not in names}
    for node in model.graph.node:
        if node.op_type == "Shape":  # the shape of a value does not depend on it
            continue
        found = set().union(*(reach.get(name, set()) for name in node.input))
        for output in node.output:
            reach[output] = found
    return {port.name: reach.get(port.name, set()) for port in model.graph.output}


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """How many there are of each."""
    return dict(Counter(node.op_type for node in model.graph.node))
