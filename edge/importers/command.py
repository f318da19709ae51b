"""`roadfuse import SOURCE --out DRIVE.mcap`: a foreign recording becomes a drive.

The drive is written beside its name and renamed at the end, so that a half-written one never carries it. What could not
be mapped is named on stderr, in the drive's metadata and in --json.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf.message import Message
from tqdm import tqdm

from edge.drive import codec
from edge.drive.writer import DriveWriter
from edge.durable import refuse_output, replacing
from edge.errors import ConfigError, DriveFormatError, SourceError
from edge.importers import detect
from edge.importers.recording import MAX_STAMP_NS, NS_PER_S, Event, Options, Recording
from edge.samples import Frame, Sample

JPEG_QUALITY = 95
IMPORT_METADATA = "roadfuse.import"


@dataclass(slots=True)
class Summary:
    """What went into a drive."""

    source: str
    format: str
    out: str
    streams: dict[str, int] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a source to take, counted from its first sample; seconds None is to its end."""

    start_s: float = 0.0
    seconds: float | None = None

    @property
    def whole(self) -> bool:
        return self.start_s == 0.0 and self.seconds is None


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="roadfuse import", description="Turn a foreign recording into a drive.")
    parser.add_argument("source", type=Path, help="file or folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DRIVE.mcap", help="the drive to write")
    parser.add_argument("--format", choices=sorted(detect.FORMATS), help="skip looking at the content")
    parser.add_argument(
        "--dbc", type=Path, action="append", default=[], metavar="FILE", help="CAN database; repeatable"
    )
    parser.add_argument("--start", type=_seconds, default=0.0, metavar="S", help="skip the first S seconds")
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="take at most S seconds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    words = parser.parse_args(argv)
    cut = Cut(words.start, words.seconds)
    options = Options(tuple(words.dbc))
    summary = import_recording(words.source, words.out, options, format_name=words.format, cut=cut, progress=True)
    for entry in summary.skipped:
        print(f"skipped {entry['name']}: {entry['reason']}", file=sys.stderr)
    if words.json:
        print(
            json.dumps(
                {
                    "source": summary.source,
                    "format": summary.format,
                    "out": summary.out,
                    "duration_s": summary.duration_s,
                    "streams": summary.streams,
                    "skipped": summary.skipped,
                }
            )
        )
    else:
        streams = ", ".join(f"{topic} {count}" for topic, count in sorted(summary.streams.items()))
        print(f"{summary.out}: {summary.format}, {summary.duration_s:.1f} s: {streams}")
    return 0


def import_recording(
    source: Path,
    out: Path,
    options: Options | None = None,
    *,
    format_name: str | None = None,
    cut: Cut | None = None,
    progress: bool = False,
) -> Summary:
    """Writes the drive of a source.

    Args:
        format_name: one of `detect.FORMATS`; None looks at the content.
        progress: show a progress bar where stderr is a terminal.

    Raises:
        SourceError: the source can't be imported; no drive is left behind.
        ConfigError: the drive would take the place of something else.
    """
    options = options or Options()
    if not source.is_file() and not source.is_dir():
        got = "something else" if source.exists() else "nothing of that name"
        raise SourceError(f"{source}: expected a file or a folder, got {got}")
    refuse_output(out, source, *options.dbc)
    if out.exists() and source.resolve() in out.resolve().parents:
        raise ConfigError(f"{out}: expected another file than those of the source, got one in {source}")
    try:
        with replacing(out) as part:
            recording = detect.opener(format_name or detect.detect(source))(source, options)
            return _write(recording, source, part, out, cut or Cut(), progress and sys.stderr.isatty())
    except SourceError as error:
        raise SourceError(str(error) if str(source) in str(error) else f"{source}: {error}") from None


def _write(recording: Recording, source: Path, part: Path, out: Path, cut: Cut, progress: bool) -> Summary:
    summary = Summary(source=source.name, format=recording.format, out=str(out))
    facts = {"source": source.resolve().name, "importer": recording.format}
    if not cut.whole:
        facts["cut"] = f"from {cut.start_s:g} s, {'to the end' if cut.seconds is None else f'{cut.seconds:g} s'}"
    first_ns = last_ns = None
    refused: dict[str, str] = {}  # why, of the first sample of each topic that a drive can't hold
    with (
        DriveWriter(part, metadata=facts | recording.metadata) as drive,
        tqdm(
            unit=" s", unit_scale=1 / NS_PER_S, disable=not progress, bar_format="{n:.1f} s of the source {elapsed}"
        ) as bar,
    ):
        for event in _cut(_merged(recording, source), cut):
            count = summary.streams.get(event.topic, 0)
            try:
                payload = _payload(event.topic, event.content)
            except DriveFormatError as error:
                why = refused.setdefault(event.topic, str(error).removeprefix(f"{event.topic}: "))
                recording.skipped.count(event.topic, f"beyond what a drive holds; the first: {why}")
                continue
            seq = count if isinstance(event.content, Message) else event.content.seq
            drive.write_payload(
                event.topic, payload, capture_ns=event.capture_ns, arrival_ns=event.arrival_ns, sequence=seq
            )
            summary.streams[event.topic] = count + 1
            first_ns = event.arrival_ns if first_ns is None else first_ns
            bar.update(event.arrival_ns - (first_ns if last_ns is None else last_ns))
            last_ns = event.arrival_ns
        if first_ns is None or last_ns is None:
            got = f"none that a drive holds ({next(iter(refused.values()))})" if refused else "none"
            raise SourceError(f"{source}: expected at least one sample to import, got {got}")
        summary.skipped = recording.skipped.entries()
        summary.duration_s = (last_ns - first_ns) / NS_PER_S
        drive.add_metadata(
            IMPORT_METADATA, {"skipped": json.dumps(summary.skipped), "streams": json.dumps(summary.streams)}
        )
    return summary


def _payload(topic: str, content: Sample | Message) -> bytes:
    """A sample or a ready message as the drive has it.

    Raises:
        DriveFormatError: it is a sample that every reader would refuse.
    """
    if isinstance(content, Message):
        return content.SerializeToString(deterministic=True)
    if isinstance(content, Frame):
        if not content.jpeg and content.image is not None:
            content = content._replace(image=None, jpeg=codec.encode_jpeg(content.image, JPEG_QUALITY))
        codec.check_jpeg(content.jpeg)
    payload = codec.encode(content).SerializeToString(deterministic=True)
    codec.decode(topic, payload, content.seq, pictures=False)
    return payload


def _merged(recording: Recording, source: Path) -> Iterator[Event]:
    """All streams in the order of arrival, with sane instants."""
    last_ns = 0
    for event in heapq.merge(*recording.streams, key=lambda event: event.arrival_ns):
        if not (0 <= event.capture_ns < MAX_STAMP_NS and last_ns <= event.arrival_ns < MAX_STAMP_NS):
            raise SourceError(
                f"{source}: expected stamps of {event.topic} from {last_ns} ns on, "
                f"got capture {event.capture_ns} ns, arrival {event.arrival_ns} ns"
            )
        last_ns = event.arrival_ns
        yield event


def _cut(merged: Iterator[Event], cut: Cut) -> Iterator[Event]:
    """The events whose capture lies in the cut; calibrations that came before it move to its start."""
    first_ns: int | None = None
    standing: list[Event] = []
    for event in merged:
        first_ns = event.arrival_ns if first_ns is None else first_ns
        start_ns = first_ns + round(cut.start_s * NS_PER_S)
        end_ns = MAX_STAMP_NS if cut.seconds is None else start_ns + round(cut.seconds * NS_PER_S)
        if event.arrival_ns < start_ns:
            if isinstance(event.content, Message):
                standing.append(replace(event, arrival_ns=start_ns))
            continue
        if event.arrival_ns >= end_ns:
            return
        yield from standing
        standing.clear()
        yield event


def _seconds(word: str) -> float:
    value = float(word)
    if not 0 <= value * NS_PER_S < MAX_STAMP_NS:  # also false for NaN
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to {MAX_STAMP_NS // NS_PER_S}, got {word}")
    return value
