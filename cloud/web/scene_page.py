"""`/scenes/ID`: one scene with its pictures, its sound, what was decided over time and what the analyst made of it."""

from __future__ import annotations

import re
from typing import Any, Final

from markupsafe import Markup
from sqlalchemy import select
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from cloud.analyst import subtitles as vtt
from cloud.errors import QueryError
from cloud.tables import JOBS
from cloud.web import drawing, scenes
from cloud.web.clips import STRIP_WIDTH_PX, THUMB_WIDTH_PX, ClipError, Clips, Reel
from cloud.web.gallery_page import kept, picture, with_clip
from cloud.web.report import events_of, report_of
from cloud.web.searching import Question, SearchAway
from cloud.web.visit import Visit

# Of subtitles.
LANGUAGES: Final = {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français"}
# Pictures of the strip a second; a long clip has fewer, so that there are no more than so many.
STRIP_HZ: Final = 3.0
STRIP_PICTURES: Final = 90
SIMILAR: Final = 6
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def scene(visit: Visit) -> Response:
    """The page."""
    scene_id = visit.number("scene")
    with visit.site.engine.connect() as connection:
        shown = scenes.one(connection, scene_id)
        if shown is None:
            raise HTTPException(404, "There is no such scene.")
        moments = scenes.moments(connection, scene_id)
        job = _job(connection, scene_id)
    reel, problem = None, ""
    if shown.object_key is not None:
        try:
            reel = visit.site.clips.reel(shown.object_key)
        except ClipError as error:
            problem = str(error)
    similar, note = _similar(visit, shown)
    content: dict[str, Any] = {}
    if reel is not None:
        content = _of_clip(visit, shown, reel, moments)
    return visit.page(
        "scene.html",
        scene=shown,
        reel=reel,
        problem=problem,
        job=job,
        is_fresh=False,
        scene_id=scene_id,
        languages=LANGUAGES if moments else {},
        report=report_of(shown.report),
        similar=similar,
        similar_note=note,
        way=content.pop("way", None),
        **{"groups": [], "strip": [], "wave": None, "at": 0.0, "frame": 0, "place": "0%", "boxes": [], **content},
    )


def progress(visit: Visit) -> Response:
    """The part of the page that says how far the analysis is."""
    scene_id = visit.number("scene")
    with visit.site.engine.connect() as connection:
        job = _job(connection, scene_id)
    return visit.page("progress.html", job=job, is_fresh=True, scene_id=scene_id)


def reel(visit: Visit) -> Response:
    """What the player needs: seconds and boxes of each frame, and the hardness over time."""
    _, key = with_clip(visit)
    clip = visit.site.clips.reel(key)
    history = clip.history
    return JSONResponse(
        {
            "duration": round(clip.duration_s, 3),
            "frames": [round(clip.seconds(int(stamp)), 3) for stamp in clip.stamps_ns],
            "boxes": {
                str(number): [_box(found) for found in clip.boxes[int(stamp)]]
                for number, stamp in enumerate(clip.stamps_ns)
                if int(stamp) in clip.boxes
            },
            "decided": [round(clip.seconds(int(stamp)), 3) for stamp in history.stamps_ns] if history else [],
            "hardness": [round(float(value), 3) for value in history.hardness] if history else [],
        },
        headers=kept(visit, key),
    )


def frame(visit: Visit) -> Response:
    """A camera frame as recorded, or small for the strip."""
    _, key = with_clip(visit)
    number = visit.number("number")
    if visit.words.get("size") == "strip":
        return picture(visit, key, visit.site.clips.small_frame(key, number, STRIP_WIDTH_PX))
    return picture(visit, key, visit.site.clips.frame(key, number))


def moment(visit: Visit) -> Response:
    """The frame nearest to an instant, small: what an answer of search shows."""
    _, key = with_clip(visit)
    clip = visit.site.clips.reel(key)
    number = clip.frame_at(min(visit.number("instant"), (1 << 62)))
    return picture(visit, key, visit.site.clips.small_frame(key, number, THUMB_WIDTH_PX))


def sound_file(visit: Visit) -> Response:
    """The clip's sound, as WAV; browsers ask for parts of it."""
    _, key = with_clip(visit)
    return FileResponse(visit.site.clips.sound_file(key), media_type="audio/wav", headers=kept(visit, key))


def subtitles(visit: Visit) -> Response:
    """What is seen and heard as a subtitle track, WebVTT, in one of four languages."""
    shown, key = with_clip(visit)
    clip = visit.site.clips.reel(key)
    with visit.site.engine.connect() as connection:
        moments = scenes.moments(connection, shown.id)
        report = scenes.report(connection, shown.id)
    if not moments:
        raise HTTPException(404, "The analyst did not look at this scene yet.")
    by_time = [(max(clip.seconds(instant_ns), 0.0), labels) for instant_ns, labels in moments]
    language = visit.words.get("language", "en")
    track = vtt.subtitles(by_time, events_of(report), clip.duration_s, language)
    return Response(track, media_type="text/vtt", headers={"Cache-Control": "private, max-age=60"})


def clip(visit: Visit) -> Response:
    """The clip itself, for Foxglove, Rerun or `roadfuse report`."""
    shown, key = with_clip(visit)
    name = f"{re.sub('[^A-Za-z0-9._-]', '_', shown.vehicle)}-{shown.sequence}.mcap"
    return FileResponse(
        visit.site.clips.path(key), media_type="application/octet-stream", filename=name, headers=kept(visit, key)
    )


def bare(visit: Visit) -> Response:
    """`/scenes` is the gallery."""
    return RedirectResponse("/", 303)


def _of_clip(
    visit: Visit, shown: scenes.Scene, clip: Reel, moments: list[tuple[int, dict[str, float]]]
) -> dict[str, Any]:
    clips, key = visit.site.clips, shown.object_key or ""
    at_ns = _instant(visit, shown, clip)
    number = clip.frame_at(at_ns)
    stamp_ns = int(clip.stamps_ns[number]) if len(clip.stamps_ns) else at_ns
    return {
        "groups": drawing.timeline(clip, shown, moments),
        "strip": _strip(clip, number),
        "wave": _wave(clips, key, clip),
        "way": drawing.way(clip, shown),
        "at": clip.seconds(at_ns),
        "place": drawing.percent(clip, at_ns),
        "frame": number,
        "boxes": [_box(found) for found in clip.boxes.get(stamp_ns, [])],
    }


def _instant(visit: Visit, shown: scenes.Scene, clip: Reel) -> int:
    """The instant that is asked for: `at` in ns of the vehicle's clock, or `t` in seconds; else the peak."""
    at, t = visit.words.get("at", ""), visit.words.get("t", "")
    instant = shown.peak_ns
    if _NUMBER.fullmatch(at):
        instant = int(at)
    elif re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", t):
        instant = clip.first_ns + round(float(t) * 1e9)
    return min(max(instant, clip.first_ns), clip.first_ns + round(clip.duration_s * 1e9))


def _strip(clip: Reel, current: int) -> list[dict[str, Any]]:
    count = min(max(int(clip.duration_s * STRIP_HZ), 1), STRIP_PICTURES)
    wanted = [clip.frame_at(clip.first_ns + round((i + 0.5) * clip.duration_s / count * 1e9)) for i in range(count)]
    numbers = sorted(set(wanted)) if len(clip.stamps_ns) else []
    nearest = min(numbers, key=lambda number: abs(number - current), default=0)
    return [
        {"number": number, "t": clip.seconds(int(clip.stamps_ns[number])), "is_current": number == nearest}
        for number in numbers
    ]


def _wave(clips: Clips, key: str, clip: Reel) -> Markup | None:
    if clip.sound_ns is None:
        return None
    try:
        return Markup(clips.outline(key, drawing.waveform))
    except ClipError:
        return None


def _box(found: Any) -> list[Any]:
    return [
        (found.kind if found.kind and found.name != "pedestrian" else found.name).replace("_", " "),
        found.name,
        *(round(float(side), 1) for side in (found.left_px, found.top_px, found.width_px, found.height_px)),
        round(float(found.probability), 2),
    ]


def _similar(visit: Visit, shown: scenes.Scene) -> tuple[list[scenes.Scene], str]:
    try:
        found = visit.site.searching.ask(Question(scene_id=shown.id, limit=SIMILAR + 1))
    except (SearchAway, QueryError) as error:
        return [], str(error)
    ids = [answer.scene_id for answer in found.answers if answer.scene_id != shown.id][:SIMILAR]
    with visit.site.engine.connect() as connection:
        return scenes.several(connection, ids), ""


def _job(connection: Any, scene_id: int) -> Any:
    query = select(JOBS).where(JOBS.c.kind == "analyse", JOBS.c.subject == str(scene_id))
    return connection.execute(query).mappings().one_or_none()
