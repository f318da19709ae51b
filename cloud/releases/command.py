"""`roadfuse release keys|add|...|sign|accept`: what models exist, signed; docs/operate/keys.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError

from cloud.database import first_line, opened
from cloud.errors import DatabaseError, ReleaseError
from cloud.objects import Objects
from cloud.releases import ceremony, deltas, publisher, releases, renewal, stops
from cloud.releases.ceremony_command import add_sign, asked, merged, now, proposed, say
from cloud.releases.keys import PASSPHRASE
from cloud.releases.keys_command import add_commands, term_line
from cloud.releases.releases import HARDWARE, Release
from cloud.releases.review import SHORT
from cloud.releases.signing import Keys
from cloud.settings import Settings
from cloud.tables import FLEET, GATES


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands."""
    args = _parser().parse_args(argv)
    if args.is_alone:
        alone: int = args.run(args)
        return alone
    keys = Keys.at(args.data, args.keys or [], asked)
    with opened(args.data, args.database, share=True) as engine:
        try:
            code: int = args.run(args, engine, keys)
        except DBAPIError as error:
            raise DatabaseError(f"the database refuses, and nothing was changed: {first_line(error)}") from None
        return code


def _refresh(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    at = now()
    if args.propose:
        with engine.begin() as connection:
            drafts = renewal.due(connection, at, everything=args.all)
            if not drafts:
                raise ReleaseError("expected signatures that end soon, got none: --all proposes all")
            request = ceremony.propose(connection, drafts, at)
        return proposed(args, request)
    with engine.begin() as connection:
        published = renewal.refresh(connection, keys, at, everything=args.all)
    with engine.begin() as connection:
        terms = renewal.calendar(connection, keys, at)
    say(args, {"published": published}, f"published {', '.join(published)}")
    late = [term for term in terms if term.state(at) != "fine"]
    for term in late:
        print(f"{term_line(term, term.state(at), at)}; --keys is needed for it", file=sys.stderr)
    return 1 if late else 0


def _add(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    draft = publisher.keep(
        engine, _objects(args), args.bundle, work=args.data,
        hardware=args.hardware or HARDWARE, name=args.name, notes=args.notes,
    )  # fmt: skip
    with engine.begin() as connection:
        request = publisher.propose_add(connection, draft, now(), args.counter)
        if args.propose:
            return proposed(args, request)
        (release,) = publisher.finish(connection, request, keys, now()).added
    deltas.ask(engine, release.counter)
    say(args, _release(release), _line(release))
    return 0


def _accept(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    accepted = publisher.accept(engine, _objects(args), merged(args.requests), keys, now())
    for release in accepted.added:
        deltas.ask(engine, release.counter)
    names = [str(name) for name in accepted.names]
    values = {
        "added": [_release(release) for release in accepted.added],
        "revoked": [release.counter for release in accepted.revoked],
        "published": names,
    }
    lines = [_line(release) for release in accepted.added]
    lines += [_revoked(list(accepted.revoked))] if accepted.revoked else []
    say(args, values, "\n".join([*lines, f"published {', '.join(names)}"]))
    return 0


def _list(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    with engine.begin() as connection:
        found = releases.listed(connection)
        stopped = stops.current(connection).bundles
    if args.json:
        print(json.dumps([_release(one) | {"is_stopped": one.bundle in stopped} for one in found], indent=2))
        return 0
    for release in found:
        print(_line(release) + (", stopped" if release.bundle in stopped and release.revoked_at is None else ""))
    return 0


def _show(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    with engine.begin() as connection:
        release = releases.get(connection, args.release)
        why = stops.reason(connection, release.bundle)
        gates = connection.execute(
            select(GATES.c.gate, GATES.c.verdict, GATES.c.why)
            .where(GATES.c.release == release.counter)
            .order_by(GATES.c.place)
        ).all()
        running = connection.execute(
            select(func.count()).select_from(FLEET).where(FLEET.c.active == release.bundle)
        ).scalar_one()
    if args.json:
        passed = [{"gate": row.gate, "verdict": row.verdict, "why": row.why} for row in gates]
        more = {"stopped": why, "gates": passed, "vehicles": running}
        print(json.dumps(_release(release) | more, indent=2))
        return 0
    print(_line(release))
    print(f"bundle  {release.bundle}")
    print(f"target  {release.path}")
    if release.notes:
        print(f"notes   {release.notes}")
    if why is not None:
        print(f"stopped {why}")
    print(f"runs on {running} vehicles")
    for row in gates:
        print(f"gate    {row.gate}: {row.verdict}{f', {row.why}' if row.why else ''}")
    for file in release.files:
        print(f"file    {file.sha256}  {file.length:>10}  {file.name}")
    return 0


def _revoke(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    with engine.begin() as connection:
        request = publisher.propose_revoke(connection, args.release, args.why, now())
        if args.propose:
            return proposed(args, request)
        revoked = list(publisher.finish(connection, request, keys, now()).revoked)
    counters = [release.counter for release in revoked]
    say(args, {"revoked": counters, "bundle": revoked[0].bundle}, _revoked(revoked))
    return 0


def _lift(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    with engine.begin() as connection:
        bundle = args.bundle
        found = [one for one in stops.current(connection).bundles if len(bundle) >= 6 and one.startswith(bundle)]
        if len(found) != 1:
            raise ReleaseError(f"expected the id of a bundle that is stopped, got {bundle[:80]!r}")
        number = stops.lift(connection, found[0])
    say(args, {"bundle": found[0], "number": number}, f"bundle {found[0][:SHORT]} may run again, once it is released")
    return 0


def _objects(args: argparse.Namespace) -> Objects:
    return Objects(Settings(data=args.data, objects=args.objects).objects_place)


def _revoked(revoked: list[Release]) -> str:
    counters = ", ".join(str(release.counter) for release in revoked)
    bundle = revoked[0].bundle[:SHORT]
    return f"revoked {counters}; bundle {bundle} is stopped: vehicles leave it when they next hear of it"


def _release(release: Release) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(release), default=str))
    return values


def _line(release: Release) -> str:
    revoked = ""
    if release.revoked_at is not None:
        revoked = f", revoked {release.revoked_at:%Y-%m-%d %H:%M} for: {release.revoked_why}"
    return (
        f"{release.counter}  {release.name} {release.version}  {release.bundle[:SHORT]}  "
        f"{release.size_bytes / 1e6:.1f} MB in {len(release.files)} files, for {', '.join(release.hardware)}, "
        f"{release.released_at:%Y-%m-%d %H:%M}{revoked}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse release",
        description="Say which models exist, signed by offline keys (docs/releases.md, docs/operate/keys.md).",
    )
    commands = parser.add_subparsers(required=True, metavar="keys|add|list|show|revoke|lift|refresh|sign|accept")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data", type=Path, required=True, metavar="DIR", help="the cloud's folder")
    place.add_argument(
        "--database", metavar="URL", default=os.environ.get("ROADFUSE_DATABASE"),
        help="postgresql://user@host/name (or ROADFUSE_DATABASE); by default an embedded one in DIR/postgres",
    )  # fmt: skip
    place.add_argument("--json", action="store_true", help="print JSON")
    place.set_defaults(is_alone=False)
    kept = argparse.ArgumentParser(add_help=False)
    kept.add_argument("--objects", metavar="URL", help="folder or s3://bucket/prefix; by default DIR/objects")
    signing = argparse.ArgumentParser(add_help=False, parents=[place])
    signing.add_argument(
        "--keys", type=Path, action="append", metavar="DIR",
        help=f"folder of offline keys, outside the cloud's; repeatable; {PASSPHRASE} opens encrypted ones",
    )  # fmt: skip
    proposing = argparse.ArgumentParser(add_help=False)
    proposing.add_argument(
        "--propose", type=Path, metavar="FILE",
        help="change nothing, but write what is to be signed, for key holders elsewhere (release sign, then accept)",
    )  # fmt: skip
    add_commands(commands, signing, proposing)
    add_sign(commands)
    accept = commands.add_parser(
        "accept",
        parents=[place, kept],
        help="publish what was proposed and is signed by as many as it takes",
        description="Publish a request once enough key holders signed it; copies signed apart are joined. What it says "
        "and what stands are checked anew: a request that others overtook is refused.",
    )
    accept.add_argument("requests", type=Path, nargs="+", metavar="FILE", help="a request, or its copies")
    accept.set_defaults(run=_accept, keys=None)
    add = commands.add_parser(
        "add",
        parents=[signing, proposing, kept],
        help="release a bundle",
        description="Say in the image repository that a bundle exists, under offline keys. No vehicle is given it "
        "before a rollout.",
    )
    add.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder")
    add.add_argument(
        "--hardware", action="append", metavar="CLASS", help=f"that it is for; repeatable (default {HARDWARE[0]})"
    )
    add.add_argument("--name", metavar="NAME", help="of its target (default: the bundle's)")
    add.add_argument("--notes", default="", metavar="TEXT", help="for people")
    add.add_argument(
        "--counter", type=int, default=1, metavar="N", help="at least this one: after the catalogue was lost"
    )
    add.set_defaults(run=_add)
    commands.add_parser("list", parents=[place], help="all releases").set_defaults(run=_list, keys=None)
    show = commands.add_parser("show", parents=[place], help="one release: files, gates, who runs it")
    show.add_argument("release", type=int, metavar="COUNTER")
    show.set_defaults(run=_show, keys=None)
    revoke = commands.add_parser(
        "revoke",
        parents=[signing, proposing],
        help="take a bundle back and stop it",
        description="Take a bundle out of the image repository, and order every vehicle that runs it back, now.",
    )
    revoke.add_argument("release", type=int, metavar="COUNTER")
    revoke.add_argument("--why", required=True, metavar="TEXT", help="vehicles and people are told")
    revoke.set_defaults(run=_revoke)
    lift = commands.add_parser("lift", parents=[place], help="let a stopped bundle go again")
    lift.add_argument("bundle", metavar="BUNDLE", help="id, or how it begins")
    lift.set_defaults(run=_lift, keys=None)
    refresh = commands.add_parser(
        "refresh",
        parents=[signing, proposing],
        help="sign anew what ends soon; without --keys the timestamp alone",
        description="Metadata ends; vehicles refuse what has ended. The cloud renews its online roles by itself.",
    )
    refresh.add_argument("--all", action="store_true", help="sign everything anew, whatever its time")
    refresh.set_defaults(run=_refresh)
    return parser
