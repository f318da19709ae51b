"""`roadfuse gate run|show|drives`: what a bundle must pass before any vehicle hears of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cloud.errors import CloudError
from cloud.gates.policy import Policy
from cloud.gates.verdict import REFUSED, Verdict


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands: 0 passed, 1 refused, 2 misuse."""
    args = _parser().parse_args(argv)
    code: int = args.run(args)
    return code


def _run(args: argparse.Namespace) -> int:
    if (args.bundle is None) == (args.release is None):
        raise CloudError("expected a bundle's folder or --release N, one of them")
    policy = Policy.read(args.policy) if args.policy else Policy()
    drives = _drives(args.drives)
    return _of_folder(args, policy, drives) if args.release is None else _of_release(args, policy, drives)


def _of_folder(args: argparse.Namespace, policy: Policy, drives: tuple[Path, ...]) -> int:
    from cloud.gates.candidate import Candidate
    from cloud.gates.run import run
    from cloud.gates.yardstick import Yardstick

    yardstick = Yardstick(args.against, drives)
    hardware = tuple(args.hardware.split(",")) if args.hardware else hardware_of(yardstick)
    return _tell(args, run(Candidate(args.bundle, yardstick, hardware, policy), every=args.all))


def hardware_of(yardstick: Any) -> tuple[str, ...]:
    """Classes that the current bundle has engines for."""
    lowered = {target for spec in yardstick.bundle.engines.values() for target in spec.lowerings}
    return tuple(sorted({"x86", *lowered}))


def _of_release(args: argparse.Namespace, policy: Policy, drives: tuple[Path, ...]) -> int:
    from cloud.database import opened
    from cloud.gates.judge import judge
    from cloud.objects import Objects
    from cloud.settings import Settings

    data = _data(args)
    with opened(data, args.database, share=True) as engine, tempfile.TemporaryDirectory() as work:
        found = judge(
            engine,
            Objects(Settings(data, objects=args.objects).objects_place, make=False),
            args.release,
            Path(work),
            against=args.against,
            drives=drives,
            policy=policy,
            every=args.all,
        )
        return _tell(args, found)


def _show(args: argparse.Namespace) -> int:
    from cloud.database import opened
    from cloud.gates import book

    with opened(_data(args), args.database, share=True) as engine, engine.connect() as connection:
        book.release(connection, args.release)
        rows = book.verdicts(connection, args.release)
    if args.json:
        print(json.dumps(rows, default=str))
    for row in [] if args.json else rows:
        ran = f"{row['ran_at']:%Y-%m-%d %H:%M}"
        print(f"{row['gate']:<10} {row['verdict']:<8} {row['seconds']:6.1f} s  {ran}  {row['why']}")
    if not rows and not args.json:
        print(f"release {args.release}: no gate has run yet")
    return 1 if any(row["verdict"] == REFUSED for row in rows) else 0


def _simulate(args: argparse.Namespace) -> int:
    import cv2

    from cloud.gates.drives import prepare

    cv2.setNumThreads(1)

    def told(path: Path, is_new: bool) -> None:
        print(f"{path}{'' if is_new else ' (was there)'}", flush=True)

    found = prepare(args.out, args.set, None if args.json else told)
    if args.json:
        print(json.dumps([str(path) for path in found]))
    return 0


def _tell(args: argparse.Namespace, verdicts: Iterable[Verdict]) -> int:
    found = []
    for verdict in verdicts:
        found.append(verdict)
        if not args.json:
            print(f"{verdict.gate:<10} {verdict.verdict:<8} {verdict.seconds:6.1f} s  {verdict.why}", flush=True)
    if args.json:
        json.dump([asdict(verdict) for verdict in found], sys.stdout, indent=1, default=str)
        print()
    return 1 if any(verdict.verdict == REFUSED for verdict in found) else 0


def _drives(folder: Path | None) -> tuple[Path, ...]:
    from cloud.gates.drives import listed

    return () if folder is None else tuple(listed(folder))


def _data(args: argparse.Namespace) -> Path:
    if args.data is None:
        raise CloudError("--data: expected the cloud's data folder, got none")
    folder: Path = args.data
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roadfuse gate", description="What a bundle must pass before any vehicle.")
    commands = parser.add_subparsers(required=True, metavar="run|show|drives")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--release", type=int, metavar="N", help="counter of a release, instead of a folder")
    place.add_argument("--data", type=Path, metavar="DIR", help="the cloud's folder")
    place.add_argument(
        "--database", metavar="URL", default=os.environ.get("ROADFUSE_DATABASE"),
        help="postgresql://user@host/name (or ROADFUSE_DATABASE); by default an embedded one in DIR/postgres",
    )  # fmt: skip
    place.add_argument("--objects", metavar="PLACE", help="folder or URL of the objects; default DIR/objects")
    place.add_argument("--json", action="store_true", help="print JSON")
    run = commands.add_parser("run", parents=[place], help="all gates, cheapest first, to the first refusal")
    run.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="its folder")
    run.add_argument(
        "--against", type=Path, metavar="BUNDLE", help="the current bundle (default: the reference bundle)"
    )
    run.add_argument("--drives", type=Path, metavar="DIR", help="drives with ground truth; `gate drives` makes some")
    run.add_argument("--hardware", metavar="CLASSES", help="of a folder: x86,trt,arm (default: as the current bundle)")
    run.add_argument("--policy", type=Path, metavar="FILE", help="limits, TOML or JSON")
    run.add_argument("--all", action="store_true", help="go on after a refusal")
    run.set_defaults(run=_run)
    commands.add_parser("show", parents=[place], help="what the gates said of a release").set_defaults(run=_show)
    drives = commands.add_parser("drives", help="simulate the standard drives")
    drives.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if absent")
    drives.add_argument("--set", default="standard", metavar="NAME", help="standard (30 of 10 s) or short (2 of 12 s)")
    drives.add_argument("--json", action="store_true", help="print JSON")
    drives.set_defaults(run=_simulate)
    return parser
