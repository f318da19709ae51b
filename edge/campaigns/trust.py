"""Whose word counts: a probe is taken only as the cloud's campaign key signed it, and that key only as the device CA
certified it for campaigns alone. The certificate of a vehicle, or of a server, signs no campaign.

Ref: RFC 5280 (extended key usage); X.667 for an identifier that needs no registration.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge.campaigns.probe import MAX_PROBE_BYTES, Probe
from edge.campaigns.wire import parse
from edge.errors import CampaignError
from roadfuse.v1.campaign_pb2 import SignedProbe

CAMPAIGN_SIGNING: Final = x509.ObjectIdentifier("2.25.310957756844094172848520821213299514917")
_CONTEXT: Final = b"roadfuse probe 1\0"
_MOST_CERTIFICATE_BYTES: Final = 4 << 10
_REMEMBERED: Final = 64


def signed_bytes(probe: bytes) -> bytes:
    """What a signature is over: never mistaken for something else that this key might sign."""
    return _CONTEXT + probe


class Trust:
    """Checks signatures against a device CA.

    Args:
        ca: the CA's certificate.
    """

    def __init__(self, ca: x509.Certificate) -> None:
        self._ca = ca
        self._known: dict[bytes, x509.Certificate] = {}  # whose chain was checked

    @staticmethod
    def of(path: Path) -> Trust:
        """Trust in the CA whose certificate is in a PEM file.

        Raises:
            CampaignError: it holds none.
            OSError: it can't be read.
        """
        try:
            return Trust(x509.load_pem_x509_certificate(path.read_bytes()))
        except ValueError as error:
            raise CampaignError(f"{path}: expected a certificate, got {error}") from None

    def opened(self, signed: SignedProbe, now_ns: int) -> Probe:
        """The probe, if it is signed as it should be and its certificate is valid now.

        Raises:
            CampaignError: one line says what is wrong.
        """
        if len(signed.probe) > MAX_PROBE_BYTES or len(signed.certificate) > _MOST_CERTIFICATE_BYTES:
            raise CampaignError(
                f"expected at most {MAX_PROBE_BYTES} bytes and a certificate of {_MOST_CERTIFICATE_BYTES}, "
                f"got {len(signed.probe)} and {len(signed.certificate)}"
            )
        certificate = self._certificate(signed.certificate)
        now = datetime.datetime.fromtimestamp(now_ns / 1e9, datetime.timezone.utc)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise CampaignError(
                f"expected a campaign certificate that is valid now, got one until {certificate.not_valid_after_utc}"
            )
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # `_checked` said so
        try:
            key.verify(signed.signature, signed_bytes(signed.probe), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise CampaignError("expected the signature of this probe, got another") from None
        return parse(signed.probe)

    def _certificate(self, der: bytes) -> x509.Certificate:
        known = self._known.get(der)
        if known is None:
            known = _checked(der, self._ca)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[der] = known
        return known


def _checked(der: bytes, ca: x509.Certificate) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(ca)
        purposes = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        key = certificate.public_key()
    except InvalidSignature:
        raise CampaignError("expected a certificate of this vehicle's device CA, got another's") from None
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CampaignError(f"expected a campaign certificate, got something else: {error}") from None
    if purposes != [CAMPAIGN_SIGNING] or not isinstance(key, ec.EllipticCurvePublicKey):
        raise CampaignError("expected a certificate for campaigns alone, got one for something else")
    return certificate
