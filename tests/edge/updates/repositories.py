"""Both TUF repositories in memory, and the cloud before them, which misbehaves as it is told to.

Nothing here is a stand-in for signatures: everything is made with python-tuf and signed with keys of its own. A test
turns one switch:

    edits     role -> changes what is about to be signed, by the true keys
    signers   role -> signs with other keys
    damages   role -> changes bytes after everything else was made
    answers   change the response
    stream    gives other bytes of a file

Roles are named "director targets", "image bin-3", "image bins" (all of them).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from edge.errors import UpdateError
from roadfuse.v1 import updates_pb2

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
HARDWARE = ("x86",)
VEHICLE = "car-7"
_KEYS = {"root": (3, 2), "targets": (1, 1), "snapshot": (1, 1), "timestamp": (1, 1)}


def new_key() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


def bundle_files(name: str = "model") -> dict[str, bytes]:
    """A bundle as a release has it: a manifest that names its files."""
    engine = hashlib.sha256(name.encode()).digest() * 700
    entry = {"file": "camera.onnx", "sha256": hashlib.sha256(engine).hexdigest()}
    manifest = json.dumps({"format": 1, "name": name, "encoders": {"camera": entry}}).encode()
    return {"manifest.json": manifest, "camera.onnx": engine}


class Repository:
    """Keys and roots of one repository.

    Attributes:
        roots: all versions, the factory's first.
    """

    def __init__(self, cloud: SimulatedCloud, name: str, thresholds: dict[str, tuple[int, int]]) -> None:
        self.cloud, self.name = cloud, name
        self.keys = {role: [new_key() for _ in range(count)] for role, (count, _) in thresholds.items()}
        self.root = Root(version=1, expires=cloud.now + timedelta(days=730))
        for role, signers in self.keys.items():
            for signer in signers:
                self.root.add_key(signer.public_key, role)
            self.root.roles[role].threshold = thresholds[role][1]
        self.roots = [self.sign("root", self.root, self.keys["root"])]

    def sign(self, role: str, signed: Any, keys: list[CryptoSigner]) -> bytes:
        name = f"{self.name} {role}"
        for switch in (name, "image bins" if role.startswith("bin-") else ""):
            if switch in self.cloud.edits:
                self.cloud.edits[switch](signed)
        metadata = Metadata(signed)
        for signer in self.cloud.signers.get(name, keys):
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def signed(self, role: str, signed: Any) -> bytes:
        return self.sign(role, signed, self.keys[role])

    def damaged(self, role: str, raw: bytes) -> bytes:
        damage = self.cloud.damages.get(f"{self.name} {role}")
        return damage(raw) if damage else raw

    def rotate(self, role: str, by: list[CryptoSigner] | None = None) -> list[CryptoSigner]:
        """A new root in which a role has new keys; gives the old ones.

        Args:
            by: who signs the root; None: the keys of the old root and of the new one.
        """
        old, signers = self.keys[role], self.keys["root"]
        self.keys[role] = [new_key() for _ in old]
        for signer in old:
            self.root.revoke_key(signer.public_key.keyid, role)
        for signer in self.keys[role]:
            self.root.add_key(signer.public_key, role)
        self.next_root(by or [*signers, *(self.keys["root"] if role == "root" else ())])
        return old

    def next_root(self, signers: list[CryptoSigner] | None = None) -> None:
        self.root.version += 1
        self.root.expires = self.cloud.now + timedelta(days=730)
        self.roots.append(self.sign("root", self.root, signers or self.keys["root"]))

    def forged_root(self, signers: list[CryptoSigner], change: Callable[[Root], None] = lambda root: None) -> bytes:
        """The next root as somebody else would have it; this repository knows nothing of it."""
        root = copy.deepcopy(self.root)
        root.version += 1
        change(root)
        return self.sign("root", root, signers)


class SimulatedCloud:
    """A cloud (edge.updates.assignment.Cloud) with one vehicle.

    Attributes:
        now: its clock.
        assigned: path of the target that the vehicle should run.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        self.edits: dict[str, Callable[[Any], None]] = {}
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.damages: dict[str, Callable[[bytes], bytes]] = {}
        self.answers: list[Callable[[updates_pb2.CheckInResponse], None]] = []
        self.stream: Callable[[bytes, int], Iterator[bytes]] | None = None
        self.delta_answer: Callable[[list[bytes], bytes], updates_pb2.DeltaResponse] | None = None

        self.director = Repository(self, "director", _KEYS)
        self.image = Repository(self, "image", {**_KEYS, "targets": (2, 2)})
        self.bin_keys = [new_key()]
        self.director_version = 0
        self.targets: dict[str, TargetFile] = {}
        self.files: dict[bytes, bytes] = {}
        self.assigned: str | None = None
        self.vehicle, self.mode, self.rollout = VEHICLE, 2, "first"
        self.stop_number = 0
        self.stopped: list[str] = []
        self.image_version = 0
        self.image_files: dict[tuple[str, int], bytes] = {}
        self.image_timestamp = b""
        self.fetched: list[tuple[bytes, int]] = []
        self.requests: list[updates_pb2.CheckInRequest] = []
        self.publish()

    # Releases

    def release(self, counter: int, name: str = "model", hardware: tuple[str, ...] = HARDWARE) -> str:
        """Add a release, and assign it; gives its path."""
        files = bundle_files(f"{name}-{counter}")
        path = f"{name}/{counter}/manifest.json"
        target = TargetFile.from_data(path, files["manifest.json"], ["sha256"])
        digests = {file: hashlib.sha256(content) for file, content in files.items()}
        target.unrecognized_fields["custom"] = {
            "bundle": digests["manifest.json"].hexdigest(),
            "counter": counter,
            "hardware": list(hardware),
            "files": [
                {"name": file, "length": len(content), "sha256": digests[file].hexdigest()}
                for file, content in files.items()
            ],
        }
        self.files |= {digests[file].digest(): content for file, content in files.items()}
        self.targets[path] = target
        self.assigned = path
        self.publish()
        return path

    def publish(self) -> None:
        """All of the image repository anew."""
        self.image_version += 1
        version, expires = self.image_version, self.now + timedelta(days=180)
        bins = SuccinctRoles([key.public_key.keyid for key in self.bin_keys], 1, 4, "bin")
        keys = {key.public_key.keyid: key.public_key for key in self.bin_keys}
        made: dict[str, tuple[Any, bytes]] = {}
        for role in bins.get_roles():
            inside = {path: one for path, one in self.targets.items() if bins.get_role_for_target(path) == role}
            one = Targets(version=version, expires=expires, targets=copy.deepcopy(inside))
            made[role] = one, self.image.sign(role, one, self.bin_keys)
        one = Targets(version=version, expires=expires, delegations=Delegations(keys, succinct_roles=bins))
        made["targets"] = one, self.image.signed("targets", one)
        meta = {f"{role}.json": MetaFile.from_data(one.version, raw, ["sha256"]) for role, (one, raw) in made.items()}
        snapshot = Snapshot(version=version, expires=expires, meta=meta)
        made["snapshot"] = snapshot, self.image.signed("snapshot", snapshot)
        snapshot_meta = MetaFile.from_data(snapshot.version, made["snapshot"][1], ["sha256"])
        timestamp = Timestamp(version=version, expires=self.now + timedelta(days=14), snapshot_meta=snapshot_meta)
        self.image_timestamp = self.image.damaged("timestamp", self.image.signed("timestamp", timestamp))
        self.image_files = {name: raw for name, raw in self.image_files.items() if name[1] > self.image_version - 8}
        self.image_files |= {(role, one.version): self.image.damaged(role, raw) for role, (one, raw) in made.items()}

    def behave(self) -> None:
        """All switches off."""
        self.edits.clear()
        self.signers.clear()
        self.damages.clear()
        self.answers.clear()
        self.stream = self.delta_answer = None
        self.publish()

    def assigned_target(self) -> dict[str, TargetFile]:
        """As the director says it: what the image repository says, without the files."""
        if self.assigned is None:
            return {}
        known = self.targets[self.assigned]
        custom = {name: value for name, value in known.custom.items() if name != "files"}
        return {self.assigned: TargetFile(known.length, dict(known.hashes), self.assigned, {"custom": custom})}

    # Cloud

    def check_in(self, request: updates_pb2.CheckInRequest) -> updates_pb2.CheckInResponse:
        self.requests.append(request)
        self.director_version += 1
        version, expires = self.director_version, self.now + timedelta(days=1)
        word = {
            "vehicle": self.vehicle,
            "nonce": request.nonce.hex(),
            "now": self.now.isoformat(),
            "mode": self.mode if self.assigned else 0,
            "rollout": self.rollout,
            "stop_number": self.stop_number,
            "stopped": self.stopped,
            "next_contact_s": 60,
        }
        targets = Targets(
            version=version, expires=expires, targets=self.assigned_target(), unrecognized_fields={"roadfuse": word}
        )
        director = self.director
        raw_targets = director.signed("targets", targets)
        meta = {"targets.json": MetaFile.from_data(targets.version, raw_targets, ["sha256"])}
        snapshot = Snapshot(version=version, expires=expires, meta=meta)
        raw_snapshot = director.signed("snapshot", snapshot)
        snapshot_meta = MetaFile.from_data(snapshot.version, raw_snapshot, ["sha256"])
        timestamp = Timestamp(version=version, expires=expires, snapshot_meta=snapshot_meta)
        response = updates_pb2.CheckInResponse(
            director_roots=[director.damaged("root", raw) for raw in director.roots[request.director_root_version :]],
            director_timestamp=director.damaged("timestamp", director.signed("timestamp", timestamp)),
            director_snapshot=director.damaged("snapshot", raw_snapshot),
            director_targets=director.damaged("targets", raw_targets),
            image_roots=[self.image.damaged("root", raw) for raw in self.image.roots[request.image_root_version :]],
            image_timestamp=self.image_timestamp,
            next_contact_s=60.0,
        )
        for change in self.answers:
            change(response)
        return response

    def image_metadata(self, role: str, version: int) -> bytes:
        if (role, version) not in self.image_files:
            raise UpdateError(f"expected metadata of the image repository, got {role} {version}")
        return self.image_files[role, version]

    def delta(self, have: list[bytes], want: bytes) -> updates_pb2.DeltaResponse:
        return self.delta_answer(have, want) if self.delta_answer else updates_pb2.DeltaResponse()

    def fetch(self, sha256: bytes, offset: int) -> Iterator[bytes]:
        self.fetched.append((sha256, offset))
        if self.stream is not None:
            yield from self.stream(sha256, offset)
            return
        content = self.files[sha256]
        for start in range(offset, len(content), 4096):
            yield content[start : start + 4096]
