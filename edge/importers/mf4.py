"""ASAM MF4 bus logs: CAN data frames of every channel group to /can, and through DBC files to /vehicle, /imu and /gnss.

Stamps are seconds since the log's start plus the start's UTC, as ns. A logger stamps a frame when it reads it off the
bus, so arrival is capture. Files that a logger never finished (it lost power) open if they end with a whole record. IMU
axes are the logger's own.

Ref: ASAM MDF 4.1 bus logging (CAN_DataFrame); asammdf.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.importers import dbc, mdf_blocks
from edge.importers.recording import Event, Options, Recording, Skipped, seconds_to_ns

READER: Final = "edge.importers.mf4_reader"
# A reader that takes longer walks in circles: starting takes seconds, a slow computer reads 10 MB/s.
PATIENCE_S: Final = 120.0
SLOWEST_BYTES_PER_S: Final = 1e6


def open_recording(source: Path, options: Options) -> Recording:
    """Opens a log.

    Raises:
        SourceError: it is no MF4, it is damaged, it has no CAN frames, or a DBC can't be read.
    """
    skipped = Skipped()
    messages = dbc.load(options.dbc)
    mdf_blocks.check(source)
    facts, frames = _read_log(source)
    for name, reason in facts["skipped"]:
        skipped.stream(name, reason)
    if not frames:
        raise SourceError(f"{source}: expected CAN frames in the log, got none")
    if not messages:
        skipped.stream("CAN signals", "no --dbc FILE given; the frames are in /can")
    keys = np.stack([frames["bus"], frames["id"], frames["extended"]])
    present = [(bus, can_id, bool(extended)) for bus, can_id, extended in np.unique(keys, axis=1).T.tolist()]
    decoder = dbc.Decoder(messages, present, skipped)
    metadata = {"clock": "UTC of the log's start + its seconds", "arrival": "capture", "mdf_version": facts["version"]}
    if decoder.pace:
        metadata["vehicle"] = f"speed from {decoder.pace}"
    if "accel" in decoder.quantities:
        metadata["imu"] = "axes of the logger as it is mounted, not turned to the vehicle's"
    return Recording("mf4", [_events(frames, facts["start_ns"], decoder)], skipped, metadata)


def _read_log(source: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Facts and columns of `mf4_reader`, which runs as a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "frames.npz"
        command = [sys.executable, "-m", READER, str(source), str(out)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        patience_s = PATIENCE_S + source.stat().st_size / SLOWEST_BYTES_PER_S
        try:
            run = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=patience_s)
        except subprocess.TimeoutExpired:
            got = f"no end of its reading in {patience_s:.0f} s"
            raise SourceError(f"{source}: expected a readable MF4 log, got: {got}") from None
        if run.returncode:
            words = run.stderr.decode(errors="replace").strip().splitlines()
            got = words[-1] if words else "no word"
            if run.returncode < 0:
                got = f"a crash of its reader ({signal.Signals(-run.returncode).name})"
            raise SourceError(f"{source}: expected a readable MF4 log, got: {got}")
        with np.load(out, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            return facts, {name: arrays[name] for name in arrays.files if name != "facts"}


def _events(frames: dict[str, NDArray[Any]], start_ns: int, decoder: dbc.Decoder) -> Iterator[Event]:
    order = np.argsort(frames["seconds"], kind="stable")
    columns = (frames[name][order].tolist() for name in ("seconds", "bus", "id", "extended", "length"))
    for at, stamp_s, bus, can_id, extended, length in zip(order.tolist(), *columns):
        payload = frames["payload"][at, :length].tobytes()
        yield from decoder.feed(start_ns + seconds_to_ns(stamp_s), (bus, can_id, bool(extended)), payload)
