"""What a process of the cloud measures, for Prometheus: `/metrics` on a port of its own, one for each part.

    DATA/metrics.json     where they all listen, as Prometheus reads it (file_sd_configs)

A part's figures live in the default registry of its process; whoever measures something registers it there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_client import Histogram, start_http_server

from cloud.settings import Settings

_LOG: Final = logging.getLogger(__name__)
# From 1 ms to 2 minutes; 0.05 and 2 s are promises, so they are bounds.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)

# Search observes this for each scene that its mirror takes in.
SEARCHABLE_S: Final = Histogram(
    "roadfuse_searchable_seconds", "From the acknowledgement of a scene until a search finds it", buckets=SECONDS
)


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
