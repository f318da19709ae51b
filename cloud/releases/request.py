"""A request for signatures: drafts of metadata, and what they follow, in one file that travels between key holders.

    {"request": "roadfuse 1",
     "made": "2026-11-22T00:40:00Z",
     "words": [...],                    what the drafts change; for reading, and refused where it is not so
     "said": {"version", "notes", "why"},  the catalogue's words for people; nobody signs them
     "revoked": [...],                  ids of keys that must not sign any more
     "roots": {"image": [...]},         all of them, the first one first
     "before": {"image bin-3": {...}},  signed metadata that the drafts follow
     "drafts": {"image bin-3": {...}}}  as it will be published, with the signatures so far

What comes from a file is only read here, strictly; whether it makes sense says `review`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from tuf.api.metadata import Metadata, Root, Snapshot, Targets  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from cloud.releases.roles import ROOT, SNAPSHOT, Name
from cloud.releases.signing import read
from edge.updates.metadata import MOST_BYTES as MOST_METADATA_BYTES

KIND: Final = "roadfuse 1"
MOST_BYTES: Final = 16 << 20  # sixteen bins of some hundred releases each, before and after
MOST_TEXT: Final = 2_000
MOST_LEVELS: Final = 32
_FIELDS: Final = ("request", "made", "words", "said", "revoked", "roots", "before", "drafts")
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Said:
    """What people wrote, for the catalogue and not for vehicles: it is not signed.

    Attributes:
        version: of the bundle that is released.
        why: a release is taken back.
    """

    version: str = ""
    notes: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Drafts that wait for signatures.

    Attributes:
        made: UTC, whole seconds.
        roots: repository -> all roots; none where the drafts hold the first one.
        drafts: in the order in which they are published.
    """

    made: datetime.datetime
    roots: dict[str, list[Metadata[Any]]]
    before: dict[Name, Metadata[Any]]
    drafts: dict[Name, Metadata[Any]]
    said: Said = Said()
    revoked: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def standing(self) -> dict[Name, Any]:
        """What counts without the drafts."""
        newest = {Name(repository, ROOT): roots[-1] for repository, roots in self.roots.items()}
        return {name: metadata.signed for name, metadata in (newest | self.before).items()}

    def to_bytes(self) -> bytes:
        """As a file, indented for people."""
        value = {
            "request": KIND,
            "made": self.made.strftime(_TIME),
            "words": list(self.words),
            "said": asdict(self.said),
            "revoked": list(self.revoked),
            "roots": {repository: [root.to_dict() for root in roots] for repository, roots in self.roots.items()},
            "before": {str(name): metadata.to_dict() for name, metadata in self.before.items()},
            "drafts": {str(name): metadata.to_dict() for name, metadata in self.drafts.items()},
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    @staticmethod
    def of(content: bytes) -> Request:
        """From a file.

        Raises:
            ReleaseError: it is too long, or not exactly of this form.
        """
        if len(content) > MOST_BYTES:
            raise ReleaseError(f"expected a request of at most {MOST_BYTES} bytes, got {len(content)}")
        try:
            value = json.loads(content, object_pairs_hook=_object, parse_constant=_refused, parse_float=_refused)
            is_plain = all(text.replace("\n", " ").isprintable() for text in _texts_in(value))
        except (ValueError, RecursionError) as error:
            raise ReleaseError(f"expected a request as --propose writes it, got: {error}") from None
        if not is_plain:
            raise ReleaseError("expected printable text, got signs that a terminal may take for more")
        if not isinstance(value, dict) or set(value) != set(_FIELDS) or value["request"] != KIND:
            raise ReleaseError(f"expected a request with {', '.join(_FIELDS)} of {KIND}, got another form")
        said = _texts(value["said"], "said")
        if set(said) != {"version", "notes", "why"}:
            raise ReleaseError("said: expected version, notes and why, got others")
        return Request(
            made=_instant(value["made"]),
            roots={
                repository: [_metadata(Name(repository, ROOT), root) for root in _list(roots, "roots")]
                for repository, roots in _mapping(value["roots"], "roots").items()
            },
            before=_named(value["before"], "before"),
            drafts=_named(value["drafts"], "drafts"),
            said=Said(**said),
            revoked=tuple(_texts(dict(enumerate(_list(value["revoked"], "revoked"))), "revoked").values()),
            words=tuple(_texts(dict(enumerate(_list(value["words"], "words"))), "words").values()),
        )


def _named(value: object, what: str) -> dict[Name, Metadata[Any]]:
    found = {}
    for text, metadata in _mapping(value, what).items():
        repository, _, role = text.partition(" ")
        found[Name(repository, role)] = _metadata(Name(repository, role), metadata)
    return found


def _metadata(name: Name, value: object) -> Metadata[Any]:
    """Metadata of the kind that its role has, with no field that TUF does not know."""
    name.rule  # noqa: B018 (there is such a role)
    kind: type = {ROOT: Root, SNAPSHOT: Snapshot}.get(name.role, Targets)
    metadata = read(json.dumps(value).encode(), *name)
    if not isinstance(metadata.signed, kind):
        raise ReleaseError(f"{name}: expected {kind.__name__.lower()} metadata, got {metadata.signed.type}")
    if metadata.unrecognized_fields or metadata.to_dict() != value:
        raise ReleaseError(f"{name}: expected metadata as it is published, got fields that it does not have")
    size = len(metadata.to_bytes())
    if size > MOST_METADATA_BYTES[kind]:
        raise ReleaseError(f"{name}: expected at most {MOST_METADATA_BYTES[kind]} bytes, as vehicles do, got {size}")
    return metadata


def _texts_in(value: object, level: int = 0) -> Iterator[str]:
    """All strings of a JSON value, names of fields too."""
    if level > MOST_LEVELS:
        raise ValueError(f"more than {MOST_LEVELS} levels")
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for one in value.values():
            yield from _texts_in(one, level + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _texts_in(one, level + 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a field that is there twice")
    return value


def _refused(text: str) -> object:
    raise ValueError(f"{text[:20]}, which is no whole number")


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ReleaseError(f"{what}: expected an object, got {type(value).__name__}")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST_TEXT:
        raise ReleaseError(f"{what}: expected a list of at most {MOST_TEXT}, got something else")
    return value


def _texts(value: object, what: str) -> dict[Any, str]:
    texts = _mapping(value, what)
    for text in texts.values():
        if not isinstance(text, str) or len(text) > MOST_TEXT:
            raise ReleaseError(f"{what}: expected texts of at most {MOST_TEXT} characters, got something else")
    return dict(texts)


def _instant(value: object) -> datetime.datetime:
    try:
        instant = datetime.datetime.strptime(str(value), _TIME).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        instant = None
    if instant is None or instant.strftime(_TIME) != value:
        raise ReleaseError(f"made: expected a time such as 2026-11-22T00:40:00Z, got {str(value)[:80]!r}")
    return instant
