"""Signatures end: who must sign anew, and when; what the cloud can do by itself, and what needs offline keys."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection

from cloud.errors import ReleaseError
from cloud.releases import stored
from cloud.releases.image import Image
from cloud.releases.keys import DIRECTOR, IMAGE
from cloud.releases.roles import BINS, ROOT, RULES, SNAPSHOT, TARGETS, TIMESTAMP, Rule, rule_of
from cloud.releases.signing import Keys, next_root, publish_root, read, root_of


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
    image = Image(connection, keys, now)
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
    """Sign anew whatever is past two thirds of its time, as far as the keys at hand allow.

    Without offline keys that is the timestamp alone, which is signed anew in any case.

    Args:
        everything: whatever its time; all offline keys must be there.

    Returns:
        Names of the roles that have a new version.

    Raises:
        ReleaseError: keys are missing.
    """
    stored.lock(connection)
    has_offline = bool(keys.offline.folders)
    if everything and not has_offline:
        raise ReleaseError("expected the offline keys (--keys) to sign everything anew, got none")
    done = []
    for repository in (IMAGE, DIRECTOR):
        root = root_of(connection, repository)
        if has_offline and (everything or is_due(rule_of(repository, ROOT), root.expires, now)):
            publish_root(connection, repository, next_root(root, repository, now), root, keys)
            done.append(f"{repository} {ROOT}")
    image = Image(connection, keys, now)
    ends = image.expiries()
    for role in (TARGETS, BINS, SNAPSHOT):
        if has_offline and (everything or is_due(rule_of(IMAGE, role), ends[role], now)):
            image.sign_anew(role)
    return [*done, *(f"{IMAGE} {name}" for name in image.publish())]


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
    Image(connection, keys, now).publish()
    return True
