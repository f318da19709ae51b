"""Campaigns in the catalogue: begun, listed, looked into, stopped."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, func, insert, select, text, update

from cloud.campaigns.probes import direction, probe_from
from cloud.campaigns.signing import Signer
from cloud.errors import QueryError
from cloud.search.predicate import to_json
from cloud.search.query import Like, Query
from cloud.tables import CAMPAIGN_SCENES, CAMPAIGNS, SCENES
from edge.campaigns.probe import MAX_OFFER_BYTES, MAX_PROBES, MAX_SET_CONDITIONS, Condition, Probe, size
from edge.campaigns.wire import parse
from roadfuse.v1.campaign_pb2 import SignedProbe

MAX_NAME: Final = 64
MAX_DAYS: Final = 365.0
_SCENES_SHOWN: Final = 100
# Scenes that a threshold is learned from: the latest so many.
_SAMPLE: Final = 10_000
_LEAST_SAMPLE: Final = 50
_WITHOUT_SAMPLE: Final = 0.5
_SPENT: Final = (
    select(func.coalesce(func.sum(SCENES.c.bytes), 0))
    .join(CAMPAIGN_SCENES, CAMPAIGN_SCENES.c.scene_id == SCENES.c.id)
    .where(CAMPAIGN_SCENES.c.campaign == CAMPAIGNS.c.id, SCENES.c.received_at.is_not(None))
    .scalar_subquery()
)
_COUNT: Final = (
    select(func.count()).where(CAMPAIGN_SCENES.c.campaign == CAMPAIGNS.c.id).correlate(CAMPAIGNS).scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign and what came of it.

    Attributes:
        query: its predicate, what its vectors were made of, and its bounds, as JSON.
        matches: scenes that vehicles told of.
        spent_bytes: of those whose clips are here.
        state: active, spent, over or stopped.
    """

    id: str
    name: str
    query: dict[str, Any]
    budget_bytes: int
    created_at: datetime.datetime
    expires_at: datetime.datetime
    stopped_at: datetime.datetime | None
    matches: int
    spent_bytes: int
    state: str


def create(
    connection: Connection,
    signer: Signer,
    name: str,
    query: Query,
    *,
    budget_bytes: int,
    days: float,
    vehicle_budget_bytes: int | None = None,
    least_cosine: float | None = None,
    share: float = 0.01,
    weight: float = 1.0,
    condition: Condition | None = None,
    notes: Sequence[str] = (),
) -> Campaign:
    """Begin a campaign; vehicles hear of it with their next report.

    Args:
        budget_bytes: of clips, of all vehicles together.
        vehicle_budget_bytes: of each; None: all of it.
        least_cosine: None: so that this share of the scenes that were told of lately is near enough.
        condition: instead of all of the query's predicate.
        notes: for whoever looks into it.

    Raises:
        QueryError: it can't be looked for, or there are too many.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise QueryError(f"expected a name of 1 to {MAX_NAME} printable characters, got {name[:MAX_NAME]!r}")
    if not 0 < days <= MAX_DAYS:
        raise QueryError(f"expected up to {MAX_DAYS:g} days, got {days:g}")
    if least_cosine is None and query.likes:
        least_cosine = threshold(connection, query, share)
    now: datetime.datetime = connection.execute(select(func.now())).scalar_one()
    expires_at = now + datetime.timedelta(days=days)
    probe = probe_from(
        query,
        secrets.token_hex(8),
        name,
        least_cosine=least_cosine or 0.0,
        budget_bytes=budget_bytes,
        vehicle_budget_bytes=budget_bytes if vehicle_budget_bytes is None else vehicle_budget_bytes,
        not_before_ns=_ns(now) - 3_600_000_000_000,  # clocks of vehicles may be behind
        expires_ns=_ns(expires_at),
        weight=weight,
        condition=condition,
    )
    signed = signer.sign(probe)
    _check_room(connection, probe, signed)
    words = {
        "predicate": to_json(query.predicate),
        "likes": [{"said": like.said, "modality": like.modality, "weight": like.weight} for like in query.likes],
        "text": query.text,
        "space": probe.bundle_id,
        "least_cosine": probe.least_cosine,
        "vehicle_budget_bytes": probe.vehicle_budget_bytes,
        "weight": probe.weight,
        "notes": list(notes),
    }
    row = {"id": probe.campaign, "name": name, "query": words, "probe": signed, "budget_bytes": budget_bytes}
    connection.execute(insert(CAMPAIGNS).values(**row, created_at=now, expires_at=expires_at))
    return get(connection, probe.campaign)


def stop(connection: Connection, signer: Signer, campaign: str) -> Campaign:
    """End a campaign, for good; vehicles hear of it with their next report. Stopped already, nothing changes.

    Raises:
        QueryError: there is no such campaign.
    """
    found = get(connection, campaign, lock=True)
    if found.stopped_at is None:
        row = connection.execute(select(CAMPAIGNS.c.probe).where(CAMPAIGNS.c.id == found.id)).one()
        old = parse(SignedProbe.FromString(bytes(row.probe)).probe)
        word = Probe(
            campaign=old.campaign,
            name=old.name,
            revision=old.revision + 1,
            is_stopped=True,
            not_before_ns=old.not_before_ns,
            expires_ns=old.expires_ns,
        )
        connection.execute(
            update(CAMPAIGNS).where(CAMPAIGNS.c.id == found.id).values(stopped_at=func.now(), probe=signer.sign(word))
        )
    return get(connection, found.id)


def get(connection: Connection, campaign: str, *, lock: bool = False) -> Campaign:
    """A campaign by its id, or by its name if no other has it.

    Raises:
        QueryError: there is none, or several.
    """
    query = _listing().where((CAMPAIGNS.c.id == campaign) | (CAMPAIGNS.c.name == campaign))
    rows = connection.execute(query.with_for_update(of=CAMPAIGNS) if lock else query).all()
    rows = [row for row in rows if row.id == campaign] or rows
    if len(rows) != 1:
        raise QueryError(f"expected the id or the name of a campaign, got {campaign[:80]!r}, which {len(rows)} have")
    return _campaign(rows[0])


def listed(connection: Connection) -> list[Campaign]:
    """All campaigns, the latest first."""
    return [_campaign(row) for row in connection.execute(_listing().order_by(CAMPAIGNS.c.created_at.desc()))]


def scenes(connection: Connection, campaign: str) -> list[dict[str, Any]]:
    """What vehicles told of for a campaign, the nearest first: id, vehicle, sequence, score, bytes, received_at."""
    columns = (SCENES.c.id, SCENES.c.vehicle, SCENES.c.sequence, SCENES.c.bytes, SCENES.c.received_at)
    query = (
        select(*columns, CAMPAIGN_SCENES.c.score)
        .join(CAMPAIGN_SCENES, CAMPAIGN_SCENES.c.scene_id == SCENES.c.id)
        .where(CAMPAIGN_SCENES.c.campaign == campaign)
        .order_by(CAMPAIGN_SCENES.c.score.desc(), SCENES.c.id)
        .limit(_SCENES_SHOWN)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def threshold(connection: Connection, query: Query, share: float) -> float:
    """The cosine that this share of the latest scenes reaches; a guess where there are few.

    Raises:
        QueryError: a share that is none, or vectors that can't be joined.
    """
    if not 0.0 < share <= 1.0:
        raise QueryError(f"expected a share above 0 and up to 1, got {share:g}")
    signed, space = direction(query.likes)
    rows = connection.execute(
        select(SCENES.c.embedding)
        .where(SCENES.c.bundle_id == space, SCENES.c.embedding.is_not(None))
        .order_by(SCENES.c.id.desc())
        .limit(_SAMPLE)
    ).scalars()
    vectors = [vector for vector in rows if len(vector) == len(signed)]
    if len(vectors) < _LEAST_SAMPLE:
        return _WITHOUT_SAMPLE
    told = np.frombuffer(b"".join(vectors), np.int8).reshape(len(vectors), -1).astype(np.float32)
    wanted = np.frombuffer(signed, np.int8).astype(np.float32)
    cosines = told @ wanted / (np.linalg.norm(told, axis=1) * np.linalg.norm(wanted)).clip(1e-9)
    return float(np.quantile(cosines, 1.0 - share))


def like_scene(connection: Connection, scene_id: int) -> Like:
    """Nearness to a scene, as its vehicle told of it.

    Raises:
        QueryError: there is no such scene, or it has no embedding.
    """
    row = None
    if 0 < scene_id < 1 << 63:
        row = connection.execute(
            select(SCENES.c.embedding, SCENES.c.bundle_id).where(SCENES.c.id == scene_id)
        ).one_or_none()
    if row is None or not row.embedding:
        raise QueryError(f"expected a scene with an embedding, got {scene_id}")
    values = np.frombuffer(row.embedding, np.int8).astype(np.float32)
    unit = values / max(float(np.linalg.norm(values)), 1e-9)
    return Like(unit.astype("<f4").tobytes(), row.bundle_id, "scene", said=f"scene {scene_id}")


def _check_room(connection: Connection, probe: Probe, signed: bytes) -> None:
    """Vehicles take so many at once."""
    going_on = CAMPAIGNS.c.expires_at > func.now(), CAMPAIGNS.c.stopped_at.is_(None)
    connection.execute(text("LOCK TABLE campaigns IN SHARE ROW EXCLUSIVE MODE"))
    others = [bytes(row) for row in connection.execute(select(CAMPAIGNS.c.probe).where(*going_on)).scalars()]
    conditions = sum(size(parse(SignedProbe.FromString(other).probe).condition) for other in others)
    if len(others) >= MAX_PROBES or sum(map(len, others)) + len(signed) + 8 * len(others) > MAX_OFFER_BYTES:
        raise QueryError(f"expected fewer than {MAX_PROBES} campaigns at a time, got one more: stop some")
    if conditions + size(probe.condition) > MAX_SET_CONDITIONS:
        raise QueryError(f"expected at most {MAX_SET_CONDITIONS} conditions of all campaigns, got more: stop some")


def _listing() -> Any:
    return select(CAMPAIGNS, _COUNT.label("matches"), _SPENT.label("spent_bytes"), func.now().label("now"))


def _campaign(row: Any) -> Campaign:
    state = "active"
    if row.stopped_at is not None:
        state = "stopped"
    elif row.expires_at <= row.now:
        state = "over"
    elif row.spent_bytes >= row.budget_bytes:
        state = "spent"
    return Campaign(
        row.id, row.name, row.query, row.budget_bytes, row.created_at, row.expires_at, row.stopped_at, row.matches,
        int(row.spent_bytes), state,
    )  # fmt: skip


def _ns(instant: datetime.datetime) -> int:
    return int(instant.timestamp() * 1e6) * 1_000
