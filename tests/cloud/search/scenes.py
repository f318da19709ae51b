"""Scenes and analyses in a real database, as ingest and the worker put them there."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, insert, text

from cloud.tables import ANALYSES, MOMENTS, OUTBOXES, SCENES, VECTORS, VEHICLES
from edge.uplink.summary import quantised

SPACE = "5" * 64
DIMENSIONS = 192


def unit(seed: int) -> np.ndarray[Any, Any]:
    """(192,) float32 of unit length."""
    values = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return values / np.linalg.norm(values)


class Vehicle:
    """Tells scenes of its own outbox."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name, self.outbox = name, os.urandom(16)
        connection.execute(insert(VEHICLES).values(name=name))
        connection.execute(insert(OUTBOXES).values(vehicle=name, outbox=self.outbox, last_sequence=0))
        self._last = 0

    def tell(self, connection: Connection, seed: int, **said: Any) -> int:
        """A scene whose embedding is `unit(seed)`; gives its id."""
        self._last += 1
        told, scale = quantised(unit(seed).astype("<f4").tobytes())
        row = {
            "vehicle": self.name, "outbox": self.outbox, "sequence": self._last, "first_ns": 0, "peak_ns": 10**9,
            "last_ns": 2 * 10**9, "hardness": 0.5, "scores": [{"name": "novelty", "value": 0.25, "weight": 1.0}],
            "scene_tags": [], "sound_events": [], "embedding": told, "embedding_scale": scale, "bundle_id": SPACE,
            "lane_probability": 0.0, "media": 1, "reason": "", "bytes": 10, "sha256": b"",
        }  # fmt: skip
        return int(connection.execute(insert(SCENES).values(row | said).returning(SCENES.c.id)).scalar_one())


def analyse(
    connection: Connection, scene: int, seeds: list[int], labels: list[dict[str, float]], model: str = "analyst"
) -> None:
    """A model's moments of a scene, one each quarter of a second, with vectors `unit(seed)`."""
    connection.execute(
        text("DELETE FROM analyses WHERE scene_id = :scene AND model = :model"), {"scene": scene, "model": model}
    )
    connection.execute(insert(ANALYSES).values(scene_id=scene, model=model, space=SPACE, report={}))
    for at, (seed, known) in enumerate(zip(seeds, labels, strict=True)):
        place = {"scene_id": scene, "model": model, "instant_ns": at * 250_000_000}
        connection.execute(insert(MOMENTS).values(**place, labels=known))
        for modality, its_seed in (("scene", seed), ("audio", seed + 100_000)):
            vector, scale = quantised(unit(its_seed).astype("<f4").tobytes())
            connection.execute(
                insert(VECTORS).values(**place, modality=modality, space=SPACE, vector=vector, scale=scale)
            )


def search_by(engine: Engine, space: str, model: str) -> None:
    """Say what is searched."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO facts (name, value) VALUES ('searched', CAST(:value AS jsonb)) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            ),
            {"value": json.dumps({"space": space, "model": model})},
        )
