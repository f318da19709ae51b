"""`/sign-in` and `/sign-out`: where a session begins and ends."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cloud.web.access import SESSION_S
from cloud.web.metrics import WRONG_KEYS
from cloud.web.site import Site
from cloud.web.visit import COOKIE, TOKEN, Visit, form_of, is_own, local, turned_down

# Before there is a session, a cookie of its own holds what the form's token signs.
_VISIT: Final = "roadfuse-visit"
_NONCE: Final = re.compile("[0-9a-f]{32}")
_MAX_KEY: Final = 256


def sign_in(site: Site) -> Callable[[Request], Awaitable[Response]]:
    """The form, and what becomes of it."""

    async def answer(request: Request) -> Response:
        try:
            return await (_tried if request.method == "POST" else _asked)(site, request)
        except Exception as error:
            return turned_down(site, request, error)

    return answer


def sign_out(visit: Visit) -> Response:
    """Forget the session in this browser."""
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


async def _asked(site: Site, request: Request, wrong: str = "", status: int = 200) -> Response:
    nonce = request.cookies.get(_VISIT, "")
    if not _NONCE.fullmatch(nonce):
        nonce = secrets.token_hex(16)
    to = local(request.query_params.get("to", "")) or "/"
    response = site.page(request, "sign_in.html", status, token=site.access.token(nonce), to=to, wrong=wrong)
    _set(response, request, _VISIT, nonce)
    return response


async def _tried(site: Site, request: Request) -> Response:
    words, _ = await form_of(request)
    nonce = request.cookies.get(_VISIT, "")
    if not (_NONCE.fullmatch(nonce) and is_own(request) and site.access.is_token(nonce, words.get(TOKEN, ""))):
        return await _asked(site, request, "The form was too old, or your browser keeps no cookies. Try again.", 403)
    address = request.client.host if request.client is not None else ""
    if not site.tries.is_open(address):
        return await _asked(site, request, "Too many wrong keys came from here. Wait a minute.", 429)
    key = words.get("key", "")
    cookie = await run_in_threadpool(site.access.sign_in, key) if len(key) <= _MAX_KEY else None
    if cookie is None:
        site.tries.note(address)
        WRONG_KEYS.inc()
        return await _asked(site, request, "This key is none, or no longer counts.", 403)
    response = RedirectResponse(local(words.get("to", "")) or "/", 303)
    response.delete_cookie(_VISIT)
    _set(response, request, COOKIE, cookie, SESSION_S)
    return response


def _set(response: Response, request: Request, name: str, value: str, age_s: int | None = None) -> None:
    is_tls = request.url.scheme == "https"
    response.set_cookie(name, value, max_age=age_s, path="/", httponly=True, samesite="strict", secure=is_tls)
