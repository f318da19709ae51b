"""The service `Embed`: mounted in a server beside others, or in a process of its own with some of the encoders.

It speaks plain text and knows no callers: it listens within the cloud, never to vehicles.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from cloud.calls import Context, Decoding, answered
from cloud.embed import towers
from cloud.embed.encoders import Encoders
from cloud.embed.gateway import Gateway, GatewaySettings
from cloud.embed.item import MODALITIES, Modality, Vector
from cloud.embed.refusals import malformed
from cloud.embed.remote import MESSAGE_BYTES
from cloud.embed.wire import answer_message, item_of, models_message
from cloud.errors import CloudError, ModelError
from cloud.health import Health
from cloud.processes import when_told_to_end
from cloud.settings import Settings
from roadfuse.v1 import embed_pb2, embed_pb2_grpc

EMBED: Final = embed_pb2.DESCRIPTOR.services_by_name["Embed"].full_name
CALL_S: Final = 30.0
MAX_ITEMS: Final = 256
# Each may hold a message.
CALLS: Final = 32
DRAIN_S: Final = 10.0


class Embed(embed_pb2_grpc.EmbedServicer):
    """Answers from a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @answered(CALL_S)
    async def Embed(self, request: Any, context: Context) -> embed_pb2.EmbedResponse:
        """A vector or a failure for each item."""
        if not 1 <= len(request.items) <= MAX_ITEMS:
            raise malformed(f"expected 1..{MAX_ITEMS} items, got {len(request.items)}")
        answers: list[Vector | CloudError | None] = []
        items = []
        for message in request.items:
            try:
                items.append(item_of(message))
                answers.append(None)
            except CloudError as error:
                answers.append(error)
        found = iter(await self._gateway.embed(items))
        return embed_pb2.EmbedResponse(
            answers=[answer_message(next(found) if answer is None else answer) for answer in answers]
        )

    @answered(CALL_S)
    async def Describe(self, request: Any, context: Context) -> embed_pb2.DescribeResponse:
        """The space, and what encodes into it."""
        return embed_pb2.DescribeResponse(space=self._gateway.space, models=models_message(self._gateway.models))


def add_to(server: grpc.aio.Server, gateway: Gateway) -> None:
    """Mount the service; the server takes messages as large as its options say."""
    embed_pb2_grpc.add_EmbedServicer_to_server(Embed(gateway), server)


def encoders_of(environment: Mapping[str, str] = os.environ, only: Collection[str] | None = None) -> Encoders:
    """The encoders of ROADFUSE_BUNDLE, a folder with its towers in it, as the worker takes it; else the reference ones.

    Raises:
        ModelError: there is no such bundle, or the towers are not its own.
    """
    bundle = environment.get("ROADFUSE_BUNDLE", "")
    return Encoders(towers.load(bundle=Path(bundle) if bundle else None), only)


def gateway_of(settings: Settings, environment: Mapping[str, str] = os.environ) -> Gateway:
    """The gateway of a server: its cache as the settings say, some encoders elsewhere.

    Args:
        environment: ROADFUSE_BUNDLE as in `encoders_of`; ROADFUSE_ENCODERS: MODALITY=HOST:PORT,...

    Raises:
        CloudError: as `encoders_of`, ROADFUSE_ENCODERS is malformed, or there can't be such a cache.
    """
    addresses: dict[Modality, str] = {}
    for word in filter(None, environment.get("ROADFUSE_ENCODERS", "").split(",")):
        name, _, address = word.strip().partition("=")
        known = [modality for modality in MODALITIES if modality == name]
        if not known or not address.rpartition(":")[2].isdecimal():
            raise ModelError(f"ROADFUSE_ENCODERS: expected {'|'.join(MODALITIES)}=HOST:PORT, got {word.strip()[:80]!r}")
        addresses[known[0]] = address
    return Gateway.at(addresses, encoders_of(environment), _cached(settings))


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: `encoders` names those that this process runs; none: all.
        tell: is given the address, once calls are answered.

    Raises:
        CloudError: it can't start; one line says why.
    """
    encoders = encoders_of(only=settings.encoders or None)
    missing = [name for name in settings.encoders if name not in encoders.models]
    if missing:
        raise ModelError(f"encoders: expected some of {', '.join(encoders.towers.models)}, got {missing[0]!r}")
    for modality in encoders.models:
        encoders.open(modality)
    asyncio.run(_serve(settings, encoders, tell))


def _cached(settings: Settings) -> GatewaySettings:
    return GatewaySettings(disk=settings.data / "vectors", redis=settings.cache_redis)


async def _serve(settings: Settings, encoders: Encoders, tell: Callable[[str], None]) -> None:
    stopping = asyncio.Event()
    when_told_to_end(stopping.set)
    gateway = Gateway(encoders, settings=_cached(settings))
    server = grpc.aio.server(
        interceptors=[Decoding()],
        maximum_concurrent_rpcs=CALLS,
        options=[("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
    )
    add_to(server, gateway)
    watch: Any = Health()
    health_pb2_grpc.add_HealthServicer_to_server(watch, server)
    reflection.enable_server_reflection([EMBED, "grpc.health.v1.Health", reflection.SERVICE_NAME], server)
    host = f"[{settings.inner_host}]" if ":" in settings.inner_host else settings.inner_host
    try:
        port = server.add_insecure_port(f"{host}:{settings.embed_port}")
    except RuntimeError:
        raise CloudError(
            f"expected a free port, got {host}:{settings.embed_port}, where nobody may listen or somebody does"
        ) from None
    for name in ("", EMBED):
        await watch.set(name, HealthCheckResponse.SERVING)
    await server.start()
    tell(f"embed {host}:{port}")
    await stopping.wait()
    await watch.enter_graceful_shutdown()
    await server.stop(DRAIN_S)
    await gateway.close()
