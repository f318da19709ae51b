"""The campaign key: certified by the device CA for campaigns alone, so that vehicles which know the CA know it too."""

from __future__ import annotations

import datetime
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud import certificates
from cloud.errors import IdentityError
from edge.campaigns.probe import Probe
from edge.campaigns.trust import CAMPAIGN_SIGNING, signed_bytes
from edge.campaigns.wire import to_message
from roadfuse.v1.campaign_pb2 import SignedProbe

DAYS: Final = 397
# A vehicle checks a probe when it hears of it, which may be long after it was signed.
RENEW_BEFORE: Final = datetime.timedelta(days=90)
_KEY: Final = "campaigns.pem"  # both, the key first


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs probes, and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def sign(self, probe: Probe) -> bytes:
        """The probe as vehicles get it: a serialised roadfuse.v1.SignedProbe."""
        content = to_message(probe).SerializeToString(deterministic=True)
        signed = SignedProbe(
            probe=content,
            certificate=self.certificate.public_bytes(serialization.Encoding.DER),
            signature=self.key.sign(signed_bytes(content), ec.ECDSA(hashes.SHA256())),
        )
        return signed.SerializeToString(deterministic=True)


def load(folder: Path) -> Signer:
    """The signer of the CA in `folder`; the first time, and before its certificate ends, it is made.

    Raises:
        IdentityError: there is no CA, or the signer's files are damaged.
    """
    authority = certificates.load(folder)
    signer = _stored(folder)
    if signer is None or signer.certificate.not_valid_after_utc < _now() + RENEW_BEFORE:
        signer = issue(authority)
        key = signer.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # Both in one file, replaced at once: two that start at once leave a pair that fits.
        _write(folder / _KEY, key + signer.certificate.public_bytes(serialization.Encoding.PEM))
    return signer


def issue(authority: certificates.Authority, days: int = DAYS) -> Signer:
    """A new key, certified for campaigns alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = _now()
    issuer = authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    unused = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
         "encipher_only", "decipher_only"),
        False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "roadfuse campaigns")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - certificates.BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **unused), critical=True)
        .add_extension(x509.ExtendedKeyUsage([CAMPAIGN_SIGNING]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return Signer(key, builder.sign(authority.key, hashes.SHA256()))


def _stored(folder: Path) -> Signer | None:
    path = folder / _KEY
    try:
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path}: expected the campaign key and its certificate, got {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise IdentityError(f"{path}: expected a key and its certificate, got those of two")
    return Signer(key, certificate)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
