"""From the world's exact truth to what the heads learn.

A label is set only where a sensor could know it: objects must be large and visible enough, sounds loud enough.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.model.labels import (
    EGO_ACTIONS,
    INTENTS,
    OBJECTS,
    PRESSING_INTENTS,
    SCENE_TAGS,
    SIGN_KINDS,
    SOUND_EVENTS,
    VEHICLE_KINDS,
    fact_indices,
)  # fmt: skip
from export.world.facts import LEVEL_DBFS, PROMINENCE_DB, facts
from roadfuse.v1.truth_pb2 import GroundTruth, TrueObject, TrueSound

KINDS = {name: i for i, name in enumerate(OBJECTS)}
MAX_BOXES = 32  # kept per frame, largest first
BOX = 9  # class, left, top, width, height, learn, sign kind, intent, vehicle kind
MIN_VISIBILITY = 0.35  # share that must not be hidden
MIN_HEIGHT = (0.035, 0.05, 0.035)  # by class, fraction of the picture's height
CLOSE_M = 14.0  # a vehicle this near in the ego's path is close
CLOSE_SIDE_M = 3.0
BRAKE_MPS2 = -1.5
TURN_RADPS = 0.12
STOPPED_MPS = 0.3
SURFACE = (48, 80)


class Targets(NamedTuple):
    """One moment.

    boxes: (32, 9) float32: class (-1 none), left, top, width, height (fractions), 1 to learn or 0 to ignore, then the
    kind of a sign, the intent of a pedestrian and the kind of a vehicle, -1 for what it is not. tags: (T,) and sounds:
    (S,) uint8. onsets: (S,) float32, seconds since the onset, at most 1, -1 where nothing is heard. facts: (13,) int16.
    single: (2,) int16: ego action, pressing intent.
    """

    boxes: NDArray[np.float32]
    tags: NDArray[np.uint8]
    sounds: NDArray[np.uint8]
    onsets: NDArray[np.float32]
    facts: NDArray[np.int16]
    single: NDArray[np.int16]


def targets(truth: GroundTruth, width_px: int, height_px: int) -> Targets:
    """All that the heads learn of a moment, but the surface; sizes are of the picture of the truth's boxes."""
    boxes = boxes_of(truth, width_px, height_px)
    told = facts(truth, height_px)
    heard = {sound.name: sound for sound in truth.sounds if audible(sound)}
    return Targets(
        boxes,
        tags_of(truth, boxes),
        np.array([name in heard for name in SOUND_EVENTS], np.uint8),
        np.array([min(heard[n].onset_s, 1.0) if n in heard else -1.0 for n in SOUND_EVENTS], np.float32),
        np.array(fact_indices(told), np.int16),
        np.array([EGO_ACTIONS.index(truth.ego_action), PRESSING_INTENTS.index(told.intent or "none")], np.int16),
    )


def audible(sound: TrueSound) -> bool:
    """Loud enough, by itself and beside the rest, to be told."""
    return bool(sound.level_dbfs >= LEVEL_DBFS and sound.prominence_db >= PROMINENCE_DB)


def surface_of(truth: GroundTruth) -> NDArray[np.uint8]:
    """(48, 80) uint8, index into SURFACES."""
    return np.frombuffer(zlib.decompress(truth.surface_mask), np.uint8).reshape(SURFACE)


def boxes_of(truth: GroundTruth, width_px: int, height_px: int) -> NDArray[np.float32]:
    """Objects of the classes that are learned, as in Targets; those worth learning first, then the largest."""
    rows = []
    for thing in truth.objects:
        kind = KINDS.get(thing.kind)
        if kind is None or thing.width_px <= 0 or thing.height_px <= 0:
            continue
        left, width = thing.left_px / width_px, thing.width_px / width_px
        top, height = thing.top_px / height_px, thing.height_px / height_px
        learn = thing.visibility >= MIN_VISIBILITY and height >= MIN_HEIGHT[kind]
        rows.append((kind, left, top, width, height, float(learn), *_finer(thing)))
    rows.sort(key=lambda row: (-row[5], -row[3] * row[4]))
    boxes = np.zeros((MAX_BOXES, BOX), np.float32)
    boxes[:, [0, 6, 7, 8]] = -1.0
    kept = np.asarray(rows[:MAX_BOXES], np.float32).reshape(-1, BOX)
    boxes[: len(kept)] = kept
    return boxes


def tags_of(truth: GroundTruth, boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(len(SCENE_TAGS),) uint8, 0 or 1; `boxes` as boxes_of gave them."""
    seen = {int(row[0]) for row in boxes if row[0] >= 0 and row[5] > 0}
    visible = [thing for thing in truth.objects if thing.visibility >= MIN_VISIBILITY and thing.height_px > 0]
    on = {truth.light, truth.weather, truth.place}
    if KINDS["pedestrian"] in seen:
        on.add("pedestrian")
    if KINDS["sign"] in seen:
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


def _finer(thing: TrueObject) -> tuple[float, ...]:
    """The kind of a sign, the intent of a pedestrian and the kind of a vehicle, -1 for what it is not."""
    said = (("sign", thing.variant, SIGN_KINDS), ("pedestrian", thing.intent, INTENTS),
            ("vehicle", thing.variant, VEHICLE_KINDS))  # fmt: skip
    return tuple(float(kinds.index(name)) if thing.kind == of and name in kinds else -1.0 for of, name, kinds in said)
