"""Signatures end: who must sign anew, and when; what the cloud can do by itself, and what needs offline keys."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from cloud.errors import ReleaseError
from cloud.releases import ceremony, stored
from cloud.releases.image import Image, publish_timestamp
from cloud.releases.keys import DIRECTOR, IMAGE
from cloud.releases.roles import BINS, ROOT, RULES, SNAPSHOT, TARGETS, TIMESTAMP, Name, Rule, rule_of
from cloud.releases.signing import Keys, next_root, read, root_of


@dataclass(frozen=True, slots=True)
class Term:
    """Until when a role's newest version counts.

    Attributes:
        keys: id -> file; None: none of the folders that were given has it.
        expires: None: it is signed for each call.
    """

    rule: Rule
    version: int
    keys: dict[str, str | None]
    threshold: int
    expires: datetime.datetime | None

    def state(self, now: datetime.datetime) -> str:
        """fine, ends soon or ended."""
        if self.expires is None or self.expires - now > datetime.timedelta(days=self.rule.warn_days):
            return "fine"
        return "ends soon" if self.expires > now else "ended"


def calendar(connection: Connection, keys: Keys, now: datetime.datetime) -> list[Term]:
    """All roles, with their keys and ends.

    Raises:
        ReleaseError: there are no repositories.
    """
    roots = {repository: root_of(connection, repository) for repository in (IMAGE, DIRECTOR)}
    image = Image(connection, now)
    ends = image.expiries()
    terms = []
    for rule in RULES.values():
        root = roots[rule.repository]
        role = None if rule.role == BINS else root.roles[rule.role]
        keyids = image.keyids() if role is None else role.keyids
        files = {keyid: keys.find(rule.repository, rule.role, keyid) for keyid in keyids}
        if rule.role == ROOT:
            version, expires = root.version, root.expires
        elif rule.repository == DIRECTOR:
            version, expires = 0, None
        else:
            found = stored.latest(connection, IMAGE, image.bins()[0] if rule.role == BINS else rule.role)
            version, expires = found.version if found else 0, ends[rule.role]
        terms.append(
            Term(
                rule,
                version,
                {keyid: None if path is None else str(path) for keyid, path in files.items()},
                rule.threshold if role is None else role.threshold,
                expires,
            )
        )
    return terms


def refresh(connection: Connection, keys: Keys, now: datetime.datetime, *, everything: bool = False) -> list[str]:
    """Sign anew whatever is past two thirds of its time, with all keys at hand.

    Without offline keys that is the timestamp alone, which is signed anew in any case.

    Args:
        everything: whatever its time; all offline keys must be there.

    Returns:
        Names of the roles that have a new version.

    Raises:
        ReleaseError: keys are missing.
    """
    stored.lock(connection)
    if everything and not keys.offline.folders:
        raise ReleaseError("expected the offline keys (--keys) to sign everything anew, got none")
    drafts = due(connection, now, everything=everything) if keys.offline.folders else {}
    published: list[Name] = []
    if drafts:
        request = ceremony.propose(connection, drafts, now)
        ceremony.sign(request, keys.offline)
        published = ceremony.publish(connection, request, keys, now)
    timestamp = Name(IMAGE, TIMESTAMP)
    if timestamp not in published:
        publish_timestamp(connection, keys, now)
        published.append(timestamp)
    return [str(name) for name in published]


def due(connection: Connection, now: datetime.datetime, *, everything: bool = False) -> dict[Name, Any]:
    """Drafts of what is past two thirds of its time and needs offline keys.

    Args:
        everything: whatever its time.

    Raises:
        ReleaseError: there are no repositories.
    """
    drafts: dict[Name, Any] = {}
    image = Image(connection, now)
    for repository in (IMAGE, DIRECTOR):
        root = root_of(connection, repository)
        if everything or is_due(rule_of(repository, ROOT), root.expires, now):
            drafts[Name(repository, ROOT)] = next_root(root, repository, now)
    ends = image.expiries()
    for role in (TARGETS, BINS, SNAPSHOT):
        if everything or is_due(rule_of(IMAGE, role), ends[role], now):
            image.sign_anew(role)
    return drafts | image.drafts()


def is_due(rule: Rule, expires: datetime.datetime, now: datetime.datetime) -> bool:
    """Whether a signature has spent two thirds of its time."""
    return expires - now < datetime.timedelta(days=rule.days) / 3


def keep_fresh(connection: Connection, keys: Keys, now: datetime.datetime) -> bool:
    """Sign the image repository's timestamp anew when that is due; by the cloud itself, with its online key.

    Returns:
        Whether it was.
    """
    found = stored.latest(connection, IMAGE, TIMESTAMP)
    if found is None or not is_due(
        rule_of(IMAGE, TIMESTAMP), read(found.content, IMAGE, TIMESTAMP).signed.expires, now
    ):
        return False
    root = root_of(connection, IMAGE).roles[TIMESTAMP]
    if len(keys.online.signers(IMAGE, TIMESTAMP, root.keyids)) < root.threshold:
        return False
    stored.lock(connection)
    publish_timestamp(connection, keys, now)
    return True
