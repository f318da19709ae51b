"""The way to the cloud over real sockets: mTLS, failures that pass and refusals, silence, damage, too much of it."""

from __future__ import annotations

import datetime
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.errors import UpdateError
from edge.updates.assignment import Cloud
from edge.updates.fetch import Fetcher
from edge.updates.line import GrpcCloud
from edge.uplink.identity import CERTIFICATE, CLOUD_CA, KEY, channel
from roadfuse.v1 import updates_pb2, updates_pb2_grpc

from .repositories import VEHICLE, SimulatedCloud
from .vehicle import Vehicle


class Service(updates_pb2_grpc.UpdatesServicer):
    """A simulated cloud behind the wire. `before` may abort a call; `change` changes chunks."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self.cloud = cloud
        self.before: Callable[[Any], None] = lambda context: None
        self.change: Callable[[updates_pb2.FetchChunk], None] = lambda chunk: None
        self.callers: list[str] = []
        self.ended = threading.Event()
        self.silent_after: int | None = None

    def CheckIn(self, request: Any, context: Any) -> updates_pb2.CheckInResponse:
        self.callers += [name.decode() for name in context.auth_context().get("x509_common_name", [])]
        self.before(context)
        return self.cloud.check_in(request)

    def ImageMetadata(self, request: Any, context: Any) -> updates_pb2.ImageMetadataResponse:
        self.before(context)
        return updates_pb2.ImageMetadataResponse(content=self.cloud.image_metadata(request.role, request.version))

    def Delta(self, request: Any, context: Any) -> updates_pb2.DeltaResponse:
        self.before(context)
        return self.cloud.delta(list(request.have_sha256), request.want_sha256)

    def Fetch(self, request: Any, context: Any) -> Iterator[updates_pb2.FetchChunk]:
        context.add_callback(self.ended.set)
        self.before(context)
        offset = request.offset
        for content in self.cloud.fetch(request.sha256, offset):
            chunk = updates_pb2.FetchChunk(offset=offset, content=content, crc32=zlib.crc32(content))
            self.change(chunk)
            yield chunk
            offset += len(content)
            if self.silent_after is not None and offset >= self.silent_after:
                self.ended.wait(60)


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    made = Service(SimulatedCloud())
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    updates_pb2_grpc.add_UpdatesServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def line(service: tuple[Service, str]) -> Iterator[GrpcCloud]:
    with GrpcCloud(grpc.insecure_channel(service[1]), call_s=20.0, silent_s=20.0) as made:
        yield made


def aborts(code: grpc.StatusCode) -> Callable[[Any], None]:
    return lambda context: context.abort(code, "as it\nwas told to")


def _some_file(cloud: SimulatedCloud) -> bytes:
    cloud.release(1)
    return max(cloud.files, key=lambda digest: len(cloud.files[digest]))


CALLS: dict[str, Callable[[Cloud], Any]] = {
    "check-in": lambda line: line.check_in(updates_pb2.CheckInRequest(nonce=b"n" * 16)),
    "image snapshot": lambda line: line.image_metadata("snapshot", 1),
    "delta": lambda line: line.delta([b"a" * 32], b"b" * 32),
    "file": lambda line: list(line.fetch(b"b" * 32, 0)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "DATA_LOSS"])
def test_failure_that_passes_may_be_tried_again(
    service: tuple[Service, str], line: GrpcCloud, call: str, code: str
) -> None:
    service[0].before = aborts(grpc.StatusCode[code])
    with pytest.raises(OSError, match=rf"^{call}.*: {code.lower().replace('_', ' ')}: as it was told to$"):
        CALLS[call](line)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "NOT_FOUND"])
def test_refusal_is_one(service: tuple[Service, str], line: GrpcCloud, call: str, code: str) -> None:
    service[0].before = aborts(grpc.StatusCode[code])
    with pytest.raises(UpdateError, match=rf"^{call}.*: the cloud refuses: .*: as it was told to$"):
        CALLS[call](line)


@pytest.mark.parametrize("call", CALLS)
def test_cloud_that_is_not_there_may_come_back(call: str) -> None:
    with GrpcCloud(grpc.insecure_channel("127.0.0.1:1"), call_s=20.0) as line, pytest.raises(OSError, match=call):
        CALLS[call](line)


@pytest.mark.parametrize("call", ["check-in", "image snapshot", "delta"])
def test_call_that_is_not_answered_ends(service: tuple[Service, str], call: str) -> None:
    service[0].before = lambda context: threading.Event().wait(2.0)
    with (
        GrpcCloud(grpc.insecure_channel(service[1]), call_s=0.3) as line,
        pytest.raises(OSError, match="deadline exceeded"),
    ):
        CALLS[call](line)


def test_silent_stream_is_cut_off_after_what_came(service: tuple[Service, str]) -> None:
    digest = _some_file(service[0].cloud)
    service[0].silent_after = 8192
    with GrpcCloud(grpc.insecure_channel(service[1]), silent_s=2.0) as line:
        line.image_metadata("snapshot", 1)  # the channel is there
        came: list[bytes] = []
        with pytest.raises(TimeoutError, match="expected bytes from the cloud, got none for too long"):
            for content in line.fetch(digest, 0):
                came.append(content)  # noqa: PERF402
    assert b"".join(came) == service[0].cloud.files[digest][:8192]
    assert service[0].ended.wait(20)


def test_stream_that_nobody_reads_on_is_ended(service: tuple[Service, str], line: GrpcCloud) -> None:
    digest = _some_file(service[0].cloud)
    service[0].silent_after = 4096
    chunks = line.fetch(digest, 0)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert service[0].ended.wait(20)


def _other_byte(chunk: updates_pb2.FetchChunk) -> None:
    chunk.content = b"!" + chunk.content[1:]


def _other_offset(chunk: updates_pb2.FetchChunk) -> None:
    chunk.offset += 1


@pytest.mark.parametrize("damage", [_other_byte, _other_offset])
def test_damaged_chunk_is_sent_again(service: tuple[Service, str], line: GrpcCloud, damage: Any) -> None:
    digest = _some_file(service[0].cloud)
    service[0].change = damage
    with pytest.raises(OSError, match="expected a whole chunk from byte 0 on, got another"):
        list(line.fetch(digest, 0))
    service[0].change = lambda chunk: None
    assert b"".join(line.fetch(digest, 100)) == service[0].cloud.files[digest][100:]


def test_message_without_bounds_is_not_read(service: tuple[Service, str], line: GrpcCloud) -> None:
    service[0].cloud.image_files["snapshot", 1] = bytes(8 << 20)
    with pytest.raises(OSError, match="resource exhausted"):
        line.image_metadata("snapshot", 1)


# mTLS


def _certificate(name: str, key: Any, issuer: str, by: Any, is_ca: bool) -> bytes:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        key.public_key(), x509.random_serial_number(), now - datetime.timedelta(1), now + datetime.timedelta(1),
    )  # fmt: skip
    builder = builder.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_vehicle_checks_in_and_fetches_its_release_over_mtls(tmp_path: Path) -> None:
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "localhost", VEHICLE)}
    certificates = {name: _certificate(name, key, "ca", keys["ca"], name == "ca") for name, key in keys.items()}
    identity = tmp_path / "identity"
    identity.mkdir()
    for name, content in (
        (KEY, _pem(keys[VEHICLE])),
        (CERTIFICATE, certificates[VEHICLE]),
        (CLOUD_CA, certificates["ca"]),
    ):
        (identity / name).write_bytes(content)
    made = Service(SimulatedCloud())
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    updates_pb2_grpc.add_UpdatesServicer_to_server(made, server)
    credentials = grpc.ssl_server_credentials(
        [(_pem(keys["localhost"]), certificates["localhost"])], certificates["ca"], require_client_auth=True
    )
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    try:
        vehicle = Vehicle(tmp_path / "updates", made.cloud)
        made.cloud.release(1)
        with GrpcCloud(channel(f"localhost:{port}", identity)) as line:
            request = vehicle.request()
            assignment = vehicle.trust.verified(line.check_in(request), line, request.nonce, 0)
            assert assignment.release is not None
            fetcher = Fetcher(vehicle.disk, line)
            for file in assignment.release.files:
                assert vehicle.disk.read(fetcher.fetch(file)) == made.cloud.files[file.sha256]
        assert made.callers == [VEHICLE]
        with GrpcCloud(grpc.insecure_channel(f"localhost:{port}")) as stranger, pytest.raises(OSError):
            stranger.check_in(vehicle.request())
    finally:
        server.stop(None).wait()
