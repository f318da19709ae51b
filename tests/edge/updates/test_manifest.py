"""A vehicle signs what really runs; nobody else can, and nothing of it can be changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import UpdateError
from edge.updates.manifest import key_of, manifest_of, signed, verified
from edge.updates.slots import Answer, Held, PutBack, Refusal, Slots
from roadfuse.v1.updates_pb2 import SignedManifest, Stage

KEY = ec.generate_private_key(ec.SECP256R1())
SLOTS = Slots(
    epoch=7,
    active=Held("aa" * 32, 5, "spring"),
    previous=Held("bb" * 32, 4, "winter"),
    staged=Held("cc" * 32, 6, "summer"),
    stage=Stage.STAGE_SHADOWING,
    refused=(Refusal("dd" * 32, 3, "too slow"),),
    highest_counter=6,
)
NONCE = bytes(range(16))


def test_manifest_says_what_the_slots_say() -> None:
    manifest = verified(signed(manifest_of(SLOTS, None, NONCE, "car-7", "x86", "0.1"), KEY), KEY.public_key())
    assert (manifest.vehicle, manifest.hardware_class, manifest.software) == ("car-7", "x86", "0.1")
    assert (manifest.nonce, manifest.stage, manifest.highest_counter) == (NONCE, Stage.STAGE_SHADOWING, 6)
    contents = (manifest.active, manifest.previous, manifest.staged)
    assert [(one.bundle_id[:2], one.counter) for one in contents] == [("aa", 5), ("bb", 4), ("cc", 6)]
    assert manifest.rollout == "summer" and not manifest.HasField("refused")


def test_what_runs_counts_more_than_what_should() -> None:
    answer = Answer(epoch=7, running="bb" * 32, put_back=PutBack("aa" * 32, "not finite", 3))
    manifest = manifest_of(SLOTS, answer, NONCE, "car-7", "x86", "0.1")
    assert (manifest.active.bundle_id, manifest.active.counter) == ("bb" * 32, 4)


def test_answer_to_older_slots_is_not_what_runs() -> None:
    manifest = manifest_of(SLOTS, Answer(epoch=6, running="bb" * 32), NONCE, "car-7", "x86", "0.1")
    assert manifest.active.bundle_id == "aa" * 32


def test_last_exit_is_told_with_its_bundle() -> None:
    refused = (Refusal("ee" * 32, 2, "old"), Refusal("dd" * 32, 3, "too slow"))
    slots = Slots(stage=Stage.STAGE_REFUSED, why="too slow", refused=refused)
    manifest = manifest_of(slots, None, NONCE, "car-7", "x86", "0.1")
    assert (manifest.why, manifest.refused.bundle_id, manifest.refused.counter) == ("too slow", "dd" * 32, 3)
    assert not manifest.HasField("previous") and not manifest.HasField("staged")
    assert manifest.refused_until == 0, "it failed by itself: no release of it is taken"
    stopped = replace(slots, refused=(*refused, Refusal("ff" * 32, 5, "stopped by the cloud", True)))
    assert manifest_of(stopped, None, NONCE, "car-7", "x86", "0.1").refused_until == 5
    slots = replace(slots, stage=Stage.STAGE_IDLE, why="healthy for 1800 s")
    assert not manifest_of(slots, None, NONCE, "car-7", "x86", "0.1").HasField("refused")


def test_other_key_is_refused() -> None:
    told = signed(manifest_of(SLOTS, None, NONCE, "car-7", "x86", "0.1"), KEY)
    with pytest.raises(UpdateError, match="expected the signature of the vehicle's key"):
        verified(told, ec.generate_private_key(ec.SECP256R1()).public_key())


@settings(max_examples=200)
@given(at=st.floats(0, 1, exclude_max=True), by=st.integers(1, 255), of=st.sampled_from(["manifest", "signature"]))
def test_any_other_byte_is_refused(at: float, by: int, of: str) -> None:
    told = signed(manifest_of(SLOTS, None, NONCE, "car-7", "x86", "0.1"), KEY)
    raw = bytearray(getattr(told, of))
    raw[int(at * len(raw))] ^= by
    setattr(told, of, bytes(raw))
    with pytest.raises(UpdateError):
        verified(told, KEY.public_key())


def test_signature_over_the_bare_manifest_is_none() -> None:
    """What this key signs for other purposes can't be passed off as a manifest."""
    content = manifest_of(SLOTS, None, NONCE, "car-7", "x86", "0.1").SerializeToString()
    bare = SignedManifest(manifest=content, signature=KEY.sign(content, ec.ECDSA(hashes.SHA256())))
    with pytest.raises(UpdateError, match="expected the signature"):
        verified(bare, KEY.public_key())


def test_manifest_without_bounds_is_not_read() -> None:
    with pytest.raises(UpdateError, match="expected at most 16384 bytes"):
        verified(SignedManifest(manifest=bytes(20_000)), KEY.public_key())


def test_key_of_the_identity_signs(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match=r"key\.pem: expected the vehicle's key, got No such file"):
        key_of(tmp_path)
    (tmp_path / "key.pem").write_bytes(b"no key")
    with pytest.raises(UpdateError, match="expected a private key"):
        key_of(tmp_path)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(*form))
    with pytest.raises(UpdateError, match="expected a key on an elliptic curve, got Ed25519"):
        key_of(tmp_path)
    (tmp_path / "key.pem").write_bytes(KEY.private_bytes(*form))
    told = signed(manifest_of(SLOTS, None, NONCE, "car-7", "x86", "0.1"), key_of(tmp_path))
    assert verified(told, KEY.public_key()).vehicle == "car-7"
