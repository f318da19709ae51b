"""Status, telemetry and commands over MQTT 5: what may be late or lost, and what is small.

    roadfuse/VEHICLE/status      retained: online, offline (said by itself) or gone (said by the broker in its name)
    roadfuse/VEHICLE/telemetry   every few seconds: what became of scenes, what went up
    roadfuse/VEHICLE/command     to the vehicle: {"id": ..., "do": "want", "scenes": [12, 13]}
                                 or {"id": ..., "do": "keep", "from_ns": ..., "to_ns": ...}: out of the ring, a clip
    roadfuse/VEHICLE/answer      of each command: {"id": ..., "ok": true} once it is durable, or why not

A broker's acknowledgement is no durability: scenes and clips never travel here. A command is acknowledged to the broker
only after it was carried out, so one that a crash cut short comes again; all of them may come twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import UplinkError
from edge.uplink.asks import Ask, Asks
from edge.uplink.broker import identify
from edge.uplink.outbox import Outbox

ROOT: Final = "roadfuse"
_AT_LEAST_ONCE: Final = 1
_SESSION_S: Final = 7 * 86_400  # for which the broker keeps commands of a vehicle that is away
_KEEPALIVE_S: Final = 30
_MOST_BYTES: Final = 64 << 10  # of a command
_MOST_SCENES: Final = 10_000
_CONNECT_S: Final = 30.0


class StatusLine:
    """One vehicle's line to a broker; a thread of its own keeps it up. To be closed, or used in a `with` block.

    Args:
        vehicle: its name, as in its certificate.
        outbox: whose scenes commands speak of; opened for this line alone.
        facts: what the status says beside the state, such as the software's version.
        say: takes a line about what went wrong.
    """

    def __init__(
        self, vehicle: str, outbox: Outbox, facts: Mapping[str, str] | None = None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:  # fmt: skip
        if not vehicle or any(sign in vehicle for sign in "/+#\0"):
            raise UplinkError(f"vehicle: expected a name without / + and #, got {vehicle!r}")
        self._outbox, self._say = outbox, say
        self._asks = Asks(outbox)
        self._facts = dict(facts or {})
        self._topic = f"{ROOT}/{vehicle}"
        self._connected = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{ROOT}-{vehicle}", protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )  # fmt: skip
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.will_set(f"{self._topic}/status", self._status("gone"), _AT_LEAST_ONCE, retain=True)
        self._client.reconnect_delay_set(1, 120)

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, host: str, port: int, identity: Path | None = None) -> None:
        """Begins to connect, and goes on trying for ever.

        Args:
            identity: folder that `enrol` wrote; None: in plain text, for a broker on this machine.
        """
        if identity is not None:
            identify(self._client, identity)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = _SESSION_S
        self._client.connect_async(host, port, _KEEPALIVE_S, clean_start=False, properties=session)
        self._client.loop_start()

    def wait(self, timeout_s: float = _CONNECT_S) -> bool:
        """Whether the line is up and hears commands, after so long at most."""
        return self._connected.wait(timeout_s)

    def telemetry(self, values: Mapping[str, Any]) -> None:
        """Sends figures if the line is up; nobody misses one."""
        if self._connected.is_set():
            self._client.publish(f"{self._topic}/telemetry", json.dumps(dict(values)), 0)

    def close(self) -> None:
        """Says goodbye, so that the broker need not say that the vehicle is gone."""
        if self._connected.is_set():
            said = self._client.publish(f"{self._topic}/status", self._status("offline"), _AT_LEAST_ONCE, retain=True)
            said.wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _status(self, state: str) -> str:
        return json.dumps({"state": state, "outbox": self._outbox.id.hex(), **self._facts})

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if reason.is_failure:
            self._say(f"the broker refuses this vehicle: {reason}")
            return
        client.publish(f"{self._topic}/status", self._status("online"), _AT_LEAST_ONCE, retain=True)
        client.subscribe(f"{self._topic}/command", _AT_LEAST_ONCE)

    def _on_subscribe(self, *_: Any) -> None:
        self._connected.set()

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        self._connected.clear()
        if reason.is_failure:
            self._say(f"the line to the broker broke: {reason}")

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        try:
            answer = self._carry_out(bytes(message.payload))
        except OSError as error:  # it comes again when the line does
            self._say(f"a command was not carried out: {error}")
            return
        client.publish(f"{self._topic}/answer", json.dumps(answer), _AT_LEAST_ONCE)
        client.ack(message.mid, message.qos)

    def _carry_out(self, payload: bytes) -> dict[str, Any]:
        """Does what a command says; the answer to it. Whatever comes, nothing is raised but OSError."""
        name = None
        try:
            if len(payload) > _MOST_BYTES:
                raise ValueError(f"expected at most {_MOST_BYTES} bytes, got {len(payload)}")
            command = json.loads(payload)
            if not isinstance(command, dict) or not isinstance(command.get("id"), str) or len(command["id"]) > 128:
                raise ValueError("expected an object with an id")
            name = command["id"]
            if command.get("do") == "keep":
                self._keep(command)
                return {"id": name, "ok": True}
            if command.get("do") != "want":
                raise ValueError(f"do: expected want or keep, got {str(command.get('do'))[:40]!r}")
            scenes = command.get("scenes")
            if not isinstance(scenes, list) or len(scenes) > _MOST_SCENES or not all(map(_is_number, scenes)):
                raise ValueError(f"scenes: expected up to {_MOST_SCENES} numbers of scenes")
            self._outbox.want(scenes)
        except (ValueError, RecursionError) as error:
            return {"id": name, "ok": False, "why": str(error)[:200]}
        return {"id": name, "ok": True}

    def _keep(self, command: dict[str, Any]) -> None:
        first_ns, last_ns = command.get("from_ns"), command.get("to_ns")
        if not (_is_number(first_ns) and _is_number(last_ns)):
            raise ValueError("expected from_ns and to_ns as instants")
        ask = Ask(command["id"], int(first_ns or 0), int(last_ns or 0), str(command.get("reason", "")))
        self._asks.put([ask])
        if not self._asks.is_known(ask):
            raise ValueError("expected fewer asks that wait, got one more")


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 63
