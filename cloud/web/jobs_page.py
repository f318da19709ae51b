"""`/jobs`: the queue of clips to look at, how far each job is, what went wrong; cancel and try again."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from cloud.errors import QueryError
from cloud.jobs import STATES, Job, Queue
from cloud.web.visit import Visit

PAGE = 50


def jobs(visit: Visit) -> Response:
    """The page."""
    return visit.page("jobs.html", **_listed(visit))


def table(visit: Visit) -> Response:
    """The part of the page that changes; the page fetches it again while jobs run."""
    return visit.page("jobs_table.html", **_listed(visit))


def cancel(visit: Visit) -> Response:
    """End a job."""
    _queue(visit).cancel(visit.number("job"))
    return visit.back(_back(visit))


def retry(visit: Visit) -> Response:
    """Let a parked or cancelled job begin anew."""
    _queue(visit).retry(visit.number("job"))
    return visit.back(_back(visit))


def _listed(visit: Visit) -> dict[str, Any]:
    state, before = visit.words.get("state", ""), visit.whole("before")
    if state and state not in STATES:
        raise QueryError(f"expected a state of {', '.join(STATES)}, got {state[:40]!r}")
    queue = _queue(visit)
    found = queue.list([state] if state else STATES, limit=PAGE + 1, before=before)
    counts = queue.counts()
    totals = {name: sum(of_kind.get(name, 0) for of_kind in counts.values()) for name in STATES}
    return {
        "jobs": found[:PAGE],
        "older": found[PAGE - 1].id if len(found) > PAGE else None,
        "before": before or "",
        "state": state,
        "totals": totals,
        "oldest_s": queue.oldest_s(),
        "scene_of": _scene_of,
    }


def _queue(visit: Visit) -> Queue:
    return Queue(visit.site.engine)


def _back(visit: Visit) -> str:
    state = visit.words.get("state", "")
    return f"/jobs?state={state}" if state in STATES else "/jobs"


def _scene_of(job: Job) -> int | None:
    """The scene that a job is about."""
    number = job.arguments.get("scene_id")
    return int(number) if isinstance(number, int | float) and 0 < number < 1 << 53 else None
