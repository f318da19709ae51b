"""Keys come and go: whoever knows an old root walks to the newest, and a key that was taken out signs nothing."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp

from cloud.errors import ReleaseError
from cloud.releases import ceremony, renewal, rotation, stored
from cloud.releases.director import Director
from cloud.releases.image import Image, publish_timestamp
from cloud.releases.keys import DIRECTOR, IMAGE, KeyFolders
from cloud.releases.request import Request
from cloud.releases.roles import RULES, Name
from cloud.releases.signing import Keys, root_of, signed

from .shelf import DAY, Client, Shelf, now

SECRET = b"a long walk"


def replace(shelf: Shelf, repository: str, role: str, keyid: str | None = None, **named: Any) -> rotation.Change:
    """One key for another."""
    keys = named.pop("keys", None) or shelf.keys
    change: rotation.Change = shelf.do(rotation.replace, repository, role, keyid, keys, now(), **named)
    return change


def lost(shelf: Shelf, repository: str, role: str, keyid: str) -> Path:
    """A key's file, gone."""
    path = shelf.keys.find(repository, role, keyid)
    assert path is not None
    path.unlink()
    return path


@pytest.mark.parametrize("role", ["root", "targets", "bins", "snapshot", "timestamp"])
def test_a_client_follows_a_new_key_of_each_role(shelf: Shelf, bundles: list[Path], tmp_path: Path, role: str) -> None:
    shelf.add(bundles[0])
    asleep = Client(shelf, tmp_path / "asleep")
    awake = Client(shelf, tmp_path / "awake")
    assert awake.find("reference/1/manifest.json") is not None
    for rounds in range(2):
        change = replace(shelf, IMAGE, role)
        lost(shelf, IMAGE, role, change.old)
        assert shelf.add(bundles[1]).counter == rounds + 2
        for client in (asleep, awake):
            assert client.find(f"reference/{rounds + 2}/manifest.json") is not None


def test_a_client_that_slept_through_many_rotations_walks_the_whole_chain(
    shelf: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    client = Client(shelf, tmp_path)
    for _ in range(4):  # after three of them no root key of the first root is left
        change = replace(shelf, IMAGE, "root")
        lost(shelf, IMAGE, "root", change.old)
    shelf.add(bundles[0])
    first, newest = (shelf.root(IMAGE, version) for version in (1, 5))
    ids = [set(Metadata[Root].from_bytes(root).signed.roles["root"].keyids) for root in (first, newest)]
    assert not ids[0] & ids[1]
    assert client.find("reference/1/manifest.json") is not None
    assert [name for name, _ in client.fetched if "root" in name] == [f"meta/{n}.root.json" for n in (2, 3, 4, 5)]


def test_a_lost_root_key_is_replaced_by_the_other_two(shelf: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    client = Client(shelf, tmp_path)
    gone = shelf.do(root_of, IMAGE).roles["root"].keyids[1]
    lost(shelf, IMAGE, "root", gone)
    replace(shelf, IMAGE, "root", gone, is_stolen=True)
    shelf.add(bundles[0])
    assert client.find("reference/1/manifest.json") is not None
    assert gone not in shelf.do(root_of, IMAGE).roles["root"].keyids


def test_one_root_key_is_not_enough(shelf: Shelf) -> None:
    root = shelf.do(root_of, IMAGE)
    for keyid in root.roles["root"].keyids[1:]:
        lost(shelf, IMAGE, "root", keyid)
    with pytest.raises(ReleaseError, match="expected 2 of the 3 keys of image root"):
        replace(shelf, IMAGE, "targets")
    assert shelf.do(root_of, IMAGE).version == 1


def test_a_stolen_key_does_not_sign_its_own_end(shelf: Shelf) -> None:
    stolen = shelf.do(root_of, IMAGE).roles["root"].keyids[0]
    replace(shelf, IMAGE, "root", stolen, is_stolen=True)
    signatures = Metadata[Root].from_bytes(shelf.root(IMAGE, 2)).signatures
    assert stolen not in signatures and len(signatures) == 3


def test_targets_signed_with_a_revoked_key_are_refused(shelf: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    """Whoever stole both targets keys before one of them was replaced can't say what the targets are any more."""
    shelf.add(bundles[0])
    client = Client(shelf, tmp_path)
    roles = shelf.do(root_of, IMAGE).roles
    stolen = shelf.keys.offline.signers(IMAGE, "targets", roles["targets"].keyids)
    replace(shelf, IMAGE, "targets", stolen[0].public_key.keyid, is_stolen=True)
    with shelf.engine.begin() as connection:
        image = Image(connection, now())
        image._targets("targets").targets["evil/9/manifest.json"] = TargetFile(
            1, {"sha256": "0" * 64}, "evil/9/manifest.json"
        )
        image.sign_anew("targets")
        for name, draft in image.drafts().items():
            own = shelf.keys.offline.signers(*name, roles[name.role].keyids)
            stored.put(connection, *name, draft.version, signed(draft, stolen if name.role == "targets" else own))
        publish_timestamp(connection, shelf.keys, now())
    with pytest.raises(UnsignedMetadataError):
        client.find("evil/9/manifest.json")


def test_a_fleet_recovers_from_a_fast_forward_by_a_stolen_timestamp_key(
    shelf: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    shelf.add(bundles[0])
    client = Client(shelf, tmp_path)
    (stolen,) = shelf.keys.online.signers(IMAGE, "timestamp", shelf.do(root_of, IMAGE).roles["timestamp"].keyids)
    known = Metadata[Timestamp].from_bytes(shelf.do(stored.latest, IMAGE, "timestamp").content).signed
    known.version = 1_000_000
    shelf.do(stored.put, IMAGE, "timestamp", known.version, signed(known, [stolen]))
    assert client.find("reference/1/manifest.json") is not None
    with shelf.engine.begin() as connection:  # the attacker is gone from the catalogue; clients remember
        connection.exec_driver_sql("DELETE FROM metadata_files WHERE version = 1000000")
    change = replace(shelf, IMAGE, "timestamp", stolen.public_key.keyid, is_stolen=True)
    assert change.published == ("root", "timestamp")
    shelf.add(bundles[1])
    assert client.find("reference/2/manifest.json") is not None


def test_a_new_online_key_of_the_director_needs_the_offline_root(shelf: Shelf) -> None:
    for role in ("timestamp", "snapshot", "targets"):
        with pytest.raises(ReleaseError, match="expected 2 of the 3 keys of director root"):
            replace(shelf, DIRECTOR, role, keys=shelf.online)
        change = replace(shelf, DIRECTOR, role)
        lost(shelf, DIRECTOR, role, change.old)
        Director.by(shelf.do(root_of, DIRECTOR), shelf.online)
    newest = shelf.do(root_of, DIRECTOR)
    assert newest.version == 4
    lost(shelf, DIRECTOR, "targets", newest.roles["targets"].keyids[0])
    with pytest.raises(ReleaseError, match="expected the director's keys for targets"):
        Director.by(newest, shelf.online)


def test_a_root_that_its_forerunner_did_not_sign_is_never_published(shelf: Shelf) -> None:
    other = KeyFolders([shelf.data.parent / "attacker"])
    forged = Root(version=2, expires=now() + DAY, consistent_snapshot=True)
    keys = [other.create(IMAGE, "root").public_key for _ in range(2)]
    for role in forged.roles:
        for key in keys:
            forged.add_key(key, role)
    with pytest.raises(ReleaseError, match="expected 2 of the 3 keys"):
        known = Metadata[Root].from_bytes(shelf.root(IMAGE))
        request = Request(now(), {IMAGE: [known]}, {}, {Name(IMAGE, "root"): Metadata(forged)})
        ceremony.sign(request, other)
        shelf.do(ceremony.publish, request, shelf.online, now())
    assert shelf.do(root_of, IMAGE).version == 1


@pytest.mark.parametrize("keyid", ["", "00", "000000000000", "z" * 64])
def test_a_key_that_is_none_of_the_roles_is_refused(shelf: Shelf, keyid: str) -> None:
    with pytest.raises(ReleaseError, match="expected --key with one of"):
        replace(shelf, IMAGE, "targets", keyid)


def test_repositories_that_have_one_bins_key_go_on(
    bare: Shelf, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old:
        old.setitem(RULES, (IMAGE, "bins"), dataclasses.replace(RULES[IMAGE, "bins"], keys=1, threshold=1))
        bare.create()
    bare.add(bundles[0])
    replace(bare, IMAGE, "bins")
    bare.add(bundles[1])
    client = Client(bare, tmp_path)
    assert all(client.find(f"reference/{counter}/manifest.json") is not None for counter in (1, 2))


def test_repositories_are_made_once(shelf: Shelf) -> None:
    with pytest.raises(ReleaseError, match="expected no image repository, got one"):
        shelf.create()


def test_keys_are_for_their_owner_alone_and_online_ones_apart(shelf: Shelf) -> None:
    offline = [*shelf.folders[0].iterdir()]
    online = [*(shelf.data / "director").iterdir()]
    assert len(offline) == 3 + 2 + 2 + 1 + 3 and len(online) == 1 + 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in (*offline, *online)} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (shelf.folders[0], shelf.data / "director")} == {0o700}
    held = {path.name.rpartition("-")[0] for path in online}
    assert held == {"image-timestamp", "director-timestamp", "director-snapshot", "director-targets"}


def test_offline_keys_within_the_clouds_data_are_refused(shelf: Shelf) -> None:
    with pytest.raises(ReleaseError, match="outside the cloud's data"):
        Keys.at(shelf.data, [shelf.data / "keys"])


def test_encrypted_keys_open_with_their_passphrase_alone(bare: Shelf, bundles: list[Path]) -> None:
    shelf = bare
    keys = Keys.at(shelf.data, shelf.folders, lambda what: SECRET)
    shelf.do(rotation.create, keys, now(), SECRET)
    assert all(b"ENCRYPTED" in path.read_bytes() for path in shelf.folders[0].iterdir())
    assert not any(b"ENCRYPTED" in path.read_bytes() for path in (shelf.data / "director").iterdir())
    for secret, said in ((b"", "expected its passphrase"), (b"wrong", "the passphrase that it is encrypted with")):
        wrong = Keys.at(shelf.data, shelf.folders, lambda what, secret=secret: secret)  # type: ignore[misc]
        with pytest.raises(ReleaseError, match=said):
            shelf.add(bundles[0], keys=wrong)
    assert shelf.add(bundles[0], keys=Keys.at(shelf.data, shelf.folders, lambda what: SECRET)).counter == 1


def test_a_passphrase_is_asked_for_once(bare: Shelf, bundles: list[Path]) -> None:
    bare.do(rotation.create, Keys.at(bare.data, bare.folders), now(), SECRET)
    asked: list[str] = []

    def ask(what: str) -> bytes:
        asked.append(what)
        return SECRET

    bare.add(bundles[0], keys=Keys.at(bare.data, bare.folders, ask))
    assert len(asked) == 1


def test_with_several_folders_each_holder_has_a_share_of_each_role(bare: Shelf, bundles: list[Path]) -> None:
    shelf = bare
    shelf.create()
    roots = [len(list(folder.glob("image-root-*"))) for folder in shelf.folders]
    assert roots == [1, 1, 1]
    alone = Keys.at(shelf.data, shelf.folders[:1])
    with pytest.raises(ReleaseError, match="of image targets"):
        shelf.do(renewal.refresh, alone, now() + 300 * DAY)
    two = Keys.at(shelf.data, shelf.folders[:2])
    assert shelf.add(bundles[0], keys=two).counter == 1


def test_a_file_that_holds_another_key_is_named(shelf: Shelf, bundles: list[Path]) -> None:
    one, other = sorted(shelf.folders[0].glob("image-targets-*"))
    one.write_bytes(other.read_bytes())
    with pytest.raises(ReleaseError, match=f"{one.name}: expected the key"):
        shelf.do(renewal.refresh, shelf.keys, now(), everything=True)
    one.write_bytes(b"no key")
    with pytest.raises(ReleaseError, match="expected a private key, got none"):
        shelf.do(renewal.refresh, shelf.keys, now(), everything=True)


def test_the_calendar_tells_of_all_roles(shelf: Shelf) -> None:
    terms = shelf.do(renewal.calendar, shelf.keys, now())
    assert [term.rule.name for term in terms] == [rule.name for rule in RULES.values()]
    assert all(path is not None for term in terms for path in term.keys.values())
    for days, expected in ((0, "fine"), (RULES[IMAGE, "root"].days - 59, "ends soon"), (731, "ended")):
        states = {term.rule.name: term.state(now() + days * DAY) for term in terms}
        assert states["image root"] == states["director root"] == expected


def test_targets_of_the_image_repository_are_delegated_to_bins_alone(shelf: Shelf) -> None:
    targets = Metadata[Targets].from_bytes(shelf.do(stored.latest, IMAGE, "targets").content).signed
    assert targets.targets == {} and targets.delegations is not None
