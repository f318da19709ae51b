"""Enrols a simulated fleet: a key and a certificate of the real device CA for each vehicle, many in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, insert
from sqlalchemy.dialects.postgresql import insert as upsert

from cloud import certificates
from cloud.tables import CERTIFICATES, FLEET, VEHICLES


@dataclass(frozen=True, slots=True)
class Member:
    """A vehicle's name and what it is known by, PEM."""

    name: str
    key: str
    certificate: str


def enrol(
    engine: Engine, authority: certificates.Authority, vehicles: Mapping[str, Mapping[str, str]], hardware: str
) -> list[Member]:
    """Enrol vehicles.

    Args:
        vehicles: name -> labels.
        hardware: class, as an earlier check-in said.
    """
    members, rows = [], []
    for name in vehicles:
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .sign(key, hashes.SHA256())
        )
        issued = certificates.issue_vehicle(authority, request)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        members.append(Member(name, pem.decode(), issued.pem.decode()))
        rows.append({"serial": issued.serial, "vehicle": name, "pem": issued.pem, "expires_at": issued.expires_at})
    with engine.begin() as connection:
        connection.execute(upsert(VEHICLES).on_conflict_do_nothing(), [{"name": name} for name in vehicles])
        connection.execute(insert(CERTIFICATES), rows)
        fleet = [{"vehicle": name, "labels": dict(labels), "hardware": hardware} for name, labels in vehicles.items()]
        connection.execute(upsert(FLEET).on_conflict_do_nothing(), fleet)
    return members
