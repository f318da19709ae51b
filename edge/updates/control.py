"""The agent's line to a broker (MQTT 5): stops at once, hints to check in, and what runs here.

    roadfuse-fleet/stop          retained, to all: serialised roadfuse.v1.StopNotice; heeded before anything else
    roadfuse/VEHICLE/desired     retained, to the vehicle: {"n": ..., ...}: the cloud has something, check in
    roadfuse/VEHICLE/reported    retained, by the vehicle: what runs, how far an update is, evidence

Nothing here is believed but a stop, which only ever puts a vehicle back onto what it had before: what to run is said
in a check-in alone. Without a broker check-ins do all of it, later.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import paho.mqtt.client as mqtt
from google.protobuf.message import DecodeError
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import UpdateError
from edge.updates.rules import MOST_STOP_NUMBER
from edge.updates.slots import Answer, Slots, running
from edge.updates.troubles import told_why
from edge.uplink.broker import identify
from roadfuse.v1.updates_pb2 import StopNotice

ROOT: Final = "roadfuse"
STOP: Final = "roadfuse-fleet/stop"
# A loop that answered within so long drives.
_DRIVING_S: Final = 60.0
_AT_LEAST_ONCE: Final = 1
_KEEPALIVE_S: Final = 30
_MOST_STOP_BYTES: Final = 512 << 10
_MOST_HINT_BYTES: Final = 64 << 10
_MOST_EVIDENCE: Final = 16
# Over which check-ins after a hint are spread, where the cloud does not say.
_WITHIN_S: Final = 5.0
_MOST_WITHIN_S: Final = 3600.0


class Heeds(Protocol):
    """What an agent does of what is heard; from any thread."""

    def stop(self, number: int, bundles: list[str]) -> object:
        """Heed a stop notice, durably.

        Raises:
            OSError: the disk refused.
        """

    def hint(self, within_s: float) -> object:
        """Check in within so long."""


def reported(slots: Slots, answer: Answer | None, at_ns: int, trouble: str = "") -> dict[str, Any]:
    """What a vehicle says of itself.

    Args:
        at_ns: UTC by the vehicle's clock, which the loop's answers carry too.
        trouble: of the agent.
    """
    refusal = slots.refusal
    is_driving = answer is not None and abs(at_ns - answer.at_ns) < _DRIVING_S * 1e9
    return {
        "stage": slots.stage,
        "active": running(slots, answer),
        "previous": "" if slots.previous is None else slots.previous.bundle,
        "staged": "" if slots.staged is None else slots.staged.bundle,
        "counter": slots.active.counter,
        "rollout": (slots.staged or slots.active).rollout,
        "why": told_why(slots, answer, trouble),
        "refused": "" if refusal is None else refusal.bundle,
        "refused_until": 0 if refusal is None else refusal.until,
        "state": "driving" if is_driving else "parked",
        "evidence": [] if answer is None else [
            base64.b64encode(bytes.fromhex(one)).decode() for one in answer.evidence[-_MOST_EVIDENCE:]
        ],
    }  # fmt: skip


class ControlLine:
    """One vehicle's agent at a broker; a thread of its own keeps the line up. To be closed, or used in a `with` block.

    Args:
        vehicle: its name, as in its certificate.
        agent: heeds what is heard.
        report: what is said of the vehicle; from any thread.
        say: takes a line about what went wrong.
    """

    def __init__(
        self,
        vehicle: str,
        agent: Heeds,
        report: Callable[[], Mapping[str, Any]],
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        if not vehicle or any(sign in vehicle for sign in "/+#\0"):
            raise UpdateError(f"vehicle: expected a name without / + and #, got {vehicle!r}")
        self._agent, self._report, self._say = agent, report, say
        self._topic = f"{ROOT}/{vehicle}"
        self._is_up = threading.Event()
        self._desired: int | None = None
        self._owed: StopNotice | None = None
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{ROOT}-update-{vehicle}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 120)

    def __enter__(self) -> ControlLine:
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
        self._client.connect_async(host, port, _KEEPALIVE_S, clean_start=True)
        self._client.loop_start()

    def wait(self, timeout_s: float = 30.0) -> bool:
        """Whether the line is up and hears, after so long at most."""
        return self._is_up.wait(timeout_s)

    def tell(self) -> None:
        """Says what runs here, if the line is up; else it is said when it comes up."""
        if self._owed is not None:
            self._stop(self._owed)
        if self._is_up.is_set():
            self._client.publish(f"{self._topic}/reported", json.dumps(self._report()), _AT_LEAST_ONCE, retain=True)

    def close(self) -> None:
        """Hangs up; what was reported stays at the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if reason.is_failure:
            self._say(f"the broker refuses this vehicle: {reason}")
            return
        client.subscribe([(STOP, _AT_LEAST_ONCE), (f"{self._topic}/desired", _AT_LEAST_ONCE)])

    def _on_subscribe(self, *_: Any) -> None:
        self._is_up.set()
        self.tell()

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        self._is_up.clear()
        if reason.is_failure:
            self._say(f"the line to the broker broke: {reason}")

    def _on_message(self, _: mqtt.Client, __: Any, message: mqtt.MQTTMessage) -> None:
        payload = bytes(message.payload)
        try:
            if message.topic == STOP:
                self._heard_stop(payload)
            else:
                self._heard_desired(payload)
        except (ValueError, UpdateError) as error:
            self._say(f"{message.topic}: {error}")

    def _heard_stop(self, payload: bytes) -> None:
        if not payload:  # cleared
            return
        if len(payload) > _MOST_STOP_BYTES:
            raise ValueError(f"expected at most {_MOST_STOP_BYTES} bytes, got {len(payload)}")
        try:
            notice = StopNotice.FromString(payload)
        except DecodeError:
            raise ValueError("expected a stop notice, got other bytes") from None
        if notice.number > MOST_STOP_NUMBER:
            raise ValueError(f"expected a stop notice of a number up to {MOST_STOP_NUMBER}, got {notice.number}")
        self._stop(notice)

    def _stop(self, notice: StopNotice) -> None:
        try:
            self._agent.stop(notice.number, list(notice.bundle_ids))
            self._owed = None
        except OSError:  # the agent's trouble; again with the next report
            self._owed = notice

    def _heard_desired(self, payload: bytes) -> None:
        if not payload:
            return
        if len(payload) > _MOST_HINT_BYTES:
            raise ValueError(f"expected at most {_MOST_HINT_BYTES} bytes, got {len(payload)}")
        try:
            wanted = json.loads(payload)
        except (ValueError, RecursionError):
            raise ValueError("expected JSON, got other bytes") from None
        number = wanted.get("n") if isinstance(wanted, dict) else None
        if not isinstance(number, int):
            raise ValueError("expected an object with a number n")
        if number == self._desired:  # the broker says it again whenever the line comes up
            return
        self._desired = number
        within_s = wanted.get("within_s", _WITHIN_S)
        is_number = isinstance(within_s, (int, float)) and 0 <= within_s <= _MOST_WITHIN_S
        self._agent.hint(float(within_s) if is_number else _WITHIN_S)
