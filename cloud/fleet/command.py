"""`roadfuse fleet simulate`: a rollout rehearsed on thousands of simulated vehicles, over the real interfaces."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path

from cloud.errors import RolloutError
from cloud.fleet.rehearsal import Outcome, rehearse
from cloud.fleet.scenario import Plant, Scenario
from cloud.rollouts.policy import Policy


def main(argv: list[str] | None = None) -> int:
    """Run it; 1 where the release was stopped or did not come through, 0 where all have it."""
    args = _parser().parse_args(argv)
    scenario = Scenario.read(args.scenario) if args.scenario else Scenario()
    given = {name: getattr(args, name) for name in ("vehicles", "speed", "seed") if getattr(args, name) is not None}
    scenario = dataclasses.replace(scenario, **given)
    policy = Policy.load(args.policy) if args.policy else Policy()
    plant = Plant.of(args.plant)
    if not 0 < args.hours <= 10_000:
        raise RolloutError(f"--hours: expected a number above 0, up to 10000, got {args.hours:g}")
    place = Path(tempfile.mkdtemp(prefix="roadfuse-fleet-")) if args.data is None else None
    if place is not None:
        place.chmod(0o755)  # PostgreSQL does not run as root
    data = args.data if place is None else place / "fleet"
    say = (
        (lambda line: print(line, file=sys.stderr, flush=True)) if args.json else (lambda line: print(line, flush=True))
    )
    try:
        outcome = rehearse(
            data, scenario, policy, plant, bundle=args.bundle, hours=args.hours, stop_at_h=args.stop_at,
            processes=args.processes, say=say,
        )  # fmt: skip
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
    if args.json:
        print(json.dumps(outcome.as_dict()))
    else:
        _tell(outcome, scenario)
    return 0 if outcome.state == "done" else 1


def _tell(outcome: Outcome, scenario: Scenario) -> None:
    share = outcome.acted / scenario.vehicles
    print(f"\nThe rollout is {outcome.state} after {outcome.hours:.2f} hours of the fleet's time: {outcome.why or '-'}")
    print(f"{outcome.acted} vehicles ({share:.1%}) ever acted on the release, {outcome.running} run it now.")
    if "stop" in (told := outcome.as_dict()):
        stop = told["stop"]
        print(
            f"The stop reached {stop['vehicles']} vehicles that were on the road: half within {stop['p50_s']:.2f} s, "
            f"99 % within {stop['p99_s']:.2f} s; {outcome.late} began to act on it more than a second later."
        )
    print(f"{outcome.reports} reports, {outcome.check_ins} check-ins, {outcome.failed} calls made again.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse fleet", description="Rehearse a rollout before any real vehicle hears of it."
    )
    commands = parser.add_subparsers(required=True, metavar="simulate")
    simulate = commands.add_parser(
        "simulate",
        help="a fleet in a box",
        description="Start a cloud and a broker on this machine, enrol simulated vehicles that drive, park and lose "
        "their network, and send a release with planted faults through a policy. The vehicles speak the real "
        "protocols; the policy's times pass as much faster as the fleet's. Nothing outside this machine hears of it. "
        "Exit code 0: the release is done; 1: it was stopped, or did not come through in --hours. "
        "What a scenario may say, and an example: docs/operate/rehearsal.md.",
    )
    simulate.add_argument("--vehicles", type=int, metavar="N", help="how many (default 1000)")
    simulate.add_argument("--speed", type=float, metavar="X", help="times as fast as real time (default 60)")
    simulate.add_argument("--seed", type=int, metavar="N", help="of the vehicles' habits and failures (default 1)")
    simulate.add_argument("--scenario", type=Path, metavar="FILE", help="JSON: how the fleet drives, parks and fails")
    simulate.add_argument(
        "--policy", type=Path, metavar="FILE", help="TOML: the policy to rehearse (default: the usual)"
    )
    simulate.add_argument(
        "--plant", default="", metavar="WORDS",
        help="what is wrong with the release, as failures=2,wrong=5,slices=night+rain,silent=0.1,refused=0.1: "
        "it fails, and is wrong, so many times as often as the active bundle, in these slices alone; silent and "
        "refused are shares of the vehicles (default: nothing is wrong with it)",
    )  # fmt: skip
    simulate.add_argument("--bundle", type=Path, metavar="BUNDLE", help="to release (default: the reference bundle)")
    simulate.add_argument("--hours", type=float, default=24.0, help="of the fleet's time, at most (default 24)")
    simulate.add_argument("--stop-at", type=float, metavar="HOURS", help="somebody stops the release then, by hand")
    simulate.add_argument(
        "--processes",
        type=int,
        choices=range(1, 65),
        default=2,
        metavar="N",
        help="that run the vehicles (default 2)",
    )
    simulate.add_argument("--data", type=Path, metavar="DIR", help="keep the cloud there (default: removed)")
    simulate.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    return parser
