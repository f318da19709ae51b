"""What vehicles are told through a real broker: what differs from what it keeps, and nothing twice."""

from __future__ import annotations

import contextlib
import json
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from cloud.database import connect, migrate
from cloud.rollouts import desires
from cloud.rollouts.desires import Desires, Wanted
from cloud.rollouts.mqtt import Address
from tests.edge.broker import MOSQUITTO

from .broker import Broker, Client
from .fleets import Cars, clear, release

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine: apt-get install mosquitto")


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("data")) as broker:
        yield broker


@pytest.fixture
def heard(broker: Broker, engine: Engine) -> Iterator[Client]:
    clear(engine)
    Cars(engine, 4)
    with engine.begin() as connection:
        release(connection)
    client = broker.client("roadfuse-cloud")
    client.subscribe("roadfuse/+/desired")
    yield client
    client.close()


@contextlib.contextmanager
def telling(engine: Engine, broker: Broker) -> Iterator[Desires]:
    desires = Desires(engine, Address.parse(broker.address, broker.data, False))
    desires.start()
    try:
        yield desires
    finally:
        desires.end()


def assign(engine: Engine, mode: int, *numbers: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM assignments"))
        for n in numbers:
            connection.execute(
                text(
                    "INSERT INTO assignments (vehicle, rollout, release, mode, wave, assigned_at) "
                    "VALUES (:name, 'r2', 2, :mode, 0, to_timestamp(1800000000))"
                ),
                {"name": f"car-{n:05d}", "mode": mode},
            )


def said(client: Client, count: int) -> dict[str, tuple[str, int]]:
    """So many words, and nothing more for a while."""
    found: dict[str, Any] = {}
    for _ in range(count):
        topic, payload = client.heard.get(timeout=30)
        word = json.loads(payload)
        assert topic not in found
        found[topic.split("/")[1]] = (word["rollout"], word["mode"])
    with pytest.raises(queue.Empty):
        client.heard.get(timeout=2.5)
    return found


def test_only_what_differs_from_what_the_broker_keeps_is_said(engine: Engine, broker: Broker, heard: Client) -> None:
    assign(engine, 1, 0, 1, 2)
    with telling(engine, broker) as desires:
        assert said(heard, 3) == {f"car-0000{n}": ("r2", 1) for n in range(3)}
        desires.want({"car-00003": Wanted(7, "r2", 2, 1)})
        assert said(heard, 1) == {"car-00003": ("r2", 1)}
        desires.want({"car-00003": Wanted(7, "r2", 2, 1)})
        assert said(heard, 0) == {}
    assign(engine, 1, 0, 1)  # two were withdrawn while nobody told
    with telling(engine, broker):
        assert said(heard, 2) == {"car-00002": ("", 0), "car-00003": ("", 0)}
    with telling(engine, broker):
        assert said(heard, 0) == {}, "one that starts anew says nothing again"


def test_a_broker_that_lost_everything_is_told_again(engine: Engine, broker: Broker, heard: Client) -> None:
    assign(engine, 2, 0, 1)
    with telling(engine, broker):
        said(heard, 2)
        broker.kill()  # nothing was on its disk
        (broker.data / "broker" / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        heard.connected.get(timeout=60)
        heard.client.subscribe("roadfuse/+/desired", 1)
        assert said(heard, 2) == {f"car-0000{n}": ("r2", 2) for n in range(2)}


def test_words_leave_at_a_bounded_rate(
    engine: Engine, broker: Broker, heard: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desires, "MOST_PER_S", 50.0)
    told = Desires(engine, Address.parse(broker.address, broker.data, False))
    with told._line as line:
        assert line.wait(30)
        told.want({f"car-{n:05d}": Wanted(1, "r2", 2, 1) for n in range(25)})
        for rest in (20, 15, 10, 5, 0):  # ten times a second
            told._say()
            assert len(told._waiting) == rest
        assert len(said(heard, 25)) == 25
