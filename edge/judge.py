"""How hard a frame is, and why: a noisy-or over scores that each say one thing.

    uncertainty   the heads are undecided
    disagreement  the modalities' embeddings point apart
    novelty       unlike what the bundle was trained on
    flicker       the tags changed much since the last frame
    braking       the vehicle brakes hard
    takeover      the driver took over from assistance
    alarm         a siren or a horn is heard, or an emergency vehicle seen
    degraded      an expected sensor is missing
    misaligned    a sensor contradicts the others: in time, in place or in meaning
    campaign      the cloud looks for such frames; only while it looks for any

hardness = 1 - product(1 - weight * score). Every score is in the decision with its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from operator import sub
from typing import Any, Final

from edge.decision import Score, Tag, rows
from edge.samples import VehicleState

ALARMS: Final = frozenset({"siren", "horn", "emergency_vehicle"})
# Comfortable braking ends at about 2 m/s2; 6 is an emergency.
_BRAKE_FROM_MPS2: Final = 2.0
_BRAKE_FULL_MPS2: Final = 6.0
# After a takeover the scene that caused it is still on.
_TAKEOVER_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class JudgeWeights:
    """How much each score counts in the hardness, 0..1."""

    uncertainty: float = 0.55
    disagreement: float = 0.25
    novelty: float = 0.35
    flicker: float = 0.35
    braking: float = 0.7
    takeover: float = 0.9
    alarm: float = 0.6
    degraded: float = 0.4
    misaligned: float = 0.4
    # Three matching frames in a row open a scene, whatever else they are.
    campaign: float = 0.8


class Judge:
    """Scores frames; remembers the last frame's tags and who drove."""

    def __init__(self, weights: JudgeWeights | None = None) -> None:
        weights = weights or JudgeWeights()
        # In the order of the scores below; the last, of campaigns, is only there while there are any.
        self._names = tuple(field.name for field in fields(weights))[:-1]
        self._weights: tuple[float, ...] = astuple(weights)[:-1]
        self._campaign_weight = weights.campaign
        self._last_tags: tuple[float, ...] = ()
        self._driver_in_control: bool | None = None
        self._takeover_ns: int | None = None

    def __call__(
        self,
        stamp_ns: int,
        model_scores: Sequence[float],
        scene_tags: Sequence[Tag],
        sound_events: Sequence[Tag],
        vehicle: Sequence[VehicleState],
        degraded_share: float,
        agreement: float = 1.0,
    ) -> tuple[float, tuple[Score, ...]]:
        """The hardness, 0..1, and the scores that make it, largest part first.

        Args:
            model_scores: uncertainty, disagreement, novelty.
            vehicle: the vehicle's pick; may be empty.
            degraded_share: share of the expected streams that are absent.
            agreement: of the streams with each other, 0..1.
        """
        uncertainty, disagreement, novelty = model_scores
        state = vehicle[-1] if vehicle else None
        scores = rows(
            Score,
            self._names,
            (
                uncertainty,
                disagreement,
                novelty,
                self._flicker(scene_tags),
                _braking(state),
                self._takeover(state, stamp_ns),
                max(_alarm(sound_events), _alarm(scene_tags)),
                degraded_share,
                1.0 - agreement,
            ),
            self._weights,
        )
        ease = 1.0
        for _, value, weight in scores:
            ease *= 1.0 - weight * value
        return 1.0 - ease, tuple(sorted(scores, key=_part, reverse=True))

    def with_campaign(
        self, hardness: float, scores: tuple[Score, ...], value: float
    ) -> tuple[float, tuple[Score, ...]]:
        """Hardness and scores with one score more.

        Args:
            value: the largest weight of the campaigns that the frame matches, 0..1.
        """
        score = Score("campaign", value, self._campaign_weight)
        ease = (1.0 - hardness) * (1.0 - self._campaign_weight * value)
        return 1.0 - ease, tuple(sorted((*scores, score), key=_part, reverse=True))

    def forget_tags(self) -> None:
        """Another bundle decides from here on: that it says other things than the last one is no flicker."""
        self._last_tags = ()

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        return {"tags": self._last_tags, "driver": self._driver_in_control, "takeover": self._takeover_ns}

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Take a frozen state."""
        self._last_tags = frozen["tags"]
        self._driver_in_control = frozen["driver"]
        self._takeover_ns = frozen["takeover"]

    def _flicker(self, scene_tags: Sequence[Tag]) -> float:
        last, values = self._last_tags, tuple([probability for _, probability in scene_tags])
        self._last_tags = values
        if len(last) != len(values):
            return 0.0
        return min(max(map(abs, map(sub, values, last)), default=0.0), 1.0)

    def _takeover(self, state: VehicleState | None, stamp_ns: int) -> float:
        if state is not None and state.driver_in_control is not None:
            if state.driver_in_control and self._driver_in_control is False:
                self._takeover_ns = stamp_ns
            self._driver_in_control = state.driver_in_control
        if self._takeover_ns is None or stamp_ns - self._takeover_ns > _TAKEOVER_NS:
            return 0.0
        return 1.0


def _part(score: Score) -> float:
    return score[1] * score[2]


def _braking(state: VehicleState | None) -> float:
    if state is None or state.acceleration_mps2 is None:
        return 0.0
    return min(max((-state.acceleration_mps2 - _BRAKE_FROM_MPS2) / (_BRAKE_FULL_MPS2 - _BRAKE_FROM_MPS2), 0.0), 1.0)


def _alarm(tags: Sequence[Tag]) -> float:
    return max([tag.probability for tag in tags if tag.name in ALARMS], default=0.0)
