"""Keys that are at hand, metadata as it is read and written, and roots that follow one another."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Key  # type: ignore[attr-defined]
from sqlalchemy import Connection
from tuf.api.metadata import Metadata, Role, Root, Signed  # type: ignore[attr-defined]
from tuf.api.serialization import DeserializationError

from cloud.errors import ReleaseError
from cloud.releases import stored
from cloud.releases.keys import KeyFolders, Passphrase, from_environment, offline, online
from cloud.releases.roles import ROOT, rule_of


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys that are at hand."""

    offline: KeyFolders
    online: KeyFolders

    @staticmethod
    def at(data: Path, folders: Sequence[Path] = (), passphrase: Passphrase = from_environment) -> Keys:
        """The cloud's own keys, and those in `folders`.

        Raises:
            ReleaseError: a folder lies within the cloud's data.
        """
        return Keys(offline(data, folders, passphrase), online(data))

    def find(self, repository: str, role: str, keyid: str) -> Path | None:
        """The file of a key; None where it is nowhere."""
        return self.online.find(repository, role, keyid) or self.offline.find(repository, role, keyid)


def read(content: bytes, repository: str, role: str) -> Metadata[Any]:
    """Metadata of our own.

    Raises:
        ReleaseError: it is damaged.
    """
    try:
        return Metadata[Any].from_bytes(content)
    except DeserializationError as error:
        cause = error.__cause__ or error
        raise ReleaseError(f"{repository} {role}: expected metadata as it was published, got {cause}"[:300]) from None


def signed(content: Signed, signers: Iterable[CryptoSigner]) -> bytes:
    """Metadata as it is published."""
    metadata: Metadata[Any] = Metadata(content)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def root_of(connection: Connection, repository: str) -> Root:
    """The newest root.

    Raises:
        ReleaseError: there is none: no keys were made yet.
    """
    found = stored.latest(connection, repository, ROOT)
    if found is None:
        raise ReleaseError(f"expected the {repository} repository, got none: roadfuse release keys create makes it")
    root = read(found.content, repository, ROOT).signed
    assert isinstance(root, Root)
    return root


def first_root(repository: str, keys: dict[str, list[Key]], now: datetime.datetime) -> Root:
    """Root number one.

    Args:
        keys: role -> its public keys.
    """
    root = Root(version=1, expires=rule_of(repository, ROOT).expires(now), consistent_snapshot=True)
    for role, of_role in keys.items():
        root.roles[role] = Role([], rule_of(repository, role).threshold)
        for key in of_role:
            root.add_key(key, role)
    return root


def next_root(root: Root, repository: str, now: datetime.datetime) -> Root:
    """A root to follow, still the same but for its version and its end."""
    follower = copy.deepcopy(root)
    follower.version += 1
    follower.expires = rule_of(repository, ROOT).expires(now)
    return follower
