"""Keys that never meet: who proposes has no keys, who signs has one folder of them, who accepts has none again."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.errors import ReleaseError
from cloud.releases import request, review, rotation, stops, stored
from cloud.releases.keys import IMAGE, PASSPHRASE, KeyFolders
from cloud.releases.request import Request
from cloud.releases.signing import first_root, root_of, signed
from edge.bundle import load
from edge.command import main

from .shelf import DAY, Client, Shelf, bundle, now
from .test_image import rows

Value = Any  # of JSON
SECRET = "a long walk"


class Cloud:
    """The machine with the catalogue and without offline keys."""

    def __init__(self, shelf: Shelf, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.shelf, self.folder, self._capsys = shelf, folder, capsys

    def run(self, *words: object, code: int = 0) -> str:
        """`roadfuse release WORDS` with the cloud's data."""
        return self.alone(*words, "--data", self.shelf.data, "--database", self.shelf.database, code=code)

    def alone(self, *words: object, code: int = 0) -> str:
        """`roadfuse release WORDS` without it."""
        self._capsys.readouterr()
        got = main(["release", *map(str, words)])
        out = self._capsys.readouterr()
        assert got == code, out.err
        if code == 2:
            assert out.err.startswith("roadfuse release: ") and out.err.count("\n") == 1
        return out.out if code != 2 else out.err

    def propose(self, *words: object) -> Path:
        """A request; the catalogue is as before."""
        before = rows(self.shelf)
        path = self.folder / f"request-{len(list(self.folder.iterdir()))}.json"
        self.run(*words, "--propose", path)
        assert rows(self.shelf) == before
        return path

    def sign(self, path: Path, *holders: int, code: int = 0) -> str:
        """By holders, one after the other."""
        return "".join(
            self.alone("sign", path, "--keys", self.shelf.folders[holder], "--yes", code=code) for holder in holders
        )


@pytest.fixture
def cloud(bare: Shelf, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Three holders: a and b have two keys of bins and targets between them, each has one of the roots."""
    monkeypatch.delenv(PASSPHRASE, raising=False)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    bare.create()
    (tmp_path / "requests").mkdir()
    one = Cloud(bare, capsys, tmp_path / "requests")
    for folder in bare.folders:
        one.run("keys", "roots", "--out", folder)
    return one


@pytest.fixture
def away(bare: Shelf) -> Iterator[Callable[[], None]]:
    """Takes the cloud's data and database away while others sign."""
    moved = bare.data.with_name("moved")

    def move() -> None:
        bare.data.rename(moved) if bare.data.exists() else moved.rename(bare.data)

    yield move
    if moved.exists():
        move()


def signed_elsewhere(machine: Path, request: Path, keys: Path, *words: object) -> str:
    """`release sign` as a process of its own, with nothing but a request and a folder of keys."""
    machine.mkdir()
    shutil.copy(request, machine / "request.json")
    shutil.copytree(keys, machine / "keys")
    done = subprocess.run(
        [sys.executable, "-m", "edge.command", "release", "sign", "request.json", "--keys", "keys", "--yes",
         *map(str, words)],
        cwd=machine, capture_output=True, text=True, timeout=120, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3]),
             "ROADFUSE_DATABASE": "postgresql://nobody@nowhere.invalid/none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_holders_release_from_machines_of_their_own(
    cloud: Cloud, bare: Shelf, bundles: list[Path], tmp_path: Path, away: Callable[[], None]
) -> None:
    path = cloud.propose("add", bundles[0], "--hardware", "x86", "--notes", "first")
    away()
    told = signed_elsewhere(tmp_path / "a", path, bare.folders[0], "--bundle", bundles[0])
    assert load(bundles[0]).id in told and "release 1: reference, for x86" in told and "the same 4 files" in told
    assert "keys/image-root.json has it" in told and "more signatures are needed" in told
    signed_elsewhere(tmp_path / "b", path, bare.folders[1])
    away()
    client = Client(bare, tmp_path / "client")
    assert client.find("reference/1/manifest.json") is None
    copies = [tmp_path / holder / "request.json" for holder in "ab"]
    assert "expected 2 of the 2 keys of image bins" in cloud.run("accept", copies[0], code=2)
    assert "1  reference 1" in cloud.run("accept", *copies)
    assert client.find("reference/1/manifest.json") is not None
    shown = json.loads(cloud.run("show", 1, "--json"))
    assert (shown["notes"], shown["version"], shown["bundle"]) == ("first", "1", load(bundles[0]).id)


def test_a_release_is_taken_back_by_two_holders(cloud: Cloud, bare: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    bare.add(bundles[0])
    bare.add(bundles[0])
    path = cloud.propose("revoke", 1, "--why", "worse at night")
    told = cloud.sign(path, 0, 1)
    assert "takes back reference/1/" in told and "takes back reference/2/" in told and "worse at night" in told
    accepted = json.loads(cloud.run("accept", path, "--json"))
    assert accepted["revoked"] == [2, 1]
    assert json.loads(cloud.run("show", 1, "--json"))["stopped"] == "worse at night"
    assert Client(bare, tmp_path / "client").find("reference/2/manifest.json") is None


def test_everything_is_signed_anew_by_two_holders(
    cloud: Cloud, bare: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    client = Client(bare, tmp_path / "client")
    error = cloud.run("refresh", "--propose", tmp_path / "none", code=2)
    assert "expected signatures that end soon" in error
    path = cloud.propose("refresh", "--all")
    told = cloud.sign(path, 0)
    assert "director root: version 2" in told and "image bin-0: version 2" in told and "image bin-f: version 2" in told
    assert "expected 2 of the 3 keys of image root" in cloud.run("accept", path, code=2)
    cloud.sign(path, 1)
    assert "director root, image targets, image bin-0" in cloud.run("accept", path)
    bare.add(bundles[0])
    assert client.find("reference/1/manifest.json") is not None


def test_an_owner_makes_a_key_that_nobody_else_ever_has(
    cloud: Cloud, bare: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    client = Client(bare, tmp_path / "client")
    for role in ("targets", "bins", "root", "snapshot"):
        mine = tmp_path / f"d-{role}"
        cloud.alone("keys", "new", "image", role, "--keys", mine)
        (public,) = mine.glob("*.public.json")
        other = {"targets": "bins", "bins": "root", "root": "bins", "snapshot": "bins"}[role]
        words = ("--with", public, "--propose", tmp_path / "x")
        assert "expected a key of image" in cloud.run("keys", "rotate", "image", other, *words, code=2)
        path = cloud.propose("keys", "rotate", "image", role, "--with", public)
        told = cloud.alone("sign", path, "--keys", mine, "--root", bare.folders[0] / "image-root.json", "--yes")
        assert f"image {role}: key {json.loads(public.read_text())['keyid']} in place of" in told
        folders = [word for folder in bare.folders for word in ("--keys", folder)]
        cloud.alone("sign", path, *folders, "--yes")
        cloud.run("accept", path)
        bare.folders.append(mine)
    assert bare.add(bundles[0]).counter == 1
    assert client.find("reference/1/manifest.json") is not None
    with pytest.raises(Exception, match="of image bins"):  # the old keys alone don't do any more
        bare.folders = bare.folders[:3]
        bare.add(bundles[1])


def test_an_owners_key_is_one_and_for_an_offline_role(cloud: Cloud, tmp_path: Path) -> None:
    assert "expected a role with offline keys" in cloud.alone(
        "keys", "new", "image", "timestamp", "--keys", tmp_path, code=2
    )
    cloud.alone("keys", "new", "image", "targets", "--keys", tmp_path / "d")
    (public,) = (tmp_path / "d").glob("*.public.json")
    value = json.loads(public.read_text())
    rotate = ("keys", "rotate", "image", "targets", "--with", public, "--propose", tmp_path / "x")
    for key, other, said in (
        ("keyid", "0" * 64, "under its own id"),
        ("public", "00", "expected the 32 bytes"),
        ("public", 7, "expected"),
        ("role", "root", "expected a key of image targets"),
    ):
        public.write_text(json.dumps(value | {key: other}))
        assert said in cloud.run(*rotate, code=2)
    public.write_text("[" * 9_000)
    assert "expected a file of roadfuse release keys new" in cloud.run(*rotate, code=2)
    public.write_text(json.dumps(value))
    online = ("keys", "rotate", "image", "timestamp", "--with", public)
    assert "expected a key of image timestamp" in cloud.run(*online, code=2)


def test_a_stolen_root_key_does_not_sign_its_own_end(cloud: Cloud, bare: Shelf, tmp_path: Path) -> None:
    stolen = bare.do(root_of, IMAGE).roles["root"].keyids[0]
    cloud.alone("keys", "new", "image", "root", "--keys", tmp_path / "d")
    (public,) = (tmp_path / "d").glob("*.public.json")
    path = cloud.propose("keys", "revoke", "image", "root", "--key", stolen, "--with", public)
    assert "expected a key that is wanted" in cloud.sign(path, 0, code=2)
    forged = Request.of(path.read_bytes())
    (draft,) = forged.drafts.values()
    draft.sign(KeyFolders([bare.folders[0]]).signers(IMAGE, "root", [stolen])[0])
    other = path.with_name("forged.json")
    other.write_bytes(forged.to_bytes())
    assert "expected signatures of its own keys" in cloud.run("accept", other, code=2)
    cloud.sign(path, 1, 2)
    cloud.run("accept", path)
    assert stolen not in bare.do(root_of, IMAGE).roles["root"].keyids


def test_a_key_that_was_revoked_before_signs_nothing(
    cloud: Cloud, bare: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    targets = bare.do(stored.latest, IMAGE, "targets").content
    stolen = json.loads(targets)["signed"]["delegations"]["succinct_roles"]["keyids"][1]
    kept = tmp_path / "thief"
    shutil.copytree(bare.folders[1], kept)
    (kept / "image-root.json").unlink()
    bare.do(rotation.replace, IMAGE, "bins", stolen, bare.keys, now(), is_stolen=True)
    path = cloud.propose("add", bundles[0])
    assert "expected a key that is wanted" in cloud.alone("sign", path, "--keys", kept, "--yes", code=2)
    forged = Request.of(path.read_bytes())
    draft = next(draft for name, draft in forged.drafts.items() if name.role.startswith("bin-"))
    draft.sign(KeyFolders([kept]).signers(IMAGE, "bins", [stolen])[0])
    path.write_bytes(forged.to_bytes())
    assert "expected signatures of its own keys" in cloud.run("accept", path, code=2)
    assert "expected signatures of its own keys" in cloud.sign(path, 0, code=2)


def test_one_holder_does_not_sign_for_two(cloud: Cloud, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0)
    copy_of = path.with_name("copy.json")
    shutil.copy(path, copy_of)
    assert "has not signed yet" in cloud.sign(path, 0, code=2)
    assert "expected 2 of the 2 keys of image bins to sign" in cloud.run("accept", path, copy_of, code=2)


def test_a_holder_of_no_wanted_key_signs_nothing(cloud: Cloud, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    before = path.read_bytes()
    assert "expected a key that is wanted" in cloud.sign(path, 2, code=2)
    assert path.read_bytes() == before


def test_a_request_is_stale_once_something_else_was_published(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0, 1)
    bare.add(bundles[1])
    before = rows(bare)
    assert "propose it again" in cloud.run("accept", path, code=2)
    assert rows(bare) == before


def test_a_request_is_stale_once_a_root_followed(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0, 1)
    bare.do(rotation.replace, IMAGE, "root", None, bare.keys, now())
    assert "expected image root version 1, which the request follows, got version 2" in cloud.run(
        "accept", path, code=2
    )


def test_a_request_is_accepted_once(cloud: Cloud, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0, 1)
    cloud.run("accept", path)
    assert "propose it again" in cloud.run("accept", path, code=2)


def test_a_bundle_that_was_stopped_meanwhile_is_not_released(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0, 1)
    bare.do(stops.stop, load(bundles[0]).id, "worse")
    before = rows(bare)
    assert "expected a bundle that is not stopped" in cloud.run("accept", path, code=2)
    assert rows(bare) == before


def test_a_release_whose_files_are_gone_is_not_published(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0, 1)
    manifest = bare.data / "objects" / "releases" / load(bundles[0]).id
    manifest.write_bytes(b"torn")
    assert "manifest.json: expected" in cloud.run("accept", path, code=2)
    manifest.unlink()
    assert "could not be read" in cloud.run("accept", path, code=2)


def test_copies_of_different_requests_are_not_merged(cloud: Cloud, bundles: list[Path]) -> None:
    one, other = (cloud.propose("add", bundles[index]) for index in (0, 1))
    cloud.sign(one, 0)
    cloud.sign(other, 1)
    assert "expected copies of one request" in cloud.run("accept", one, other, code=2)


def test_who_signs_compares_the_bundle(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    sign = ("sign", path, "--keys", bare.folders[0], "--yes")
    assert "expected the bundle" in cloud.alone(*sign, "--bundle", bundles[1], code=2)
    value = json.loads(path.read_text())
    value["said"]["version"] = "9"
    path.write_text(json.dumps(value))
    assert "expected version '9', as is said, got '1'" in cloud.alone(*sign, "--bundle", bundles[0], code=2)


def test_a_root_of_another_cloud_is_refused(cloud: Cloud, bare: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    path = cloud.propose("add", bundles[0])
    other = KeyFolders([tmp_path / "other"])
    keys = [other.create(IMAGE, "root") for _ in range(3)]
    made = {role: [keys[0].public_key] for role in ("targets", "snapshot", "timestamp")}
    root = first_root(IMAGE, {"root": [key.public_key for key in keys], **made}, now())
    (bare.folders[0] / "image-root.json").write_bytes(signed(root, keys))
    assert "expected a root that the request follows" in cloud.sign(path, 0, code=2)
    (bare.folders[0] / "image-root.json").unlink()
    assert "follows image root 1, NOT compared" in cloud.sign(path, 0)


def test_nobody_signs_unasked(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    before = path.read_bytes()
    assert "expected a terminal to ask at, or --yes" in cloud.alone("sign", path, "--keys", bare.folders[0], code=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("word", "code"), [("no", 2), ("", 2), ("yes", 0)])
def test_who_is_asked_at_a_terminal_says_yes(
    cloud: Cloud, bare: Shelf, bundles: list[Path], word: str, code: int
) -> None:
    path = cloud.propose("add", bundles[0])
    before = path.read_bytes()
    person, terminal = os.openpty()
    os.write(person, f"{word}\n".encode())
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edge.command", "release", "sign", path, "--keys", bare.folders[0]],
            stdin=terminal, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[3],
        )  # fmt: skip
    finally:
        os.close(person)
        os.close(terminal)
    assert done.returncode == code and (path.read_bytes() == before) == (code == 2)
    assert code == 0 or "expected yes, got another word: nothing is signed" in done.stderr


def test_signatures_go_to_another_file_where_that_is_wanted(
    cloud: Cloud, bare: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    path = cloud.propose("add", bundles[0])
    before = path.read_bytes()
    cloud.alone("sign", path, "--keys", bare.folders[0], "--yes", "--out", tmp_path / "signed.json")
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.glob("signed.json*")] == ["signed.json"]
    cloud.alone("sign", tmp_path / "signed.json", "--keys", bare.folders[1], "--yes")
    cloud.run("accept", tmp_path / "signed.json")


def test_encrypted_keys_sign_with_their_passphrase_alone(
    cloud: Cloud, bare: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, SECRET)
    cloud.alone("keys", "new", "image", "targets", "--keys", tmp_path / "d")
    (public,) = (tmp_path / "d").glob("*.public.json")
    path = cloud.propose("keys", "rotate", "image", "targets", "--with", public)
    sign = ("sign", path, "--keys", tmp_path / "d", "--yes")
    monkeypatch.setenv(PASSPHRASE, "another")
    assert "expected the passphrase" in cloud.alone(*sign, code=2)
    monkeypatch.setenv(PASSPHRASE, SECRET)
    assert "signs with" in cloud.alone(*sign)


def _bin(value: Value) -> Value:
    return next(one for name, one in value["drafts"].items() if "bin-" in name)["signed"]


def _target(value: Value) -> Value:
    return next(iter(_bin(value)["targets"].values()))


def _other_counter(value: Value) -> None:
    _target(value)["custom"]["counter"] = 7


def _other_counter_and_path(value: Value) -> None:
    _other_counter(value)
    targets = _bin(value)["targets"]
    targets["reference/7/manifest.json"] = targets.pop("reference/1/manifest.json")


def _other_digest(value: Value) -> None:
    _target(value)["hashes"]["sha256"] = "0" * 64


def _other_bundle(value: Value) -> None:
    target = _target(value)
    target["hashes"]["sha256"] = target["custom"]["bundle"] = target["custom"]["files"][0]["sha256"] = "0" * 64


def _other_file(value: Value) -> None:
    _target(value)["custom"]["files"][1]["sha256"] = "0" * 64


def _other_hardware(value: Value) -> None:
    _target(value)["custom"]["hardware"].append("arm")


def _other_end(value: Value) -> None:
    _bin(value)["expires"] = "2099-01-01T00:00:00Z"


def _rollback(value: Value) -> None:
    _bin(value)["version"] -= 1


def _other_snapshot(value: Value) -> None:
    value["drafts"]["image snapshot"]["signed"]["meta"]["bin-0.json"]["version"] += 5


def _no_snapshot(value: Value) -> None:
    del value["drafts"]["image snapshot"]
    del value["before"]["image snapshot"]


def _unknown_role(value: Value) -> None:
    value["drafts"]["image evil"] = {"signatures": [], "signed": copy.deepcopy(_bin(value))}


def _unknown_bin(value: Value) -> None:
    metadata = {"signatures": [], "signed": copy.deepcopy(_bin(value))}
    value["drafts"]["image bin-zz"] = value["before"]["image bin-zz"] = metadata


def _online_role(value: Value) -> None:
    value["drafts"]["director targets"] = {"signatures": [], "signed": copy.deepcopy(_bin(value))}


def _another_bin(value: Value) -> None:
    name = "image bin-0" if "image bin-0" not in value["drafts"] else "image bin-1"
    value["drafts"][name] = {"signatures": [], "signed": copy.deepcopy(_bin(value))}


def _before_has_it_already(value: Value) -> None:
    name = next(name for name in value["drafts"] if "bin-" in name)
    value["before"][name]["signed"]["targets"] = copy.deepcopy(_bin(value)["targets"])


def _other_bins_keys(value: Value) -> None:
    value["before"]["image targets"]["signed"]["delegations"]["succinct_roles"]["threshold"] = 1


def _other_root(value: Value) -> None:
    value["roots"]["image"][0]["signed"]["roles"]["targets"]["threshold"] = 1


def _no_roots(value: Value) -> None:
    value["roots"] = {}


def _another_release(value: Value) -> None:
    """One more target that is a release in itself."""
    target = copy.deepcopy(_target(value))
    target["custom"]["counter"] = 5
    _bin(value)["targets"]["reference/5/manifest.json"] = target


def _no_release(value: Value) -> None:
    _bin(value)["targets"]["evil"] = {"length": 1, "hashes": {"sha256": "0" * 64}}


def _more_in_a_target(value: Value) -> None:
    _target(value)["custom"]["more"] = 1


def _more_in_a_draft(value: Value) -> None:
    _bin(value)["more"] = 1


def _delegations(value: Value) -> None:
    _bin(value)["delegations"] = copy.deepcopy(value["before"]["image targets"]["signed"]["delegations"])


def _oversized(value: Value) -> None:
    value["words"].append("x" * request.MOST_BYTES)


def _long_metadata(value: Value) -> None:
    value["drafts"]["image snapshot"]["signed"]["more"] = "x" * (300 << 10)


def _long_ago(value: Value) -> None:
    value["made"] = "2020-01-01T00:00:00Z"


def _in_years(value: Value) -> None:
    value["made"] = "2099-01-01T00:00:00Z"


def _other_words(value: Value) -> None:
    value["words"][0] = value["words"][0].replace("release 1", "release 2")


def _more_words(value: Value) -> None:
    value["words"].append("nothing to see")


def _unknown_field(value: Value) -> None:
    value["more"] = 1


def _fraction(value: Value) -> None:
    _target(value)["length"] = 1.5


def _stranger(value: Value) -> None:
    next(iter(value["drafts"].values()))["signatures"].append({"keyid": "0" * 64, "sig": "00"})


def _broken_signature(value: Value) -> None:
    signature = next(iter(value["drafts"].values()))["signatures"][0]
    signature["sig"] = signature["sig"][:-4] + "0000"


def _signature_of_another_draft(value: Value) -> None:
    one, other = value["drafts"].values()
    keyid = one["signatures"][0]["keyid"]
    one["signatures"][0] = {"keyid": keyid, "sig": other["signatures"][0]["sig"]}


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_other_counter, "expected the counter of its path, got 7"),
        (_other_counter_and_path, "words: expected what the metadata says (release 7: "),
        (_other_digest, "which is its digest, got"),
        (_other_bundle, "words: expected what the metadata says (release 1: "),
        (_other_file, "words: expected what the metadata says ( 00000000"),
        (_other_hardware, "words: expected what the metadata says (release 1: reference, for x86, arm"),
        (_other_end, "expected it to end"),
        (_rollback, "expected version 2, got 1"),
        (_other_snapshot, "image snapshot: expected what it follows with the changes told, got other meta"),
        (_no_snapshot, "expected the version that the snapshot before it names"),
        (_unknown_role, "expected one of image root"),
        (_unknown_bin, "image bin-zz: expected a role that is delegated"),
        (_online_role, "expected roots of director, image"),
        (_another_bin, "before: expected"),
        (_before_has_it_already, "expected a version before it that is signed"),
        (_other_bins_keys, "image targets: expected a version before it that is signed"),
        (_other_root, "image root: expected signatures by 2 keys, got 0"),
        (_no_roots, "expected roots of image"),
        (_another_release, "words: expected what the metadata says (release 5: "),
        (_no_release, "expected NAME/COUNTER/manifest.json, got 'evil'"),
        (_more_in_a_target, "expected a release's fields alone"),
        (_more_in_a_draft, "expected what it follows with the changes told, got other more"),
        (_delegations, "expected what it follows with the changes told, got other delegations"),
        (_oversized, "expected a request of at most"),
        (_long_metadata, "image snapshot: expected at most 262144 bytes"),
        (_long_ago, "expected a request of the last 30 days"),
        (_in_years, "expected a request of the last 30 days"),
        (_other_words, "words: expected what the metadata says (release 1: "),
        (_more_words, "words: expected what the metadata says (nothing more)"),
        (_unknown_field, "expected a request with"),
        (_fraction, "no whole number"),
        (_stranger, "expected signatures of its own keys"),
        (_broken_signature, "expected signatures that hold"),
        (_signature_of_another_draft, "expected signatures that hold"),
    ],
)
def test_a_tampered_request_is_neither_signed_nor_accepted(
    cloud: Cloud, bare: Shelf, bundles: list[Path], tamper: Callable[[Value], None], said: str
) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0)
    value = json.loads(path.read_text())
    tamper(value)
    path.write_text(json.dumps(value))
    tampered, before = path.read_bytes(), rows(bare)
    assert said in cloud.sign(path, 1, code=2)
    assert said in cloud.run("accept", path, code=2)
    assert path.read_bytes() == tampered and rows(bare) == before


@pytest.mark.parametrize("tamper", [_other_counter_and_path, _other_bundle, _other_hardware, _another_release])
def test_a_request_whose_words_were_altered_too_loses_its_signatures(
    cloud: Cloud, bare: Shelf, bundles: list[Path], tamper: Callable[[Value], None]
) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0, 1)
    value = json.loads(path.read_text())
    tamper(value)
    altered = Request.of(json.dumps(value).encode())
    value["words"] = list(review.change(altered).words)
    path.write_text(json.dumps(value))
    assert "expected signatures that hold" in cloud.run("accept", path, code=2)
    for draft in value["drafts"].values():
        draft["signatures"] = []
    path.write_text(json.dumps(value))
    assert "expected 2 of the 2 keys of image bins" in cloud.run("accept", path, code=2)
    assert value["words"][0] in cloud.alone("sign", path, "--keys", bare.folders[0], "--yes")  # who signs reads it


def _lower_threshold(value: Value) -> None:
    value["drafts"]["image root"]["signed"]["roles"]["targets"]["threshold"] = 1


def _one_more_key(value: Value) -> None:
    root = value["drafts"]["image root"]["signed"]
    root["roles"]["timestamp"]["keyids"].append(root["roles"]["root"]["keyids"][0])


def _key_moved(value: Value) -> None:
    roles = value["drafts"]["image root"]["signed"]["roles"]
    roles["timestamp"]["keyids"] = roles["root"]["keyids"][:1]


def _more_roles(value: Value) -> None:
    roles = value["drafts"]["image root"]["signed"]["roles"]
    roles["mirrors"] = copy.deepcopy(roles["timestamp"])


def _other_key_value(value: Value) -> None:
    root = value["drafts"]["image root"]["signed"]
    root["keys"][root["roles"]["targets"]["keyids"][-1]]["keyval"]["public"] = "11" * 32


def _no_consistent_snapshot(value: Value) -> None:
    value["drafts"]["image root"]["signed"]["consistent_snapshot"] = False


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_lower_threshold, "image root: expected what it follows with the changes told, got other roles"),
        (_one_more_key, "image timestamp: expected one key in place of another, got 1 in place of 0"),
        (_key_moved, "image root: expected what it follows with the changes told, got other keys"),
        (_more_roles, "image root: expected metadata as it was published, got Role names must be"),
        (_other_key_value, "image root: expected an ed25519 key under its own id"),
        (_no_consistent_snapshot, "got other consistent_snapshot"),
    ],
)
def test_a_rotation_that_does_more_is_refused(
    cloud: Cloud, tmp_path: Path, tamper: Callable[[Value], None], said: str
) -> None:
    cloud.alone("keys", "new", "image", "targets", "--keys", tmp_path / "d")
    (public,) = (tmp_path / "d").glob("*.public.json")
    path = cloud.propose("keys", "rotate", "image", "targets", "--with", public)
    value = json.loads(path.read_text())
    tamper(value)
    path.write_text(json.dumps(value))
    assert said in cloud.sign(path, 0, code=2)
    assert said in cloud.run("accept", path, code=2)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"a": 1, "a": 2}', b"\xff", b"NaN"])
def test_what_is_no_request_is_refused_in_one_line(cloud: Cloud, bare: Shelf, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(content)
    assert "expected a request" in cloud.sign(path, 0, code=2)
    assert "expected a request" in cloud.run("accept", path, code=2)


def test_whatever_single_value_is_altered_is_refused(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    """But what nobody signs: words for the catalogue, and signatures of roots beyond those that are needed."""
    bare.add(bundles[1])
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0, 1)
    value = json.loads(path.read_text())
    taken = []
    for where in leaves(value):
        if where[0] == "said" or (where[0] == "roots" and "signatures" in where):
            continue
        altered = copy.deepcopy(value)
        holder = altered
        for key in where[:-1]:
            holder = holder[key]
        old = holder[where[-1]]
        holder[where[-1]] = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int) else f"{old}0"
        try:
            review.check(Request.of(json.dumps(altered).encode()), now())
            taken.append(where)
        except ReleaseError:
            pass
    assert taken == []


def leaves(value: Value, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where strings and numbers are."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield where
        return
    for key, one in items:
        yield from leaves(one, (*where, key))


def test_a_request_is_the_same_after_a_file(cloud: Cloud, bundles: list[Path]) -> None:
    path = cloud.propose("add", bundles[0])
    cloud.sign(path, 0)
    assert Request.of(path.read_bytes()).to_bytes() == path.read_bytes()


def test_the_clock_of_who_signs_may_be_a_day_off(cloud: Cloud, bundles: list[Path]) -> None:
    made = Request.of(cloud.propose("add", bundles[0]).read_bytes())
    for days, is_fine in ((-0.9, True), (-1.1, False), (29, True), (31, False)):
        try:
            review.check(made, now() + days * DAY)
            assert is_fine
        except ReleaseError as error:
            assert not is_fine and "the clock here says" in str(error)


def test_a_large_bundle_folder_is_not_needed_to_sign(cloud: Cloud, tmp_path: Path) -> None:
    """The request alone is some kilobytes, whatever the bundle's size."""
    path = cloud.propose("add", bundle(tmp_path, "9"))
    assert path.stat().st_size < 20_000
