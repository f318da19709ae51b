"""The image repository: which releases exist. Its keys are offline but for the timestamp's.

Targets lie in 16 hash bins, so that a vehicle reads one small file however many releases there are. Whoever changes
something gets drafts: new versions of bins and of the snapshot, to be signed by their keys and published together.

The snapshot names versions, without digests: a digest covers a file's signatures, so that the snapshot could only be
written once all others have signed, and its holder would have to come twice.

Ref: TUF 1.0 (sections 4, 6), TAP 15.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

from sqlalchemy import Connection
from tuf.api.metadata import Delegations, MetaFile, Snapshot, SuccinctRoles, TargetFile, Targets, Timestamp  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from cloud.releases import stored
from cloud.releases.keys import IMAGE
from cloud.releases.roles import BIN_BITS, BIN_PREFIX, BINS, SNAPSHOT, TARGETS, TIMESTAMP, Name, rule_of
from cloud.releases.signing import Keys, read, root_of, signed

_HASH: Final = "sha256"


class Image:
    """The image repository, to be changed within one transaction; other publishers wait until it ends.

    Args:
        now: UTC, from which on signatures count.
    """

    def __init__(self, connection: Connection, now: datetime.datetime) -> None:
        stored.lock(connection)
        self._connection = connection
        self._now = now
        self._open: dict[str, Targets] = {}
        self._dirty: set[str] = set()
        self._is_new_snapshot = False

    def begin(self, bin_keys: list[Any]) -> None:
        """Make the first, empty version of everything below the root."""
        delegated = SuccinctRoles([key.keyid for key in bin_keys], rule_of(IMAGE, BINS).threshold, BIN_BITS, BIN_PREFIX)
        delegations = Delegations({key.keyid: key for key in bin_keys}, succinct_roles=delegated)
        self._open[TARGETS] = Targets(delegations=delegations)
        self._dirty.add(TARGETS)
        for name in delegated.get_roles():
            self._open[name] = Targets()
            self._dirty.add(name)

    def put(self, target: TargetFile) -> None:
        """Add a target."""
        name = self._bins().get_role_for_target(target.path)
        self._targets(name).targets[target.path] = target
        self._dirty.add(name)

    def remove(self, path: str) -> None:
        """Take a target away.

        Raises:
            ReleaseError: there is no such target.
        """
        name = self._bins().get_role_for_target(path)
        if self._targets(name).targets.pop(path, None) is None:
            raise ReleaseError(f"expected a target of the image repository, got {path}")
        self._dirty.add(name)

    def bins(self) -> list[str]:
        """Names of the bins."""
        return list(self._bins().get_roles())

    def keyids(self) -> list[str]:
        """Of the bins' keys."""
        return list(self._bins().keyids)

    def replace_bin_key(self, old: str, new: Any) -> None:
        """Have bins signed by another key from now on."""
        targets = self._targets(TARGETS)
        targets.revoke_key(old)
        targets.add_key(new)
        self._dirty |= {TARGETS, *self.bins()}

    def sign_anew(self, role: str) -> None:
        """Give a role a new version with the same content: its end is near, or its keys changed."""
        if role == SNAPSHOT:
            self._is_new_snapshot = True
        elif role == BINS:
            self._dirty |= set(self.bins())
        elif role != TIMESTAMP:  # that one is new in any case
            self._dirty.add(role)

    def drafts(self) -> dict[Name, Any]:
        """New versions of what changed, and of the snapshot that names them."""
        made: dict[Name, Any] = {}
        meta: dict[str, MetaFile] = {}
        for role in sorted(self._dirty, key=lambda role: (role != TARGETS, role)):
            name = Name(IMAGE, role)
            targets = self._targets(role)
            targets.version = self._next_version(role)
            targets.expires = name.rule.expires(self._now)
            made[name] = targets
            meta[f"{role}.json"] = MetaFile(targets.version)
        if meta or self._is_new_snapshot:
            found = stored.latest(self._connection, IMAGE, SNAPSHOT)
            snapshot = Snapshot(meta={}) if found is None else read(found.content, IMAGE, SNAPSHOT).signed
            snapshot.meta.update(meta)
            snapshot.version = self._next_version(SNAPSHOT)
            snapshot.expires = rule_of(IMAGE, SNAPSHOT).expires(self._now)
            made[Name(IMAGE, SNAPSHOT)] = snapshot
        return made

    def expiries(self) -> dict[str, datetime.datetime]:
        """Until when each role's newest version counts; of the bins the earliest."""
        ends = {role: self._latest(role).expires for role in (TARGETS, SNAPSHOT, TIMESTAMP)}
        return ends | {BINS: min(self._latest(name).expires for name in self.bins())}

    def _bins(self) -> SuccinctRoles:
        delegations = self._targets(TARGETS).delegations
        assert delegations is not None and delegations.succinct_roles is not None
        return delegations.succinct_roles

    def _targets(self, name: str) -> Targets:
        if name not in self._open:
            targets = self._latest(name)
            assert isinstance(targets, Targets)
            self._open[name] = targets
        return self._open[name]

    def _next_version(self, role: str) -> int:
        found = stored.latest(self._connection, IMAGE, role)
        return found.version + 1 if found else 1

    def _latest(self, role: str) -> Any:
        found = stored.latest(self._connection, IMAGE, role)
        if found is None:
            root_of(self._connection, IMAGE)  # says what makes it, where there is no repository at all
            raise ReleaseError(f"expected {role} of the image repository, got none: its table is not whole")
        return read(found.content, IMAGE, role).signed


def publish_timestamp(connection: Connection, keys: Keys, now: datetime.datetime) -> None:
    """Sign a new timestamp of the newest snapshot, by the cloud's own key.

    Raises:
        ReleaseError: the key is not here.
    """
    role = root_of(connection, IMAGE).roles[TIMESTAMP]
    signers = keys.online.signers(IMAGE, TIMESTAMP, role.keyids)
    if len(signers) < role.threshold:
        places = ", ".join(map(str, keys.online.folders))
        raise ReleaseError(f"expected {role.threshold} of the keys of image timestamp in {places}, got {len(signers)}")
    snapshot, found = (stored.latest(connection, IMAGE, one) for one in (SNAPSHOT, TIMESTAMP))
    assert snapshot is not None  # published before, or with the root
    timestamp = Timestamp(
        version=found.version + 1 if found else 1,
        expires=rule_of(IMAGE, TIMESTAMP).expires(now),
        snapshot_meta=MetaFile.from_data(snapshot.version, snapshot.content, [_HASH]),
    )
    stored.put(connection, IMAGE, TIMESTAMP, timestamp.version, signed(timestamp, signers))
