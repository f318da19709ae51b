"""Whether the image repository signed a release: root to targets to the hash bin that names it, by python-tuf."""

from __future__ import annotations

from typing import Any, Final

from cloud.gates.candidate import Release
from cloud.gates.verdict import GateRefused

_SIGNED_BY_ROOT: Final = ("timestamp", "snapshot", "targets")


def check_signed(release: Release, sha256: str, length: int) -> None:
    """Refuse a release that the newest metadata do not name as the catalogue does.

    Expiry is not asked for: vehicles do, against the director's instant.

    Args:
        release: with its metadata.
        sha256, length: of the bundle's manifest, which is the target.

    Raises:
        GateRefused: what, expected, got.
    """
    from securesystemslib.exceptions import VerificationError
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    try:
        root: Metadata[Any] = Metadata.from_bytes(_content(release, "root"))
        root.verify_delegate("root", root)
        signed: dict[str, Metadata[Any]] = {
            role: Metadata.from_bytes(_content(release, role)) for role in _SIGNED_BY_ROOT
        }
        for role, metadata in signed.items():
            root.verify_delegate(role, metadata)
        targets = signed["targets"]
        path = str(release.row["path"])
        if targets.signed.delegations is None:
            raise GateRefused("image repository: expected targets that delegate to hash bins, got none")
        bins = [role for role, _ in targets.signed.delegations.get_roles_for_target(path)]
        if not bins:
            raise GateRefused(f"image repository: expected a hash bin of {path}, got none")
        bin_metadata: Metadata[Any] = Metadata.from_bytes(_content(release, bins[0]))
        targets.verify_delegate(bins[0], bin_metadata)
        snapshot = signed["snapshot"].signed
        versions = {"targets.json": targets.signed.version, f"{bins[0]}.json": bin_metadata.signed.version}
        for file, version in versions.items():
            if file not in snapshot.meta or snapshot.meta[file].version != version:
                raise GateRefused(f"image repository: expected {file} {version} in the snapshot, got another version")
        target = bin_metadata.signed.targets.get(path)
    except (RepositoryError, VerificationError, ValueError, KeyError, TypeError) as error:
        raise GateRefused(
            f"image repository: expected signed metadata, got {' '.join(str(error).split())[:160]}"
        ) from None
    if target is None:
        raise GateRefused(f"image repository: expected the target {path}, got none of that name")
    _compare(release, target, sha256, length)


def _compare(release: Release, target: Any, sha256: str, length: int) -> None:
    custom = target.unrecognized_fields.get("custom", {})
    row = release.row
    pairs = {
        "SHA-256": (target.hashes.get("sha256"), sha256),
        "length": (target.length, length),
        "bundle": (custom.get("bundle"), row["bundle_id"]),
        "counter": (custom.get("counter"), release.counter),
        "hardware": (sorted(custom.get("hardware", [])), sorted(row["hardware"])),
        "files": (_files(custom.get("files", [])), _files(row["files"])),
    }
    for what, (expected, got) in pairs.items():
        if expected != got:
            raise GateRefused(
                f"release {release.counter}: expected the signed {what} {expected!s:.60}, got {got!s:.60}"
            )


def _files(entries: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return sorted((str(entry["name"]), int(entry["length"]), str(entry["sha256"])) for entry in entries)


def _content(release: Release, role: str) -> bytes:
    if role not in release.metadata:
        raise GateRefused(f"image repository: expected metadata of {role}, got none")
    return release.metadata[role]
