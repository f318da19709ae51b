"""`/jobs/events`: says when a job moved."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response, StreamingResponse

from cloud.web.visit import COOKIE, Visit

_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy holds an event back


def jobs(visit: Visit) -> Response:
    """The stream, or why there is none."""
    feed, access, cookie = visit.site.feed, visit.site.access, visit.request.cookies.get(COOKIE)
    if not feed.has_room():
        return Response("too many pages listen; ask for yourself\n", 503, headers=_HEADERS, media_type="text/plain")
    if visit.request.method == "HEAD":
        return Response(headers=_HEADERS, media_type="text/event-stream")
    events = feed.events(lambda: access.visitor(cookie) is not None)
    return StreamingResponse(events, headers=_HEADERS, media_type="text/event-stream")
