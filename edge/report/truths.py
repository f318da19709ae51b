"""What the ground truth says in the words of the reference bundle's heads, so that right and wrong can be seen.

The limits are those with which the bundle is trained: a label counts only where a sensor could know it.
"""

from __future__ import annotations

from typing import Final

from roadfuse.v1 import truth_pb2

MIN_VISIBILITY: Final = 0.35
MIN_HEIGHT: Final = {"vehicle": 0.035, "pedestrian": 0.05, "cyclist": 0.05, "sign": 0.035}  # fraction of the picture
MIN_LEVEL_DBFS: Final = -42.0
MIN_PROMINENCE_DB: Final = -12.0
CLOSE_M: Final = 14.0
CLOSE_SIDE_M: Final = 3.0
BRAKE_MPS2: Final = -1.5
TURN_RADPS: Final = 0.12
STOPPED_MPS: Final = 0.3
CROSSING_M: Final = 40.0
EMERGENCY_M: Final = 60.0

TAGS: Final = (
    "night", "dusk", "rain", "fog", "snow", "tunnel", "urban", "residential", "highway", "pedestrian",
    "pedestrian_crossing", "vehicle_close", "emergency_vehicle", "sign", "stopped", "braking", "turning",
)  # fmt: skip
SOUNDS: Final = ("siren", "horn", "footsteps", "rain", "speech")


def true_tags(truth: truth_pb2.GroundTruth, height_px: int) -> set[str]:
    """The scene tags that hold, out of TAGS.

    Args:
        height_px: of the picture.
    """
    on = {truth.light, truth.weather, truth.place}
    for thing in truth.objects:
        if thing.visibility >= MIN_VISIBILITY and thing.height_px > 0:
            on |= _of_object(thing, height_px)
    if truth.speed_mps < STOPPED_MPS:
        on.add("stopped")
    elif truth.acceleration_mps2 < BRAKE_MPS2:
        on.add("braking")
    if abs(truth.yaw_rate_radps) > TURN_RADPS:
        on.add("turning")
    return on.intersection(TAGS)


def true_sounds(truth: truth_pb2.GroundTruth) -> set[str]:
    """The sound events that can be heard, out of SOUNDS."""
    return {
        sound.name
        for sound in truth.sounds
        if sound.level_dbfs >= MIN_LEVEL_DBFS and sound.prominence_db >= MIN_PROMINENCE_DB
    }.intersection(SOUNDS)


def _of_object(thing: truth_pb2.TrueObject, height_px: int) -> set[str]:
    on = set()
    if thing.height_px >= MIN_HEIGHT.get(thing.kind, 1.0) * height_px and thing.width_px > 0:
        if thing.kind in ("pedestrian", "cyclist"):
            on.add("pedestrian")
        elif thing.kind == "sign":
            on.add("sign")
    if thing.kind == "pedestrian" and thing.intent == "crosses" and thing.x_m < CROSSING_M:
        on.add("pedestrian_crossing")
    if thing.kind == "vehicle" and 0 < thing.x_m < CLOSE_M and abs(thing.y_m) < CLOSE_SIDE_M:
        on.add("vehicle_close")
    if thing.variant == "emergency" and thing.x_m < EMERGENCY_M:
        on.add("emergency_vehicle")
    return on
