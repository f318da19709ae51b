"""What becomes of each channel of a clip: redacted as a picture, a video or a sound, kept as it is, or left out."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from edge.drive import topics
from edge.drive.contents import DriveChannel

# Schemas whose messages hold neither pictures nor sound, though their names sound so.
_HARMLESS: Final = re.compile(r"(annotations?|calibration|camera_?info|markers?|transforms?|detections?)\b", re.I)
_TELLING: Final = re.compile(r"image|video|audio|sound|speech|voice|picture|photo|jpeg|camera|microphone", re.I)


class Part(Enum):
    """What is done with a channel's messages."""

    KEPT = "kept"
    PICTURES = "pictures"
    VIDEO = "video"
    SOUND = "sound"
    LEFT_OUT = "left out"


def part_of(channel: DriveChannel) -> Part:
    """By schema and topic. What may hold pictures or sound in a form that is not known here is left out."""
    if channel.message_encoding == "protobuf":
        if channel.schema == "foxglove.CompressedImage":
            return Part.PICTURES
        if channel.schema == "foxglove.CompressedVideo":
            return Part.VIDEO
        if channel.schema == "foxglove.RawAudio":
            return Part.SOUND
        known = topics.SCHEMAS.get(channel.topic)
        if known is not None and known.DESCRIPTOR.full_name == channel.schema and _is_kept(channel.topic):
            return Part.KEPT
    if channel.topic in (topics.CAMERA, topics.AUDIO):
        return Part.LEFT_OUT
    if _TELLING.search(channel.schema) and not _HARMLESS.search(channel.schema):
        return Part.LEFT_OUT
    # Without a schema nothing but the topic's name says what it is.
    if not channel.schema and _TELLING.search(channel.topic) and not _HARMLESS.search(channel.topic):
        return Part.LEFT_OUT
    return Part.KEPT


def _is_kept(topic: str) -> bool:
    return topic not in (topics.CAMERA, topics.AUDIO)
