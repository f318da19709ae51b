"""How fast the cloud takes scenes in: over mTLS, each byte on disk and each scene committed before it counts.

A server process with an embedded PostgreSQL, and a vehicle process beside it on the same machine, so both share its
cores. Two loads: one large clip after the other, and scenes of 100 KB, each told of, uploaded in three calls or one.

    python benchmarks/ingest.py [--clips 8] [--clip-mb 64] [--scenes 2000] [--in-flight 16]     prints JSON
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc

CHUNK_BYTES = 1 << 20
SCENE_BYTES = 100_000
REPORT_SCENES = 500
PORTS = ("--port", "0", "--enrol-port", "0", "--metrics-port", "0")


class Vehicle:
    """A vehicle as fast as it can be: everything is in memory, digests and CRCs are made beforehand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ingest_pb2_grpc.IngestStub(channel)
        self.outbox = os.urandom(16)

    async def report(self, sequences: range, content: bytes, digest: bytes) -> None:
        for start in range(sequences.start, sequences.stop, REPORT_SCENES):
            scenes = [
                _summary(sequence, content, digest)
                for sequence in range(start, min(start + REPORT_SCENES, sequences.stop))
            ]
            request = ingest_pb2.ReportRequest(outbox=self.outbox, last_sequence=scenes[-1].sequence, scenes=scenes)
            await self._stub.Report(request)

    async def upload(self, sequence: int, content: bytes, digest: bytes, parts: list[tuple[bytes, int]]) -> None:
        begin = ingest_pb2.BeginRequest(outbox=self.outbox, sequence=sequence, bytes=len(content), sha256=digest)
        await self._stub.Begin(begin)
        durable = 0
        async for answer in self._stub.Append(self._chunks(sequence, parts)):
            durable = answer.durable_offset
        assert durable == len(content)
        await self._stub.Complete(ingest_pb2.CompleteRequest(outbox=self.outbox, sequence=sequence))

    async def put(self, sequence: int, content: bytes, digest: bytes) -> None:
        request = ingest_pb2.PutRequest(outbox=self.outbox, sequence=sequence, sha256=digest, content=content)
        await self._stub.Put(request)

    async def _chunks(self, sequence: int, parts: list[tuple[bytes, int]]) -> AsyncIterator[ingest_pb2.Chunk]:
        offset = 0
        for content, crc in parts:
            first = {"outbox": self.outbox, "sequence": sequence} if offset == 0 else {}
            yield ingest_pb2.Chunk(offset=offset, content=content, crc32=crc, **first)
            offset += len(content)

    async def account(self) -> ingest_pb2.OutboxAccount:
        answer = await self._stub.Account(ingest_pb2.AccountRequest())
        return next(account for account in answer.outboxes if account.outbox == self.outbox)


def _summary(sequence: int, content: bytes, digest: bytes) -> ingest_pb2.SceneSummary:
    return ingest_pb2.SceneSummary(
        sequence=sequence,
        first_ns=1,
        peak_ns=2,
        last_ns=3,
        hardness=0.5,
        embedding=bytes(256),
        embedding_scale=0.01,
        bundle_id="b" * 64,
        media=ingest_pb2.MEDIA_STATE_HELD,
        bytes=len(content),
        sha256=digest,
    )


def _parts(content: bytes) -> list[tuple[bytes, int]]:
    pieces = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
    return [(piece, zlib.crc32(piece)) for piece in pieces]


async def large_clips(channel: grpc.aio.Channel, clips: int, clip_bytes: int) -> dict[str, Any]:
    """One clip after the other; MB/s from Begin to the answer to Complete."""
    vehicle, content = Vehicle(channel), os.urandom(clip_bytes)
    digest, parts = hashlib.sha256(content).digest(), _parts(content)
    await vehicle.report(range(1, clips + 1), content, digest)
    rates = []
    for sequence in range(1, clips + 1):
        start = time.perf_counter()
        await vehicle.upload(sequence, content, digest, parts)
        rates.append(clip_bytes / 1e6 / (time.perf_counter() - start))
    assert (await vehicle.account()).received == clips
    return {
        "clips": clips,
        "clip_bytes": clip_bytes,
        "mb_per_s_median": round(statistics.median(rates), 1),
        "mb_per_s_each": [round(rate, 1) for rate in rates],
    }


async def small_scenes(channel: grpc.aio.Channel, scenes: int, in_flight: int, *, whole: bool) -> dict[str, Any]:
    """Scenes of 100 KB, several uploads under way; scenes a second from the first report to the last commit."""
    vehicle, content = Vehicle(channel), os.urandom(SCENE_BYTES)
    digest, parts = hashlib.sha256(content).digest(), _parts(content)
    sequences = iter(range(1, scenes + 1))

    async def work() -> None:
        for sequence in sequences:
            if whole:
                await vehicle.put(sequence, content, digest)
            else:
                await vehicle.upload(sequence, content, digest, parts)

    start = time.perf_counter()
    await vehicle.report(range(1, scenes + 1), content, digest)
    told_s = time.perf_counter() - start
    await asyncio.gather(*(work() for _ in range(in_flight)))
    whole_s = time.perf_counter() - start
    assert (await vehicle.account()).received == scenes
    return {
        "scenes": scenes,
        "scene_bytes": SCENE_BYTES,
        "in_flight": in_flight,
        "told_per_s": round(scenes / told_s),
        "scenes_per_s": round(scenes / whole_s, 1),
    }


async def _drive(args: argparse.Namespace, credentials: tuple[bytes, bytes, bytes], port: int) -> dict[str, Any]:
    secure = grpc.ssl_channel_credentials(*credentials)
    async with grpc.aio.secure_channel(f"localhost:{port}", secure) as channel:
        return {
            "upload": await large_clips(channel, args.clips, args.clip_mb << 20),
            "scenes_100_kb_three_calls": await small_scenes(channel, args.scenes, args.in_flight, whole=False),
            "scenes_100_kb_one_call": await small_scenes(channel, args.scenes, args.in_flight, whole=True),
        }


def _vehicle(args: argparse.Namespace, credentials: tuple[bytes, bytes, bytes], port: int, found: Connection) -> None:
    started = time.process_time()
    figures = asyncio.run(_drive(args, credentials, port))
    found.send(figures | {"vehicle_cpu_s": round(time.process_time() - started, 1)})


def _enrolled(folder: Path, enrol_port: int) -> tuple[bytes, bytes, bytes]:
    argv = [sys.executable, "-m", "edge.command", "cloud", "enrol-token", "--data", str(folder), "car"]
    token = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    ca = (folder / "ca" / "ca.pem").read_bytes()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "car")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    with grpc.secure_channel(f"localhost:{enrol_port}", grpc.ssl_channel_credentials(ca)) as channel:
        request = ingest_pb2.EnrolRequest(csr=csr.public_bytes(serialization.Encoding.PEM), token=token)
        certificate = ingest_pb2_grpc.EnrolmentStub(channel).Enrol(request).certificate
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ca, pem, certificate


def _disk_mb_per_s(folder: Path) -> float:
    """What the disk itself takes: 4 MiB and fdatasync, in turn."""
    block, path = os.urandom(4 << 20), folder / "probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    start = time.perf_counter()
    for number in range(16):
        os.pwrite(handle, block, number << 22)
        os.fdatasync(handle)
    taken_s = time.perf_counter() - start
    os.close(handle)
    path.unlink()
    return 16 * len(block) / 1e6 / taken_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--clip-mb", type=int, default=64, help="MiB")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=16, help="uploads of small scenes under way at once")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roadfuse-bench-", dir=args.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        roadfuse = [sys.executable, "-m", "edge.command", "cloud"]
        subprocess.run([*roadfuse, "ca", "init", "--data", name], check=True, stdout=subprocess.DEVNULL)
        disk = _disk_mb_per_s(folder)
        server = subprocess.Popen(
            [*roadfuse, "serve", "--only", "ingest", "--data", name, *PORTS], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            port, enrol_port = (int(server.stdout.readline().rpartition(":")[2]) for _ in range(2))
            credentials = _enrolled(folder, enrol_port)
            spawn = multiprocessing.get_context("spawn")  # grpc does not survive fork
            receiver, sender = spawn.Pipe(duplex=False)
            vehicle = spawn.Process(target=_vehicle, args=(args, credentials, port, sender))
            vehicle.start()
            sender.close()
            figures = receiver.recv()
            vehicle.join()
            ticks = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            server_cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
        "disk_fdatasync_mb_per_s": round(disk, 1),
    }
    print(json.dumps({"machine": machine, "server_cpu_s": round(server_cpu_s, 1), **figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
