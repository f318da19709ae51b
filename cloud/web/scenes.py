"""Scenes as pages need them, out of the catalogue: a page of the gallery, or one with what the analyst made of it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, select

from cloud.labels import LABELS, of_sound, of_tag
from cloud.tables import ANALYSES, FACTS, MOMENTS, SCENES, VEHICLES
from cloud.web import clips
from cloud.web.filters import LIKELY, STATES, Filters, behind, conditions, cursor_of

PAGE: Final = 24
_MAX_VEHICLES: Final = 2_000
_MAX_MOMENTS: Final = 4_000
_STANDING: Final = ("place:", "light:", "weather:", "vehicles:", "large:", "tag:")


@dataclass(frozen=True, slots=True)
class Scene:
    """A row of the gallery.

    Attributes:
        labels: label and probability, likely ones, surest first; of the analyst where it looked, else as told.
        state: of the clip: here, held, evicted or lost.
        report: of the analysis; {} without one.
    """

    id: int
    vehicle: str
    outbox: bytes
    sequence: int
    first_ns: int
    last_ns: int
    peak_ns: int
    recorded_at: datetime.datetime | None
    told_at: datetime.datetime
    hardness: float
    scores: list[dict[str, Any]]
    labels: list[tuple[str, float]]
    state: str
    wanted: bool
    reason: str
    bytes: int
    latitude_deg: float | None
    longitude_deg: float | None
    bundle_id: str
    lane_probability: float
    object_key: str | None
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """From the first hard frame to the last."""
        return (self.last_ns - self.first_ns) / 1e9

    @property
    def whys(self) -> list[tuple[str, float]]:
        """What made it hard: score and its part, largest first."""
        parts = [(str(score["name"]), float(score["value"]) * float(score["weight"])) for score in self.scores]
        return sorted((part for part in parts if part[1] >= 0.005), key=lambda part: -part[1])

    @property
    def caption(self) -> str:
        """One sentence of the analyst; "" without one."""
        return caption_of(self.report)

    @property
    def version(self) -> str:
        """Of its clip, in addresses of what is made of it; "" while it is not here."""
        return clips.version(self.object_key) if self.object_key is not None else ""


@dataclass(frozen=True, slots=True)
class Clip:
    """Where a scene's clip is; `object_key` is None while it is not here."""

    id: int
    vehicle: str
    sequence: int
    peak_ns: int
    object_key: str | None


def page(connection: Connection, filters: Filters, cursor: str) -> tuple[list[Scene], str]:
    """A page of scenes, newest first, and the cursor of the next; "" behind the last.

    Raises:
        QueryError: a cursor that is none.
    """
    wanted = [*conditions(filters), *behind(cursor)]
    order = (SCENES.c.recorded_at.desc().nulls_last(), SCENES.c.id.desc())
    rows = connection.execute(select(SCENES).where(*wanted).order_by(*order).limit(PAGE + 1)).mappings().all()
    reports = _reports(connection, [row["id"] for row in rows])
    scenes = [_scene(row, reports.get(row["id"], {})) for row in rows]
    if len(scenes) <= PAGE:
        return scenes, ""
    last = scenes[PAGE - 1]
    return scenes[:PAGE], cursor_of(last.recorded_at, last.id)


def count(connection: Connection, filters: Filters, most: int) -> int:
    """How many scenes the filters leave, counted up to `most`."""
    left = select(SCENES.c.id).where(*conditions(filters)).limit(most).subquery()
    return int(connection.execute(select(func.count()).select_from(left)).scalar_one())


def one(connection: Connection, scene_id: int) -> Scene | None:
    """A scene; None where there is none."""
    return next(iter(several(connection, [scene_id])), None)


def several(connection: Connection, scene_ids: list[int]) -> list[Scene]:
    """Scenes in the order of their ids as given; those that are none are left out."""
    rows = connection.execute(select(SCENES).where(SCENES.c.id.in_(scene_ids))).mappings().all()
    reports = _reports(connection, scene_ids)
    found = {row["id"]: _scene(row, reports.get(row["id"], {})) for row in rows}
    return [found[scene_id] for scene_id in scene_ids if scene_id in found]


def clip(connection: Connection, scene_id: int) -> Clip | None:
    """Where a scene's clip is; None where there is no such scene."""
    columns = (SCENES.c.id, SCENES.c.vehicle, SCENES.c.sequence, SCENES.c.peak_ns, SCENES.c.object_key)
    row = connection.execute(select(*columns).where(SCENES.c.id == scene_id)).one_or_none()
    return Clip(*row) if row is not None else None


def report(connection: Connection, scene_id: int) -> dict[str, Any]:
    """The report on a scene; {} without one."""
    return _reports(connection, [scene_id]).get(scene_id, {})


def moments(connection: Connection, scene_id: int) -> list[tuple[int, dict[str, float]]]:
    """Instants and their labels, of the newest analysis that has some."""
    newest = (
        select(ANALYSES.c.model).where(ANALYSES.c.scene_id == scene_id).order_by(*_best()).limit(1).scalar_subquery()
    )
    rows = connection.execute(
        select(MOMENTS.c.instant_ns, MOMENTS.c.labels)
        .where(MOMENTS.c.scene_id == scene_id, MOMENTS.c.model == newest)
        .order_by(MOMENTS.c.instant_ns)
        .limit(_MAX_MOMENTS)
    )
    return [(row.instant_ns, _probabilities(row.labels)) for row in rows]


def vehicles(connection: Connection) -> list[str]:
    """Names of all vehicles."""
    return list(connection.execute(select(VEHICLES.c.name).order_by(VEHICLES.c.name).limit(_MAX_VEHICLES)).scalars())


def caption_of(report: dict[str, Any]) -> str:
    """The sentence of a report, in English where it has several."""
    said = report.get("caption", "")
    if isinstance(said, dict):
        said = said.get("text") or said.get("en") or next(iter(said.values()), "")
    return said if isinstance(said, str) else ""


def rank(pair: tuple[str, float]) -> tuple[int, float]:
    """For sorting labels with their shares: what is rare before what is always so."""
    dull = ("light:day", "weather:clear", "action:cruise", "vehicles:none", "vehicles:one", "large:car", "tag:sign")
    heard = pair[0].startswith(("sound:", "emergency:", "intent:"))
    return (2 if pair[0] in dull else 0 if heard else 1, -pair[1])


def _reports(connection: Connection, scene_ids: list[int]) -> dict[int, dict[str, Any]]:
    """The report on each scene: of the model that is searched, else the newest."""
    rows = connection.execute(
        select(ANALYSES.c.scene_id, ANALYSES.c.report)
        .distinct(ANALYSES.c.scene_id)
        .where(ANALYSES.c.scene_id.in_(scene_ids))
        .order_by(ANALYSES.c.scene_id, *_best())
    )
    return {row.scene_id: row.report for row in rows if isinstance(row.report, dict)}


def _best() -> tuple[ColumnElement[Any], ...]:
    searched = select(FACTS.c.value["model"].astext).where(FACTS.c.name == "searched").scalar_subquery()
    return (func.coalesce(ANALYSES.c.model == searched, False).desc(), ANALYSES.c.made_at.desc())


def _scene(row: Any, report: dict[str, Any]) -> Scene:
    told = [(of_tag(tag["name"]), float(tag["probability"])) for tag in row["scene_tags"]]
    told += [(of_sound(tag["name"]), float(tag["probability"])) for tag in row["sound_events"]]
    likely = sorted((pair for pair in _known(told, report).items() if pair[1] >= LIKELY), key=rank)
    return Scene(
        **{name: row[name] for name in ("id", "vehicle", "sequence", "first_ns", "last_ns", "peak_ns", "recorded_at")},
        **{name: row[name] for name in ("told_at", "hardness", "scores", "wanted", "reason", "bytes", "latitude_deg")},
        **{name: row[name] for name in ("longitude_deg", "bundle_id", "lane_probability", "object_key")},
        outbox=bytes(row["outbox"]),
        labels=likely,
        state="here" if row["received_at"] is not None else STATES.get(row["media"], "held"),
        report=report,
    )


def _known(told: list[tuple[str, float]], report: dict[str, Any]) -> dict[str, float]:
    """Labels of a scene: the analyst's where it looked; what it does not know, as the vehicle told."""
    most, mean = _probabilities(report.get("labels")), _probabilities(report.get("mean"))
    if not most:
        return dict(told)
    kept = {label: p for label, p in told if label not in LABELS}
    # What holds for a while, such as rain, by its mean; what happens, such as a siren, by its highest moment.
    return kept | {label: mean.get(label, p) if label.startswith(_STANDING) else p for label, p in most.items()}


def _probabilities(labels: Any) -> dict[str, float]:
    if not isinstance(labels, dict):
        return {}
    return {str(name): float(value) for name, value in labels.items() if isinstance(value, int | float)}
