"""Who may sign what: no key, the wrong one, too few, or one counted twice; and how roots follow one another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from roadfuse.v1 import updates_pb2

from .attack import Attack, Case, check, loosened
from .repositories import new_key


def unsigned(role: str) -> Callable[[Case], None]:
    return lambda case: case.sign(role)


def by_a_stranger(role: str) -> Callable[[Case], None]:
    return lambda case: case.sign(role, new_key())


def timestamp_by_the_snapshot_key(case: Case) -> None:
    case.sign("director timestamp", *case.cloud.director.keys["snapshot"])


def one_of_two_target_keys(case: Case) -> None:
    case.sign("image targets", case.cloud.image.keys["targets"][0])


def one_signature_twice(case: Case) -> None:
    def twice(raw: bytes) -> bytes:
        values = json.loads(raw)
        values["signatures"] = [values["signatures"][0]] * 2
        return json.dumps(values).encode()

    case.edit("image snapshot", lambda snapshot: loosened(snapshot.meta["targets.json"]))
    case.damage("image targets", twice)


def signature_of_another_file(case: Case) -> None:
    def swapped(response: updates_pb2.CheckInResponse) -> None:
        first, other = json.loads(response.director_timestamp), json.loads(response.director_snapshot)
        first["signatures"][0]["sig"] = other["signatures"][0]["sig"]
        response.director_timestamp = json.dumps(first).encode()

    case.answer(swapped)


# Roots


def offered(repository: str, *make: Callable[[Any], bytes]) -> Callable[[Case], None]:
    """Roots in the answer that their repository knows nothing of."""

    def attack(case: Case) -> None:
        made = [one(getattr(case.cloud, repository)) for one in make]
        case.answer(lambda response: getattr(response, f"{repository}_roots").extend(made))

    return attack


def _gap(repository: Any) -> bytes:
    return repository.forged_root(repository.keys["root"], lambda root: setattr(root, "version", root.version + 1))


def _by_new_keys_alone(repository: Any) -> bytes:
    keys = [new_key(), new_key()]
    return repository.forged_root(keys, lambda root: [root.add_key(key.public_key, "root") for key in keys])


def _by_old_keys_alone(repository: Any) -> bytes:
    def replaced(root: Any) -> None:
        for key in repository.keys["root"]:
            root.revoke_key(key.public_key.keyid, "root")
        for key in (new_key(), new_key()):
            root.add_key(key.public_key, "root")

    return repository.forged_root(repository.keys["root"], replaced)


def _by_one_stolen_key(repository: Any) -> bytes:
    return repository.forged_root(repository.keys["root"][:1])


def _one_key_by_two_names(repository: Any) -> bytes:
    """The threshold of the new root is met by one key, which it names twice."""
    thief = new_key()
    twin = copy.deepcopy(thief)
    twin.public_key.keyid = "another name"

    def named_twice(root: Any) -> None:
        for key in repository.keys["root"]:
            root.revoke_key(key.public_key.keyid, "root")
        root.add_key(thief.public_key, "root")
        root.add_key(twin.public_key, "root")

    return repository.forged_root([*repository.keys["root"], thief, twin], named_twice)


def _foreign_keytype(repository: Any) -> bytes:
    key = CryptoSigner.generate_ecdsa()
    return repository.forged_root(repository.keys["root"], lambda root: root.add_key(key.public_key, "timestamp"))


def _short_key(repository: Any) -> bytes:
    def shortened(root: Any) -> None:
        key = copy.deepcopy(new_key().public_key)
        key.keyval = {"public": "00ff"}
        root.add_key(key, "timestamp")

    return repository.forged_root(repository.keys["root"], shortened)


def _root_again(repository: Any) -> bytes:
    return repository.roots[-1]


def too_many_roots(case: Case) -> None:
    case.answer(lambda response: response.director_roots.extend([b"{}"] * 65))


ATTACKS: dict[str, Attack] = {
    # Arbitrary installation: what nobody signed who may.
    "unsigned director timestamp": (unsigned("director timestamp"), "director timestamp: expected signatures by 1"),
    "unsigned director snapshot": (unsigned("director snapshot"), "director snapshot: expected signatures by 1"),
    "unsigned director targets": (unsigned("director targets"), "director targets: expected signatures by 1"),
    "unsigned image targets": (unsigned("image targets"), "image targets: expected signatures by 2 keys, got 0"),
    "director timestamp by a stranger": (by_a_stranger("director timestamp"), "director timestamp: .*signatures"),
    "director snapshot by a stranger": (by_a_stranger("director snapshot"), "director snapshot: .*signatures"),
    "director targets by a stranger": (by_a_stranger("director targets"), "director targets: .*signatures"),
    "image timestamp by a stranger": (by_a_stranger("image timestamp"), "image timestamp: .*signatures"),
    "image snapshot by a stranger": (by_a_stranger("image snapshot"), "image snapshot: .*signatures"),
    "image targets by a stranger": (by_a_stranger("image targets"), "image targets: .*signatures by 2 keys, got 0"),
    "image bin by a stranger": (
        lambda case: (
            [case.cloud.signers.update({f"image bin-{n:x}": [new_key()]}) for n in range(16)],
            case.cloud.publish(),
        ),
        "image bin-.: expected signatures by 1 keys, got 0",
    ),
    "signed by the key of another role": (timestamp_by_the_snapshot_key, "director timestamp: .*signatures"),
    "signature of another file": (signature_of_another_file, "director timestamp: .*signatures"),
    # Key compromise below the threshold.
    "one of two target keys stolen": (one_of_two_target_keys, "image targets: .*by 2 keys, got 1"),
    "one signature given twice": (one_signature_twice, "image targets: .*Multiple signatures"),
    "one root key of three stolen": (offered("director", _by_one_stolen_key), "director root .*by 2 keys, got 1"),
    "one image root key of three stolen": (offered("image", _by_one_stolen_key), "image root .*by 2 keys, got 1"),
    "one key by two names": (offered("director", _one_key_by_two_names), "by its own keys: .*by 2 keys, got 1"),
    # Roots.
    "root after a gap": (offered("director", _gap), "director root: expected version 2, got 3"),
    "image root after a gap": (offered("image", _gap), "image root: expected version 2, got 3"),
    "root again": (offered("director", _root_again), "director root: expected version 2, got 1"),
    "root not signed by the old keys": (offered("director", _by_new_keys_alone), "by the keys of the one before"),
    "root not signed by the new keys": (offered("director", _by_old_keys_alone), "by its own keys"),
    "image root not signed by the old keys": (offered("image", _by_new_keys_alone), "by the keys of the one before"),
    "image root not signed by the new keys": (offered("image", _by_old_keys_alone), "by its own keys"),
    "root with keys of a wrong type": (offered("director", _foreign_keytype), "expected ed25519 keys, got ecdsa"),
    "root with a key too short": (offered("director", _short_key), "expected ed25519 keys of 32 bytes"),
    "root that is none": (offered("image", lambda _: b"[]"), "image root: expected TUF metadata"),
    "roots without end": (too_many_roots, "director root: expected at most 64 in one session, got 65"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_changes_nothing_and_harms_nobody_later(name: str, tmp_path: Path) -> None:
    check(Case.at(tmp_path), *ATTACKS[name])
