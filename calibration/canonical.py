"""The canonical form of an ONNX graph: what it computes and nothing of who exported it, when or where.

Two exports of one network have equal bytes here, whatever the path, the user or the order of hashing; so the SHA-256 of
the canonical bytes is the model's name, which ranges and plans are bound to.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import onnx
from onnx import numpy_helper

from edge.errors import ConfigError

OPSETS = range(17, 21)  # QuantizeLinear per axis and LayerNormalization from 17; TensorRT 10.3 reads up to 20
_COUNTED = re.compile(r"^(onnx::\w+_)?\d+$|^val_\d+$|^$")  # names that exporters count up


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """A checked copy in canonical form; the form of a canonical graph is itself.

    Args:
        model: opset 17 to 20, static input shapes, standard operators, weights inside.

    Raises:
        ConfigError: it is not such a model; the message says what, expected and got.
    """
    _refuse(model)
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    graph = clean.graph
    _constants_to_initializers(graph)
    _drop_identities(graph)
    _name_nodes(graph)
    _name_tensors(graph)
    _order_initializers(graph)
    _strip(clean)
    try:
        onnx.checker.check_model(clean, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConfigError(f"model: expected a valid graph, got: {' '.join(str(error).split())[:300]}") from None
    return clean


def canonical_bytes(model: onnx.ModelProto) -> bytes:
    """The bytes of a model, equal for equal models."""
    return bytes(model.SerializeToString(deterministic=True))


def model_id(model: onnx.ModelProto) -> str:
    """SHA-256 of the canonical form."""
    return canonical_id(canonical(model))


def canonical_id(model: onnx.ModelProto) -> str:
    """SHA-256 of a model that is in canonical form already."""
    return hashlib.sha256(canonical_bytes(model)).hexdigest()


def _refuse(model: onnx.ModelProto) -> None:
    graph = model.graph
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        raise ConfigError(f"model: expected opset {OPSETS[0]} to {OPSETS[-1]}, got {opset or 'none'}")
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in weights:
            continue
        dims = value.type.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims):
            shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
            raise ConfigError(f"model: expected static shapes, got input {value.name} {shape}")
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, max_inclusive_version=opset):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ConfigError(f"model: expected operators of ONNX {opset}, got {name} ({node.name or 'unnamed'})")
        if any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute):
            raise ConfigError(f"model: expected no control flow, got {node.op_type} ({node.name or 'unnamed'})")
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ConfigError(f"model: expected weights inside the file, got {tensor.name} outside")


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = node.attribute[0]
        if value.name == "value":
            tensor = numpy_helper.from_array(numpy_helper.to_array(value.t), node.output[0])
        else:
            held = onnx.helper.get_attribute_value(value)
            kind = onnx.TensorProto.FLOAT if "float" in value.name else onnx.TensorProto.INT64
            shape = [len(held)] if isinstance(held, list) else []
            tensor = onnx.helper.make_tensor(node.output[0], kind, shape, held if shape else [held])
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Takes out Identity and inference-time Dropout, but for those that make an output of an input or weight."""
    outputs = {value.name for value in graph.output}
    source: dict[str, str] = {}
    for node in list(graph.node):
        node.input[:] = [source.get(name, name) for name in node.input]
        passes = node.op_type == "Identity" or (node.op_type == "Dropout" and len(node.output) == 1)
        if passes and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
            graph.node.remove(node)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Every node gets a name of its own: the exporter's where it is one, else operator and position."""
    times = Counter(node.name for node in graph.node)
    taken = {name for name, count in times.items() if name and count == 1}
    for i, node in enumerate(graph.node):
        if node.name in taken:
            continue
        name = f"{node.op_type}_{i}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)


def _name_tensors(graph: onnx.GraphProto) -> None:
    """Counted names become those of the node that makes the tensor, or of the first one that takes it."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    weights = {tensor.name for tensor in graph.initializer}
    new: dict[str, str] = {}
    taken = {*fixed, *weights, *(name for node in graph.node for name in node.output)}
    for node in graph.node:
        formal = onnx.defs.get_schema(node.op_type, OPSETS[-1]).inputs
        for i, name in enumerate(node.input):
            if name in weights and name not in new and name not in fixed and _COUNTED.match(name):
                new[name] = _free(f"{node.name}.{formal[min(i, len(formal) - 1)].name}", taken)
        for i, name in enumerate(node.output):
            if name and name not in fixed and _COUNTED.match(name):
                new[name] = _free(f"{node.name}.out" + (str(i) if i else ""), taken)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _order_initializers(graph: onnx.GraphProto) -> None:
    """Weights in the order of their first use, each as raw bytes; unused ones leave."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in tensors]
    used = dict.fromkeys(name for node in graph.node for name in node.input if name in tensors)
    used |= dict.fromkeys(value.name for value in graph.output if value.name in tensors)
    kept = [numpy_helper.from_array(numpy_helper.to_array(tensors[name]), name) for name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.input[:]
    graph.input.extend(inputs)


def _strip(model: onnx.ModelProto) -> None:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    model.producer_name, model.producer_version, model.doc_string = "roadfuse", "", ""
    model.domain, model.model_version = "", 0
    del model.metadata_props[:], model.functions[:], model.training_info[:]
    graph = model.graph
    graph.name, graph.doc_string = "graph", ""
    del graph.value_info[:], graph.metadata_props[:], graph.quantization_annotation[:], graph.sparse_initializer[:]
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    for node in graph.node:
        node.doc_string, node.domain, node.overload = "", "", ""
        del node.metadata_props[:], node.device_configurations[:]
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        for attribute in attributes:
            attribute.doc_string = ""
        kept = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in attributes]
        del node.attribute[:]
        node.attribute.extend(kept)
