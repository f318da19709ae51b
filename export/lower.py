"""From PyTorch modules to float ONNX graphs: batch 1, static shapes, named ports, nothing that differs between runs.

Batch norm is folded first. The graphs are canonical: the same bytes from any path, user or hash seed.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from calibration.canonical import canonical

OPSET = 17


def lower(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str]) -> onnx.ModelProto:
    """One module as a checked ONNX graph with these port names."""
    plain = fold_batch_norm(copy.deepcopy(module).float().eval())
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder, "model.onnx")
        torch.onnx.export(
            plain, inputs, path, input_names=names, output_names=outputs, opset_version=OPSET, dynamo=False
        )
        return canonical(onnx.load(path))


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Folds each (conv, batch norm) pair of every Sequential, in place."""
    for child in module.modules():
        if not isinstance(child, nn.Sequential):
            continue
        for i in range(len(child) - 1):
            first, second = child[i], child[i + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                child[i] = fuse_conv_bn_eval(first, second)
                child[i + 1] = nn.Identity()
    return module


def store_half(model: onnx.ModelProto, at_least: int = 1024) -> onnx.ModelProto:
    """Stores large float weights as float16 with a Cast to float32 behind each: half the size, float arithmetic.

    Runtimes fold the Casts when they load the model. The rounded weights of a lowering (`NODE.weight`) keep all bits:
    float16 would move them off the steps that its twins compute with.
    """
    rounded = {f"{node.name}.weight" for node in model.graph.node}
    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = []
    for tensor in half.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < at_least or tensor.name in rounded:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    return half
