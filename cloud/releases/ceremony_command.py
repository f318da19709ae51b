"""`roadfuse release sign`, and the files of requests; docs/operate/keys.md."""

from __future__ import annotations

import argparse
import datetime
import getpass
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloud.errors import ReleaseError
from cloud.releases import ceremony, review
from cloud.releases.bundles import file_of, files_of
from cloud.releases.keys import DIRECTOR, IMAGE, PASSPHRASE, KeyFolders
from cloud.releases.releases import Release
from cloud.releases.request import MOST_BYTES, Request
from cloud.releases.review import SHORT, Change
from cloud.releases.roles import ROOT
from cloud.releases.signing import read
from edge.bundle import load
from edge.durable import sync
from edge.uplink.identity import DIRECTOR_ROOT, IMAGE_ROOT

_ROOTS = {IMAGE: IMAGE_ROOT, DIRECTOR: DIRECTOR_ROOT}


def add_sign(commands: Any) -> None:
    """Add `sign` to the sub-commands."""
    sign = commands.add_parser(
        "sign",
        help="sign what was proposed, on a machine without the cloud's data, its database or a network",
        description="Read what a request changes, in words made from its metadata alone, and sign it with the keys at "
        "hand. Roots that the keys' folders remember say whether it is of the repository that you know.",
    )
    sign.add_argument("request", type=Path, metavar="FILE", help="that --propose wrote; it takes the signatures too")
    sign.add_argument(
        "--keys", type=Path, action="append", required=True, metavar="DIR",
        help=f"folder of offline keys; repeatable; {PASSPHRASE} opens encrypted ones",
    )  # fmt: skip
    sign.add_argument(
        "--root", type=Path, action="append", default=[], metavar="FILE",
        help=f"a root that must be among those before; repeatable (default: {IMAGE_ROOT}, {DIRECTOR_ROOT} of --keys)",
    )  # fmt: skip
    sign.add_argument("--bundle", type=Path, metavar="DIR", help="the folder whose files must be those of the release")
    sign.add_argument("--out", type=Path, metavar="FILE", help="takes the signatures in its place")
    sign.add_argument("--yes", action="store_true", help="don't ask")
    sign.set_defaults(run=_sign, is_alone=True)


def asked(what: str) -> bytes:
    """A passphrase from the environment, or from the terminal."""
    if os.environ.get(PASSPHRASE) or not sys.stdin.isatty():
        return os.environ.get(PASSPHRASE, "").encode()
    return getpass.getpass(f"passphrase of {what}: ").encode()


def say(args: argparse.Namespace, values: Any, line: str) -> None:
    """A result as JSON, or as a line."""
    print(json.dumps(values) if args.json else line)


def now() -> datetime.datetime:
    """UTC."""
    return datetime.datetime.now(datetime.timezone.utc)


def proposed(args: argparse.Namespace, request: Request) -> int:
    """Write a request where --propose says, and tell what it is.

    Raises:
        ReleaseError: nobody would sign it: it is too long, or notes have signs that are not printable.
    """
    review.check(Request.of(request.to_bytes()), now())
    _write(args.propose, request)
    values = {"request": str(args.propose), "words": list(request.words)}
    lines = [*request.words, f"nothing is changed yet: {args.propose} is to be signed (release sign), then accepted"]
    say(args, values, "\n".join(lines))
    return 0


def merged(paths: Sequence[Path]) -> Request:
    """A request from its copies, with all their signatures.

    Raises:
        ReleaseError: they are none, or signatures don't hold.
    """
    requests = [_read(path) for path in paths]
    for path, request in zip(paths, requests):
        _checked(path, request)
    return ceremony.merged(requests)


def _sign(args: argparse.Namespace) -> int:
    request = _read(args.request)
    change = _checked(args.request, request)
    pinned = _pinned(request, args.root, args.keys)
    for line in change.words:
        print(line)
    for what, text in (("version", request.said.version), ("notes", request.said.notes), ("why", request.said.why)):
        if text:
            print(f"said, not signed: {what} {text!r}")
    for repository, roots in request.roots.items():
        by = pinned.get(repository)
        print(f"follows {repository} root {roots[-1].signed.version}, " + (f"as {by} has it" if by else "NOT compared"))
    if args.bundle:
        print(_same_bundle(change, request, args.bundle))
    folders = KeyFolders(args.keys, asked)
    paths = _paths(request, folders)
    if not paths:
        wanted = "; ".join(f"{one.name}: {one}" for one in review.needed(request))
        raise ReleaseError(f"expected a key that is wanted and has not signed yet, got none ({wanted})"[:600])
    for path in paths:
        print(f"signs with {path}")
    if not args.yes and not _is_yes():
        raise ReleaseError("expected yes, got another word: nothing is signed")
    ceremony.sign(request, folders)
    place = args.out or args.request
    _write(place, request)
    lacking = review.missing(request)
    for line in lacking:
        print(f"still to be signed: {line}")
    print(f"{place}: signed; " + ("more signatures are needed" if lacking else "roadfuse release accept publishes it"))
    return 0


def _is_yes() -> bool:
    if not sys.stdin.isatty():
        raise ReleaseError("expected a terminal to ask at, or --yes, got neither")
    return input("sign this? yes or no: ").strip() == "yes"


def _paths(request: Request, folders: KeyFolders) -> list[Path]:
    """Files of keys that sign something that they have not signed."""
    paths = []
    for one in review.needed(request):
        for keyid in one.keyids:
            path = folders.find(one.name.repository, one.name.rule.role, keyid)
            if path is not None and keyid not in request.drafts[one.name].signatures:
                paths.append(path)
    return list(dict.fromkeys(paths))


def _pinned(request: Request, files: Sequence[Path], folders: Sequence[Path]) -> dict[str, Path]:
    """Which file has a root of a repository's chain; every file must.

    Without `files`, those beside the keys.
    """
    named = files or [folder / _ROOTS[repository] for repository in request.roots for folder in folders]
    pinned = {}
    for path in named:
        if not files and not path.is_file():
            continue
        with path.open("rb") as file:
            root = read(file.read(MOST_BYTES), str(path), ROOT)
        found = next((repository for repository, roots in request.roots.items() if root in roots), None)
        if found is None:
            raise ReleaseError(f"{path}: expected a root that the request follows, got one of another cloud")
        pinned[found] = path
    return pinned


def _same_bundle(change: Change, request: Request, folder: Path) -> str:
    if len(change.added) != 1:
        raise ReleaseError(f"--bundle: expected a request for one release, got one for {len(change.added)}")
    release: Release = change.added[0]
    bundle = load(folder)
    files = {file_of(path) for path in files_of(bundle)}
    if bundle.id != release.bundle or files != set(release.files):
        raise ReleaseError(f"{folder}: expected the bundle {release.bundle[:SHORT]}, got {bundle.id[:SHORT]}")
    if bundle.version != request.said.version:
        raise ReleaseError(f"{folder}: expected version {request.said.version!r}, as is said, got {bundle.version!r}")
    return f"{folder}: {bundle.name} {bundle.version}, the same {len(files)} files"


def _checked(path: Path, request: Request) -> Change:
    try:
        return review.check(request, now())
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {error}") from None


def _read(path: Path) -> Request:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    try:
        return Request.of(content)
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {error}") from None


def _write(path: Path, request: Request) -> None:
    """The whole file, or what was there before."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(request.to_bytes())
    sync(part)
    part.replace(path)
    sync(path.parent)
