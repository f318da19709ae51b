"""The part as a process, with a real broker: killed at any moment it goes on; stops go out at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from cloud.database import connect, migrate
from cloud.rollouts import book, log
from cloud.rollouts.command import main
from cloud.rollouts.evidence import START, Command
from roadfuse.v1.updates_pb2 import StopNotice
from tests.edge.broker import MOSQUITTO

from .broker import Broker
from .fleets import NEW, Cars, clear, policy, release

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine: apt-get install mosquitto")
KILLS = 60 if os.environ.get("ROADFUSE_LONG") else 4
VEHICLES = 30


class Part:
    """`roadfuse cloud serve --only control`."""

    def __init__(self, data: Path, database: str, broker: str) -> None:
        self._argv = [
            sys.executable, "-m", "edge.command", "cloud", "serve", "--only", "control", "--data", str(data),
            "--database", database, "--broker", broker, "--metrics-port", "0",
        ]  # fmt: skip
        self._errors = data / "control.log"

    def start(self) -> None:
        with self._errors.open("a") as errors:
            self.process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("control "), self._errors.read_text()[-2000:]

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("data")) as broker:
        yield broker


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def rollout(engine: Engine) -> str:
    clear(engine)
    Cars(engine, VEHICLES)
    with engine.begin() as connection:
        connection.execute(text("UPDATE fleet SET seen_at = now()"))
        release(connection)
        id = book.create(connection, 2, policy(), "ann").id
        book.command(connection, id, Command(START, "ann"))
    return id


@pytest.fixture
def part(broker: Broker, database: str) -> Iterator[Part]:
    part = Part(broker.data, database, broker.address)
    yield part
    if part.process.poll() is None:
        part.end()


def ordered(engine: Engine, rollout: str) -> list[dict[str, Any]]:
    with engine.begin() as connection:
        rows = log.read(connection, rollout)
    return [one for row in rows if row.kind == log.ORDERED for one in row.content["orders"]]


def assigned(engine: Engine) -> set[str]:
    with engine.begin() as connection:
        return set(connection.execute(text("SELECT vehicle FROM assignments")).scalars())


def until(holds: Callable[[], object], limit_s: float = 90.0) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_killed_at_any_moment_it_goes_on_with_the_same_orders(
    engine: Engine, rollout: str, part: Part, broker: Broker
) -> None:
    chance = random.Random(KILLS)
    for _ in range(KILLS):
        part.start()
        time.sleep(chance.uniform(0.0, 0.6))
        part.end()
    part.start()
    shadow = {f"car-{n:05d}" for n in range(VEHICLES)}
    until(lambda: assigned(engine))
    orders = ordered(engine, rollout)
    kinds = Counter(one["order"] for one in orders)
    assert kinds["promote"] == 1 and set(Counter(one.get("vehicle") for one in orders).values()) == {1}
    assert assigned(engine) == {one["vehicle"] for one in orders if one["order"] == "assign"} < shadow
    one = sorted(assigned(engine))[0]
    car = broker.client(one)
    car.subscribe(f"roadfuse/{one}/desired")
    said = json.loads(car.next(f"roadfuse/{one}/desired"))
    assert (said["rollout"], said["release"], said["mode"]) == (rollout, 2, 1)
    part.end()
    part.start()
    car.publish(f"roadfuse/{one}/reported", json.dumps({"active": NEW, "state": "parked"}), retain=True)
    until(lambda: _active(engine, one) == NEW)
    time.sleep(2.0)
    assert car.heard.empty(), "an engine that starts anew does not make the fleet call"
    car.close()
    with engine.begin() as connection:
        assert log.replayed(log.read(connection, rollout)).differs == ""
    assert part.end(signal.SIGTERM) == 0


def test_a_stop_reaches_every_vehicle_at_once_and_ends_the_rollout(
    engine: Engine, rollout: str, part: Part, broker: Broker, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    part.start()
    until(lambda: assigned(engine))
    cars = [broker.client(f"car-{n:05d}") for n in range(5)]
    for car in cars:
        car.subscribe("roadfuse-fleet/stop")
    where = ["--data", str(broker.data), "--database", database]
    assert main(["stop", "2", "--why", "smoke", "--by", "eve", *where]) == 0
    assert "stopped, notice" in capsys.readouterr().out
    for car in cars:
        assert list(StopNotice.FromString(car.next("roadfuse-fleet/stop")).bundle_ids) == [NEW]
        car.close()
    until(lambda: not assigned(engine))
    late = broker.client("car-00010")
    late.subscribe("roadfuse-fleet/stop")
    assert list(StopNotice.FromString(late.next("roadfuse-fleet/stop")).bundle_ids) == [NEW], "it is retained"
    late.close()
    assert main(["explain", rollout, *where]) == 0
    assert "stopped: stopped by the list of stopped bundles: smoke (by eve)" in capsys.readouterr().out


def test_a_stop_reaches_vehicles_though_no_engine_runs(
    engine: Engine, rollout: str, broker: Broker, database: str
) -> None:
    car = broker.client("car-00001")
    where = ["--data", str(broker.data), "--database", database, "--broker", broker.address]
    assert main(["stop", NEW, "--why", "smoke", *where]) == 0
    car.subscribe("roadfuse-fleet/stop")
    assert list(StopNotice.FromString(car.next("roadfuse-fleet/stop")).bundle_ids) == [NEW]
    car.close()


def _active(engine: Engine, vehicle: str) -> str:
    with engine.begin() as connection:
        return str(
            connection.execute(text("SELECT active FROM fleet WHERE vehicle = :name"), {"name": vehicle}).scalar_one()
        )
