"""What really runs, by the vehicle's own word: signed with its certificate's key, over the nonce of the check-in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from edge.errors import UpdateError
from edge.updates.slots import Answer, Slots, running
from edge.updates.troubles import told_why
from edge.uplink.identity import KEY
from roadfuse.v1.updates_pb2 import SignedManifest, SlotContent, VehicleManifest

_CONTEXT: Final = b"roadfuse manifest 1\0"
MOST_BYTES: Final = 16 << 10


def signed_bytes(manifest: bytes) -> bytes:
    """What a signature is over: never mistaken for something else that this key might sign."""
    return _CONTEXT + manifest


def manifest_of(
    slots: Slots, answer: Answer | None, nonce: bytes, vehicle: str, hardware: str, software: str, trouble: str = ""
) -> VehicleManifest:
    """The manifest of slots and of what the loop says of them.

    Args:
        answer: the loop's; where it follows these slots, what it runs counts, not what should.
        nonce: of the check-in.
        software: version of roadfuse.
        trouble: of the agent.
    """
    active = running(slots, answer)
    counters = {held.bundle: held.counter for held in (slots.active, slots.previous, slots.staged) if held is not None}
    counters = {one.bundle: one.counter for one in slots.refused} | counters
    manifest = VehicleManifest(
        vehicle=vehicle,
        hardware_class=hardware,
        active=SlotContent(bundle_id=active, counter=counters.get(active, 0)),
        stage=slots.stage,  # type: ignore[arg-type]
        why=told_why(slots, answer, trouble),
        highest_counter=slots.highest_counter,
        nonce=nonce,
        rollout=slots.active.rollout if slots.staged is None else slots.staged.rollout,
        software=software,
    )
    for name, held in (("previous", slots.previous), ("staged", slots.staged)):
        if held is not None:
            getattr(manifest, name).CopyFrom(SlotContent(bundle_id=held.bundle, counter=held.counter))
    if (last := slots.refusal) is not None:
        manifest.refused.CopyFrom(SlotContent(bundle_id=last.bundle, counter=last.counter))
        manifest.refused_until = last.until
    return manifest


def key_of(identity: Path) -> ec.EllipticCurvePrivateKey:
    """The vehicle's key.

    Raises:
        UpdateError: there is none.
    """
    path = identity / KEY
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise UpdateError(f"{path}: expected the vehicle's key, got {error.strerror}: enrol it first") from None
    except (ValueError, TypeError) as error:
        raise UpdateError(f"{path}: expected a private key, got {str(error)[:100]!r}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UpdateError(f"{path}: expected a key on an elliptic curve, got {type(key).__name__}")
    return key


def signed(manifest: VehicleManifest, key: ec.EllipticCurvePrivateKey) -> SignedManifest:
    """The manifest with its signature."""
    content = manifest.SerializeToString(deterministic=True)
    return SignedManifest(manifest=content, signature=key.sign(signed_bytes(content), ec.ECDSA(hashes.SHA256())))


def verified(told: SignedManifest, key: ec.EllipticCurvePublicKey) -> VehicleManifest:
    """The manifest, if this key signed it.

    Raises:
        UpdateError: it did not, or it is none.
    """
    if len(told.manifest) > MOST_BYTES:
        raise UpdateError(f"manifest: expected at most {MOST_BYTES} bytes, got {len(told.manifest)}")
    try:
        key.verify(told.signature, signed_bytes(told.manifest), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise UpdateError("manifest: expected the signature of the vehicle's key, got another") from None
    try:
        return VehicleManifest.FromString(told.manifest)
    except DecodeError:
        raise UpdateError("manifest: expected a vehicle's manifest, got other bytes") from None
