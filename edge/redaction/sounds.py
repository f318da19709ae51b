"""Redacts the sound of a clip: first all of it, into samples that wait, then message by message."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final

import numpy as np
from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.drive import codec
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.errors import DriveFormatError
from edge.redaction.detect import Listener, heard_by_loop
from edge.redaction.facts import Facts
from edge.redaction.hearing import LIKELY, SPEECH, Spans
from edge.redaction.sound import SoundRedaction
from edge.samples import AudioChunk
from roadfuse.v1.decision_pb2 import Decision

MAX_SOUND_BYTES: Final = 16 << 20
_IN_MEMORY: Final = 32 << 20  # of redacted samples; more wait in a file without a name


class Sounds:
    """That of one clip; to be closed, or used in a `with` block.

    Args:
        channels: ids of those that hold sound.
        voices: listens beside the rule; None: nobody does.
        facts: where it is counted.
    """

    def __init__(self, channels: set[int], voices: Listener | None, facts: Facts) -> None:
        self._channels, self._voices, self._facts = channels, voices, facts
        self._spans = Spans()
        self._files = ExitStack()
        self._samples: dict[int, Any] = {}

    def __enter__(self) -> Sounds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def take(self, decision: Decision, stamp_ns: int) -> None:
        """What the loop heard; all decisions come before the sound."""
        if any(sound.name in SPEECH and not sound.probability < LIKELY for sound in decision.sound_events):
            self._spans.add(*heard_by_loop(stamp_ns))

    def redact(self, drive: DriveReader) -> None:
        """Reads all sound and redacts it.

        Raises:
            OSError: there is no room for it.
        """
        names = {drive.channels[id].topic for id in self._channels}
        if self._voices is not None:
            for message in drive.messages(names):
                self._listen(message, self._voices)
        redactions: dict[int, SoundRedaction] = {}
        for message in drive.messages(names):
            found = self._sound(message)
            if found is None:
                continue
            sound, pcm, stamp_ns = found
            if message.channel not in redactions:
                file: Any = self._files.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115
                self._samples[message.channel] = file
                redactions[message.channel] = SoundRedaction(self._spans, file)
            redactions[message.channel].take(pcm, stamp_ns, sound.sample_rate)
        for id, redaction in redactions.items():
            redaction.finish()
            self._facts.sound_s += redaction.heard_s
            self._facts.sound_covered_s += redaction.covered_s
            self._samples[id].seek(0)

    def redacted(self, message: DriveMessage) -> bytes:
        """The next message's redacted payload, in the order of reading; the very same where nothing is covered."""
        found = self._sound(message)
        if found is None:
            self._facts.sounds_emptied += 1
            return b""
        sound = found[0]
        samples = self._samples[message.channel].read(len(sound.data))
        if samples == sound.data:
            return message.payload
        sound.data = samples
        payload: bytes = sound.SerializeToString(deterministic=True)
        return payload

    def _listen(self, message: DriveMessage, voices: Listener) -> None:
        found = self._sound(message)
        if found is not None and len(found[1]):
            sound, pcm, stamp_ns = found
            mono = pcm.astype(np.int32).sum(axis=1) // pcm.shape[1]
            voices.hear(AudioChunk(stamp_ns, message.sequence, sound.sample_rate, mono.astype(np.int16)), self._spans)

    def _sound(self, message: DriveMessage) -> tuple[Any, NDArray[np.int16], int] | None:
        """The message of a block of sound, its samples by channel, and its instant; None where it is none."""
        if message.channel not in self._channels or len(message.payload) > MAX_SOUND_BYTES:
            return None
        sound = RawAudio()
        with suppress(DecodeError, DriveFormatError):
            sound.ParseFromString(message.payload)
            channels = sound.number_of_channels
            is_whole = 1 <= channels <= codec.MAX_AUDIO_CHANNELS and not len(sound.data) % (2 * channels)
            if sound.format == "pcm-s16" and is_whole and 1_000 <= sound.sample_rate <= 384_000:
                if not sound.HasField("timestamp"):
                    return None
                pcm = np.frombuffer(sound.data, "<i2").reshape(-1, channels).astype(np.int16)
                return sound, pcm, codec.timestamp_ns(sound.timestamp)
        return None
