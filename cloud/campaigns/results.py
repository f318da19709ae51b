"""What vehicles say of campaigns and asks, noted in the transaction of their report.

A vehicle speaks of its own scenes and asks alone, and of campaigns that exist; of what else it says nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, text

_CHOICES: Final = text("""
INSERT INTO campaign_scenes (campaign, scene_id, score)
SELECT campaigns.id, scenes.id, max(said.score)
FROM unnest(CAST(:campaigns AS text[]), CAST(:sequences AS bigint[]), CAST(:scores AS double precision[]))
    AS said (campaign, sequence, score)
JOIN campaigns ON campaigns.id = said.campaign
JOIN scenes ON scenes.vehicle = :vehicle AND scenes.outbox = :outbox AND scenes.sequence = said.sequence
GROUP BY campaigns.id, scenes.id
ORDER BY campaigns.id, scenes.id
ON CONFLICT (campaign, scene_id) DO UPDATE SET score = greatest(campaign_scenes.score, excluded.score)
""")
_ANSWERS: Final = text("""
UPDATE asks SET answer = said.answer, answered_at = now()
FROM unnest(CAST(:ids AS bigint[]), CAST(:answers AS text[])) AS said (id, answer)
WHERE asks.id = said.id AND asks.vehicle = :vehicle AND asks.answer IS NULL
""")


def note_choices(
    connection: Connection, vehicle: str, outbox: bytes, choices: Sequence[tuple[str, int, float]]
) -> None:
    """Scenes that matched, or go up for, campaigns: (campaign, sequence, score)."""
    if choices:
        campaigns, sequences, scores = zip(*choices, strict=True)
        words = {"campaigns": list(campaigns), "sequences": list(sequences), "scores": list(scores)}
        connection.execute(_CHOICES, {**words, "vehicle": vehicle, "outbox": outbox})


def note_answers(connection: Connection, vehicle: str, answers: Mapping[int, str]) -> None:
    """What became of asks, by id; the first answer stands."""
    if answers:
        words = {"ids": list(answers), "answers": list(answers.values())}
        connection.execute(_ANSWERS, {**words, "vehicle": vehicle})
