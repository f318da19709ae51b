"""The fifth gate: each input matters as much as it did, embeddings stay where search looks, the state holds.

What a short replay can hardly show: a modality that is no longer heard while the others carry the scene, a state that
is stuck or drifts away over an hour, embeddings that are longer or turned.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from cloud.gates.candidate import Candidate
from cloud.gates.moments import Moments, answers, cosines, flat, fused, opened
from cloud.gates.verdict import GateRefused
from edge.bundle import Bundle
from edge.golden import Tensors

_NORMS: Final = (0.9, 1.1)
_MEMORY_STEPS: Final = 20
_DRIFT_STEPS: Final = 3_600
_MOST_DRIFT_APART: Final = 0.05  # of probabilities, over the first steps' difference
_NO_LABELS: Final = ("embedding", "scores")

Figures = dict[str, float]


def response(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Embeddings beside the current ones, what each input changes, memory and drift of the state.

    Raises:
        GateRefused: what, expected, got.
    """
    policy, bundle = candidate.policy, candidate.bundle
    usual = candidate.current.embeddings()
    own = embeddings(bundle, candidate.inputs())
    detail: dict[str, Any] = {}
    own |= {"fused": _embedded(bundle, own)} if bundle.fuse else {}
    for name, rows in own.items():
        before = usual[name]
        cosine = float(np.median(cosines(rows, before)))
        detail[f"{name} cosine"] = cosine
        if not np.isfinite(rows).all():
            raise GateRefused(f"{name} embedding: expected finite values, got others", detail)
        norm = float(np.median(np.linalg.norm(flat(rows), axis=1) / np.linalg.norm(flat(before), axis=1)))
        if not _NORMS[0] <= norm <= _NORMS[1]:
            raise GateRefused(f"{name} embedding: expected the current one's length, got {norm:.3f} times it", detail)
        if cosine < policy.least_cosine and not policy.new_space:
            raise GateRefused(
                f"{name} embedding: expected a median cosine of {policy.least_cosine:g} to the current one, "
                f"got {cosine:.3f}",
                detail,
            )
    if bundle.fuse is None:
        return "embeddings in the current space", detail
    figures, before_figures = responses(bundle, own), candidate.current.responses()
    for what, amount in figures.items():
        least = policy.least_response * before_figures[what]
        detail[what] = [amount, before_figures[what]]
        if not amount >= least:
            raise GateRefused(f"{what}: expected at least {least:.4f}, got {amount:.4f}", detail)
    drift, before_drift = long_run(bundle, own, candidate.current.bundle), candidate.current.long_run()
    _check_drift(candidate, drift, before_drift, detail)
    return f"{len(figures)} responses, {_DRIFT_STEPS} steps of the state", detail


def embeddings(bundle: Bundle, inputs: Moments) -> Tensors:
    """By modality, one row a moment."""
    return {
        name: answers(bundle, name, inputs[name])[spec.outputs["embedding"]]
        for name, spec in bundle.encoders.items()
        if "embedding" in spec.outputs
    }


def with_fused(bundle: Bundle, own: Tensors) -> Tensors:
    """With the fused embedding, where there is one."""
    return own | ({"fused": _embedded(bundle, own)} if bundle.fuse else {})


def _embedded(bundle: Bundle, own: Tensors) -> Any:
    assert bundle.fuse is not None
    return fused(bundle, own)[bundle.fuse.outputs["embedding"]]


def responses(bundle: Bundle, own: Tensors) -> Figures:
    """How much each thing changes what is said: another moment's embedding, a modality that is gone, the past."""
    assert bundle.fuse is not None
    spec = bundle.fuse
    given = {name: own[name] for name in spec.inputs}
    said = _probabilities(bundle, fused(bundle, given))
    count = len(next(iter(given.values())))
    found = {}
    for i, name in enumerate(spec.inputs):
        other = _probabilities(bundle, fused(bundle, given | {name: np.roll(given[name], max(count // 2, 1), 0)}))
        found[f"fusion's answer to {name}"] = float(np.abs(other - said).mean())
        presence = np.ones((count, len(spec.inputs)), np.float32)
        presence[:, i] = 0
        without = answers(bundle, "fuse", {**given, spec.presence: presence})
        found[f"fusion's answer without {name}"] = float(np.abs(_probabilities(bundle, without) - said).mean())
    if spec.state:
        found["fusion's memory"] = _memory(bundle, given, said)
    scores = fused(bundle, given)[spec.outputs["scores"]].reshape(count, -1) if "scores" in spec.outputs else None
    for i, name in enumerate(("uncertainty", "disagreement", "novelty") if scores is not None else ()):
        assert scores is not None
        found[f"spread of {name}"] = float(scores[:, i].std())
    return found


def long_run(bundle: Bundle, own: Tensors, like: Bundle) -> dict[str, Any]:
    """The fusion over an hour at one step a second, moments in turn: labels of the first and last rounds, the state.

    Args:
        like: whose labels are looked at; the bundle's may be more.
    """
    assert bundle.fuse is not None
    spec = bundle.fuse
    engine = opened(bundle, "fuse")
    engine.inputs[spec.presence][...] = 1.0
    count = len(next(iter(own.values())))
    first: list[Any] = []
    last: list[Any] = []
    most = 0.0
    for step in range(_DRIFT_STEPS):
        row = (step // 4) % count  # each stands for a second of four frames
        for name in spec.inputs:
            engine.inputs[name][...] = own[name][row]
        engine.run()
        engine.advance()
        if step < 4 * count:
            first.append(_probabilities(bundle, {k: v[None] for k, v in engine.outputs.items()}, like))
        elif step >= _DRIFT_STEPS - 4 * count:
            last.append(_probabilities(bundle, {k: v[None] for k, v in engine.outputs.items()}, like))
        most = max(most, *(float(np.abs(engine.inputs[name]).max()) for name in spec.state), 0.0)
    return {"first": np.concatenate(first), "last": np.concatenate(last), "state": most}


def _check_drift(candidate: Candidate, own: dict[str, Any], before: dict[str, Any], detail: dict[str, Any]) -> None:
    most = candidate.policy.most_drift * max(before["state"], 1e-6)
    detail["state"] = [own["state"], before["state"]]
    if not own["state"] <= most:
        raise GateRefused(
            f"state: expected at most {most:.3g} over {_DRIFT_STEPS} steps, got {own['state']:.3g}", detail
        )
    apart = [float(np.abs(own[key] - before[key]).mean()) for key in ("first", "last")]
    detail["drift"] = apart
    if not apart[1] <= apart[0] + _MOST_DRIFT_APART:
        raise GateRefused(
            f"labels: expected them as far from the current ones after {_DRIFT_STEPS} steps as at first "
            f"({apart[0]:.3f}), got {apart[1]:.3f}",
            detail,
        )


def _memory(bundle: Bundle, given: Tensors, said: Any) -> float:
    """How much a past of another moment changes what is said."""
    assert bundle.fuse is not None
    engine = opened(bundle, "fuse")
    engine.inputs[bundle.fuse.presence][...] = 1.0
    count = len(said)
    found = []
    for row in range(count):
        engine.reset()
        for step in range(_MEMORY_STEPS + 1):
            at = row if step == _MEMORY_STEPS else (row + count // 2) % count
            for name, rows in given.items():
                engine.inputs[name][...] = rows[at]
            engine.run()
            engine.advance()
        found.append(_probabilities(bundle, {k: v[None] for k, v in engine.outputs.items()}))
    return float(np.abs(np.concatenate(found) - said).mean())


def _probabilities(bundle: Bundle, said: Tensors, like: Bundle | None = None) -> Any:
    assert bundle.fuse is not None
    heads = (like or bundle).heads
    rows = [
        flat(said[bundle.fuse.outputs[head]])[:, : len(labels)]
        for head, labels in heads.items()
        if head in bundle.fuse.outputs
    ]
    return np.concatenate(rows, 1)
