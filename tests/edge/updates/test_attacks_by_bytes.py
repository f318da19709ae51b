"""Bytes that are no metadata, too many of them, or too deep; and metadata that is not what TUF says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .attack import Attack, Case, check, loosened, setting


def bytes_instead(field: str, content: bytes) -> Callable[[Case], None]:
    return lambda case: case.answer(lambda response: setattr(response, field, content))


def mirror_bytes(role: str, content: bytes) -> Callable[[Case], None]:
    def attack(case: Case) -> None:
        for name in [name for name, _ in case.cloud.image_files if name.startswith(role)]:
            case.cloud.damages[f"image {name}"] = lambda _: content
        case.cloud.publish()

    return attack


def timestamp_for_a_snapshot(case: Case) -> None:
    case.edit("director timestamp", lambda timestamp: loosened(timestamp.snapshot_meta))
    case.answer(lambda response: setattr(response, "director_snapshot", response.director_timestamp))


def deep_word(targets: Any) -> None:
    """Signed by the true keys: what is said of it must not fall over either."""
    value: Any = "deep"
    for _ in range(800):
        value = [value]
    targets.unrecognized_fields["roadfuse"]["vehicle"] = value


def deep(depth: int) -> bytes:
    """Deep enough to parse, perhaps, and too deep to be walked through."""
    nested = "[" * depth + "]" * depth
    signed = (
        '{"_type":"timestamp","version":99,"spec_version":"1.0.31","expires":"2030-01-01T00:00:00Z",'
        f'"meta":{{"snapshot.json":{{"version":99}}}},"deep":{nested}}}'
    )
    return f'{{"signatures":[],"signed":{signed}}}'.encode()


ATTACKS: dict[str, Attack] = {
    # Endless data, and bytes that are no metadata.
    "endless director timestamp": (bytes_instead("director_timestamp", b" " * (1 << 20)), "expected at most 16384 bytes"),  # noqa: E501
    "endless director snapshot": (bytes_instead("director_snapshot", b" " * (1 << 20)), "expected at most 262144 bytes"),  # noqa: E501
    "endless director targets": (bytes_instead("director_targets", b" " * (3 << 20)), "expected at most 2097152 bytes"),
    "endless image timestamp": (bytes_instead("image_timestamp", b" " * (1 << 20)), "expected at most 16384 bytes"),
    "endless image snapshot": (mirror_bytes("snapshot", b" " * (1 << 20)), "expected at most 262144 bytes"),
    "endless bin": (mirror_bytes("bin-", b" " * (3 << 20)), "expected at most 2097152 bytes"),
    "no bytes": (bytes_instead("director_timestamp", b""), "director timestamp: expected TUF metadata"),
    "bytes that are no text": (bytes_instead("director_timestamp", b"\xff\xfe\x00"), "expected TUF metadata"),
    "a number": (bytes_instead("director_timestamp", b"7"), "expected TUF metadata"),
    "JSON without end": (bytes_instead("director_timestamp", b"[" * 16_000), "expected TUF metadata"),
    "deep JSON": (bytes_instead("director_timestamp", deep(900)), "timestamp: expected (TUF metadata|signatures)"),
    "deep JSON, well signed": (
        lambda case: case.edit("director targets", deep_word), "director targets: (vehicle: )?expected"),
    "deeper JSON": (bytes_instead("director_timestamp", deep(7000)), "director timestamp: expected TUF metadata"),
    "one file for another": (timestamp_for_a_snapshot, "director snapshot: expected snapshot metadata, got timestamp"),
    "not a number": (bytes_instead("director_timestamp", b'{"signed":NaN}'), "expected TUF metadata"),
    "surrogates": (bytes_instead("director_timestamp", b'{"signed":{"_type":"\\ud800"}}'), "expected TUF metadata"),
    "digits without end": (bytes_instead("director_timestamp", b'{"signed":' + b"9" * 9000 + b"}"), "TUF metadata"),
    "wrong spec version": (
        lambda case: case.edit("director timestamp", setting("spec_version", "2.0.0")), "Unsupported spec_version"),
    "version zero": (lambda case: case.edit("director timestamp", setting("version", 0)), "version must be > 0"),
    "version that is true": (
        lambda case: case.edit("director timestamp", setting("version", True)), "expected a version"),
    "version in letters": (
        lambda case: case.edit("director timestamp", setting("version", "7")), "expected TUF metadata"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_changes_nothing_and_harms_nobody_later(name: str, tmp_path: Path) -> None:
    check(Case.at(tmp_path), *ATTACKS[name])
