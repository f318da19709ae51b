"""What signed targets say: the director's word for one vehicle, and what either repository claims of a release."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from tuf.api.metadata import TargetFile as TufTarget  # type: ignore[attr-defined]
from tuf.api.metadata import Targets  # type: ignore[attr-defined]

from edge.bundle import MANIFEST
from edge.errors import UpdateError
from edge.updates.assignment import Release, TargetFile
from edge.updates.metadata import told
from edge.updates.rules import MOST_STOPPED
from roadfuse.v1.updates_pb2 import Mode

_T = TypeVar("_T")
_HEX_64: Final = re.compile(r"[0-9a-f]{64}")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
# NAME/COUNTER/manifest.json
_PATH: Final = re.compile(rf"([^/\x00-\x1f\x7f]{{1,200}})/([1-9][0-9]{{0,17}})/{re.escape(MANIFEST)}")
_INSTANT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)")
_MOST_NONCE: Final = 64
_MOST_TEXT: Final = 256
_MOST_HARDWARE: Final = 64
_MOST_COUNT: Final = 1 << 53
_FIRST_YEAR: Final = 1971
_LAST_YEAR: Final = 2261  # ns since 1970 fit into 63 bits
# A bundle is some tens of megabytes.
_MOST_FILES: Final = 256
_MOST_FILE_BYTES: Final = 1 << 30
_MOST_BUNDLE_BYTES: Final = 2 << 30
_MOST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Word:
    """What the director says to one vehicle, for one check-in.

    Attributes:
        target: what the vehicle should run; None: no other than it does.
        now_ns: UTC.
    """

    vehicle: str
    nonce: bytes
    now_ns: int
    mode: int
    rollout: str
    stop_number: int
    stopped: frozenset[str]
    next_contact_s: float
    target: TufTarget | None

    @property
    def now(self) -> datetime:
        """For expiry: whole seconds."""
        return datetime.fromtimestamp(self.now_ns // 1_000_000_000, timezone.utc)

    @staticmethod
    def of(targets: Targets) -> Word:
        """From the director's targets.

        Raises:
            UpdateError: they say something else.
        """
        if targets.delegations is not None:
            raise UpdateError("director targets: expected no delegations, got some")
        if len(targets.targets) > 1:
            raise UpdateError(f"director targets: expected at most one target, got {len(targets.targets)}")
        target = next(iter(targets.targets.values()), None)
        values = targets.unrecognized_fields.get("roadfuse")
        if not isinstance(values, dict):
            raise UpdateError(f"director targets: expected an object roadfuse, got {told(values)}")

        def value(name: str, read: Callable[[Any], _T]) -> _T:
            return _read(values.get(name), read, f"director targets: {name}")

        mode = value("mode", _count)
        if mode not in Mode.values() or (target is not None and mode == Mode.MODE_UNSPECIFIED):
            raise UpdateError(f"director targets: expected a mode of 1 or 2 for a target, got {mode}")
        return Word(
            vehicle=value("vehicle", _text),
            nonce=value("nonce", _nonce),
            now_ns=value("now", _instant_ns),
            mode=mode,
            rollout=value("rollout", _text),
            stop_number=value("stop_number", _count),
            stopped=value("stopped", _stopped),
            next_contact_s=value("next_contact_s", _seconds),
            target=target,
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """What one repository says of a release."""

    path: str
    length: int
    hashes: dict[str, str]
    bundle: str
    counter: int
    hardware: frozenset[str]

    @staticmethod
    def of(target: TufTarget, what: str) -> Claim:
        """From a target.

        Raises:
            UpdateError: it claims something else.
        """
        found = _PATH.fullmatch(target.path)
        if found is None or found[1] in (".", ".."):
            raise UpdateError(f"{what}: expected a target NAME/COUNTER/{MANIFEST}, got {told(target.path)}")
        custom = target.custom
        if not isinstance(custom, dict):
            raise UpdateError(f"{what}: expected custom fields of {told(target.path)}, got {told(custom)}")
        length = _read(target.length, _count, f"{what}: length")
        bundle = _read(custom.get("bundle"), _digest, f"{what}: bundle")
        if target.hashes.get("sha256") != bundle:
            got = told(target.hashes.get("sha256"))
            raise UpdateError(f"{what}: expected a manifest whose SHA-256 is the bundle's id {bundle[:12]}, got {got}")
        counter = _read(custom.get("counter"), _count, f"{what}: counter")
        if counter != int(found[2]):
            raise UpdateError(f"{what}: expected the counter of its path, {found[2]}, got {counter}")
        hardware = _read(custom.get("hardware"), _hardware, f"{what}: hardware")
        return Claim(target.path, length, dict(target.hashes), bundle, counter, hardware)


def agreed(director: Claim, image: Claim, image_target: TufTarget, hardware: str, floor: int) -> Release:
    """The release that both repositories mean, where this vehicle may have it.

    Args:
        hardware: class of this vehicle.
        floor: the highest counter that it ever accepted.

    Raises:
        UpdateError: they disagree, or it is not for this vehicle.
    """
    for what in ("path", "length", "hashes", "bundle", "counter"):
        says, other = getattr(director, what), getattr(image, what)
        if says != other:
            raise UpdateError(f"release: expected one {what} of both repositories, got {told(says)} and {told(other)}")
    for name, claim in (("director", director), ("image", image)):
        if hardware not in claim.hardware:
            classes = told(", ".join(sorted(claim.hardware)))
            raise UpdateError(
                f"release: expected one for {hardware}, got one for {classes}, says the {name} repository"
            )
    if director.counter < floor:
        raise UpdateError(f"release: expected a counter of at least {floor}, got {director.counter}: a rollback")
    files = _files(image_target.custom.get("files"), image)
    return Release(director.path, director.bundle, director.counter, tuple(sorted(image.hardware)), files)


def _files(value: Any, claim: Claim) -> tuple[TargetFile, ...]:
    """Of the bundle, its manifest first."""
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_FILES:
        raise UpdateError(f"release: expected 1..{_MOST_FILES} files, got {told(value)}")
    files: dict[str, TargetFile] = {}
    for entry in value:
        file = _read(entry, _file, "release: file")
        if file.name in files:
            raise UpdateError(f"release: expected each file once, got {told(file.name)} twice")
        files[file.name] = file
    if files.get(MANIFEST) != TargetFile(MANIFEST, claim.length, bytes.fromhex(claim.bundle)):
        raise UpdateError(f"release: expected the {MANIFEST} that is its target among its files, got another or none")
    total = sum(file.length for file in files.values())
    if total > _MOST_BUNDLE_BYTES:
        raise UpdateError(f"release: expected at most {_MOST_BUNDLE_BYTES} bytes in all, got {total}")
    return (files.pop(MANIFEST), *files.values())


def _read(value: Any, read: Callable[[Any], _T], what: str) -> _T:
    try:
        return read(value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UpdateError(f"{what}: {told(error)}") from None


def _file(value: Any) -> TargetFile:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {told(value)}")
    name, length, digest = _text(value["name"]), _count(value["length"]), _digest(value["sha256"])
    is_plain = 1 <= len(name) <= _MOST_NAME and name.isprintable() and PurePosixPath(name).name == name
    if not is_plain or "\\" in name or name.startswith("."):
        raise ValueError(f"expected a file name inside the bundle, got {told(name)!r}")
    if length > _MOST_FILE_BYTES:
        raise ValueError(f"expected at most {_MOST_FILE_BYTES} bytes, got {length}")
    return TargetFile(name, length, bytes.fromhex(digest))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise ValueError(f"expected at most {_MOST_TEXT} characters, got {told(value)}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise ValueError(f"expected a whole number of at least 0, got {told(value)}")
    return value


def _seconds(value: Any) -> float:
    # Whole: canonical JSON, which is what is signed, has no fractions.
    return float(_count(value))


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _HEX_64.fullmatch(value):
        raise ValueError(f"expected a SHA-256 in hexadecimal, got {told(value)}")
    return value


def _nonce(value: Any) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * _MOST_NONCE or not _HEX.fullmatch(value):
        raise ValueError(f"expected at most {_MOST_NONCE} bytes in hexadecimal, got {told(value)}")
    return bytes.fromhex(value)


def _instant_ns(value: Any) -> int:
    found = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected an instant in UTC (RFC 3339), got {told(value)}")
    instant = datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S")
    if not _FIRST_YEAR <= instant.year <= _LAST_YEAR:
        raise ValueError(f"expected a year of {_FIRST_YEAR}..{_LAST_YEAR}, got {instant.year}")
    return calendar.timegm(instant.timetuple()) * 1_000_000_000 + int((found[2] or "0").ljust(9, "0"))


def _stopped(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > MOST_STOPPED:
        raise ValueError(f"expected at most {MOST_STOPPED} bundles, got {told(value)}")
    return frozenset(map(_digest, value))


def _hardware(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_HARDWARE:
        raise ValueError(f"expected 1..{_MOST_HARDWARE} classes, got {told(value)}")
    return frozenset(map(_text, value))
