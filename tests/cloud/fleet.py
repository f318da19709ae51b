"""Servers as processes and vehicles as clients, for tests: real sockets, real certificates, real kills."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import make_url, text

from cloud import certificates, identity
from cloud.database import connect, migrate
from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc

Status = grpc.StatusCode
CHUNK_BYTES = 256 << 10
HELD, EVICTED, LOST = ingest_pb2.MEDIA_STATE_HELD, ingest_pb2.MEDIA_STATE_EVICTED, ingest_pb2.MEDIA_STATE_LOST


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """URL of an empty database on a server; gone at the end."""
    name = f"test_{secrets.token_hex(4)}"
    engine = connect(server).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def command(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`roadfuse WORDS`, in a process of its own."""
    argv = [sys.executable, "-m", "edge.command", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or not check, done.stderr
    return done


class Cloud:
    """A server's folder, and its process while it runs; in a `with` block the process ends with the block.

    Args:
        data: its folder.
        database: URL; None: embedded.
        words: further options of `roadfuse cloud serve`.
    """

    def __init__(self, data: Path, database: str | None, *words: str) -> None:
        self.data = data
        self.database = database
        self._words = words
        self._process: subprocess.Popen[str] | None = None
        self.port = self.enrol_port = 0
        if not (data / "ca").exists():
            certificates.create(data / "ca")
            certificates.issue_server(data / "ca", ["localhost", "127.0.0.1"])

    @property
    def ca(self) -> bytes:
        """What vehicles trust, PEM."""
        return (self.data / "ca" / "ca.pem").read_bytes()

    def launch(self) -> None:
        """Start the process, without waiting for it."""
        argv = ["cloud", "serve", "--only", "ingest", "--data", str(self.data)]
        argv += ["--port", "0", "--enrol-port", "0", "--metrics-port", "0", *self._words]
        if self.database is not None:
            argv += ["--database", self.database]
        with (self.data / "stderr").open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge.command", *argv], stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def await_ready(self) -> None:
        """Wait until calls are answered."""
        assert self._process is not None and self._process.stdout is not None
        ports = {}
        for _ in range(2):
            line = self._process.stdout.readline()
            assert line, f"the server did not start: {(self.data / 'stderr').read_text()[-2000:]}"
            name, _, address = line.strip().partition(" ")
            ports[name] = int(address.rpartition(":")[2])
        self.port, self.enrol_port = ports["ingest"], ports["enrolment"]

    def start(self) -> Cloud:
        """Start and wait until calls are answered."""
        self.launch()
        self.await_ready()
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(60)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Cloud:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def vehicle(self, name: str | None = None) -> Vehicle:
        """A vehicle that is enrolled already."""
        assert self.database is not None
        name = name or f"car-{secrets.token_hex(4)}"
        key, csr = request_for(name)
        engine = connect(self.database)
        migrate(engine)
        with engine.begin() as connection:
            token = identity.give_token(connection, name, identity.datetime.timedelta(hours=1))
            pem = identity.enrol(connection, certificates.load(self.data / "ca"), csr, token)
        engine.dispose()
        return Vehicle(self, name, key, pem)

    def objects(self, vehicle: str) -> dict[str, bytes]:
        """All that lies under a vehicle's name, as files."""
        folder = self.data / "objects" / "clips" / vehicle
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def staged(self, vehicle: str) -> list[Path]:
        """The vehicle's clips on their way."""
        return sorted((self.data / "staging" / vehicle).glob("*"))


def request_for(name: str, key: Any = None) -> tuple[bytes, bytes]:
    """A private key and a signing request, PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class Clip:
    """A clip and its scene's number."""

    sequence: int
    content: bytes

    @property
    def sha256(self) -> bytes:
        """Of the content."""
        return hashlib.sha256(self.content).digest()


def clip(sequence: int, size: int) -> Clip:
    """A clip of random bytes."""
    return Clip(sequence, os.urandom(size))


def summary(sequence: int, of: Clip | None = None, **fields: Any) -> ingest_pb2.SceneSummary:
    """What is told of a scene; held where a clip is given, evicted else."""
    told = ingest_pb2.SceneSummary(
        sequence=sequence,
        first_ns=1_000,
        peak_ns=2_000,
        last_ns=3_000,
        hardness=0.7,
        embedding=bytes(range(256)),
        embedding_scale=0.01,
        bundle_id="b" * 64,
        media=HELD if of else EVICTED,
        reason="" if of else "quota",
        bytes=len(of.content) if of else 0,
        sha256=of.sha256 if of else b"",
        latitude_deg=48.1,
        longitude_deg=11.6,
    )
    told.recorded_at.seconds = 1_760_000_000
    told.scores.add(name="uncertainty", value=0.1, weight=0.3)
    told.scene_tags.add(name="night", probability=0.9)
    for name, value in fields.items():
        setattr(told, name, value)
    return told


def chunks(outbox: bytes, of: Clip, start: int = 0, size: int = CHUNK_BYTES) -> Iterator[ingest_pb2.Chunk]:
    """A clip's chunks from `start`."""
    for offset in range(start, len(of.content), size):
        content = of.content[offset : offset + size]
        chunk = ingest_pb2.Chunk(offset=offset, content=content, crc32=zlib.crc32(content))
        if offset == start:
            chunk.outbox, chunk.sequence = outbox, of.sequence
        yield chunk


class Vehicle:
    """A vehicle's side of the calls, as thin as can be."""

    def __init__(self, cloud: Cloud, name: str, key: bytes, certificate: bytes) -> None:
        self.cloud, self.name, self.key, self.certificate = cloud, name, key, certificate
        self.outbox = os.urandom(16)
        self.connect()

    def connect(self, root: bytes | None = None) -> None:
        """Connect anew: the server may have come back at another port."""
        credentials = grpc.ssl_channel_credentials(root or self.cloud.ca, self.key, self.certificate)
        self.channel = grpc.secure_channel(f"127.0.0.1:{self.cloud.port}", credentials)
        self.stub = ingest_pb2_grpc.IngestStub(self.channel)

    def report(self, *scenes: ingest_pb2.SceneSummary, last: int | None = None, **more: Any) -> list[int]:
        """Tell of scenes; gives those that are wanted."""
        last = max((scene.sequence for scene in scenes), default=0) if last is None else last
        request = ingest_pb2.ReportRequest(outbox=self.outbox, last_sequence=last, scenes=scenes, **more)
        return list(self.stub.Report(request, timeout=30).wanted)

    def begin(self, of: Clip) -> ingest_pb2.BeginResponse:
        """Open an upload."""
        request = ingest_pb2.BeginRequest(
            outbox=self.outbox, sequence=of.sequence, bytes=len(of.content), sha256=of.sha256
        )
        return self.stub.Begin(request, timeout=30)

    def append(self, parts: Iterable[ingest_pb2.Chunk]) -> list[int]:
        """Append chunks; gives the durable offsets that were answered."""
        return [answer.durable_offset for answer in self.stub.Append(iter(parts), timeout=60)]

    def complete(self, of: Clip) -> None:
        """Have the clip checked and committed."""
        self.stub.Complete(ingest_pb2.CompleteRequest(outbox=self.outbox, sequence=of.sequence), timeout=30)

    def upload(self, of: Clip) -> None:
        """All three, from wherever it was cut off."""
        begun = self.begin(of)
        if not begun.is_complete:
            if begun.durable_offset < len(of.content):
                self.append(chunks(self.outbox, of, begun.durable_offset))
            self.complete(of)

    def place(self, of: Clip) -> str:
        """Where a clip's object lies, under the vehicle's name."""
        return f"{self.outbox.hex()}/{of.sequence}-{of.sha256.hex()}.mcap"

    def account(self) -> ingest_pb2.OutboxAccount:
        """The gap report of this outbox."""
        answer = self.stub.Account(ingest_pb2.AccountRequest(), timeout=30)
        assert answer.vehicle == self.name
        return next(account for account in answer.outboxes if account.outbox == self.outbox)


@contextlib.contextmanager
def refused(status: grpc.StatusCode, *words: str) -> Iterator[None]:
    """The block's call is refused with this status and one line that says these words."""
    try:
        yield
    except grpc.RpcError as error:
        answer: Any = error
        assert answer.code() == status, f"expected {status}, got {answer.code()}: {answer.details()}"
        assert "\n" not in answer.details() and all(word in answer.details() for word in words), answer.details()
    else:
        raise AssertionError(f"expected {status}, got an answer")
