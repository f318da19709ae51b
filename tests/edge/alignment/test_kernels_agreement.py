"""The agreement kernel, emulated: bit-equal to the reference under any order of threads."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from edge.alignment import reference


def _run(bench: Any, embeddings: Any, present: Any) -> Any:
    sets, modalities, _ = embeddings.shape
    cosine = bench.room((sets, modalities * (modalities - 1) // 2), "float32")
    [got] = bench.run(bench.kernels.agreement(bench.put(embeddings), bench.put(present), cosine), cosine)
    return got


@pytest.mark.parametrize(
    ("sets", "modalities", "size"), [(0, 3, 8), (1, 1, 8), (1, 2, 1), (3, 5, 33), (17, 6, 192), (2, 3, 0)]
)
def test_cosines_are_the_references(bench: Any, random: Any, sets: int, modalities: int, size: int) -> None:
    embeddings = random.normal(size=(sets, modalities, size)).astype(np.float32)
    present = random.integers(0, 2, (sets, modalities)).astype(np.uint8)
    got, wanted = _run(bench, embeddings, present), reference.agreement(embeddings, present)
    assert got.tobytes() == wanted.tobytes()
    for b in range(sets):
        for pair, (i, j) in enumerate(combinations(range(modalities), 2)):
            x, y = embeddings[b, i].astype(np.float64), embeddings[b, j].astype(np.float64)
            exact = x @ y / np.sqrt((x @ x) * (y @ y)) if size and present[b, i] and present[b, j] else 0.0
            assert got[b, pair] == pytest.approx(exact, abs=1e-6)


def test_absent_or_empty_embeddings_agree_with_nothing(bench: Any) -> None:
    embeddings = np.ones((1, 3, 40), np.float32)
    embeddings[0, 2] = 0
    assert _run(bench, embeddings, np.array([[1, 1, 1]], np.uint8)).tolist() == [[pytest.approx(1.0, abs=1e-6), 0, 0]]
    embeddings[0, 1] = np.nan  # what lies where a modality is absent is of no consequence
    assert _run(bench, embeddings, np.array([[1, 0, 1]], np.uint8)).tolist() == [[0, 0, 0]]
