"""The names of what the heads say, in the order of their outputs."""

from __future__ import annotations

from export.world.facts import SOUNDS, Facts
from export.world.grammar import SIGNS

MODALITIES = ("camera", "audio", "motion", "lidar")
SCENE_TAGS = (
    "night", "dusk", "rain", "fog", "snow", "tunnel", "urban", "residential", "highway", "pedestrian",
    "pedestrian_crossing", "vehicle_close", "emergency_vehicle", "sign", "stopped", "braking", "turning",
)  # fmt: skip
SOUND_EVENTS = ("siren", "horn", "footsteps", "rain", "speech")
OBJECTS = ("vehicle", "pedestrian", "sign")
VEHICLE_KINDS = ("car", "van", "truck", "bus", "emergency")
SIGN_KINDS = SIGNS
INTENTS = ("walks", "waits", "will_cross", "crosses")  # of one pedestrian
PRESSING_INTENTS = ("none", "waits", "will_cross", "crosses")  # of the scene: the most pressing one
SURFACES = ("other", "ego_lane", "road", "lane_marking", "sidewalk")
EGO_ACTIONS = ("cruise", "accelerate", "brake", "stop", "turn_left", "turn_right")

# The facts that a caption tells, each one of these values; sounds are told apart from them.
FACTS: dict[str, tuple[str, ...]] = {
    "place": ("highway", "urban", "residential", "tunnel"),
    "light": ("", "day", "dusk", "night"),
    "weather": ("", "clear", "rain", "fog", "snow"),
    "action": EGO_ACTIONS,
    "vehicles": ("none", "one", "several"),
    "kind": ("", "car", "van", "truck", "bus"),
    "emergency": ("False", "True"),
    "sign": ("", *SIGNS),
    "intent": ("", "waits", "will_cross", "crosses"),
}
FACT_SOUNDS = SOUNDS
FACT_SIZES = tuple(len(values) for values in FACTS.values())
FACT_VALUES = sum(FACT_SIZES) + len(FACT_SOUNDS)


def fact_indices(facts: Facts) -> list[int]:
    """The index of each fact's value, then 0 or 1 for each sound."""
    told = facts._asdict()
    return [values.index(str(told[name])) for name, values in FACTS.items()] + [
        int(name in facts.sounds) for name in FACT_SOUNDS
    ]
