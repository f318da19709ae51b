"""What the reference bundle's engines take and give, as its manifest says it; nothing here needs PyTorch."""

from __future__ import annotations

from export.model.labels import (
    EGO_ACTIONS,
    INTENTS,
    OBJECTS,
    PRESSING_INTENTS,
    SCENE_TAGS,
    SIGN_KINDS,
    SOUND_EVENTS,
    SURFACES,
    VEHICLE_KINDS,
)  # fmt: skip

WIDTH_PX, HEIGHT_PX = 640, 384
GRID = (48, 80)  # cells of the camera's maps, rows x columns
CLIP_STEPS = 8  # moments of a clip, 4 a second
# One ray a degree, two of the LiDAR's rings a row.
LIDAR_VIEW = {"azimuth_deg": 256.0, "highest_deg": 7.5, "lowest_deg": -24.5}
INPUTS: dict[str, dict[str, object]] = {
    "camera": {
        "name": "image", "dtype": "uint8", "layout": "NHWC", "width_px": WIDTH_PX, "height_px": HEIGHT_PX,
        "color": "BGR",
    },
    "audio": {"name": "pcm", "dtype": "float32", "rate_hz": 16000, "samples": 16000},
    "motion": {"name": "motion", "dtype": "float32", "channels": 12, "steps": 50, "window_ns": 1_000_000_000},
    "lidar": {"name": "ranges", "dtype": "float32", "rows": 16, "columns": 256, **LIDAR_VIEW},
}  # fmt: skip
SHAPES = {
    "camera": (1, HEIGHT_PX, WIDTH_PX, 3), "audio": (1, 16000), "motion": (1, 12, 50), "lidar": (1, 2, 16, 256),
}  # fmt: skip
OUTPUTS = {
    "camera": ("embedding", "objects", "lanes"),
    "audio": ("embedding", "sound_onsets"),
    "motion": ("embedding",),
    "lidar": ("embedding",),
}
FUSE_OUTPUTS = ("embedding", "scene_tags", "sound_events", "ego_action", "intent", "scores")

HEADS: dict[str, object] = {
    "scene_tags": list(SCENE_TAGS),
    "sound_events": list(SOUND_EVENTS),
    "sound_onsets": list(SOUND_EVENTS),
    "ego_action": list(EGO_ACTIONS),
    "intent": list(PRESSING_INTENTS),
    "lanes": list(SURFACES),
    "objects": {
        "kind": "objects", "labels": list(OBJECTS),
        "kinds": {"vehicle": list(VEHICLE_KINDS), "sign": list(SIGN_KINDS), "pedestrian": list(INTENTS)},
    },
}  # fmt: skip
