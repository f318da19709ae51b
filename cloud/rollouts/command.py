"""`roadfuse rollout create|start|watch|...`: a release onto the fleet, wave by wave, and off it again at once.

Commands go into the database; the cloud's part "control" (roadfuse cloud serve) carries them out.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, func, select

from cloud.database import opened
from cloud.errors import RolloutError
from cloud.objects import Objects
from cloud.rollouts import book, evidence, explain, log, refusals, segments, stop_line, words
from cloud.rollouts.book import Rollout
from cloud.rollouts.evidence import Command
from cloud.rollouts.policy import Policy
from cloud.settings import Settings
from cloud.tables import RELEASES

_LOOK_S: Final = 0.5
_SIMPLE: Final = {
    "start": (evidence.START, "begin: the shadow first, where nobody acts on the release"),
    "pause": (evidence.PAUSE, "nothing more begins; who runs the release runs on; evidence can still stop it"),
    "resume": (evidence.RESUME, "go on after a pause, or with a wave that has lasted too long"),
    "abort": (evidence.ABORT, "end it for good: nobody begins any more; who runs the release keeps it (see stop)"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands."""
    args = _parser().parse_args(argv)
    with opened(args.data, args.database, share=True) as engine:
        code: int = args.run(args, engine)
        return code


def _create(args: argparse.Namespace, engine: Engine) -> int:
    policy = Policy() if args.policy is None else Policy.load(args.policy)
    if args.without_gates is not None and not args.without_gates.strip():
        raise RolloutError("--without-gates: expected why, got nothing")
    start = Command(evidence.START, args.by)
    with engine.begin() as connection:
        made = book.create(connection, args.release, policy, args.by, without_gates=args.without_gates or "")
        if args.start:
            book.command(connection, made.id, start)
        refused = refusals.now(connection, policy, made.hardware, made.bundle, made.release)
    if args.json:
        print(_json(made, is_started=args.start, refused=refused.as_dict()))
    else:
        print(_line(made))
        if args.start:
            print(_commanded(made, start))
    for line in refused.lines():
        print(f"note: {line}", file=sys.stderr)
    return 0


def _simple(args: argparse.Namespace, engine: Engine) -> int:
    return _command(args, engine, Command(args.kind, args.by, args.why))


def _approve(args: argparse.Namespace, engine: Engine) -> int:
    with engine.begin() as connection:
        known = book.evidence(connection, args.rollout)
    wave = args.wave if args.wave is not None else known.asked
    if not wave:
        raise RolloutError(f"expected a wave that waits for approval, got none of {known.rollout} (--wave says which)")
    return _command(args, engine, Command(evidence.APPROVE, args.by, args.why, wave=wave))


def _retry(args: argparse.Namespace, engine: Engine) -> int:
    return _command(args, engine, Command(evidence.RETRY, args.by, args.why, vehicle=args.vehicle or ""))


def _command(args: argparse.Namespace, engine: Engine, wanted: Command) -> int:
    with engine.begin() as connection:
        found = book.command(connection, args.rollout, wanted)
    print(_json(found) if args.json else _commanded(found, wanted))
    return 0


def _list(args: argparse.Namespace, engine: Engine) -> int:
    with engine.begin() as connection:
        rollouts = book.listed(connection)
    if args.json:
        print(json.dumps([asdict(one) for one in rollouts], default=str))
        return 0
    for one in rollouts:
        print(_line(one))
    return 0


def _explain(args: argparse.Namespace, engine: Engine) -> int:
    with engine.begin() as connection:
        known = book.evidence(connection, args.rollout)
        now_s = max(log.now_s(connection), known.at_s)
        refused = refusals.now(connection, known.policy, known.hardware, known.bundle, known.counter)
    if args.json:
        print(json.dumps({**explain.facts(known, now_s), "refused": refused.as_dict()}))
        return 0
    for line in explain.lines(known, now_s):
        print(line)
    for line in refused.lines() if _may_come(known.state) else ():
        print(f"refused    {line}")
    return 0


def _log(args: argparse.Namespace, engine: Engine) -> int:
    with engine.begin() as connection:
        found = book.get(connection, args.rollout)
    for entry in segments.read(engine, found.id, _objects(args)):
        if args.json:
            print(json.dumps(asdict(entry)))
        else:
            content = json.dumps(entry.content)
            print(
                f"{entry.number:6d}  {entry.at}  {entry.kind:9s}  {content[:200]}{'...' if len(content) > 200 else ''}"
            )
    return 0


def _replay(args: argparse.Namespace, engine: Engine) -> int:
    with engine.begin() as connection:
        found = book.get(connection, args.rollout)
    if found.let_go_at is not None:
        raise RolloutError(
            f"expected what vehicles said to {found.id}, got nothing: let go of on {found.let_go_at:%Y-%m-%d} "
            "(--log-days); roadfuse rollout log shows commands, orders and records"
        )
    given = log.replayed(segments.read(engine, found.id, _objects(args)))
    if args.json:
        print(json.dumps({"rollout": found.id, "rows": given.rows, "asked": given.asked, "ordered": given.ordered,
                          "differs": given.differs}))  # fmt: skip
    elif given.differs:
        print(f"{found.id}: {given.differs}")
    else:
        print(f"{found.id}: {given.rows} rows; asked {given.asked} times, the rules gave the same")
    return 1 if given.differs else 0


def _objects(args: argparse.Namespace) -> Objects:
    # A cloud that has moved nothing yet has no objects; a place that somebody names is there, or is mistyped.
    return Objects(Settings(args.data, objects=args.objects).objects_place, make=args.objects is None)


def _watch(args: argparse.Namespace, engine: Engine) -> int:
    """Changes as they come, until the rollout is over."""
    with engine.begin() as connection:
        found = book.get(connection, args.rollout)
        refused = refusals.now(
            connection, book.policy(connection, found.id), found.hardware, found.bundle, found.release
        )
    if _may_come(found.state) and refused.reasons and args.json:
        print(json.dumps({"refused": refused.as_dict(), "says": "; ".join(refused.lines())}), flush=True)
    elif _may_come(found.state):
        for line in refused.lines():
            print(f"{'now':19}  {line}", flush=True)
    number = 0
    while True:
        with engine.begin() as connection:
            over = book.get(connection, found.id).is_over
            entries = list(log.streamed(connection, found.id, number, without=(log.OBSERVED,)))
        for entry in entries:
            number = entry.number
            for said in words.happened(entry):
                print(json.dumps(said) if args.json else f"{entry.at[:19]}  {said['says']}", flush=True)
        if over or args.once:
            return 0
        time.sleep(_LOOK_S)


def _stop(args: argparse.Namespace, engine: Engine) -> int:
    why = f"{book.reason(args.why)} (by {book.who(args.by)})"
    with engine.begin() as connection:
        bundle = _bundle(connection, args.bundle)
        number = stop_line.stop(connection, bundle, why)
        connection.execute(select(func.pg_notify(book.CHANNEL, "")))
    if args.broker is not None:
        with engine.begin() as connection:
            said = stop_line.notice(connection)
        assert said is not None
        stop_line.publish(args.broker, args.data, args.broker_plain, said)
    if args.json:
        print(json.dumps({"bundle": bundle, "number": number, "why": why}))
    else:
        print(f"{args.bundle}: stopped, notice {number}; vehicles go back to what they ran before")
        print(f"nobody may run bundle {bundle[:16]}, of whatever release, before `roadfuse release lift {bundle[:16]}`")
    return 0


def _bundle(connection: Any, words: str) -> str:
    """A bundle by its id, how that begins, or a release's counter."""
    query = select(RELEASES.c.bundle_id).distinct()
    if words.isdecimal() and len(words) < 16:
        found = list(connection.execute(query.where(RELEASES.c.counter == int(words))).scalars())
    elif len(words) == 64:
        return words  # of whatever release, or of none that is known here
    else:
        found = list(connection.execute(query.where(RELEASES.c.bundle_id.startswith(words, autoescape=True))).scalars())
    if len(found) != 1 or not words:
        raise RolloutError(
            f"expected the id of a bundle or a release's counter, got {words[:80]!r}, which {len(found)} have"
        )
    return str(found[0])


def _may_come(state: str) -> bool:
    """Whether vehicles may yet be told to take the release; after a stop all that ran it say that they refused it."""
    return state not in (evidence.STOPPED, evidence.ABORTED)


def _json(rollout: Rollout, **more: Any) -> str:
    return json.dumps(asdict(rollout) | more, default=str)


def _commanded(rollout: Rollout, wanted: Command) -> str:
    return f"{rollout.id}: {wanted.kind} by {wanted.by} is in the log, for the cloud to carry out (was {rollout.state})"


def _line(one: Rollout) -> str:
    why = f": {one.why}" if one.why else ""
    return f"{one.id}  release {one.release} ({one.name} {one.version})  {one.state}{why}  by {one.created_by}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse rollout",
        description="Bring a release to the fleet, by evidence: create, start, watch; explain says what it waits for. "
        "What you say goes into the rollout's log, and a running cloud carries it out (roadfuse cloud serve).",
        epilog="docs/operate/rollout.md leads through a first one.",
    )
    names = ("create", *_SIMPLE, "approve", "retry", "watch", "list", "explain", "log", "replay", "stop")
    commands = parser.add_subparsers(required=True, metavar="|".join(names))
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data", type=Path, required=True, metavar="DIR", help="the cloud's folder")
    place.add_argument(
        "--database",
        metavar="URL",
        default=os.environ.get("ROADFUSE_DATABASE"),
        help="postgresql://user@host/name (or ROADFUSE_DATABASE); by default an embedded one in DIR/postgres",
    )
    place.add_argument("--json", action="store_true", help="for programs")
    who = argparse.ArgumentParser(add_help=False)
    who.add_argument("--by", metavar="NAME", default=_user(), help="who says so; by default the user of this machine")
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("rollout", metavar="ROLLOUT", help="its id, or how that begins")

    create = _added(
        commands, "create", [place, who], _create, "make a rollout of a release",
        "Make a rollout of a release, whose gates must have passed. Nothing moves before `start`. Vehicles that "
        "refused its bundle before are not told to take it: a note on standard error says how many they are, and why.",
    )  # fmt: skip
    create.add_argument("release", type=int, metavar="COUNTER", help="of the release (roadfuse release list)")
    create.add_argument(
        "--policy", type=Path, metavar="FILE.toml",
        help="waves, tests, schedule: docs/rollout-rules.md; by default the shadow, then 1 %%, 10 %%, 50 %%, all",
    )  # fmt: skip
    create.add_argument(
        "--without-gates", metavar="WHY", help="though gates did not pass; the reason goes into the log"
    )
    create.add_argument("--start", action="store_true", help="and start it")

    for name, (kind, what) in _SIMPLE.items():
        command = _added(commands, name, [place, who, one], _simple, what)
        command.add_argument("--why", default="", help="goes into the log")
        command.set_defaults(kind=kind)
    approve = _added(commands, "approve", [place, who, one], _approve, "let a wave begin that waits for a person")
    approve.add_argument("--wave", type=int, metavar="N", help="1 is the first; by default the one that waits")
    approve.add_argument("--why", default="", help="goes into the log")
    retry = _added(
        commands, "retry", [place, who, one], _retry, "vehicles on which it failed may try again",
        "Vehicles on which the release failed before they acted on it may try again. One that refused its bundle does "
        "so again, until `roadfuse update pardon` on the vehicle.",
    )  # fmt: skip
    retry.add_argument("--vehicle", metavar="VEHICLE", help="this one alone; by default all that failed")
    retry.add_argument("--why", default="", help="goes into the log")

    watch = _added(commands, "watch", [place, one], _watch, "print what happens, until it is over")
    watch.add_argument("--once", action="store_true", help="what happened so far, and end")
    _added(commands, "list", [place], _list, "all rollouts, the latest first")
    _added(
        commands, "explain", [place, one], _explain, "why it is where it is",
        "What it waits for, the e-values against their boundaries, the tests that weigh most, device-hours, vehicles, "
        "gates, and what people said.",
    )  # fmt: skip
    for name, run, what in (
        ("log", _log, "all that went into the rules and came out of them"),
        ("replay", _replay, "ask the rules again, row by row; 1 if the log says something else"),
    ):
        command = _added(commands, name, [place, one], run, what)
        command.add_argument("--objects", metavar="URL", help="folder or s3://bucket/prefix; by default DIR/objects")

    stop = _added(
        commands, "stop", [place, who], _stop, "nobody may run a bundle, from now on",
        "Nobody may run a bundle from now on: vehicles that do go back to what they ran before, at once. It is the "
        "bundle that is stopped: all its releases, those made later too, until `roadfuse release lift`. Its rollout "
        "ends. (abort ends a rollout and takes the release from nobody.)",
    )  # fmt: skip
    stop.add_argument("bundle", metavar="BUNDLE", help="its id, how that begins, or a release's counter")
    stop.add_argument("--why", required=True, help="vehicles and the log are told")
    stop.add_argument("--broker", metavar="HOST:PORT", help="tell vehicles from here, should no cloud run")
    stop.add_argument("--broker-plain", action="store_true", help="the broker is on this machine and speaks plain text")
    return parser


def _added(
    commands: Any,
    name: str,
    parents: list[argparse.ArgumentParser],
    run: Callable[[argparse.Namespace, Engine], int],
    what: str,
    more: str = "",
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, parents=parents, help=what, description=more or f"{what[0].upper()}{what[1:]}."
    )
    command.set_defaults(run=run)
    return command


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
