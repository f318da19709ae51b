"""Enrolment and identities: what is refused, and that a repeated word is answered as it was."""

from __future__ import annotations

import contextlib
import datetime
import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import Engine

from cloud import certificates, identity
from cloud.database import connect
from cloud.errors import IdentityError
from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc

from .fleet import Cloud, Status, Vehicle, refused, request_for, summary

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def engine(cloud: Cloud) -> Iterator[Engine]:
    assert cloud.database is not None
    engine = connect(cloud.database)
    yield engine
    engine.dispose()


@pytest.fixture
def enrolment(cloud: Cloud) -> Iterator[ingest_pb2_grpc.EnrolmentStub]:
    credentials = grpc.ssl_channel_credentials(cloud.ca)
    with grpc.secure_channel(f"127.0.0.1:{cloud.enrol_port}", credentials) as channel:
        yield ingest_pb2_grpc.EnrolmentStub(channel)


def token(engine: Engine, vehicle: str, validity: datetime.timedelta = HOUR) -> str:
    with engine.begin() as connection:
        return identity.give_token(connection, vehicle, validity)


def asked(csr: bytes, secret: str) -> ingest_pb2.EnrolRequest:
    return ingest_pb2.EnrolRequest(csr=csr, token=secret)


def car() -> str:
    return f"car-{secrets.token_hex(4)}"


def test_a_vehicle_enrols_and_is_known_by_its_certificate(
    cloud: Cloud, engine: Engine, enrolment: ingest_pb2_grpc.EnrolmentStub
) -> None:
    name = car()
    key, csr = request_for(name)
    answer = enrolment.Enrol(asked(csr, token(engine, name)), timeout=30)
    certificate = x509.load_pem_x509_certificate(answer.certificate)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.chain))
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and not constraints.value.ca
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    authority = x509.load_pem_x509_certificate(answer.chain)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    vehicle = Vehicle(cloud, name, key, answer.certificate + answer.chain)
    vehicle.report(summary(1))
    assert vehicle.account().evicted == 1


def test_a_token_serves_one_key_and_answers_it_again(engine: Engine, enrolment: ingest_pb2_grpc.EnrolmentStub) -> None:
    name = car()
    secret = token(engine, name)
    key = ec.generate_private_key(ec.SECP256R1())
    first = enrolment.Enrol(asked(request_for(name, key)[1], secret), timeout=30)
    again = enrolment.Enrol(asked(request_for(name, key)[1], secret), timeout=30)
    assert again.certificate == first.certificate
    with refused(Status.PERMISSION_DENIED, "token"):
        enrolment.Enrol(asked(request_for(name)[1], secret), timeout=30)


def test_a_token_is_for_its_vehicle_and_its_time(engine: Engine, enrolment: ingest_pb2_grpc.EnrolmentStub) -> None:
    name = car()
    secret, expired = token(engine, name), token(engine, name, -HOUR)
    for csr, word in (
        (request_for(car())[1], secret),
        (request_for(name)[1], expired),
        (request_for(name)[1], "guess"),
        (request_for(name)[1], ""),
    ):
        with refused(Status.PERMISSION_DENIED, "token"):
            enrolment.Enrol(asked(csr, word), timeout=30)
    enrolment.Enrol(asked(request_for(name)[1], secret), timeout=30)


@pytest.mark.parametrize("name", ["../car", "a/b", ".hidden", "car 1", "", "x" * 65, "car\n1"])
def test_a_name_that_could_be_a_path_is_no_vehicles(name: str, engine: Engine) -> None:
    with pytest.raises(IdentityError), engine.begin() as connection:
        identity.give_token(connection, name, HOUR)


def test_the_clouds_own_name_is_no_vehicles(engine: Engine) -> None:
    with pytest.raises(IdentityError, match="the cloud's own"):
        token(engine, certificates.CLOUD)


def test_what_is_no_request_of_a_strong_key_is_refused(
    engine: Engine, enrolment: ingest_pb2_grpc.EnrolmentStub
) -> None:
    name = car()
    secret = token(engine, name)
    tampered = bytearray(x509.load_pem_x509_csr(request_for(name)[1]).public_bytes(serialization.Encoding.DER))
    tampered[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(tampered)).public_bytes(serialization.Encoding.PEM)
    weak = request_for(name, rsa.generate_private_key(65537, 1024))[1]
    curve = request_for(name, ec.generate_private_key(ec.SECP192R1()))[1]
    path = request_for("../../etc/passwd")[1]
    for csr in (b"", b"-----BEGIN CERTIFICATE REQUEST-----", bytes(20_000), pem, weak, curve, path):
        with refused(Status.INVALID_ARGUMENT, "expected"):
            enrolment.Enrol(asked(csr, secret), timeout=30)


def test_a_foreign_certificate_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    foreign = certificates.create(tmp_path / "foreign")
    name = car()
    key, csr = request_for(name)
    issued = certificates.issue_vehicle(foreign, certificates.read_request(csr))
    vehicle = Vehicle(cloud, name, key, issued.pem + foreign.pem)
    with refused(Status.UNAVAILABLE):
        vehicle.report(summary(1))


def test_a_certificate_that_the_catalogue_does_not_know_is_refused(cloud: Cloud) -> None:
    """Signed by the right CA, with the name of a real vehicle, and never enrolled."""
    real = cloud.vehicle()
    key, csr = request_for(real.name)
    authority = certificates.load(cloud.data / "ca")
    issued = certificates.issue_vehicle(authority, certificates.read_request(csr))
    with refused(Status.UNAUTHENTICATED, "unknown here or revoked"):
        Vehicle(cloud, real.name, key, issued.pem).report(summary(1))


def test_a_servers_certificate_is_no_vehicles(cloud: Cloud) -> None:
    key, certificate = certificates.server_files(cloud.data / "ca")
    with refused(Status.UNAVAILABLE):
        Vehicle(cloud, "cloud", key, certificate).report(summary(1))


def test_a_vehicles_certificate_signs_no_other(cloud: Cloud) -> None:
    real = cloud.vehicle()
    signer = serialization.load_pem_private_key(real.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    authority = certificates.Authority(x509.load_pem_x509_certificate(real.certificate), signer)
    key, csr = request_for(car())
    issued = certificates.issue_vehicle(authority, certificates.read_request(csr))
    with refused(Status.UNAVAILABLE):
        Vehicle(cloud, "x", key, issued.pem + real.certificate).report(summary(1))


def test_a_revoked_vehicle_is_refused_and_a_new_token_lets_it_in_again(
    cloud: Cloud, engine: Engine, enrolment: ingest_pb2_grpc.EnrolmentStub
) -> None:
    vehicle = cloud.vehicle()
    unused = token(engine, vehicle.name)
    with engine.begin() as connection:
        assert identity.revoke(connection, vehicle.name) == 1
    fresh = Vehicle(cloud, vehicle.name, vehicle.key, vehicle.certificate)
    with refused(Status.UNAUTHENTICATED, "revoked"):
        fresh.report(summary(1))
    key, csr = request_for(vehicle.name)
    with refused(Status.PERMISSION_DENIED):
        enrolment.Enrol(asked(csr, unused), timeout=30)
    answer = enrolment.Enrol(asked(csr, token(engine, vehicle.name)), timeout=30)
    Vehicle(cloud, vehicle.name, key, answer.certificate).report(summary(1))
    with refused(Status.UNAUTHENTICATED, "revoked"):
        fresh.report(summary(1))


def test_a_revocation_reaches_a_connection_that_is_open(cloud: Cloud, engine: Engine) -> None:
    vehicle = cloud.vehicle()
    vehicle.report(last=1)
    with engine.begin() as connection:
        identity.revoke(connection, vehicle.name)
    for _ in range(100_000):  # the server trusts its last answer for a moment
        try:
            vehicle.report(last=1)
        except grpc.RpcError as error:
            assert error.code() == Status.UNAUTHENTICATED  # type: ignore[attr-defined]
            return
    raise AssertionError("the revoked vehicle is still answered")


def test_the_ca_is_made_once_and_its_key_is_its_owners(tmp_path: Path) -> None:
    certificates.create(tmp_path / "ca")
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(IdentityError, match="expected no CA, got one"):
        certificates.create(tmp_path / "ca")
    (tmp_path / "ca" / "ca.key").write_bytes(b"damaged")
    with pytest.raises(IdentityError, match="can't be read"):
        certificates.load(tmp_path / "ca")


def test_a_certificate_lives_for_its_days(tmp_path: Path) -> None:
    authority = certificates.create(tmp_path / "ca")
    issued = certificates.issue_vehicle(authority, certificates.read_request(request_for("car")[1]))
    certificate = x509.load_pem_x509_certificate(issued.pem)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime == datetime.timedelta(days=certificates.VEHICLE_DAYS) + certificates.BACKDATE


def test_a_renewed_server_certificate_keeps_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    certificates.create(folder)
    certificates.issue_server(folder, ["localhost"])
    key, first = certificates.server_files(folder)
    certificates.issue_server(folder, ["cloud.example", "10.0.0.1"])
    kept, second = certificates.server_files(folder)
    assert kept == key and second != first and certificates.names_of(second) == ["cloud.example", "10.0.0.1"]
    assert serialization.load_pem_private_key(kept, None).public_key() == (
        x509.load_pem_x509_certificate(second).public_key()
    )
    (folder / "server.key").write_text("damaged")
    with pytest.raises(IdentityError, match="expected an ECDSA key"):
        certificates.issue_server(folder, ["localhost"])
    assert (folder / "server.pem").read_bytes() == second
    with pytest.raises(IdentityError, match="expected a server's certificate"):
        certificates.names_of(certificates.load(folder).pem)


def test_files_that_can_not_be_read_are_named_in_one_line(tmp_path: Path) -> None:
    certificates.create(tmp_path)
    certificates.issue_server(tmp_path, ["localhost"])
    for name, reads in (("server.pem", certificates.server_files), ("ca.key", certificates.load)):
        (tmp_path / name).unlink()
        with pytest.raises(IdentityError, match=f"expected .*{name}, got no such file"):
            reads(tmp_path)
        (tmp_path / name).mkdir()
        with pytest.raises(IdentityError, match=f"expected .*{name} to be readable, got: Is a directory"):
            reads(tmp_path)
    (tmp_path / "cloud.key").mkdir()
    with pytest.raises(IdentityError, match="to be readable, got: Is a directory"):
        certificates.cloud_files(tmp_path)


@pytest.mark.parametrize("cut_at", ["cloud.key", "cloud.pem", "broker.key", "broker.pem"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_power_cut_while_certificates_are_issued_leaves_pairs_that_fit(
    cut_at: str, is_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates.create(tmp_path)
    if not is_first:
        certificates.issue_broker(tmp_path, ["localhost"])
    replace = Path.replace

    def cut(fresh: Path, path: Path) -> Path:
        if path.name == cut_at:
            raise InterruptedError
        return replace(fresh, path)

    with monkeypatch.context() as power, contextlib.suppress(InterruptedError):
        power.setattr(Path, "replace", cut)
        certificates.issue_broker(tmp_path, ["localhost"])
    if is_first:
        certificates.issue_broker(tmp_path, ["localhost"])  # what was not issued is issued then
    _, *cloud = certificates.cloud_files(tmp_path)
    for certificate, key in (cloud, (tmp_path / "broker.pem", tmp_path / "broker.key")):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)


def test_a_certificate_of_the_clouds_own_that_is_another_keys_is_issued_anew(tmp_path: Path) -> None:
    certificates.create(tmp_path)
    certificates.issue_cloud(tmp_path)
    certificates.issue_server(tmp_path, ["localhost"])
    (tmp_path / "server.key").replace(tmp_path / "cloud.key")  # as two that issue the first one at once may leave it
    _, certificate, key = certificates.cloud_files(tmp_path)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
