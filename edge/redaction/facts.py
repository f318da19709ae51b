"""What a redacted clip says of its redaction: the metadata record `roadfuse.redaction`.

The cloud reads it before it takes a clip: one without is as it was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

NAME: Final = "roadfuse.redaction"
VERSION: Final = 1
_MAX_RECORD: Final = 1 << 20  # characters


@dataclass(slots=True)
class Facts:
    """What was found and covered.

    Attributes:
        faces: id of the bundle that looked for faces in every picture; "" where none did.
        voices: id of the bundle that listened for voices; "" where none did.
        objects: ids of the bundles by whose recorded decisions, or for this, people and vehicles were found.
        pictures, pictures_covered, pictures_emptied: seen; with something covered; that nobody could decode and that
            are empty now.
        face_regions, plate_regions: rectangles covered.
        pictures_looked_at: of which no recorded decision spoke, so that a detector looked for people and vehicles now.
        sound_s, sound_covered_s: seconds heard and replaced.
        sounds_emptied: messages of sound that nobody could decode and that are empty now.
        left_out: topic -> why none of its messages is here.
        messages_left_out: how many those were.
        damages: places where the clip was damaged; what stood there is not here.
    """

    faces: str = ""
    voices: str = ""
    objects: list[str] = field(default_factory=list)
    pictures: int = 0
    pictures_covered: int = 0
    pictures_emptied: int = 0
    pictures_looked_at: int = 0
    face_regions: int = 0
    plate_regions: int = 0
    sound_s: float = 0.0
    sound_covered_s: float = 0.0
    sounds_emptied: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    messages_left_out: int = 0
    damages: int = 0

    def record(self) -> dict[str, str]:
        """As the metadata of a clip."""
        told = asdict(self)
        told["sound_s"], told["sound_covered_s"] = round(self.sound_s, 3), round(self.sound_covered_s, 3)
        return {"version": str(VERSION), "facts": json.dumps(told, sort_keys=True)}


def facts_of(metadata: Mapping[str, Mapping[str, str]]) -> dict[str, Any] | None:
    """What a clip says of its redaction, with its `version`; None where it was not redacted, or as nobody understands.

    Args:
        metadata: of the drive, by name of the record.
    """
    record = metadata.get(NAME)
    if record is None or len(record.get("facts", "")) > _MAX_RECORD:
        return None
    version = record.get("version", "")
    if not version.isdecimal() or not 1 <= int(version[:9]) <= VERSION:
        return None
    try:
        facts = json.loads(record.get("facts", ""))
    except (ValueError, RecursionError):
        return None
    return {"version": int(version), **facts} if isinstance(facts, dict) else None
