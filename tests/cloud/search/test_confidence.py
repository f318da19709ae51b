"""Confidence is a chance: fitted, it says how often answers are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud.errors import ModelError
from cloud.search.confidence import DEFAULT, FEATURES, features, fit, load, to_json


def test_fitted_confidence_is_as_often_right_as_it_says() -> None:
    random = np.random.default_rng(2)
    cosines = random.uniform(0, 1, 20_000)
    found = features(np.log(random.uniform(0.05, 1, 20_000)), cosines, (0.3, 0.2))
    is_right = random.random(20_000) < 1 / (1 + np.exp(-(6 * cosines - 2)))
    weights = fit(found[:10_000], is_right[:10_000])
    said = weights.confidence(found[10_000:])
    bins = np.digitize(said, np.linspace(0, 1, 11)[1:-1])
    error = sum(
        abs(said[bins == b].mean() - is_right[10_000:][bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    )
    assert error < 0.03


def test_weights_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(to_json(DEFAULT, ece=0.5))
    assert load(path) == DEFAULT
    assert load(tmp_path / "absent.json") == DEFAULT


@pytest.mark.parametrize("content", ["", "[]", '{"weights": {}}', '{"weights": 1, "bias": 2}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(ModelError, match="expected weights"):
        load(path)


def test_without_a_fit_the_labels_say_how_sure_an_answer_is() -> None:
    sure, unsure = DEFAULT.confidence(features(np.log([0.95, 0.3]), None, (0.0, 1.0)))
    assert sure == pytest.approx(0.95, abs=0.01) and unsure == pytest.approx(0.3, abs=0.01)
    near, far = DEFAULT.confidence(features(None, np.array([0.9, 0.3]), (0.3, 0.1)))
    assert near > 0.9 and far < 0.1
    assert features(np.zeros(3), np.zeros(3), (0.0, 0.0)).shape == (3, len(FEATURES))
    assert np.isfinite(features(np.array([-np.inf]), None, (0.0, 1.0))).all()
