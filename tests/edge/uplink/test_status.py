"""Status and commands through a real broker: who is there, who is gone, and what was asked is done or answered."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.errors import UplinkError
from edge.uplink.asks import Ask, Asks
from edge.uplink.outbox import Outbox, Quota
from edge.uplink.status import StatusLine
from roadfuse.v1.ingest_pb2 import SceneSummary
from tests.edge.broker import MOSQUITTO, Broker

TOPICS = ("status", "telemetry", "answer")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine: apt-get install mosquitto")


class Cloud:
    """The other side: hears all topics of one vehicle."""

    def __init__(self, port: int) -> None:
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_message = lambda _, __, m: self.heard.put((m.topic.rpartition("/")[2], json.loads(m.payload)))
        self.client.on_connect = lambda client, *_: client.subscribe(
            [(f"roadfuse/car-7/{topic}", 1) for topic in TOPICS]
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def next(self, topic: str) -> Any:
        while True:
            heard, content = self.heard.get(timeout=30)
            if heard == topic:
                return content

    def command(self, payload: Any) -> Any:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload)
        self.client.publish("roadfuse/car-7/command", raw, 1)
        return self.next("answer")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def cloud(broker: Broker) -> Iterator[Cloud]:
    cloud = Cloud(broker.port)
    yield cloud
    cloud.close()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "spool", Quota(1 << 40, 0)) as outbox:
        for _ in range(3):
            sequence, _ = outbox.give(SceneSummary(first_ns=7), 1.0)
            outbox.path(sequence).write_bytes(b"clip")
            outbox.hold(sequence, bytes(32), 4)
        scenes, _ = outbox.to_tell(9)
        outbox.told(scenes, [])
        yield outbox


@pytest.fixture
def line(broker: Broker, outbox: Outbox) -> Iterator[StatusLine]:
    with StatusLine("car-7", outbox, {"version": "1"}) as line:
        line.connect("127.0.0.1", broker.port)
        assert line.wait()
        yield line


def test_a_vehicle_says_that_it_is_there_and_that_it_goes(cloud: Cloud, broker: Broker, outbox: Outbox) -> None:
    with StatusLine("car-7", outbox, {"version": "1"}) as line:
        line.connect("127.0.0.1", broker.port)
        assert line.wait()
        assert cloud.next("status") == {"state": "online", "outbox": outbox.id.hex(), "version": "1"}
    assert cloud.next("status")["state"] == "offline"


def test_of_a_vehicle_that_was_killed_the_broker_says_that_it_is_gone(
    cloud: Cloud, broker: Broker, tmp_path: Path
) -> None:
    child = subprocess.Popen([
        sys.executable, "-c",
        "import sys, time; from pathlib import Path; from edge.uplink.outbox import Outbox\n"
        "from edge.uplink.status import StatusLine\n"
        "line = StatusLine('car-7', Outbox(Path(sys.argv[1]))); line.connect('127.0.0.1', int(sys.argv[2]))\n"
        "time.sleep(60)",
        str(tmp_path / "other"), str(broker.port),
    ])  # fmt: skip
    try:
        assert cloud.next("status")["state"] == "online"
        child.send_signal(signal.SIGKILL)
        assert cloud.next("status")["state"] == "gone"
    finally:
        child.kill()
        child.wait()


def test_a_clip_that_is_asked_for_goes_up_first_and_the_answer_comes_after(
    cloud: Cloud, line: StatusLine, outbox: Outbox
) -> None:
    assert cloud.command({"id": "a", "do": "want", "scenes": [3]}) == {"id": "a", "ok": True}
    up = outbox.next_up()
    assert up is not None and up.sequence == 3
    assert cloud.command({"id": "a", "do": "want", "scenes": [3]}) == {"id": "a", "ok": True}, "it may come twice"


@pytest.mark.parametrize("payload", [
    b"", b"\xff\xfe", b"[]", b"nonsense", b"[" * 60_000, {"do": "want"}, {"id": 7}, {"id": "b", "do": "format c:"},
    {"id": "c", "do": "want"}, {"id": "d", "do": "want", "scenes": ["1; DROP TABLE scene"]},
    {"id": "e", "do": "want", "scenes": [True, -1, 1 << 70]}, {"id": "f" * 999, "do": "want", "scenes": []},
    b'{"id": "g", "do": "want", "scenes": [' + b"1," * 40_000 + b"1]}",
])  # fmt: skip
def test_a_hostile_command_is_answered_and_changes_nothing(
    cloud: Cloud, line: StatusLine, outbox: Outbox, payload: Any
) -> None:
    answer = cloud.command(payload)
    assert answer["ok"] is False and len(answer["why"]) <= 200
    assert outbox._one("SELECT sum(wanted) FROM scene") == 0
    assert cloud.command({"id": "z", "do": "want", "scenes": [1]})["ok"], "the line is up"


def test_a_line_comes_back_after_the_broker_did(cloud: Cloud, broker: Broker, line: StatusLine) -> None:
    assert cloud.next("status")["state"] == "online"
    broker.kill()
    broker.start()
    assert line.wait(60)
    again = Cloud(broker.port)
    try:
        assert again.next("status")["state"] == "online"
        assert again.command({"id": "a", "do": "want", "scenes": [2]})["ok"]
    finally:
        again.close()


def test_telemetry_is_sent_while_the_line_is_up_and_never_waited_for(
    cloud: Cloud, broker: Broker, line: StatusLine, outbox: Outbox
) -> None:
    line.telemetry(outbox.account()._asdict())
    assert cloud.next("telemetry")["held"] == 3
    broker.kill()
    for _ in range(1000):
        line.telemetry({"x": 1})


@pytest.mark.parametrize("name", ["", "a/b", "#", "+", "a\0"])
def test_a_name_that_would_reach_other_topics_is_refused(outbox: Outbox, name: str) -> None:
    with pytest.raises(UplinkError, match="vehicle: expected a name"):
        StatusLine(name, outbox)


def test_a_stretch_of_time_is_asked_for_and_is_durable_when_answered(
    line: StatusLine, cloud: Cloud, outbox: Outbox
) -> None:
    command = {"id": "k", "do": "keep", "from_ns": 5, "to_ns": 9, "reason": "near miss"}
    for _ in range(2):
        assert cloud.command(command) == {"id": "k", "ok": True}
    assert Asks(outbox).open() == [Ask("k", 5, 9, "near miss")]
    for wrong in ({"to_ns": 4}, {"from_ns": "5"}, {"to_ns": 1 << 70}, {"from_ns": True}):
        assert cloud.command({**command, "id": "w", **wrong})["ok"] is False
    assert len(Asks(outbox).open()) == 1
