"""Makes an ONNX model from elsewhere one that an engine can bind: static shapes, only the outputs that are used.

onnx is needed here and nowhere else on the edge, so it is imported when a model is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from edge.bundle_check import MOTION_CHANNELS, RANGE_CHANNELS
from edge.engine import DTYPES, reason
from edge.errors import BundleError, ConfigError
from edge.model_mapping import ACTIVATIONS, ModelMapping

_MAX_BYTES: Final = 2_000_000_000  # protobuf holds no more than 2 GiB
_MAX_VALUES: Final = 1 << 28  # of an input: the largest picture that a mapping may ask for has 201 million
_QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"})


@dataclass(frozen=True, slots=True)
class StaticModel:
    """A model with static shapes.

    Attributes:
        content: the ONNX file.
        precision: int8 where it is quantised, fp16 where a weight is, else fp32.
        outputs: role -> tensor name.
    """

    content: bytes
    precision: str
    outputs: dict[str, str]


def static_model(path: Path, mapping: ModelMapping) -> StaticModel:
    """Read the model and settle what the mapping leaves open.

    Raises:
        BundleError: no ONNX model, or one that ONNX Runtime does not run.
        ConfigError: the mapping does not fit it.
    """
    model = _read(path)
    graph = model.graph
    _store_weights(model)
    inputs = {value.name: value for value in graph.input}
    _check_names(path, mapping, set(inputs), {value.name for value in graph.output})
    _settle_inputs(path, mapping, inputs)
    outputs = dict(mapping.outputs)
    for head, kind in mapping.activations.items():
        outputs[head] = _activate(model, outputs[head], kind)
    _keep_outputs(model, [*outputs.values(), *mapping.state.values()])
    _strip(model)
    _settle_outputs(path, mapping, model)
    return StaticModel(model.SerializeToString(deterministic=True), _precision(model), outputs)


def _read(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise BundleError(f"{path}: expected an ONNX file, got {'a folder' if path.exists() else 'nothing'}")
    if path.stat().st_size > _MAX_BYTES:
        raise BundleError(f"{path}: expected at most {_MAX_BYTES} bytes, got {path.stat().st_size}")
    try:
        model = onnx.load(str(path))
    except DecodeError:
        raise BundleError(f"{path}: expected an ONNX model, got bytes that are none") from None
    except (OSError, ValueError, onnx.checker.ValidationError) as error:  # weights in other files
        raise BundleError(f"{path}: expected an ONNX model with its weights, got: {reason(error)}") from None
    if not (model.opset_import and model.graph.node and model.graph.output):
        raise BundleError(f"{path}: expected an ONNX model, got one without operators")
    return model


def _store_weights(model: Any) -> None:
    """Weights that old exporters list among the inputs (IR 3 asked for it) are none: a runtime may then fold them."""
    graph = model.graph
    model.ir_version = max(model.ir_version, 4)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(inputs)


def _check_names(path: Path, mapping: ModelMapping, inputs: set[str], outputs: set[str]) -> None:
    fed = {mapping.input["name"], *mapping.state, *mapping.constants}
    for wanted, there, what in (
        (fed, inputs, "inputs"),
        ({*mapping.outputs.values(), *mapping.state.values()}, outputs, "outputs"),
    ):
        if not wanted <= there:
            raise ConfigError(
                f"mapping {mapping.name}: expected {what} of {path.name} ({', '.join(sorted(there))}), "
                f"got {', '.join(sorted(wanted - there))}"
            )
    if inputs - fed:
        raise ConfigError(
            f"mapping {mapping.name}: expected a state or a constant for each other input of {path.name}, "
            f"got none for {', '.join(sorted(inputs - fed))}"
        )


def _settle_inputs(path: Path, mapping: ModelMapping, inputs: Mapping[str, Any]) -> None:
    """Give each dynamic dimension its size: of the input by its description, of others by name; a batch is 1."""
    main = mapping.input["name"]
    sizes = dict(mapping.dims)
    for name in (main, *(name for name in inputs if name != main)):
        dims = inputs[name].type.tensor_type.shape.dim
        wanted = _described_shape(mapping, len(dims)) if name == main else ()
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            size = sizes.get(dim.dim_param) if dim.dim_param else None
            if size is None:
                size = wanted[axis] if wanted else 1 if axis == 0 else None
            if size is None:
                raise ConfigError(
                    f"mapping {mapping.name}: expected in dims a size for {dim.dim_param or f'dimension {axis}'!r} "
                    f"of input {name} of {path.name}, got none"
                )
            if dim.dim_param:
                sizes.setdefault(dim.dim_param, size)
            if size > _MAX_VALUES:  # more than ONNX has a number for, perhaps
                raise _too_large(path, mapping, name)
            dim.Clear()
            dim.dim_value = size
        if math.prod(dim.dim_value for dim in dims) > _MAX_VALUES:
            raise _too_large(path, mapping, name)


def _too_large(path: Path, mapping: ModelMapping, name: str) -> ConfigError:
    return ConfigError(
        f"mapping {mapping.name}: expected at most {_MAX_VALUES} values of input {name} of {path.name}, got more"
    )


def _described_shape(mapping: ModelMapping, rank: int) -> tuple[int, ...]:
    """The shape that the mapping's input description asks of a tensor of this rank; () where it fits none."""
    spec = mapping.input
    shape: tuple[int, ...]
    if mapping.modality == "camera":
        size = (spec["height_px"], spec["width_px"])
        shape = (1, *size, 3) if spec["layout"] == "NHWC" else (1, 3, *size)
    elif mapping.modality == "audio":
        shape = (*[1] * (rank - 1), spec["samples"])
    elif mapping.modality == "lidar":
        shape = (1, RANGE_CHANNELS, spec["rows"], spec["columns"])
    else:
        shape = (1, MOTION_CHANNELS, spec["steps"])
    return shape if len(shape) == rank else ()


def _activate(model: Any, tensor: str, kind: str) -> str:
    """Let the graph end in probabilities; the name of the new output."""
    from onnx import ValueInfoProto, helper

    name = f"{tensor}_{kind}"
    node = helper.make_node(ACTIVATIONS[kind], [tensor], [name])
    if kind == "softmax":
        node.attribute.append(helper.make_attribute("axis", -1))
    model.graph.node.append(node)
    value = ValueInfoProto()
    value.CopyFrom(next(output for output in model.graph.output if output.name == tensor))
    value.name = name
    model.graph.output.append(value)
    return name


def _keep_outputs(model: Any, names: list[str]) -> None:
    kept = [output for output in model.graph.output if output.name in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _strip(model: Any) -> None:
    """Drop shapes that no longer hold, and notes of the exporter, which may name its machine's paths."""
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _settle_outputs(path: Path, mapping: ModelMapping, model: Any) -> None:
    """Give each output the shape that it has when the model runs, which must not depend on what it sees."""
    session = _session(path, model.SerializeToString())
    shapes = [_output_shapes(path, session, mapping, seed) for seed in (None, 0)]
    if shapes[0] != shapes[1]:
        raise BundleError(f"{path}: expected outputs of one shape, got {shapes[0]} and {shapes[1]}")
    for output, shape in zip(model.graph.output, shapes[0]):
        output.type.tensor_type.shape.SetInParent()
        for size in shape:
            output.type.tensor_type.shape.dim.add().dim_value = size


def _session(path: Path, content: bytes) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class but this
        raise BundleError(f"{path}: expected a model that ONNX Runtime loads, got: {reason(error)}") from None


def _output_shapes(path: Path, session: Any, mapping: ModelMapping, seed: int | None) -> list[tuple[int, ...]]:
    """Shapes of the outputs for an input of zeros, or of noise."""
    feed: dict[str, Any] = {}
    for node in session.get_inputs():
        if node.type not in DTYPES:
            raise BundleError(f"{path}: expected tensors of {', '.join(DTYPES)}, got {node.name} {node.type}")
        feed[node.name] = np.zeros(node.shape, dtype=DTYPES[node.type])
        try:
            feed[node.name][...] = mapping.constants.get(node.name, 0)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"mapping {mapping.name}: constant {node.name}: {reason(error)}") from None
    if seed is not None:
        main = mapping.input["name"]
        feed[main] = np.random.default_rng(seed).uniform(0, 1, feed[main].shape).astype(feed[main].dtype)
    try:
        return [np.shape(output) for output in session.run(None, feed)]
    except Exception as error:  # as above
        raise BundleError(f"{path}: expected a model that runs, got: {reason(error)}") from None


def _precision(model: Any) -> str:
    if any(node.op_type in _QUANTISED for node in model.graph.node):
        return "int8"
    half = 10  # TensorProto.FLOAT16
    return "fp16" if any(tensor.data_type == half for tensor in model.graph.initializer) else "fp32"
