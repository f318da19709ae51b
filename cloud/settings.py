"""Where the cloud keeps things and where its parts listen: what every part is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cloud.limits import Limits


@dataclass(frozen=True, slots=True)
class Settings:
    """What one process of the cloud is told.

    Attributes:
        data: the cloud's folder: `ca/`, `staging/`, `metrics.json`, and by default `postgres/` and `objects/`.
        database: URL of a PostgreSQL; None: embedded.
        objects: folder or URL; None: `objects/` within `data`.
        host: address that ingest and enrolment listen at; both speak TLS.
        port: of Ingest; 0 takes a free one, as everywhere here.
        enrol_port: of Enrolment.
        limits: what one vehicle may ask.
        inner_host: address that search, encoders, web pages and metrics listen at: within the cloud, for all but search
            speak plain text.
        search_ports: of Search and Embed, a process each, which all answer the same.
        web_port: of the pages.
        metrics_port: of this process's /metrics.
        embed_port: of encoders that run in a process of their own.
        encoders: which of them that process runs; none: all.
        cache_redis: URL of a Redis that keeps embeddings for several servers; None: each has its own cache alone.
        broker: HOST:PORT of the MQTT broker; None: there is none, and vehicles are told nothing but when they call.
        broker_plain: it is on this machine and speaks plain text, without certificates.
        log_hours: what vehicles said to a rollout stays in the database for so long before it becomes an object: for a
            look by SQL at what just happened; of 10,000 vehicles that all drive it is some 10 MB an hour.
        log_days: after a rollout's end, until what vehicles said to it is let go of; None: never, for without it nobody
            can replay the rollout.
    """

    data: Path
    database: str | None = None
    objects: str | None = None
    host: str = "127.0.0.1"
    port: int = 7443
    enrol_port: int = 7444
    limits: Limits = field(default_factory=Limits)
    inner_host: str = "127.0.0.1"
    search_ports: tuple[int, ...] = (7445,)
    web_port: int = 7446
    metrics_port: int = 7447
    embed_port: int = 7448
    encoders: tuple[str, ...] = ()
    cache_redis: str | None = None
    broker: str | None = None
    broker_plain: bool = False
    log_hours: float = 6.0
    log_days: float | None = None

    @property
    def objects_place(self) -> str:
        """Where clips are kept: what `Objects` is made with."""
        return self.objects or str(self.data / "objects")
