"""The first gate: the bundle is whole, what was signed, and meant for machines that it can run on."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from cloud.gates.candidate import Candidate, Release
from cloud.gates.signed import check_signed
from cloud.gates.verdict import GateRefused
from edge.bundle import MANIFEST, Bundle
from edge.model_file import TARGETS, sha256_of

_INT8: Final = "int8"
_OF_THE_FILE: Final = "x86"  # an int8 engine's own file is the lowering for it
# A class is named after the lowering that it takes (trt-orin takes trt's), or after a machine that is known.
_FAMILY: Final = re.compile(r"[._-]")
_MACHINES: Final = {"orin": "trt", "thor": "trt", "jetson": "trt", "aarch64": "arm", "arm64": "arm", "amd64": "x86"}


def whole(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Digests, keys and names; a release's files and signatures; a lowering for each class of hardware.

    Raises:
        GateRefused, BundleError: what, expected, got.
    """
    bundle, current = candidate.bundle, candidate.current.bundle
    files = named_files(bundle)
    strays = sorted(path.name for path in candidate.folder.iterdir() if path.name not in files)
    if strays:
        raise GateRefused(f"{candidate.folder}: expected the files that the manifest names, got {strays[0][:80]!r} too")
    size = sum((candidate.folder / name).stat().st_size for name in files)
    if size > candidate.policy.most_bytes:
        raise GateRefused(f"{candidate.folder}: expected at most {candidate.policy.most_bytes} bytes, got {size}")
    if bundle.name != current.name:
        raise GateRefused(f"name: expected {current.name!r}, got {bundle.name[:80]!r}")
    missing = sorted(set(current.engines) - set(bundle.engines))
    if missing:
        raise GateRefused(f"engines: expected {', '.join(current.engines)}, got no {missing[0]}")
    _check_hardware(candidate, bundle)
    if candidate.release is not None:
        _check_release(candidate, bundle, candidate.release)
    released = (
        "signature skipped: not released"
        if candidate.release is None
        else f"release {candidate.release.counter}, signed"
    )
    detail = {"bundle": bundle.id, "files": len(files), "bytes": size, "released": released}
    return f"{len(files)} files, {size} bytes; {released}", detail


def named_files(bundle: Bundle) -> set[str]:
    """All files of a bundle's folder that its manifest names, itself included."""
    names = {MANIFEST}
    for spec in bundle.engines.values():
        names |= {spec.file.path.name, *(file.path.name for file in spec.lowerings.values())}
    return names | ({bundle.golden.path.name} if bundle.golden else set())


def _check_hardware(candidate: Candidate, bundle: Bundle) -> None:
    if not candidate.hardware:
        raise GateRefused(f"hardware: expected classes of {', '.join(TARGETS)}, got none")
    for hardware in candidate.hardware:
        family = _FAMILY.split(hardware)[0]
        family = _MACHINES.get(family, family)
        if family not in TARGETS:
            raise GateRefused(
                f"hardware: expected classes of {', '.join((*TARGETS, *_MACHINES))}, got {hardware[:40]!r}"
            )
        for name, spec in bundle.engines.items():
            if spec.precision == _INT8 and family != _OF_THE_FILE and family not in spec.lowerings:
                raise GateRefused(
                    f"{name}: expected a lowering for {family}, got {', '.join(spec.lowerings) or 'none'}"
                )


def _check_release(candidate: Candidate, bundle: Bundle, release: Release) -> None:
    row = release.row
    if row.get("revoked_at") is not None:
        raise GateRefused(f"release {release.counter}: expected one that stands, got one revoked: {row['revoked_why']}")
    said = {"bundle_id": bundle.id, "version": bundle.version}
    for key, got in said.items():
        if row[key] != got:
            raise GateRefused(f"release {release.counter}: expected {key} {row[key]!r}, got {got!r}")
    there = {name: candidate.folder / name for name in named_files(bundle)}
    if sorted(entry["name"] for entry in row["files"]) != sorted(there):
        raise GateRefused(
            f"release {release.counter}: expected the files {sorted(there)}, "
            f"got {sorted(entry['name'] for entry in row['files'])}"
        )
    for entry in row["files"]:
        digest, length = sha256_of(there[entry["name"]]), there[entry["name"]].stat().st_size
        if (entry["sha256"], entry["length"]) != (digest, length):
            raise GateRefused(
                f"{entry['name']}: expected SHA-256 {entry['sha256'][:16]} and {entry['length']} bytes, "
                f"got {digest[:16]} and {length}"
            )
    manifest = (candidate.folder / MANIFEST).read_bytes()
    check_signed(release, hashlib.sha256(manifest).hexdigest(), len(manifest))
