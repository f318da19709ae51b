"""Making the first keys, and replacing one: what that takes, published in one transaction.

A key is replaced, never only removed, so that as many may be lost or stolen afterwards as before. A root that follows
is signed by the thresholds of both; all roots are kept, so that a vehicle that slept for years walks from the one it
knows to the newest. With a new key for timestamp or snapshot a vehicle forgets the versions that the old one signed,
however high (TUF 5.3.11): so an attacker's version 10^9 does not lock the fleet out.
"""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from typing import Any, Final

from securesystemslib.signer import Key  # type: ignore[attr-defined]
from sqlalchemy import Connection
from tuf.api.metadata import Metadata

from cloud.errors import ReleaseError
from cloud.releases import ceremony, stored
from cloud.releases.image import Image
from cloud.releases.keys import DIRECTOR, IMAGE
from cloud.releases.request import Request
from cloud.releases.roles import BINS, ROOT, RULES, Name, Rule, rule_of
from cloud.releases.signing import Keys, first_root, next_root, root_of

LEAST_CHARACTERS: Final = 6  # of an id that stands for a key


@dataclass(frozen=True, slots=True)
class Change:
    """A key that was replaced.

    Attributes:
        published: roles that have a new version.
    """

    repository: str
    role: str
    old: str
    new: str
    published: tuple[str, ...]


def create(connection: Connection, keys: Keys, now: datetime.datetime, secret: bytes = b"") -> list[str]:
    """Make all keys and both repositories, empty.

    Args:
        secret: encrypts the offline keys; empty: they are not.

    Returns:
        The roles, as people say them.

    Raises:
        ReleaseError: there are repositories already.
    """
    stored.lock(connection)
    for repository in (IMAGE, DIRECTOR):
        if stored.latest(connection, repository, ROOT) is not None:
            raise ReleaseError(f"expected no {repository} repository, got one: its keys can be rotated, not made again")
    made: dict[str, dict[str, list[Any]]] = {IMAGE: {}, DIRECTOR: {}}
    for rule in RULES.values():
        made[rule.repository][rule.role] = [_made(keys, rule, secret, place) for place in range(rule.keys)]
    bins = made[IMAGE].pop(BINS)
    image = Image(connection, now)
    image.begin(bins)
    roots = {Name(repository, ROOT): first_root(repository, of_roles, now) for repository, of_roles in made.items()}
    drafts = {name: Metadata(draft) for name, draft in (roots | image.drafts()).items()}
    request = Request(now, {}, {}, drafts)
    ceremony.sign(request, keys.offline)
    ceremony.publish(connection, request, keys, now)
    return [rule.name for rule in RULES.values()]


def replace(
    connection: Connection,
    repository: str,
    role: str,
    keyid: str | None,
    keys: Keys,
    now: datetime.datetime,
    secret: bytes = b"",
    *,
    is_stolen: bool = False,
    new: Key | None = None,
) -> Change:
    """Put a new key in an old one's place, with all keys at hand.

    Args:
        secret: encrypts the new one, if it is offline and made here.
        keyid, is_stolen, new: as of `propose`.

    Raises:
        ReleaseError: there is no such key, or keys that must sign are missing.
    """
    change, request = propose(connection, repository, role, keyid, keys, now, secret, is_stolen=is_stolen, new=new)
    ceremony.sign(request, keys.offline)
    published = ceremony.publish(connection, request, keys, now)
    return dataclasses.replace(change, published=tuple(one.role for one in published))


def propose(
    connection: Connection,
    repository: str,
    role: str,
    keyid: str | None,
    keys: Keys,
    now: datetime.datetime,
    secret: bytes = b"",
    *,
    is_stolen: bool = False,
    new: Key | None = None,
) -> tuple[Change, Request]:
    """Draft what puts a new key in an old one's place.

    Args:
        keyid: of the old one, or how it begins; None: the one that is longest in its role.
        secret: encrypts the new one, if it is offline and made here.
        is_stolen: the old one signs nothing any more, not even the root that removes it.
        new: of an owner who made it; None: it is made here.

    Raises:
        ReleaseError: there is no such key, or no folder for the new one.
    """
    rule = rule_of(repository, role)
    stored.lock(connection)
    root = root_of(connection, repository)
    image = Image(connection, now)
    used = image.keyids() if role == BINS else root.roles[role].keyids
    old = _chosen(rule, used, keyid)
    if new is None:
        new = _made(keys, rule, secret, place=list(used).index(old))
    elif rule.is_online:
        raise ReleaseError(f"{rule.name}: expected a key that the cloud makes, for the role is online, got an owner's")
    elif new.keyid in used:
        raise ReleaseError(f"{rule.name}: expected a new key, got {new.keyid[:16]}, which it has")
    drafts: dict[Name, Any] = {}
    if role == BINS:
        image.replace_bin_key(old, new)
    else:
        follower = next_root(root, repository, now)
        follower.revoke_key(old, role)
        follower.add_key(new, role)
        drafts[Name(repository, ROOT)] = follower
        if repository == IMAGE and role != ROOT:
            image.sign_anew(role)
    drafts |= image.drafts()
    request = ceremony.propose(connection, drafts, now, revoked=[old] if is_stolen else [])
    return Change(repository, role, old, new.keyid, ()), request


def _made(keys: Keys, rule: Rule, secret: bytes, place: int) -> Any:
    if rule.is_online:
        return keys.online.create(rule.repository, rule.role).public_key
    if not keys.offline.folders:
        raise ReleaseError(f"expected a folder for keys of {rule.name} (--keys), got none")
    return keys.offline.create(rule.repository, rule.role, secret, place).public_key


def _chosen(rule: Rule, used: list[str], keyid: str | None) -> str:
    if keyid is None:
        return used[0]
    found = [one for one in used if one.startswith(keyid)] if len(keyid) >= LEAST_CHARACTERS else []
    if len(found) != 1:
        known = ", ".join(one[:16] for one in used)
        raise ReleaseError(f"expected --key with one of {known} of {rule.name}, got {keyid[:80]!r}")
    return found[0]
