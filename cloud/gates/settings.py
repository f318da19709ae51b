"""What a manifest may say beside the current one's: inputs, labels, thresholds, confidence, golden vectors."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from calibration.confidence import Confidence
from cloud.gates.candidate import Candidate
from cloud.gates.policy import Policy
from cloud.gates.verdict import GateRefused
from edge import golden
from edge.bundle import Bundle, EngineSpec, FuseSpec
from edge.errors import ConfigError

# Of the largest golden value: two and a half times what edge.golden gives by itself.
_MOST_TOLERANCE: Final = {"int8": 0.05}
_MOST_TOLERANCE_FLOAT: Final = 0.0025
_LEAST_TOLERANCE: Final = 1e-4
_TEMPERATURES: Final = (0.33, 3.0)
_MOST_BIAS: Final = 2.0


def check_settings(candidate: Candidate) -> None:
    """Refuse a manifest that changes what the vehicle relies on, or says what can't be.

    Raises:
        GateRefused: what, expected, got.
    """
    bundle, current, policy = candidate.bundle, candidate.current.bundle, candidate.policy
    for name, spec in current.engines.items():
        _check_engine(name, spec, bundle.engines[name], policy)
    _check_labels(bundle, current)
    _check_thresholds(bundle, current, policy)
    if bundle.threads != current.threads and not policy.new_threads:
        raise GateRefused(f"threads: expected {current.threads}, got {bundle.threads}")
    if bundle.warm_up > 4 * current.warm_up:
        raise GateRefused(f"warm_up: expected at most {4 * current.warm_up}, got {bundle.warm_up}")
    _check_confidence(bundle, current)
    _check_golden(bundle)


def confidences(bundle: Bundle) -> dict[str, Confidence]:
    """By head, as the manifest tells them.

    Raises:
        GateRefused: they are none.
    """
    found = {}
    for head, told in bundle.confidence.items():
        try:
            columns = ("own", "f1_thresholds", "recall_thresholds")
            given = {key: tuple(told.get(key, ())) for key in columns}
            count = len(bundle.heads[head])
            found[head] = Confidence(
                told["kind"], bundle.heads[head], tuple(map(float, told["temperatures"])),
                tuple(map(float, told["biases"])), given["own"], given["f1_thresholds"] or (None,) * count,
                float(told.get("recall", 0.9)), given["recall_thresholds"] or (None,) * count,
                float(told.get("alpha", 0.1)), told.get("set_threshold"), {}, {},
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GateRefused(
                f"confidence of {head}: expected kind, temperatures and biases, got {error!s:.80}"
            ) from None
    return found


def _check_engine(name: str, old: EngineSpec | FuseSpec, new: EngineSpec | FuseSpec, policy: Policy) -> None:
    if new.precision != old.precision:
        raise GateRefused(f"{name}: expected precision {old.precision}, got {new.precision[:40]!r}")
    same: dict[str, tuple[Any, Any]] = {"state": (old.state, new.state)}
    if isinstance(old, EngineSpec) and isinstance(new, EngineSpec):
        same |= {"decoder": (old.decoder, new.decoder), "constants": (old.constants, new.constants)}
        if not policy.new_preprocessing:
            same["input"] = old.input, new.input
    elif isinstance(old, FuseSpec) and isinstance(new, FuseSpec):
        same |= {"inputs": (old.inputs, new.inputs), "presence": (old.presence, new.presence)}
    for key, (expected, got) in same.items():
        if expected != got:
            where, expected, got = _parting(key, expected, got)
            raise GateRefused(f"{name} {where}: expected {expected!s:.80}, as the current bundle, got {got!s:.80}")
    lost = sorted(set(old.outputs) - set(new.outputs))
    if lost:
        raise GateRefused(f"{name} outputs: expected {', '.join(old.outputs)}, got no {lost[0]}")
    if isinstance(old, FuseSpec) or set(old.outputs) == set(new.outputs):
        for role, tensor in old.outputs.items():
            others = {*old.outputs.values(), *old.state.values()} - {tensor}
            if new.outputs[role] in others:
                raise GateRefused(f"{name} outputs: expected {role} from {tensor}, got {new.outputs[role]}")


def _parting(key: str, expected: Any, got: Any) -> tuple[str, Any, Any]:
    """The first entry in which two objects differ."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for entry in sorted({*expected, *got}):
            if expected.get(entry) != got.get(entry):
                return f"{key} {entry}", expected.get(entry, "none"), got.get(entry, "none")
    return key, expected, got


def _check_labels(bundle: Bundle, current: Bundle) -> None:
    for head, spec in current.head_specs.items():
        new = bundle.head_specs.get(head)
        if new is None:
            raise GateRefused(f"heads: expected {', '.join(current.heads)}, got no {head}")
        if new.kind != spec.kind:
            raise GateRefused(f"head {head}: expected kind {spec.kind}, got {new.kind}")
        pairs = {head: (spec.labels, new.labels)}
        pairs |= {f"{head} {label}": (finer, new.kinds.get(label, ())) for label, finer in spec.kinds.items()}
        for what, (old_labels, new_labels) in pairs.items():
            if new_labels[: len(old_labels)] != old_labels:
                at = next((i for i, (a, b) in enumerate(zip(old_labels, new_labels)) if a != b), len(new_labels))
                got = new_labels[at] if at < len(new_labels) else "nothing"
                raise GateRefused(f"labels of {what}: expected {old_labels[at]!r} at place {at}, got {got!r:.60}")
        if len(set(new.labels)) < len(new.labels):
            raise GateRefused(f"labels of {head}: expected each once, got one twice")


def _check_thresholds(bundle: Bundle, current: Bundle, policy: Policy) -> None:
    low, high = policy.threshold_low, policy.threshold_high
    for head in current.thresholds:
        if head not in bundle.thresholds:
            raise GateRefused(f"thresholds: expected those of {', '.join(current.thresholds)}, got none of {head}")
    for head, given in bundle.thresholds.items():
        values = given if isinstance(given, list) else [given]
        for label, value in zip(bundle.heads[head] if isinstance(given, list) else [head], values):
            if not low <= value <= high:
                raise GateRefused(f"threshold of {head} {label}: expected {low:g}..{high:g}, got {value:g}")


def _check_confidence(bundle: Bundle, current: Bundle) -> None:
    missing = sorted(set(current.confidence) - set(bundle.confidence))
    if missing:
        raise GateRefused(f"confidence: expected that of {', '.join(current.confidence)}, got none of {missing[0]}")
    for head in bundle.confidence:
        if head not in bundle.heads:
            raise GateRefused(f"confidence: expected heads of {', '.join(bundle.heads)}, got {head[:40]!r}")
    for head, told in confidences(bundle).items():
        try:
            read = Confidence.from_json(told.to_json())
        except ConfigError as error:
            raise GateRefused(f"{head}: {error}") from None
        low, high = _TEMPERATURES
        if not all(low <= value <= high for value in read.temperatures):
            raise GateRefused(
                f"confidence of {head}: expected temperatures of {low}..{high}, got {read.temperatures!s:.60}"
            )
        if not all(abs(value) <= _MOST_BIAS for value in read.biases):
            raise GateRefused(f"confidence of {head}: expected biases of at most {_MOST_BIAS}, got {read.biases!s:.60}")


def _check_golden(bundle: Bundle) -> None:
    if bundle.golden is None:
        raise GateRefused("golden: expected golden vectors, by which a vehicle tests itself, got none")
    vectors = golden.read(bundle.golden.path)
    for name, spec in bundle.engines.items():
        for target in golden.files(bundle, name):
            answers = vectors.answers.get(name, {}).get(target)
            if answers is None or name not in vectors.inputs:
                raise GateRefused(f"golden: expected vectors of {name} ({target}), got none")
            _check_tolerances(bundle, name, target, answers, spec.precision)


def _check_tolerances(bundle: Bundle, name: str, target: str, answers: golden.Tensors, precision: str) -> None:
    assert bundle.golden is not None
    allowed = bundle.golden.tolerances.get(name, {}).get(target, {})
    share = _MOST_TOLERANCE.get(precision, _MOST_TOLERANCE_FLOAT)
    for tensor, values in answers.items():
        if not np.isfinite(values).all():
            raise GateRefused(f"golden: expected finite answers of {name} ({target}) {tensor}, got others")
        if not len(values):
            raise GateRefused(f"golden: expected cases of {name} ({target}) {tensor}, got none")
        most = max(share * float(np.abs(values).max(initial=0.0)), _LEAST_TOLERANCE)
        if allowed.get(tensor, 0.0) > most:
            raise GateRefused(
                f"golden: expected a tolerance of at most {most:.3g} of {name} ({target}) {tensor}, "
                f"got {allowed[tensor]:.3g}"
            )
