"""A vehicle's side of the Updates service, as thin as can be; answers are verified with python-tuf alone."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from roadfuse.v1 import updates_pb2, updates_pb2_grpc
from roadfuse.v1.updates_pb2 import Stage

from ..fleet import Vehicle


@dataclass
class Told:
    """A verified answer."""

    response: updates_pb2.CheckInResponse
    version: int
    targets: dict[str, Any]
    roadfuse: dict[str, Any]


class Agent:
    """Calls as `vehicle`."""

    def __init__(self, vehicle: Vehicle) -> None:
        self.vehicle = vehicle
        self.stub = updates_pb2_grpc.UpdatesStub(vehicle.channel)

    @property
    def name(self) -> str:
        """The vehicle's."""
        return self.vehicle.name

    def manifest(self, nonce: bytes, **fields: Any) -> updates_pb2.VehicleManifest:
        """What it runs."""
        known = {"vehicle": self.name, "hardware_class": "x86", "stage": Stage.STAGE_IDLE, "software": "0.1.0"}
        return updates_pb2.VehicleManifest(**{**known, "nonce": nonce, **fields})

    def signed(self, manifest: bytes, key: bytes | None = None, over: bytes = b"roadfuse manifest 1\0") -> Any:
        """Signed with its key, or another one."""
        private = serialization.load_pem_private_key(key or self.vehicle.key, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        signature = private.sign(over + manifest, ec.ECDSA(hashes.SHA256()))
        return updates_pb2.SignedManifest(manifest=manifest, signature=signature)

    def request(self, evidence: Any = (), versions: tuple[int, int] = (0, 0), **fields: Any) -> Any:
        """A check-in that is as it should be."""
        nonce = os.urandom(16)
        return updates_pb2.CheckInRequest(
            nonce=nonce,
            manifest=self.signed(self.manifest(nonce, **fields).SerializeToString()),
            evidence=evidence,
            director_root_version=versions[0],
            image_root_version=versions[1],
        )

    def check_in(self, request: Any = None, **named: Any) -> Told:
        """Check in, and verify the answer from the first root on."""
        request = request or self.request(**named)
        response = self.stub.CheckIn(request, timeout=30)
        told = verified(response)
        assert told.roadfuse["nonce"] == request.nonce.hex() and told.roadfuse["vehicle"] == self.name
        return told

    def fetch(self, digest: bytes, offset: int = 0) -> bytes:
        """A file's bytes from an offset on."""
        content = bytearray()
        for chunk in self.stub.Fetch(updates_pb2.FetchRequest(sha256=digest, offset=offset), timeout=60):
            assert chunk.offset == offset + len(content) and chunk.crc32 == zlib.crc32(chunk.content)
            content += chunk.content
        return bytes(content)


def verified(response: updates_pb2.CheckInResponse) -> Told:
    """A director's answer, by signatures, versions and digests."""
    root = Metadata[Root].from_bytes(response.director_roots[0])
    for content in response.director_roots[1:]:
        follower = Metadata[Root].from_bytes(content)
        assert follower.signed.get_root_verification_result(root.signed, follower.signed_bytes, follower.signatures)
        root = follower
    timestamp = Metadata[Timestamp].from_bytes(response.director_timestamp)
    snapshot = Metadata[Snapshot].from_bytes(response.director_snapshot)
    targets = Metadata[Targets].from_bytes(response.director_targets)
    for role, metadata in (("timestamp", timestamp), ("snapshot", snapshot), ("targets", targets)):
        root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    timestamp.signed.snapshot_meta.verify_length_and_hashes(response.director_snapshot)
    snapshot.signed.meta["targets.json"].verify_length_and_hashes(response.director_targets)
    assert timestamp.signed.version == snapshot.signed.version == targets.signed.version
    spoken = json.loads(response.director_targets)["signed"]
    return Told(response, targets.signed.version, spoken["targets"], spoken["roadfuse"])


def evidence(bundle: str, account: bytes, is_shadow: bool = False, **slices: Any) -> updates_pb2.Evidence:
    """Evidence of a bundle: slice=(seconds, frames, {metric: count})."""
    told = updates_pb2.Evidence(bundle_id=bundle, is_shadow=is_shadow, account=account)
    for name, (seconds, frames, counts) in slices.items():
        told.tallies.add(slice=name, seconds=seconds, frames=frames).counts.update(counts)
    return told
