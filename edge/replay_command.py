"""`roadfuse replay`: a drive through the loop, its verification, and the comparison of two runs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edge import config as configs
from edge.campaigns.file import read as read_probes
from edge.decision import Decision
from edge.durable import refuse_output
from edge.errors import ConfigError, DriveDamaged
from edge.recorder import Recorder
from edge.replay import Replay
from edge.verify import Divergence, compare, divergence


def main(argv: list[str]) -> int:
    """The command; 1 when a verification or comparison found a difference, or the drive was damaged."""
    options = _parser().parse_args(argv)
    if options.diff:
        for name in ("drive", "bundle", "verify", "out", "spool", "config", "probes", "salvage"):
            if getattr(options, name):
                raise ConfigError(f"--diff: expected --tolerance, --ignore and --json alone beside it, got {name}")
        return _diff(options)
    for name in ("tolerance", "ignore"):
        if getattr(options, name):
            raise ConfigError(f"--{name}: expected it beside --diff, got it without")
    if options.drive is None:
        _parser().error("expected a drive, got none")
    return _replay(options)


def _replay(options: argparse.Namespace) -> int:
    settings = configs.load(options.config)
    if options.probes is not None and (options.verify or options.as_ == "happened"):
        raise ConfigError("--probes: expected a run that is recomputed, got one that repeats what happened")
    refuse_output(options.out, options.drive)
    damages: list[DriveDamaged] = []
    run = Replay(
        options.drive,
        options.bundle or None,
        mode="happened" if options.verify else options.as_,
        speed=_speed(options.speed),
        config=settings,
        probes=None if options.probes is None else read_probes(options.probes),
        provider=options.provider,
        on_damage=damages.append if options.salvage else None,
    )
    first: Divergence | None = None
    with run:
        if options.out is not None or options.spool is not None:
            mode = "happened" if options.verify else options.as_
            facts = {**run.drive.metadata.get("roadfuse.drive", {}), "bundle": run.bundle.id, "mode": mode}
            run.record(Recorder(options.out, options.spool, settings.scenes, facts, lossless=True))
        for decision in _with_progress(run, options):
            if options.verify and first is None and run.is_expected(decision.index):
                first = divergence(run.recorded(decision.index), decision)
    missing = run.unrepeated() if options.verify else 0
    result = {**run.statistics.as_dict(), "bundle": run.bundle.id, "clips": run.clips()}
    result["damages"] = [str(damage) for damage in damages]
    if options.verify:
        result["verified"] = first is None and not missing
        result["divergence"] = (
            str(first) if first else (f"{missing} recorded decisions did not come" if missing else None)
        )
    print(json.dumps(result) if options.json else _report(result, options))
    return 1 if damages or (options.verify and not result["verified"]) else 0


def _diff(options: argparse.Namespace) -> int:
    a, b = options.diff
    tolerances = {}
    for entry in options.tolerance:
        name, _, value = entry.partition("=")
        try:
            tolerances[name] = float(value)
        except ValueError:
            tolerances[name] = math.nan
        if not tolerances[name] >= 0:
            raise ConfigError(f"--tolerance: expected FIELD=NUMBER, got {entry!r}")
    result = compare(a, b, tolerances, frozenset(options.ignore))
    if options.json:
        print(json.dumps(result.as_dict()))
    else:
        print(f"{result.compared} frames in both, {len(result.only_a)} only in {a}, {len(result.only_b)} only in {b}")
        for name, (frames, largest) in sorted(result.fields.items()):
            print(f"  {name:<18} differs in {frames} frames, by at most {largest:g}")
        if result.first:
            print(f"first: {result.first}")
        elif result.same:
            print("no difference")
    return 0 if result.same else 1


def _with_progress(run: Replay, options: argparse.Namespace) -> Iterator[Decision]:
    span = run.drive.span_ns()
    total_s = (span[1] - span[0]) / 1e9 if span else None
    quiet = options.json or not sys.stderr.isatty()
    with tqdm(total=total_s, unit="s", disable=quiet, bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s of drive") as bar:
        for decision in run:
            if not quiet:
                bar.update((run.statistics.last_now_ns - run.statistics.first_now_ns) / 1e9 - bar.n)
            yield decision


def _report(result: dict[str, Any], options: argparse.Namespace) -> str:
    lines = [
        f"frames        {result['frames']} ({result['pictures']} with a picture), "
        f"coverage {100 * result['coverage']:.2f} % by the deadline",
        f"degraded      {result['degraded_frames']} frames, overloaded {result['overloaded_frames']}",
        "latency       p50 {p50:.1f} ms, p99 {p99:.1f} ms after capture".format(**result["latency_ms"]),
    ]
    for stage, values in result["stage_ms"].items():
        lines.append(f"  {stage:<11} p50 {values['p50']:.3f} ms, p99 {values['p99']:.3f} ms")
    for stream, drops in result["drops"].items():
        if drops:
            lines.append(f"  {stream:<11} not used: " + ", ".join(f"{n} {reason}" for reason, n in drops.items()))
    scenes = result["scenes"]
    lines += [
        f"scenes        {scenes['queued']} queued, {scenes['refused']} refused",
        f"speed         {result['drive_s']:.1f} s of drive in {result['wall_s']:.1f} s "
        f"({result['realtime_factor']:.1f} x real time)",
        f"sha256        {result['sha256']}",
    ]
    lines += [f"damage        {damage}" for damage in result["damages"]]
    if options.verify:
        verdict = "the same decisions, bit for bit" if result["verified"] else result["divergence"]
        lines.append(f"verified      {verdict}")
    if options.out is not None:
        lines.append(f"written       {options.out}")
    return "\n".join(lines)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise ConfigError(f"--speed: expected `max` or a positive number, got {text!r}")
    return speed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse replay",
        description="Run a drive through the loop, bit for bit, and say what it decided.",
        epilog="exit code: 0 fine, 1 a difference or damage was found, 2 unusable input",
    )
    parser.add_argument("drive", type=Path, nargs="?", help="MCAP drive")
    parser.add_argument(
        "--bundle",
        type=Path,
        action="append",
        help="bundle folder (default: the reference bundle); once for each bundle that a drive changes to",
    )
    parser.add_argument("--speed", default="max", help="multiple of real time, or max (default); changes no decision")
    parser.add_argument(
        "--as",
        dest="as_",
        choices=("designed", "happened"),
        default="designed",
        help="recompute (default), or repeat the run that the drive recorded, lateness and overload included",
    )
    parser.add_argument("--verify", action="store_true", help="repeat the recorded run and name the first divergence")
    parser.add_argument("--out", type=Path, help="write the drive with the decisions")
    parser.add_argument("--spool", type=Path, help="folder for the clips of hard scenes")
    parser.add_argument("--config", type=Path, help="TOML settings of the loop")
    parser.add_argument("--probes", type=Path, help="what campaigns look for: a file that the uplink wrote")
    parser.add_argument("--provider", default="cpu", help="cpu, cuda, tensorrt: of ONNX Runtime; trt: native plans")
    parser.add_argument("--salvage", action="store_true", help="go on behind damage in the drive, and report it")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="compare the decisions of two drives")
    parser.add_argument("--tolerance", action="append", default=[], metavar="FIELD=X", help="for --diff; repeatable")
    parser.add_argument("--ignore", action="append", default=[], metavar="FIELD", help="for --diff; repeatable")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
