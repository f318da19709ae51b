"""The cloud's parts as processes: each is started, watched, and started again when it dies.

`roadfuse cloud serve` is the parent. It keeps the embedded database, starts ingest, and when that answers the others;
what they tell it prints. A part may end in three ways: asked to (SIGTERM, in an order in which nobody asks what is
gone), because the parent died (the kernel then kills it), or on its own: then it is started again after a pause that
doubles. A part that is not installed here says so in one line and stays off.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from prometheus_client import Counter, Gauge

from cloud import certificates, metrics
from cloud.errors import CloudError
from cloud.postgres import Postgres
from cloud.processes import alone, when_told_to_end
from cloud.settings import Settings

_LOG: Final = logging.getLogger(__name__)
# In the order in which they start; they end the other way round. Each module has serve(settings, tell).
PARTS: Final = {
    "ingest": "cloud.server",
    "search": "cloud.search.server",
    "embed": "cloud.embed.server",
    "worker": "cloud.worker",
    "control": "cloud.rollouts.control",
    "web": "cloud.web.server",
}
# Encoders answer within search's process, unless they are asked for by name.
USUAL: Final = ("ingest", "search", "worker", "control", "web")
ENCODERS: Final = ("text", "image", "audio", "video", "motion", "lidar")
# What a part tells, and the setting that it says: one that comes back listens where it did.
TOLD: Final = {
    "ingest": "port",
    "enrolment": "enrol_port",
    "embed": "embed_port",
    "web": "web_port",
}
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
# One that ran so long starts with the first pause again.
STEADY_S: Final = 60.0
# A part has so long to end when asked to: its calls end within 10 s.
END_S: Final = 15.0
# Between looks whether the database's keeper is there.
MEND_S: Final = 1.0
NOT_INSTALLED: Final = 69  # EX_UNAVAILABLE
PARENT: Final = "ROADFUSE_PARENT"
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"

_UP: Final = Gauge("roadfuse_part_up", "Whether a part of the cloud runs", ["name"])
_ENDED: Final = Counter("roadfuse_part_ended", "Times that a part ended without being asked to", ["name", "reason"])


class NotInstalled(CloudError):
    """A part's module, or a package that it needs, is not here."""


def run(name: str, settings: Settings, tell: Callable[[str], None]) -> None:
    """Run one part in this process until SIGTERM.

    Args:
        name: of PARTS; search-2, search-3, ... are further processes of search.

    Raises:
        NotInstalled: it can't be imported.
        CloudError: it can't start; one line says why.
    """
    try:
        module: Any = importlib.import_module(PARTS[_part(name)[0]])
    except ImportError as error:
        raise NotInstalled(f"{name} is not installed here: {error}") from error
    with metrics.exposed(settings, name):
        module.serve(settings, tell)


def supervise(names: Sequence[str], settings: Settings, tell: Callable[[str], None]) -> None:
    """Run parts as child processes until SIGTERM or SIGINT.

    Args:
        names: of PARTS.
        settings: for all of them.
        tell: is given each line that a part tells.

    Raises:
        CloudError: the database or ingest can't start.
    """
    with ExitStack() as stack:
        if "ingest" in names:
            certificates.load(settings.data / "ca")  # whether there is one is known before a database is made
        stack.enter_context(alone(settings.data, "parts.lock"))
        database = None
        if settings.database is None:
            database = stack.enter_context(Postgres(settings.data / "postgres"))
            settings = dataclasses.replace(settings, database=database.url)
        stack.enter_context(metrics.exposed(settings, "parts"))
        # Others are told these ports before they are listened at.
        *search, web = _chosen(settings.inner_host, (*settings.search_ports, settings.web_port))
        settings = dataclasses.replace(settings, search_ports=tuple(search), web_port=web)
        processes = [one for name in PARTS if name in names for one in _processes(name, settings)]
        asyncio.run(_Parent(settings, tell, database).run(processes))


class _Parent:
    """Watches its children; all of it in the main thread, whose end is what the kernel tells them of."""

    def __init__(self, settings: Settings, tell: Callable[[str], None], database: Postgres | None) -> None:
        self._settings = settings
        self._database = database
        self._tell = tell
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self, names: list[str]) -> None:
        when_told_to_end(self._stopping.set)
        answering = {name: asyncio.Event() for name in names}
        keepers: dict[str, asyncio.Task[None]] = {}
        stopped = asyncio.create_task(self._stopping.wait())
        for name in names:
            keepers[name] = asyncio.create_task(self._keep(name, answering[name]))
            if name == "ingest":
                waiting = asyncio.create_task(answering[name].wait())
                await asyncio.wait({keepers[name], waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if keepers[name].done() and not stopped.done():
                    stopped.cancel()
                    keepers[name].result()  # raises why it did not start
        mending = asyncio.create_task(self._mend_database())
        await stopped
        mending.cancel()
        for name in reversed(names):
            await self._end(name)
        await asyncio.gather(*keepers.values(), return_exceptions=True)

    async def _keep(self, name: str, answering: asyncio.Event) -> None:
        """Start a part, and again when it ends.

        Raises:
            CloudError: ingest failed before it ever answered.
        """
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while not self._stopping.is_set():
            started = loop.time()
            code, said = await self._live(name, answering)
            _UP.labels(name).set(0)
            if self._stopping.is_set():
                return
            if name == "ingest" and not answering.is_set():
                raise CloudError(said or f"ingest did not start: {_reason(code)}")
            _ENDED.labels(name, _reason(code)).inc()
            if code == NOT_INSTALLED:
                _LOG.warning("part_off part=%s reason=%r", name, said)
                _UP.remove(name)
                return
            pause_s = FIRST_PAUSE_S if loop.time() - started > STEADY_S else pause_s
            _LOG.warning("part_ended part=%s reason=%r again_in_s=%.1f", name, said or _reason(code), pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _live(self, name: str, answering: asyncio.Event) -> tuple[int, str]:
        """Start a part and wait for its end.

        Returns:
            Its exit code, EX_OSERR if the system has no room for one more process; why it ended, where that is known.
        """
        try:
            child = self._children[name] = await self._start(name)
        except OSError as error:
            return os.EX_OSERR, f"{name} can't be started: {error}"
        if self._stopping.is_set():  # it was asked meanwhile
            child.terminate()
        _UP.labels(name).set(1)
        said = await self._listen(name, child, answering)
        return await child.wait(), said

    async def _mend_database(self) -> None:
        """Whoever keeps PostgreSQL running may be killed too."""
        while self._database is not None:
            await asyncio.sleep(MEND_S)
            try:
                if not await asyncio.to_thread(self._database.mend):
                    continue
            except (CloudError, OSError) as error:  # OSError: no room for one more process, for now
                _LOG.error("database_not_mended error=%s", error)
                continue
            _LOG.warning("database_mended")
            if self._database.url != self._settings.database:  # its socket lies elsewhere now
                self._settings = dataclasses.replace(self._settings, database=self._database.url)
                for child in self._children.values():
                    with suppress(ProcessLookupError):
                        child.terminate()

    async def _start(self, name: str) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cloud", name),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {PARENT: str(os.getpid())},
            start_new_session=True,  # a Ctrl-C is for the parent: it ends them in order
        )
        assert child.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(_to_json(_own(name, self._settings)))
            child.stdin.close()
        return child

    async def _listen(self, name: str, child: asyncio.subprocess.Process, answering: asyncio.Event) -> str:
        """Pass on what a part tells, until it ends.

        Returns:
            Why it ended, where it said so.
        """
        assert child.stdout is not None
        said, told = "", 0
        async for line in child.stdout:
            word, _, rest = line.decode(errors="replace").strip().partition(" ")
            if word == "error":
                said = rest
                continue
            told += 1
            self._pin(word, rest)
            if not answering.is_set():
                with suppress(BrokenPipeError):  # whoever started this cloud has read enough
                    self._tell(f"{word} {rest}")
            if told == (2 if name == "ingest" else 1):
                answering.set()
        return said

    def _pin(self, word: str, address: str) -> None:
        port = address.rstrip("/").rpartition(":")[2]
        if word in TOLD and port.isdecimal():
            self._settings = _with_port(self._settings, TOLD[word], int(port))

    async def _end(self, name: str) -> None:
        child = self._children.get(name)
        if child is None or child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            child.terminate()
        try:
            await asyncio.wait_for(child.wait(), END_S)
        except TimeoutError:
            _LOG.error("part_killed part=%s reason='did not end in %.0f s'", name, END_S)
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


def _reason(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _processes(part: str, settings: Settings) -> list[str]:
    """Names of a part's processes."""
    further = range(1, len(settings.search_ports)) if part == "search" else ()
    return [part, *(f"{part}-{at + 1}" for at in further)]


def _part(name: str) -> tuple[str, int]:
    """The part of a process, and which of that part's it is, from 0."""
    part, _, number = name.partition("-")
    return part, int(number or 1) - 1


def _own(name: str, settings: Settings) -> Settings:
    """What a process of its own is told; one of several of search has one of its ports."""
    part, at = _part(name)
    ports = settings.search_ports[at : at + 1] if part == "search" else settings.search_ports
    return dataclasses.replace(settings, metrics_port=0, search_ports=ports)


def _with_port(settings: Settings, field: str, port: int) -> Settings:
    change: dict[str, Any] = {field: port}
    return dataclasses.replace(settings, **change)


def _chosen(host: str, ports: Sequence[int]) -> list[int]:
    """Ports with a free one in the place of each 0, no two of them alike."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as probes:
        return [
            port or int(probes.enter_context(socket.create_server((host, 0), family=family)).getsockname()[1])
            for port in ports
        ]


def _to_json(settings: Settings) -> bytes:
    return json.dumps(dataclasses.asdict(settings), default=str).encode()
