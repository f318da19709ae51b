"""The broker as it is deployed: who is let in, who reads and writes what. A real mosquitto, real certificates."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud import certificates
from cloud.command import main
from cloud.errors import IdentityError
from tests.edge.broker import MOSQUITTO

from ..fleet import request_for
from .broker import Broker, Client, identity

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine: apt-get install mosquitto")
OWN = ("status", "telemetry", "answer", "reported")
REFUSED = "Not authorized"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("data")) as broker:
        yield broker


@pytest.fixture
def cloud(broker: Broker) -> Iterator[Client]:
    client = broker.client("roadfuse-cloud")
    yield client
    client.close()


@pytest.fixture
def car(broker: Broker) -> Iterator[Client]:
    client = broker.client("car-1")
    yield client
    client.close()


def test_a_vehicle_writes_its_own_topics_and_the_cloud_reads_them(cloud: Client, car: Client) -> None:
    cloud.subscribe("roadfuse/+/reported")
    for topic in OWN:
        assert not car.publish(f"roadfuse/car-1/{topic}", b"mine").startswith(REFUSED)
    assert cloud.next("roadfuse/car-1/reported") == b"mine"


@pytest.mark.parametrize("topic", [
    *(f"roadfuse/car-2/{topic}" for topic in (*OWN, "desired", "command")),
    "roadfuse/car-1/desired", "roadfuse/car-1/command", "roadfuse/car-1/other", "roadfuse/car-1", "roadfuse-fleet/stop",
    "roadfuse-fleet/other", "roadfuse/roadfuse-cloud/reported", "other",
])  # fmt: skip
def test_a_vehicle_writes_nothing_else(cloud: Client, car: Client, topic: str) -> None:
    cloud.subscribe("roadfuse/#")
    cloud.subscribe("roadfuse-fleet/#")
    assert car.publish(topic, b"forged", retain=True).startswith(REFUSED)
    cloud.publish("roadfuse-fleet/end", b"end")
    heard = []
    while not heard or heard[-1] != "roadfuse-fleet/end":
        name, payload = cloud.heard.get(timeout=30)
        assert payload != b"forged"
        heard.append(name)


def test_a_vehicle_hears_what_is_for_it_and_for_all_and_nothing_of_another(cloud: Client, car: Client) -> None:
    for topic in ("roadfuse/#", "roadfuse/car-2/desired", "roadfuse/+/reported", "roadfuse-fleet/#", "#"):
        car.subscribe(topic)
    for topic in ("roadfuse/car-2/desired", "roadfuse/car-2/command", "roadfuse/car-2/reported", "roadfuse-fleet/x"):
        assert not cloud.publish(topic, b"secret").startswith(REFUSED)
    cloud.publish("roadfuse/car-1/desired", b"yours")
    cloud.publish("roadfuse/car-1/command", b"yours too")
    cloud.publish("roadfuse-fleet/stop", b"all")
    heard = []
    while not heard or heard[-1][0] != "roadfuse-fleet/stop":
        heard.append(car.heard.get(timeout=30))
    assert {topic for topic, _ in heard} == {"roadfuse/car-1/desired", "roadfuse/car-1/command", "roadfuse-fleet/stop"}


def test_the_last_will_is_published_for_its_own_vehicle_alone(broker: Broker, cloud: Client) -> None:
    cloud.subscribe("roadfuse/+/status")
    for name, of in (("car-4", "car-5"), ("car-5", "car-5")):
        client = broker.client(name, will=(f"roadfuse/{of}/status", name.encode()))
        sock = client.client.socket()
        assert sock is not None
        client.client.loop_stop()
        sock.close()  # no goodbye
    assert cloud.next("roadfuse/car-5/status") == b"car-5"


def test_an_unknown_ca_is_refused(broker: Broker, tmp_path: Path) -> None:
    other = certificates.create(tmp_path / "other")
    folder = identity(other, tmp_path / "car", "car-1")
    (folder / "cloud-ca.pem").write_bytes((broker.ca / "ca.pem").read_bytes())
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        _tls(broker, folder / "certificate.pem", folder / "key.pem")


def test_without_a_certificate_nobody_is_let_in(broker: Broker) -> None:
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        _tls(broker, None, None)


def test_a_known_certificate_is_let_in_by_the_same_words(broker: Broker, tmp_path: Path) -> None:
    folder = identity(certificates.load(broker.ca), tmp_path / "car", "car-1")
    _tls(broker, folder / "certificate.pem", folder / "key.pem")


def test_a_revoked_certificate_is_refused(tmp_path: Path) -> None:
    authority = certificates.create(tmp_path / "ca")
    good, bad = (identity(authority, tmp_path / name, name) for name in ("good", "bad"))
    serial = x509.load_pem_x509_certificate((bad / "certificate.pem").read_bytes()).serial_number
    now = datetime.datetime.now(datetime.UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    crl = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject).last_update(now)
    crl = crl.next_update(now + datetime.timedelta(days=7)).add_revoked_certificate(entry)
    pem = crl.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with Broker(tmp_path, revoked=pem) as broker:
        _tls(broker, good / "certificate.pem", good / "key.pem")
        with pytest.raises((ssl.SSLError, OSError, AssertionError)):
            _tls(broker, bad / "certificate.pem", bad / "key.pem")


def test_a_message_that_is_too_large_closes_the_line_and_the_broker_goes_on(broker: Broker, cloud: Client) -> None:
    large = broker.client("car-6")
    large.client.publish("roadfuse/car-6/reported", b"x" * 100_000, 1)
    assert large.connected.get(timeout=30) == "Success", "it had to connect again"
    large.client.loop_stop()
    assert not cloud.publish("roadfuse/car-1/desired", b"fine").startswith(REFUSED)


def test_no_vehicle_is_given_the_clouds_name() -> None:
    _, csr = request_for("roadfuse-cloud")
    with pytest.raises(IdentityError, match="the cloud's own"):
        certificates.read_request(csr)


def _tls(broker: Broker, certificate: Path | None, key: Path | None) -> None:
    """Connect by hand, and be answered by a CONNACK that says success."""
    import socket

    context = ssl.create_default_context(cafile=broker.ca / "ca.pem")
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    with (
        socket.create_connection(("localhost", broker.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.sendall(bytes.fromhex("1010 00044d515454 05 02 003c 00 0003 616263".replace(" ", "")))
        answer = line.recv(64)
        assert answer[:1] == b"\x20" and answer[3] == 0


def test_the_command_issues_what_broker_and_cloud_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificates.create(tmp_path / "ca")
    assert main(["ca", "broker", "--data", str(tmp_path), "--name", "broker.example.com"]) == 0
    assert "broker.example.com" in capsys.readouterr().out
    broker, cloud = (
        x509.load_pem_x509_certificate((tmp_path / "ca" / f"{n}.pem").read_bytes()) for n in ("broker", "cloud")
    )
    assert broker.subject.rfc4514_string() == "CN=roadfuse broker"
    assert cloud.subject.rfc4514_string() == "CN=roadfuse-cloud"
    uses = [one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value for one in (broker, cloud)]
    assert [list(use) for use in uses] == [[ExtendedKeyUsageOID.SERVER_AUTH], [ExtendedKeyUsageOID.CLIENT_AUTH]]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ca").glob("*.key")} == {0o600}


def test_a_certificate_of_the_clouds_own_that_ends_soon_is_issued_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates.create(tmp_path)
    with monkeypatch.context() as short:
        short.setattr(certificates, "SERVER_DAYS", 20)
        certificates.issue_cloud(tmp_path)
    before = (tmp_path / "cloud.pem").read_bytes()
    _, certificate, key = certificates.cloud_files(tmp_path)
    after = certificate.read_bytes()
    assert after != before and key.exists()
    assert certificates.cloud_files(tmp_path)[1].read_bytes() == after, "one that lasts is kept"
