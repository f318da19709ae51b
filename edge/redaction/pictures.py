"""Redacts the pictures of a clip: by what the loop decided when it was recorded, and by detectors that look again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.drive import codec, topics
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.errors import DriveFormatError
from edge.redaction.detect import Looker
from edge.redaction.facts import Facts
from edge.redaction.picture import cover, covered_jpeg, rectangles, size_of
from edge.redaction.regions import FACE, PLATE, Box, Region, kind_of, region_of
from edge.redaction.streams import Part
from edge.redaction.tracks import Tracks
from edge.redaction.video import VideoDecoder, VideoEncoder
from edge.redaction.video import parsed as parsed_video
from roadfuse.v1.decision_pb2 import Decision

MAX_PICTURE_BYTES: Final = 64 << 20
_EVERYWHERE: Final = 1e9


class Pictures:
    """Those of one clip.

    Args:
        parts: what is done with each channel.
        faces: looks at every picture; None: nobody does.
        objects: finds people and vehicles; looks at pictures of which no decision of its own speaks.
        believes: other bundles' decisions will do, where they named both people and vehicles.
        facts: where it is counted.
    """

    def __init__(
        self, parts: Mapping[int, Part], faces: Looker | None, objects: Bundle, believes: bool, facts: Facts
    ) -> None:
        self._parts = {id: part for id, part in parts.items() if part in (Part.PICTURES, Part.VIDEO)}
        self._faces, self._objects, self._believes, self._facts = faces, objects, believes, facts
        self._recorded = Tracks()
        self._bundles: dict[str, set[str]] = {}  # by whose decisions, and what they named: FACE, PLATE
        self._decided: dict[str, set[int]] = {}
        self._tracks: dict[int, list[Tracks]] = {}
        self._spoken_of: dict[int, set[int]] = {}  # stamps of the pictures of which a decision speaks that will do
        self._looked: dict[int, set[int]] = {}  # those, and stamps of the pictures that somebody looked at
        self._repeated: dict[int, set[int]] = {}  # stamps that several pictures have
        self._decoders: dict[int, VideoDecoder] = {}
        self._encoders: dict[int, VideoEncoder] = {}

    def take(self, decision: Decision, stamp_ns: int) -> None:
        """What the loop saw; all decisions come before the pictures are looked at."""
        boxes = [
            Box(o.name, o.left_px, o.top_px, o.left_px + o.width_px, o.top_px + o.height_px) for o in decision.objects
        ]
        self._recorded.add(stamp_ns, boxes)
        self._bundles.setdefault(decision.bundle_id, set()).update(kind_of(box.name) for box in boxes)
        if any(modality.stream == "camera" and modality.present for modality in decision.modalities):
            self._decided.setdefault(decision.bundle_id, set()).add(stamp_ns)

    def look(self, drive: DriveReader) -> None:
        """Looks for faces in all pictures, and for people and vehicles where no decision speaks of them."""
        self._find_repeated(drive)
        # A decision names the topic: which of two cameras there it speaks of, nobody knows.
        has_one_camera = sum(channel.topic == topics.CAMERA for channel in drive.channels.values()) == 1
        for id, channel in drive.channels.items():
            if id in self._parts:
                is_recorded = channel.topic == topics.CAMERA
                self._tracks[id] = [self._recorded] if is_recorded else []
                spoken_of: set[int] = set()
                for bundle_id, named in self._bundles.items():
                    # One that never names people, or vehicles, may be unable to.
                    will_do = bundle_id == self._objects.id or (self._believes and {FACE, PLATE} <= named)
                    if is_recorded and has_one_camera and will_do:
                        spoken_of |= self._decided.get(bundle_id, set())
                # Of which of several pictures of one instant a decision speaks, nobody knows.
                self._spoken_of[id] = spoken_of - self._repeated[id]
                self._looked[id] = set(self._spoken_of[id])
        objects: Looker | None = None
        own = {id: Tracks() for id in self._parts}
        faces = {id: Tracks() for id in self._parts}
        for message in self._messages(drive):
            id = message.channel
            found = self._undecided(message)
            if found is None:
                continue
            image, stamp_ns = found
            instant_ns = self._instant_ns(message, stamp_ns)
            if self._faces is not None:
                faces[id].add(instant_ns, self._faces.find(image))
            if stamp_ns not in self._spoken_of[id]:
                objects = objects or Looker(self._objects)
                own[id].add(instant_ns, objects.find(image))
                self._facts.pictures_looked_at += 1
                self._looked[id].add(stamp_ns)
        for id, tracks in self._tracks.items():
            tracks += [own[id], faces[id]]
        self._facts.objects = sorted(id for id, named in self._bundles.items() if {FACE, PLATE} & named)
        if objects is not None:
            self._facts.objects = sorted({*self._facts.objects, objects.id})
        self._decoders.clear()

    def redacted(self, message: DriveMessage) -> bytes:
        """A message's redacted payload; the very same where nothing is covered."""
        self._facts.pictures += 1
        if self._parts[message.channel] is Part.VIDEO:
            return self._redacted_video(message)
        found = _picture(message.payload)
        if found is None:
            self._facts.pictures_emptied += 1
            return b""
        picture, stamp_ns = found
        regions: list[Region] = []
        try:
            width, height = size_of(picture.data)
            regions = self._regions(message, stamp_ns, height)
            covered = rectangles(regions, width, height)
            if not covered and stamp_ns in self._looked[message.channel]:
                if stamp_ns in self._repeated[message.channel]:
                    codec.decode_jpeg(picture.data)  # raises: others of its instant were looked at, it was not
                return message.payload
            picture.data = covered_jpeg(picture.data, covered) if covered else b""  # who could not be looked at goes
        except DriveFormatError:
            picture.data = b""
        self._count(regions if picture.data else None)
        payload: bytes = picture.SerializeToString(deterministic=True)
        return payload

    def _redacted_video(self, message: DriveMessage) -> bytes:
        found = parsed_video(message.payload)
        if found is None:
            self._facts.pictures_emptied += 1
            return b""
        video, stamp_ns = found
        image = self._decoders.setdefault(message.channel, VideoDecoder()).picture(video)
        if image is None:
            video.data, regions = b"", None
        else:
            regions = self._regions(message, stamp_ns, image.shape[0])
            cover(image, rectangles(regions, image.shape[1], image.shape[0]))
            encoder = self._encoders.setdefault(message.channel, VideoEncoder())
            video.data = encoder.encoded(image, video.format)
        if regions or not video.data:
            self._count(regions if video.data else None)
        payload: bytes = video.SerializeToString(deterministic=True)
        return payload

    def _messages(self, drive: DriveReader) -> Iterator[DriveMessage]:
        topics_of_parts = {drive.channels[id].topic for id in self._parts}
        return (message for message in drive.messages(topics_of_parts) if message.channel in self._parts)

    def _find_repeated(self, drive: DriveReader) -> None:
        """Stamps of several pictures of a channel: a camera's clock that stands still, or counts whole seconds."""
        known: dict[int, set[int]] = {id: set() for id in self._parts}
        self._repeated = {id: set() for id in self._parts}
        for message in self._messages(drive):
            id = message.channel
            parsed = parsed_video if self._parts[id] is Part.VIDEO else _picture
            if found := parsed(message.payload):
                (self._repeated if found[1] in known[id] else known)[id].add(found[1])

    def _undecided(self, message: DriveMessage) -> tuple[NDArray[np.uint8], int] | None:
        """A picture that somebody has to look at, and its instant."""
        id = message.channel
        if self._parts[id] is Part.VIDEO:  # each needs the one before it
            found = parsed_video(message.payload)
            if found is None:
                return None
            image = self._decoders.setdefault(id, VideoDecoder()).picture(found[0])
            return None if image is None else (image, found[1])
        found = _picture(message.payload)
        if found is None or (self._faces is None and found[1] in self._spoken_of[id]):
            return None
        with suppress(DriveFormatError):
            return codec.decode_jpeg(found[0].data), found[1]
        return None

    def _instant_ns(self, message: DriveMessage, stamp_ns: int) -> int:
        """When a picture was taken; where its stamp is another's too, when it arrived tells more."""
        return message.arrival_ns if stamp_ns in self._repeated[message.channel] else stamp_ns

    def _regions(self, message: DriveMessage, stamp_ns: int, height_px: int) -> list[Region]:
        """What is covered of a picture."""
        regions = []
        for tracks in self._tracks[message.channel]:
            boxes = tracks.at(stamp_ns if tracks is self._recorded else self._instant_ns(message, stamp_ns))
            if boxes is None:
                return [Region(FACE, -_EVERYWHERE, -_EVERYWHERE, _EVERYWHERE, _EVERYWHERE)]
            regions += [region for box in boxes if (region := region_of(box, height_px)) is not None]
        return regions

    def _count(self, regions: Collection[Region] | None) -> None:
        if regions is None:
            self._facts.pictures_emptied += 1
            return
        faces = sum(region.kind == FACE for region in regions)
        self._facts.pictures_covered += 1
        self._facts.face_regions += faces
        self._facts.plate_regions += len(regions) - faces


def _picture(payload: bytes) -> tuple[Any, int] | None:
    """The message of a picture and its instant; None where it is none."""
    picture = CompressedImage()
    if len(payload) > MAX_PICTURE_BYTES:
        return None
    with suppress(DecodeError, DriveFormatError):
        picture.ParseFromString(payload)
        if picture.format in ("jpeg", "jpg") and picture.HasField("timestamp"):
            return picture, codec.timestamp_ns(picture.timestamp)
    return None
