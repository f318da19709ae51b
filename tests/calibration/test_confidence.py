"""The rules of confidence: what calibration may and may not change, and what its guarantees promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration import temperature
from calibration.confidence import Confidence, fit
from calibration.risk import controlled_threshold, unit_weights, units_needed
from edge.errors import ConfigError

F64 = NDArray[np.float64]


def said_and_true(seed: int, samples: int, kind: str, overconfidence: float) -> tuple[F64, NDArray[np.int64]]:
    """A head that is right as often as its logits say, and says them times `overconfidence`."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.0, 2.0, (samples, 4))
    if kind == "single":
        held = temperature.softmax(scores)
        return temperature.softmax(overconfidence * scores), np.array([rng.choice(4, p=row) for row in held])
    true = rng.random(scores.shape) < temperature.sigmoid(scores)
    return temperature.sigmoid(overconfidence * scores), true.astype(np.int64)


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("overconfidence", [0.4, 3.0])
def test_a_planted_overconfidence_is_found_and_undone(kind: str, overconfidence: float) -> None:
    said, true = said_and_true(1, 6000, kind, overconfidence)
    confidence = fit(said, true, names="abcd", kind=kind)  # type: ignore[arg-type]
    assert np.allclose(confidence.temperatures, overconfidence, rtol=0.15)
    assert confidence.figures["after"]["ece"] < 0.03 < confidence.figures["before"]["ece"]
    assert confidence.figures["after"]["brier"] < confidence.figures["before"]["brier"]


@given(st.integers(0, 1000), st.sampled_from(["single", "multi"]), st.floats(0.3, 4.0))
@settings(max_examples=25)
def test_calibration_never_changes_the_order_of_answers(seed: int, kind: str, overconfidence: float) -> None:
    said, true = said_and_true(seed, 300, kind, overconfidence)
    calibrated = fit(said, true, names="abcd", kind=kind).apply(said)  # type: ignore[arg-type]
    if kind == "single":  # of the labels of a sample
        assert (np.diff(np.take_along_axis(calibrated, np.argsort(said, axis=1), 1), axis=1) >= 0).all()
        assert np.allclose(calibrated.sum(axis=1), 1.0)
    else:  # of the samples of a label
        assert (np.diff(np.take_along_axis(calibrated, np.argsort(said, axis=0), 0), axis=0) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_sets_miss_at_most_alpha_of_new_samples(kind: str, alpha: float) -> None:
    missed = []
    for seed in range(60):  # the promise is a mean over calibrations too
        said, true = said_and_true(seed, 800, kind, 3.0)
        confidence = fit(said[:400], true[:400], names="abcd", kind=kind, alpha=alpha)  # type: ignore[arg-type]
        held = confidence.sets(said[400:])
        there = np.eye(4, dtype=bool)[true[400:]] if kind == "single" else true[400:] == 1
        missed.append(((there & ~held).sum(1) / np.maximum(there.sum(1), 1)).mean())
    spread = np.std(missed) / np.sqrt(len(missed))
    assert np.mean(missed) <= alpha + 3 * spread
    assert np.mean(missed) >= 0.6 * alpha - 3 * spread  # and they are not merely large


def test_units_keep_the_promise_where_counting_frames_breaks_it() -> None:
    """Frames of a unit share one difficulty; the promise for a new unit holds only when units are what is counted."""
    alpha, counted, ignored = 0.1, [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        hard = rng.beta(0.3, 0.3, 12)  # of each drive; the last is new
        scores = np.clip(1.0 - hard[:, None] + 0.02 * rng.normal(size=(12, 20)), 0, 1)
        known, new = scores[:11].reshape(-1), scores[11]
        weights, units = unit_weights(np.repeat(np.arange(11), 20))
        by_unit = controlled_threshold(known, weights, units, alpha)
        by_frame = controlled_threshold(known, np.ones(len(known)), len(known), alpha)
        assert by_unit is not None and by_frame is not None
        counted.append((new < by_unit).mean())
        ignored.append((new < by_frame).mean())
    assert np.mean(counted) <= alpha + 3 * np.std(counted) / 20
    assert np.mean(ignored) > np.mean(counted) + 0.01


@given(st.integers(1, 200), st.floats(0.01, 0.5), st.integers(0, 99))
def test_one_sample_a_unit_gives_the_split_conformal_quantile(count: int, alpha: float, seed: int) -> None:
    scores = np.random.default_rng(seed).random(count)
    threshold = controlled_threshold(scores, np.ones(count), count, alpha)
    assume(abs(alpha * (count + 1) - round(alpha * (count + 1))) > 1e-9)  # whole ranks: the test below
    rank = int(np.floor(alpha * (count + 1)))
    if rank == 0:
        assert threshold is None and count < units_needed(alpha)
    else:
        assert threshold == np.sort(scores)[rank - 1]


@pytest.mark.parametrize(
    ("count", "alpha", "rank"), [(9, 0.1, 1), (99, 0.01, 1), (19, 0.1, 2), (8, 0.1, 0), (29, 0.1, 3)]
)
def test_whole_ranks_lose_nothing_to_rounding(count: int, alpha: float, rank: int) -> None:
    scores = np.arange(1.0, count + 1) / (count + 1)
    threshold = controlled_threshold(scores, np.ones(count), count, alpha)
    assert threshold == (scores[rank - 1] if rank else None)
    assert (count >= units_needed(alpha)) == (rank > 0)


def test_recall_thresholds_find_what_was_asked() -> None:
    found = []
    for seed in range(40):
        said, true = said_and_true(seed, 1600, "multi", 2.0)
        confidence = fit(said[:800], true[:800], names="abcd", kind="multi", recall=0.8)
        given_ = confidence.apply(said[800:]) >= np.array(confidence.recall_thresholds, np.float64)
        there = true[800:] == 1
        found.append((given_ & there).sum() / there.sum())
    assert np.mean(found) >= 0.8 - 3 * np.std(found) / np.sqrt(len(found))


def test_uncalibrated_thresholds_decide_as_the_calibrated_ones() -> None:
    said, true = said_and_true(5, 3000, "multi", 2.5)
    confidence = fit(said, true, names="abcd", kind="multi")
    raw = np.array(confidence.uncalibrated(confidence.f1_thresholds), np.float64)
    calibrated = np.array(confidence.f1_thresholds, np.float64)
    assert ((said >= raw) == (confidence.apply(said) >= calibrated)).mean() > 0.999


def test_unknown_truth_counts_nowhere() -> None:
    said, true = said_and_true(3, 2000, "multi", 2.0)
    true[:, 1] = -1
    confidence = fit(said, true, names="abcd", kind="multi")
    assert "b" not in confidence.own and confidence.f1_thresholds[1] is None
    assert confidence.figures["labels"]["b"]["samples"] == 0
    assert confidence.figures["before"]["statements"] == 3 * sum(confidence.samples[k] for k in ("guard", "check"))


def test_a_rare_label_shares_the_heads_temperature() -> None:
    said, true = said_and_true(4, 2000, "multi", 2.0)
    true[:, 2] = 0
    true[:20, 2] = 1
    assert fit(said, true, names="abcd", kind="multi").own == ("a", "b", "d")


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_file_gives_back_what_was_written(kind: str) -> None:
    said, true = said_and_true(2, 500, kind, 2.0)
    confidence = fit(said, true, names="abcd", kind=kind)  # type: ignore[arg-type]
    assert Confidence.from_json(confidence.to_json()) == confidence
    assert Confidence.from_json(confidence.to_json()).to_json() == confidence.to_json()


def test_parts_are_disjoint_by_unit_and_the_same_every_time() -> None:
    said, true = said_and_true(2, 2000, "multi", 2.0)
    units = np.repeat(np.arange(50), 40)
    one = fit(said, true, names="abcd", kind="multi", units=units)
    assert sum(one.units.values()) == 50 and sum(one.samples.values()) == 2000
    assert one == fit(said, true, names="abcd", kind="multi", units=units)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"samples": 40}, "at least 100 labelled samples, got 40"),
        ({"units": 8}, "at least 9 units to guard alpha 0.1, got 2 of 8"),
        ({"names": "abc"}, r"expected probabilities \(n, 3\)"),
        ({"alpha": 0.0}, "alpha and recall within 0..1"),
        ({"probability": np.nan}, "probabilities of 0..1"),
        ({"truth": 7}, "truth of -1..1"),
    ],
)
def test_what_can_not_be_learned_from_is_refused(change: dict[str, float], expected: str) -> None:
    said, true = said_and_true(1, int(change.get("samples", 400)), "multi", 1.0)
    said[0, 0] = change.get("probability", said[0, 0])
    true[0, 0] = int(change.get("truth", true[0, 0]))
    units = np.arange(len(said)) % int(change["units"]) if "units" in change else None
    with pytest.raises(ConfigError, match=expected):
        fit(
            said,
            true,
            names=str(change.get("names", "abcd")),
            kind="multi",
            units=units,
            alpha=change.get("alpha", 0.1),
        )


@pytest.mark.parametrize("damage", ["{}", "[]", "nonsense", "format", "temperatures", "names", "set_threshold"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    said, true = said_and_true(1, 400, "multi", 1.0)
    content = json.loads(fit(said, true, names="abcd", kind="multi").to_json())
    wrong = {"format": 9, "temperatures": [1.0, -1.0, 1.0, 1.0], "names": ["a"], "set_threshold": 2.0}
    text = json.dumps({**content, damage: wrong[damage]}) if damage in wrong else damage
    with pytest.raises(ConfigError, match="confidence: "):
        Confidence.from_json(text)
