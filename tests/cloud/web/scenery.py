"""A cloud with scenes to look at: a short simulated drive, replayed as on a vehicle, told and brought in."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, insert, select

from cloud.catalogue import Catalogue
from cloud.limits import Limits
from cloud.objects import Objects, clip_key
from cloud.report import checked
from cloud.tables import API_KEYS, SCENES, VEHICLES
from edge.drive import topics
from edge.drive.reader import DriveMessage, DriveReader
from edge.drive.writer import DriveWriter
from edge.uplink.outbox import Outbox
from roadfuse.v1 import ingest_pb2

HELD, EVICTED, LOST = ingest_pb2.MEDIA_STATE_HELD, ingest_pb2.MEDIA_STATE_EVICTED, ingest_pb2.MEDIA_STATE_LOST


def spool(folder: Path, seconds: float = 4.0) -> Path:
    """The spool of a vehicle that drove for so long, with its hard scenes."""
    drive, into = folder / "drive.mcap", folder / "spool"
    for words in (
        ("simulate", "--scenario", "demo", "--seed", "7", "--seconds", f"{seconds:g}", "--out", drive),
        ("replay", drive, "--out", folder / "decided.mcap", "--spool", into),
    ):
        argv = [sys.executable, "-m", "edge.command", *map(str, words)]
        subprocess.run(argv, check=True, capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return into


def key(engine: Engine, name: str, *, may_write: bool = True) -> str:
    """An API key."""
    word = secrets.token_urlsafe(32)
    digest = hashlib.sha256(word.encode()).digest()
    with engine.begin() as connection:
        connection.execute(insert(API_KEYS).values(digest=digest, name=name, may_write=may_write))
    return word


def recut(clip: Path, into: Path, change: Callable[[DriveMessage], DriveMessage | None]) -> Path:
    """A clip with its pictures, sound and decisions changed, or left out where `change` gives None."""
    with DriveReader(clip) as drive, DriveWriter(into, {}) as made:
        for message in drive.messages([topics.CAMERA, topics.AUDIO, topics.DECISION]):
            changed = change(message)
            if changed is not None:
                made.copy(changed)
    return into


@dataclass
class Vehicle:
    """A vehicle whose words come in without a server."""

    engine: Engine
    objects: Objects
    name: str
    outbox: bytes = field(default_factory=lambda: os.urandom(16))
    last: int = 0

    def __post_init__(self) -> None:
        self.catalogue = Catalogue(self.engine, Limits())
        with self.engine.begin() as connection:
            connection.execute(insert(VEHICLES).values(name=self.name))

    def tell(self, *summaries: ingest_pb2.SceneSummary, last: int | None = None) -> list[int]:
        """Scenes are told of; gives their ids."""
        self.last = max([self.last, *(summary.sequence for summary in summaries)]) if last is None else last
        request = ingest_pb2.ReportRequest(outbox=self.outbox, last_sequence=self.last, scenes=summaries)
        self.catalogue.report(self.name, checked(request, Limits()))
        return [self.id_of(summary.sequence) for summary in summaries]

    def bring(self, sequence: int, clip: Path) -> int:
        """A clip comes in; gives the scene's id."""
        sha256 = self.catalogue.clip(self.name, self.outbox, sequence).sha256
        place = clip_key(self.name, self.outbox, sequence, sha256)
        self.objects.put(place, clip)
        self.catalogue.receive(self.name, self.outbox, sequence, sha256, place)
        return self.id_of(sequence)

    def id_of(self, sequence: int) -> int:
        """A scene's id."""
        query = select(SCENES.c.id).where(SCENES.c.outbox == self.outbox, SCENES.c.sequence == sequence)
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def unload(self, spool: Path) -> list[int]:
        """All that a spool holds is told and brought."""
        with Outbox(spool) as outbox:
            self.outbox = outbox.id
            summaries, _ = outbox.to_tell(100)
            self.tell(*summaries)
            held = [summary.sequence for summary in summaries if summary.media == HELD]
            return [self.bring(sequence, outbox.path(sequence)) for sequence in held]


def summary(sequence: int, **fields: Any) -> ingest_pb2.SceneSummary:
    """What is told of a scene whose clip is on board."""
    told = ingest_pb2.SceneSummary(
        sequence=sequence, first_ns=1_000_000_000, peak_ns=3_000_000_000, last_ns=9_000_000_000, hardness=0.62,
        bundle_id="b" * 64, media=HELD, bytes=48_000_000, sha256=bytes(32), latitude_deg=48.137, longitude_deg=11.575,
    )  # fmt: skip
    told.recorded_at.seconds = 1_760_000_000 + sequence
    told.scores.add(name="uncertainty", value=0.6, weight=0.55)
    told.scene_tags.add(name="night", probability=0.97)
    told.scene_tags.add(name="rain", probability=0.81)
    told.sound_events.add(name="siren", probability=0.92)
    for name, value in fields.items():
        setattr(told, name, value)
    return told


class Web:
    """The web server as a process of its own.

    Args:
        data: its folder.
        database: URL.
    """

    def __init__(self, data: Path, database: str, search_port: int = 1) -> None:
        data.mkdir(exist_ok=True)
        self._errors = (data / "web.stderr").open("ab")
        program = (
            "import sys; from pathlib import Path; from cloud.settings import Settings\n"
            "from cloud.web.server import serve\n"
            "serve(Settings(Path(sys.argv[1]), sys.argv[2], web_port=0, search_ports=(int(sys.argv[3]),)),"
            " lambda line: print(line, flush=True))"
        )
        argv: Sequence[str] = [sys.executable, "-c", program, str(data), database, str(search_port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("web http://"), (data / "web.stderr").read_text()[-2000:]
        self.address = line.split()[1]

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self._errors.close()

    def is_up(self) -> bool:
        """Whether it answers."""
        with urllib.request.urlopen(f"{self.address}/health", timeout=10) as answer:
            return bool(answer.status == 200)


class Visitor:
    """A browser without its window: keeps cookies, follows nothing.

    Args:
        address: of the web server.
    """

    def __init__(self, address: str) -> None:
        self.http = httpx.Client(base_url=address, headers={"Accept": "text/html"}, timeout=30)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """A page."""
        return self.http.get(path, **more)

    def post(self, path: str, form: str = "/", **fields: Any) -> httpx.Response:
        """A form, with the token of the page at `form`."""
        return self.http.post(path, data={"csrf": self.token(form), **fields})

    def token(self, page: str = "/") -> str:
        """The CSRF token of a page's first form."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get(page).text)
        assert found is not None, f"{page} has no form"
        return found.group(1)

    def sign_in(self, key: str, to: str = "/") -> httpx.Response:
        """With a key."""
        return self.post("/sign-in", "/sign-in", key=key, to=to)
