"""`/campaigns`: what vehicles are asked to look for, and what came of it; begun from a question, and stopped."""

from __future__ import annotations

import json
import math
import time
from typing import Any, Final

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloud.campaigns import book, signing
from cloud.campaigns.probes import known_part
from cloud.embed.encoders import Encoders
from cloud.errors import CloudError, QueryError
from cloud.search.predicate import ANY, Predicate, from_json
from cloud.search.query import Like, Query
from cloud.search.understand import understand
from cloud.web import scenes
from cloud.web.search_page import ids
from cloud.web.spoken import spoken
from cloud.web.visit import Visit

_SCENES: Final = 24


def campaigns(visit: Visit) -> Response:
    """All of them, newest first."""
    with visit.site.engine.connect() as connection:
        return visit.page("campaigns.html", campaigns=book.listed(connection), asked=_asked)


def campaign(visit: Visit) -> Response:
    """One, with the scenes that it brought."""
    with visit.site.engine.connect() as connection:
        found = _found(connection, visit)
        ids = [row["id"] for row in book.scenes(connection, found.id)][:_SCENES]
        brought = scenes.several(connection, ids)
    query = json.dumps(found.query, indent=2, ensure_ascii=False)
    return visit.page("campaign.html", campaign=found, query=query, asked=_asked(found), scenes=brought)


def begin(visit: Visit) -> Response:
    """Make a campaign of a question."""
    words = visit.words
    query, notes, condition = _query(visit)
    budget_bytes = round(_number("budget", words.get("budget_mb", ""), 1e6) * 1e6)
    days = _number("days", words.get("days", ""), book.MAX_DAYS)
    share = _number("share", words.get("share") or "1", 100.0) / 100.0
    with visit.site.engine.begin() as connection:
        made = book.create(
            connection,
            signing.load(visit.site.ca),
            words.get("name", "").strip(),
            query,
            budget_bytes=budget_bytes,
            days=days,
            share=share,
            condition=condition,
            notes=notes,
        )
    return visit.back(f"/campaigns/{made.id}")


def stop(visit: Visit) -> Response:
    """End a campaign, for good."""
    with visit.site.engine.begin() as connection:
        found = book.stop(connection, signing.load(visit.site.ca), _found(connection, visit).id)
    return visit.back(f"/campaigns/{found.id}")


def _found(connection: Connection, visit: Visit) -> book.Campaign:
    """The campaign of the path, or 404."""
    name = str(visit.request.path_params["campaign"])
    try:
        return book.get(connection, name if name.isprintable() else "")
    except QueryError:
        raise HTTPException(404, "There is no such campaign.") from None


def _query(visit: Visit) -> tuple[Query, list[str], Any]:
    """What is looked for: conditions that a vehicle can check, and nearness for the rest."""
    text, tree = visit.words.get("q", "").strip(), visit.words.get("tree", "").strip()
    predicate: Predicate = ANY
    if tree:
        try:
            predicate = from_json(json.loads(tree))
        except (ValueError, RecursionError):
            raise QueryError("expected conditions as JSON, got something else") from None
    were_taken_away = bool(tree) and predicate == ANY  # the conditions: the words alone are asked, as by search
    understood = understand(text, time.time()) if text and not were_taken_away else None
    if understood is not None and not tree:
        predicate = understood.predicate
    condition, unknown = known_part(predicate, understood.predicate if understood else ANY)
    notes, likes = [], []
    if unknown:
        notes.append(f"vehicles do not tell of {', '.join(unknown)}: nearness to the words stands for it")
    if text and (unknown or were_taken_away):
        likes.append(_like_text(text))
    elif understood is not None and understood.residual:
        likes.append(_like_text(understood.to_embed))
    liked = dict.fromkeys((*ids(visit.words.get("scene", ""))[:1], *ids(visit.words.get("liked", ""))))
    with visit.site.engine.connect() as connection:
        likes += [book.like_scene(connection, scene_id) for scene_id in liked]
    if predicate == ANY and not likes:
        raise QueryError("expected a question to look for, got none")
    return Query(predicate, tuple(likes), text), notes, condition


def _like_text(text: str) -> Like:
    """The words in the shared space; the encoder of words alone is small, and is let go again."""
    (vector,) = Encoders(only=("text",)).encode("text", [text.encode()])
    if isinstance(vector, CloudError):
        raise QueryError(str(vector))
    return Like(vector.values, vector.space, "text", said=text)


def _asked(campaign: book.Campaign) -> str:
    """What a campaign looks for, in words."""
    parts = []
    try:
        predicate = from_json(campaign.query.get("predicate", {"and": []}))
        parts += [spoken(predicate)] if predicate != ANY else []
    except QueryError:
        parts.append("conditions of another version")
    likes = campaign.query.get("likes", [])
    parts += [f"like {like.get('said') or like.get('modality')}" for like in likes if isinstance(like, dict)]
    return "; ".join(parts) or "anything"


def _number(name: str, value: str, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= most:
        raise QueryError(f"expected {name} above 0 and up to {most:g}, got {value[:40]!r}")
    return number
