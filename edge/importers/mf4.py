"""ASAM MF4 bus logs: CAN data frames of every channel group to /can, and through DBC files to /vehicle, /imu and /gnss.

Stamps are seconds since the log's start plus the start's UTC, as ns. A logger stamps a frame when it reads it off the
bus, so arrival is capture. Files that a logger never finished (it lost power) open if they end with a whole record. IMU
axes are the logger's own.

Ref: ASAM MDF 4.1 bus logging (CAN_DataFrame); asammdf.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

import asammdf
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.importers import dbc, mdf_blocks
from edge.importers.recording import NS_PER_S, Event, Options, Recording, Skipped, seconds_to_ns

FRAME: Final = "CAN_DataFrame"
ID_MASK: Final = 0x1FFFFFFF
UNFINISHED: Final = b"UnFinMF "


def open_recording(source: Path, options: Options) -> Recording:
    """Opens a log.

    Raises:
        SourceError: it is no MF4, it is damaged, it has no CAN frames, or a DBC can't be read.
    """
    skipped = Skipped()
    messages = dbc.load(options.dbc)
    mdf_blocks.check(source)
    start_ns, version, groups = _load(source, skipped)
    if not groups:
        raise SourceError(f"{source}: expected CAN frames in the log, got none")
    frames = {name: np.concatenate([group[name] for group in groups]) for name in groups[0] if name != "payload"}
    payloads = [payload for group in groups for payload in group["payload"]]
    if not messages:
        skipped.stream("CAN signals", "no --dbc FILE given; the frames are in /can")
    keys = np.stack([frames["bus"], frames["id"], frames["extended"]])
    present = [(bus, can_id, bool(extended)) for bus, can_id, extended in np.unique(keys, axis=1).T.tolist()]
    decoder = dbc.Decoder(messages, present, skipped)
    metadata = {"clock": "UTC of the log's start + its seconds", "arrival": "capture", "mdf_version": version}
    if decoder.pace:
        metadata["vehicle"] = f"speed from {decoder.pace}"
    if "accel" in decoder.quantities:
        metadata["imu"] = "axes of the logger as it is mounted, not turned to the vehicle's"
    return Recording("mf4", [_read(frames, payloads, start_ns, decoder)], skipped, metadata)


def _load(source: Path, skipped: Skipped) -> tuple[int, str, list[dict[str, Any]]]:
    """The log's start (ns since 1970), its version, and the columns of each group of CAN frames."""
    failure = ""
    with _quiet(), source.open("rb") as file, _finishable(file) as content:
        try:
            with asammdf.MDF(cast(Any, content)) as log:
                start_ns = max(round(log.header.start_time.timestamp() * NS_PER_S), 0)
                return start_ns, str(log.version), _frame_groups(log, skipped)
        except Exception as error:  # a foreign parser raises whatever damaged bytes lead it to
            failure = f"{type(error).__name__} {str(error)[:160]}"
        gc.collect()  # its destructor fails on a log that it could not open: now, where nobody hears it
    raise SourceError(f"{source}: expected a readable MF4 log, got: {failure}")


@contextlib.contextmanager
def _finishable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file, or a copy of one that its logger never finished: asammdf finishes it in place."""
    unfinished = file.read(8) == UNFINISHED
    file.seek(0)
    if not unfinished:
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps asammdf from printing tracebacks of damage that is reported in one line anyway."""
    logger, hook = logging.getLogger("asammdf"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.unraisablehook = hook
        logger.setLevel(level)


def _frame_groups(log: Any, skipped: Skipped) -> list[dict[str, Any]]:
    """The columns of each group of CAN data frames that has any; other groups with content are named."""
    found = []
    for index, group in enumerate(log.groups):
        count = int(group.channel_group.cycles_nr)
        if not count:
            continue
        names = {channel.name for channel in group.channels}
        name = group.channel_group.acq_name or f"group {index}"
        if FRAME not in names:
            skipped.stream(f"MF4 {name}", f"{count} records that are no CAN data frames")
            continue
        found.append(_columns(log, index))
    return found


def _columns(log: Any, index: int) -> dict[str, Any]:
    present = {channel.name for channel in log.groups[index].channels}

    def column(name: str, default: int | None = None) -> NDArray[Any]:
        if default is not None and f"{FRAME}.{name}" not in present:
            return np.full(len(stamps), default, np.int64)
        # Not raw: CANedge puts constant columns into the conversion of a virtual channel.
        samples: NDArray[Any] = log.get(f"{FRAME}.{name}", group=index).samples
        if samples.dtype.kind not in "buif":  # a conversion to text
            samples = log.get(f"{FRAME}.{name}", group=index, raw=True).samples
        return samples

    stamps = np.asarray(log.get(f"{FRAME}.ID", group=index, raw=True).timestamps, np.float64)
    ids = column("ID").astype(np.int64)
    lengths = column("DataLength").astype(np.int64)
    content = column("DataBytes")
    columns = {
        "seconds": stamps,
        "id": ids & ID_MASK,
        "bus": column("BusChannel", 0).astype(np.int64) & 0xFF,
        "extended": (column("IDE", 0) != 0) | (ids >> 31 != 0),
    }
    shapes = {values.shape for values in (*columns.values(), lengths, content[..., 0])}
    if shapes != {stamps.shape} or content.ndim != 2:
        raise ValueError("columns of CAN_DataFrame that differ in length")
    return {**columns, "payload": [bytes(row[:length]) for row, length in zip(content, lengths.tolist())]}


def _read(
    frames: dict[str, NDArray[Any]], payloads: list[bytes], start_ns: int, decoder: dbc.Decoder
) -> Iterator[Event]:
    order = np.argsort(frames["seconds"], kind="stable")
    columns = (frames[name][order].tolist() for name in ("seconds", "bus", "id", "extended"))
    for at, stamp_s, bus, can_id, extended in zip(order.tolist(), *columns):
        yield from decoder.feed(start_ns + seconds_to_ns(stamp_s), (bus, can_id, bool(extended)), payloads[at])
