"""The agent's line through a real mosquitto: stops at once, hints once, and reports that stay."""

from __future__ import annotations

import base64
import json
import queue
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.errors import UpdateError
from edge.updates.control import STOP, ControlLine, reported
from edge.updates.evidence import ALL, Evidence
from edge.updates.slots import Answer, Held, Refusal, Slots, read_slots
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2 import Stage, StopNotice
from tests.edge.broker import MOSQUITTO, Broker

from .crash_disk import CrashDisk
from .simulated import SimulatedCloud, Vehicle, made

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine: apt-get install mosquitto")
DESIRED = "roadfuse/car-7/desired"


class Heard:
    """An agent that keeps what it hears; `fail` has its disk refuse so often."""

    def __init__(self, fail: int = 0) -> None:
        self.stops: queue.Queue[tuple[int, list[str]]] = queue.Queue()
        self.hints: queue.Queue[float] = queue.Queue()
        self.failed: queue.Queue[int] = queue.Queue()
        self._fail = fail

    def stop(self, number: int, bundles: list[str]) -> None:
        if self._fail:
            self._fail -= 1
            self.failed.put(number)
            raise OSError(28, "No space left on device")
        self.stops.put((number, bundles))

    def hint(self, within_s: float) -> None:
        self.hints.put(within_s)


class Cloud:
    """The other side: publishes retained words, hears reports."""

    def __init__(self, port: int) -> None:
        self.reports: queue.Queue[Any] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_message = lambda _, __, m: self.reports.put((m.retain, json.loads(m.payload)))
        self._client.on_connect = lambda client, *_: client.subscribe("roadfuse/car-7/reported", 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def say(self, topic: str, payload: bytes | dict[str, Any]) -> None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, raw, 1, retain=True).wait_for_publish(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def cloud(broker: Broker) -> Iterator[Cloud]:
    other = Cloud(broker.port)
    yield other
    other.close()


def line(broker: Broker, agent: Any, report: Callable[[], dict[str, Any]] = dict, say: Any = print) -> ControlLine:
    made_line = ControlLine("car-7", agent, report, say)
    made_line.connect("127.0.0.1", broker.port)
    assert made_line.wait()
    return made_line


def until(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.01)


def notice(number: int, *bundles: str) -> bytes:
    return StopNotice(number=number, bundle_ids=bundles).SerializeToString()


def test_a_retained_stop_is_heeded_by_who_comes_later_and_each_new_one_at_once(broker: Broker, cloud: Cloud) -> None:
    cloud.say(STOP, notice(4, "a" * 64))
    agent = Heard()
    with line(broker, agent):
        assert agent.stops.get(timeout=30) == (4, ["a" * 64])
        cloud.say(STOP, notice(5, "b" * 64))
        assert agent.stops.get(timeout=30) == (5, ["b" * 64])


def test_a_stop_puts_the_previous_bundle_back_durably_before_the_agents_next_step(broker: Broker, cloud: Cloud) -> None:
    old, new = made(1), made(2)
    world = SimulatedCloud()
    car = Vehicle(CrashDisk(), world)
    for bundle in (old, new):
        world.assign(bundle)
        car.settle()
    changed: queue.Queue[bool] = queue.Queue()
    car.agent._changed = lambda: changed.put(True)
    with line(broker, car.agent):
        cloud.say(STOP, notice(1, new.id))
        assert changed.get(timeout=30)
    assert car.agent.slots.active.bundle == old.id
    assert Vehicle(car.disk, world).loop.running == old.id  # a power cut right after it


def test_a_stop_with_a_number_that_slots_do_not_take_is_said_and_costs_nothing(broker: Broker, cloud: Cloud) -> None:
    bundle, world = made(1), SimulatedCloud()
    car = Vehicle(CrashDisk(), world)
    world.assign(bundle)
    car.settle()
    said: queue.Queue[str] = queue.Queue()
    before = car.agent.slots
    with line(broker, car.agent, say=said.put):
        cloud.say(STOP, notice(1 << 63))
        assert "expected a stop notice of a number up to" in said.get(timeout=30)
    assert read_slots(car.disk) == car.agent.slots == before


def test_a_stop_that_the_disk_refused_is_tried_again(broker: Broker, cloud: Cloud) -> None:
    agent = Heard(fail=1)
    with line(broker, agent) as held:
        cloud.say(STOP, notice(1, "a" * 64))
        assert agent.failed.get(timeout=30) == 1
        until(lambda: held._owed is not None)
        held.tell()
        assert agent.stops.get(timeout=30) == (1, ["a" * 64])


def test_a_hint_is_taken_once_though_the_broker_says_it_again(broker: Broker, cloud: Cloud) -> None:
    cloud.say(DESIRED, {"n": 7, "rollout": "r", "release": 3, "mode": 1, "within_s": 42})
    agent = Heard()
    with line(broker, agent) as held:
        assert agent.hints.get(timeout=30) == 42.0
        held._client.reconnect()  # the retained word comes again
        cloud.say(DESIRED, {"n": 8})
        assert agent.hints.get(timeout=30) == 5.0
        assert agent.hints.empty()


@pytest.mark.parametrize("topic", [STOP, DESIRED])
@pytest.mark.parametrize("payload", [b"\xff\xfe", b"[]", b"{" * 3000, b'{"n": "x"}', b'{"n": ' + b"9" * 5000 + b"}"])
def test_rubbish_is_said_and_the_line_goes_on(broker: Broker, cloud: Cloud, topic: str, payload: bytes) -> None:
    said: queue.Queue[str] = queue.Queue()
    agent = Heard()
    with line(broker, agent, say=said.put):
        cloud.say(topic, payload)
        assert topic in said.get(timeout=30)
        cloud.say(STOP, notice(9, "c" * 64))
        assert agent.stops.get(timeout=30) == (9, ["c" * 64])


def test_reports_are_retained_and_said_anew_after_the_broker_died(broker: Broker, cloud: Cloud) -> None:
    stages = iter(["a", "b", "c", "d", "e"])
    with line(broker, Heard(), lambda: {"stage": next(stages)}) as held:
        assert cloud.reports.get(timeout=30)[1] == {"stage": "a"}
        held.tell()
        assert cloud.reports.get(timeout=30)[1] == {"stage": "b"}
        later = Cloud(broker.port)
        assert later.reports.get(timeout=30) == (True, {"stage": "b"})
        later.close()
        broker.kill()
        broker.start()
        assert cloud.reports.get(timeout=60)[1] == {"stage": "c"}


def test_without_a_broker_it_waits_and_keeps_quiet() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ControlLine("car-7", Heard(), dict) as nobody:
        nobody.connect("127.0.0.1", port)
        assert not nobody.wait(0.2)
        nobody.tell()


def test_a_vehicle_with_a_name_that_is_a_topic_is_refused() -> None:
    with pytest.raises(UpdateError, match="without / \\+ and #"):
        ControlLine("car/7", Heard(), dict)


def test_a_report_says_what_really_runs_and_the_loops_evidence() -> None:
    evidence = Evidence("b" * 64, False, b"acc")
    evidence.of(ALL).seconds = 3.0
    raw = evidence.message().SerializeToString()
    slots = Slots(
        epoch=5, active=Held("b" * 64, 9, "r-1"), previous=Held("a" * 64, 8), stage=Stage.STAGE_REFUSED, why="w",
        refused=(Refusal("c" * 64, 10, "x"),),
    )  # fmt: skip
    answer = Answer(epoch=5, running="a" * 64, at_ns=10**18, evidence=(raw.hex(),))
    told = reported(slots, answer, 10**18 + 1)
    assert (told["active"], told["previous"], told["staged"]) == ("a" * 64, "a" * 64, "")
    assert (told["counter"], told["rollout"], told["why"], told["refused"]) == (9, "r-1", "w", "c" * 64)
    assert told["state"] == "driving"
    assert updates_pb2.Evidence.FromString(base64.b64decode(told["evidence"][0])).bundle_id == "b" * 64
    assert reported(slots, None, 0)["active"] == "b" * 64
    assert reported(slots, answer, 0, "disk: full")["why"] == "w; trouble: disk: full"
    assert reported(slots, answer, 10**18 + 120 * 10**9)["state"] == "parked"


def test_by_its_certificate_through_the_broker_as_it_is_deployed(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")  # the cloud's libraries
    from cloud import certificates
    from tests.cloud.rollouts.broker import Broker as Deployed
    from tests.cloud.rollouts.broker import identity

    agent = Heard()
    with Deployed(tmp_path) as broker:
        folder = identity(certificates.load(broker.ca), tmp_path / "identity", "car-7")
        cloud = broker.client(certificates.CLOUD)
        cloud.subscribe("roadfuse/+/reported")
        with ControlLine("car-7", agent, lambda: {"stage": 1}) as held:
            held.connect("localhost", broker.port, folder)
            assert held.wait()
            assert cloud.heard.get(timeout=30) == ("roadfuse/car-7/reported", b'{"stage": 1}')
            cloud.client.publish(STOP, notice(3, "a" * 64), 1, retain=True)
            cloud.client.publish(DESIRED, b'{"n": 1, "within_s": 2}', 1, retain=True)
            assert agent.stops.get(timeout=30) == (3, ["a" * 64])
            assert agent.hints.get(timeout=30) == 2.0
        cloud.client.disconnect()
        cloud.client.loop_stop()
