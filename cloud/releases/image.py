"""The image repository: which releases exist. Its keys are offline but for the timestamp's.

Targets lie in 16 hash bins, so that a vehicle reads one small file however many releases there are. Whoever changes
something publishes all of it in the caller's transaction: bins, then the snapshot, then the timestamp, or nothing.

Ref: TUF 1.0 (sections 4, 6), TAP 15.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

from sqlalchemy import Connection
from tuf.api.metadata import Delegations, Metadata, MetaFile, Snapshot, SuccinctRoles, TargetFile, Targets, Timestamp  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from cloud.releases import stored
from cloud.releases.keys import IMAGE
from cloud.releases.roles import BIN_BITS, BIN_PREFIX, BINS, SNAPSHOT, TARGETS, TIMESTAMP, rule_of
from cloud.releases.signing import Keys, check, read, root_of, signed

_HASH: Final = "sha256"


class Image:
    """The image repository, to be changed within one transaction; other publishers wait until it ends.

    Args:
        keys: those of the roles that change must be among them.
        now: UTC, from which on signatures count.

    Raises:
        ReleaseError: there is no repository.
    """

    def __init__(self, connection: Connection, keys: Keys, now: datetime.datetime) -> None:
        stored.lock(connection)
        self._connection = connection
        self._keys = keys
        self._now = now
        self._root = root_of(connection, IMAGE)
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
        name = self.bin_of(target.path)
        self._targets(name).targets[target.path] = target
        self._dirty.add(name)

    def remove(self, path: str) -> None:
        """Take a target away.

        Raises:
            ReleaseError: there is no such target.
        """
        name = self.bin_of(path)
        if self._targets(name).targets.pop(path, None) is None:
            raise ReleaseError(f"expected a target of the image repository, got {path}")
        self._dirty.add(name)

    def find(self, path: str) -> TargetFile | None:
        """A target."""
        return self._targets(self.bin_of(path)).targets.get(path)

    def bin_of(self, path: str) -> str:
        """Which bin a target is in."""
        return self._bins().get_role_for_target(path)

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

    def publish(self) -> list[str]:
        """Sign what changed, then the snapshot, then the timestamp.

        Returns:
            Names of the roles that have a new version.

        Raises:
            ReleaseError: keys are missing.
        """
        meta: dict[str, MetaFile] = {}
        for name in sorted(self._dirty, key=lambda name: (name != TARGETS, name)):
            targets = self._targets(name)
            targets.version = self._next_version(name)
            targets.expires = rule_of(IMAGE, TARGETS if name == TARGETS else BINS).expires(self._now)
            content = self._signed_targets(name, targets)
            stored.put(self._connection, IMAGE, name, targets.version, content)
            meta[f"{name}.json"] = MetaFile.from_data(targets.version, content, [_HASH])
        done = sorted(self._dirty)
        snapshot_meta = self._publish_snapshot(meta) if meta or self._is_new_snapshot else None
        done += [SNAPSHOT] if snapshot_meta else []
        self._publish_timestamp(snapshot_meta)
        self._dirty.clear()
        self._is_new_snapshot = False
        return [*done, TIMESTAMP]

    def expiries(self) -> dict[str, datetime.datetime]:
        """Until when each role's newest version counts; of the bins the earliest."""
        ends = {role: self._latest(role).expires for role in (TARGETS, SNAPSHOT, TIMESTAMP)}
        return ends | {BINS: min(self._latest(name).expires for name in self.bins())}

    def _publish_snapshot(self, meta: dict[str, MetaFile]) -> MetaFile:
        found = stored.latest(self._connection, IMAGE, SNAPSHOT)
        snapshot = Snapshot(meta={}) if found is None else read(found.content, IMAGE, SNAPSHOT).signed
        assert isinstance(snapshot, Snapshot)
        snapshot.meta.update(meta)
        snapshot.version = found.version + 1 if found else 1
        snapshot.expires = rule_of(IMAGE, SNAPSHOT).expires(self._now)
        content = self._signed(SNAPSHOT, snapshot)
        stored.put(self._connection, IMAGE, SNAPSHOT, snapshot.version, content)
        return MetaFile.from_data(snapshot.version, content, [_HASH])

    def _publish_timestamp(self, snapshot_meta: MetaFile | None) -> None:
        found = stored.latest(self._connection, IMAGE, TIMESTAMP)
        timestamp = Timestamp() if found is None else read(found.content, IMAGE, TIMESTAMP).signed
        assert isinstance(timestamp, Timestamp)
        timestamp.snapshot_meta = snapshot_meta or timestamp.snapshot_meta
        timestamp.version = found.version + 1 if found else 1
        timestamp.expires = rule_of(IMAGE, TIMESTAMP).expires(self._now)
        stored.put(self._connection, IMAGE, TIMESTAMP, timestamp.version, self._signed(TIMESTAMP, timestamp))

    def _signed(self, role: str, content: Any) -> bytes:
        of_role = self._root.roles[role]
        made = signed(content, self._keys.needed(IMAGE, role, of_role.keyids, of_role.threshold))
        check(self._root, IMAGE, role, made)
        return made

    def _signed_targets(self, name: str, targets: Targets) -> bytes:
        if name == TARGETS:
            return self._signed(TARGETS, targets)
        bins = self._bins()
        made = signed(targets, self._keys.needed(IMAGE, BINS, bins.keyids, bins.threshold))
        metadata = Metadata[Targets].from_bytes(made)
        self._targets(TARGETS).verify_delegate(name, metadata.signed_bytes, metadata.signatures)
        return made

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
            raise ReleaseError(f"expected {role} of the image repository, got none: its table is not whole")
        return read(found.content, IMAGE, role).signed
