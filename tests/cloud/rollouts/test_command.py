"""`roadfuse rollout`: what it prints, what it refuses, with and without --json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cloud.database import connect, migrate
from cloud.errors import CloudError, RolloutError
from cloud.releases import stops
from cloud.rollouts.command import main
from cloud.rollouts.engine import Control
from cloud.tables import FLEET
from edge.errors import RoadfuseError
from roadfuse.v1.updates_pb2 import Stage

from ..fleet import command
from .fleets import INTERVAL_S, NEW, QUICK, Cars, clear, release


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def cars(engine: Engine) -> Cars:
    clear(engine)
    with engine.begin() as connection:
        release(connection)
    return Cars(engine, 30)


Say = Callable[..., str]


@pytest.fixture
def say(engine: Engine, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*map(str, words), "--data", str(tmp_path), "--database", database]) == code
        return capsys.readouterr().out

    return run


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    table, waves = QUICK["shadow"], QUICK["waves"]
    path.write_text(
        "\n".join([
            "[shadow]", *(f"{key} = {value}" for key, value in table.items()),  # type: ignore[attr-defined]
            *(line for wave in waves for line in ("[[waves]]", *(f"{k} = {json.dumps(v)}" for k, v in wave.items()))),  # type: ignore[attr-defined]
            "[tests]", f"interval_s = {INTERVAL_S}", "tolerable_per_hour = 5.0", 'slices = [{name = "all"}]',
            "[control]", "share = 0.2",
        ])
    )  # fmt: skip
    return path


def carry_out(engine: Engine, cars: Cars, steps: int, failing: dict[str, int] | None = None) -> None:
    with engine.connect() as connection:
        control = Control(connection, clock=cars.clock, grace_s=0.0)
        for _ in range(steps):
            cars.drive(INTERVAL_S - cars.now_s % INTERVAL_S - 2.0, failing)
            control.cycle()
            cars.now_s += 3.0
            cars.obey()
            control.cycle()


def test_a_rollout_from_its_begin_to_its_end_in_words(say: Say, engine: Engine, cars: Cars, quick: Path) -> None:
    made = json.loads(say("create", 2, "--policy", quick, "--by", "ann", "--json"))
    id = made["id"]
    assert made["state"] == "created" and say("list").startswith(f"{id}  release 2 (demo 1)  created  by ann")
    assert "waits for  a start" in say("explain", id)
    assert "start by ann is in the log" in say("start", id, "--by", "ann")
    carry_out(engine, cars, 2)
    told = say("explain", id)
    assert "running, wave 0 of 3 (the shadow)" in told and "waits for  " in told and "shadow it" in told
    assert "against    e-value" in told and "stopped at 1000" in told and "the next wave needs " in told
    facts = json.loads(say("explain", id, "--json"))
    assert facts["waits_for"] and facts["needed"] == 1000.0 and facts["exposed_h"]["shadow/all"] > 0
    carry_out(engine, cars, 60)
    assert say("list").split("  ")[2].startswith("done")
    watched = say("watch", id)
    for words in ("start by ann", "  the shadow begins", "the shadow: 15 vehicles are told to shadow it (car-",
                  "wave 1 begins", "told to run it (car-", "finish: all waves are through"):  # fmt: skip
        assert words in watched
    assert all("says" in json.loads(line) for line in say("watch", id, "--json").splitlines())
    assert "the rules gave the same" in say("replay", id)
    assert json.loads(say("replay", id, "--json"))["differs"] == ""
    assert "recorded" in say("log", id) and json.loads(say("log", id, "--json").splitlines()[0])["number"] == 1


def test_a_worse_release_is_stopped_and_explain_says_which_test_did_it(
    say: Say, engine: Engine, cars: Cars, quick: Path
) -> None:
    id = json.loads(say("create", 2, "--policy", quick, "--start", "--json"))["id"]
    carry_out(engine, cars, 60, {NEW: 1})
    told = say("explain", id)
    assert "state      stopped: worse in the shadow: " in told and "test       shadow failure (all): " in told
    assert "stop: worse in the shadow" in say("watch", id)
    with pytest.raises(RolloutError, match="not over"):
        say("pause", id)


def refusing(engine: Engine, refused: dict[str, str]) -> None:
    """Vehicles say that they refused the new bundle, and why; `carry_out` keeps them so."""
    with engine.begin() as connection:
        for vehicle, why in refused.items():
            row = FLEET.update().where(FLEET.c.vehicle == vehicle)
            connection.execute(row.values(refused=NEW, why=why, stage=Stage.STAGE_REFUSED))


def test_who_refused_the_bundle_before_is_told_of_when_it_is_sent_again(
    say: Say, engine: Engine, cars: Cars, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing(engine, {
        "car-00003": f"{NEW[:12]}: put back: late: 9.9 ms a frame, the previous bundle 4.1 ms",
        "car-00004": "release 1 was refused here: put back: late: 8.7 ms a frame, the previous bundle 4.4 ms",
        "car-00005": f"{NEW[:12]}: self-test: camera: expected 3 answers, got others",
        "car-00006": "",
    })  # fmt: skip
    quick.write_text("where = 'vehicle != \"car-00006\"'\n" + quick.read_text())
    made = json.loads(say("create", 2, "--policy", quick, "--json"))
    assert made["refused"]["vehicles"] == 3 and made["refused"]["of"] == 29 and not made["is_started"]
    assert made["refused"]["reasons"][0]["vehicles"] == ["car-00003", "car-00004"]
    main(["create", "2", "--data", str(quick.parent), "--database", str(engine.url.render_as_string(False)), "--json"])
    note = capsys.readouterr().err
    assert "note: 4 of 30 vehicles have refused this bundle and will not take it again" in note
    assert f"`roadfuse update pardon {NEW[:12]}` there" in note
    lines = ("2 said put back: late: 9.9 ms a frame, the previous bundle 4.1 ms (car-00003, car-00004)",
             "1 said self-test: camera: expected 3 answers, got others (car-00005)")  # fmt: skip
    assert all(f"note: {line}\n" in note for line in lines)
    id = made["id"]
    explained, watched = say("explain", id), say("watch", id, "--once")
    assert all(f"refused    {line}\n" in explained and f"now                  {line}\n" in watched for line in lines)
    assert json.loads(say("explain", id, "--json"))["refused"] == made["refused"]
    assert json.loads(say("watch", id, "--once", "--json").splitlines()[0])["refused"] == made["refused"]
    say("start", id)
    carry_out(engine, cars, 4)
    assert not cars.assigned(1) & {"car-00003", "car-00004", "car-00005"}
    say("abort", id)
    carry_out(engine, cars, 1)
    assert "refused    " not in say("explain", id) and "now  " not in say("watch", id)


def test_a_release_that_nobody_refused_comes_without_a_note(
    say: Say, cars: Cars, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say("create", 2, "--policy", quick, "--start", "--by", "ann")
    assert said.splitlines()[1].endswith(": start by ann is in the log, for the cloud to carry out (was created)")
    assert json.loads(say("list", "--json"))[0]["id"] in said and not capsys.readouterr().err


def test_approval_is_by_default_of_the_wave_that_waits(say: Say, engine: Engine, cars: Cars, quick: Path) -> None:
    quick.write_text(quick.read_text().replace('name = "canary"', 'name = "canary"\nneeds_approval = true'))
    id = json.loads(say("create", 2, "--policy", quick, "--start", "--json"))["id"]
    carry_out(engine, cars, 3)
    with pytest.raises(RolloutError, match="expected a wave that waits for approval"):
        say("approve", id)
    carry_out(engine, cars, 30)
    assert "waits for  approval of wave 1" in say("explain", id)
    assert "wave 1 waits for approval" in say("watch", id, "--once")
    say("approve", id, "--by", "zoe")
    carry_out(engine, cars, 2)
    assert "approved   wave 1 by zoe" in say("explain", id)
    say("abort", id, "--why", "it snows")
    carry_out(engine, cars, 1)
    assert "aborted by " in say("list") and "it snows" in say("list")


def test_a_stop_is_by_id_by_its_begin_or_by_a_releases_counter(say: Say, cars: Cars) -> None:
    for words in (NEW, NEW[:8], "2"):
        said = say("stop", words, "--why", "smoke")
        assert "stopped, notice" in said and f"before `roadfuse release lift {NEW[:16]}`" in said
    assert json.loads(say("stop", "2", "--why", "smoke", "--json"))["bundle"] == NEW
    assert "stopped, notice" in say("stop", "99" * 32, "--why", "of no release that is known here")
    for words in ("", "3", "zz"):
        with pytest.raises(RolloutError, match="expected the id of a bundle"):
            say("stop", words, "--why", "smoke")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--why", ""), "a reason of 1 to"),
        (("--why", " "), "a reason of 1 to"),
        (("--why", "smoke\x1b[2J"), "a reason of printable characters"),
        (("--why", "smoke", "--by", "\x01"), "who says so"),
    ],
)
def test_a_stop_needs_a_reason_that_can_be_read(
    words: tuple[str, ...], expected: str, say: Say, engine: Engine, cars: Cars
) -> None:
    with pytest.raises(RolloutError, match=expected):
        say("stop", "2", *words)
    with engine.connect() as connection:
        assert stops.reason(connection, NEW) is None


def test_what_is_wrong_is_said_in_one_line(say: Say, cars: Cars, tmp_path: Path, quick: Path) -> None:
    deep = tmp_path / "deep.toml"
    deep.write_text("x = " + "[" * 100_000)
    for words in (("create", 9), ("create", 10**22), ("start", "none"), ("explain", "none"),
                  ("create", 2, "--policy", tmp_path / "none"), ("create", 2, "--policy", deep),
                  ("create", 2, "--without-gates", " ")):  # fmt: skip
        with pytest.raises(RoadfuseError) as error:
            say(*words)
        assert "expected" in str(error.value) and "\n" not in str(error.value)
    quick.write_text("nonsense = 3")
    with pytest.raises(RolloutError, match="expected a key of"):
        say("create", 2, "--policy", quick)
    with pytest.raises(CloudError, match="data folder"):
        main(["list", "--data", str(tmp_path / "none")])


def test_misuse_is_exit_code_2_without_a_traceback(tmp_path: Path) -> None:
    done = command("rollout", "list", "--data", tmp_path / "none", check=False)
    assert (
        done.returncode == 2 and done.stderr.startswith("roadfuse rollout: expected") and "Traceback" not in done.stderr
    )
