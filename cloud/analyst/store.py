"""Analyses in the catalogue: a scene's report, moments and vectors go in together, and replace what was there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Connection, any_, delete, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from cloud.analyst.analyst import View
from cloud.analyst.clip import MODALITIES, Replayed
from cloud.tables import ANALYSES, FACTS, MOMENTS, VECTORS
from edge.uplink.summary import quantised

F32 = NDArray[np.float32]
SEARCHED: Final = "searched"
# What search calls the modalities of the edge.
NAMES: Final = {"camera": "image", "audio": "audio", "motion": "motion", "lidar": "lidar"}
# Probabilities below say nothing, and most are.
LEAST: Final = 0.01
_DECIMALS: Final = 4


def write(
    connection: Connection, scene_id: int, model: str, space: str, clip: Replayed, view: View,
    report: Mapping[str, Any],
) -> int:  # fmt: skip
    """Write an analysis; one of the same scene and model goes.

    Returns:
        How many vectors it has.
    """
    whose = (ANALYSES.c.scene_id == scene_id) & (ANALYSES.c.model == model)
    connection.execute(delete(ANALYSES).where(whose))  # and with it its moments and vectors
    key = {"scene_id": scene_id, "model": model}
    connection.execute(insert(ANALYSES).values(**key, space=space, report=dict(report)))
    moments = [
        {**key, "instant_ns": stamp_ns, "labels": _labels(labels)}
        for stamp_ns, labels in zip(clip.stamps_ns, view.labels)
    ]
    connection.execute(insert(MOMENTS), moments)
    vectors = [
        {**key, "space": space, "instant_ns": stamp_ns, "modality": modality, "vector": vector, "scale": scale}
        for stamp_ns, modality, vector, scale in _vectors(clip, view)
    ]
    if vectors:
        connection.execute(insert(VECTORS), vectors)
    return len(vectors)


def search_first(connection: Connection, space: str, model: str) -> None:
    """Have this space and model searched, if none is yet."""
    value = {"space": space, "model": model}
    connection.execute(insert(FACTS).values(name=SEARCHED, value=value).on_conflict_do_nothing())


def moments(connection: Connection, scene_id: int, model: str) -> list[tuple[int, dict[str, float]]]:
    """The moments of an analysis by time: instant, ns, and labels."""
    query = (
        select(MOMENTS.c.instant_ns, MOMENTS.c.labels)
        .where(MOMENTS.c.scene_id == scene_id, MOMENTS.c.model == model)
        .order_by(MOMENTS.c.instant_ns)
    )
    return [(row.instant_ns, row.labels) for row in connection.execute(query)]


def analysis(connection: Connection, scene_id: int, model: str | None = None) -> Any:
    """The row of an analysis; None: of the model that is searched, else the newest. None where there is none."""
    query = select(ANALYSES).where(ANALYSES.c.scene_id == scene_id)
    if model is not None:
        query = query.where(ANALYSES.c.model == model)
    return connection.execute(query.order_by(*_best()).limit(1)).one_or_none()


def reports(connection: Connection, scene_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The report of each scene that has one: of the model that is searched, else the newest."""
    query = (
        select(ANALYSES.c.scene_id, ANALYSES.c.report)
        .where(ANALYSES.c.scene_id == any_(literal(list(scene_ids), ARRAY(BigInteger))))
        .order_by(*_best())
    )
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(query):
        found.setdefault(row.scene_id, row.report)
    return found


def _best() -> tuple[Any, ...]:
    searched = select(FACTS.c.value["model"].astext).where(FACTS.c.name == SEARCHED).scalar_subquery()
    return func.coalesce(ANALYSES.c.model == searched, False).desc(), ANALYSES.c.made_at.desc()


def _labels(labels: Mapping[str, float]) -> dict[str, float]:
    return {name: round(p, _DECIMALS) for name, p in labels.items() if p >= LEAST}


def _vectors(clip: Replayed, view: View) -> Iterator[tuple[int, str, bytes, float]]:
    """Instant, modality, signed bytes and scale of all vectors that there are."""
    rows: Sequence[tuple[str, F32, Any]] = [
        ("scene", view.scene, None),
        *((NAMES[name], clip.embeddings[:, row], clip.presence[:, row]) for row, name in enumerate(MODALITIES)),
        *([("video", view.video, clip.presence[:, 0])] if view.video is not None else []),
    ]
    for modality, values, there in rows:
        for i, stamp_ns in enumerate(clip.stamps_ns):
            if there is None or there[i]:
                vector, scale = quantised(np.ascontiguousarray(values[i], "<f4").tobytes())
                if vector:
                    yield stamp_ns, modality, vector, scale
