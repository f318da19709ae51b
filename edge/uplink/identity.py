"""Who a vehicle is: a private key that never leaves it, and the certificate that the device CA gave for it.

key.pem           readable by its owner alone
certificate.pem   with the chain to the device CA
cloud-ca.pem      whom the vehicle believes to be its cloud
director-root.json, image-root.json   with which trust in model updates begins; none where the cloud releases nothing
"""

from __future__ import annotations

import datetime
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.durable import sync
from edge.errors import UplinkError
from roadfuse.v1 import ingest_pb2 as wire
from roadfuse.v1.ingest_pb2_grpc import EnrolmentStub, IngestStub

KEY, CERTIFICATE, CLOUD_CA = "key.pem", "certificate.pem", "cloud-ca.pem"
DIRECTOR_ROOT, IMAGE_ROOT = "director-root.json", "image-root.json"
_PENDING: Final = "key.new"  # the key's name until its certificate is there
_CALL_S: Final = 30.0
# Background class: the network drops or delays this before all else (RFC 8622, "lower effort").
_LOWER_EFFORT: Final = 1
_OPTIONS: Final = (
    ("grpc.dscp", _LOWER_EFFORT),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.max_reconnect_backoff_ms", 30_000),
)


def channel(address: str, identity: Path, server_name: str | None = None) -> grpc.Channel:
    """A channel to the cloud by which it knows the vehicle (mTLS).

    Args:
        address: host:port of its ingest.
        identity: folder that `enrol` wrote.
        server_name: in the cloud's certificate, where it is not the host's.

    Raises:
        UplinkError: the folder lacks a part.
    """
    parts = [_read(identity / name) for name in (CLOUD_CA, KEY, CERTIFICATE)]
    credentials = grpc.ssl_channel_credentials(*parts)
    return grpc.secure_channel(address, credentials, options=_options(server_name))


def vehicle_of(identity: Path) -> str:
    """The vehicle's name, as its certificate says.

    Raises:
        UplinkError: there is no certificate, or it names none.
    """
    path = identity / CERTIFICATE
    try:
        subject = x509.load_pem_x509_certificate(_read(path)).subject
    except ValueError as error:
        raise UplinkError(f"{path}: expected a certificate, got {error}") from None
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        raise UplinkError(f"{path}: expected a certificate with a common name, got none")
    return str(names[0].value)


def is_ending(identity: Path, now: datetime.datetime | None = None) -> bool:
    """Whether the certificate has spent two thirds of its time: its follower should be fetched.

    Raises:
        UplinkError: there is no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(_read(identity / CERTIFICATE))
    except ValueError as error:
        raise UplinkError(f"{identity / CERTIFICATE}: expected a certificate, got {error}") from None
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (now or datetime.datetime.now(datetime.timezone.utc)) > begins + 2 / 3 * (ends - begins)


def renew(address: str, identity: Path, server_name: str | None = None) -> None:
    """Fetches a certificate that follows the vehicle's, by the certificate that it has; its key stays.

    Channels that are open keep the old one, which counts until it ends.

    Args:
        address: host:port of the cloud's ingest.

    Raises:
        UplinkError: the folder lacks a part, the cloud refuses, or what it gives is no certificate of the key.
        OSError: a file can't be read or written.
    """
    key = _key(identity / KEY)
    request = wire.RenewRequest(csr=_request(key, _name(vehicle_of(identity))))
    with channel(address, identity, server_name) as link:
        try:
            response = IngestStub(link).Renew(request, timeout=_CALL_S)
        except grpc.RpcError as error:
            from edge.uplink.client import said

            raise UplinkError(f"{address}: not renewed: {said(error)}") from None
    _write(identity / CERTIFICATE, _checked(address, key, response.certificate + response.chain))


def enrol(
    address: str, identity: Path, vehicle: str, token: str, cloud_ca: Path, server_name: str | None = None
) -> None:
    """Makes a key, has its certificate signed against a one-time token, and writes both.

    The key is durable before the token is spent: where the answer was lost, or could not be written, the same token
    counts once more with the same key.

    Args:
        address: host:port of the cloud's enrolment.
        cloud_ca: certificate of the CA that the cloud's own is signed by, PEM.

    Raises:
        UplinkError: the folder holds an identity already, the cloud refuses, or what it gives is no certificate of the
            key.
        OSError: a file can't be read or written.
    """
    if (identity / KEY).exists():
        raise UplinkError(f"{identity}: expected no identity, got one: enrol into another folder, or remove it")
    subject = _name(vehicle)
    ca = cloud_ca.read_bytes()
    identity.mkdir(parents=True, exist_ok=True)
    _write(identity / CLOUD_CA, ca)
    key = _pending(identity / _PENDING)
    request = wire.EnrolRequest(csr=_request(key, subject), token=token)
    credentials = grpc.ssl_channel_credentials(ca)
    with grpc.secure_channel(address, credentials, options=_options(server_name)) as link:
        try:
            response = EnrolmentStub(link).Enrol(request, timeout=_CALL_S)
        except grpc.RpcError as error:
            from edge.uplink.client import said

            raise UplinkError(f"{address}: not enrolled: {said(error)}") from None
    _write(identity / CERTIFICATE, _checked(address, key, response.certificate + response.chain))
    for name, root in ((DIRECTOR_ROOT, response.director_root), (IMAGE_ROOT, response.image_root)):
        if root:
            _write(identity / name, root)
    (identity / _PENDING).replace(identity / KEY)  # last: with it the identity is whole
    sync(identity)


def _pending(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key of an enrolment that was cut short, or a new one; on the disk in any case."""
    with suppress(UplinkError):
        return _key(path)
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, secret)
    return key


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UplinkError(f"{path}: expected a private key, got {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UplinkError(f"{path}: expected a key of an elliptic curve, as `enrol` makes it, got another")
    return key


def _checked(address: str, key: ec.EllipticCurvePrivateKey, chain: bytes) -> bytes:
    """What the cloud gave, where it is a certificate of the key, with those up to the device CA."""
    try:
        public = x509.load_pem_x509_certificates(chain)[0].public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UplinkError(f"{address}: expected a certificate, got {error}") from None
    if public != key.public_key():
        raise UplinkError(f"{address}: expected a certificate of this vehicle's key, got one of another")
    return chain


def _name(vehicle: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, vehicle)])
    except ValueError:
        raise UplinkError(f"vehicle: expected a name of 1 to 64 bytes, got {vehicle!r}") from None


def _request(key: ec.EllipticCurvePrivateKey, name: x509.Name) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _options(server_name: str | None) -> list[tuple[str, int | str]]:
    return [*_OPTIONS, *([("grpc.ssl_target_name_override", server_name)] if server_name else [])]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UplinkError(f"{path}: expected a file, got none: enrol the vehicle first") from None


def _write(path: Path, content: bytes) -> None:
    """Durable, and for its owner alone from the first byte on."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)
