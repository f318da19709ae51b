"""What TensorRT built, read back from the engine, beside what the ONNX file asked for.

A build can lose its precision without an error (TensorRT 11 dropped the flags that older code sets, and such code then
gets fp32). So each node that the file wants in int8 is looked up among the engine's layers: a layer made of it must
take int8 and must not hold float weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edge.errors import BundleError

if TYPE_CHECKING:
    import tensorrt as trt

Layer = Mapping[str, Any]
_NODE: Final = "[ONNX Layer: "


def engine_layers(trt: Any, engine: trt.ICudaEngine, name: str) -> list[Layer]:
    """The layers of a loaded engine that was built with detailed verbosity.

    Raises:
        BundleError: TensorRT tells none.
    """
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text)["Layers"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise BundleError(f"{name}: expected TensorRT's layer information as JSON, got {text[:80]!r}") from None
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise BundleError(f"{name}: expected a plan with detailed layer information, got names only")
    return list(layers)


def not_int8(asked: Iterable[str], layers: Iterable[Layer]) -> tuple[str, ...]:
    """Those ONNX nodes that no layer computes in int8.

    Args:
        asked: names of nodes that are to run in int8.
        layers: of the engine.
    """
    done = {node for layer in layers if _multiplies_int8(layer) for node in _nodes(layer)}
    return tuple(node for node in asked if node not in done)


def is_told(asked: Iterable[str], layers: Iterable[Layer]) -> bool:
    """Whether the inspector shows what became of the nodes, and no compiled region as one closed layer."""
    closed = {node for layer in layers if "ForeignNode" in str(layer.get("Name", "")) for node in _nodes(layer)}
    return not closed.intersection(asked)


def _multiplies_int8(layer: Layer) -> bool:
    if not any(_is_int8(tensor) for tensor in layer.get("Inputs", ())):
        return False
    weights = [tensor for tensor in layer.get("Constants", ()) if _is_matrix(tensor)]
    if weights:  # compiled kernels list their weights so
        return any(_is_int8(tensor) for tensor in weights)
    weight = layer.get("Weights")  # library kernels so; neither where both operands are computed
    return not isinstance(weight, dict) or weight.get("Type") in ("Int8", None) or not weight.get("Count", 1)


def _is_int8(tensor: Any) -> bool:
    """Whether the inspector calls a tensor int8: by `Datatype`, in older versions in the text of `Format/Datatype`."""
    if not isinstance(tensor, dict):
        return False
    return "Int8" in str(tensor.get("Datatype", tensor.get("Format/Datatype", "")))


def _is_matrix(tensor: Any) -> bool:
    """Whether a constant is more than scales and biases, which stay float."""
    sizes = tensor.get("Dimensions", ()) if isinstance(tensor, dict) else ()
    return sum(1 for size in sizes if size > 1) > 1


def _nodes(layer: Layer) -> list[str]:
    """ONNX nodes that became part of the layer, from "[ONNX Layer: a][ONNX Layer: b]"."""
    parts = str(layer.get("Metadata", "")).split(_NODE)[1:]
    return [part[: part.rindex("]")] for part in parts if "]" in part]
