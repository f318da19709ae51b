"""`/`: all scenes, newest first; and the word by which a person asks for a clip that is still on board."""

from __future__ import annotations

from dataclasses import fields
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloud.labels import LABELS
from cloud.web import clips, scenes, words
from cloud.web.filters import Filters
from cloud.web.visit import Visit, local

# Beyond, a page says "and more": nobody reads the figure, and counting a million rows takes a while.
COUNTED = 10_000


def gallery(visit: Visit) -> Response:
    """A page of scenes."""
    filters = Filters.of(visit.words)
    cursor = visit.words.get("cursor", "")
    with visit.site.engine.connect() as connection:
        found, following = scenes.page(connection, filters, cursor)
        total = scenes.count(connection, filters, COUNTED + 1)
        vehicles = scenes.vehicles(connection)
    kept = {
        field.name: str(value) for field in fields(filters) if (value := getattr(filters, field.name)) not in ("", None)
    }
    query = visit.request.url.query
    return visit.page(
        "gallery.html",
        scenes=found,
        total=min(total, COUNTED),
        is_more=total > COUNTED,
        filters=filters,
        is_filtered=bool(kept),
        is_known=filters.label in LABELS,
        vehicles=vehicles,
        choices=words.choices(),
        cursor=cursor,
        next=f"/?{urlencode({**kept, 'cursor': following})}" if following else "",
        newest=f"/?{urlencode(kept)}",
        here=f"/?{query}" if query else "/",
    )


def want(visit: Visit) -> Response:
    """Ask for a clip."""
    scene_id = visit.number("scene")
    with visit.site.engine.connect() as connection:
        scene = scenes.one(connection, scene_id)
    if scene is None:
        raise HTTPException(404, "There is no such scene.")
    if scene.state == "held":
        visit.site.catalogue.want(scene.vehicle, scene.outbox, scene.sequence)
    return visit.back(local(visit.words.get("back", "")) or f"/scenes/{scene_id}")


def thumb(visit: Visit) -> Response:
    """The frame at the peak, small."""
    scene, key = with_clip(visit)
    return picture(visit, key, visit.site.clips.thumb(key, scene.peak_ns))


def with_clip(visit: Visit) -> tuple[scenes.Clip, str]:
    """The scene of the path, and where its clip is; 404 where it is not here."""
    with visit.site.engine.connect() as connection:
        clip = scenes.clip(connection, visit.number("scene"))
    if clip is None:
        raise HTTPException(404, "There is no such scene.")
    if clip.object_key is None:
        raise HTTPException(404, f"The clip of scene {clip.id} is not here.")
    return clip, clip.object_key


def picture(visit: Visit, object_key: str, jpeg: bytes) -> Response:
    """A picture of a clip."""
    return Response(jpeg, media_type="image/jpeg", headers=kept(visit, object_key))


def kept(visit: Visit, object_key: str) -> dict[str, str]:
    """For a browser: clips never change, but the number of a scene may come to mean another one."""
    names_clip = visit.words.get("v") == clips.version(object_key)
    return {"Cache-Control": "private, max-age=86400, immutable" if names_clip else "no-cache"}
