"""`roadfuse release ...` as a person runs it: keys, releases, revocation, and mistakes of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloud.releases import rotation
from cloud.releases.keys import PASSPHRASE
from edge.bundle import load
from edge.command import main

from .shelf import DAY, Client, Shelf, now


class Person:
    """Runs commands in this process."""

    def __init__(self, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
        self._shelf, self._capsys = shelf, capsys

    def run(self, *words: object, keys: bool = False, code: int = 0) -> str:
        """`roadfuse release WORDS`; what it printed, or said of a mistake."""
        folders = [word for folder in self._shelf.folders for word in ("--keys", str(folder))] if keys else []
        place = ["--data", str(self._shelf.data), "--database", self._shelf.database]
        got = main(["release", *map(str, words), *place, *folders])
        out = self._capsys.readouterr()
        assert got == code, out.err
        return out.out if code != 2 else out.err

    def told(self, *words: object, **named: Any) -> Any:
        """The same, as JSON."""
        return json.loads(self.run(*words, "--json", **named))


@pytest.fixture
def person(bare: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Person:
    monkeypatch.delenv(PASSPHRASE, raising=False)
    return Person(bare, capsys)


def test_from_keys_to_a_release_that_is_taken_back(
    person: Person, bare: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    made = person.told("keys", "create", keys=True)
    assert "image bins" in made["roles"] and all(any(folder.iterdir()) for folder in bare.folders)
    added = person.told("add", bundles[0], "--hardware", "x86", "--hardware", "orin", "--notes", "first", keys=True)
    assert (added["counter"], added["hardware"], added["notes"]) == (1, ["x86", "orin"], "first")
    assert "2  reference" in person.run("add", bundles[1], keys=True)
    assert Client(bare, tmp_path).find("reference/2/manifest.json") is not None
    assert [one["counter"] for one in person.told("list")] == [2, 1]
    shown = person.run("show", 1)
    assert load(bundles[0]).id in shown and "runs on 0 vehicles" in shown and "manifest.json" in shown
    assert person.told("revoke", 1, "--why", "worse at night", keys=True)["revoked"] == [1]
    assert person.told("show", 1)["stopped"] == "worse at night"
    assert [bool(one["revoked_at"]) for one in person.told("list")] == [False, True]
    assert "expected a bundle that is not stopped" in person.run("add", bundles[0], keys=True, code=2)
    person.run("lift", load(bundles[0]).id[:12])
    assert person.told("add", bundles[0], keys=True)["counter"] == 3


def test_keys_are_rotated_and_revoked_by_command(person: Person, bare: Shelf) -> None:
    person.run("keys", "create", keys=True)
    change = person.told("keys", "rotate", "image", "targets", keys=True)
    assert change["published"] == ["root", "targets", "snapshot", "timestamp"]
    change = person.told(
        "keys", "revoke", "director", "snapshot", "--key", _key(person, "director", "snapshot"), keys=True
    )
    assert change["published"] == ["root"]
    assert change["old"][:16] not in person.run("keys", "show", keys=True)


def test_roots_are_written_for_vehicles_that_get_them_by_hand(person: Person, bare: Shelf, tmp_path: Path) -> None:
    person.run("keys", "create", keys=True)
    person.run("keys", "rotate", "image", "root", keys=True)
    person.run("keys", "roots", "--out", tmp_path / "roots")
    names = {path.name for path in (tmp_path / "roots").iterdir()}
    numbered = {"1.director-root.json", "1.image-root.json", "2.image-root.json"}
    assert names == {"director-root.json", "image-root.json", *numbered}
    assert (tmp_path / "roots" / "image-root.json").read_bytes() == bare.root(version=2)


def test_show_warns_before_a_signature_ends(person: Person, bare: Shelf) -> None:
    bare.do(rotation.create, bare.keys, now() - 160 * DAY)
    assert person.run("refresh", code=1).startswith("published image timestamp")
    shown = person.run("keys", "show", code=1)
    assert "image snapshot" in shown and "ENDS SOON" in shown and "(not here)" in shown
    assert "image snapshot" in person.run("refresh", keys=True)
    assert "ENDS SOON" not in person.run("keys", "show", keys=True)
    states = {f"{one['repository']} {one['role']}": one["state"] for one in person.told("keys", "show", keys=True)}
    assert set(states.values()) == {"fine"} and len(states) == 9


def test_a_passphrase_from_the_environment_encrypts_and_opens(
    person: Person, bare: Shelf, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, "a long walk")
    person.run("keys", "create", keys=True)
    assert person.told("add", bundles[0], keys=True)["counter"] == 1
    monkeypatch.setenv(PASSPHRASE, "another")
    assert "passphrase" in person.run("add", bundles[1], keys=True, code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", 9), "expected the counter of a release"),
        (("revoke", 9, "--why", "x"), "expected the counter of a release"),
        (("revoke", 1, "--why", " "), "expected a reason"),
        (("lift", "abcdef"), "expected the id of a bundle that is stopped"),
        (("add", "/nowhere"), "expected a bundle folder"),
        (("keys", "rotate", "director", "bins"), "expected one of image root"),
        (("keys", "rotate", "image", "targets", "--key", "ffff"), "expected --key with one of"),
        (("keys", "create"), "expected no image repository, got one"),
        (("refresh", "--all"), "expected the offline keys"),
        (("keys", "rotate", "image", "root", "--encrypt"), "expected a terminal"),
        (("list", "--database", "mysql://x"), "expected a URL postgresql://"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    person: Person, bare: Shelf, words: tuple[object, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115
    bare.create()
    keys = words[0] not in ("show", "lift", "list", "refresh")
    if "--database" in words:
        assert main(["release", *map(str, words), "--data", str(bare.data)]) == 2
        return
    error = person.run(*words, keys=keys, code=2)
    assert error.count("\n") == 1 and error.startswith("roadfuse release: ") and said in error


def test_without_repositories_each_command_says_what_makes_them(person: Person, bundles: list[Path]) -> None:
    for words in (("add", bundles[0]), ("refresh",), ("keys", "show"), ("keys", "rotate", "image", "root")):
        assert "roadfuse release keys create" in person.run(*words, keys=True, code=2)
    assert person.told("list") == []


def test_a_database_that_fails_is_said_in_one_line(person: Person, bare: Shelf) -> None:
    with bare.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE metadata_files RENAME TO away")
    try:
        error = person.run("keys", "create", keys=True, code=2)
    finally:
        with bare.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO metadata_files")
    assert error.count("\n") == 1 and "the database refuses" in error


def test_keys_within_the_data_are_refused(person: Person, bare: Shelf) -> None:
    bare.folders = [bare.data / "keys"]
    assert "outside the cloud's data" in person.run("keys", "create", keys=True, code=2)


def _key(person: Person, repository: str, role: str) -> str:
    terms = person.told("keys", "show", keys=True)
    found = next(one for one in terms if (one["repository"], one["role"]) == (repository, role))
    return str(next(iter(found["keys"])))[:12]
