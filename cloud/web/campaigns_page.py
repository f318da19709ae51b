"""`/campaigns`: what vehicles are asked to look for, and what came of it."""

from __future__ import annotations

import datetime
import json
from typing import Any, Final

from sqlalchemy import Connection, func, select
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloud.tables import CAMPAIGN_SCENES, CAMPAIGNS, SCENES
from cloud.web import scenes
from cloud.web.visit import Visit

_SHOWN: Final = 200
_SCENES: Final = 24


def campaigns(visit: Visit) -> Response:
    """All of them, newest first."""
    with visit.site.engine.connect() as connection:
        return visit.page("campaigns.html", campaigns=_listed(connection), now=_now())


def campaign(visit: Visit) -> Response:
    """One, with the scenes that it brought."""
    name = str(visit.request.path_params["campaign"])
    with visit.site.engine.connect() as connection:
        found = _listed(connection, name)
        if not found:
            raise HTTPException(404, "There is no such campaign.")
        ids = connection.execute(
            select(CAMPAIGN_SCENES.c.scene_id)
            .where(CAMPAIGN_SCENES.c.campaign == name)
            .order_by(CAMPAIGN_SCENES.c.score.desc())
            .limit(_SCENES)
        ).scalars()
        brought = scenes.several(connection, list(ids))
    query = json.dumps(found[0]["query"], indent=2, ensure_ascii=False)
    return visit.page("campaign.html", campaign=found[0], query=query, scenes=brought, now=_now())


def _listed(connection: Connection, name: str | None = None) -> list[dict[str, Any]]:
    """Campaigns with how many scenes they matched, how many clips of them came, and their bytes."""
    is_here = SCENES.c.received_at.is_not(None)
    found = (
        select(
            CAMPAIGN_SCENES.c.campaign,
            func.count().label("matched"),
            func.count().filter(is_here).label("came"),
            func.coalesce(func.sum(SCENES.c.bytes).filter(is_here), 0).label("spent"),
        )
        .join(SCENES, SCENES.c.id == CAMPAIGN_SCENES.c.scene_id)
        .group_by(CAMPAIGN_SCENES.c.campaign)
        .subquery()
    )
    columns = [column for column in CAMPAIGNS.c if column.name != "probe"]
    query = (
        select(*columns, *(func.coalesce(found.c[name], 0).label(name) for name in ("matched", "came", "spent")))
        .outerjoin(found, found.c.campaign == CAMPAIGNS.c.id)
        .order_by(CAMPAIGNS.c.created_at.desc())
        .limit(_SHOWN)
    )
    if name is not None:
        query = query.where(CAMPAIGNS.c.id == name)
    return [dict(row) for row in connection.execute(query).mappings()]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
