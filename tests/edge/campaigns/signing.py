"""A device CA and campaign keys, for tests: real certificates, real signatures."""

from __future__ import annotations

import datetime
import functools
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.campaigns.probe import Bounds, Condition, Probe
from edge.campaigns.trust import CAMPAIGN_SIGNING, Trust, signed_bytes
from edge.campaigns.wire import to_message
from roadfuse.v1.campaign_pb2 import ProbeOffer, SignedProbe
from roadfuse.v1.ingest_pb2 import ReportResponse

DAY_NS = 86_400 * 10**9
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


class Authority:
    """A CA with one campaign key; of `purpose` where it was issued for something else."""

    def __init__(self, purpose: x509.ObjectIdentifier = CAMPAIGN_SIGNING, days: int = 100) -> None:
        self._ca_key, self.key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device CA")])
        self.ca = self._issue(self._name, self._ca_key.public_key(), 1000, None)
        self.certificate = self.issue(purpose, days)

    def issue(self, purpose: x509.ObjectIdentifier, days: int) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "campaigns")])
        return self._issue(name, self.key.public_key(), days, purpose)

    def sign(self, probe: Probe, certificate: x509.Certificate | None = None) -> SignedProbe:
        content = to_message(probe).SerializeToString(deterministic=True)
        der = (certificate or self.certificate).public_bytes(serialization.Encoding.DER)
        signature = self.key.sign(signed_bytes(content), ec.ECDSA(hashes.SHA256()))
        return SignedProbe(probe=content, certificate=der, signature=signature)

    def _issue(self, name: x509.Name, key: Any, days: int, purpose: x509.ObjectIdentifier | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=200))
            .not_valid_after(now + datetime.timedelta(days=days))
        )  # fmt: skip
        if purpose is None:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        else:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        return builder.sign(self._ca_key, hashes.SHA256())


@functools.cache
def authority() -> Authority:
    """The device CA of the vehicles here."""
    return Authority()


def trust() -> Trust:
    return Trust(authority().ca)


ANYTHING = Bounds("hardness")


def probe(campaign: str = "night", condition: Condition = ANYTHING, **fields: Any) -> Probe:
    """A campaign that goes on for a day."""
    now_ns = time.time_ns()
    usual = {"budget_bytes": 1000, "vehicle_budget_bytes": 1000, "not_before_ns": 0, "expires_ns": now_ns + DAY_NS}
    return Probe(campaign, condition=condition, **{**usual, **fields})


def offer(*probes: Probe | SignedProbe, digest: bytes | None = None, now_ns: int = 0) -> ReportResponse:
    """What a cloud answers to a report."""
    signed = [one if isinstance(one, SignedProbe) else authority().sign(one) for one in probes]
    name = b"".join(one.signature[-8:] for one in signed) if digest is None else digest
    response = ReportResponse(offer=ProbeOffer(digest=name, probes=signed))
    if now_ns:
        response.now.seconds, response.now.nanos = divmod(now_ns, 10**9)
    return response
