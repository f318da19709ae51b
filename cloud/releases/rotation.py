"""Making the first keys, and replacing one: what that takes, published in one transaction.

A key is replaced, never only removed, so that as many may be lost or stolen afterwards as before. A root that follows
is signed by the thresholds of both; all roots are kept, so that a vehicle that slept for years walks from the one it
knows to the newest. With a new key for timestamp or snapshot a vehicle forgets the versions that the old one signed,
however high (TUF 5.3.11): so an attacker's version 10^9 does not lock the fleet out.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from cloud.errors import ReleaseError
from cloud.releases import stored
from cloud.releases.image import Image
from cloud.releases.keys import DIRECTOR, IMAGE
from cloud.releases.roles import BINS, ROOT, RULES, Rule, rule_of
from cloud.releases.signing import Keys, first_root, next_root, publish_root, root_of

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
    for repository, of_roles in made.items():
        publish_root(connection, repository, first_root(repository, of_roles, now), None, keys)
    image = Image(connection, keys, now)
    image.begin(bins)
    image.publish()
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
) -> Change:
    """Put a new key in an old one's place.

    Args:
        keyid: of the old one, or how it begins; None: the one that is longest in its role.
        secret: encrypts the new one, if it is offline.
        is_stolen: the old one signs nothing any more, not even the root that removes it.

    Raises:
        ReleaseError: there is no such key, or keys that must sign are missing.
    """
    stored.lock(connection)
    rule = rule_of(repository, role)
    root = root_of(connection, repository)
    image = Image(connection, keys, now) if repository == IMAGE else None
    used = image.keyids() if image and role == BINS else root.roles[role].keyids
    old = _chosen(rule, used, keyid)
    new = _made(keys, rule, secret, place=list(used).index(old))
    published: list[str] = []
    if role != BINS:
        follower = next_root(root, repository, now)
        follower.revoke_key(old, role)
        follower.add_key(new, role)
        publish_root(connection, repository, follower, root, keys, without=[old] if is_stolen else [])
        published.append(ROOT)
    if image and role != ROOT:
        image = Image(connection, keys, now)  # by the new root
        if role == BINS:
            image.replace_bin_key(old, new)
        else:
            image.sign_anew(role)
        published += image.publish()
    return Change(repository, role, old, new.keyid, tuple(published))


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
