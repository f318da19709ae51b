"""Keys that never meet: who proposes has no keys, who signs has one folder of them, who accepts has none again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.errors import ReleaseError
from cloud.releases import ceremony, review, rotation, stops, stored
from cloud.releases.image import Image
from cloud.releases.keys import IMAGE, PASSPHRASE, KeyFolders
from cloud.releases.request import Request
from cloud.releases.signing import first_root, root_of, signed
from edge.bundle import load

from .machines import Cloud
from .shelf import DAY, Client, Shelf, bundle, now
from .test_image import rows

SECRET = "a long walk"


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


def test_a_counter_that_goes_back_is_not_proposed(cloud: Cloud, bare: Shelf, bundles: list[Path]) -> None:
    release, at = bare.add(bundles[0], least_counter=100), now()
    with bare.engine.begin() as connection:
        image = Image(connection, at)
        for counter in range(1, 100):  # one of them lies in the bin where 100 does
            image.put(replace(release, counter=counter, path=f"reference/{counter}/manifest.json").image_target())
        with pytest.raises(ReleaseError, match="expected a counter above 100, got"):
            ceremony.propose(connection, image.drafts(), at)


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
