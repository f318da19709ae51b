"""The fourth gate: the lowerings of an engine say the same, and int8 says what its own weights would say in float.

The float twin is the candidate's own graph without what rounds activations: weights stay as they are. So a scale that
is too small (values cut off) or too large (few steps left) shows, whoever made the bundle and whatever it was made of.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from cloud.gates.candidate import Candidate, Graphed
from cloud.gates.moments import Moments, answers, cosines, fused
from cloud.gates.verdict import GateRefused
from edge.bundle import Bundle
from edge.golden import FILE, Tensors

_SURE: Final = 0.5
_OF_BOXES: Final = 3.0  # there are few sure boxes: each is almost a hundredth of them
_NEAR: Final = 0.02  # of the picture's width and height
_BY_MODALITY: Final = "embedding"


def parity(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Each lowering against the engine's own file, int8 against float, on real inputs, beside the current bundle.

    Raises:
        GateRefused: what, expected, got.
    """
    policy, yardstick = candidate.policy, candidate.current
    inputs = candidate.inputs()
    own, usual = twins(candidate.own, inputs), yardstick.twins()
    for key, share in own.items():
        least = 1.0 - (1.0 - policy.least_twin) * _weight(key)
        if share < least and share < usual.get(key, 1.0) - 0.005:
            raise GateRefused(f"{key}: expected at least {least:g} alike, got {share:.4f}", {"alike": own})
    in_float, before = float_twins(candidate.own, inputs), yardstick.float_twins()
    for key, share in in_float.items():
        least = min(before.get(key, 1.0), 1.0) - policy.twin_fall * _weight(key)
        if share < least:
            raise GateRefused(
                f"{key} in int8 and in float: expected at least {least:.4f} alike, got {share:.4f}", {"float": in_float}
            )
    flips = label_flips(candidate.bundle, inputs)
    for target, share in flips.items():
        if share > policy.most_flips:
            raise GateRefused(
                f"labels by {target}: expected at most {policy.most_flips:.1%} told otherwise, got {share:.1%}", flips
            )
    worst = min([*own.values(), *in_float.values()], default=1.0)
    rows = len(next(iter(next(iter(inputs.values())).values())))
    return f"at least {worst:.4f} alike on {rows} moments", {"alike": own, "float": in_float, "flips": flips}


def _weight(key: str) -> float:
    """How much further than usual a share may fall."""
    return _OF_BOXES if key.endswith("objects") else 1.0


def twins(graphed: Graphed, inputs: Moments) -> dict[str, float]:
    """How alike each lowering and the engine's own file are, 0..1."""
    bundle = graphed.bundle
    found: dict[str, float] = {}
    for name, spec in bundle.encoders.items():
        base = answers(bundle, name, inputs[name], FILE)
        for target in spec.lowerings:
            other = answers(bundle, name, inputs[name], target)
            found |= {f"{name} ({target}) {key}": share for key, share in _alike(bundle, name, base, other).items()}
    return found


def float_twins(graphed: Graphed, inputs: Moments) -> dict[str, float]:
    """How alike each int8 engine and its float twin are, 0..1."""
    bundle = graphed.bundle
    found: dict[str, float] = {}
    for name in bundle.encoders:
        twin = unrounded(graphed.graphs[name][FILE])
        if twin is None:
            continue
        base = answers(bundle, name, inputs[name], FILE)
        other = answers(bundle, name, inputs[name], FILE, twin)
        found |= {f"{name} {key}": share for key, share in _alike(bundle, name, base, other).items()}
    return found


def unrounded(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The graph without quantisers of activations; None where it has none."""
    quantised = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    if not quantised:
        return None
    for node in model.graph.node:
        if node.op_type == "Clip" and node.input[0] in quantised:  # what int8 does by itself
            quantised[node.output[0]] = quantised[node.input[0]]
    instead = {
        node.output[0]: quantised[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantised
    }
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    del twin.graph.node[:]
    for node in model.graph.node:
        if node.output[0] in instead:
            continue
        kept = twin.graph.node.add()
        kept.CopyFrom(node)
        for i, name in enumerate(kept.input):
            while name in instead:  # a chain of rounded values
                name = instead[name]
            kept.input[i] = name
    if any(port.name in instead for port in model.graph.output):
        return None
    return twin


def label_flips(bundle: Bundle, inputs: Moments) -> dict[str, float]:
    """By target: the share of labels that the fusion tells otherwise on that lowering's embeddings."""
    if bundle.fuse is None:
        return {}
    targets = sorted({target for spec in bundle.encoders.values() for target in spec.lowerings})
    base = _labels(bundle, inputs, FILE)
    return {target: float((_labels(bundle, inputs, target) != base).mean()) for target in targets}


def _labels(bundle: Bundle, inputs: Moments, target: str) -> NDArray[np.bool_]:
    assert bundle.fuse is not None
    embeddings = {}
    for name in bundle.fuse.inputs:
        spec = bundle.encoders[name]
        chosen = target if target in spec.lowerings else FILE
        embeddings[name] = answers(bundle, name, inputs[name], chosen)[spec.outputs[_BY_MODALITY]]
    said = fused(bundle, embeddings)
    found = [
        said[bundle.fuse.outputs[head]].reshape(len(next(iter(embeddings.values()))), -1) >= np.asarray(limits)
        for head, limits in bundle.thresholds.items()
        if head in bundle.fuse.outputs
    ]
    return np.concatenate(found, 1) if found else np.zeros((1, 1), bool)


def _alike(bundle: Bundle, name: str, first: Tensors, second: Tensors) -> dict[str, float]:
    outputs = bundle.encoders[name].outputs
    found = {}
    for role, tensor in outputs.items():
        a, b = first[tensor], second[tensor]
        if role == "objects" and not bundle.encoders[name].decoder:
            found[role] = min(_same_boxes(a, b), _same_boxes(b, a))
        elif a.dtype.kind in "ui":
            found[role] = float((a == b).mean())
        else:
            found[role] = float(cosines(a, b).mean())
    return found


def _same_boxes(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Share of the sure boxes with one of the same class in the same place."""
    same = []
    for mine, theirs in zip(first, second):
        sure = mine.reshape(-1, mine.shape[-1])
        theirs = theirs.reshape(-1, theirs.shape[-1])
        sure = sure[sure[:, 1] >= _SURE]
        near = np.abs(sure[:, None, 2:6] - theirs[None, :, 2:6]).max(2, initial=0.0) < _NEAR
        same.append((near & (sure[:, None, 0] == theirs[None, :, 0])).any(1))
    found = np.concatenate(same) if same else np.zeros(0)
    return float(found.mean()) if len(found) else 1.0
