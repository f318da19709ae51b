"""How many vehicles a director signs for, and how many check-ins a server answers; one core each, by CPU time.

Signing alone: three files a vehicle, each with its own key, nothing stopped and 50 bundles stopped. Whole check-ins:
over mTLS, one channel a vehicle, with evidence, committed in an embedded PostgreSQL before they are answered; server
and vehicles share the machine, so the server's CPU time is what counts.

    python benchmarks/director.py [--orders 5000] [--vehicles 64] [--calls 25]     prints JSON
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import insert

from cloud import certificates, identity
from cloud.database import opened
from cloud.objects import Objects
from cloud.releases import publisher, rotation
from cloud.releases.director import Director, Order
from cloud.releases.keys import DIRECTOR
from cloud.releases.releases import Release
from cloud.releases.signing import Keys, root_of
from cloud.tables import ASSIGNMENTS
from edge.bundle import REFERENCE
from edge.updates.manifest import signed
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2_grpc import UpdatesStub

PORTS = ("--port", "0", "--enrol-port", "0", "--metrics-port", "0")
SLICES = ("all", "night", "rain")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=5_000)
    parser.add_argument("--vehicles", type=int, default=64)
    parser.add_argument("--calls", type=int, default=25, help="of each vehicle; a vehicle may make 30 at once")
    args = parser.parse_args(argv)
    figures: dict[str, Any] = {
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }
    with tempfile.TemporaryDirectory(prefix="roadfuse-director-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL does not run as root
        data, keys = Path(folder) / "data", Path(folder) / "keys"
        data.mkdir()
        vehicles, release, director = prepared(data, keys, args.vehicles)
        for stopped in (0, 50):
            figures[f"signing, {stopped} stopped"] = signing(director, release, args.orders, stopped)
        figures["check-ins"] = served(data, vehicles, args.calls)
    print(json.dumps(figures, indent=1))
    return 0


def prepared(data: Path, folder: Path, count: int) -> tuple[dict[str, tuple[bytes, bytes]], Release, Director]:
    """A cloud with a release that every vehicle is to go for; name -> its key and certificate."""
    certificates.create(data / "ca")
    certificates.issue_server(data / "ca", ["localhost", "127.0.0.1"])
    authority, keys, vehicles = certificates.load(data / "ca"), Keys.at(data, [folder]), {}
    with opened(data, None) as engine:
        with engine.begin() as connection:
            rotation.create(connection, keys, now())
            director = Director.by(root_of(connection, DIRECTOR), keys)
        release = publisher.add(engine, Objects(str(data / "objects")), keys, REFERENCE, now(), work=data)
        with engine.begin() as connection:
            for number in range(count):
                name = f"car-{number}"
                key, request = key_and_request(name)
                token = identity.give_token(connection, name, datetime.timedelta(hours=1))
                vehicles[name] = key, identity.enrol(connection, authority, request, token)
                values = {"vehicle": name, "rollout": "r", "release": release.counter, "mode": 1, "wave": 0}
                connection.execute(insert(ASSIGNMENTS).values(**values))
    return vehicles, release, director


def signing(director: Director, release: Release, count: int, stopped: int) -> dict[str, float]:
    """CPU time of making and signing an order's three files."""
    bundles = tuple(f"{number:064x}" for number in range(stopped))
    start, size = time.process_time(), 0
    for number in range(count):
        order = Order(f"car-{number}", os.urandom(16), now(), number + 1, release.target(), 1, "r", 1, bundles, 60.0)
        answer = director.sign(order)
        size = len(answer.timestamp) + len(answer.snapshot) + len(answer.targets)
    each_s = (time.process_time() - start) / count
    return {"vehicles_per_s_a_core": round(1 / each_s), "us": round(1e6 * each_s, 1), "bytes": size}


def served(data: Path, vehicles: dict[str, tuple[bytes, bytes]], calls: int) -> dict[str, float]:
    """Check-ins of all vehicles at once, each one after its last."""
    argv = ["cloud", "serve", "--only", "ingest", "--data", str(data), *PORTS]
    with subprocess.Popen([sys.executable, "-m", "edge.command", *argv], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"ingest .*:(\d+)", server.stdout.readline() + server.stdout.readline())
        assert found is not None, "the server did not start"
        asyncio.run(all_check_in(int(found[1]), data, vehicles, 1))  # handshakes
        busy, start = cpu_s(server.pid), time.perf_counter()
        waits = asyncio.run(all_check_in(int(found[1]), data, vehicles, calls))
        wall_s, busy = time.perf_counter() - start, cpu_s(server.pid) - busy
        server.send_signal(signal.SIGTERM)
    waits.sort()
    return {
        "check_ins": len(waits),
        "per_s": round(len(waits) / wall_s),
        "server_cpu_ms": round(1e3 * busy / len(waits), 2),
        "p50_ms": round(1e3 * waits[len(waits) // 2], 1),
        "p99_ms": round(1e3 * waits[len(waits) * 99 // 100], 1),
    }


async def all_check_in(port: int, data: Path, vehicles: dict[str, tuple[bytes, bytes]], calls: int) -> list[float]:
    """How long each call took, s; one handshake a vehicle is in the wall time."""
    ca = (data / "ca" / "ca.pem").read_bytes()
    lists = await asyncio.gather(*(check_in(port, ca, name, *files, calls) for name, files in vehicles.items()))
    return [wait for waits in lists for wait in waits]


async def check_in(port: int, ca: bytes, name: str, key: bytes, certificate: bytes, calls: int) -> list[float]:
    """One vehicle's calls."""
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    waits = []
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        stub = UpdatesStub(channel)
        for number in range(calls):
            nonce = os.urandom(16)
            manifest = updates_pb2.VehicleManifest(vehicle=name, hardware_class="x86", stage=1, nonce=nonce)
            request = updates_pb2.CheckInRequest(nonce=nonce, manifest=signed(manifest, private))
            told = request.evidence.add(bundle_id="b" * 64, account=b"account")
            for of_slice in SLICES:
                told.tallies.add(slice=of_slice, seconds=60.0 * number, frames=1_200 * number).counts["late"] = number
            start = time.perf_counter()
            await stub.CheckIn(request)
            waits.append(time.perf_counter() - start)
    return waits


def key_and_request(name: str) -> tuple[bytes, bytes]:
    """A vehicle's key and its signing request, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    return (
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        request.public_bytes(encoding),
    )


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def now() -> datetime.datetime:
    """UTC."""
    return datetime.datetime.now(datetime.timezone.utc)


if __name__ == "__main__":
    sys.exit(main())
