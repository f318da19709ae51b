"""Pages that follow jobs: over a real server, by a stream while it comes through and by asking where it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, update

from cloud.jobs import Queue
from cloud.lease import Lease
from cloud.tables import API_KEYS

from .conftest import Stage
from .scenery import Visitor, Web, key
from .test_browser import DESK, Window

WITHIN_S = 30.0


@pytest.fixture
def lease(stage: Stage) -> Iterator[Lease]:
    """A job that runs."""
    queue = Queue(stage.engine)
    queue.put("stream", str(time.monotonic_ns()))
    lease = queue.take(["stream"], 600)
    assert lease is not None
    yield lease
    queue.cancel(lease.job.id)


def names(answer: httpx.Response) -> Iterator[str]:
    """Of the events, as they come in."""
    return (line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: "))


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_nobody_listens_without_a_session(stage: Stage, accept: str) -> None:
    answer = Visitor(stage.web.address).get("/jobs/events", headers={"Accept": accept})
    assert answer.status_code == 401 and "news" not in answer.text


def test_a_stream_says_when_a_job_moves_and_holds_up_no_page(stage: Stage, lease: Lease) -> None:
    visitor = stage.visitor(stage.reading_key)  # may look alone, and this is looking
    with visitor.http.stream("GET", "/jobs/events", timeout=WITHIN_S) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store" and "content-security-policy" in answer.headers
        heard = names(answer)
        assert next(heard) == "news"
        for share in (0.2, 0.4):
            lease.progress("works", share)
            assert next(name for name in heard if name == "news")
            assert f"works {share * 100:.0f} %" in stage.visitor().get("/jobs/table?state=running").text


def test_a_key_that_no_longer_counts_hears_nothing_more(stage: Stage, lease: Lease) -> None:
    visitor = stage.visitor(key(stage.engine, "short-lived"))
    with visitor.http.stream("GET", "/jobs/events", timeout=WITHIN_S) as answer:
        heard = names(answer)
        assert next(heard) == "news"
        with stage.engine.begin() as connection:
            connection.execute(update(API_KEYS).where(API_KEYS.c.name == "short-lived").values(revoked_at=func.now()))
        time.sleep(1.5)  # a key is trusted for a second
        lease.progress("works", 0.6)
        assert "news" not in list(heard), "the stream ends"
    assert visitor.get("/jobs/events", headers={"Accept": "*/*"}).status_code == 401


def test_a_head_of_a_stream_ends_at_once(stage: Stage) -> None:
    answer = stage.visitor().http.head("/jobs/events", timeout=WITHIN_S)
    assert answer.status_code == 200 and not answer.content


def test_a_server_that_ends_waits_for_no_stream(stage: Stage, tmp_path: Path) -> None:
    web = Web(tmp_path / "web", stage.engine.url.render_as_string(hide_password=False))
    visitor = Visitor(web.address)
    visitor.sign_in(stage.key)
    heard: list[str] = []

    def listen() -> None:
        with visitor.http.stream("GET", "/jobs/events", timeout=WITHIN_S) as answer:
            heard.extend(names(answer))

    listener = threading.Thread(target=listen)
    listener.start()
    while not heard:
        time.sleep(0.05)
    assert web.stop() == 0
    listener.join(WITHIN_S)
    assert not listener.is_alive()
    assert "Cancel" not in (tmp_path / "web" / "web.stderr").read_text(), "it was not cut off"


class Reader(Window):
    """A window that notes what it fetches."""

    def __init__(self, context: Any, stage: Stage) -> None:
        super().__init__(context, stage)
        self.fetched: list[str] = []
        self.page.on(
            "request", lambda request: self.fetched.append(request.url.partition("/jobs")[2].partition("?")[0])
        )

    def shows(self, words: str) -> None:
        self.page.locator("#jobs", has_text=words).wait_for(timeout=WITHIN_S * 1e3)


@pytest.fixture
def reader(chromium: Any, stage: Stage) -> Iterator[Reader]:
    context = chromium.new_context(viewport=DESK)
    yield Reader(context, stage)
    context.close()


def test_a_page_shows_progress_by_itself_and_asks_for_nothing_while_nothing_happens(
    reader: Reader, lease: Lease
) -> None:
    lease.progress("begins", 0.1)
    reader.open("/jobs?state=running")
    for stage_name, share in (("sees", 0.3), ("hears", 0.7)):
        lease.progress(stage_name, share)
        reader.shows(f"{stage_name} {share * 100:.0f} %")
    reader.page.wait_for_timeout(1500)
    before = reader.fetched.count("/table")
    reader.page.wait_for_timeout(5000)
    assert reader.fetched.count("/table") == before and reader.fetched.count("/events") == 1
    assert reader.complaints == []


def test_a_page_whose_stream_is_refused_asks_now_and_then(reader: Reader, lease: Lease) -> None:
    reader.page.route("**/jobs/events", lambda route: route.fulfill(status=503, body="too many"))
    lease.progress("begins", 0.1)
    reader.open("/jobs?state=running")
    lease.progress("sees", 0.3)
    reader.shows("sees 30 %")
    assert reader.fetched.count("/events") == 1 and reader.fetched.count("/table") >= 1


def test_a_page_whose_stream_is_held_up_on_its_way_asks_now_and_then(reader: Reader, lease: Lease) -> None:
    reader.page.route("**/jobs/events", lambda route: None)  # as by a proxy that gathers all of an answer first
    reader.page.clock.install()
    lease.progress("begins", 0.1)
    reader.open("/jobs?state=running")
    lease.progress("sees", 0.3)
    reader.page.clock.fast_forward(20_000)
    assert "/table" not in reader.fetched
    reader.page.clock.fast_forward(10_000)
    reader.page.clock.fast_forward(5_000)
    reader.shows("sees 30 %")


def test_a_page_whose_stream_was_cut_off_listens_again(reader: Reader, lease: Lease) -> None:
    cut = []

    def route(route: Any) -> None:
        if cut:
            route.continue_()
        else:
            cut.append(True)
            headers = {"Content-Type": "text/event-stream"}
            route.fulfill(status=200, headers=headers, body="retry: 200\n\nevent: news\ndata: -\n\n")

    reader.page.route("**/jobs/events", route)
    lease.progress("begins", 0.1)
    reader.open("/jobs?state=running")
    reader.page.wait_for_timeout(1500)
    lease.progress("sees", 0.3)
    reader.shows("sees 30 %")
    assert reader.fetched.count("/events") == 2


def test_a_page_that_somebody_works_in_waits_for_them(reader: Reader, lease: Lease) -> None:
    lease.progress("begins", 0.1)
    reader.open("/jobs?state=running")
    reader.shows("begins 10 %")
    reader.page.locator("#jobs button").first.focus()
    lease.progress("sees", 0.3)
    reader.page.wait_for_timeout(4000)
    assert reader.page.locator("#jobs", has_text="sees 30 %").count() == 0
    reader.page.locator("#main").focus()
    reader.shows("sees 30 %")
