"""What all pages are made with: the catalogue, clips, search, templates, and the headers that every answer carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.catalogue import Catalogue
from cloud.web import words
from cloud.web.access import Access, Tries
from cloud.web.cache import Cache
from cloud.web.clips import Clips
from cloud.web.rollout_watch import Watch
from cloud.web.searching import Searching
from cloud.web.stream import Feed

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
_POLICY: Final = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
)
_PROBLEMS: Final = {
    400: "That can't be asked",
    401: "Signed out",
    403: "Not allowed",
    404: "Nothing here",
    405: "Not this way",
    409: "Not in this state",
    413: "Too large",
    415: "Not a form",
    429: "Too many tries",
    500: "Something broke",
    503: "Not now",
}


@dataclass(slots=True)
class Site:
    """What pages are made with.

    Attributes:
        ca: folder of the cloud's certificates; campaigns are signed by what lies there.
    """

    ca: Path
    engine: Engine
    catalogue: Catalogue
    access: Access
    tries: Tries
    clips: Clips
    searching: Searching
    uploads: Cache
    templates: Environment
    feed: Feed
    watch: Watch = field(default_factory=Watch)

    def page(self, request: Request, template: str, status: int = 200, **content: Any) -> Response:
        """A page made of a template."""
        html = self.templates.get_template(template).render({"visitor": None, "path": request.url.path, **content})
        return HTMLResponse(html, status, headers={"Cache-Control": "no-store"})

    def problem(self, request: Request, status: int, said: str, sign_in: str = "") -> Response:
        """The page, or the line, that says why there is none; `sign_in` is where a session would help."""
        title = _PROBLEMS.get(status, "No")
        if "text/html" not in request.headers.get("accept", ""):
            return Response(f"{said}\n", status, media_type="text/plain", headers={"Cache-Control": "no-store"})
        return self.page(request, "problem.html", status, title=title, said=said, number=status, sign_in=sign_in)


def templates() -> Environment:
    """Templates that escape whatever they are given, and fail on what they are not."""
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "said": words.said,
        "sense": words.sense,
        "size": words.size,
        "instant": words.instant,
        "ago": words.ago,
        "why_hard": words.why_hard,
        "media": words.media,
        "clock": words.clock,
        "percent": words.percent,
    }
    return found


class Headers:
    """Gives every answer, errors too, the headers that keep browsers strict."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One exchange."""

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, strict if scope["type"] == "http" else send)
