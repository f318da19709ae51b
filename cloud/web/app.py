"""Which page answers which address."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from cloud.database import reach
from cloud.web import (
    campaigns_page,
    fleet_page,
    gallery_page,
    jobs_page,
    rollouts_page,
    scene_page,
    search_page,
    sign_in_page,
    stream_page,
)
from cloud.web.site import STATIC, Headers, Site
from cloud.web.visit import Page, endpoint, turned_down

_PAGES: dict[str, Page] = {
    "/": gallery_page.gallery,
    "/scenes": scene_page.bare,
    "/scenes/{scene}": scene_page.scene,
    "/scenes/{scene}/thumb.jpg": gallery_page.thumb,
    "/scenes/{scene}/at/{instant}.jpg": scene_page.moment,
    "/scenes/{scene}/frames/{number}.jpg": scene_page.frame,
    "/scenes/{scene}/reel.json": scene_page.reel,
    "/scenes/{scene}/sound.wav": scene_page.sound_file,
    "/scenes/{scene}/subtitles.vtt": scene_page.subtitles,
    "/scenes/{scene}/clip.mcap": scene_page.clip,
    "/scenes/{scene}/progress": scene_page.progress,
    "/search": search_page.search,
    "/search/image-{digest}": search_page.upload,
    "/fleet": fleet_page.fleet,
    "/jobs": jobs_page.jobs,
    "/jobs/table": jobs_page.table,
    "/jobs/events": stream_page.jobs,
    "/campaigns": campaigns_page.campaigns,
    "/campaigns/{campaign}": campaigns_page.campaign,
    "/rollouts": rollouts_page.rollouts,
    "/rollouts/{rollout}": rollouts_page.rollout,
    "/rollouts/{rollout}/now": rollouts_page.now,
    "/rollouts/{rollout}/actions": rollouts_page.actions,
    "/rollouts/{rollout}/log": rollouts_page.rows,
    "/rollouts/{rollout}/abort": rollouts_page.sure,
    "/rollouts/{rollout}/stop": rollouts_page.sure,
}
# Posted by anybody who is signed in, and by keys that may write.
_ASKS: dict[str, Page] = {"/sign-out": sign_in_page.sign_out, "/search": search_page.search}
_CHANGES: dict[str, Page] = {
    "/scenes/{scene}/want": gallery_page.want,
    "/campaigns": campaigns_page.begin,
    "/campaigns/{campaign}/stop": campaigns_page.stop,
    "/jobs/{job}/cancel": jobs_page.cancel,
    "/jobs/{job}/retry": jobs_page.retry,
    "/rollouts/{rollout}/command": rollouts_page.command,
    "/rollouts/{rollout}/abort": rollouts_page.abort,
    "/rollouts/{rollout}/stop": rollouts_page.stop,
}


def app(site: Site) -> ASGIApp:
    """The application."""

    async def health(request: Request) -> Response:
        try:
            await run_in_threadpool(reach, site.engine)
        except Exception as error:
            return turned_down(site, request, error)
        return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})

    async def problem(request: Request, error: Exception) -> Response:
        return turned_down(site, request, error)

    routes: list[Route | Mount] = [
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/health", health),
        Route("/sign-in", sign_in_page.sign_in(site), methods=["GET", "POST"]),
    ]
    routes += [Route(path, endpoint(site, work), methods=["GET"]) for path, work in _PAGES.items()]
    routes += [Route(path, endpoint(site, work), methods=["POST"]) for path, work in _ASKS.items()]
    routes += [Route(path, endpoint(site, work, changes=True), methods=["POST"]) for path, work in _CHANGES.items()]
    return Headers(Starlette(routes=routes, exception_handlers={404: problem, 405: problem, 500: problem}))
