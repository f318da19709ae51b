"""The web server: pages for people, on the catalogue, the object store and the Search service.

It speaks plain HTTP, by default to this machine alone: what faces a network is a proxy that speaks TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cloud.catalogue import Catalogue
from cloud.database import opened
from cloud.errors import CloudError
from cloud.jobs import Queue
from cloud.objects import Objects
from cloud.processes import when_told_to_end
from cloud.settings import Settings
from cloud.web.access import Access, Tries, secret_at
from cloud.web.app import app
from cloud.web.cache import Cache
from cloud.web.clips import Clips
from cloud.web.searching import Searching, dial
from cloud.web.site import Site, templates
from cloud.web.stream import Feed

_LOG: Final = logging.getLogger(__name__)
DRAIN_S: Final = 5
# Requests at once; a page is a few dozen, and browsers ask for six at a time.
AT_ONCE: Final = 256
# Pictures and sounds that people ask about.
UPLOADS_BYTES: Final = 512 << 20


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve pages until SIGTERM or SIGINT.

    Args:
        settings: of this server.
        tell: is given the address, once pages are answered.

    Raises:
        CloudError: it can't start; one line says why.
    """
    secret = secret_at(settings.data / "web-secret")
    objects = Objects(settings.objects_place)
    with opened(settings.data, settings.database, share=True) as engine, dial(settings) as searching:
        site = site_of(settings, engine, objects, searching, secret)
        _say_how_to_sign_in(site, settings)
        with _listening(settings.inner_host, settings.web_port) as listener:
            asyncio.run(_serve(site, listener, tell))


def site_of(settings: Settings, engine: Engine, objects: Objects, searching: Searching, secret: bytes) -> Site:
    """What pages are made with."""
    place = settings.objects_place
    return Site(
        ca=settings.data / "ca",
        engine=engine,
        catalogue=Catalogue(engine, settings.limits),
        access=Access(engine, secret),
        tries=Tries(),
        clips=Clips(objects, None if "://" in place else Path(place).resolve(), settings.data / "web-cache"),
        searching=searching,
        uploads=Cache(settings.data / "web-cache" / "uploads", UPLOADS_BYTES),
        templates=templates(),
        feed=Feed(Queue(engine).pulse),
    )


def _say_how_to_sign_in(site: Site, settings: Settings) -> None:
    with contextlib.suppress(SQLAlchemyError):
        if not site.access.has_keys():
            _LOG.warning("no_api_key make_one='roadfuse cloud key create NAME --data %s'", settings.data)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise CloudError(f"expected a free port, got {host}:{port}: {error.strerror or error}") from None
    with listener:
        yield listener


async def _serve(site: Site, listener: socket.socket, tell: Callable[[str], None]) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(
        uvicorn.Config(
            app(site),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            # A proxy on this machine says who really calls; nobody else is believed.
            proxy_headers=True,
            forwarded_allow_ips="127.0.0.1",
            limit_concurrency=AT_ONCE,
            timeout_graceful_shutdown=DRAIN_S,
        ),
        lambda: tell(f"web {address}"),
    )
    when_told_to_end(_end, server, site)
    await server.serve([listener])


def _end(server: _Server, site: Site) -> None:
    site.feed.end()  # else calls that last would be waited for
    server.stop()


class _Server(uvicorn.Server):
    """uvicorn, with signals left to us: it would raise them again when it is done, and the process would die."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()

    def stop(self, *_: Any) -> None:
        """End once calls are answered."""
        self.should_exit = True
