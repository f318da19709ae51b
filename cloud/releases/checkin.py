"""What a vehicle says of itself when it checks in, checked; and what the catalogue has for it, in one transaction."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, bindparam, select

from cloud.errors import Refused
from cloud.releases import stops, tallies
from cloud.releases.releases import Release, of_row
from cloud.releases.tallies import BUNDLE, Key, Tally
from cloud.tables import ASSIGNMENTS, RELEASES
from edge.updates.manifest import MOST_BYTES, signed_bytes
from roadfuse.v1 import updates_pb2

NONCE_BYTES: Final = 16
MOST_SIGNATURE_BYTES: Final = 256
MOST_COUNTER: Final = (1 << 63) - 1
_COLUMNS: Final = (
    "hardware", "stage", "active", "previous", "staged", "counter", "rollout", "why", "refused", "refused_until",
    "software", "manifest",
)  # fmt: skip
# Versions grow with each call; from the clock on, so that they still do after an older copy of the catalogue was put
# back.
_UPSERT: Final = f"""
INSERT INTO fleet (vehicle, {", ".join(_COLUMNS)}, seen_at, director_version)
VALUES (%(vehicle)s, {", ".join(f"%({name})s" for name in _COLUMNS)}, now(), floor(extract(epoch FROM now()))::bigint)
ON CONFLICT (vehicle) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}, seen_at = now(),
    director_version = greatest(fleet.director_version + 1, excluded.director_version)
RETURNING director_version, now()"""
_ASSIGNED: Final = (
    select(RELEASES, ASSIGNMENTS.c.mode, ASSIGNMENTS.c.rollout)
    .join(ASSIGNMENTS, ASSIGNMENTS.c.release == RELEASES.c.counter)
    .where(ASSIGNMENTS.c.vehicle == bindparam("of_vehicle"), RELEASES.c.revoked_at.is_(None))
)
_TEXTS: Final = {"hardware_class": 64, "why": 1_024, "rollout": 128, "software": 128}


@dataclass(frozen=True, slots=True)
class CheckIn:
    """A check-in that can be kept.

    Attributes:
        signed: the manifest as it was signed.
        evidence: told along with it.
    """

    vehicle: str
    nonce: bytes
    manifest: updates_pb2.VehicleManifest
    signed: bytes
    evidence: dict[Key, Tally]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the catalogue has for a vehicle.

    Attributes:
        version: of the answer.
        release: to go for; None: nothing is to be done.
    """

    version: int
    now: datetime.datetime
    release: Release | None
    mode: int
    rollout: str
    stopped: stops.Notice


def checked(request: updates_pb2.CheckInRequest, vehicle: str, auth: Mapping[str, Iterable[bytes]]) -> CheckIn:
    """A check-in whose manifest the caller signed, for this call.

    Args:
        vehicle: who calls, by its certificate.
        auth: of the call.

    Raises:
        Refused: INVALID_ARGUMENT: something is malformed or out of bounds. PERMISSION_DENIED: it is another's.
    """
    if len(request.nonce) != NONCE_BYTES:
        raise _refused(f"a nonce of {NONCE_BYTES} bytes", len(request.nonce))
    content, signature = request.manifest.manifest, request.manifest.signature
    if not 1 <= len(content) <= MOST_BYTES:
        raise _refused(f"a manifest of 1 to {MOST_BYTES} bytes", len(content))
    if len(signature) > MOST_SIGNATURE_BYTES:
        raise _refused(f"a signature of at most {MOST_SIGNATURE_BYTES} bytes", len(signature))
    _verify(content, signature, auth)
    try:
        manifest = updates_pb2.VehicleManifest.FromString(content)
    except DecodeError:
        raise _refused("a vehicle's manifest", "malformed bytes") from None
    if manifest.vehicle != vehicle:
        raise _denied(f"a manifest of {vehicle}", manifest.vehicle)
    if manifest.nonce != request.nonce:
        raise _denied("a manifest of this call", "one with another nonce")
    _check(manifest)
    signed = request.manifest.SerializeToString(deterministic=True)
    return CheckIn(vehicle, bytes(request.nonce), manifest, signed, tallies.checked(request.evidence))


def keep(engine: Engine, told: CheckIn) -> Plan:
    """Write down what a vehicle says, and read what it is to do; committed on return."""
    with engine.begin() as connection:
        version, now = _upsert(connection, told)
        tallies.keep(connection, told.vehicle, told.evidence)
        notice = stops.current(connection)
        assigned = _assigned(connection, told, notice)
    if assigned is None:
        return Plan(version, now, None, 0, "", notice)
    release, mode, rollout = assigned
    return Plan(version, now, release, mode, rollout, notice)


def _upsert(connection: Connection, told: CheckIn) -> tuple[int, datetime.datetime]:
    manifest = told.manifest
    values = {
        "vehicle": told.vehicle,
        "hardware": manifest.hardware_class,
        "stage": manifest.stage,
        "active": manifest.active.bundle_id,
        "previous": manifest.previous.bundle_id,
        "staged": manifest.staged.bundle_id,
        "counter": manifest.active.counter,
        "rollout": manifest.rollout,
        "why": manifest.why,
        "refused": manifest.refused.bundle_id,
        "refused_until": manifest.refused_until,
        "software": manifest.software,
        "manifest": told.signed,
    }
    version, now = connection.exec_driver_sql(_UPSERT, values).one()
    return int(version), now.astimezone(datetime.timezone.utc)  # a session of the database may be anywhere


def _assigned(connection: Connection, told: CheckIn, notice: stops.Notice) -> tuple[Release, int, str] | None:
    """What counts of the vehicle's assignment: not of a revoked release, a stopped bundle, other hardware."""
    row = connection.execute(_ASSIGNED, {"of_vehicle": told.vehicle}).mappings().one_or_none()
    if row is None:
        return None
    release = of_row(row)
    if release.bundle in notice.bundles or told.manifest.hardware_class not in release.hardware:
        return None
    return release, int(row["mode"]), row["rollout"]


def _verify(content: bytes, signature: bytes, auth: Mapping[str, Iterable[bytes]]) -> None:
    pem = next(iter(auth.get("x509_pem_cert", ())), b"")
    key = x509.load_pem_x509_certificate(pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _denied("a certificate with a key on an elliptic curve", type(key).__name__)
    try:
        key.verify(signature, signed_bytes(content), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _denied("a manifest signed with the certificate's key", "another signature") from None


def _check(manifest: updates_pb2.VehicleManifest) -> None:
    for name, most in _TEXTS.items():
        text = getattr(manifest, name)
        if len(text) > most or "\0" in text:
            raise _refused(f"{name} of at most {most} characters, none of them zero", text)
    if manifest.stage not in updates_pb2.Stage.values():
        raise _refused("a known stage", manifest.stage)
    for name in ("active", "previous", "staged", "refused"):
        slot = getattr(manifest, name)
        if slot.bundle_id and not BUNDLE.fullmatch(slot.bundle_id):
            raise _refused(f"{name} with a bundle id of 64 hexadecimal digits", slot.bundle_id)
        if slot.counter > MOST_COUNTER:
            raise _refused(f"{name} with a counter up to {MOST_COUNTER}", slot.counter)
    if manifest.refused_until > MOST_COUNTER:
        raise _refused(f"refused_until up to {MOST_COUNTER}", manifest.refused_until)


def _refused(expected: str, got: Any) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, f"expected {expected}, got {str(got)[:80]!r}")


def _denied(expected: str, got: Any) -> Refused:
    return Refused(grpc.StatusCode.PERMISSION_DENIED, f"expected {expected}, got {str(got)[:80]!r}")
