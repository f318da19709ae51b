"""What is told of a scene before its clip, and what the clip is worth against others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from edge.decision import Decision
from edge.drive.codec import timestamp
from edge.samples import GnssFix
from edge.scenes import Scene
from roadfuse.v1.ingest_pb2 import SceneSummary, ShadowOpinion

_MOST_CAMPAIGNS: Final = 64  # the cloud takes no more
_LIKELY: Final = 0.5  # labels below say nothing
_IS_CHOICE: Final = 1e-3  # how near to 1 the readings of a head sum up that chooses one label


def summary_of(
    scene: Scene,
    peak: Decision | None,
    recorded_ns: int,
    fix: GnssFix | None,
    campaigns: Mapping[str, float] | None = None,
    shadow: ShadowOpinion | None = None,
) -> SceneSummary:
    """A scene in a few hundred bytes.

    Args:
        peak: the decision of its hardest frame.
        recorded_ns: wall clock, which may be wrong.
        fix: the last one before the hardest frame.
        campaigns: that frames of it matched, with the best score of each.
        shadow: what a staged bundle said of its hardest frame.
    """
    summary = SceneSummary(
        first_ns=scene.first_ns, last_ns=scene.last_ns, peak_ns=scene.peak_ns, hardness=scene.peak_hardness,
        recorded_at=timestamp(recorded_ns),
    )  # fmt: skip
    if fix is not None:
        summary.latitude_deg, summary.longitude_deg = fix.latitude_deg, fix.longitude_deg
    best = sorted((campaigns or {}).items(), key=lambda match: (-match[1], match[0]))[:_MOST_CAMPAIGNS]
    for campaign, score in best:
        summary.campaigns.add(campaign=campaign, score=score)
    if shadow is not None:
        summary.shadow.CopyFrom(shadow)
    if peak is None:
        return summary
    summary.bundle_id = peak.bundle_id
    for name, value, weight in peak.scores:
        if value:
            summary.scores.add(name=name, value=value, weight=weight)
    for tags, said in ((summary.scene_tags, peak.scene_tags), (summary.sound_events, peak.sound_events)):
        for name, probability in said:
            if probability >= _LIKELY:
                tags.add(name=name, probability=probability)
    summary.embedding, summary.embedding_scale = quantised(peak.embedding)
    return summary


def quantised(embedding: bytes) -> tuple[bytes, float]:
    """A float32 embedding as signed bytes, and what each of them counts; empty and 0 of none."""
    values = np.frombuffer(embedding, "<f4")
    largest = float(np.abs(values).max(initial=0.0))
    if not largest or not np.isfinite(largest):
        return b"", 0.0
    scale = largest / 127.0
    return np.rint(values / scale).astype(np.int8).tobytes(), scale


def doubt(decision: Decision) -> float:
    """How many of a frame's labels are told wrongly, as the calibrated heads expect it of themselves.

    A tag is on the wrong side with the smaller of its probability and the rest; where one label is chosen, another is
    right with the rest of its probability.
    """
    tags = sum(min(tag.probability, 1.0 - tag.probability) for tag in (*decision.scene_tags, *decision.sound_events))
    choices = ([value for _, value in head.readings] for head in decision.heads)
    return tags + sum(1.0 - max(values) for values in choices if values and abs(sum(values) - 1.0) < _IS_CHOICE)


def worth(summary: SceneSummary, doubts: float) -> float:
    """What a scene is worth to whoever trains on it: where the heads err, above all in what is new to them.

    Hardness has no say here: it speaks of events, and those who chose by it found fewer errors (docs/retrieval.md).

    Args:
        doubts: sum of its frames' `doubt`.
    """
    novelty = next((score.value for score in summary.scores if score.name == "novelty"), 0.0)
    value = doubts * (1.0 + novelty)
    return value if math.isfinite(value) else 0.0
