"""Who a vehicle is, and how its packets are marked."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from edge.command import main as roadfuse
from edge.errors import UplinkError
from edge.uplink import identity as identities
from edge.uplink.identity import channel, enrol, renew, vehicle_of
from roadfuse.v1 import ingest_pb2 as wire
from roadfuse.v1 import ingest_pb2_grpc as services
from roadfuse.v1.ingest_pb2_grpc import IngestStub

from .ingest_server import Cloud, serve


def marks(port: int, stop: threading.Event, found: set[int]) -> None:
    """DSCP of the packets with content that go to a port on this machine."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as raw:
        raw.settimeout(0.2)
        while not stop.is_set():
            try:
                packet = raw.recv(65_535)[14:]
            except TimeoutError:
                continue
            header = (packet[0] & 15) * 4
            to_port = struct.unpack_from(">H", packet, header + 2)[0]
            if packet[9] == socket.IPPROTO_TCP and to_port == port:
                found.add(packet[1] >> 2)


def test_packets_ask_for_the_networks_background_class() -> None:
    server, address = serve(Cloud())
    stop, found = threading.Event(), set[int]()
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)).close()
    except PermissionError:
        pytest.skip("this user may not look at packets")
    watcher = threading.Thread(target=marks, args=(int(address.rpartition(":")[2]), stop, found))
    watcher.start()
    with grpc.insecure_channel(address, options=identities._options(None)) as link:
        IngestStub(link).Account(wire.AccountRequest(), timeout=20)
        IngestStub(link).Account(wire.AccountRequest(), timeout=20)
    stop.set()
    watcher.join()
    server.stop(None)
    assert 1 in found, f"expected packets of DSCP 1 (lower effort), got {sorted(found)}"


def test_a_folder_without_an_identity_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UplinkError, match="enrol the vehicle first"):
        channel("localhost:1", tmp_path)
    with pytest.raises(UplinkError, match="enrol the vehicle first"):
        vehicle_of(tmp_path)
    (tmp_path / identities.CERTIFICATE).write_bytes(b"no certificate")
    with pytest.raises(UplinkError, match="expected a certificate"):
        vehicle_of(tmp_path)
    assert roadfuse(["uplink", "run", "--spool", str(tmp_path), "--cloud", "x:1", "--identity", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_ca_that_is_not_there_is_no_reason_to_enrol_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca, identity = tmp_path / "nope.pem", tmp_path / "identity"
    words = ["--cloud", "x:1", "--identity", str(identity), "--vehicle", "v", "--token", "t", "--ca", str(ca)]
    assert roadfuse(["uplink", "enrol", *words]) == 2
    assert capsys.readouterr().err == f"roadfuse uplink: no such file: {ca}\n"
    assert not identity.exists()


def test_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / identities.KEY).write_bytes(b"secret")
    with pytest.raises(UplinkError, match="expected no identity"):
        enrol("localhost:1", tmp_path, "car-7", "token", tmp_path / "ca.pem")
    assert (tmp_path / identities.KEY).read_bytes() == b"secret"


def test_a_cloud_that_is_not_there_enrols_nobody(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    with pytest.raises(UplinkError, match=r"not enrolled: ") as raised:
        enrol("127.0.0.1:1", tmp_path / "identity", "car-7", "token", ca)
    assert "\n" not in str(raised.value) and not (tmp_path / "identity" / identities.KEY).exists()


def test_a_secret_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        identities._write(tmp_path / "key.pem", b"secret")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def certificate(key: Any, signer: Any, name: str = "cloud") -> bytes:
    """PEM, for a day."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(subject, subject, key, x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    made = builder.add_extension(here, False).sign(signer, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


class Authority(services.EnrolmentServicer, services.IngestServicer):
    """A cloud that certifies whoever comes, `told` whatever it was told to answer instead, and keeps the requests."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = certificate(self.key.public_key(), self.key)
        self.requests: list[bytes] = []
        self.told: list[bytes | grpc.StatusCode] = []

    def certify(self, csr: bytes, context: Any) -> bytes:
        self.requests.append(csr)
        if self.told:
            answer = self.told.pop(0)
            return answer if isinstance(answer, bytes) else context.abort(answer, "as it was told")
        return certificate(x509.load_pem_x509_csr(csr).public_key(), self.key, "car-7")

    def Enrol(self, request: wire.EnrolRequest, context: Any) -> wire.EnrolResponse:
        return wire.EnrolResponse(certificate=self.certify(request.csr, context), chain=self.pem)

    def Renew(self, request: wire.RenewRequest, context: Any) -> wire.RenewResponse:
        return wire.RenewResponse(certificate=self.certify(request.csr, context))


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def address(authority: Authority) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    services.add_EnrolmentServicer_to_server(authority, server)
    services.add_IngestServicer_to_server(authority, server)
    secret = authority.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(secret, authority.pem)]))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return path


def key_of(csr: bytes) -> Any:
    return x509.load_pem_x509_csr(csr).public_key()


def test_an_identity_that_was_enrolled_is_whole_and_is_renewed(
    authority: Authority, address: str, ca: Path, tmp_path: Path
) -> None:
    identity = tmp_path / "identity"
    enrol(address, identity, "car-7", "token", ca)
    names = {identities.KEY, identities.CERTIFICATE, identities.CLOUD_CA}
    assert {path.name for path in identity.iterdir()} == names and vehicle_of(identity) == "car-7"
    before = (identity / identities.CERTIFICATE).read_bytes()
    renew(address, identity)
    assert (identity / identities.CERTIFICATE).read_bytes() != before
    assert key_of(authority.requests[0]) == key_of(authority.requests[1]), "its key stays"


@pytest.mark.parametrize("folder", ["ca.pem", "ca.pem/below"])
def test_no_token_is_spent_for_an_identity_that_cannot_be_written(
    authority: Authority, address: str, ca: Path, tmp_path: Path, folder: str
) -> None:
    with pytest.raises(OSError):
        enrol(address, tmp_path / folder, "car-7", "token", ca)
    assert not authority.requests


def test_an_enrolment_whose_answer_was_lost_is_repeated_with_the_same_key(
    authority: Authority, address: str, ca: Path, tmp_path: Path
) -> None:
    authority.told = [grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(UplinkError, match="not enrolled"):
        enrol(address, tmp_path / "identity", "car-7", "token", ca)
    enrol(address, tmp_path / "identity", "car-7", "token", ca)
    first, second = map(key_of, authority.requests)
    assert first == second, "a cloud takes a token again, of the same key"
    assert stat.S_IMODE((tmp_path / "identity" / identities.KEY).stat().st_mode) == 0o600


@pytest.mark.parametrize("what", ["nothing", "garbage", "another"])
def test_what_is_no_certificate_of_the_key_is_refused_and_replaces_none(
    authority: Authority, address: str, ca: Path, tmp_path: Path, what: str
) -> None:
    authority.pem = b""  # no chain to the answer
    identity = tmp_path / "identity"
    answer = {"nothing": b"", "garbage": b"C", "another": ca.read_bytes()}[what]
    authority.told = [answer]
    with pytest.raises(UplinkError, match="expected a certificate") as raised:
        enrol(address, identity, "car-7", "token", ca)
    assert "\n" not in str(raised.value) and not (identity / identities.KEY).exists()
    enrol(address, identity, "car-7", "token", ca)
    before = (identity / identities.CERTIFICATE).read_bytes()
    authority.told = [answer]
    with pytest.raises(UplinkError, match="expected a certificate"):
        renew(address, identity)
    assert (identity / identities.CERTIFICATE).read_bytes() == before


def test_a_key_of_another_kind_is_said_in_one_line(address: str, ca: Path, tmp_path: Path) -> None:
    enrol(address, tmp_path / "identity", "car-7", "token", ca)
    key = rsa.generate_private_key(65_537, 2048)
    (tmp_path / "identity" / identities.KEY).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(UplinkError, match="expected a key of an elliptic curve"):
        renew(address, tmp_path / "identity")


@pytest.mark.parametrize("name", ["", "c" * 65, "\u00e4" * 33])
def test_a_name_that_no_certificate_can_have_is_said_in_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "ca.pem").write_bytes(b"")
    words = ["--cloud", "127.0.0.1:1", "--ca", str(tmp_path / "ca.pem"), "--identity", str(tmp_path / "identity")]
    assert roadfuse(["uplink", "enrol", *words, "--vehicle", name, "--token", "t"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "expected a name of 1 to 64 bytes" in said
    assert not (tmp_path / "identity").exists()
