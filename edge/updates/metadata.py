"""TUF metadata as a vehicle believes it: bounded before it is parsed, signed by enough keys, which differ.

Rules without I/O, on python-tuf's public classes. Whatever the bytes are, what is raised is UpdateError. Versions that
were seen are names of files in a snapshot ("targets.json"), and "timestamp" and "snapshot".

Ref: The Update Framework specification 1.0.33, section 5; TAP 15 (succinct hash bins).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from securesystemslib.signer import Key  # type: ignore[attr-defined]
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError, SerializationError

from edge.errors import UpdateError

# What honest metadata takes, many times over; a longer one is not parsed.
MOST_BYTES: Final[dict[type, int]] = {Root: 256 << 10, Timestamp: 16 << 10, Snapshot: 256 << 10, Targets: 2 << 20}
# The only kind of key that both repositories make; python-tuf would take others, of which one key has many spellings.
_KEY: Final = ("ed25519", "ed25519")
_KEY_BYTES: Final = 32
# Files that a snapshot may name: 16 bins now, and room to grow; all are remembered.
_MOST_FILES: Final = 4096
_MOST_VERSION: Final = 1 << 53
_MOST_TOLD: Final = 120

Read = Callable[[str, int], bytes]


@dataclass(frozen=True, slots=True)
class Top:
    """A repository's own roles, signed and in order; whether they are expired is asked apart (`check_fresh`).

    Attributes:
        versions: that are seen now.
    """

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    versions: dict[str, int]


def told(value: object) -> str:
    """Something that came from outside, short and in one line."""
    try:
        return " ".join(str(value).split())[:_MOST_TOLD]
    except RecursionError:
        return f"a {type(value).__name__} too deep to be told"


def trusted_root(raw: bytes, what: str) -> Root:
    """A root that is believed for where it lies; it must at least hold together.

    Raises:
        UpdateError: it does not.
    """
    metadata = _opened(raw, Root, what)
    root: Root = metadata.signed
    _check_signed(root, "root", metadata, what)
    return root


def next_root(previous: Root, raw: bytes, what: str) -> Root:
    """The root that follows another one: by one version, and signed by the keys of both.

    Raises:
        UpdateError: it does not follow.
    """
    metadata = _opened(raw, Root, what)
    root: Root = metadata.signed
    if root.version != previous.version + 1:
        raise UpdateError(f"{what}: expected version {previous.version + 1}, got {root.version}")
    _check_signed(previous, "root", metadata, f"{what} version {root.version}, by the keys of the one before")
    _check_signed(root, "root", metadata, f"{what} version {root.version}, by its own keys")
    return root


def replaced(old: Root, new: Root) -> frozenset[str]:
    """Roles that lost a key: what was signed by them may have been a thief's, such as a version that is far ahead."""
    return frozenset(role for role in old.roles if not _keys_of(old, role) <= _keys_of(new, role))


def top(what: str, root: Root, seen: Mapping[str, int], timestamp_raw: bytes, read: Read) -> Top:
    """Verify a repository's timestamp, snapshot and targets.

    Args:
        what: names the repository in errors.
        seen: versions; none may go back, and no file may vanish.
        read: gives the metadata of a role in a version.

    Raises:
        UpdateError: they are refused.
    """
    timestamp = _signed(root, "timestamp", timestamp_raw, Timestamp, f"{what} timestamp")
    _check_not_below(timestamp.version, seen.get("timestamp", 0), f"{what} timestamp")
    meta = timestamp.snapshot_meta
    _check_not_below(_version(meta, f"{what} snapshot"), seen.get("snapshot", 0), f"{what} snapshot")
    raw = read("snapshot", meta.version)
    snapshot = _named(root, "snapshot", raw, meta, Snapshot, f"{what} snapshot")
    versions = _versions(snapshot, what)
    for name, least in seen.items():
        if name in ("timestamp", "snapshot"):
            continue
        if name not in versions:
            raise UpdateError(f"{what} snapshot: expected {told(name)}, which was there before, got none")
        _check_not_below(versions[name], least, f"{what} {told(name)}")
    if "targets.json" not in versions:
        raise UpdateError(f"{what} snapshot: expected targets.json, got none")
    targets_meta = snapshot.meta["targets.json"]
    raw = read("targets", targets_meta.version)
    targets = _named(root, "targets", raw, targets_meta, Targets, f"{what} targets")
    versions |= {"timestamp": timestamp.version, "snapshot": snapshot.version}
    return Top(root, timestamp, snapshot, targets, versions)


def in_bin(what: str, verified: Top, path: str, read: Read) -> tuple[Targets, TargetFile]:
    """The bin that a target lies in, and the target.

    Raises:
        UpdateError: it is refused, or has no such target.
    """
    delegations = verified.targets.delegations
    if delegations is None or not isinstance(delegations.succinct_roles, SuccinctRoles):
        raise UpdateError(f"{what} targets: expected hash bins, got none")
    role = delegations.succinct_roles.get_role_for_target(path)
    meta = verified.snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise UpdateError(f"{what} snapshot: expected {told(role)}.json, got none")
    targets = _named(verified.targets, role, read(role, meta.version), meta, Targets, f"{what} {told(role)}")
    if targets.delegations is not None:
        raise UpdateError(f"{what} {told(role)}: expected a bin that delegates to nobody, got one that does")
    if path not in targets.targets:
        raise UpdateError(f"{what} repository: expected {told(path)}, got no such target")
    return targets, targets.targets[path]


def check_fresh(verified: Top, now: datetime, what: str) -> None:
    """Refuse what is expired.

    Raises:
        UpdateError: a role is expired.
    """
    for signed in (verified.root, verified.timestamp, verified.snapshot, verified.targets):
        check_not_expired(signed, now, f"{what} {signed.type}")


def check_not_expired(signed: Any, now: datetime, what: str) -> None:
    """Refuse one role that is expired.

    Raises:
        UpdateError: it is.
    """
    if signed.is_expired(now):
        raise UpdateError(f"{what}: expected one that is valid at {now:%Y-%m-%dT%H:%M:%SZ}, got {signed.expires}")


class _Opened(NamedTuple):
    """Metadata of the kind that was expected; nobody's yet.

    Attributes:
        payload: what signatures are over.
    """

    signed: Any
    payload: bytes
    signatures: dict[str, Any]


def _signed(delegator: Root | Targets, role: str, raw: bytes, kind: type, what: str) -> Any:
    metadata = _opened(raw, kind, what)
    _check_signed(delegator, role, metadata, what)
    return metadata.signed


def _named(delegator: Root | Targets, role: str, raw: bytes, meta: MetaFile, kind: type, what: str) -> Any:
    """Metadata that another one names with its version, and with length and digests where it has them."""
    _check_length(raw, kind, what)
    try:
        meta.verify_length_and_hashes(raw)
    except RepositoryError as error:
        raise UpdateError(f"{what}: expected the file that was named: {told(error)}") from None
    signed = _signed(delegator, role, raw, kind, what)
    if signed.version != meta.version:
        raise UpdateError(f"{what}: expected version {meta.version}, got {signed.version}")
    return signed


def _opened(raw: bytes, kind: type, what: str) -> _Opened:
    _check_length(raw, kind, what)
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
        payload = metadata.signed_bytes
    except (DeserializationError, SerializationError) as error:
        raise UpdateError(f"{what}: expected TUF metadata, got {told(error.__cause__ or error)}") from None
    signed = metadata.signed
    version: Any = signed.version
    if not isinstance(signed, kind):
        raise UpdateError(f"{what}: expected {kind.__name__.lower()} metadata, got {signed.type}")
    if type(version) is not int or version > _MOST_VERSION:
        raise UpdateError(f"{what}: expected a version of at most {_MOST_VERSION}, got {told(version)}")
    if isinstance(signed, Root):
        _check_keys(signed.keys, what)
    elif isinstance(signed, Targets) and signed.delegations is not None:
        _check_keys(signed.delegations.keys, what)
    return _Opened(signed, payload, metadata.signatures)


def _check_length(raw: bytes, kind: type, what: str) -> None:
    if len(raw) > MOST_BYTES[kind]:
        raise UpdateError(f"{what}: expected at most {MOST_BYTES[kind]} bytes, got {len(raw)}")


def _check_keys(keys: Mapping[str, Key], what: str) -> None:
    for key in keys.values():
        if (key.keytype, key.scheme) != _KEY:
            raise UpdateError(f"{what}: expected ed25519 keys, got {told(key.keytype)}/{told(key.scheme)}")
        try:
            is_whole = len(bytes.fromhex(key.keyval["public"])) == _KEY_BYTES
        except ValueError:
            is_whole = False
        if not is_whole:
            raise UpdateError(f"{what}: expected ed25519 keys of {_KEY_BYTES} bytes, got {told(key.keyval)}")


def _check_signed(delegator: Root | Targets, role: str, metadata: _Opened, what: str) -> None:
    """By as many keys as the role asks for; one key under two names is one."""
    try:
        result = delegator.get_verification_result(role, metadata.payload, metadata.signatures)
    except ValueError as error:
        raise UpdateError(f"{what}: expected a role that is delegated, got {told(error)}") from None
    keys = {bytes.fromhex(key.keyval["public"]) for key in result.signed.values()}
    if len(keys) < result.threshold:
        raise UpdateError(f"{what}: expected signatures by {result.threshold} keys, got {len(keys)}")


def _check_not_below(version: int, least: int, what: str) -> None:
    if version < least:
        raise UpdateError(f"{what}: expected at least version {least}, which was seen before, got {version}")


def _version(meta: MetaFile, what: str) -> int:
    if type(meta.version) is not int or meta.version > _MOST_VERSION:
        raise UpdateError(f"{what}: expected a version of at most {_MOST_VERSION}, got {told(meta.version)}")
    return meta.version


def _versions(snapshot: Snapshot, what: str) -> dict[str, int]:
    if len(snapshot.meta) > _MOST_FILES:
        raise UpdateError(f"{what} snapshot: expected at most {_MOST_FILES} files, got {len(snapshot.meta)}")
    return {name: _version(meta, f"{what} {told(name)}") for name, meta in snapshot.meta.items()}


def _keys_of(root: Root, role: str) -> set[bytes]:
    return {bytes.fromhex(root.keys[key].keyval["public"]) for key in root.roles[role].keyids if key in root.keys}
