"""Scenes out of the database, as the gallery takes them: their numbers, and a row for each moment that can be found.

Vectors come as PostgreSQL sends them: the number of dimensions and a zero (int16 each), then half floats, all
big-endian. They hold signed bytes exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.engine import Connection

from cloud import labels
from cloud.report import EVICTED, HELD, LOST
from cloud.search.gallery import ANALYSED, TOLD, Batch
from cloud.search.predicate import NUMBERS

_HEADER_BYTES: Final = 4
# Vectors are of unit length, but for what rounding to bytes does. A vehicle that tells another scale is not believed:
# a vector a thousand times as long would be the nearest to every question, and a huge one would make all answers NaN.
LENGTHS: Final = (0.5, 2.0)
_MEDIA: Final = {HELD: "held", EVICTED: "evicted", LOST: "lost"}
_SCORES: Final = ("novelty", "uncertainty", "disagreement", "misaligned")
_SCENES: Final = text("""
SELECT id, vehicle, outbox, sequence, first_ns, last_ns, peak_ns, hardness, scores, scene_tags, sound_events,
       extract(epoch FROM recorded_at)::float8 AS recorded_s, bundle_id, media, bytes,
       received_at IS NOT NULL AS is_here,
       latitude_deg, longitude_deg, halfvec_send(embedding) AS vector, embedding_scale AS scale
FROM scenes WHERE id = ANY(:ids) ORDER BY id
""")
_MOMENTS: Final = text("""
SELECT m.scene_id, m.instant_ns, m.labels, halfvec_send(v.vector) AS vector, v.scale
FROM moments m LEFT JOIN vectors v ON v.scene_id = m.scene_id AND v.model = m.model AND v.instant_ns = m.instant_ns
     AND v.modality = 'scene' AND v.space = :space
WHERE m.scene_id = ANY(:ids) AND m.model = :model ORDER BY m.scene_id, m.instant_ns
""")


def read(connection: Connection, space: str, model: str, ids: Sequence[int], dimensions: int) -> Batch:
    """Scenes as they are now.

    Args:
        space, model: whose vectors count; a scene that the model has not analysed is as its vehicle told it.
        dimensions: vectors of other lengths count as none.
    """
    scenes = connection.execute(_SCENES, {"ids": list(ids)}).all()
    moments: dict[int, list[Any]] = {}
    if model:
        for moment in connection.execute(_MOMENTS, {"ids": list(ids), "model": model, "space": space}).all():
            moments.setdefault(moment.scene_id, []).append(moment)
    rows = _Rows(dimensions)
    for place, scene in enumerate(scenes):
        analysed = moments.get(scene.id)
        for moment in analysed or ():
            rows.add(place, moment.instant_ns, moment.vector, moment.scale, moment.labels)
        if not analysed:
            is_comparable = scene.bundle_id == space
            rows.add(place, scene.peak_ns, scene.vector if is_comparable else None, scene.scale, told_labels(scene))
    return Batch(
        np.array([scene.id for scene in scenes], np.int64),
        np.array([_numbers(scene) for scene in scenes], np.float64).reshape(len(scenes), len(NUMBERS)).T,
        {
            "vehicle": [scene.vehicle for scene in scenes],
            "bundle": [scene.bundle_id for scene in scenes],
            "media": ["here" if scene.is_here else _MEDIA.get(scene.media, "lost") for scene in scenes],
        },
        np.array([[_or_nan(scene.latitude_deg), _or_nan(scene.longitude_deg)] for scene in scenes]).reshape(-1, 2).T,
        [bytes(scene.outbox) for scene in scenes],
        np.array([scene.sequence for scene in scenes], np.int64),
        np.array([ANALYSED if scene.id in moments else TOLD for scene in scenes], np.uint8),
        *rows.arrays(),
        rows.labels,
    )


def told_labels(scene: Any) -> dict[str, float]:
    """What a vehicle told of a scene, by the names of the catalogue's labels."""
    told = {labels.of_tag(tag["name"]): float(tag["probability"]) for tag in scene.scene_tags}
    return told | {labels.of_sound(tag["name"]): float(tag["probability"]) for tag in scene.sound_events}


def json_text(value: Mapping[str, Any]) -> str:
    """As jsonb is bound in plain SQL."""
    return json.dumps(value, sort_keys=True)


def signed(vector: bytes, dimensions: int) -> NDArray[np.int8] | None:
    """What halfvec_send gave, as signed bytes; None: of another length."""
    if len(vector) != _HEADER_BYTES + 2 * dimensions:
        return None
    return np.frombuffer(vector, ">f2", offset=_HEADER_BYTES).astype(np.int8)


class _Rows:
    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._scenes: list[int] = []
        self._instants: list[int] = []
        self._vectors: list[bytes] = []
        self._scales: list[float] = []
        self.labels: list[Mapping[str, float]] = []

    def add(self, scene: int, instant_ns: int, vector: bytes | None, scale: float, known: Mapping[str, float]) -> None:
        size = _HEADER_BYTES + 2 * self._dimensions
        has_vector = vector is not None and len(vector) == size
        self._scenes.append(scene)
        self._instants.append(int(instant_ns))
        self._vectors.append(bytes(vector) if has_vector and vector is not None else bytes(size))
        self._scales.append(scale if has_vector else 0.0)
        self.labels.append(known)

    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int8], NDArray[np.float32]]:
        halves = np.frombuffer(b"".join(self._vectors), ">f2").reshape(len(self._vectors), -1)
        vectors = halves[:, _HEADER_BYTES // 2 :].astype(np.float32).astype(np.int8)
        with np.errstate(over="ignore"):  # a vehicle may tell any scale: such a vector is not of unit length
            lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float32)) * np.array(self._scales)
        is_unit = (lengths >= LENGTHS[0]) & (lengths <= LENGTHS[1])
        return (
            np.array(self._scenes, np.int32),
            np.array(self._instants, np.int64),
            np.where(is_unit[:, None], vectors, np.int8(0)),
            np.where(is_unit, self._scales, 0.0).astype(np.float32),
        )


def _numbers(scene: Any) -> list[float]:
    scores = {score["name"]: float(score["value"]) for score in scene.scores}
    known = {
        "hardness": scene.hardness,
        "recorded_s": _or_nan(scene.recorded_s),
        "duration_s": (scene.last_ns - scene.first_ns) / 1e9,
        "bytes": float(scene.bytes),
        **{name: scores.get(name, 0.0) for name in _SCORES},
    }
    return [float(known[name]) for name in NUMBERS]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
