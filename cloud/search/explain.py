"""Why a moment was found: how near each modality of it is to what was asked, as the database has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cloud.search.query import Answers
from cloud.search.rows import signed

_UNEXPLAINED: Final = "the database is away, which knows how near each modality is"
_VECTORS = text("""
SELECT v.scene_id, v.instant_ns, v.modality, halfvec_send(v.vector) AS vector, v.scale
FROM vectors v JOIN unnest(CAST(:scenes AS bigint[]), CAST(:instants AS bigint[])) AS shown(scene_id, instant_ns)
     ON v.scene_id = shown.scene_id AND v.instant_ns = shown.instant_ns
WHERE v.model = :model AND v.space = :space
""")


def explained(engine: Engine, page: Answers, space: str, model: str, vector: NDArray[np.float32]) -> Answers:
    """A page with how near each modality of its answers is; a database that is away is a note.

    Args:
        vector: (d,) that the page was ranked by.
    """
    unit = vector / max(float(np.linalg.norm(vector)), 1e-9)
    moments = [(answer.scene_id, answer.instant_ns) for answer in page.answers]
    try:
        found = _modalities(engine, space, model, moments, unit)
    except SQLAlchemyError:  # what was found is found without it
        return replace(page, notes=(*page.notes, _UNEXPLAINED))
    answers = (
        answer._replace(modalities=found.get(moment, {})) for answer, moment in zip(page.answers, moments, strict=True)
    )
    return replace(page, answers=tuple(answers))


def _modalities(
    engine: Engine, space: str, model: str, moments: Sequence[tuple[int, int]], vector: NDArray[np.float32]
) -> dict[tuple[int, int], dict[str, float]]:
    """Cosine of each modality's vector with what was to be alike, by (scene id, instant).

    Args:
        moments: scene ids and instants.
        vector: (d,) of unit length.
    """
    asked = {"scenes": [s for s, _ in moments], "instants": [i for _, i in moments], "model": model, "space": space}
    found: dict[tuple[int, int], dict[str, float]] = {}
    with engine.connect() as connection:
        for row in connection.execute(_VECTORS, asked):
            values = signed(bytes(row.vector), len(vector))
            if values is None:
                continue
            floats = values.astype(np.float32)
            length = float(np.linalg.norm(floats))
            cosine = float(floats @ vector) / length if length else 0.0
            found.setdefault((row.scene_id, row.instant_ns), {})[row.modality] = cosine
    return found
