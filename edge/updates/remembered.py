"""What a vehicle remembers of both repositories, so that nothing that it saw can be taken back."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from edge.errors import UpdateError

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Known:
    """Of one repository.

    Attributes:
        factory: SHA-256 of the root that came with the vehicle, which all that follows descends from.
        root: the newest one, as it was signed.
        versions: the highest of each role.
    """

    factory: bytes
    root: bytes
    versions: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def at(factory_root: bytes) -> Known:
        """Nothing but the root that came with the vehicle."""
        return Known(hashlib.sha256(factory_root).digest(), factory_root)


@dataclass(frozen=True, slots=True)
class Remembered:
    """Of both.

    Attributes:
        now_ns: the latest time that the director signed, UTC; 0 where it signed none.
        stop_number: of the last stop notice.
    """

    director: Known
    image: Known
    now_ns: int = 0
    stop_number: int = 0

    def to_bytes(self) -> bytes:
        """As JSON."""
        values = {
            "format": _FORMAT,
            "director": _to_dict(self.director),
            "image": _to_dict(self.image),
            "now_ns": self.now_ns,
            "stop_number": self.stop_number,
        }
        return json.dumps(values, sort_keys=True).encode()

    @staticmethod
    def of(content: bytes) -> Remembered:
        """From JSON.

        Raises:
            UpdateError: it is none of ours.
        """
        try:
            values = json.loads(content)
            if values["format"] != _FORMAT:
                raise ValueError(f"expected format {_FORMAT}, got {values['format']!r}")
            return Remembered(
                director=_known(values["director"]),
                image=_known(values["image"]),
                now_ns=_count(values["now_ns"]),
                stop_number=_count(values["stop_number"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UpdateError(f"trust: expected what was remembered, got {str(error)[:100]!r}") from None


def _to_dict(known: Known) -> dict[str, Any]:
    return {
        "factory": known.factory.hex(),
        "root": base64.b64encode(known.root).decode(),
        "versions": known.versions,
    }


def _known(value: Any) -> Known:
    versions = {str(name): _count(version) for name, version in value["versions"].items()}
    return Known(bytes.fromhex(value["factory"]), base64.b64decode(value["root"], validate=True), versions)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number of at least 0, got {str(value)[:40]}")
    return value
