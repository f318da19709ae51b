"""Confidence of one head: probabilities that mean frequencies, thresholds, and label sets with a guarantee.

    confidence = fit(probabilities, truth, names=("day", "dusk", "night"), kind="single")
    confidence.apply(probabilities)     # calibrated
    confidence.sets(probabilities)      # the labels that can't be ruled out

Numpy only: `roadfuse train`, `roadfuse evaluate` and `roadfuse calibrate confidence` all call this.

The samples are split by unit (see calibration/risk.py) into three parts: *fit* (half: temperatures, F1 thresholds),
*guard* (a quarter: the guaranteed thresholds, which need samples that chose nothing before) and *check* (a quarter).
Reliability before and after is measured on guard and check, coverage on check alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from calibration import reliability, temperature
from calibration.risk import F64, controlled_threshold, unit_weights, units_needed
from edge.errors import ConfigError

Kind = Literal["single", "multi"]
FORMAT: Final = 1
LEAST_SAMPLES: Final = 100
# A label with fewer samples, or from fewer units, on either side in the fit part shares its head's temperature; so does
# one whose own would not serve the other half of the units better.
LEAST_OF_LABEL: Final = 30
LEAST_UNITS_OF_LABEL: Final = 3
UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Confidence:
    """What was learned of one head. A threshold is a calibrated probability; None = too few samples to say.

    Attributes:
        kind: "single" = exactly one label holds, "multi" = any may.
        names: labels, in the order of the head's probabilities.
        temperatures, biases: of each label: sigmoid(logit / temperature + bias); one temperature and no bias for the
            softmax of a single-label head.
        own: labels that had the data for a temperature of their own, and use of it.
        f1_thresholds: best F1 of each label.
        recall_thresholds: find each label in at least `recall` of the samples that have it.
        set_threshold: labels at or above it make the set; misses at most `alpha` of what is true: of the samples
            (single), or of each sample's true labels (multi).
        samples, units: of the parts fit, guard and check.
        figures: reliability before and after, and what the guarantees came to on samples that chose nothing.
    """

    kind: Kind
    names: tuple[str, ...]
    temperatures: tuple[float, ...]
    biases: tuple[float, ...]
    own: tuple[str, ...]
    f1_thresholds: tuple[float | None, ...]
    recall: float
    recall_thresholds: tuple[float | None, ...]
    alpha: float
    set_threshold: float | None
    samples: dict[str, int]
    units: dict[str, int]
    figures: dict[str, Any] = field(default_factory=dict)

    def apply(self, probabilities: NDArray[np.floating]) -> F64:
        """Calibrated probabilities.

        Args:
            probabilities: (..., labels) of the head.

        Raises:
            ConfigError: another number of labels.
        """
        given = np.asarray(probabilities, np.float64)
        if given.shape[-1:] != (len(self.names),):
            raise ConfigError(f"confidence: expected {len(self.names)} labels, got {given.shape[-1:]}")
        scale = 1.0 / np.asarray(self.temperatures)
        if self.kind == "single":
            return temperature.softmax(temperature.log_probabilities(given) * scale)
        return temperature.sigmoid(temperature.logits(given) * scale + np.asarray(self.biases))

    def sets(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(..., labels) which labels the set of each sample holds; of a single-label head never none.

        Raises:
            ConfigError: there were too few samples for a guarantee.
        """
        if self.set_threshold is None:
            raise ConfigError(f"confidence: expected a set threshold, got none: too few units for alpha {self.alpha:g}")
        return _sets(self.apply(probabilities), self.set_threshold, self.kind)

    def uncalibrated(self, thresholds: Sequence[float | None]) -> tuple[float | None, ...]:
        """Thresholds of a multi-label head in terms of the probabilities that it gives without `apply`.

        Raises:
            ConfigError: the head is single-label, where no such threshold exists.
        """
        if self.kind == "single":
            raise ConfigError("confidence: expected a multi-label head, got a single-label one")
        return tuple(
            None
            if wanted is None
            else float(temperature.sigmoid((temperature.logits(np.array([wanted])) - bias) * warmth)[0])
            for wanted, warmth, bias in zip(thresholds, self.temperatures, self.biases)
        )

    def to_json(self) -> str:
        """Canonical text: sorted keys, trailing newline."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> Confidence:
        """Reads what to_json wrote.

        Raises:
            ConfigError: not that, or numbers that can't be.
        """
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ConfigError(f"confidence: expected format {FORMAT}, got another")
            for name in ("names", "own", "temperatures", "biases", "f1_thresholds", "recall_thresholds"):
                content[name] = tuple(content[name])
            read = Confidence(**content)
            _check(read)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"confidence: not a confidence file ({type(error).__name__}: {error})") from None
        return read


def fit(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    *,
    names: Sequence[str],
    kind: Kind,
    units: NDArray[np.integer] | None = None,
    alpha: float = 0.1,
    recall: float = 0.9,
    seed: int = 0,
) -> Confidence:
    """Learns the confidence of one head.

    Args:
        probabilities: (n, labels) as the head gives them.
        truth: "multi": (n, labels) 1, 0 or -1 = unknown; "single": (n,) label number or -1 = unknown.
        names: of the labels.
        kind: of the head.
        units: (n,) which unit each sample belongs to; None makes each sample its own, which is right only where
            samples are independent.
        alpha: risk of the sets.
        recall: wanted of each label's recall threshold.
        seed: of the split into parts.

    Raises:
        ConfigError: too few samples or units, wrong shapes, or values that can't be.
    """
    p, y, place = _checked(probabilities, truth, units, tuple(names), kind, alpha, recall)
    parts = _parts(place, seed)
    fitting, guard, check = (place_in for place_in in parts)
    counts = [len(np.unique(place[part])) for part in parts]
    needed = units_needed(alpha)
    if counts[1] < needed:
        raise ConfigError(
            f"confidence: expected at least {needed} units to guard alpha {alpha:g}, got {counts[1]} of {sum(counts)} "
            "in that quarter: give more drives, a larger alpha, or smaller units"
        )
    found = _temperatures(p[fitting], y[fitting], place[fitting], tuple(names), kind)
    found = replace(
        found,
        alpha=alpha,
        recall=recall,
        samples=dict(zip(("fit", "guard", "check"), (len(part) for part in parts))),
        units=dict(zip(("fit", "guard", "check"), counts)),
    )
    calibrated = found.apply(p)
    members = _members(y, len(names), kind)
    found = replace(
        found,
        f1_thresholds=tuple(_best_f1(calibrated[fitting, i], members[fitting, i]) for i in range(len(names))),
        recall_thresholds=tuple(
            _recall_threshold(calibrated[guard, i], members[guard, i], place[guard], recall) for i in range(len(names))
        ),
        set_threshold=_set_threshold(calibrated[guard], members[guard], place[guard], alpha),
    )
    return replace(found, figures=_figures(found, p, y, place, np.concatenate([guard, check]), check))


def _checked(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], units: NDArray[np.integer] | None,
    names: tuple[str, ...], kind: Kind, alpha: float, recall: float,
) -> tuple[F64, NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Probabilities, truth and units of the samples of which something is known."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(truth, np.int64)
    if kind not in ("single", "multi"):
        raise ConfigError(f"confidence: expected a kind of single or multi, got {kind!r}")
    if not (0.0 < alpha < 1.0 and 0.0 < recall < 1.0):
        raise ConfigError(f"confidence: expected alpha and recall within 0..1, got {alpha} and {recall}")
    wanted = (len(p),) if kind == "single" else (len(p), len(names))
    if p.ndim != 2 or p.shape[1] != len(names) or y.shape != wanted:
        raise ConfigError(
            f"confidence: expected probabilities (n, {len(names)}) and truth {wanted}, got {p.shape} and {y.shape}"
        )
    if not ((p >= 0.0) & (p <= 1.0)).all():  # NaN is neither
        raise ConfigError("confidence: expected probabilities of 0..1, got others")
    highest = len(names) - 1 if kind == "single" else 1
    if y.size and (y.min() < UNKNOWN or y.max() > highest):
        raise ConfigError(f"confidence: expected truth of -1..{highest}, got {y.min()}..{y.max()}")
    place = np.arange(len(p)) if units is None else np.asarray(units, np.int64)
    if place.shape != (len(p),):
        raise ConfigError(f"confidence: expected one unit a sample, got {place.shape} for {len(p)} samples")
    known = y >= 0 if kind == "single" else (y >= 0).any(axis=1)
    if known.sum() < LEAST_SAMPLES:
        raise ConfigError(f"confidence: expected at least {LEAST_SAMPLES} labelled samples, got {int(known.sum())}")
    return p[known], y[known], place[known]


def _parts(units: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sample numbers of fit, guard and check; no unit is in two."""
    shuffled = np.random.default_rng(seed).permutation(np.unique(units))
    half, quarter = len(shuffled) // 2, (len(shuffled) + 1) // 4
    cuts = shuffled[:half], shuffled[half : len(shuffled) - quarter], shuffled[len(shuffled) - quarter :]
    fitting, guard, check = (np.flatnonzero(np.isin(units, cut)) for cut in cuts)
    return fitting, guard, check


def _temperatures(
    p: F64, y: NDArray[np.int64], units: NDArray[np.int64], names: tuple[str, ...], kind: Kind
) -> Confidence:
    count, own = len(names), []
    biases = [0.0] * count
    if kind == "single":
        temperatures = [temperature.of_classes(temperature.log_probabilities(p), y)] * count
    else:
        scores, known = temperature.logits(p), y >= 0
        temperatures = [temperature.of_labels(scores[known], y[known] == 1)] * count
        for i, name in enumerate(names):
            at = known[:, i]
            fitted = _own_temperature(scores[at, i], y[at, i] == 1, units[at], temperatures[i])
            if fitted is not None:
                temperatures[i], biases[i] = fitted
                own.append(name)
    nothing = (None,) * count
    return Confidence(
        kind, names, tuple(temperatures), tuple(biases), tuple(own), nothing, 0.5, nothing, 0.5, None, {}, {}
    )


def _own_temperature(
    scores: F64, true: NDArray[np.bool_], units: NDArray[np.int64], shared: float
) -> tuple[float, float] | None:
    """A label's own temperature and bias; None where it would not serve units that it was not fitted on better."""
    if any(side.sum() < LEAST_OF_LABEL or len(np.unique(units[side])) < LEAST_UNITS_OF_LABEL for side in (true, ~true)):
        return None
    halves = np.searchsorted(np.unique(units), units) % 2 == 0
    gain = 0.0
    for half in (halves, ~halves):
        fitted = temperature.of_label(scores[half], true[half]) if 0 < true[half].sum() < half.sum() else None
        if fitted is None:
            return None
        signed = np.where(true[~half], 1.0, -1.0)
        own, other = scores[~half] / fitted[0] + fitted[1], scores[~half] / shared
        gain += float((np.logaddexp(0.0, -signed * other) - np.logaddexp(0.0, -signed * own)).sum())
    return temperature.of_label(scores, true) if gain > 0.0 else None


def _members(y: NDArray[np.int64], count: int, kind: Kind) -> NDArray[np.int64]:
    """(n, labels) 1, 0 or -1, whatever the kind."""
    return y if kind == "multi" else (y[:, None] == np.arange(count)).astype(np.int64)


def _best_f1(p: F64, y: NDArray[np.int64]) -> float | None:
    """The threshold with the best F1, in the middle between the two scores around it."""
    p, y = p[y >= 0], y[y >= 0]
    if not (y == 1).any():
        return None
    order = np.argsort(-p, kind="stable")
    p, hits = p[order], np.cumsum(y[order] == 1)
    f1 = 2.0 * hits / (np.arange(1, len(p) + 1) + hits[-1])
    f1[:-1][p[:-1] == p[1:]] = -1.0  # equal scores go together
    best = int(np.argmax(f1))
    below = p[best + 1] if best + 1 < len(p) else 0.0
    return float(0.5 * (p[best] + below))


def _recall_threshold(p: F64, y: NDArray[np.int64], units: NDArray[np.int64], recall: float) -> float | None:
    there = y == 1
    if not there.any():
        return None
    weights, count = unit_weights(units[there])
    return controlled_threshold(p[there], weights, count, 1.0 - recall)


def _set_threshold(p: F64, members: NDArray[np.int64], units: NDArray[np.int64], alpha: float) -> float | None:
    """Loss of a unit: mean over its samples of the share of their true labels that the set misses."""
    weights, count = unit_weights(units)
    true = members == 1
    share = weights / np.maximum(true.sum(axis=1), 1)
    sample, _ = np.nonzero(true)
    return controlled_threshold(p[true], share[sample], count, alpha)


def _sets(calibrated: F64, threshold: float, kind: Kind) -> NDArray[np.bool_]:
    held = calibrated >= threshold
    if kind == "single":
        np.put_along_axis(held, calibrated.argmax(axis=-1)[..., None], True, axis=-1)
    return np.asarray(held, np.bool_)


def _figures(
    found: Confidence, p: F64, y: NDArray[np.int64], units: NDArray[np.int64],
    unseen: NDArray[np.int64], check: NDArray[np.int64],
) -> dict[str, Any]:  # fmt: skip
    calibrated = found.apply(p)
    figures: dict[str, Any] = {
        "before": _reliability(p[unseen], y[unseen], found.kind).as_json(),
        "after": _reliability(calibrated[unseen], y[unseen], found.kind).as_json(),
    }
    members = _members(y, len(found.names), found.kind)
    figures["labels"] = {
        name: _label_figures(found, i, p[unseen, i], calibrated[unseen, i], members[unseen, i])
        for i, name in enumerate(found.names)
    }
    if found.set_threshold is not None and len(check):
        held = _sets(calibrated[check], found.set_threshold, found.kind)
        true = members[check] == 1
        weights, count = unit_weights(units[check])
        missed = (true & ~held).sum(axis=1) / np.maximum(true.sum(axis=1), 1)
        figures["sets"] = {
            "missed": round(float((weights * missed).sum() / count), 5),
            "promised": found.alpha,
            "mean_size": round(float(held.sum(axis=1).mean()), 3),
            "true_labels": round(float(true.sum(axis=1).mean()), 3),
        }
    return figures


def _label_figures(found: Confidence, i: int, before: F64, after: F64, y: NDArray[np.int64]) -> dict[str, Any]:
    before, after, true = before[y >= 0], after[y >= 0], y[y >= 0] == 1
    entry: dict[str, Any] = {
        "samples": len(true),
        "positive": int(true.sum()),
        "ece_before": round(reliability.of_statements(before, true)[0], 5),
        "ece_after": round(reliability.of_statements(after, true)[0], 5),
    }
    threshold = found.f1_thresholds[i]
    if threshold is not None and true.any():
        given = after >= threshold
        entry["f1"] = round(2.0 * float((given & true).sum()) / float(given.sum() + true.sum()), 4)
    return entry


def _reliability(p: F64, y: NDArray[np.int64], kind: Kind) -> reliability.Reliability:
    return reliability.of_classes(p, y) if kind == "single" else reliability.of_labels(p, y.astype(np.int8))


def _check(read: Confidence) -> None:
    count = len(read.names)
    columns = (read.temperatures, read.biases, read.f1_thresholds, read.recall_thresholds)
    if read.kind not in ("single", "multi") or count == 0 or any(len(column) != count for column in columns):
        raise ConfigError(f"confidence: expected {count} values of each kind for {count} labels, got others")
    thresholds = [*read.f1_thresholds, *read.recall_thresholds, read.set_threshold]
    known = np.array([value for value in thresholds if value is not None], np.float64)
    warmth, shift = np.asarray(read.temperatures, np.float64), np.asarray(read.biases, np.float64)
    if not ((warmth > 0).all() and np.isfinite(warmth).all() and np.isfinite(shift).all()):
        raise ConfigError("confidence: expected positive temperatures and finite biases, got others")
    if not ((known >= 0.0) & (known <= 1.0)).all():
        raise ConfigError("confidence: expected thresholds of 0..1, got others")
