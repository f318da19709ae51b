"""One request on its way to a page: who asks, what their form says, and every way in which it can be turned down.

A page is a plain function of a `Visit`; it runs in a thread, may wait for the database, and raises errors of the
cloud's tree. What is common to all pages, such as the session and the CSRF check, happens here, before it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from cloud.errors import CloudError, QueryError
from cloud.web.access import Visitor
from cloud.web.metrics import PAGE_S
from cloud.web.site import Site

_LOG: Final = logging.getLogger(__name__)
COOKIE: Final = "roadfuse-session"
TOKEN: Final = "csrf"
# A form of words, and one with a picture or a sound.
FORM_BYTES: Final = 256 << 10
UPLOAD_BYTES: Final = 24 << 20
_FIELDS: Final = 64


@dataclass(slots=True)
class Visit:
    """A request, with what was found out about it.

    Attributes:
        words: of the form that was posted, or else of the query string.
        files: that were posted, by field: name and content; an empty one is left out.
    """

    site: Site
    request: Request
    visitor: Visitor
    words: Mapping[str, str]
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def csrf(self) -> str:
        """What the page's forms carry."""
        return self.site.access.token(self.visitor.nonce)

    def number(self, name: str) -> int:
        """A number out of the path, or 404."""
        text = str(self.request.path_params[name])
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise HTTPException(404)
        return int(text)

    def whole(self, name: str) -> int | None:
        """A whole number out of the form or query string; None where nothing is said.

        Raises:
            QueryError: it is none.
        """
        value = self.words.get(name, "")
        if not value:
            return None
        if not re.fullmatch("[0-9]{1,15}", value):
            raise QueryError(f"expected {name} as a number, got {value[:40]!r}")
        return int(value)

    def page(self, template: str, status: int = 200, **content: Any) -> Response:
        """A page made of a template."""
        return self.site.page(self.request, template, status, visit=self, visitor=self.visitor, **content)

    def back(self, path: str) -> Response:
        """After a change: see there."""
        return RedirectResponse(path, 303)


Page = Callable[[Visit], Response]


def endpoint(site: Site, work: Page, *, changes: bool = False) -> Callable[[Request], Awaitable[Response]]:
    """A page as the router calls it.

    Args:
        changes: it needs a key that may write.
    """

    async def timed(request: Request) -> Response:
        start = time.perf_counter()
        response = await answer(request)
        PAGE_S.labels(work.__name__, response.status_code).observe(time.perf_counter() - start)
        return response

    async def answer(request: Request) -> Response:
        try:
            visitor = await run_in_threadpool(site.access.visitor, request.cookies.get(COOKIE))
            if visitor is None:
                return _to_sign_in(site, request)
            if request.method != "POST":
                return await run_in_threadpool(work, Visit(site, request, visitor, dict(request.query_params)))
            words, files = await form_of(request)
            if not (is_own(request) and site.access.is_token(visitor.nonce, words.get(TOKEN, ""))):
                return site.problem(request, 403, "This form did not come from a page of yours. Go back and try again.")
            if changes and not visitor.may_write:
                return site.problem(request, 403, f"The key {visitor.key!r} may look, not change.")
            return await run_in_threadpool(work, Visit(site, request, visitor, words, files))
        except Exception as error:
            return turned_down(site, request, error)

    return timed


def turned_down(site: Site, request: Request, error: Exception) -> Response:
    """The page that says why there is none."""
    if isinstance(error, HTTPException):
        return site.problem(request, error.status_code, error.detail)
    if isinstance(error, QueryError):
        return site.problem(request, 400, str(error))
    if isinstance(error, CloudError):
        return site.problem(request, 404, str(error))
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        _LOG.warning("page_unavailable path=%s error=%s", request.url.path, type(error).__name__)
        return site.problem(request, 503, "The catalogue can't be reached. Try again in a moment.")
    if isinstance(error, ClientDisconnect | asyncio.CancelledError):
        return Response(status_code=499)
    _LOG.error("page_failed path=%s", request.url.path, exc_info=error)
    return site.problem(request, 500, "The server failed; its log says why.")


def is_own(request: Request) -> bool:
    """Whether a browser says that one of our pages posts; one that says nothing is left to the token."""
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    try:
        return origin is None or urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:  # it is no address
        return False


async def form_of(request: Request) -> tuple[dict[str, str], dict[str, tuple[str, bytes]]]:
    """Fields and files of a form of bounded size.

    Raises:
        HTTPException: 413, 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise HTTPException(415, "expected a form")
    most = UPLOAD_BYTES if kind == "multipart/form-data" else FORM_BYTES
    _bound(request, most)
    words: dict[str, str] = {}
    files: dict[str, tuple[str, bytes]] = {}
    async with request.form(max_files=4, max_fields=_FIELDS, max_part_size=FORM_BYTES) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                content = await value.read()
                if content:
                    files[name] = (value.filename or "", content)
            else:
                words[name] = value
    return words, files


def _bound(request: Request, most: int) -> None:
    """Stops reading a body that is too long, whatever its head says."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise HTTPException(413, f"expected at most {most >> 10} KiB, got more")
    receive, got = request._receive, 0

    async def bounded() -> Any:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > most:
            raise HTTPException(413, f"expected at most {most >> 10} KiB, got more")
        return message

    request._receive = bounded


def local(path: str) -> str:
    """A path of this site; "" of anything that could lead away."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if is_local and len(path) < 2_000 else ""


def _to_sign_in(site: Site, request: Request) -> Response:
    """Pages lead to the sign-in and come back, a form's to where it was filled in; parts of pages only say no."""
    if "text/html" not in request.headers.get("accept", ""):
        return Response("sign in first\n", 401, media_type="text/plain")
    if request.method == "POST":
        said = "Your session has ended, and nothing was changed. Sign in, and send the form again."
        return site.problem(request, 401, said, sign_in=_sign_in(_form_page(request)))
    return RedirectResponse(_sign_in(f"{request.url.path}?{request.url.query}".removesuffix("?")), 303)


def _sign_in(to: str) -> str:
    return f"/sign-in?to={quote(to, safe='')}"


def _form_page(request: Request) -> str:
    """Where the form was, as the browser says; "/" if it doesn't, or names another site."""
    try:
        place = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # it is no address
        return "/"
    is_ours = place.netloc == request.headers.get("host")
    return (is_ours and local(place._replace(scheme="", netloc="", fragment="").geturl())) or "/"
