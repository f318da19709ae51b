"""Vehicles' lines to the broker: thousands of MQTT 5 clients on one event loop, without a thread each."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

STOP: Final = "roadfuse-fleet/stop"
_AT_LEAST_ONCE: Final = 1
_KEEPALIVE_S: Final = 600
_SESSION_S: Final = 86_400


class Line:
    """One vehicle's line.

    Args:
        vehicle: its name: user, client and topics.
        heard: takes a topic and a payload.

    Attributes:
        up_s: since when the line is up, UTC.
    """

    def __init__(self, vehicle: str, port: int, heard: Callable[[str, bytes], None]) -> None:
        self._topic, self._port = f"roadfuse/{vehicle}", port
        self._loop = asyncio.get_running_loop()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"roadfuse-update-{vehicle}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.username_pw_set(vehicle)
        self._client.will_set(f"{self._topic}/status", json.dumps({"state": "gone"}), _AT_LEAST_ONCE, retain=True)
        self._client.on_message = lambda _, __, message: heard(message.topic, bytes(message.payload))
        self._client.on_connect = self._on_connect
        self._client.on_socket_open = self._opened
        self._client.on_socket_close = self._closed
        self._client.on_socket_register_write = self._wants_to_write
        self._client.on_socket_unregister_write = self._has_written
        self.is_up = False
        self.up_s = math.inf

    def open(self) -> None:
        """Connect; quick on this machine.

        Raises:
            OSError: no broker listens.
        """
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = _SESSION_S
        self._client.connect("127.0.0.1", self._port, _KEEPALIVE_S, clean_start=False, properties=session)

    def report(self, said: dict[str, Any]) -> None:
        """Publish what the vehicle says of itself."""
        self._client.publish(f"{self._topic}/reported", json.dumps(said), _AT_LEAST_ONCE, retain=True)

    def park(self) -> None:
        """Say goodbye."""
        if self.is_up:
            self._client.publish(f"{self._topic}/status", json.dumps({"state": "offline"}), _AT_LEAST_ONCE, retain=True)
        self._client.disconnect()
        self.is_up = False

    def cut(self) -> None:
        """Lose the network: no goodbye; the broker says that the vehicle is gone."""
        sock = self._client.socket()
        self.is_up = False
        if sock is not None:
            socket.socket(fileno=os.dup(sock.fileno())).shutdown(socket.SHUT_RDWR)

    def keep(self) -> None:
        """To be called every few seconds: pings, and repeats what was not acknowledged."""
        self._client.loop_misc()

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if reason.is_failure:
            return
        self.is_up, self.up_s = True, time.time()
        client.publish(f"{self._topic}/status", json.dumps({"state": "online"}), _AT_LEAST_ONCE, retain=True)
        client.subscribe([(f"{self._topic}/desired", _AT_LEAST_ONCE), (STOP, _AT_LEAST_ONCE)])

    def _opened(self, client: mqtt.Client, _: Any, sock: Any) -> None:
        self._loop.add_reader(sock, client.loop_read)

    def _closed(self, _: mqtt.Client, __: Any, sock: Any) -> None:
        self.is_up = False
        self._loop.remove_reader(sock)

    def _wants_to_write(self, client: mqtt.Client, _: Any, sock: Any) -> None:
        self._loop.add_writer(sock, client.loop_write)

    def _has_written(self, _: mqtt.Client, __: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)
