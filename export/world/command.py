"""`roadfuse simulate`: a procedural drive into an MCAP file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from edge.drive import topics
from edge.drive.writer import DriveWriter
from edge.durable import refuse_output, replacing
from edge.errors import ConfigError
from export.world.bumps import SURFACES
from export.world.faults import KINDS, STREAMS, Fault, parse_fault
from export.world.lidar import AZIMUTHS, RINGS
from export.world.scenario import LIGHTS, SCENARIOS, WEATHERS
from export.world.simulate import WorldConfig, simulate
from export.world.town import town_of


def main(argv: list[str]) -> int:
    """Runs the command; see `roadfuse simulate --help`."""
    options = _parser().parse_args(argv)
    faults = tuple(_fault(text, options) for text in options.fault)
    config = WorldConfig(
        options.seed,
        options.seconds,
        options.scenario,
        options.weather,
        options.light,
        faults,
        lidar=not options.no_lidar,
        town=options.town,
        surface=options.surface,
        lidar_columns=options.lidar_columns,
        lidar_rings=options.lidar_rings,
    )
    refuse_output(options.out)
    cv2.setNumThreads(1)
    summary = _record(config, options.out, quiet=options.json or not sys.stderr.isatty())
    print(json.dumps(summary) if options.json else _sentence(summary))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="roadfuse simulate", description="Simulate a drive: the same seed gives the same bytes.")
    parser.add_argument("--seed", type=int, default=1, help="picks everything that is drawn (default 1)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the drive (default 60)")
    parser.add_argument("--out", type=Path, required=True, help="the drive to write, .mcap")
    parser.add_argument("--scenario", default="mixed", help=", ".join(SCENARIOS) + " (default mixed)")
    parser.add_argument("--weather", help=", ".join(WEATHERS) + " (default: drawn)")
    parser.add_argument("--light", help=", ".join(LIGHTS) + " (default: drawn)")
    parser.add_argument(
        "--town",
        type=int,
        help="0..199, 1000..9999 training, 200..249 validation, 300..399 held out (default: drawn)",
    )
    parser.add_argument(
        "--surface", default="smooth",
        help=", ".join(SURFACES) + " (default smooth): on a rough road joints, covers and holes jolt and thump",
    )  # fmt: skip
    parser.add_argument(
        "--fault", action="append", default=[], metavar="STREAM:KIND[@START-END][=VALUE]",
        help=f"repeatable; streams {', '.join(STREAMS)}; kinds {', '.join(KINDS)}; times in drive seconds",
    )  # fmt: skip
    parser.add_argument("--no-lidar", action="store_true", help="leave the LiDAR out")
    parser.add_argument(
        "--lidar-columns", type=int, default=AZIMUTHS, metavar="N",
        help=f"rays around, 90..2048 (default {AZIMUTHS}; real LiDARs have 1024 and more); any but the default LiDAR "
        "sees what is drawn instead of boxes",
    )  # fmt: skip
    parser.add_argument(
        "--lidar-rings", type=int, default=RINGS, metavar="N", help=f"rays upward, 8..128 (default {RINGS})"
    )
    parser.add_argument("--json", action="store_true", help="print a summary object")
    return parser


class _Parser(argparse.ArgumentParser):
    """Misuse becomes one line, as for every other command."""

    def error(self, message: str) -> Any:
        raise ConfigError(message)


def _fault(text: str, options: argparse.Namespace) -> Fault:
    """A fault that can act in this drive."""
    fault = parse_fault(text)
    if fault.stream == "lidar" and options.no_lidar:
        raise ConfigError(f"--fault: expected one of a stream of the drive, got {text} with --no-lidar")
    if fault.start_s >= options.seconds:
        raise ConfigError(f"--fault: expected one that begins within {options.seconds:g} s, got {text}")
    return fault


def _record(config: WorldConfig, out: Path, quiet: bool) -> dict[str, Any]:
    started = time.perf_counter()
    messages: Counter[str] = Counter()
    metadata = {
        "source": "roadfuse simulate",
        "seed": str(config.seed),
        "seconds": f"{config.seconds:g}",
        "scenario": config.scenario,
        "weather": config.weather or "drawn",
        "light": config.light or "drawn",
        "town": str(town_of(config.seed) if config.town is None else config.town),
        "faults": " ".join(f"{f.name}@{f.start_s:g}-{f.end_s:g}={f.value:g}" for f in config.faults),
    }
    if config.surface != "smooth":  # drives of before this option keep their bytes
        metadata["surface"] = config.surface
    if (config.lidar_columns, config.lidar_rings) != (AZIMUTHS, RINGS):
        metadata["lidar"] = f"{config.lidar_rings}x{config.lidar_columns}"
    total = round(config.seconds * config.fps)
    with (
        replacing(out) as part,
        DriveWriter(part, metadata=metadata) as drive,
        tqdm(total=total, unit="frame", disable=quiet) as progress,
    ):
        for event in simulate(config):
            event.into(drive)
            messages[event.topic] += 1
            if event.topic == topics.TRUTH:
                progress.update()
    elapsed = time.perf_counter() - started
    return {
        "out": str(out),
        "seed": config.seed,
        "scenario": config.scenario,
        "seconds": config.seconds,
        "bytes": out.stat().st_size,
        "messages": dict(sorted(messages.items())),
        "realtime_factor": round(config.seconds / elapsed, 2),
    }


def _sentence(summary: dict[str, Any]) -> str:
    return (
        f"{summary['out']}: {summary['seconds']:g} s, {sum(summary['messages'].values())} messages, "
        f"{summary['bytes'] / 1e6:.1f} MB, {summary['realtime_factor']:g}x real time"
    )
