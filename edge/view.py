"""`roadfuse view DRIVE`: a drive and its decisions in Rerun.

The drive becomes a recording, with a layout in it, and the viewer opens that. The viewer would listen on every network
interface for others to send to it; it is told to keep to this machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from edge.durable import refuse_output
from edge.errors import RoadfuseError

LOOPBACK = "127.0.0.1"


def main(argv: list[str]) -> int:
    """Opens the viewer, and waits for it; or writes the recording."""
    parser = argparse.ArgumentParser(prog="roadfuse view", description="Open a drive and its decisions in Rerun.")
    parser.add_argument("drive", type=Path, help="drive; with decisions if `roadfuse replay --out` wrote it")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--spawn", action="store_true", help="open the viewer (the default)")
    ways.add_argument("--save", type=Path, metavar="FILE.rrd", help="write a recording instead of opening the viewer")
    parser.add_argument("--map", action="store_true", help="show GNSS on a map; its tiles are fetched from the network")
    words = parser.parse_args(argv)
    if find_spec("rerun") is None:
        raise ModuleNotFoundError("No module named 'rerun'", name="rerun-sdk")
    refuse_output(words.save, words.drive)
    if words.save is not None:
        _record(words.drive, words.save, words.map)
        print(f"{words.save}: {words.save.stat().st_size / 1e6:.1f} MB")
        return 0
    viewer = _viewer()
    with tempfile.TemporaryDirectory(prefix="roadfuse-view-") as folder:
        recording = Path(folder) / f"{words.drive.stem}.rrd"
        _record(words.drive, recording, words.map)
        return subprocess.run(viewer_command(viewer, recording), check=False).returncode


def viewer_command(viewer: str, recording: Path) -> list[str]:
    """The words that open a recording without anyone else being able to reach the viewer."""
    return [viewer, "--bind", LOOPBACK, str(recording)]


def _record(drive: Path, out: Path, map_tiles: bool) -> None:
    from edge.viewer.record import record  # needs rerun

    for damage in record(drive, out, map_tiles=map_tiles):
        print(f"roadfuse view: left out: {damage}", file=sys.stderr)


def _viewer() -> str:
    beside = Path(sys.executable).with_name("rerun")
    viewer = str(beside) if beside.exists() else shutil.which("rerun")
    if viewer is None:
        raise RoadfuseError("expected Rerun's viewer `rerun` beside Python or on the path, got none")
    return viewer
