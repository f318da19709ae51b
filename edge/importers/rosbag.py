"""ROS recordings: rosbag1 files, rosbag2 folders, and single sqlite3 or MCAP files of a rosbag2, through `rosbags`.

The message types of `rosmsg.TOPICS` have a topic in a drive; of several topics of one kind the fullest is taken, and
all others are named. Capture is the header's stamp, arrival the record's time; both are the recorder's ROS time. Where
the header has no stamp, capture is arrival. Sequence numbers follow the capture stamps, so that messages recorded
out of order show as such.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from edge.drive import topics
from edge.errors import SourceError
from edge.importers import rosmsg
from edge.importers.recording import NS_PER_S, Event, Options, Recording, Skipped
from edge.samples import AudioChunk, Sample

_SUFFIXES: Final = {b"#ROSBAG V": ".bag", b"SQLite format 3": ".db3", b"\x89MCAP0": ".mcap"}
_AUDIO_INFO: Final = "audio_common_msgs/msg/AudioInfo"
_AUDIO_DATA: Final = "audio_common_msgs/msg/AudioData"
_UNREAD: Final = MessageDefinition(MessageDefinitionFormat.NONE, "")


def open_recording(source: Path, options: Options) -> Recording:
    """Opens a bag.

    Raises:
        SourceError: it is no bag, it is damaged, or no topic of it has a place in a drive.
    """
    del options
    skipped = Skipped()
    with _opened(source) as reader:
        chosen = _choose(reader.connections, skipped)
        audio = _audio_info(reader) if topics.AUDIO in chosen else None
        if topics.AUDIO in chosen and audio is None:
            skipped.stream(chosen.pop(topics.AUDIO), "no AudioInfo says that it is 16-bit PCM")
        sequences = {name: _sequences(reader, name) for topic, name in chosen.items() if topic != topics.AUDIO}
        is_ros2 = reader.is2
    if not chosen:
        names = ", ".join(entry["name"] for entry in skipped.entries())
        raise SourceError(f"{source}: expected a topic of sensor messages, got {names or 'none at all'}")
    metadata = {"clock": "ROS time of the recorder", "arrival": "record time of the bag"}
    metadata |= {f"source topic of {topic}": name for topic, name in chosen.items()}
    stream = _read(source, {name: topic for topic, name in chosen.items()}, sequences, audio, skipped)
    return Recording("rosbag2" if is_ros2 else "rosbag1", [stream], skipped, metadata)


@contextmanager
def _opened(source: Path) -> Iterator[AnyReader]:
    """The open bag; whatever `rosbags` raises on damaged bytes becomes one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = _named_by_content(source, Path(folder)) if source.is_file() else source
        try:
            bag = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            if bag.is2:
                bag.readers = [_Reader(path)]
            with bag as reader:
                yield reader
        except SourceError:
            raise
        except Exception as error:  # a foreign parser raises whatever damaged bytes lead it to
            detail = " ".join(f"{type(error).__name__} {error}".replace(str(path), source.name).split())[:160]
            raise SourceError(f"{source}: expected a readable ROS bag, got: {detail}") from None


class _Reader(Reader):
    """A ROS 2 bag with the definitions of what is read here alone.

    `rosbags` parses them all, and refuses a bag for one recorded service: what defines that is no message.
    """

    @property
    def connections(self) -> list[Connection]:
        read = {*rosmsg.TOPICS, _AUDIO_INFO}
        return [one if one.msgtype in read else one._replace(msgdef=_UNREAD) for one in super().connections]


def _named_by_content(source: Path, folder: Path) -> Path:
    """A link to the file under the name by which `rosbags` chooses its reader."""
    with source.open("rb") as file:
        head = file.read(16)
    suffix = next((suffix for magic, suffix in _SUFFIXES.items() if head.startswith(magic)), source.suffix)
    link = folder / f"{source.stem}{suffix}"
    link.symlink_to(source.resolve())
    return link


def _choose(connections: list[Connection], skipped: Skipped) -> dict[str, str]:
    """The ROS topic that each topic of the drive comes from."""
    counts: dict[str, dict[str, int]] = {}
    for connection in connections:
        topic = rosmsg.TOPICS.get(connection.msgtype)
        if topic is not None and connection.msgcount:
            found = counts.setdefault(topic, {})
            found[connection.topic] = found.get(connection.topic, 0) + connection.msgcount
    chosen = {topic: max(sorted(found), key=lambda name: found[name]) for topic, found in counts.items()}
    for name, msgtype in sorted({(c.topic, c.msgtype) for c in connections}):
        messages = sum(c.msgcount for c in connections if c.topic == name)
        topic = rosmsg.TOPICS.get(msgtype)
        if name in chosen.values() or (msgtype == _AUDIO_INFO and topics.AUDIO in chosen):
            continue
        reason = f"a drive has one {topic} and {chosen[topic]} is fuller" if topic in chosen else "no topic takes it"
        skipped.stream(name, f"{msgtype}, {messages} messages: {reason if messages else 'it is empty'}")
    return chosen


def _sequences(reader: AnyReader, name: str) -> NDArray[np.int64]:
    """Of each message of a topic, in record order: its place in the order of capture."""
    connections = [connection for connection in reader.connections if connection.topic == name]
    stamps = []
    for _, recorded_ns, raw in reader.messages(connections=connections):
        order = ">" if reader.is2 and not raw[1] & 1 else "<"
        # Seconds and nanoseconds stand behind the 4 bytes of CDR's header or of ROS 1's seq.
        sec, nanosec = struct.unpack_from(f"{order}iI", raw, 4)
        stamps.append(sec * NS_PER_S + nanosec or recorded_ns)
    ranks = np.empty(len(stamps), np.int64)
    ranks[np.argsort(np.array(stamps, np.int64), kind="stable")] = np.arange(len(stamps))
    return ranks


def _read(
    source: Path,
    wanted: dict[str, str],
    sequences: dict[str, Any],
    audio: tuple[int, int] | None,
    skipped: Skipped,
) -> Iterator[Event]:
    """Every mapped message, in record order."""
    counts = dict.fromkeys(wanted, 0)
    with _opened(source) as reader:
        connections = [connection for connection in reader.connections if connection.topic in wanted]
        for connection, arrival_ns, raw in reader.messages(connections=connections):
            name = connection.topic
            at = counts[name]
            counts[name] += 1
            message = reader.deserialize(raw, connection.msgtype)
            sample: Sample
            try:
                stamp_ns = 0 if connection.msgtype == _AUDIO_DATA else rosmsg.stamp_ns(message)
                if wanted[name] == topics.AUDIO and audio is not None:
                    sample = _chunk(message, connection.msgtype, stamp_ns, arrival_ns, at, *audio)
                else:
                    at_ns = stamp_ns or arrival_ns
                    sample = rosmsg.sample(connection.msgtype, message, at_ns, int(sequences[name][at]))
                if sample.stamp_ns < 0:
                    raise rosmsg.Unusable("its stamp is before 1970")
            except rosmsg.Unusable as reason:
                skipped.count(name, str(reason))
                continue
            if not stamp_ns and connection.msgtype != _AUDIO_DATA:
                skipped.count(name, "no stamp in the header, its record's time written")
            yield Event(wanted[name], arrival_ns, sample.stamp_ns, sample)


def _audio_info(reader: AnyReader) -> tuple[int, int] | None:
    """Rate (Hz) and channels of the bag's sound, where it is 16-bit PCM."""
    connections = [connection for connection in reader.connections if connection.msgtype == _AUDIO_INFO]
    for connection, _, raw in reader.messages(connections=connections) if connections else ():
        info: Any = reader.deserialize(raw, connection.msgtype)
        if info.coding_format.lower() == "wave" and info.sample_format.upper() == "S16LE":
            return int(info.sample_rate), int(info.channels)
    return None


def _chunk(
    message: Any, msgtype: str, stamp_ns: int, arrival_ns: int, seq: int, rate_hz: int, channels: int
) -> AudioChunk:
    """A block of sound; without a stamp (0) it began its own length before its record."""
    content = np.asarray((message if msgtype == _AUDIO_DATA else message.audio).data, np.uint8).tobytes()
    if not 1_000 <= rate_hz <= 384_000 or channels < 1 or len(content) % (2 * channels) or not content:
        raise rosmsg.Unusable("its bytes are no whole samples")
    pcm = np.frombuffer(content, "<i2").reshape(-1, channels).astype(np.int32).sum(axis=1) // channels
    begin_ns = stamp_ns or arrival_ns - len(pcm) * NS_PER_S // rate_hz
    return AudioChunk(begin_ns, seq, rate_hz, pcm.astype(np.int16))
