"""The device CA: keys and certificates, without any I/O but its own folder.

The CA signs vehicles (client authentication only), this cloud's servers and its broker (server authentication only),
the cloud itself as a client of the broker, and no further CA. Keys are ECDSA P-256.

Ref: RFC 5280.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.errors import IdentityError

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 397
VEHICLE_DAYS: Final = 397
# Clocks of vehicles may be behind by this much when they are given their certificate.
BACKDATE: Final = datetime.timedelta(hours=1)
MAX_CSR_BYTES: Final = 16 << 10
# A vehicle's name is part of file names and object keys.
VEHICLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What the broker knows the cloud by; no vehicle is given this name.
CLOUD: Final = "roadfuse-cloud"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was signed."""

    serial: str  # hexadecimal
    pem: bytes
    expires_at: datetime.datetime


def create(folder: Path) -> Authority:
    """Make a device CA in `folder`.

    Raises:
        IdentityError: there is one already.
    """
    if (folder / "ca.key").exists():
        raise IdentityError(f"{folder}: expected no CA, got one (it has signed vehicles; move it away to make another)")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "roadfuse device CA")])
    builder = _builder(name, name, key.public_key(), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    authority = Authority(builder.sign(key, hashes.SHA256()), key)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write(folder / "ca.pem", authority.pem)
    _write(folder / "ca.key", _key_pem(key))
    return authority


def load(folder: Path) -> Authority:
    """The CA that is kept in `folder`.

    Raises:
        IdentityError: there is none, or its files are damaged or can't be read.
    """
    pem, key_pem = _read(folder / "ca.pem", "init"), _read(folder / "ca.key", "init")
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{folder}: the CA's files can't be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise IdentityError(f"{folder}: expected ca.key to be the key of ca.pem, got another")
    return Authority(certificate, key)


def issue_server(folder: Path, names: Sequence[str]) -> Path:
    """Issue a certificate for servers that are called by any of `names` (hosts or addresses); replaces the last one.

    A key that is there stays: the parts of a cloud know each other by it (cloud.keys.inner_key).

    Returns:
        The certificate's file; its key lies beside it.

    Raises:
        IdentityError: there is no CA, `server.key` is damaged, or a name can't be a host's.
    """
    return _issue_own(folder, "server", "roadfuse cloud", names)


def issue_broker(folder: Path, names: Sequence[str]) -> Path:
    """Issue a certificate for the MQTT broker, which is called by any of `names`, and one for the cloud as its client.

    Keys that are there stay.

    Returns:
        The broker's certificate, `broker.pem`; `broker.key` and `cloud.pem`, `cloud.key` lie beside it.

    Raises:
        IdentityError: as `issue_server`.
    """
    issue_cloud(folder)
    return _issue_own(folder, "broker", "roadfuse broker", names)


def issue_cloud(folder: Path) -> Path:
    """Issue the certificate that the cloud shows to the broker; replaces the last one. A key that is there stays."""
    return _issue_own(folder, "cloud", CLOUD)


def cloud_files(folder: Path) -> tuple[Path, Path, Path]:
    """CA, certificate and key with which the cloud calls the broker; issued where none is the key's, or it ends soon.

    Raises:
        IdentityError: there is no CA, or `cloud.key` is damaged or can't be read.
    """
    path = folder / "cloud.pem"
    key = _kept_key(path.with_suffix(".key"))
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=SERVER_DAYS // 4)
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        is_its = key is not None and certificate.public_key() == key.public_key()
        is_fine = is_its and certificate.not_valid_after_utc > soon
    except (OSError, ValueError):
        is_fine = False
    if not is_fine:
        issue_cloud(folder)
    return folder / "ca.pem", path, path.with_suffix(".key")


def _issue_own(folder: Path, file: str, name: str, names: Sequence[str] = ()) -> Path:
    """A certificate for the cloud's own use: for a server where it has `names`, else for a client.

    A key that is there stays, so that whatever ends this halfway leaves a pair that fits.
    """
    kept = _kept_key(folder / f"{file}.key")
    authority = load(folder)
    key = kept or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, authority.certificate.subject, key.public_key(), SERVER_DAYS)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = _leaf(builder, authority, purpose)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(one) for one in names]), False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    if kept is None:
        _write(folder / f"{file}.key", _key_pem(key))
    _write(folder / f"{file}.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return folder / f"{file}.pem"


def _kept_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    pem = _content(path)
    if pem is None:
        return None
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: expected an ECDSA key, got something else (move it away, and one is made)")
    return key


def server_files(folder: Path) -> tuple[bytes, bytes]:
    """Key and certificate of this cloud's servers, PEM.

    Raises:
        IdentityError: none was issued, or it can't be read.
    """
    return _read(folder / "server.key", "server"), _read(folder / "server.pem", "server")


def names_of(pem: bytes) -> list[str]:
    """Hosts and addresses that a server's certificate is for.

    Raises:
        IdentityError: it is no such certificate.
    """
    try:
        said = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        raise IdentityError("expected a server's certificate as PEM, got something else") from None
    return [str(each.value) for each in said.value]


def read_request(pem: bytes) -> x509.CertificateSigningRequest:
    """A vehicle's signing request, checked but for who sends it.

    Raises:
        IdentityError: malformed, not signed by its own key, or with a key that is too weak.
    """
    if len(pem) > MAX_CSR_BYTES:
        raise IdentityError(f"expected a request of at most {MAX_CSR_BYTES} bytes, got {len(pem)}")
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        is_signed = request.is_signature_valid
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise IdentityError("expected a certificate signing request as PEM, got something else") from None
    is_strong = (
        (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1))
        or isinstance(key, ed25519.Ed25519PublicKey)
        or (isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192)
    )
    if not is_signed or not is_strong:
        raise IdentityError("expected a request signed by its own P-256, P-384, Ed25519 or RSA (2048 bits) key")
    if len(names) != 1 or not VEHICLE.fullmatch(str(names[0].value)):
        raise IdentityError("expected one common name of letters, digits, '.', '_' and '-', at most 64 characters")
    if str(names[0].value) == CLOUD:
        raise IdentityError(f"expected the name of a vehicle, got {CLOUD}, which is the cloud's own")
    return request


def common_name(request: x509.CertificateSigningRequest) -> str:
    """Whom a request is for."""
    return str(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def key_digest(request: x509.CertificateSigningRequest) -> bytes:
    """SHA-256 of a request's public key."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        request.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return digest.finalize()


def issue_vehicle(authority: Authority, request: x509.CertificateSigningRequest) -> Issued:
    """Sign a request; of what it asks for only the name and the key are taken."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(request))])
    key = request.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey)
    builder = _builder(subject, authority.certificate.subject, key, VEHICLE_DAYS)
    builder = _leaf(builder, authority, ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate = builder.sign(authority.key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Issued(f"{certificate.serial_number:x}", pem, certificate.not_valid_after_utc)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey,
    days: int,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(
    builder: x509.CertificateBuilder, authority: Authority, purpose: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise IdentityError(f"expected a host name or an address, got {name!r}") from None


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(path: Path, made_by: str) -> bytes:
    content = _content(path)
    if content is None:
        raise IdentityError(f"expected {path}, got no such file (roadfuse cloud ca {made_by} makes it)")
    return content


def _content(path: Path) -> bytes | None:
    """None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(f"expected {path} to be readable, got: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once, readable by its owner alone."""
    fresh = path.with_name(path.name + ".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    fresh.replace(path)
