"""How long `roadfuse align` takes, from the file to the path: decoding, features, offset, warping.

Ten seconds of the world, 640x384 at 20 pictures a second as JPEG, and NASA's clip of 13 s (320x180, 25 a second, H.264)
where the data folder has it. One core; the first run, which compiles and opens, is not counted.

    python benchmarks/align.py [--rounds 40] [--data ../shared/data] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.alignment.job import align
from edge.alignment.source import Source
from export.world.command import main as simulate


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the data folder")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        drive = Path(folder) / "drive.mcap"
        simulate(["--seed", "3", "--seconds", "10", "--scenario", "urban", "--no-lidar", "--out", str(drive), "--json"])
        sources = [drive, *sorted(args.data.glob("av/nasa/*.mp4"))]
        for path in sources:
            whole = _timed(lambda path=path: list(align(path)), args.rounds)  # type: ignore[misc]
            read = _timed(lambda path=path: list(Source(path).samples()), args.rounds)  # type: ignore[misc]
            figures[path.name] = {"end to end": whole, "of it, reading and decoding": read}
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _timed(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """Milliseconds: wall p50 and p95, CPU median."""
    run()
    wall, cpu = [], []
    for _ in range(rounds):
        started, busy = time.perf_counter(), time.process_time()
        run()
        wall.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.process_time() - busy))
    return {"p50_ms": round(float(np.median(wall)), 1), "p95_ms": round(float(np.quantile(wall, 0.95)), 1),
            "cpu_ms": round(float(np.median(cpu)), 1)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
