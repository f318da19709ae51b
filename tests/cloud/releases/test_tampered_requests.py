"""Whoever holds the request on its way, or the cloud, has nobody sign or publish but what is written in plain words."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.errors import ReleaseError
from cloud.releases import ceremony, publisher, request, review, rotation
from cloud.releases.keys import IMAGE, PASSPHRASE, KeyFolders
from cloud.releases.request import Request

from .machines import Cloud
from .shelf import Shelf, now, shelf_at
from .test_image import rows

Value = Any  # of JSON


@pytest.fixture(scope="module")
def standing(database: str) -> Iterator[Shelf]:
    """A cloud with three holders; nothing in it changes."""
    with shelf_at(database, folders=3) as shelf:
        shelf.create()
        yield shelf


@pytest.fixture(scope="module")
def release(standing: Shelf, bundles: list[Path]) -> bytes:
    """A request for a release that the first holder signed."""
    draft = publisher.keep(standing.engine, standing.objects, bundles[0], work=standing.data)
    made: Request = standing.do(publisher.propose_add, draft, now())
    ceremony.sign(made, KeyFolders(standing.folders[:1]))
    return made.to_bytes()


@pytest.fixture(scope="module")
def rotated(standing: Shelf, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A request for a new key of targets."""
    new = KeyFolders([tmp_path_factory.mktemp("d")]).create(IMAGE, "targets").public_key
    _, made = standing.do(rotation.propose, IMAGE, "targets", None, standing.online, now(), new=new)
    content: bytes = made.to_bytes()
    return content


@pytest.fixture
def cloud(
    standing: Shelf, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cloud:
    monkeypatch.delenv(PASSPHRASE, raising=False)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    return Cloud(standing, capsys, tmp_path)


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


def _terminal_codes(value: Value) -> None:
    _target(value)["custom"]["files"][1]["name"] = "audio\x9b2J.onnx"


def _role_with_terminal_codes(value: Value) -> None:
    value["drafts"]["image bin-\x1b[2J"] = {"signatures": [], "signed": copy.deepcopy(_bin(value))}


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


def _true(value: Value) -> None:
    value["drafts"]["image snapshot"]["signed"]["meta"]["bin-0.json"]["version"] = True


def _true_counter(value: Value) -> None:
    _target(value)["custom"]["counter"] = True


def _negative_length(value: Value) -> None:
    _target(value)["custom"]["files"][1]["length"] = -1


def _long_file(value: Value) -> None:
    _target(value)["custom"]["files"][1]["length"] = 2 << 30


def _one_name_twice(value: Value) -> None:
    files = _target(value)["custom"]["files"]
    files[2]["name"] = files[1]["name"]


def _other_first_file(value: Value) -> None:
    _target(value)["custom"]["files"].reverse()


def _path_as_name(value: Value) -> None:
    _target(value)["custom"]["files"][1]["name"] = "../audio.onnx"


def _no_custom(value: Value) -> None:
    del _target(value)["custom"]


def _no_drafts(value: Value) -> None:
    value["drafts"], value["before"], value["roots"] = {}, {}, {}


def _of_the_director(value: Value) -> None:
    metadata = {"signatures": [], "signed": copy.deepcopy(_bin(value))}
    value["drafts"]["director targets"] = value["before"]["director targets"] = metadata
    value["roots"]["director"] = value["roots"]["image"]


def _deep(value: Value) -> None:
    for _ in range(500):
        _bin(value)["more"] = [_bin(value).get("more")]


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
        (_terminal_codes, "expected printable text"),
        (_role_with_terminal_codes, "expected printable text"),
        (_oversized, "expected a request of at most"),
        (_long_metadata, "image snapshot: expected at most 262144 bytes"),
        (_long_ago, "expected a request of the last 30 days"),
        (_in_years, "expected a request of the last 30 days"),
        (_other_words, "words: expected what the metadata says (release 1: "),
        (_more_words, "words: expected what the metadata says (nothing more)"),
        (_unknown_field, "expected a request with"),
        (_true, "image snapshot: expected what it follows with the changes told, got other meta"),
        (_true_counter, "expected the counter of its path, got True"),
        (_negative_length, "expected the length and SHA-256 of"),
        (_long_file, "expected files of at most 1073741824 bytes"),
        (_one_name_twice, "different files"),
        (_other_first_file, "expected its manifest as the first file"),
        (_path_as_name, "expected plain file names"),
        (_no_custom, "expected bundle, counter, hardware and files"),
        (_no_drafts, "expected drafts to sign, got none"),
        (_of_the_director, "director targets: expected a role with offline keys"),
        (_deep, "more than 32 levels"),
        (_fraction, "no whole number"),
        (_stranger, "expected signatures of its own keys"),
        (_broken_signature, "expected signatures that hold"),
        (_signature_of_another_draft, "expected signatures that hold"),
    ],
)
def test_a_tampered_request_is_neither_signed_nor_accepted(
    cloud: Cloud, release: bytes, tamper: Callable[[Value], None], said: str
) -> None:
    _refused(cloud, release, tamper, said, holder=1)


@pytest.mark.parametrize("tamper", [_other_counter_and_path, _other_bundle, _other_hardware, _another_release])
def test_a_request_whose_words_were_altered_too_loses_its_signatures(
    cloud: Cloud, release: bytes, tamper: Callable[[Value], None]
) -> None:
    value = json.loads(release)
    tamper(value)
    path = cloud.folder / "request.json"
    altered = Request.of(json.dumps(value).encode())
    value["words"] = list(review.change(altered).words)
    path.write_text(json.dumps(value))
    assert "expected signatures that hold" in cloud.run("accept", path, code=2)
    for draft in value["drafts"].values():
        draft["signatures"] = []
    path.write_text(json.dumps(value))
    assert "expected 2 of the 2 keys of image bins" in cloud.run("accept", path, code=2)
    assert value["words"][0] in cloud.sign(path, 0)  # who signs reads it


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


def _no_bins(value: Value) -> None:
    del value["drafts"]["image targets"]["signed"]["delegations"]


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
        (_no_bins, "image targets: expected hash bins, got none"),
        (_no_consistent_snapshot, "got other consistent_snapshot"),
    ],
)
def test_a_rotation_that_does_more_is_refused(
    cloud: Cloud, rotated: bytes, tamper: Callable[[Value], None], said: str
) -> None:
    _refused(cloud, rotated, tamper, said, holder=0)


def _refused(cloud: Cloud, content: bytes, tamper: Callable[[Value], None], said: str, *, holder: int) -> None:
    value = json.loads(content)
    tamper(value)
    path = cloud.folder / "request.json"
    path.write_text(json.dumps(value))
    tampered, before = path.read_bytes(), rows(cloud.shelf)
    assert said in cloud.sign(path, holder, code=2)
    assert said in cloud.run("accept", path, code=2)
    assert path.read_bytes() == tampered and rows(cloud.shelf) == before


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"a": 1, "a": 2}', b"\xff", b"NaN"])
def test_what_is_no_request_is_refused_in_one_line(cloud: Cloud, content: bytes) -> None:
    path = cloud.folder / "request.json"
    path.write_bytes(content)
    assert "expected a request" in cloud.sign(path, 0, code=2)
    assert "expected a request" in cloud.run("accept", path, code=2)


def test_whatever_single_value_is_altered_is_refused(release: bytes) -> None:
    """Before anybody signed; but for what nobody signs: the catalogue's words, and more signatures than are needed."""
    value = json.loads(release)
    for draft in value["drafts"].values():
        draft["signatures"] = []
    taken = []
    for where in leaves(value):
        if where[0] == "said" or (where[0] == "roots" and "signatures" in where):
            continue
        altered = copy.deepcopy(value)
        holder = altered
        for key in where[:-1]:
            holder = holder[key]
        old = holder[where[-1]]
        for other in others(old):
            holder[where[-1]] = other
            try:
                review.check(Request.of(json.dumps(altered).encode()), now())
                if where[-1] != "sig" or other.lower() != old.lower():  # one signature has two spellings
                    taken.append((where, other))
            except ReleaseError:
                pass
    assert taken == []


def others(value: Value) -> list[Value]:
    """What Python takes for equal is not, once it is JSON."""
    if isinstance(value, str):
        return [one for one in (f"{value}0", value[:-1], value.upper(), value.lower()) if one != value]
    return [int(value), not value] if isinstance(value, bool) else [value + 1, -value, *([True] if value == 1 else [])]


def leaves(value: Value, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where strings and numbers are."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield where
        return
    for key, one in items:
        yield from leaves(one, (*where, key))
