"""A real mosquitto with the configuration that is deployed, certificates of a device CA, and clients for it."""

from __future__ import annotations

import queue
import shutil
import ssl
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cloud import certificates
from tests.edge.broker import Mosquitto

DEPLOYED = Path(__file__).parents[3] / "deploy" / "mosquitto"


def identity(authority: certificates.Authority, folder: Path, name: str) -> Path:
    """A vehicle's folder: key.pem, certificate.pem, cloud-ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    folder.mkdir(parents=True)
    (folder / "certificate.pem").write_bytes(certificates.issue_vehicle(authority, request).pem)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "cloud-ca.pem").write_bytes(authority.pem)
    return folder


class Broker(Mosquitto):
    """The deployed configuration on a free port, in a folder; may be killed and started again.

    Args:
        data: a cloud's folder, whose `ca/` signs; made where there is none.
        revoked: a list of revoked certificates, PEM.
    """

    def __init__(self, data: Path, revoked: bytes | None = None) -> None:
        self.data, self.ca = data, data / "ca"
        if not (self.ca / "ca.key").exists():
            certificates.create(self.ca)
        if not (self.ca / "broker.pem").exists():
            certificates.issue_broker(self.ca, ["localhost", "127.0.0.1"])
        folder = data / "broker"
        folder.mkdir()
        for name in ("ca.pem", "broker.pem", "broker.key"):
            shutil.copy(self.ca / name, folder)
        shutil.copy(DEPLOYED / "acl", folder)
        text = (DEPLOYED / "mosquitto.conf").read_text()
        text = text.replace("/etc/mosquitto/roadfuse", str(folder)).replace("/var/lib/mosquitto", str(folder))
        text = text.replace("listener 8883", "listener {address}")
        if revoked is not None:
            (folder / "revoked.pem").write_bytes(revoked)
            text = text.replace("#crlfile", "crlfile")
        super().__init__(folder, text)

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"localhost:{self.port}"

    def client(self, name: str, **more: Any) -> Client:
        """A vehicle's client, or the cloud's by its own name."""
        if name == certificates.CLOUD:
            files = self.ca / "ca.pem", self.ca / "cloud.pem", self.ca / "cloud.key"
        else:
            folder = self.data / "vehicles" / name
            if not folder.exists():
                identity(certificates.load(self.ca), folder, name)
            files = folder / "cloud-ca.pem", folder / "certificate.pem", folder / "key.pem"
        return Client(self.port, name, files, **more)


class Client:
    """An MQTT 5 client that keeps all it hears. To be closed."""

    def __init__(
        self, port: int, name: str, files: tuple[Path, Path, Path], will: tuple[str, bytes] | None = None
    ) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.connected: queue.Queue[str] = queue.Queue()
        self._words: queue.Queue[list[Any]] = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, f"test-{name}", protocol=MQTTProtocolVersion.MQTTv5)
        ca, certificate, key = map(str, files)
        self.client.tls_set(ca, certificate, key, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.client.on_message = lambda _, __, m: self.heard.put((m.topic, bytes(m.payload)))
        self.client.on_connect = lambda _, __, ___, reason, ____: self.connected.put(str(reason))
        self.client.on_subscribe = lambda _, __, ___, reasons, ____: self._words.put(reasons)
        self.client.on_publish = lambda _, __, ___, reason, ____: self._words.put([reason])
        if will is not None:
            self.client.will_set(*will, 1, retain=True)
        self.client.connect("localhost", port)
        self.client.loop_start()
        assert self.connected.get(timeout=30) == "Success"

    def subscribe(self, topic: str) -> str:
        """What the broker says to it; mosquitto grants what is never delivered, too."""
        self.client.subscribe(topic, 1)
        return str(self._words.get(timeout=30)[0])

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> str:
        """What the broker says to it."""
        self.client.publish(topic, payload, 1, retain)
        return str(self._words.get(timeout=30)[0])

    def next(self, topic: str) -> bytes:
        """The next message of a topic; those of others are forgotten."""
        while True:
            heard, payload = self.heard.get(timeout=30)
            if heard == topic:
                return payload

    def close(self) -> None:
        """Say goodbye."""
        self.client.disconnect()
        self.client.loop_stop()
