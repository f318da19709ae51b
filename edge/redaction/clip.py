"""A clip in, a redacted clip out: faces, plates and voices are covered, all other messages stay byte for byte.

The clip is read several times and never held: first what the loop decided (and what detectors find, where there are
any), then the sound, then all of it as it is written. What is not understood does not leave: a picture or a sound that
can't be decoded becomes empty, a stream of pictures or sound of an unknown form is left out, and the result says so.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.drive import codec, topics
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.drive.writer import DRIVE_METADATA
from edge.durable import replacing, sync
from edge.errors import DriveDamaged, DriveFormatError
from edge.redaction.detect import Listener, Looker
from edge.redaction.facts import NAME, Facts, facts_of
from edge.redaction.pictures import Pictures
from edge.redaction.sounds import Sounds
from edge.redaction.streams import Part, part_of
from edge.redaction.video import is_available
from edge.redaction.writer import ClipWriter
from roadfuse.v1.decision_pb2 import Decision


@dataclass(frozen=True, slots=True)
class Detectors:
    """Who looks and listens beside the loop that recorded the clip.

    Attributes:
        faces: looks for faces (or plates) in every picture.
        voices: listens for voices.
        objects: looks for people and vehicles in every picture of which no decision of its own was recorded. None: the
            reference bundle does, where no decision was recorded of a bundle that named both.
    """

    faces: Bundle | None = None
    voices: Bundle | None = None
    objects: Bundle | None = None

    def check(self) -> None:
        """Opens them all.

        Raises:
            BundleError: one does not find what it is there for.
        """
        for bundle in (self.faces, self.objects):
            if bundle is not None:
                Looker(bundle)
        if self.voices is not None:
            Listener(self.voices)


def redact(source: Path, target: Path, detectors: Detectors | None = None, *, durable: bool = True) -> Facts | None:
    """Writes the redacted clip of `source` as `target`, which is there whole or not at all.

    Args:
        target: may be `source` itself; a file that is there is replaced and keeps its mode.
        durable: wait for the disk at each chunk; at the end it is waited for in any case.

    Returns:
        What was covered; None where `source` had been redacted so before, and was taken as it is.

    Raises:
        DriveError: `source` is no drive.
        BundleError: a detector can't be used.
        OSError: it can't be read, `target` is no file that can be replaced, or the disk refused; `target` is as it was.
    """
    detectors = detectors or Detectors()
    target = Path(os.path.realpath(target))  # a link stays, what it points to is replaced
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "expected a file to replace", str(target))
    facts = None
    with DriveReader(source, on_damage=pass_over) as drive:
        was_redacted = is_redacted(drive, detectors)
        if was_redacted and target.exists() and target.samefile(source):
            return None
        with replacing(target) as part:
            if was_redacted:
                shutil.copyfile(source, part)
            else:
                facts = _Redaction(drive, detectors).write(part, durable)
            sync(part)
    sync(target.parent)
    return facts


def is_redacted(drive: DriveReader, detectors: Detectors | None = None) -> bool:
    """Whether a drive was redacted, and by these detectors where some are given."""
    facts = facts_of(drive.metadata) if drive.complete else None
    if facts is None:
        return False
    wanted = detectors or Detectors()
    looked = facts.get("objects")
    if wanted.objects is not None and not (isinstance(looked, list) and wanted.objects.id in looked):
        return False
    return all(
        bundle is None or facts.get(name) == bundle.id
        for name, bundle in (("faces", wanted.faces), ("voices", wanted.voices))
    )


class _Redaction:
    """One clip's."""

    def __init__(self, drive: DriveReader, detectors: Detectors) -> None:
        self._drive = drive
        self._facts = facts = Facts()
        self._damages: set[int] = set()
        drive.on_damage = self._note_damage
        self._parts = {channel.id: part_of(channel) for channel in drive.channels.values()}
        for id, channel in drive.channels.items():
            if self._parts[id] is Part.VIDEO and not is_available():
                self._parts[id] = Part.LEFT_OUT
                facts.left_out[channel.topic] = "video, and there is no PyAV here to redact it"
            elif self._parts[id] is Part.LEFT_OUT:
                form = channel.schema or channel.message_encoding or "no schema"
                facts.left_out[channel.topic] = f"pictures or sound of an unknown form: {form}"
        faces = Looker(detectors.faces) if detectors.faces else None
        voices = Listener(detectors.voices) if detectors.voices else None
        facts.faces, facts.voices = faces.id if faces else "", voices.id if voices else ""
        objects = detectors.objects or bundles.load()
        self._pictures = Pictures(self._parts, faces, objects, detectors.objects is None, facts)
        self._sounds = Sounds({id for id, part in self._parts.items() if part is Part.SOUND}, voices, facts)

    def write(self, path: Path, durable: bool) -> Facts:
        """Reads the clip and writes the redacted one."""
        drive = self._drive
        self._read_decisions()
        self._pictures.look(drive)
        kept = [channel for channel in drive.channels.values() if self._parts[channel.id] is not Part.LEFT_OUT]
        metadata = {name: record for name, record in drive.metadata.items() if name not in (NAME, DRIVE_METADATA)}
        with self._sounds as sounds:
            sounds.redact(drive)
            with ClipWriter(path, kept, drive.metadata.get(DRIVE_METADATA, {}), durable=durable) as clip:
                for name, record in metadata.items():
                    clip.add_metadata(name, record)
                self._write_messages(clip)
                self._facts.damages = len(self._damages)
                clip.add_metadata(NAME, self._facts.record())
        return self._facts

    def _write_messages(self, clip: ClipWriter) -> None:
        ways: dict[Part, Callable[[DriveMessage], bytes]] = {
            Part.PICTURES: self._pictures.redacted,
            Part.VIDEO: self._pictures.redacted,
            Part.SOUND: self._sounds.redacted,
        }
        for message in self._drive.messages():
            part = self._parts[message.channel]
            payload = ways[part](message) if part in ways else message.payload
            try:
                if part is not Part.LEFT_OUT:
                    clip.copy(message._replace(payload=payload))
                    continue
            except ValueError:  # instants or a size that no reader would take
                pass
            self._facts.messages_left_out += 1

    def _read_decisions(self) -> None:
        for message in self._drive.messages([topics.DECISION]):
            decision = Decision()
            with suppress(DecodeError, DriveFormatError):  # one that is damaged says nothing
                decision.ParseFromString(message.payload)
                stamp_ns = codec.timestamp_ns(decision.timestamp)
                self._pictures.take(decision, stamp_ns)
                self._sounds.take(decision, stamp_ns)

    def _note_damage(self, damage: DriveDamaged) -> None:
        self._damages.add(damage.offset)


def pass_over(_: DriveDamaged) -> None:
    """What is damaged is not there."""
