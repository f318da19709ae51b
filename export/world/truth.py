"""Exact ground truth of a camera frame, from the same scene that was drawn and the same sound that was mixed."""

from __future__ import annotations

import math
import zlib

import numpy as np

from edge.drive.codec import timestamp
from export.world.camera.camera import Shot
from export.world.camera.lens import Lens
from export.world.camera.painter import Seen
from export.world.captions import caption
from export.world.facts import facts
from export.world.faults import Fault
from export.world.grammar import captions
from export.world.places import Place
from export.world.road import Road
from export.world.scene import Body, Scene
from export.world.sound.microphone import Level
from roadfuse.v1.truth_pb2 import Caption, GroundTruth, TrueLane, TrueObject, TrueSound

LEAST_VISIBILITY, LEAST_SIZE_PX, SIGN_SIZE_PX = 0.08, 4.0, 6.0
DARK_SIGHT_M = 55.0  # how far unlit things can be made out in the low beam
CONTRAST_LIMIT = 0.04
LANE_SIGHT_M = 80.0
TURN_RADPS = 0.16


def ground_truth(
    scene: Scene, shot: Shot, levels: list[Level], road: Road, lens: Lens, faults: tuple[Fault, ...],
    stamp_ns: int, sequence: int,
) -> GroundTruth:  # fmt: skip
    """The truth message of one frame."""
    pose = scene.pose
    truth = GroundTruth(
        timestamp=timestamp(stamp_ns),
        frame_sequence=sequence,
        weather=scene.air.weather,
        light=scene.air.label,
        place=scene.place,
        ego_action=_action(scene),
        speed_mps=pose.speed_mps,
        yaw_rate_radps=pose.yaw_rate_radps,
        acceleration_mps2=pose.acceleration_mps2,
        east_m=pose.x_m,
        north_m=pose.y_m,
        heading_rad=pose.heading_rad,
        faults=sorted({fault.name for fault in faults if fault.active(scene.time_s)}),
        surface_mask=zlib.compress(shot.surface.tobytes()),
    )
    truth.objects.extend(_objects(scene, shot.seen))
    truth.lanes.extend(_lanes(scene, road, lens))
    for level in levels:
        sound = TrueSound(
            name=level.name,
            level_dbfs=level.level_dbfs,
            onset_s=round(level.onset_s, 3),
            prominence_db=level.prominence_db,
        )
        if level.bearing_rad is not None:
            sound.bearing_rad = level.bearing_rad
        truth.sounds.append(sound)
    truth.caption = caption(truth)
    for language, text in captions(facts(truth, lens.height_px)).items():
        truth.captions.append(Caption(language=language, text=text))
    return truth


def _action(scene: Scene) -> str:
    pose = scene.pose
    if pose.speed_mps < 0.3:
        return "stop"
    if pose.acceleration_mps2 < -0.9:
        return "brake"
    if abs(pose.yaw_rate_radps) > TURN_RADPS:
        return "turn_left" if pose.yaw_rate_radps > 0 else "turn_right"
    return "accelerate" if pose.acceleration_mps2 > 0.7 else "cruise"


def _objects(scene: Scene, seen: list[Seen]) -> list[TrueObject]:
    bodies = {body.id: body for body in scene.bodies}
    signs = {f.thing.id: f for f in scene.fixtures if f.thing.kind == "sign"}
    objects = []
    for s in sorted(seen, key=lambda s: s.id):
        left, top, right, bottom = s.box_px
        size = min(right - left, bottom - top)
        body, sign = bodies.get(s.id), signs.get(s.id)
        if s.visibility < LEAST_VISIBILITY or size < (LEAST_SIZE_PX if body else SIGN_SIZE_PX):
            continue
        entry = TrueObject(
            id=s.id, left_px=left, top_px=top, width_px=right - left, height_px=bottom - top, visibility=s.visibility
        )
        if body is not None and _discernible(scene, body.x_m, body.y_m, _shines(scene, body)):
            entry.kind, entry.variant, entry.intent = body.kind, body.variant, body.intent
            entry.x_m, entry.y_m, entry.speed_mps = body.x_m, body.y_m, body.speed_mps
            objects.append(entry)
        elif sign is not None and math.cos(sign.turn_rad) > 0.25 and _discernible(scene, sign.x_m, sign.y_m, True):
            entry.kind, entry.variant = "sign", sign.thing.variant
            entry.x_m, entry.y_m = sign.x_m, sign.y_m
            objects.append(entry)
    return objects


def _shines(scene: Scene, body: Body) -> bool:
    return body.kind == "vehicle" and body.id < 20_000 and scene.air.lamps > 0.1


def _discernible(scene: Scene, x_m: float, y_m: float, shines: bool) -> bool:
    """Whether air and darkness leave enough of it."""
    distance = math.hypot(x_m, y_m)
    if math.exp(-scene.air.extinction_per_m * distance) < CONTRAST_LIMIT:
        return False
    return shines or scene.air.label != "night" or scene.place == "tunnel" or distance < DARK_SIGHT_M


def _lanes(scene: Scene, road: Road, lens: Lens) -> list[TrueLane]:
    """Boundaries of the ego's direction and the next beyond it, near to far, in pixels."""
    section = road.section(scene.station_m)
    ego_lane = road.lane_of(scene.station_m, scene.offset_m)
    count = max(round(road.at(road.lanes, scene.station_m)), 1)
    stations = scene.station_m + np.concatenate([np.arange(2.0, 20.0, 1.0), np.arange(20.0, LANE_SIGHT_M, 3.0)])
    lanes = []
    for boundary in range(count + 1):
        kind = _kind(section.place, boundary, count)
        i = np.clip(stations.astype(np.int64), 0, len(road.lanes) - 1)
        outer = road.half_median_m[i] + road.lanes[i] * road.lane_width_m[i]
        if kind == "edge":
            d = (outer + road.shoulder_m[i]) * (1.0 if boundary == 0 else -1.0)
        elif boundary == count:
            d = -outer
        else:
            d = -(road.half_median_m[i] + boundary * road.lane_width_m[i])
        x, y = scene.pose.to_ego(*road.position(stations, d)[:2])
        pixels, depth = lens.project(
            np.stack([x, y, np.zeros_like(x)], axis=-1), scene.pose.pitch_rad, scene.pose.heave_m
        )
        inside = (depth > 1.0) & (stations < section.end_m) & (pixels[:, 0] >= 0) & (pixels[:, 0] < lens.width_px)
        inside &= (pixels[:, 1] >= 0) & (pixels[:, 1] < lens.height_px)
        if kind == "dashed":  # not painted where the lane tapers off
            inside &= road.lanes[i] > boundary + 0.85
        inside &= np.exp(-scene.air.extinction_per_m * depth) > CONTRAST_LIMIT
        if inside.sum() >= 2:
            points = pixels[inside]
            lanes.append(
                TrueLane(index=boundary - ego_lane, kind=kind, x_px=points[:, 0].tolist(), y_px=points[:, 1].tolist())
            )
    return lanes


def _kind(place: Place, boundary: int, count: int) -> str:
    if place.name == "residential":
        return "edge"
    return "solid" if boundary in (0, count) else "dashed"
