"""Any media file: its first real video stream to /camera, its first sound to /audio; every other stream is named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge.drive import topics
from edge.errors import SourceError
from edge.importers import media
from edge.importers.recording import Event, Options, Recording, Skipped, events

_ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC


def open_recording(source: Path, options: Options) -> Recording:
    """Opens a media file.

    Raises:
        SourceError: it is none, it is cut off, or it has neither pictures nor sound.
    """
    recording = pictures_and_sound(source, "video", grey=options.grey)
    if not recording.streams:
        raise SourceError(
            f"{source}: expected pictures or sound, got a {recording.metadata['container']} file with neither"
        )
    return recording


def pictures_and_sound(source: Path, name: str, claimed: int | None = None, *, grey: bool = False) -> Recording:
    """The media streams of a file as a recording of format `name`; the caller takes the track `claimed` itself."""
    skipped = Skipped()
    with media.opened(source) as container:
        if "mp4" in container.format.name:
            media.check_whole(source)
        metadata = {"clock": "media time of the file + 1 s", "arrival": "capture", "container": container.format.name}
        metadata |= {key: container.metadata[key] for key in ("creation_time", "firmware") if key in container.metadata}
        names = {stream.index: stream_name(stream) for stream in container.streams}
        video = _first(container.streams.video, skipped, "video")
        audio = _first(container.streams.audio, skipped, "sound")
        for stream in container.streams:
            if stream.type not in ("video", "audio") and stream.index != claimed:
                skipped.stream(names[stream.index], f"a drive has no topic for {stream.type} tracks")
    streams: list[Iterable[Event]] = []
    if video is not None:
        streams.append(events(topics.CAMERA, media.frames(source, video, skipped, names[video], grey=grey)))
    if audio is not None:
        streams.append(events(topics.AUDIO, media.sound(source, audio, skipped, names[audio])))
    return Recording(name, streams, skipped, metadata)


def stream_name(stream: Any) -> str:
    """A stream's name for a person: `track 3 (audio aac)`."""
    codec = stream.codec_context.name if stream.type in ("video", "audio") and stream.codec_context else ""
    title = "".join(filter(str.isprintable, stream.metadata.get("handler_name", ""))).strip()
    return f"track {stream.index} ({' '.join(filter(None, [stream.type, codec, title]))})"


def _first(streams: Iterable[Any], skipped: Skipped, kind: str) -> int | None:
    """Index of the first stream that can be decoded and is no cover picture."""
    chosen: int | None = None
    for stream in streams:
        if chosen is not None:
            skipped.stream(stream_name(stream), f"a drive has one {kind} stream and track {chosen} is the first")
        elif stream.codec_context is None:
            skipped.stream(stream_name(stream), "there is no decoder for it")
        elif kind == "video" and int(stream.disposition) & _ATTACHED_PICTURE:
            skipped.stream(stream_name(stream), "it is a cover picture")
        else:
            chosen = int(stream.index)
    return chosen
