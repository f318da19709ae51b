"""Real inputs: what the loop itself gave to the engines at some moments of the drives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edge import golden
from edge.bundle import Bundle, EngineSpec
from edge.engine import OrtEngine
from edge.golden import FILE, Tensors
from edge.loop import LoopConfig
from edge.replay import Replay

DRIVES: Final = 8
_FIRST, _EVERY, _LAST = 6, 9, 34  # decisions of each drive: after the windows have filled

Moments = dict[str, Tensors]


def moments(bundle: Bundle, drives: Sequence[Path]) -> Moments:
    """Encoder -> its input tensor -> one row a moment; where there is no drive, the golden inputs.

    Args:
        bundle: whose preprocessing it is.
        drives: of which a few are taken, evenly.
    """
    if not drives:
        assert bundle.golden is not None  # the gates before saw to it
        known = golden.read(bundle.golden.path).inputs
        return {name: known[name] for name in bundle.encoders}
    rows: dict[str, list[NDArray[Any]]] = {name: [] for name in bundle.encoders}
    chosen = np.linspace(0, len(drives) - 1, min(DRIVES, len(drives))).astype(int)
    for index in chosen:
        with Replay(drives[index], bundle, config=LoopConfig(encode_ahead=False)) as run:  # inputs are the decision's
            engines = run.loop.perception.encoders
            for number, _ in enumerate(run):
                if number >= _FIRST and (number - _FIRST) % _EVERY == 0:
                    for name, spec in bundle.encoders.items():
                        rows[name].append(engines[name].inputs[spec.input["name"]].copy())
                if number >= _LAST:
                    break
    return {name: {bundle.encoders[name].input["name"]: np.concatenate(found)} for name, found in rows.items()}


def answers(
    bundle: Bundle, name: str, inputs: Tensors, target: str = "", model: onnx.ModelProto | None = None
) -> Tensors:
    """What an engine says of each row, (rows, ...), from a state of zeros.

    Args:
        target: a lowering; "" is what runs on this machine, "file" the engine's own file.
        model: instead of the bundle's own.
    """
    found = golden.answer(opened(bundle, name, target, model), inputs, bundle.path)
    return {tensor: rows.reshape(len(rows), *rows.shape[2:]) for tensor, rows in found.items()}  # less the batch of one


def opened(bundle: Bundle, name: str, target: str = "", model: onnx.ModelProto | None = None) -> OrtEngine:
    """An engine of the bundle on this machine's CPU, as the loop opens it."""
    spec = bundle.engines[name]
    file = spec.model("cpu") if not target else spec.file if target == FILE else spec.lowerings[target]
    content = file.read() if model is None else model.SerializeToString()
    constants = spec.constants if isinstance(spec, EngineSpec) else {}
    return OrtEngine(file.path, content, threads=bundle.threads, state=spec.state, constants=constants)


def fused(bundle: Bundle, embeddings: Tensors) -> Tensors:
    """What the fusion says of embeddings (by modality, one row a moment) that are all there, from a state of zeros."""
    spec = bundle.fuse
    assert spec is not None
    count = len(next(iter(embeddings.values())))
    presence = np.ones((count, len(spec.inputs)), np.float32)
    return answers(bundle, "fuse", {**{name: embeddings[name] for name in spec.inputs}, spec.presence: presence})


def flat(rows: NDArray[Any]) -> NDArray[np.float64]:
    """(rows, values) float64."""
    return rows.reshape(len(rows), -1).astype(np.float64)


def cosines(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Row by row; 0 where one is all zeros or not finite."""
    a, b = flat(first), flat(second)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = np.nan_to_num((a * b).sum(1) / norms, nan=0.0, posinf=0.0, neginf=0.0)
    return found
