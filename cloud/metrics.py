"""What a process of the cloud measures, for Prometheus: `/metrics` on a port of its own, one for each part.

    DATA/metrics.json     where they all listen, as Prometheus reads it (file_sd_configs)

A part's figures live in the default registry of its process; whoever measures something registers it there. Names and
labels never come from outside, but for vehicles with missing scenes, of which the first few are named.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import logging
import math
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from prometheus_client import Gauge, Histogram, start_http_server

from cloud.settings import Settings

_LOG: Final = logging.getLogger(__name__)
# From 1 ms to 2 minutes; 0.05 and 2 s are promises, so they are bounds.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
# A vehicle may be without a network for days.
LONG_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0)

CALL_S: Final = Histogram(
    "roadfuse_call_seconds", "From a call to its answer, by method and status", ["method", "status"], buckets=SECONDS
)
# Search observes this for each scene that its mirror takes in.
SEARCHABLE_S: Final = Histogram(
    "roadfuse_searchable_seconds", "From the acknowledgement of a scene until a search finds it", buckets=SECONDS
)
LAG_S: Final = Histogram(
    "roadfuse_lag_seconds",
    "What a scene waited for: told (since it was recorded), received (since told), analysed (since received)",
    ["stage"],
    buckets=LONG_SECONDS,
)
MISALIGNED: Final = Histogram(
    "roadfuse_told_misaligned",
    "How much a sensor contradicts the others in scenes that were told of, 0..1",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
DATABASE_UP: Final = Gauge("roadfuse_database_up", "Whether the catalogue answers")
QUEUE_JOBS: Final = Gauge("roadfuse_queue_jobs", "Jobs that have not ended well", ["kind", "state"])
QUEUE_OLDEST_S: Final = Gauge("roadfuse_queue_oldest_seconds", "For how long a job could have run", ["kind"])
SCENES: Final = Gauge("roadfuse_scenes", "The gap report: given is the sum of the others", ["state"])
MISSING: Final = Gauge("roadfuse_missing_scenes", "Numbers that were given and never told of", ["vehicle"])
EXPIRING: Final = Gauge("roadfuse_vehicles_expiring", "Vehicles whose last certificate ends within 30 days")
SURVEYED_AT: Final = Gauge("roadfuse_surveyed_timestamp_seconds", "When the catalogue was last looked at for these")
STAGING_BYTES: Final = Gauge("roadfuse_staging_bytes", "Of clips that are on their way")
STAGING_CLIPS: Final = Gauge("roadfuse_staging_clips", "Clips that are on their way")
DISK_FREE_BYTES: Final = Gauge("roadfuse_disk_free_bytes", "Of the disk that holds the cloud's folder")
DISK_BYTES: Final = Gauge("roadfuse_disk_bytes", "Size of the disk that holds the cloud's folder")
EXPIRES_AT: Final = Gauge("roadfuse_certificate_expires_timestamp_seconds", "When a certificate ends", ["name"])


class Timed(grpc.aio.ServerInterceptor):
    """Times the calls of our own services, by method and status."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap the handler that is called."""
        handler = await continuation(handler_call_details)
        _, service, method = handler_call_details.method.split("/", 2)
        if handler is None or not hasattr(handler, "_replace") or not service.startswith("roadfuse."):
            return handler
        name = f"{service.rpartition('.')[2]}/{method}"
        if handler.request_streaming or handler.response_streaming:
            if handler.stream_stream is None:
                return handler
            return handler._replace(stream_stream=_timed_stream(name, handler.stream_stream))
        return handler._replace(unary_unary=_timed(name, handler.unary_unary))


def watch_files(data: Path) -> None:
    """Measure the disk that holds `data`, and how long the certificates in it last, whenever somebody looks."""
    DISK_FREE_BYTES.set_function(lambda: shutil.disk_usage(data).free)
    DISK_BYTES.set_function(lambda: shutil.disk_usage(data).total)
    # Without a broker there are none for it and for its client: NaN, which no alert compares.
    for name, absent in (("ca", 0.0), ("server", 0.0), ("broker", math.nan), ("cloud", math.nan)):
        EXPIRES_AT.labels(name).set_function(functools.partial(_expiry, data / "ca" / f"{name}.pem", absent))


def _expiry(path: Path, absent: float) -> float:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except FileNotFoundError:
        return absent
    except (OSError, ValueError):
        return 0.0


def _timed(name: str, behave: Any) -> Any:
    async def timed(request: Any, context: Any) -> Any:
        with _observed(name, context):
            return await behave(request, context)

    return timed


def _timed_stream(name: str, behave: Any) -> Any:
    async def timed(requests: Any, context: Any) -> Any:
        with _observed(name, context):
            async for answer in behave(requests, context):
                yield answer

    return timed


@contextlib.contextmanager
def _observed(name: str, context: Any) -> Iterator[None]:
    start, status = time.perf_counter(), "OK"
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        status = "CANCELLED"
        raise
    except BaseException:
        status = _NAMES.get(context.code(), "UNKNOWN")
        raise
    finally:
        CALL_S.labels(name, status).observe(time.perf_counter() - start)


_NAMES: Final = {key: code.name for code in grpc.StatusCode if code.value[0] for key in (code, code.value[0])}


@contextlib.contextmanager
def exposed(settings: Settings, part: str) -> Iterator[str]:
    """Answer on /metrics for the length of the block, and be found in DATA/metrics.json.

    Args:
        settings: of this process; a port that is taken is replaced by a free one.
        part: the name that its figures carry.

    Yields:
        host:port.
    """
    host = settings.inner_host
    try:
        server, thread = start_http_server(settings.metrics_port, host)
    except OSError:
        _LOG.warning("metrics_port_taken port=%d; a free one is in metrics.json", settings.metrics_port)
        server, thread = start_http_server(0, host)
    address = f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"
    try:
        _announce(settings.data, part, address)
        yield address
    finally:
        _announce(settings.data, part, None)
        server.shutdown()
        server.server_close()
        thread.join()


def _announce(data: Path, part: str, address: str | None) -> None:
    """Say where a part listens, or that it does no more; processes take turns."""
    path = data / "metrics.json"
    with (data / "metrics.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        groups: list[dict[str, Any]] = []
        with contextlib.suppress(FileNotFoundError, ValueError):
            groups = json.loads(path.read_text())
        groups = [group for group in groups if group["labels"]["part"] != part]
        if address is not None:
            groups.append({"targets": [address], "labels": {"part": part}})
        fresh = path.with_name(f".metrics.{secrets.token_hex(4)}")
        fresh.write_text(json.dumps(groups, indent=2) + "\n")
        fresh.replace(path)
