"""HTTP to a model's server: bounded in time and in bytes, tried again where that may help, errors in one line."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import httpx

from cloud.errors import ModelError

ATTEMPTS: Final = 3
PAUSE_S: Final = 0.5
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Calls:
    """A server.

    Args:
        url: http(s)://host:port, perhaps with a path.
        timeout_s: of one answer, from its first byte asked for to its last one read.
        most_bytes: of one answer.
        headers: of each call.

    Raises:
        ModelError: the URL is none.
    """

    def __init__(
        self, url: str, timeout_s: float, most_bytes: int, headers: dict[str, str] | None = None,
        pause_s: float = PAUSE_S,
    ) -> None:  # fmt: skip
        try:
            parsed = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ModelError(f"expected a URL http://host:port of a model's server, got {url[:80]!r}")
        self.url = str(parsed)
        self._timeout_s, self._most_bytes, self._pause_s = timeout_s, most_bytes, pause_s
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(timeout_s), follow_redirects=False)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """A call of JSON and its answer.

        Raises:
            ModelError: none came, or it is no JSON.
        """
        content = b"" if body is None else json.dumps(body).encode()
        _, answer = self.ask(method, path, content, {"Content-Type": "application/json"})
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise ModelError(f"{self.url}: expected JSON, got {answer[:80]!r}") from None

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        """A call and its answer.

        Raises:
            ModelError: no answer came in time, it is too large, or it is a refusal.
        """
        attempt = 1
        while True:
            try:
                answer, content = self._once(method, path, body, headers)
                if answer.status_code == 200:
                    return answer, content
                failure = f"status {answer.status_code}: {' '.join(content[:200].decode(errors='replace').split())}"
                may_help = answer.status_code in _AGAIN
            except httpx.HTTPError as error:
                failure, may_help = f"{type(error).__name__}: {error}".strip(": "), True
            if attempt == ATTEMPTS or not may_help:
                raise ModelError(f"{self.url}: expected an answer, got {failure} ({attempt} attempts)")
            time.sleep(self._pause_s * 2.0 ** (attempt - 1))
            attempt += 1

    def _once(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        until = time.monotonic() + self._timeout_s
        content = bytearray()
        with self._client.stream(method, self.url + path, content=body, headers=headers) as answer:
            packed = answer.headers.get("Content-Encoding", "identity")
            if packed != "identity":  # it was asked not to, and what is small may be large once unpacked
                raise ModelError(f"{self.url}: expected an answer that is not packed, got {packed[:40]!r}")
            for part in answer.iter_raw():  # as they come: a slow answer must not wait to be a large one
                content += part
                if len(content) > self._most_bytes:
                    raise ModelError(f"{self.url}: expected an answer of at most {self._most_bytes} bytes, got more")
                if time.monotonic() > until:  # the client's own limit is on the silence between two parts
                    raise httpx.ReadTimeout(f"no whole answer within {self._timeout_s:g} s")
        return answer, bytes(content)
