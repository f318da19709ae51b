"""The facts of a moment that the vehicle's sensors can know then: what a caption says, no more and no less.

What is too small, hidden or quiet is left out, and so is what lies in the future. In a tunnel neither light nor weather
can be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roadfuse.v1.truth_pb2 import GroundTruth, TrueObject

VEHICLE_PX, LARGE_PX, EMERGENCY_PX, PERSON_PX, SIGN_PX = 18.0, 46.0, 18.0, 30.0, 24.0  # heights at 384 rows
LEAST_VISIBILITY = 0.4
SIGN_VISIBILITY = 0.7
PROMINENCE_DB, LEVEL_DBFS = -12.0, -42.0
INTENTS = ("crosses", "will_cross", "waits")  # the most pressing first
SOUNDS = ("siren", "horn", "footsteps", "speech")
ROWS = 384  # of the picture for which the sizes are given


class Facts(NamedTuple):
    """One moment; "" where there is nothing to say.

    vehicles: none, one, several. kind: of the largest vehicle, where it is large. intent: the most pressing one.
    """

    place: str
    light: str
    weather: str
    action: str
    vehicles: str
    kind: str
    emergency: bool
    sign: str
    intent: str
    sounds: tuple[str, ...]


def facts(truth: GroundTruth, rows: int = ROWS) -> Facts:
    """The facts of a moment; two captions in one language are equal if and only if their facts are.

    Args:
        rows: height of the picture in whose pixels the truth's boxes are.
    """
    scale = ROWS / rows
    seen = [o for o in truth.objects if o.visibility >= LEAST_VISIBILITY]
    vehicles = [o for o in seen if o.kind == "vehicle"]
    ordinary = [o for o in vehicles if o.variant != "emergency" and o.height_px * scale >= VEHICLE_PX]
    covered = truth.place == "tunnel"
    return Facts(
        truth.place,
        "" if covered else truth.light,
        "" if covered else truth.weather,
        truth.ego_action,
        ("none", "one", "several")[min(len(ordinary), 2)],
        _largest_variant(ordinary, LARGE_PX / scale),
        any(o.variant == "emergency" and o.height_px * scale >= EMERGENCY_PX for o in vehicles),
        _sign(truth, SIGN_PX / scale),
        _intent([o for o in seen if o.kind == "pedestrian" and o.height_px * scale >= PERSON_PX]),
        _heard(truth),
    )


def _largest_variant(objects: Sequence[TrueObject], least_px: float) -> str:
    largest = max(objects, key=lambda o: (o.height_px, o.id), default=None)
    return largest.variant if largest is not None and largest.height_px >= least_px else ""


def _sign(truth: GroundTruth, least_px: float) -> str:
    readable = [
        o for o in truth.objects
        if o.kind == "sign" and o.visibility >= SIGN_VISIBILITY and min(o.width_px, o.height_px) >= least_px
    ]  # fmt: skip
    return _largest_variant(readable, least_px)


def _intent(people: Sequence[TrueObject]) -> str:
    intents = {person.intent for person in people}
    return next((intent for intent in INTENTS if intent in intents), "")


def _heard(truth: GroundTruth) -> tuple[str, ...]:
    heard = {s.name for s in truth.sounds if s.prominence_db >= PROMINENCE_DB and s.level_dbfs >= LEVEL_DBFS}
    return tuple(name for name in SOUNDS if name in heard)
