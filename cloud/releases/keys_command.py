"""`roadfuse release keys create|new|rotate|revoke|show|roots`: who may sign; docs/operate/keys.md."""

from __future__ import annotations

import argparse
import datetime
import getpass
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from cloud.errors import ReleaseError
from cloud.releases import renewal, rotation, stored
from cloud.releases.ceremony_command import now, proposed, say
from cloud.releases.keys import DIRECTOR, IMAGE, PASSPHRASE, KeyFolders, from_public_file, public_file
from cloud.releases.renewal import Term
from cloud.releases.review import SHORT
from cloud.releases.roles import RULES, rule_of
from cloud.releases.signing import Keys, root_of
from edge.uplink.identity import DIRECTOR_ROOT, IMAGE_ROOT


def add_commands(commands: Any, signing: argparse.ArgumentParser, proposing: argparse.ArgumentParser) -> None:
    """Add `keys` to the sub-commands.

    Args:
        signing: with the options that all of them have.
        proposing: with those of what can be signed elsewhere.
    """
    keys = commands.add_parser("keys", help="who may sign").add_subparsers(
        required=True, metavar="create|new|rotate|revoke|show|roots"
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
    fresh = keys.add_parser(
        "new", parents=[making], help="make an offline key on its owner's machine, to be proposed by its public part"
    )
    fresh.add_argument("repository", choices=repositories)
    fresh.add_argument("role", choices=roles)
    fresh.add_argument("--keys", type=Path, required=True, metavar="DIR", help="folder that takes it")
    fresh.set_defaults(run=_new, is_alone=True)
    for name, what, is_stolen in (
        ("rotate", "put a new key in a key's place", False),
        ("revoke", "the same for a lost or stolen key, which signs nothing any more", True),
    ):
        command = keys.add_parser(name, parents=[signing, proposing, making], help=what)
        command.add_argument("repository", choices=repositories)
        command.add_argument("role", choices=roles)
        command.add_argument(
            "--key", metavar="ID", required=is_stolen,
            help="which one, or how its id begins" + ("" if is_stolen else " (default: the oldest)"),
        )  # fmt: skip
        command.add_argument(
            "--with", type=Path, dest="public", metavar="PUBLIC.json", help="a new key that its owner made (keys new)"
        )
        command.set_defaults(run=_rotate, is_stolen=is_stolen)
    roots = keys.add_parser("roots", parents=[signing], help="write the roots, to give them to vehicles by hand")
    roots.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that takes them")
    roots.set_defaults(run=_roots)
    keys.add_parser(
        "show", parents=[signing], help="all roles, keys and ends; 1 if any ends soon"
    ).set_defaults(run=_show_keys)  # fmt: skip


def term_line(term: Term, state: str, at: datetime.datetime) -> str:
    """A role, its keys and its end."""
    rule = term.rule
    here = ", ".join(f"{keyid[:SHORT]}{'' if path else ' (not here)'}" for keyid, path in term.keys.items())
    if term.expires is None:
        end = "signed for each call"
    else:
        days = (term.expires - at) / datetime.timedelta(days=1)
        end = f"version {term.version}, until {term.expires:%Y-%m-%d} ({days:.0f} days)"
    warning = "" if state == "fine" else f", {state.upper()}"
    place = "online" if rule.is_online else "offline"
    return f"{rule.name:<19} {term.threshold} of {len(term.keys)} {place:<7}  {end}{warning}; keys {here}"


def _create(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    secret = _new_secret(args)
    with engine.begin() as connection:
        roles = rotation.create(connection, keys, now(), secret)
    folders = ", ".join(map(str, keys.offline.folders))
    say(args, {"roles": roles, "keys": folders}, f"both repositories are made; offline keys in {folders}: back them up")
    if not secret:
        print(f"note: the offline keys are not encrypted; {PASSPHRASE} or --encrypt does that", file=sys.stderr)
    return 0


def _new(args: argparse.Namespace) -> int:
    rule = rule_of(args.repository, args.role)
    if rule.is_online:
        raise ReleaseError(f"expected a role with offline keys, got {rule.name}, whose keys the cloud makes")
    key = KeyFolders([args.keys]).create(args.repository, args.role, _new_secret(args)).public_key
    name, content = public_file(args.repository, args.role, key)
    (args.keys / name).write_bytes(content)
    print(f"{rule.name}: {key.keyid}; its public part, for roadfuse release keys rotate --with: {args.keys / name}")
    return 0


def _rotate(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    new = from_public_file(args.public, args.repository, args.role) if args.public else None
    what = args.repository, args.role, args.key, keys, now()
    how: dict[str, Any] = {"secret": b"" if new else _new_secret(args), "is_stolen": args.is_stolen, "new": new}
    with engine.begin() as connection:
        if args.propose:
            _, request = rotation.propose(connection, *what, **how)
            return proposed(args, request)
        change = rotation.replace(connection, *what, **how)
    pair = f"{change.new[:SHORT]} in place of {change.old[:SHORT]}"
    done = f"{change.repository} {change.role}: {pair}; published {', '.join(change.published)}"
    say(args, asdict(change), done)
    path = keys.find(change.repository, change.role, change.old)
    if path is not None:
        print(f"note: {path} signs nothing any more: destroy it", file=sys.stderr)
    return 0


def _show_keys(args: argparse.Namespace, engine: Engine, keys: Keys) -> int:
    at = now()
    with engine.begin() as connection:
        terms = renewal.calendar(connection, keys, at)
    states = [term.state(at) for term in terms]
    if args.json:
        print(json.dumps([_term(term, state) for term, state in zip(terms, states)], indent=2))
    else:
        for term, state in zip(terms, states):
            print(term_line(term, state, at))
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
    say(args, {"files": paths}, f"{args.out}: {DIRECTOR_ROOT}, {IMAGE_ROOT}, and all before them by their versions")
    return 0


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
