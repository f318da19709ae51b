"""`roadfuse release keys|add|list|show|revoke|lift|refresh`: what models exist, signed; docs/operate/keys.md."""

from __future__ import annotations

import argparse
import datetime
import getpass
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, func, select

from cloud.database import opened
from cloud.errors import CloudError, ReleaseError
from cloud.objects import Objects
from cloud.releases import releases, renewal, rotation, stops, stored
from cloud.releases.keys import DIRECTOR, IMAGE, PASSPHRASE
from cloud.releases.releases import HARDWARE, Release
from cloud.releases.renewal import Term
from cloud.releases.roles import RULES
from cloud.releases.signing import Keys, root_of
from cloud.settings import Settings
from cloud.tables import FLEET, GATES
from edge.uplink.identity import DIRECTOR_ROOT, IMAGE_ROOT

_SHORT: Final = 16  # characters of an id that are shown


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands."""
    args = _parser().parse_args(argv)
    if not args.data.is_dir():
        raise CloudError(f"expected the cloud's data folder, got {args.data}, which is none")
    keys = Keys.at(args.data, args.keys or [], _asked)
    with opened(args.data, args.database, share=True) as engine:
        code: int = args.run(args, engine, keys)
        return code


def _create(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    secret = _new_secret(args)
    with engine.begin() as connection:
        roles = rotation.create(connection, keys, _now(), secret)
    folders = ", ".join(map(str, keys.offline.folders))
    _say(
        args, {"roles": roles, "keys": folders}, f"both repositories are made; offline keys in {folders}: back them up"
    )
    if not secret:
        print(f"note: the offline keys are not encrypted; {PASSPHRASE} or --encrypt does that", file=sys.stderr)
    return 0


def _rotate(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    secret = _new_secret(args)
    with engine.begin() as connection:
        change = rotation.replace(
            connection, args.repository, args.role, args.key, keys, _now(), secret, is_stolen=args.is_stolen
        )
    old, new = change.old[:_SHORT], change.new[:_SHORT]
    done = f"{change.repository} {change.role}: {new} in place of {old}; published {', '.join(change.published)}"
    _say(args, asdict(change), done)
    path = keys.find(change.repository, change.role, change.old)
    if path is not None:
        print(f"note: {path} signs nothing any more: destroy it", file=sys.stderr)
    return 0


def _show_keys(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    now = _now()
    with engine.begin() as connection:
        terms = renewal.calendar(connection, keys, now)
    states = [term.state(now) for term in terms]
    if args.json:
        print(json.dumps([_term(term, state) for term, state in zip(terms, states)], indent=2))
    else:
        for term, state in zip(terms, states):
            print(_term_line(term, state, now))
    return 0 if all(state == "fine" for state in states) else 1


def _roots(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    args.out.mkdir(parents=True, exist_ok=True)
    paths = []
    for repository in (DIRECTOR, IMAGE):
        with engine.begin() as connection:
            root_of(connection, repository)  # there is one
            roots = stored.roots(connection, repository)
        name = {DIRECTOR: DIRECTOR_ROOT, IMAGE: IMAGE_ROOT}[repository]
        for file, root in [*((f"{root.version}.{name}", root) for root in roots), (name, roots[-1])]:
            (args.out / file).write_bytes(root.content)
            paths.append(str(args.out / file))
    _say(args, {"files": paths}, f"{args.out}: {DIRECTOR_ROOT}, {IMAGE_ROOT}, and all before them by their versions")
    return 0


def _refresh(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    now = _now()
    with engine.begin() as connection:
        published = renewal.refresh(connection, keys, now, everything=args.all)
    with engine.begin() as connection:
        terms = renewal.calendar(connection, keys, now)
    _say(args, {"published": published}, f"published {', '.join(published)}")
    late = [term for term in terms if term.state(now) != "fine"]
    for term in late:
        print(f"{_term_line(term, term.state(now), now)}; --keys is needed for it", file=sys.stderr)
    return 1 if late else 0


def _add(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    objects = Objects(Settings(data=args.data, objects=args.objects).objects_place)
    release = releases.add(
        engine, objects, keys, args.bundle, _now(), work=args.data,
        hardware=args.hardware or HARDWARE, name=args.name, notes=args.notes, least_counter=args.counter,
    )  # fmt: skip
    _say(args, _release(release), _line(release))
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
        revoked = releases.revoke(connection, keys, args.release, args.why, _now())
    counters = ", ".join(str(release.counter) for release in revoked)
    bundle = revoked[0].bundle
    _say(
        args,
        {"revoked": [release.counter for release in revoked], "bundle": bundle},
        f"revoked {counters}; bundle {bundle[:_SHORT]} is stopped: vehicles leave it when they next hear of it",
    )
    return 0


def _lift(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    with engine.begin() as connection:
        bundle = args.bundle
        found = [one for one in stops.current(connection).bundles if len(bundle) >= 6 and one.startswith(bundle)]
        if len(found) != 1:
            raise ReleaseError(f"expected the id of a bundle that is stopped, got {bundle[:80]!r}")
        number = stops.lift(connection, found[0])
    _say(args, {"bundle": found[0], "number": number}, f"bundle {found[0][:_SHORT]} may run again, once it is released")
    return 0


def _say(args: argparse.Namespace, values: Any, line: str) -> None:
    print(json.dumps(values) if args.json else line)


def _release(release: Release) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(release), default=str))
    return values


def _line(release: Release) -> str:
    revoked = ""
    if release.revoked_at is not None:
        revoked = f", revoked {release.revoked_at:%Y-%m-%d %H:%M} for: {release.revoked_why}"
    return (
        f"{release.counter}  {release.name} {release.version}  {release.bundle[:_SHORT]}  "
        f"{release.size_bytes / 1e6:.1f} MB in {len(release.files)} files, for {', '.join(release.hardware)}, "
        f"{release.released_at:%Y-%m-%d %H:%M}{revoked}"
    )


def _term(term: Term, state: str) -> dict[str, Any]:
    return {
        "repository": term.rule.repository,
        "role": term.rule.role,
        "version": term.version,
        "threshold": term.threshold,
        "keys": term.keys,
        "expires": None if term.expires is None else term.expires.isoformat(),
        "state": state,
    }


def _term_line(term: Term, state: str, now: datetime.datetime) -> str:
    rule = term.rule
    here = ", ".join(f"{keyid[:_SHORT]}{'' if path else ' (not here)'}" for keyid, path in term.keys.items())
    if term.expires is None:
        end = "signed for each call"
    else:
        days = (term.expires - now) / datetime.timedelta(days=1)
        end = f"version {term.version}, until {term.expires:%Y-%m-%d} ({days:.0f} days)"
    warning = "" if state == "fine" else f", {state.upper()}"
    place = "online" if rule.is_online else "offline"
    return f"{rule.name:<19} {term.threshold} of {len(term.keys)} {place:<7}  {end}{warning}; keys {here}"


def _asked(what: str) -> bytes:
    if os.environ.get(PASSPHRASE) or not sys.stdin.isatty():
        return os.environ.get(PASSPHRASE, "").encode()
    return getpass.getpass(f"passphrase of {what}: ").encode()


def _new_secret(args: argparse.Namespace) -> bytes:
    """Encrypts new keys: from the environment, or asked for twice; empty where neither is wanted."""
    if os.environ.get(PASSPHRASE) or not args.encrypt:
        return os.environ.get(PASSPHRASE, "").encode()
    if not sys.stdin.isatty():
        raise ReleaseError(f"--encrypt: expected a terminal to ask at, or {PASSPHRASE}, got neither")
    secret = getpass.getpass("passphrase for the new keys: ")
    if not secret or secret != getpass.getpass("once more: "):
        raise ReleaseError("expected the same passphrase twice, got two, or none")
    return secret.encode()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse release",
        description="Say which models exist, signed by offline keys (docs/releases.md, docs/operate/keys.md).",
    )
    commands = parser.add_subparsers(required=True, metavar="keys|add|list|show|revoke|lift|refresh")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data", type=Path, required=True, metavar="DIR", help="the cloud's folder")
    place.add_argument(
        "--database", metavar="URL", default=os.environ.get("ROADFUSE_DATABASE"),
        help="postgresql://user@host/name (or ROADFUSE_DATABASE); by default an embedded one in DIR/postgres",
    )  # fmt: skip
    place.add_argument("--json", action="store_true", help="print JSON")
    signing = argparse.ArgumentParser(add_help=False, parents=[place])
    signing.add_argument(
        "--keys", type=Path, action="append", metavar="DIR",
        help=f"folder of offline keys, outside the cloud's; repeatable; {PASSPHRASE} opens encrypted ones",
    )  # fmt: skip
    _key_commands(commands, signing)
    add = commands.add_parser("add", parents=[signing], help="release a bundle")
    add.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder")
    add.add_argument(
        "--hardware", action="append", metavar="CLASS", help=f"that it is for; repeatable (default {HARDWARE[0]})"
    )
    add.add_argument("--name", metavar="NAME", help="of its target (default: the bundle's)")
    add.add_argument("--notes", default="", metavar="TEXT", help="for people")
    add.add_argument("--objects", metavar="URL", help="folder or s3://bucket/prefix; by default DIR/objects")
    add.add_argument(
        "--counter", type=int, default=1, metavar="N", help="at least this one: after the catalogue was lost"
    )
    add.set_defaults(run=_add)
    commands.add_parser("list", parents=[place], help="all releases").set_defaults(run=_list, keys=None)
    show = commands.add_parser("show", parents=[place], help="one release: files, gates, who runs it")
    show.add_argument("release", type=int, metavar="COUNTER")
    show.set_defaults(run=_show, keys=None)
    revoke = commands.add_parser("revoke", parents=[signing], help="take a bundle back, and stop it everywhere")
    revoke.add_argument("release", type=int, metavar="COUNTER")
    revoke.add_argument("--why", required=True, metavar="TEXT", help="vehicles and people are told")
    revoke.set_defaults(run=_revoke)
    lift = commands.add_parser("lift", parents=[place], help="let a stopped bundle go again")
    lift.add_argument("bundle", metavar="BUNDLE", help="id, or how it begins")
    lift.set_defaults(run=_lift, keys=None)
    refresh = commands.add_parser(
        "refresh", parents=[signing], help="sign anew what ends soon; without --keys the timestamp alone"
    )
    refresh.add_argument("--all", action="store_true", help="sign everything anew, whatever its time")
    refresh.set_defaults(run=_refresh)
    return parser


def _key_commands(commands: Any, signing: argparse.ArgumentParser) -> None:
    keys = commands.add_parser("keys", help="who may sign").add_subparsers(
        required=True, metavar="create|rotate|revoke|show|roots"
    )
    making = argparse.ArgumentParser(add_help=False)
    making.add_argument("--encrypt", action="store_true", help="ask for a passphrase for new offline keys")
    create = keys.add_parser(
        "create", parents=[signing, making],
        help="make all keys and both repositories; with several --keys each takes its share of each role's",
    )  # fmt: skip
    create.set_defaults(run=_create)
    repositories = sorted({repository for repository, _ in RULES})
    roles = list(dict.fromkeys(role for _, role in RULES))
    for name, what, is_stolen in (
        ("rotate", "put a new key in a key's place", False),
        ("revoke", "the same for a lost or stolen key, which signs nothing any more", True),
    ):
        command = keys.add_parser(name, parents=[signing, making], help=what)
        command.add_argument("repository", choices=repositories)
        command.add_argument("role", choices=roles)
        command.add_argument(
            "--key", metavar="ID", required=is_stolen,
            help="which one, or how its id begins" + ("" if is_stolen else " (default: the oldest)"),
        )  # fmt: skip
        command.set_defaults(run=_rotate, is_stolen=is_stolen)
    roots = keys.add_parser("roots", parents=[signing], help="write the roots, to give them to vehicles by hand")
    roots.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that takes them")
    roots.set_defaults(run=_roots)
    keys.add_parser(
        "show", parents=[signing], help="all roles, keys and ends; 1 if any ends soon"
    ).set_defaults(run=_show_keys)  # fmt: skip
