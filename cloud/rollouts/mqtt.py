"""The cloud's lines to the broker. What is said and heard there, each topic by a line of its own:

    heard       roadfuse/+/reported, roadfuse/+/status     retained: what each vehicle says of itself
    said        roadfuse/VEHICLE/desired                   retained: {"n", "rollout", "release", "mode"}: check in now
    said        roadfuse-fleet/stop                        retained: roadfuse.v1.StopNotice

A broker's acknowledgement is no durability: all of it is retained state, and whoever uses a line publishes it again
from the database when the line comes back (`on_up`). A line has a thread of its own and tries to connect for ever.
MQTT 5.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from cloud import certificates
from cloud.errors import CloudError
from cloud.settings import Settings

_LOG: Final = logging.getLogger(__name__)
ROOT: Final = "roadfuse"
STOP: Final = "roadfuse-fleet/stop"
HEARD: Final = (f"{ROOT}/+/status", f"{ROOT}/+/reported")
_AT_LEAST_ONCE: Final = 1
_KEEPALIVE_S: Final = 30
# Between tries, from the first to the second.
_AWAY_S: Final = (1, 15)
# Reports under way to us; the broker sends as many as both sides allow.
_IN_FLIGHT: Final = 500


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker listens, and what is shown to it.

    Attributes:
        files: CA, certificate and key; None: plain text.
    """

    host: str
    port: int
    files: tuple[Path, Path, Path] | None

    @classmethod
    def of(cls, settings: Settings) -> Address | None:
        """What the settings say; None: there is no broker.

        Raises:
            CloudError: no HOST:PORT, or no CA to be identified by.
        """
        return None if settings.broker is None else cls.parse(settings.broker, settings.data, settings.broker_plain)

    @classmethod
    def parse(cls, broker: str, data: Path, is_plain: bool) -> Address:
        """HOST:PORT.

        Args:
            data: the cloud's folder, with its CA.

        Raises:
            CloudError: no HOST:PORT, or no CA to be identified by.
        """
        host, _, port = broker.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise CloudError(f"expected a broker as HOST:PORT, got {broker!r}")
        files = None if is_plain else certificates.cloud_files(data / "ca")
        return cls(host.strip("[]"), int(port), files)


class Line:
    """A connection to the broker that comes back by itself. To be closed, or used in a `with` block.

    Args:
        address: of the broker.
        name: of the client; one of that name at a time, a second one throws the first out.
        topics: to hear.
        on_up: called by the line's thread each time that the line is up; must not take long.
        on_message: called by the line's thread with topic, payload and whether the broker had it in store.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        topics: tuple[str, ...] = (),
        on_up: Callable[[], object] = lambda: None,
        on_message: Callable[[str, bytes, bool], object] = lambda *_: None,
    ) -> None:
        self._address, self._name, self._topics, self._on_up = address, name, topics, on_up
        self._up = threading.Event()
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=True
        )
        self.client.on_connect = self._on_connect
        self.client.on_connect_fail = self._on_connect_fail
        self.client.on_disconnect = self._on_disconnect
        self._hear = on_message
        self.client.on_message = self._on_message
        self.client.reconnect_delay_set(*_AWAY_S)
        self.client.max_queued_messages_set(0)  # retained state of the whole fleet may be under way
        self.client.max_inflight_messages_set(_IN_FLIGHT)
        if address.files is not None:
            ca, certificate, key = map(str, address.files)
            self.client.tls_set(ca, certificate, key, tls_version=ssl.PROTOCOL_TLS_CLIENT)

    def __enter__(self) -> Line:
        properties = Properties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = _IN_FLIGHT
        self.client.connect_async(
            self._address.host, self._address.port, _KEEPALIVE_S, clean_start=True, properties=properties
        )
        self.client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._up.clear()
        self.client.disconnect()
        self.client.loop_stop()

    @property
    def is_up(self) -> bool:
        """Whether the broker answers."""
        return self._up.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Whether the line is up, after so long at most."""
        return self._up.wait(timeout_s)

    def say(self, topic: str, payload: bytes, *, retain: bool = True) -> mqtt.MQTTMessageInfo | None:
        """Publish if the line is up; if it is not, whoever says it says it again when it is."""
        if not self._up.is_set():
            return None
        return self.client.publish(topic, payload, _AT_LEAST_ONCE, retain)

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if reason.is_failure:
            _LOG.warning("broker_refuses line=%s reason=%r", self._name, str(reason))
            return
        for topic in self._topics:
            client.subscribe(topic, _AT_LEAST_ONCE)
        _LOG.info("line_up line=%s", self._name)
        self._up.set()
        self._on_up()

    def _on_message(self, _: mqtt.Client, __: Any, message: mqtt.MQTTMessage) -> None:
        self._hear(message.topic, bytes(message.payload), message.retain)

    def _on_connect_fail(self, *_: Any) -> None:
        _LOG.warning("broker_away line=%s host=%s port=%d", self._name, self._address.host, self._address.port)

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        if self._up.is_set():
            _LOG.warning("line_down line=%s reason=%r", self._name, str(reason))
        self._up.clear()


def desired(vehicle: str, assignment: Mapping[str, Any]) -> tuple[str, bytes]:
    """Topic and payload that tell a vehicle to check in.

    Args:
        assignment: n, rollout, release and mode.
    """
    return f"{ROOT}/{vehicle}/desired", json.dumps(dict(assignment)).encode()
