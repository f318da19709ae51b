"""Gates on releases of the catalogue: signed or not, whole or not; verdicts kept; the job and the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update

from cloud.errors import Hopeless, ReleaseError
from cloud.gates import book, command
from cloud.gates.candidate import Candidate
from cloud.gates.job import gate
from cloud.gates.judge import judge
from cloud.gates.policy import Policy
from cloud.gates.run import GATES, judged
from cloud.gates.verdict import PASSED, REFUSED, Verdict
from cloud.gates.yardstick import Yardstick
from cloud.hand import Task
from cloud.releases import stops
from cloud.tables import METADATA_FILES, RELEASES, ROLLOUTS
from edge.bundle import REFERENCE, load
from edge.errors import ConfigError

from ..releases.shelf import Shelf, bundle, shelf_at
from . import bad_bundles


@pytest.fixture
def shelf(database: str) -> Iterator[Shelf]:
    """Both repositories, made just now."""
    with shelf_at(database, folders=1) as one:
        with one.engine.begin() as connection:
            connection.exec_driver_sql(
                "TRUNCATE metadata_files, stops, deltas, gates, rollouts, releases RESTART IDENTITY CASCADE"
            )
        one.create()
        yield one


def whole(shelf: Shelf, counter: int, work: Path) -> Verdict:
    """Of the first gate on a release."""
    with shelf.engine.connect() as connection:
        release = book.release(connection, counter)
    folder = book.unpack(shelf.objects, release.row["files"], work / "candidate")
    hardware = tuple(release.row["hardware"])
    return judged("whole", GATES["whole"], Candidate(folder, Yardstick(), hardware, release=release))


def test_signed_release_passes_the_first_gate(shelf: Shelf, tmp_path: Path) -> None:
    release = shelf.add(REFERENCE, hardware=["x86", "orin"])
    found = whole(shelf, release.counter, tmp_path)
    assert found.verdict == PASSED, found.why
    assert "release 1, signed" in found.why


def test_release_whose_row_says_other_than_the_signed_target_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    release = shelf.add(REFERENCE)
    with shelf.engine.begin() as connection:
        connection.execute(update(RELEASES).values(hardware=["x86", "arm"]))
    found = whole(shelf, release.counter, tmp_path)
    assert found.verdict == REFUSED
    assert "signed hardware" in found.why


def test_release_that_its_hash_bin_does_not_name_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    release = shelf.add(REFERENCE)
    with shelf.engine.begin() as connection:
        connection.execute(update(RELEASES).values(path="reference/9/manifest.json"))
    found = whole(shelf, release.counter, tmp_path)
    assert found.verdict == REFUSED
    assert "reference/9/manifest.json" in found.why


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_release_without_signed_metadata_is_refused(role: str, shelf: Shelf, tmp_path: Path) -> None:
    release = shelf.add(REFERENCE)
    with shelf.engine.begin() as connection:
        connection.execute(delete(METADATA_FILES).where(METADATA_FILES.c.role == role))
    found = whole(shelf, release.counter, tmp_path)
    assert found.verdict == REFUSED
    assert "image repository: expected" in found.why


def test_metadata_that_were_changed_after_signing_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    release = shelf.add(REFERENCE)
    table = METADATA_FILES.c
    with shelf.engine.begin() as connection:
        for role, version, content in list(connection.execute(METADATA_FILES.select().with_only_columns(
            table.role, table.version, table.content).where(table.repository == "image"))):  # fmt: skip
            if not role.startswith("bin"):
                continue
            told = json.loads(content)
            told["signed"]["expires"] = "2099-01-01T00:00:00Z"
            connection.execute(
                update(METADATA_FILES).where(table.role == role, table.version == version).values(
                    content=json.dumps(told).encode()
                )
            )  # fmt: skip
    assert whole(shelf, release.counter, tmp_path).verdict == REFUSED


def test_revoked_release_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    release = shelf.add(REFERENCE)
    shelf.revoke(release.counter, "worse at night")
    found = whole(shelf, release.counter, tmp_path)
    assert found.verdict == REFUSED
    assert "worse at night" in found.why


def test_verdicts_are_kept_and_shown(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = bad_bundles.make("more_threads", tmp_path / "bundle")
    release = shelf.add(folder, hardware=["x86"])
    found = list(judge(shelf.engine, shelf.objects, release.counter, tmp_path))
    assert [(each.gate, each.verdict) for each in found] == [("whole", PASSED), ("static", REFUSED)]
    words = ["show", "--release", "1", "--data", str(shelf.data), "--database", shelf.database]
    assert command.main(words) == 1
    assert "threads: expected 1, got 8" in capsys.readouterr().out
    assert command.main([*words, "--json"]) == 1
    assert [row["gate"] for row in json.loads(capsys.readouterr().out)] == ["whole", "static"]


def test_release_is_measured_against_the_one_before_it_that_passed(shelf: Shelf, tmp_path: Path) -> None:
    passed = shelf.add(bad_bundles.make("more_threads", tmp_path / "first")[0], hardware=["x86"])
    shelf.do(book.keep, passed.counter, Verdict("whole", PASSED, ""))
    back = shelf.add(REFERENCE, hardware=["x86"])
    found = {each.gate: each for each in judge(shelf.engine, shelf.objects, back.counter, tmp_path / "work")}
    assert "threads: expected 8, got 1" in found["static"].why


def test_release_that_was_refused_or_stopped_is_no_current_bundle(shelf: Shelf, tmp_path: Path) -> None:
    """Or what is a little worse than it would pass, and so on."""

    def current() -> int | None:
        found: int | None = shelf.do(book.newest_released, 4, "small")
        return found

    one, two, three = (shelf.add(bundle(tmp_path, f"1.0.{n}"), name="small", hardware=["x86"]) for n in range(3))
    assert current() is None, "no gate looked at any of them"
    for made in (one, two, three):
        for gate_name in ("whole", "static"):
            shelf.do(book.keep, made.counter, Verdict(gate_name, PASSED, ""))
    assert current() == three.counter
    shelf.do(book.keep, three.counter, Verdict("static", REFUSED, "threads"))
    assert current() == two.counter
    shelf.do(stops.stop, two.bundle, "worse at night")
    assert current() == one.counter
    shelf.do(stops.lift, two.bundle)
    assert current() == two.counter
    with shelf.engine.begin() as connection:  # somebody vouched for it
        vouched = {"id": "r3", "release": three.counter, "policy": {}, "state": "running", "created_by": "ann"}
        connection.execute(insert(ROLLOUTS).values(vouched))
        assert book.newest_released(connection, 4, "small") == two.counter
        connection.execute(update(ROLLOUTS).values(state="done"))
    assert current() == three.counter


def test_job_judges_a_release_and_keeps_its_verdicts(shelf: Shelf, tmp_path: Path) -> None:
    folder, _ = bad_bundles.make("renamed_label", tmp_path / "bundle")
    release = shelf.add(folder, hardware=["x86"])

    def task(subject: str, **arguments: object) -> Task:
        return Task(1, subject, arguments, None, shelf.engine, shelf.objects, {}, tmp_path, b"", lambda *_: None)

    said = gate(task(str(release.counter)))
    assert [row["verdict"] for row in said["verdicts"]] == [PASSED, REFUSED]
    with shelf.engine.connect() as connection:
        assert [row["verdict"] for row in book.verdicts(connection, release.counter)] == [PASSED, REFUSED]
    for subject in ("99", "newest"):
        with pytest.raises(Hopeless, match="counter of a release"):
            gate(task(subject))
    with pytest.raises(Hopeless, match="set: expected one of standard, short, got 'long'"):
        gate(task("1", drives=str(tmp_path / "drives"), set="long"))
    for policy, got in (({"effekt": 1.0}, "got 'effekt'"), (["effect"], "expected keys and values, got list")):
        with pytest.raises(Hopeless, match=f"gate policy: .*{got}"):
            gate(task("1", drives=str(tmp_path / "drives"), policy=policy))
    assert not (tmp_path / "drives").exists()


def test_release_that_is_not_there_is_said_so(shelf: Shelf, tmp_path: Path) -> None:
    for counter in (7, -1, 10**22):
        with pytest.raises(ReleaseError, match=f"expected the counter of a release, got {counter}"):
            list(judge(shelf.engine, shelf.objects, counter, tmp_path))


@pytest.mark.parametrize("name", ["deep.toml", "deep.json"])
def test_policy_that_is_too_deep_is_said_so(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(("x = " if path.suffix == ".toml" else "") + "[" * 100_000)
    with pytest.raises(ConfigError, match="expected a policy"):
        Policy.read(path)


@pytest.mark.parametrize("key", ["segment_s", "least_units"])
def test_policy_with_a_number_that_no_float_is_is_said_so(key: str) -> None:
    for number in (10**400, float("inf"), float("nan"), -1):
        with pytest.raises(ConfigError, match=f"expected {key} to be a number"):
            Policy.of_dict({key: number})


def test_name_that_leads_out_of_the_folder_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="expected a file's name"):
        book.unpack(shelf.objects, [{"name": "../outside", "sha256": "00"}], tmp_path / "work")
    assert load(REFERENCE).name == "reference"
