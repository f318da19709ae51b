"""Random galleries and the plainest way to search them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from cloud.search.gallery import ANALYSED, Batch, Gallery, View, byte_of
from cloud.search.predicate import NUMBERS, And, Between, Has, In, Near, Not, Or, Predicate, Then

LABELS = ("light:night", "sound:siren", "intent:waits", "tag:odd")
VEHICLES = ("car-1", "car-2", "car-3")


def batch(random: np.random.Generator, ids: list[int], dimensions: int = 16, most_rows: int = 5) -> Batch:
    """Scenes of 1 to `most_rows` moments."""
    count = len(ids)
    numbers = random.random((len(NUMBERS), count))
    numbers[NUMBERS.index("recorded_s")] = np.where(random.random(count) < 0.2, np.nan, random.random(count) * 1e6)
    each = random.integers(1, most_rows + 1, count)
    rows = int(each.sum())
    return Batch(
        np.array(ids, np.int64),
        numbers,
        {
            "vehicle": [VEHICLES[i] for i in random.integers(0, 3, count)],
            "bundle": ["b"] * count,
            "media": [("here", "held")[i] for i in random.integers(0, 2, count)],
        },
        np.array([48 + random.random(count), 11 + random.random(count)]),
        [bytes([i % 256]) * 16 for i in ids],
        np.array(ids, np.int64),
        np.full(count, ANALYSED, np.uint8),
        np.repeat(np.arange(count, dtype=np.int32), each),
        np.concatenate([np.sort(random.choice(40, n, replace=False)) * 250_000_000 for n in each]).astype(np.int64),
        random.integers(-127, 128, (rows, dimensions), dtype=np.int8),
        np.where(random.random(rows) < 0.05, 0, random.random(rows) * 0.01 + 0.001).astype(np.float32),
        [{label: float(random.random()) for label in LABELS if random.random() < 0.8} for _ in range(rows)],
    )


def gallery(seed: int, scenes: int, dimensions: int = 16) -> Gallery:
    """A gallery, some of whose scenes changed."""
    random = np.random.default_rng(seed)
    made = Gallery(dimensions)
    made.put(batch(random, list(range(1, scenes + 1)), dimensions))
    made.put(batch(random, sorted(random.choice(np.arange(1, scenes + 1), scenes // 3, replace=False).tolist())))
    return made


def filled(seed: int, axes: int, noise: float, scenes: int = 1_000) -> Gallery:
    """A gallery of vectors of 32 dimensions and about unit length that lie near some axes."""
    random = np.random.default_rng(seed)
    rows = batch(random, list(range(1, scenes + 1)), 32, most_rows=2)
    vectors = random.standard_normal((len(rows.scales), axes)) @ random.standard_normal((axes, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors += noise * random.standard_normal(vectors.shape)
    scales = np.where(rows.scales > 0, np.abs(vectors).max(1) / 127, 0)
    coded = np.rint(vectors / np.maximum(scales, 1e-9)[:, None]).clip(-127, 127)
    made = Gallery(32)
    made.put(replace(rows, vectors=coded.astype(np.int8), scales=scales.astype(np.float32)))
    return made


def holds(view: View, predicate: Predicate, row: int) -> bool:
    """Whether one row matches, without arrays."""
    scene = int(view.row_scene[row])
    match predicate:
        case Has(label, least):
            column = view.labels.get(label)
            return byte_of(least) <= (0 if column is None else int(column[row]))
        case Between(field, low, high):
            return bool(low <= view.numbers[NUMBERS.index(field), scene] <= high)
        case In(field, values):
            return view.texts[field][scene] in {view.words[field].get(value) for value in values}
        case Near(latitude, longitude, radius_m):
            return _metres(*view.places[:, scene].tolist(), latitude, longitude) <= radius_m
        case And(parts):
            return all(holds(view, part, row) for part in parts)
        case Or(parts):
            return any(holds(view, part, row) for part in parts)
        case Not(part):
            return not holds(view, part, row)
        case Then(first, second, within_s):
            return holds(view, first, row) and any(
                holds(view, second, later) and 0 < view.instants_ns[later] - view.instants_ns[row] <= within_s * 1e9
                for later in range(view.rows)
                if view.alive[later] and view.row_scene[later] == scene
            )


def _metres(a: float, b: float, c: float, d: float) -> float:
    north, other = math.radians(a), math.radians(c)
    cosine = math.sin(north) * math.sin(other) + math.cos(north) * math.cos(other) * math.cos(math.radians(b - d))
    return 6_371_008.8 * math.acos(min(1.0, cosine))


def brute(view: View, predicate: Predicate, score: Any) -> list[tuple[float, int, int]]:
    """(score, scene id, row) of the best row of each scene, in order; `score` of a row, None to leave it out."""
    best: dict[int, tuple[float, int, int]] = {}
    for row in range(view.rows):
        if not view.alive[row] or not holds(view, predicate, row):
            continue
        value = score(row)
        scene = int(view.ids[view.row_scene[row]])
        if value is not None and (scene not in best or value > best[scene][0]):
            best[scene] = (value, scene, row)
    return sorted(best.values(), key=lambda one: (-one[0], one[1]))
