"""The cloud's server: Ingest and Updates on a port that asks for client certificates, Enrolment on one that can't yet.

Both answer health checks, the first reflection too. SIGTERM and SIGINT let calls finish, then it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from cloud import certificates, metrics
from cloud.calls import Decoding, Threads
from cloud.credentials import server_credentials
from cloud.database import CONNECTIONS, opened, reach
from cloud.enrolment import Enrolment
from cloud.errors import CloudError
from cloud.health import Health
from cloud.ingest import Ingest
from cloud.limits import Limits
from cloud.objects import Objects
from cloud.processes import alone, when_told_to_end
from cloud.releases.service import Updates
from cloud.rollouts.contact import Contacts
from cloud.settings import Settings as Settings
from cloud.staging import Staging
from cloud.survey import Survey
from cloud.tables import VEHICLES
from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc, updates_pb2, updates_pb2_grpc

_LOG: Final = logging.getLogger(__name__)
INGEST: Final = ingest_pb2.DESCRIPTOR.services_by_name["Ingest"].full_name
UPDATES: Final = updates_pb2.DESCRIPTOR.services_by_name["Updates"].full_name
ENROLMENT: Final = ingest_pb2.DESCRIPTOR.services_by_name["Enrolment"].full_name
DRAIN_S: Final = 10.0
# Between looks whether the catalogue is there.
WATCH_S: Final = 2.0
# An enrolment is a request of 16 KiB and a token.
ENROLMENT_MESSAGE_BYTES: Final = 64 << 10


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: of this server.
        tell: is given the addresses, once calls are answered.

    Raises:
        CloudError: it can't start; one line says why.
    """
    authority = certificates.load(settings.data / "ca")
    mutual = server_credentials(settings.data / "ca", authority.pem)
    one_way = server_credentials(settings.data / "ca")
    with alone(settings.data, "server.lock"):
        objects = Objects(settings.objects_place)
        staging = Staging(settings.data / "staging", settings.limits)
        with opened(settings.data, settings.database) as engine:
            metrics.watch_files(settings.data)
            metrics.STAGING_BYTES.set_function(lambda: staging.measure()[0])
            metrics.STAGING_CLIPS.set_function(lambda: staging.measure()[1])
            survey = Survey(engine)
            survey.start()
            try:
                asyncio.run(_serve(settings, authority, (mutual, one_way), engine, objects, staging, tell))
            finally:
                survey.close()


async def _serve(
    settings: Settings,
    authority: certificates.Authority,
    credentials: tuple[grpc.ServerCredentials, grpc.ServerCredentials],
    engine: Engine,
    objects: Objects,
    staging: Staging,
    tell: Callable[[str], None],
) -> None:
    threads = Threads(CONNECTIONS)
    stopping = asyncio.Event()
    when_told_to_end(stopping.set)

    ingest = _server(settings.limits, settings.limits.message_bytes)
    scenes = Ingest(engine, objects, staging, threads, settings.limits, authority)
    ingest_pb2_grpc.add_IngestServicer_to_server(scenes, ingest)
    contacts = Contacts()
    contacts.expect(await threads.run(_fleet, engine))
    updates = Updates(engine, objects, threads, settings.limits, settings.data, contacts)
    updates_pb2_grpc.add_UpdatesServicer_to_server(updates, ingest)
    enrolment = _server(settings.limits, ENROLMENT_MESSAGE_BYTES)
    ingest_pb2_grpc.add_EnrolmentServicer_to_server(Enrolment(engine, authority, threads), enrolment)

    of_vehicles, of_new_ones = (INGEST, UPDATES), (ENROLMENT,)
    # Only where callers show a certificate: such a call has no end, and takes the room of one.
    reflection.enable_server_reflection([*of_vehicles, "grpc.health.v1.Health", reflection.SERVICE_NAME], ingest)
    healths = {of_vehicles: await _watched(ingest, of_vehicles), of_new_ones: await _watched(enrolment, of_new_ones)}
    mutual, one_way = credentials
    port = _listen(ingest, settings.host, settings.port, mutual)
    enrol_port = _listen(enrolment, settings.host, settings.enrol_port, one_way)
    await ingest.start()
    await enrolment.start()
    tell(f"ingest {settings.host}:{port}")
    tell(f"enrolment {settings.host}:{enrol_port}")
    metrics.DATABASE_UP.set(1)
    watching = asyncio.create_task(_watch(engine, threads, healths))
    await stopping.wait()
    watching.cancel()
    await asyncio.wait([watching])
    for servicer in healths.values():
        await servicer.enter_graceful_shutdown()
    await asyncio.gather(ingest.stop(DRAIN_S), enrolment.stop(DRAIN_S))
    threads.close()


def _fleet(engine: Engine) -> int:
    """How many vehicles may call."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(VEHICLES)).scalar_one())


def _server(limits: Limits, message_bytes: int) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=[metrics.Timed(), Decoding()],
        maximum_concurrent_rpcs=limits.calls,
        options=[
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.max_concurrent_streams", limits.calls_of_connection),
            ("grpc.so_reuseport", 0),  # a second server on this port is an error, not a share of the calls
            # A vehicle that fell silent without a word is found out, so that its calls end.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )


async def _watched(server: grpc.aio.Server, services: tuple[str, ...]) -> Any:
    servicer = Health()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", *services):
        await servicer.set(name, HealthCheckResponse.SERVING)
    return servicer


async def _watch(engine: Engine, threads: Threads, healths: dict[tuple[str, ...], Any]) -> None:
    """Health follows the catalogue: without it no call can be answered."""
    was = HealthCheckResponse.SERVING
    while True:
        await asyncio.sleep(WATCH_S)
        try:
            await threads.run(reach, engine)
            now = HealthCheckResponse.SERVING
        except SQLAlchemyError:
            now = HealthCheckResponse.NOT_SERVING
        metrics.DATABASE_UP.set(now == HealthCheckResponse.SERVING)
        if now != was:
            was = now
            _LOG.warning("catalogue_%s", "back" if now == HealthCheckResponse.SERVING else "away")
            for services, servicer in healths.items():
                for name in ("", *services):
                    await servicer.set(name, now)


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise CloudError(f"expected a free port, got {address}, where nobody may listen or somebody does") from None
