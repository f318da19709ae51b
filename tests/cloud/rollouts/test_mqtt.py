"""Reports of vehicles through a real broker into a real database; hostile ones are counted and change nothing."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from cloud.database import connect, migrate
from cloud.errors import CloudError
from cloud.rollouts.intake import FULL_S, Intake
from cloud.rollouts.mqtt import HEARD, Address, Line
from cloud.tables import FLEET, TALLIES
from roadfuse.v1 import updates_pb2
from tests.edge.broker import MOSQUITTO

from .broker import Broker

NEW, OLD = "ab" * 32, "cd" * 32


def evidence(
    seconds: float = 60.0, frames: int = 1_200, *, bundle: str = OLD, account: bytes = b"a", **counts: int
) -> str:
    told = updates_pb2.Evidence(bundle_id=bundle, account=account)
    told.tallies.add(slice="all", seconds=seconds, frames=frames).counts.update(counts)
    return base64.b64encode(told.SerializeToString()).decode()


def report(**more: Any) -> bytes:
    said = {"stage": "STAGE_IDLE", "active": OLD, "counter": 3, "state": "driving", "evidence": [evidence()]}
    return json.dumps(said | more).encode()


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def vehicles(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE vehicles CASCADE"))
        names = [f"car-{n}" for n in range(5)]
        connection.execute(text("INSERT INTO vehicles (name) VALUES (:name)"), [{"name": name} for name in names])
    return names


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def intake(engine: Engine, vehicles: list[str]) -> Intake:
    return Intake(engine, Clock())


def fleet(engine: Engine) -> dict[str, Any]:
    with engine.begin() as connection:
        return {row.vehicle: row for row in connection.execute(select(FLEET))}


def tallies(engine: Engine) -> list[Any]:
    with engine.begin() as connection:
        return list(connection.execute(select(TALLIES).order_by(TALLIES.c.vehicle, TALLIES.c.slice)))


def say(intake: Intake, vehicle: str, payload: bytes, what: str = "reported", *, retained: bool = False) -> None:
    intake.take(f"roadfuse/{vehicle}/{what}", payload, retained)


def test_a_report_is_what_the_fleet_says_and_its_counts_are_kept(engine: Engine, intake: Intake) -> None:
    say(intake, "car-1", report(stage="SHADOWING", staged=NEW, rollout="r1", why="late", refused=NEW, refused_until=2))
    assert intake.flush() == 1
    row = fleet(engine)["car-1"]
    assert row.refused_until == 2
    assert (row.stage, row.active, row.staged, row.counter, row.rollout, row.why, row.refused, row.state) == (
        updates_pb2.STAGE_SHADOWING, OLD, NEW, 3, "r1", "late", NEW, "driving",
    )  # fmt: skip
    assert row.seen_at is not None
    (tally,) = tallies(engine)
    assert (tally.bundle_id, tally.is_shadow, tally.slice, tally.seconds, tally.frames) == (OLD, False, "all", 60, 1200)


def test_of_many_reports_of_a_vehicle_the_last_counts_and_words_come_in_one_transaction(
    engine: Engine, intake: Intake
) -> None:
    for n in range(20):
        say(intake, "car-1", report(counter=n, evidence=[evidence(60.0 + n, late=n)]))
        say(intake, "car-2", report(counter=100 + n))
    assert intake.flush() == 2
    assert {name: row.counter for name, row in fleet(engine).items()} == {"car-1": 19, "car-2": 119}
    assert [(row.seconds, row.counts) for row in tallies(engine)] == [(79.0, {"late": 19}), (60.0, {})]


def test_an_older_word_about_an_account_changes_nothing(engine: Engine, intake: Intake) -> None:
    for words in (evidence(90.0, 1_800, late=2), evidence(60.0), evidence(90.0, 1_800), evidence(90.0, 1_800, late=1)):
        say(intake, "car-1", report(evidence=[words]))
        intake.flush()
    assert [(row.seconds, row.counts) for row in tallies(engine)] == [(90.0, {"late": 2})]
    say(intake, "car-1", report(evidence=[evidence(90.0, 1_800, late=2, frozen=1), evidence(5.0, 9, account=b"b")]))
    intake.flush()
    assert {row.account: row.counts for row in tallies(engine)} == {b"a": {"late": 2, "frozen": 1}, b"b": {}}


def test_a_report_with_nothing_new_moves_only_when_it_was_seen(engine: Engine, intake: Intake) -> None:
    say(intake, "car-1", report())
    intake.flush()
    first, told = fleet(engine)["car-1"], tallies(engine)[0].told_at
    with engine.begin() as connection:
        connection.execute(text("UPDATE fleet SET counter = 77"))  # would be written over by a report in full
    say(intake, "car-1", report())
    intake.flush()
    then = fleet(engine)["car-1"]
    assert then.seen_at > first.seen_at and then.counter == 77 and tallies(engine)[0].told_at == told
    intake._clock.now += FULL_S  # type: ignore[attr-defined]
    say(intake, "car-1", report())
    intake.flush()
    assert fleet(engine)["car-1"].counter == 3, "now and then it is written in full"


def test_who_is_gone_is_gone_until_it_speaks_again(engine: Engine, intake: Intake) -> None:
    def state(*words: tuple[bytes, str, bool]) -> Any:
        for payload, what, retained in words:
            say(intake, "car-1", payload, what, retained=retained)
        intake.flush()
        return fleet(engine)["car-1"].state

    gone, offline, online = (json.dumps({"state": word}).encode() for word in ("gone", "offline", "online"))
    assert state((report(), "reported", False)) == "driving"
    assert state((gone, "status", False)) == "gone"
    seen = fleet(engine)["car-1"].seen_at
    assert state((report(), "reported", True)) == "gone", "what the broker had in store says nothing"
    assert fleet(engine)["car-1"].seen_at == seen
    assert state((report(state="parked"), "reported", False)) == "parked"
    assert state((report(), "reported", False), (offline, "status", False)) == "offline"
    assert state((online, "status", False)) == "driving"
    assert state((gone, "status", True), (report(counter=4), "reported", True)) == "gone"
    assert state((gone, "status", False), (report(), "reported", False)) == "driving"


HOSTILE = [
    b"", b"\xff\xfe", b"[]", b"nonsense", b"[" * 60_000, b"7", b'{"stage": 99}', b'{"stage": true}',
    b'{"active": "' + b"x" * 64 + b'"}', b'{"active": ["a"]}', b'{"counter": -1}', b'{"counter": 1e3}',
    b'{"counter": %d}' % (1 << 70), b'{"state": "flying"}', b'{"evidence": "x"}', b'{"evidence": [7]}',
    b'{"evidence": ["!!!"]}', b'{"evidence": ["' + base64.b64encode(b"\xff" * 30) + b'"]}',
    b'{"rollout": "a b"}', b'{"why": 7}', b'{"padding": "' + b"x" * 70_000 + b'"}',
    report(evidence=[evidence(float("nan"))]), report(evidence=[evidence(-1.0)]), report(evidence=[evidence(1e300)]),
    report(evidence=[evidence(60.0, 1 << 63)]), report(evidence=[evidence(late=1 << 63)]),
    report(evidence=[evidence(bundle="x")]), report(evidence=[evidence(account=b"")]),
    report(evidence=[evidence(account=b"x" * 99)]), report(evidence=[evidence()] * 99),
    report(evidence=[evidence(**{"L\u00e4te; DROP": 1})]),
    report(evidence=[evidence(**{f"m{n}": 1 for n in range(99)})]),
]  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_report_is_counted_and_changes_nothing(engine: Engine, intake: Intake, payload: bytes) -> None:
    say(intake, "car-1", report())
    intake.flush()
    before = fleet(engine), tallies(engine)
    say(intake, "car-1", payload)
    intake.flush()
    assert intake.dropped == 1 and (fleet(engine), tallies(engine)) == before
    say(intake, "car-1", payload, "status")
    say(intake, "car-2", report())
    intake.flush()
    assert intake.dropped == 2 and set(fleet(engine)) == {"car-1", "car-2"}, "others are heard"


def test_words_that_no_database_takes_are_made_fit(engine: Engine, intake: Intake) -> None:
    say(intake, "car-1", report(why="a\0b\ud800c" + "x" * 9_999))
    intake.flush()
    why = fleet(engine)["car-1"].why
    assert why.startswith("a?b?c") and len(why) == 500 and intake.dropped == 0


def test_a_vehicle_that_nobody_enrolled_is_not_written(engine: Engine, intake: Intake) -> None:
    for name in ("stranger", "car 1", "x" * 99, "", "ü"):
        say(intake, name, report())
    say(intake, "car-1", report())
    intake.flush()
    assert set(fleet(engine)) == {"car-1"} and {row.vehicle for row in tallies(engine)} == {"car-1"}


def test_a_vehicle_fills_its_own_rows_and_those_only_so_far(
    engine: Engine, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.rollouts.intake.MOST_ROWS", 70)
    for n in range(20):
        say(intake, "car-1", report(evidence=[evidence(account=b"%d" % n)]))
        say(intake, "car-2", report(evidence=[evidence(60.0 + n)]))
        intake.flush()
    rows = [row.vehicle for row in tallies(engine)]
    assert rows.count("car-1") == 7 and rows.count("car-2") == 1
    assert max(row.seconds for row in tallies(engine)) == 79.0, "rows that are there go on"


def test_what_a_database_that_was_away_did_not_take_comes_later(engine: Engine, vehicles: list[str]) -> None:
    away = connect("postgresql://nobody@127.0.0.1:1/none")
    intake = Intake(away)
    say(intake, "car-1", report(counter=5))
    with pytest.raises(Exception, match=r"refused|failed"):
        intake.flush()
    say(intake, "car-1", b'{"state": "offline"}', "status")
    say(intake, "car-2", report())
    intake._engine = engine
    assert intake.flush() == 2
    assert fleet(engine)["car-1"].counter == 5 and fleet(engine)["car-1"].state == "offline"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip("no mosquitto on this machine: apt-get install mosquitto")
    with Broker(tmp_path_factory.mktemp("data")) as broker:
        yield broker


def test_reports_come_through_and_a_line_comes_back_after_the_broker_did(
    broker: Broker, engine: Engine, intake: Intake
) -> None:
    ups: list[int] = []
    address = Address.parse(broker.address, broker.data, False)
    car = broker.client("car-1")
    car.publish("roadfuse/car-1/reported", report(counter=8), retain=True)
    with Line(address, "test-intake", HEARD, lambda: ups.append(1), intake.take) as line:
        assert line.wait(30)
        until(lambda: bool(intake.flush()) and fleet(engine)["car-1"].counter == 8)
        assert fleet(engine)["car-1"].seen_at is None, "it was in store"
        car.publish("roadfuse/car-1/reported", report(counter=9), retain=True)
        until(lambda: bool(intake.flush()) and fleet(engine)["car-1"].counter == 9)
        assert fleet(engine)["car-1"].seen_at is not None
        broker.kill()
        until(lambda: not line.is_up)
        assert line.say("roadfuse/car-1/desired", b"x") is None, "nothing waits for a broker that is away"
        broker.start()
        until(lambda: line.is_up and len(ups) == 2)
        car.close()
        car = broker.client("car-1")
        car.publish("roadfuse/car-1/reported", report(counter=10), retain=True)
        until(lambda: bool(intake.flush()) and fleet(engine)["car-1"].counter == 10)
        car.close()


def test_a_broker_that_is_away_at_first_is_waited_for(broker: Broker) -> None:
    broker.kill()
    with Line(Address.parse(broker.address, broker.data, False), "test-early") as line:
        assert not line.wait(0.5)
        broker.start()
        assert line.wait(60)


def test_a_broker_of_another_ca_is_not_spoken_to(broker: Broker, tmp_path: Path) -> None:
    from cloud import certificates

    certificates.create(tmp_path / "ca")
    with Line(Address.parse(broker.address, tmp_path, False), "test-other") as line:
        assert not line.wait(1.5)


@pytest.mark.parametrize("broker", ["", "host", ":1883", "host:", "host:0", "host:99999", "host:x"])
def test_an_address_that_is_none_is_refused(broker: str, tmp_path: Path) -> None:
    with pytest.raises(CloudError, match="expected a broker as HOST:PORT"):
        Address.parse(broker, tmp_path, True)


def until(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
