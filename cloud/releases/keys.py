"""Keys that sign releases: ed25519, one PEM file each, readable by its owner alone.

    KEYS/REPOSITORY-ROLE-KEYID.pem         offline: in folders outside the cloud's data, best on media of their own
    DATA/director/REPOSITORY-ROLE-KEYID.pem  online: what the cloud itself signs with, again and again
    REPOSITORY-ROLE-KEYID.public.json  what the owner of a new offline key hands over

A file's name holds the beginning of its key's id, so that only keys that are needed are opened (and asked for).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from edge.durable import sync

IMAGE: Final = "image"
DIRECTOR: Final = "director"
ONLINE: Final = "director"  # the folder within the cloud's data
PASSPHRASE: Final = "ROADFUSE_KEY_PASSPHRASE"
ID_CHARACTERS: Final = 16
MOST_BYTES: Final = 16 << 10


class Passphrase(Protocol):
    """Where passphrases come from."""

    def __call__(self, what: str) -> bytes:
        """The passphrase for what is named; empty where there is none."""


def from_environment(what: str) -> bytes:
    """The passphrase that ROADFUSE_KEY_PASSPHRASE holds."""
    return os.environ.get(PASSPHRASE, "").encode()


class KeyFolders:
    """Private keys in folders.

    Args:
        folders: where they are looked for; the first takes new ones.
        passphrase: opens those that are encrypted.
    """

    def __init__(self, folders: Sequence[Path], passphrase: Passphrase = from_environment) -> None:
        self.folders = tuple(folders)
        self._passphrase = passphrase
        self._opened: dict[Path, CryptoSigner] = {}
        self._secrets: list[bytes] = []  # that opened a file: nobody is asked twice for the same

    def create(self, repository: str, role: str, secret: bytes = b"", place: int = 0) -> CryptoSigner:
        """Make a key and keep it, durably.

        Args:
            secret: encrypts the file; empty: it is not encrypted.
            place: counts the folder that takes it, around all of them.

        Raises:
            OSError: the folder refuses.
        """
        signer = CryptoSigner.generate_ed25519()
        key = serialization.load_pem_private_key(signer.private_bytes, None)
        encryption = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
        content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        folder = self.folders[place % len(self.folders)]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / _name(repository, role, signer.public_key.keyid)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync(folder)
        self._opened[path] = signer
        return signer

    def find(self, repository: str, role: str, keyid: str) -> Path | None:
        """The file of a key; None where none of the folders has it."""
        name = _name(repository, role, keyid)
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)

    def signers(self, repository: str, role: str, keyids: Iterable[str]) -> list[CryptoSigner]:
        """Those of the keys that are here.

        Raises:
            ReleaseError: a file is damaged, holds another key, or does not open with the passphrase.
        """
        found = ((keyid, self.find(repository, role, keyid)) for keyid in keyids)
        return [self._open(path, keyid) for keyid, path in found if path is not None]

    def _open(self, path: Path, keyid: str) -> CryptoSigner:
        if path not in self._opened:
            self._opened[path] = self._read(path)
        signer = self._opened[path]
        if signer.public_key.keyid != keyid:
            raise ReleaseError(f"{path}: expected the key {keyid}, got {signer.public_key.keyid}")
        return signer

    def _read(self, path: Path) -> CryptoSigner:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES)
        if b"ENCRYPTED" not in content:
            return _signer(path, _loaded(content, None))
        for secret in self._secrets:
            key = _loaded(content, secret)
            if key is not None:
                return _signer(path, key)
        secret = self._passphrase(path.name)
        if not secret:
            raise ReleaseError(f"{path}: expected its passphrase ({PASSPHRASE}), got none")
        key = _loaded(content, secret)
        if key is None:
            raise ReleaseError(f"{path}: expected the passphrase that it is encrypted with, got another")
        self._secrets.append(secret)
        return _signer(path, key)


def offline(data: Path, folders: Sequence[Path], passphrase: Passphrase = from_environment) -> KeyFolders:
    """The offline keys.

    Raises:
        ReleaseError: a folder lies within the cloud's data, which whoever breaks into the cloud can read.
    """
    for folder in folders:
        if folder.resolve().is_relative_to(data.resolve()):
            raise ReleaseError(f"{folder}: expected a folder for keys outside the cloud's data {data}, got one inside")
    return KeyFolders(folders, passphrase)


def online(data: Path) -> KeyFolders:
    """The keys that the cloud signs with by itself; not encrypted, since nobody is there to ask."""
    return KeyFolders([data / ONLINE], lambda what: b"")


def public_key(value: Mapping[str, str]) -> Key:
    """An ed25519 key by its public value, under the id that python-tuf gives it.

    Raises:
        ReleaseError: it is none.
    """
    try:
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(value["public"])))
    except (KeyError, TypeError, ValueError):
        raise ReleaseError(f"expected the 32 bytes of an ed25519 key, got {str(value)[:80]}") from None


def public_file(repository: str, role: str, key: Key) -> tuple[str, bytes]:
    """The name and content of what the owner of a new key hands over."""
    content = {"repository": repository, "role": role, "keyid": key.keyid, "public": key.keyval["public"]}
    name = _name(repository, role, key.keyid).removesuffix(".pem")
    return f"{name}.public.json", json.dumps(content, indent=1).encode() + b"\n"


def from_public_file(path: Path, repository: str, role: str) -> Key:
    """A key that its owner handed over.

    Raises:
        OSError: there is no such file.
        ReleaseError: it is for another role, or no key.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES)
    try:
        value = json.loads(content)
        found = value["repository"], value["role"], value["keyid"]
        key = public_key(value)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ReleaseError(f"{path}: expected a file of roadfuse release keys new, got another") from None
    if found != (repository, role, key.keyid):
        raise ReleaseError(f"{path}: expected a key of {repository} {role} under its own id, got another")
    return key


def _name(repository: str, role: str, keyid: str) -> str:
    return f"{repository}-{role}-{keyid[:ID_CHARACTERS]}.pem"


def _loaded(content: bytes, secret: bytes | None) -> object:
    """The private key; None where this does not open it."""
    try:
        return serialization.load_pem_private_key(content, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _signer(path: Path, key: object) -> CryptoSigner:
    if key is None:
        raise ReleaseError(f"{path}: expected a private key, got none")
    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseError(f"{path}: expected an ed25519 key, got {type(key).__name__}")
    return CryptoSigner(key)
