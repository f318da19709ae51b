"""A signed cloud behind mTLS, and a vehicle that is enrolled there: what `roadfuse update run` needs."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge import bundle as bundles
from edge.bundle_write import Parts, write
from edge.errors import BundleError
from edge.updates.assignment import Release, TargetFile
from edge.updates.disk import Disk, RealDisk
from edge.updates.slots import folder_of
from edge.updates.trust import DIRECTOR_ROOT, IMAGE_ROOT
from edge.uplink.identity import CERTIFICATE, CLOUD_CA, KEY
from roadfuse.v1 import updates_pb2, updates_pb2_grpc
from tests.edge.models import DETECTOR, save, value

from .repositories import VEHICLE
from .signed_cloud import SignedCloud
from .simulated import Made, SimulatedLoop

ROOT = Path(__file__).parents[3]


def small_bundle(folder: Path, counter: int) -> Made:
    """A real bundle, tags of an 8 x 8 picture, as a release."""
    from onnx import helper

    folder.mkdir()
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["tags"]),
    ]
    weights = np.random.default_rng(counter).standard_normal((192, 2)).astype(np.float32)
    model = save(
        folder / "model", nodes, [value("image", (1, 3, 8, 8))], [value("tags", (1, 2))],
        flat=np.array([1, 192], np.int64), weights=weights,
    ).read_bytes()  # fmt: skip
    (folder / "model").unlink()
    encoder = {
        "precision": "fp32", "input": {**DETECTOR["input"], "width_px": 8, "height_px": 8},
        "outputs": {"scene_tags": "tags"},
    }  # fmt: skip
    manifest = {
        "name": "small", "version": str(counter), "encoders": {"camera": encoder}, "heads": {"scene_tags": ["a", "b"]},
        "thresholds": {"scene_tags": [0.5, 0.5]},
    }  # fmt: skip
    pictures = np.random.default_rng(5).random((2, 3, 8, 8), np.float32)
    write(folder, Parts(manifest, {"camera": model}, golden={"camera": {"image": pictures}}))
    names = ["manifest.json", *sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")]
    files = {name: (folder / name).read_bytes() for name in names}
    signed = tuple(TargetFile(name, len(c), hashlib.sha256(c).digest()) for name, c in files.items())
    bundle = hashlib.sha256(files["manifest.json"]).hexdigest()
    return Made(Release(f"small/{counter}/manifest.json", bundle, counter, ("x86",), signed), files)


def loads(disk: Disk, bundle: str) -> bool:
    """As the loop sees it."""
    try:
        return bundles.load(disk.path(folder_of(bundle))).id == bundle
    except (BundleError, OSError):
        return False


class Service(updates_pb2_grpc.UpdatesServicer):
    """The signed cloud behind the wire; files come slowly enough to be killed in."""

    def __init__(self, cloud: SignedCloud, chunk_bytes: int = 512, pause_s: float = 0.0) -> None:
        self.cloud, self.pause_s, self._chunk_bytes = cloud, pause_s, chunk_bytes
        self.lock = threading.Lock()

    def CheckIn(self, request: Any, context: Any) -> updates_pb2.CheckInResponse:
        with self.lock:
            return self.cloud.check_in(request)

    def ImageMetadata(self, request: Any, context: Any) -> updates_pb2.ImageMetadataResponse:
        with self.lock:
            content = self.cloud.image_metadata(request.role, request.version)
        return updates_pb2.ImageMetadataResponse(content=content)

    def Delta(self, request: Any, context: Any) -> updates_pb2.DeltaResponse:
        return updates_pb2.DeltaResponse()

    def Fetch(self, request: Any, context: Any) -> Iterator[updates_pb2.FetchChunk]:
        content = self.cloud.files[request.sha256]
        for offset in range(request.offset, len(content), self._chunk_bytes):
            part = content[offset : offset + self._chunk_bytes]
            yield updates_pb2.FetchChunk(offset=offset, content=part, crc32=zlib.crc32(part))
            time.sleep(self.pause_s)


class Served:
    """A server for one vehicle, its identity, and its updates folder. To be used in a `with` block."""

    def __init__(self, root: Path, pause_s: float = 0.0) -> None:
        self.root, self.identity, self.updates = root, root / "identity", root / "updates"
        self.cloud = SignedCloud()
        self.service = Service(self.cloud, pause_s=pause_s)
        keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "localhost", VEHICLE)}
        certificates = {name: _certificate(name, key, keys["ca"]) for name, key in keys.items()}
        self.identity.mkdir()
        for name, content in (
            (KEY, _pem(keys[VEHICLE])), (CERTIFICATE, certificates[VEHICLE]), (CLOUD_CA, certificates["ca"]),
            (DIRECTOR_ROOT, self.cloud.director.roots[0]), (IMAGE_ROOT, self.cloud.image.roots[0]),
        ):  # fmt: skip
            (self.identity / name).write_bytes(content)
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        updates_pb2_grpc.add_UpdatesServicer_to_server(self.service, self._server)
        own = [(_pem(keys["localhost"]), certificates["localhost"])]
        credentials = grpc.ssl_server_credentials(own, certificates["ca"], require_client_auth=True)
        self.port = self._server.add_secure_port("localhost:0", credentials)

    def __enter__(self) -> Served:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def words(self, *more: str) -> list[str]:
        """`roadfuse update run` of this vehicle, with short limits."""
        return [
            sys.executable, "-m", "edge.updates.command", "run", "--updates", str(self.updates),
            "--identity", str(self.identity), "--cloud", f"localhost:{self.port}", "--hardware", "x86",
            "--shadow-s", "2", "--shadow-frames", "10", "--probation-s", "2", *more,
        ]  # fmt: skip

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """The command, to its end."""
        return subprocess.run(self.words(*more), capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)

    def forget(self) -> None:
        """The vehicle as it came."""
        shutil.rmtree(self.updates, ignore_errors=True)


class LoopThread:
    """A simulated loop over a real folder, in a thread, which may die and come back."""

    def __init__(self, updates: Path) -> None:
        self._disk = RealDisk(updates)
        self.loop = SimulatedLoop(self._disk, loads)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="loop")
        self.wrong: list[str] = []
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._stop.wait(0.05):
            self.loop.look(1.0)
            running = self.loop.running
            if running and not loads(self._disk, running):
                self.wrong.append(f"runs {running[:12]}, which is not whole")


def _certificate(name: str, key: Any, by: Any) -> bytes:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        key.public_key(), x509.random_serial_number(), now - datetime.timedelta(1), now + datetime.timedelta(1),
    )  # fmt: skip
    builder = builder.add_extension(x509.BasicConstraints(name == "ca", None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
