"""The service over real sockets: a vector or a failure an item; a server that dies costs only its own items."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.calls import Decoding
from cloud.embed.encoders import Encoders
from cloud.embed.gateway import Gateway
from cloud.embed.item import Item, Vector
from cloud.embed.remote import Remote
from cloud.embed.server import MAX_ITEMS, add_to
from cloud.embed.wire import answer_of, item_message
from cloud.errors import ModelError, Refused
from edge import bundle as bundles
from roadfuse.v1 import embed_pb2, embed_pb2_grpc

from ..fleet import refused
from .test_contents import JPEG, claiming, tone, wav

SOUND = wav(tone(700, 1.0))
Status = grpc.StatusCode


class Server:
    """`roadfuse cloud serve --only NAMES` as a process."""

    def __init__(self, data: Path, only: str, port: int = 0, words: Sequence[str] = ()) -> None:
        argv = ["cloud", "serve", "--data", str(data), "--only", only, "--embed-port", str(port), "--metrics-port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge.command", *argv, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line.startswith("embed "), line + self.process.stderr.read()
        self.address = line.split()[1]
        self.port = int(self.address.rpartition(":")[2])

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def served(data: Path, only: str = "embed", port: int = 0, words: Sequence[str] = ()) -> Iterator[Server]:
    server = Server(data, only, port, words)
    try:
        yield server
    finally:
        server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All encoders."""
    with served(tmp_path_factory.mktemp("all")) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as made:
        yield made


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> embed_pb2_grpc.EmbedStub:
    return embed_pb2_grpc.EmbedStub(channel)


def request(*items: Item) -> embed_pb2.EmbedRequest:
    return embed_pb2.EmbedRequest(items=[item_message(item.modality, item.content) for item in items])


def test_each_item_is_answered_in_its_place(stub: embed_pb2_grpc.EmbedStub, encoders: Encoders, clip: bytes) -> None:
    items = [
        Item.of_text("night"), Item("image", claiming(9000, 9000)), Item("audio", SOUND), Item("text", b"\xff"),
        Item("motion", clip), Item("image", JPEG), Item("lidar", b"no clip"), Item.of_text("night"),
    ]  # fmt: skip
    answers = [answer_of(answer) for answer in stub.Embed(request(*items), timeout=30).answers]
    expected = [encoders.encode(item.modality, [item.content])[0] for item in items]
    for item, answer, known in zip(items, answers, expected, strict=True):
        if isinstance(known, Vector):
            assert isinstance(answer, Vector) and abs(answer.array - known.array).max() < 1e-6, item.modality
            assert (answer.space, answer.model, answer.instant_ns) == (known.space, known.model, known.instant_ns)
        else:
            assert isinstance(answer, Refused) and isinstance(known, Refused)
            assert (answer.status, str(answer)) == (Status.INVALID_ARGUMENT, str(known))


def test_the_server_says_its_space_and_models(stub: embed_pb2_grpc.EmbedStub, encoders: Encoders) -> None:
    described = stub.Describe(embed_pb2.DescribeRequest(), timeout=10)
    assert described.space == encoders.space
    assert sorted(entry.model for entry in described.models) == sorted(encoders.models.values())


def test_health_and_reflection_answer(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="roadfuse.v1.Embed"))
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (listed,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(ask)
    assert "roadfuse.v1.Embed" in [service.name for service in listed.list_services_response.service]


@pytest.mark.parametrize("count", [0, MAX_ITEMS + 1])
def test_calls_of_no_or_too_many_items_are_refused(stub: embed_pb2_grpc.EmbedStub, count: int) -> None:
    with refused(Status.INVALID_ARGUMENT, f"expected 1..{MAX_ITEMS} items, got {count}"):
        stub.Embed(request(*[Item.of_text("night")] * count), timeout=10)


def test_items_without_content_or_modality_fail_alone(stub: embed_pb2_grpc.EmbedStub) -> None:
    odd = embed_pb2.EmbedRequest(
        items=[
            embed_pb2.EmbedItem(text="night"),
            embed_pb2.EmbedItem(modality=embed_pb2.MODALITY_IMAGE),
            embed_pb2.EmbedItem(file=JPEG),
            embed_pb2.EmbedItem(modality=99, file=JPEG),
            embed_pb2.EmbedItem(modality=embed_pb2.MODALITY_IMAGE, text="night"),
        ]
    )
    first, *others = stub.Embed(odd, timeout=10).answers
    assert first.HasField("vector")
    assert all(answer.failure.code == Status.INVALID_ARGUMENT.value[0] for answer in others)


def test_a_message_beyond_the_limit_is_refused(stub: embed_pb2_grpc.EmbedStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(request(Item("image", bytes(40 << 20))), timeout=30)
    assert caught.value.code() == Status.RESOURCE_EXHAUSTED


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda raw: b"\x0a" + bytes([len(raw)]) + raw))
def test_no_bytes_bring_the_server_down(channel: grpc.Channel, raw: bytes) -> None:
    call = channel.unary_unary("/roadfuse.v1.Embed/Embed")
    try:
        answered = embed_pb2.EmbedResponse.FromString(call(raw, timeout=10))
        assert len(answered.answers) == len(embed_pb2.EmbedRequest.FromString(raw).items)
    except grpc.RpcError as error:
        assert error.code() == Status.INVALID_ARGUMENT and "\n" not in error.details()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def open_gateway(addresses: dict) -> AsyncIterator[Gateway]:
    made = Gateway.at(addresses, Encoders(only=["text"]))
    try:
        yield made
    finally:
        await made.close()


def test_a_killed_encoder_costs_its_own_items_alone_and_is_found_again(tmp_path: Path, encoders: Encoders) -> None:
    first = Server(tmp_path, "audio")
    (expected,) = encoders.encode("audio", [SOUND])

    async def run() -> None:
        async with open_gateway({"audio": first.address}) as gateway:
            assert set(gateway.models) == {"audio", "text"}
            sound, text = await gateway.embed([Item("audio", SOUND), Item.of_text("night")])
            assert isinstance(text, Vector) and isinstance(sound, Vector) and isinstance(expected, Vector)
            assert abs(sound.array - expected.array).max() < 1e-6
            first.end(signal.SIGKILL)
            other = wav(tone(300, 1.0))
            sound, known, text = await gateway.embed([Item("audio", other), Item("audio", SOUND), Item.of_text("rain")])
            assert isinstance(sound, Refused) and sound.status is Status.UNAVAILABLE
            assert isinstance(known, Vector) and isinstance(text, Vector)  # one was kept, the other is made here
            with served(tmp_path, "audio", first.port):
                for _ in range(100):
                    (sound,) = await gateway.embed([Item("audio", other)])
                    if isinstance(sound, Vector):
                        break
                    assert sound.status is Status.UNAVAILABLE  # type: ignore[attr-defined]
                    await asyncio.sleep(0.1)
                assert isinstance(sound, Vector)

    asyncio.run(run())


def test_a_server_of_one_modality_refuses_the_others(tmp_path: Path) -> None:
    with served(tmp_path, "audio") as running, grpc.insecure_channel(running.address) as channel:
        stub = embed_pb2_grpc.EmbedStub(channel)
        text, sound = stub.Embed(request(Item.of_text("night"), Item("audio", SOUND)), timeout=20).answers
        assert text.failure.code == Status.UNIMPLEMENTED.value[0] and sound.HasField("vector")
        assert running.end(signal.SIGTERM) == 0


def test_video_is_served_without_images(tmp_path: Path, clip: bytes) -> None:
    with served(tmp_path, "video") as server, grpc.insecure_channel(server.address) as channel:
        stub = embed_pb2_grpc.EmbedStub(channel)
        items = request(Item("video", clip), Item("image", JPEG))
        seen, refused_one = (answer_of(answer) for answer in stub.Embed(items, timeout=30).answers)
    assert isinstance(seen, Vector) and isinstance(refused_one, Refused)


def test_an_encoder_of_another_space_is_not_believed() -> None:
    class Stranger(Encoders):
        """Another bundle's."""

        def __init__(self) -> None:
            super().__init__()
            self.space = "f" * 64

    async def run() -> None:
        server = grpc.aio.server(interceptors=[Decoding()])
        there, ours = Gateway(Stranger()), bundles.load(bundles.REFERENCE).id
        add_to(server, there)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with open_gateway({"audio": address}) as gateway:
            (answer,) = await gateway.embed([Item("audio", SOUND)])
            assert isinstance(answer, ModelError) and f"of space {ours[:16]}, got" in str(answer)
            assert "ffffffffffffffff" in str(answer)
        await server.stop(0)
        await there.close()

    asyncio.run(run())


def test_a_port_that_is_taken_is_said_in_one_line(server: Server, tmp_path: Path) -> None:
    argv = ["cloud", "serve", "--data", str(tmp_path), "--only", "text", "--embed-port", str(server.port)]
    done = subprocess.run(
        [sys.executable, "-m", "edge.command", *argv, "--metrics-port", "0"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("roadfuse cloud: expected a free port")  # gRPC logs a line before


def test_an_address_where_nobody_listens_is_unavailable() -> None:
    async def run() -> None:
        remote = Remote("127.0.0.1:9")
        (answer,) = await remote.encode("audio", [SOUND], "s", "m")
        assert isinstance(answer, Refused) and answer.status is Status.UNAVAILABLE
        await remote.close()

    asyncio.run(run())
