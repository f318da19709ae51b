"""A vehicle renews its certificate with the one that it has; others can read what is revoked."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from cloud import certificates, identity, renewal
from cloud.database import connect
from edge.uplink.identity import is_ending, renew
from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc

from .fleet import Cloud, Status, Vehicle, command, refused, request_for


def renewed(vehicle: Vehicle, csr: bytes) -> bytes:
    return bytes(vehicle.stub.Renew(ingest_pb2.RenewRequest(csr=csr), timeout=30).certificate)


def aged(cloud: Cloud, vehicle: Vehicle, days: int) -> None:
    """As if all its certificates had been issued so long ago."""
    assert cloud.database is not None
    engine = connect(cloud.database)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE certificates SET expires_at = expires_at - make_interval(days => :days) WHERE vehicle = :name"
            ),
            {"days": days, "name": vehicle.name},
        )
    engine.dispose()


def own_request(vehicle: Vehicle) -> bytes:
    key = serialization.load_pem_private_key(vehicle.key, None)
    return request_for(vehicle.name, key)[1]


def test_a_vehicle_calls_with_the_certificate_that_followed(cloud: Cloud) -> None:
    vehicle = cloud.vehicle()
    key, csr = request_for(vehicle.name)
    follower = Vehicle(cloud, vehicle.name, key, renewed(vehicle, csr))
    follower.report(last=1)
    vehicle.report(last=2)  # the former counts until it ends
    leaf = x509.load_pem_x509_certificate(follower.certificate)
    assert leaf.not_valid_after_utc > datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=396)


def test_a_repeated_renewal_gets_the_same_certificate_until_that_is_old(cloud: Cloud) -> None:
    vehicle = cloud.vehicle()
    csr = own_request(vehicle)
    assert renewed(vehicle, csr) == vehicle.certificate, "it was enrolled a moment ago"
    aged(cloud, vehicle, 300)
    second = renewed(vehicle, csr)
    assert second != vehicle.certificate and renewed(vehicle, csr) == second


def test_a_vehicle_renews_nobody_else(cloud: Cloud) -> None:
    vehicle, other = cloud.vehicle(), cloud.vehicle()
    with refused(Status.PERMISSION_DENIED, f"expected a request of {vehicle.name}"):
        renewed(vehicle, request_for(other.name)[1])
    for csr in (b"", b"not a request", other.certificate):
        with refused(Status.INVALID_ARGUMENT, "certificate signing request"):
            renewed(vehicle, csr)


def test_a_vehicle_has_few_certificates_at_once(cloud: Cloud) -> None:
    vehicle = cloud.vehicle()
    for _ in range(renewal.MOST - 1):
        renewed(vehicle, request_for(vehicle.name)[1])
    with refused(Status.RESOURCE_EXHAUSTED, f"at most {renewal.MOST}"):
        renewed(vehicle, request_for(vehicle.name)[1])


def test_a_revoked_vehicle_does_not_renew_and_is_in_the_list(cloud: Cloud) -> None:
    assert cloud.database is not None
    vehicle, other = cloud.vehicle(), cloud.vehicle()
    authority = certificates.load(cloud.data / "ca")
    engine = connect(cloud.database)
    with engine.begin() as connection:
        identity.revoke(connection, vehicle.name)
    engine.dispose()
    with refused(Status.UNAUTHENTICATED):
        renewed(vehicle, request_for(vehicle.name)[1])
    words = ("cloud", "ca", "crl", "--data", cloud.data, "--database", cloud.database)
    listed = x509.load_pem_x509_crl(command(*words).stdout.encode())
    key = authority.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and listed.is_signature_valid(key)
    ends_at = x509.load_pem_x509_certificate(vehicle.certificate).not_valid_after_utc
    now = datetime.datetime.now(datetime.timezone.utc)
    assert listed.last_update_utc < now - datetime.timedelta(minutes=50), "a broker's clock may be behind"
    assert listed.next_update_utc is not None and listed.next_update_utc >= ends_at, "a broker refuses all after that"
    serials = {entry.serial_number for entry in listed}
    assert x509.load_pem_x509_certificate(vehicle.certificate).serial_number in serials
    assert x509.load_pem_x509_certificate(other.certificate).serial_number not in serials


def served(cloud: Cloud, port: int) -> x509.Certificate:
    """What a server shows to who connects now; whether it then wants a certificate is not asked."""
    context = ssl.create_default_context(cadata=cloud.ca.decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as line,
    ):
        return x509.load_der_x509_certificate(line.getpeercert(binary_form=True) or b"")


def test_running_servers_take_up_a_renewed_certificate(cloud: Cloud) -> None:
    vehicle, path = cloud.vehicle(), cloud.data / "ca" / "server.pem"
    before = x509.load_pem_x509_certificate(path.read_bytes())
    ports = cloud.port, cloud.enrol_port
    assert [served(cloud, port) for port in ports] == [before, before]
    said = command("cloud", "ca", "server", "--data", cloud.data, "--name", "localhost", "--name", "127.0.0.1").stdout
    assert said.count("\n") == 1, said
    renewed = x509.load_pem_x509_certificate(path.read_bytes())
    assert renewed != before and [served(cloud, port) for port in ports] == [renewed, renewed]
    vehicle.report(last=1)
    path.rename(path.with_name("aside.pem"))
    path.mkdir()  # as one that only root may read
    assert [served(cloud, port) for port in (*ports, *ports)] == [renewed] * 4
    said = (cloud.data / "stderr").read_text()
    assert said.count(f"expected {path} to be readable") == len(ports), "a server that starts would say so, and end"
    path.rmdir()
    path.write_text("damaged")
    assert [served(cloud, port) for port in ports] == [renewed, renewed], "the last good one stays"
    said = command("cloud", "ca", "server", "--data", cloud.data).stdout
    again = x509.load_pem_x509_certificate(path.read_bytes())
    assert again != renewed and [served(cloud, port) for port in ports] == [again, again]
    with refused(Status.UNAVAILABLE), grpc.insecure_channel(f"localhost:{cloud.port}") as channel:
        ingest_pb2_grpc.IngestStub(channel).Account(ingest_pb2.AccountRequest(), timeout=30)
    credentials = grpc.ssl_channel_credentials(cloud.ca)
    with refused(Status.UNAVAILABLE), grpc.secure_channel(f"localhost:{cloud.port}", credentials) as channel:
        ingest_pb2_grpc.IngestStub(channel).Account(ingest_pb2.AccountRequest(), timeout=30)


def test_a_certificate_for_another_name_says_that_the_cloud_wants_a_restart(tmp_path: Path) -> None:
    command("cloud", "ca", "init", "--data", tmp_path, "--name", "old.example", "--name", "other.example")
    said = command("cloud", "ca", "server", "--data", tmp_path, "--name", "other.example").stdout
    assert "no longer for old.example: restart the cloud" in said
    said = command("cloud", "ca", "server", "--data", tmp_path, "--name", "new", "--name", "other.example").stdout
    assert "restart" not in said


def test_a_vehicles_files_hold_the_follower_and_the_same_key(cloud: Cloud, tmp_path: Path) -> None:
    vehicle = cloud.vehicle()
    contents = {"key.pem": vehicle.key, "certificate.pem": vehicle.certificate, "cloud-ca.pem": cloud.ca}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    aged(cloud, vehicle, 300)
    now = datetime.datetime.now(datetime.timezone.utc)
    assert not is_ending(tmp_path, now + datetime.timedelta(days=260))
    assert is_ending(tmp_path, now + datetime.timedelta(days=270))
    renew(f"localhost:{cloud.port}", tmp_path)
    assert (tmp_path / "key.pem").read_bytes() == vehicle.key
    chain = (tmp_path / "certificate.pem").read_bytes()
    assert chain.startswith(b"-----BEGIN CERTIFICATE") and not chain.startswith(vehicle.certificate)
    words = ("uplink", "renew", "--cloud", f"localhost:{cloud.port}", "--identity", tmp_path)
    assert "renewed" in command(*words).stdout
    credentials = grpc.ssl_channel_credentials(cloud.ca, vehicle.key, chain)
    with grpc.secure_channel(f"localhost:{cloud.port}", credentials) as channel:
        assert ingest_pb2_grpc.IngestStub(channel).Account(ingest_pb2.AccountRequest(), timeout=30).vehicle
    failed = command(*words[:3], "localhost:1", *words[4:], check=False)
    assert failed.returncode == 2 and "not renewed" in failed.stderr and failed.stderr.count("\n") == 1
