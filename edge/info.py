"""`roadfuse info DRIVE`: what is in a drive, stream by stream: rates, gaps, losses, delays, clocks, and damage.

Rates and gaps are of the capture stamps; the delay is arrival minus capture; a stream's clock offset is its median
delay above the fastest stream's. Works on every MCAP file, a drive or not, finished or not.
"""

from __future__ import annotations

import argparse
import json
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader
from numpy.typing import NDArray

from edge.drive.reader import DriveReader
from edge.errors import DriveDamaged

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Facts about one topic; a figure is None where there are too few messages to have one.

    missing, duplicates: by sequence number; None where the writer does not number its messages.
    """

    topic: str
    schema: str
    messages: int
    payload_bytes: int = 0
    rate_hz: float | None = None
    largest_gap_ms: float | None = None
    missing: int | None = None
    duplicates: int | None = None
    delay_p50_ms: float | None = None
    delay_p99_ms: float | None = None
    clock_offset_ms: float | None = None
    first_s: float | None = None
    last_s: float | None = None


@dataclass(slots=True)
class DriveInfo:
    """Facts about one file; instants in seconds of its clock."""

    path: str
    size_bytes: int
    library: str
    complete: bool
    chunks: int
    compression: str
    content_bytes: int
    duration_s: float = 0.0
    streams: list[StreamInfo] = field(default_factory=list)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    damage: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Column:
    """What is kept of each message of a topic."""

    captures_ns: array[int] = field(default_factory=lambda: array("q"))
    arrivals_ns: array[int] = field(default_factory=lambda: array("q"))
    sequences: array[int] = field(default_factory=lambda: array("q"))
    payload_bytes: int = 0


def main(argv: list[str]) -> int:
    """Prints the facts; 1 where the file is damaged."""
    parser = argparse.ArgumentParser(prog="roadfuse info", description="What is in a drive.")
    parser.add_argument("drive", type=Path, help="MCAP file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    words = parser.parse_args(argv)
    found = inspect(words.drive)
    print(json.dumps(asdict(found)) if words.json else table(found))
    return 1 if found.damage else 0


def inspect(path: Path) -> DriveInfo:
    """Reads the whole file and counts.

    Raises:
        DriveFormatError: it is no MCAP file.
    """
    damages: list[DriveDamaged] = []
    columns: dict[str, _Column] = {}
    with DriveReader(path, on_damage=damages.append) as drive:
        schemas = {channel.topic: channel.schema for channel in drive.channels.values()}
        for message in drive.messages():
            column = columns.setdefault(message.topic, _Column())
            column.captures_ns.append(message.capture_ns)
            column.arrivals_ns.append(message.arrival_ns)
            column.sequences.append(message.sequence)
            column.payload_bytes += len(message.payload)
        found = DriveInfo(
            path=str(path),
            size_bytes=drive.size_bytes,
            library=drive.library,
            complete=drive.complete,
            chunks=drive.chunk_count,
            compression=_compression(path) if drive.complete else "",
            content_bytes=sum(column.payload_bytes for column in columns.values()),
            metadata={name: dict(facts) for name, facts in drive.metadata.items()},
            damage=[{"message": str(damage), "offset": damage.offset} for damage in damages],
        )
    delays = {topic: _delays_ms(column) for topic, column in columns.items()}
    fastest_ms = min((float(np.median(values)) for values in delays.values()), default=0.0)
    found.streams = [
        _stream(topic, schemas[topic], columns.get(topic), delays.get(topic), fastest_ms) for topic in sorted(schemas)
    ]
    if columns:
        first_ns = min(min(column.arrivals_ns) for column in columns.values())
        found.duration_s = (max(max(column.arrivals_ns) for column in columns.values()) - first_ns) / NS_PER_S
    return found


def table(found: DriveInfo) -> str:
    """The facts for a person."""
    sizes = f"{found.size_bytes / 1e6:.2f} MB for {found.content_bytes / 1e6:.2f} MB of messages"
    chunks = f"{found.chunks} chunks ({found.compression or 'compression unknown'})"
    state = "closed cleanly" if found.complete else "never closed"
    writer = found.library or "an unnamed writer"
    lines = [f"{found.path}: {found.duration_s:.3f} s, {sizes} in {chunks}, {state}, written by {writer}"]
    for name, facts in sorted(found.metadata.items()):
        lines += [f"  {name}: {key} = {value}" for key, value in sorted(facts.items()) if key != "skipped"]
        lines += [f"  skipped {entry['name']}: {entry['reason']}" for entry in _skipped(facts)]
    header = ("topic", "schema", "messages", "Hz", "gap ms", "missing", "double", "delay p50", "p99", "offset ms")
    rows = [(*header, "first s", "last s")]
    for stream in found.streams:
        figures = (
            _figure(stream.rate_hz, 2),
            _figure(stream.largest_gap_ms, 1),
            _figure(stream.missing),
            _figure(stream.duplicates),
            _figure(stream.delay_p50_ms, 2),
            _figure(stream.delay_p99_ms, 2),
            _figure(stream.clock_offset_ms, 2),
            _figure(stream.first_s, 3),
            _figure(stream.last_s, 3),
        )
        rows.append((stream.topic, stream.schema, str(stream.messages), *figures))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        words = [word.ljust(width) if i < 2 else word.rjust(width) for i, (word, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(words).rstrip())
    lines += [f"damaged at byte {damage['offset']}: {damage['message']}" for damage in found.damage]
    return "\n".join(lines)


def _delays_ms(column: _Column) -> NDArray[np.float64]:
    arrivals = np.frombuffer(column.arrivals_ns, np.int64)
    delays: NDArray[np.float64] = (arrivals - np.frombuffer(column.captures_ns, np.int64)) / NS_PER_MS
    return delays


def _stream(
    topic: str, schema: str, column: _Column | None, delays_ms: NDArray[np.float64] | None, fastest_ms: float
) -> StreamInfo:
    if column is None or delays_ms is None:
        return StreamInfo(topic, schema, 0)
    captures = np.sort(np.frombuffer(column.captures_ns, np.int64))
    count, span_ns = len(captures), int(captures[-1] - captures[0])
    missing, duplicates = _losses(np.frombuffer(column.sequences, np.int64))
    p50, p99 = (float(value) for value in np.percentile(delays_ms, (50, 99)))
    return StreamInfo(
        topic=topic,
        schema=schema,
        messages=count,
        payload_bytes=column.payload_bytes,
        rate_hz=(count - 1) * NS_PER_S / span_ns if span_ns else None,
        largest_gap_ms=float(np.diff(captures).max()) / NS_PER_MS if count > 1 else None,
        missing=missing,
        duplicates=duplicates,
        delay_p50_ms=p50,
        delay_p99_ms=p99,
        clock_offset_ms=p50 - fastest_ms,
        first_s=int(captures[0]) / NS_PER_S,
        last_s=int(captures[-1]) / NS_PER_S,
    )


def _losses(sequences: NDArray[np.int64]) -> tuple[int | None, int | None]:
    """Missing and duplicate numbers; MCAP's 0 on every message means that nobody counted."""
    if len(sequences) > 1 and not sequences.any():
        return None, None
    distinct = len(np.unique(sequences))
    return int(sequences.max() - sequences.min()) + 1 - distinct, len(sequences) - distinct


def _compression(path: Path) -> str:
    """The compressions that a finished file's chunks name."""
    try:
        with path.open("rb") as file:
            summary = make_reader(file).get_summary()
    except (McapError, ValueError, OSError):
        return ""
    indexes = summary.chunk_indexes if summary is not None else []
    return ", ".join(sorted({index.compression or "none" for index in indexes}))


def _skipped(facts: dict[str, str]) -> list[dict[str, str]]:
    """What an importer left out."""
    try:
        entries = json.loads(facts.get("skipped", "[]"))
    except ValueError:
        return []
    return (
        [entry for entry in entries if isinstance(entry, dict) and {"name", "reason"} <= entry.keys()]
        if isinstance(entries, list)
        else []
    )


def _figure(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
