"""Who a vehicle is: enrolment by one-time tokens, certificates in the catalogue, revocation.

A certificate counts while the catalogue knows its serial for that vehicle and neither is revoked; the chain alone is
not enough.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from cloud import certificates
from cloud.errors import IdentityError, Refused
from cloud.tables import CERTIFICATES, ENROLMENT_TOKENS, VEHICLES

# How long an answer of the catalogue stands: a revocation is in force everywhere after this long.
TRUST_S: Final = 1.0
MAX_KNOWN: Final = 100_000
MAX_TOKEN_CHARACTERS: Final = 128
NO_TOKEN: Final = "expected a token that was given out for this vehicle, is not used and has not expired"


def give_token(connection: Connection, vehicle: str, validity: datetime.timedelta) -> str:
    """Make a one-time token with which `vehicle` may enrol; only its digest is kept.

    Raises:
        IdentityError: the name can't be a vehicle's.
    """
    if not certificates.VEHICLE.fullmatch(vehicle):
        raise IdentityError(f"expected a name of letters, digits, '.', '_' and '-', at most 64, got {vehicle!r}")
    if vehicle == certificates.CLOUD:
        raise IdentityError(f"expected the name of a vehicle, got {vehicle}, which is the cloud's own")
    token = secrets.token_hex(32)  # it may stand on a command line: no dash in front
    connection.execute(
        insert(ENROLMENT_TOKENS).values(digest=_digest(token), vehicle=vehicle, expires_at=func.now() + validity)
    )
    return token


def enrol(connection: Connection, authority: certificates.Authority, csr: bytes, token: str) -> bytes:
    """Use up a token for a certificate; the same token and key again give the same certificate.

    Returns:
        The certificate, PEM.

    Raises:
        Refused: INVALID_ARGUMENT for the request, PERMISSION_DENIED for the token.
    """
    try:
        request = certificates.read_request(csr)
    except IdentityError as error:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
    vehicle, key = certificates.common_name(request), certificates.key_digest(request)
    tokens = ENROLMENT_TOKENS.c
    row = (
        connection.execute(
            select(ENROLMENT_TOKENS)
            .where(tokens.digest == _digest(token[: MAX_TOKEN_CHARACTERS + 1]), tokens.expires_at > func.now())
            .with_for_update()
        )
        .mappings()
        .one_or_none()
    )
    if row is None or row["vehicle"] != vehicle or (row["used_at"] is not None and row["key_digest"] != key):
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, NO_TOKEN)
    if row["used_at"] is not None:
        return bytes(
            connection.execute(select(CERTIFICATES.c.pem).where(CERTIFICATES.c.serial == row["serial"])).scalar_one()
        )
    issued = certificates.issue_vehicle(authority, request)
    # A token given out after a revocation lets the vehicle back in; its old certificates stay revoked.
    connection.execute(
        upsert(VEHICLES).values(name=vehicle).on_conflict_do_update(index_elements=["name"], set_={"revoked_at": None})
    )
    connection.execute(
        insert(CERTIFICATES).values(serial=issued.serial, vehicle=vehicle, pem=issued.pem, expires_at=issued.expires_at)
    )
    connection.execute(
        update(ENROLMENT_TOKENS)
        .where(tokens.digest == row["digest"])
        .values(used_at=func.now(), key_digest=key, serial=issued.serial)
    )
    return issued.pem


def revoke(connection: Connection, vehicle: str) -> int:
    """Revoke a vehicle, its certificates and its unused tokens.

    Returns:
        How many certificates were revoked.

    Raises:
        IdentityError: no such vehicle.
    """
    known = connection.execute(update(VEHICLES).where(VEHICLES.c.name == vehicle).values(revoked_at=func.now()))
    if known.rowcount == 0:
        raise IdentityError(f"expected an enrolled vehicle, got {vehicle!r}")
    tokens = ENROLMENT_TOKENS.c
    connection.execute(
        update(ENROLMENT_TOKENS)
        .where(tokens.vehicle == vehicle, tokens.used_at.is_(None))
        .values(expires_at=func.now())
    )
    revoked = connection.execute(
        update(CERTIFICATES)
        .where(CERTIFICATES.c.vehicle == vehicle, CERTIFICATES.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    return revoked.rowcount


def vehicles(connection: Connection) -> list[dict[str, Any]]:
    """All vehicles: name, instants of enrolment and revocation, number of certificates that count."""
    counted = func.count(CERTIFICATES.c.serial).filter(
        CERTIFICATES.c.revoked_at.is_(None), CERTIFICATES.c.expires_at > func.now()
    )
    rows = connection.execute(
        select(VEHICLES, counted.label("certificates"))
        .outerjoin(CERTIFICATES, CERTIFICATES.c.vehicle == VEHICLES.c.name)
        .group_by(VEHICLES.c.name)
        .order_by(VEHICLES.c.name)
    )
    return [dict(row) for row in rows.mappings()]


class Callers:
    """Tells which vehicle calls, from its client certificate alone; asks the catalogue at most once in TRUST_S each."""

    def __init__(self, engine: Engine) -> None:
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str]] = {}

    def remembered(self, auth: Mapping[str, Iterable[bytes]]) -> str | None:
        """The calling vehicle, where the catalogue was asked a moment ago; None where it must be asked.

        Raises:
            Refused: UNAUTHENTICATED.
        """
        serial, name = _presented(auth)
        until, vehicle = self._known.get(serial, (0.0, ""))
        return vehicle if vehicle == name and time.monotonic() < until else None

    def vehicle(self, auth: Mapping[str, Iterable[bytes]]) -> str:
        """The calling vehicle; waits for the catalogue.

        Raises:
            Refused: UNAUTHENTICATED.
        """
        serial, name = _presented(auth)
        with self._single.connect() as connection:
            is_trusted = connection.execute(
                select(CERTIFICATES.c.serial)
                .join(VEHICLES, VEHICLES.c.name == CERTIFICATES.c.vehicle)
                .where(
                    CERTIFICATES.c.serial == serial,
                    CERTIFICATES.c.vehicle == name,
                    CERTIFICATES.c.revoked_at.is_(None),
                    CERTIFICATES.c.expires_at > func.now(),
                    VEHICLES.c.revoked_at.is_(None),
                )
            ).one_or_none()
        if is_trusted is None:
            self._known.pop(serial, None)
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, f"the certificate {serial} is unknown here or revoked")
        with self._lock:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[serial] = (time.monotonic() + TRUST_S, name)
        return name


def _presented(auth: Mapping[str, Iterable[bytes]]) -> tuple[str, str]:
    for pem in auth.get("x509_pem_cert", ()):
        return _serial_and_name(pem)
    raise Refused(grpc.StatusCode.UNAUTHENTICATED, "expected a client certificate, got none")


@functools.lru_cache(maxsize=4096)
def _serial_and_name(pem: bytes) -> tuple[str, str]:
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return f"{certificate.serial_number:x}", str(names[0].value) if names else ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
