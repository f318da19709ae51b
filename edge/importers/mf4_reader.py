"""Reads the CAN frames of an MF4 file into a .npz file, as a process of its own: `python -m edge.importers.mf4_reader`.

asammdf's native code can bring its process down on damaged bytes, prints tracebacks of its own, and finishes unfinished
files in place; here all three stay away from the importer.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Final, cast

import asammdf
import numpy as np
from numpy.typing import NDArray

FRAME: Final = "CAN_DataFrame"
ID_MASK: Final = 0x1FFFFFFF
# Address space, so that a damaged size ends this process and not the machine's patience.
MEMORY_BYTES: Final = 6 << 30
MEMORY_RATIO: Final = 64
COLUMNS: Final = ("seconds", "bus", "id", "extended", "length", "payload")


def main(argv: list[str]) -> int:
    """Source and destination in, exit code out; what failed goes to stderr in one line."""
    source, destination = map(Path, argv)
    limit = MEMORY_BYTES + MEMORY_RATIO * source.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        facts, columns = read(source)
    except Exception as error:  # a foreign parser raises whatever damaged bytes lead it to
        print(" ".join(f"{type(error).__name__} {error}".split())[:160], file=sys.stderr)
        return 1
    with destination.open("wb") as file:
        np.savez(file, **cast(Any, {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), **columns}))
    return 0


def read(source: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What the log says of itself (start_ns, version, skipped groups), and the columns of all its CAN data frames."""
    skipped: list[tuple[str, str]] = []
    groups: list[dict[str, NDArray[Any]]] = []
    with tempfile.TemporaryFile() as copy, source.open("rb") as file:
        shutil.copyfileobj(file, copy)
        with asammdf.MDF(cast(Any, _at_start(copy))) as log:
            start = log.header.start_time.timestamp()
            version = str(log.version)
            for index, group in enumerate(cast(Any, log.groups)):
                name = group.channel_group.acq_name or f"group {index}"
                if not group.channel_group.cycles_nr:
                    continue
                if FRAME in {channel.name for channel in group.channels}:
                    groups.append(_columns(log, index))
                else:
                    skipped.append((f"MF4 {name}", f"{group.channel_group.cycles_nr} records, no CAN data frames"))
    width = max((group["payload"].shape[1] for group in groups), default=0)
    for group in groups:
        group["payload"] = np.pad(group["payload"], ((0, 0), (0, width - group["payload"].shape[1])))
    columns = {name: np.concatenate([group[name] for group in groups]) for name in COLUMNS} if groups else {}
    return {"start_ns": max(round(start * 1e9), 0), "version": version, "skipped": skipped}, columns


def _at_start(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file


def _columns(log: Any, index: int) -> dict[str, NDArray[Any]]:
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
    columns = {
        "seconds": stamps,
        "bus": column("BusChannel", 0).astype(np.int64) & 0xFF,
        "id": ids & ID_MASK,
        "extended": (column("IDE", 0) != 0) | (ids >> 31 != 0),
        "length": column("DataLength").astype(np.int64),
        "payload": column("DataBytes").astype(np.uint8),
    }
    for name, values in columns.items():
        if values.shape[:1] != stamps.shape or values.ndim != (2 if name == "payload" else 1):
            raise ValueError(f"column {name} of shape {values.shape} for {len(stamps)} frames")
    return columns


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
