"""Certificates that are followed by others: a vehicle renews its own over mTLS, and others can read what is revoked."""

from __future__ import annotations

import datetime
from typing import Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from sqlalchemy import Connection, func, insert, select

from cloud import certificates
from cloud.errors import IdentityError, Refused
from cloud.tables import CERTIFICATES

# A repeated call with the same key gets the certificate of the first, while that has so much of its time left.
FRESH: Final = 0.9
# Certificates of one vehicle that count at once: one in use, one that follows, some whose answers were lost.
MOST: Final = 8
# A broker whose list has ended turns everybody away, the cloud too, so it lasts as long as any certificate in it.
CRL_DAYS: Final = max(certificates.VEHICLE_DAYS, certificates.SERVER_DAYS)


def renew(connection: Connection, authority: certificates.Authority, vehicle: str, csr: bytes) -> bytes:
    """A new certificate for a vehicle that called with one that counts; that one goes on to count until it ends.

    Args:
        vehicle: who called, as its certificate says.
        csr: a request with this name; its key may be the same as before.

    Returns:
        The certificate, PEM.

    Raises:
        Refused: INVALID_ARGUMENT for the request, PERMISSION_DENIED for another's name, RESOURCE_EXHAUSTED.
    """
    try:
        request = certificates.read_request(csr)
    except IdentityError as error:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
    if certificates.common_name(request) != vehicle:
        got = certificates.common_name(request)
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, f"expected a request of {vehicle}, got one of {got}")
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"renew {vehicle}"))))
    columns = CERTIFICATES.c
    counting = connection.execute(
        select(columns.pem, columns.issued_at, columns.expires_at)
        .where(columns.vehicle == vehicle, columns.revoked_at.is_(None), columns.expires_at > func.now())
        .order_by(columns.expires_at.desc())
    ).all()
    now = datetime.datetime.now(datetime.timezone.utc)
    for row in counting:
        is_fresh = row.expires_at - now > FRESH * datetime.timedelta(days=certificates.VEHICLE_DAYS)
        if is_fresh and _key(x509.load_pem_x509_certificate(bytes(row.pem))) == _key(request):
            return bytes(row.pem)
    if len(counting) >= MOST:
        raise Refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"expected at most {MOST} certificates that count, got one more"
        )
    issued = certificates.issue_vehicle(authority, request)
    connection.execute(
        insert(CERTIFICATES).values(serial=issued.serial, vehicle=vehicle, pem=issued.pem, expires_at=issued.expires_at)
    )
    return issued.pem


def revocation_list(connection: Connection, authority: certificates.Authority) -> bytes:
    """What is revoked and has not ended, signed by the CA, for those who can't ask the catalogue.

    Returns:
        A CRL, PEM; it ends after CRL_DAYS, and another must be in its place before.

    Ref: RFC 5280, section 5.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - certificates.BACKDATE)  # a broker whose clock is behind would refuse everybody
        .next_update(now + datetime.timedelta(days=CRL_DAYS))
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    revoked = select(CERTIFICATES.c.serial, CERTIFICATES.c.revoked_at).where(
        CERTIFICATES.c.revoked_at.is_not(None), CERTIFICATES.c.expires_at > func.now()
    )
    for row in connection.execute(revoked.order_by(CERTIFICATES.c.revoked_at)):
        entry = x509.RevokedCertificateBuilder().serial_number(int(row.serial, 16)).revocation_date(row.revoked_at)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key(of: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return of.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
