"""A vehicle's way to a broker, as its uplink and its update agent both take it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import UplinkError
from edge.uplink.identity import CERTIFICATE, CLOUD_CA, KEY

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt


def host_and_port(address: str) -> tuple[str, int]:
    """Of a broker.

    Raises:
        UplinkError: it is no HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UplinkError(f"--broker: expected HOST:PORT, got {address!r}")
    return host, int(port)


def identify(client: mqtt.Client, identity: Path) -> None:
    """Have a client speak TLS, and show the vehicle's certificate.

    Args:
        identity: folder that `enrol` wrote.
    """
    ca, certificate, key = (str(identity / name) for name in (CLOUD_CA, CERTIFICATE, KEY))
    client.tls_set(ca, certificate, key, tls_version=ssl.PROTOCOL_TLS_CLIENT)
