"""A sketch is never further off than it says."""

from __future__ import annotations

import numpy as np
import pytest

from cloud.search import sketch

from .galleries import batch, filled


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_products_are_within_the_bound_of_the_true_ones(
    seed: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketch, "AXES", 8)
    monkeypatch.setattr(sketch, "LEAST_KEPT", 0.0)
    monkeypatch.setattr(sketch, "_BLOCK", 300)
    gallery, random = filled(seed, 6, noise), np.random.default_rng(seed)
    view = gallery.view()
    made = sketch.made(view, np.flatnonzero(view.alive & view.is_comparable), random)
    assert made is not None and made.codes.shape == (view.rows, 8)
    gallery.put(batch(random, [5_000, 5_001], 32))  # came later
    view = gallery.view()
    every = np.arange(view.rows)
    for length in (0.1, 1.0, 10.0):
        query = (length * random.standard_normal(32)).astype(np.float32)
        true = view.vectors.astype(np.float64) @ query * view.scales
        asked = made.asked(query)
        off = np.abs(asked.products(view, every) - true)
        assert off.max() <= asked.error
        assert off[len(made.codes) :].max() < 1e-3 * length
        some = np.sort(random.choice(view.rows, 50, replace=False))
        assert asked.products(view, some) == pytest.approx(asked.products(view, every)[some])
    assert asked.error < (0.05 + 8 * noise) * np.linalg.norm(query), "the bound says something"


def test_vectors_near_no_few_axes_have_no_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "AXES", 8)
    view = filled(0, 32, 0.0).view()
    assert sketch.made(view, np.flatnonzero(view.is_comparable), np.random.default_rng(0)) is None
