"""From the world's exact truth to what the heads learn: scene tags, sound events and object boxes.

A label is set only where a sensor could know it: objects must be large and visible enough, sounds loud enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SCENE_TAGS = (
    "night", "dusk", "rain", "fog", "tunnel", "urban", "residential", "highway", "pedestrian", "pedestrian_crossing",
    "vehicle_close", "emergency_vehicle", "sign", "stopped", "braking", "turning",
)  # fmt: skip
SOUND_EVENTS = ("siren", "horn", "footsteps", "rain", "speech")
OBJECTS = ("vehicle", "pedestrian", "sign")
KINDS = {"vehicle": 0, "pedestrian": 1, "cyclist": 1, "sign": 2}  # kind in the truth -> class index

MAX_BOXES = 24  # kept per frame, largest first
MIN_VISIBILITY = 0.35  # share that must not be hidden
MIN_HEIGHT = {0: 0.035, 1: 0.05, 2: 0.035}  # by class, fraction of the picture's height
CLOSE_M = 14.0  # a vehicle this near in the ego's path is close
CLOSE_SIDE_M = 3.0
MIN_LEVEL_DBFS = -45.0  # below it no sound counts as audible
BRAKE_MPS2 = -1.5
TURN_RADPS = 0.12
STOPPED_MPS = 0.3


class TrueObject(Protocol):
    """The fields of roadfuse.v1.TrueObject that are read here."""

    kind: str
    variant: str
    intent: str
    left_px: float
    top_px: float
    width_px: float
    height_px: float
    visibility: float
    x_m: float
    y_m: float


class TrueSound(Protocol):
    """The fields of roadfuse.v1.TrueSound that are read here."""

    name: str
    level_dbfs: float


class Truth(Protocol):
    """The fields of roadfuse.v1.GroundTruth that are read here."""

    weather: str
    light: str
    place: str
    speed_mps: float
    yaw_rate_radps: float
    acceleration_mps2: float

    @property
    def objects(self) -> Sequence[TrueObject]: ...
    @property
    def sounds(self) -> Sequence[TrueSound]: ...


def boxes_of(truth: Truth, width_px: int, height_px: int) -> NDArray[np.float32]:
    """Objects of the classes that are learned, largest first.

    Returns:
        (MAX_BOXES, 6) float32: class (-1 = none), left, top, width, height (fractions of the picture), and 1 where the
        object is worth learning, 0 where it is too small or hidden and neither answer is held against the model.
    """
    rows = []
    for thing in truth.objects:
        kind = KINDS.get(thing.kind)
        if kind is None or thing.width_px <= 0 or thing.height_px <= 0:
            continue
        left, width = thing.left_px / width_px, thing.width_px / width_px
        top, height = thing.top_px / height_px, thing.height_px / height_px
        learn = thing.visibility >= MIN_VISIBILITY and height >= MIN_HEIGHT[kind]
        rows.append((kind, left, top, width, height, float(learn)))
    rows.sort(key=lambda row: (-row[5], -row[3] * row[4]))
    boxes = np.zeros((MAX_BOXES, 6), np.float32)
    boxes[:, 0] = -1.0
    kept = np.asarray(rows[:MAX_BOXES], np.float32).reshape(-1, 6)
    boxes[: len(kept)] = kept
    return boxes


def tags_of(truth: Truth, boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(len(SCENE_TAGS),) uint8, 0 or 1; `boxes` as boxes_of gave them."""
    seen = {int(row[0]) for row in boxes if row[0] >= 0 and row[5] > 0}
    visible = [thing for thing in truth.objects if thing.visibility >= MIN_VISIBILITY and thing.height_px > 0]
    on = {truth.light, truth.weather, truth.place}
    if 1 in seen:
        on.add("pedestrian")
    if 2 in seen:
        on.add("sign")
    if any(thing.kind == "pedestrian" and thing.intent == "crosses" and thing.x_m < 40.0 for thing in visible):
        on.add("pedestrian_crossing")
    if any(thing.kind == "vehicle" and 0 < thing.x_m < CLOSE_M and abs(thing.y_m) < CLOSE_SIDE_M for thing in visible):
        on.add("vehicle_close")
    if any(thing.variant == "emergency" and thing.x_m < 60.0 for thing in visible):
        on.add("emergency_vehicle")
    if truth.speed_mps < STOPPED_MPS:
        on.add("stopped")
    if truth.acceleration_mps2 < BRAKE_MPS2 and truth.speed_mps >= STOPPED_MPS:
        on.add("braking")
    if abs(truth.yaw_rate_radps) > TURN_RADPS:
        on.add("turning")
    return np.array([name in on for name in SCENE_TAGS], np.uint8)


def sounds_of(truth: Truth) -> NDArray[np.uint8]:
    """(len(SOUND_EVENTS),) uint8: 1 where the event can be heard at this instant."""
    heard = {sound.name for sound in truth.sounds if sound.level_dbfs >= MIN_LEVEL_DBFS}
    return np.array([name in heard for name in SOUND_EVENTS], np.uint8)
