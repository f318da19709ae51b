"""Clips of simulated drives as a vehicle would send them, and their scenes in a catalogue."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from cloud.catalogue import Catalogue
from cloud.limits import Limits
from cloud.objects import Objects, clip_key
from cloud.report import checked
from cloud.tables import JOBS, SCENES, VEHICLES
from edge.uplink.outbox import Outbox
from roadfuse.v1.ingest_pb2 import ReportRequest, SceneSummary


@dataclass(frozen=True)
class Scene:
    """A hard scene in a spool: its clip, and what is told of it."""

    clip: Path
    summary: SceneSummary


def recorded(folder: Path, *, seconds: float = 4.0, seed: int = 7, scenario: str = "demo") -> Scene:
    """The first hard scene of a simulated drive, by real commands."""
    drive, spool = folder / "drive.mcap", folder / "spool"
    for words in (
        ("simulate", "--scenario", scenario, "--seed", seed, "--seconds", seconds, "--out", drive, "--json"),
        ("replay", drive, "--spool", spool, "--json"),
    ):
        argv = [sys.executable, "-m", "edge.command", *map(str, words)]
        subprocess.run(argv, check=True, capture_output=True, timeout=120)
    with Outbox(spool) as outbox:
        summaries, _ = outbox.to_tell(1)
        return Scene(outbox.path(summaries[0].sequence), summaries[0])


def received(engine: Engine, objects: Objects, scene: Scene, vehicle: str) -> tuple[int, int]:
    """Put a scene and its clip where ingest puts them; gives the ids of the scene and of its job."""
    outbox, sequence = os.urandom(16), scene.summary.sequence
    catalogue = Catalogue(engine, Limits())
    with engine.begin() as connection:
        connection.execute(VEHICLES.insert().values(name=vehicle))
    request = ReportRequest(outbox=outbox, last_sequence=sequence, scenes=[scene.summary])
    catalogue.report(vehicle, checked(request, Limits()))
    key = clip_key(vehicle, outbox, sequence, scene.summary.sha256)
    objects.put(key, scene.clip)
    catalogue.receive(vehicle, outbox, sequence, scene.summary.sha256, key)
    with engine.connect() as connection:
        id = connection.execute(select(SCENES.c.id).where(SCENES.c.vehicle == vehicle)).scalar_one()
        job = connection.execute(select(JOBS.c.id).where(JOBS.c.subject == str(id), JOBS.c.kind == "analyse"))
        return int(id), int(job.scalar_one())
