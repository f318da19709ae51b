"""`/rollouts`: which release goes where, on what evidence; started, paused, approved, aborted and stopped by people.

What a person wants becomes a command in the rollout's log, as by `roadfuse rollout`; the cloud's part "control" carries
it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloud.errors import QueryError, RolloutError
from cloud.releases import stops
from cloud.rollouts import book, log, stop_line
from cloud.rollouts.book import Rollout
from cloud.rollouts.evidence import ABORT, APPROVE, CREATED, PAUSE, RESUME, RETRY, START, Command, Evidence
from cloud.rollouts.stages import concerned
from cloud.tables import GATES, RELEASES, ROLLOUT_LOG, ROLLOUTS, STOPS
from cloud.vehicles import one_line
from cloud.web import rollout_drawing, rollout_log, rollout_view, rollout_words
from cloud.web.visit import Visit

_RELEASES: Final = 25
_ROLLOUTS: Final = 25
VEHICLES: Final = 25
_EVENTS: Final = 12
_MOST_NAME: Final = 200
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_SIMPLE: Final = (START, PAUSE, RESUME, APPROVE, RETRY)
_WORDS: Final = {
    name: getattr(rollout_words, name)
    for name in ("at", "badge", "bundle", "count", "e_value", "hours", "lasted", "part", "stage")
}


@dataclass(frozen=True, slots=True)
class Released:
    """A release, with what its gates said.

    Attributes:
        gates: (name, verdict, why).
        stopped: why nobody may run its bundle; "" where everybody may.
    """

    counter: int
    name: str
    version: str
    bundle: str
    released_at: Any
    revoked_why: str | None
    stopped: str
    gates: list[tuple[str, str, str]]

    def count(self, verdict: str) -> int:
        """Gates that said so."""
        return sum(said == verdict for _, said, _ in self.gates)


def rollouts(visit: Visit) -> Response:
    """All of them, and all releases, newest first."""
    before, page = visit.whole("before"), visit.whole("page") or 0
    with visit.site.engine.connect() as connection:
        found = book.listed(connection)
        shown = found[page * _ROLLOUTS : (page + 1) * _ROLLOUTS]
        waves = _waves(visit, connection, shown)
        releases, older = _releases(connection, before)
    more = page + 1 if len(found) > (page + 1) * _ROLLOUTS else None
    return visit.page(
        "rollouts.html", rollouts=shown, total=len(found), waves=waves, releases=releases, older=older, more=more,
        before=before, page=page, **_WORDS,
    )  # fmt: skip


def rollout(visit: Visit) -> Response:
    """One, with all that the rules know of it."""
    with visit.site.engine.connect() as connection:
        one = _found(connection, visit)
        content = _now(visit, connection, one) | _actions(connection, one, visit)
        content |= _vehicles(visit, connection, content["view"].evidence)
    return visit.page("rollout.html", **content, **_WORDS)


def now(visit: Visit) -> Response:
    """The part of the page that changes; the page fetches it again while the rollout runs."""
    with visit.site.engine.connect() as connection:
        content = _now(visit, connection, _found(connection, visit))
    return visit.page("rollout_now.html", **content, **_WORDS)


def actions(visit: Visit) -> Response:
    """What may be done now; by itself, so that the rest goes on while somebody is about to."""
    with visit.site.engine.connect() as connection:
        content = _actions(connection, _found(connection, visit), visit)
    return visit.page("rollout_actions.html", **content, **_WORDS)


def rows(visit: Visit) -> Response:
    """The log."""
    before, is_all = visit.whole("before"), bool(visit.words.get("all"))
    with visit.site.engine.connect() as connection:
        one = _found(connection, visit)
        found, older = rollout_log.page(connection, one.id, before, without=() if is_all else (log.OBSERVED,))
    return visit.page("rollout_log.html", rollout=one, rows=found, older=older, before=before, is_all=is_all, **_WORDS)


def sure(visit: Visit) -> Response:
    """Asks before a rollout is aborted, or its bundle stopped."""
    kind = visit.request.url.path.rpartition("/")[2]
    if not visit.visitor.may_write:
        raise HTTPException(403, f"The key {visit.visitor.key!r} may look, not change.")
    with visit.site.engine.connect() as connection:
        one = _found(connection, visit)
        evidence = visit.site.watch.evidence(connection, one.id)
        stopped = stops.reason(connection, one.bundle)
    within = rollout_view.parts(concerned(evidence.policy, evidence))
    running = sum(known.report.active == one.bundle for known in evidence.vehicles.values())
    return visit.page(
        "rollout_sure.html", kind=kind, rollout=one, within=within, running=running, stopped=stopped, **_WORDS
    )


def command(visit: Visit) -> Response:
    """Start, pause, resume, approve a wave, or let vehicles try again."""
    kind = visit.words.get("kind", "")
    if kind not in _SIMPLE:
        raise QueryError(f"expected a command of {', '.join(_SIMPLE)}, got {kind[:40]!r}")
    wave = visit.whole("wave") or 0 if kind == APPROVE else 0
    vehicle = visit.words.get("vehicle", "") if kind == RETRY else ""
    if vehicle:
        with visit.site.engine.connect() as connection:
            if vehicle not in visit.site.watch.evidence(connection, _found(connection, visit).id).vehicles:
                raise HTTPException(404, "This rollout knows no such vehicle.")
    wanted = Command(kind, visit.visitor.key, _line(visit.words.get("why", "")), wave, vehicle)
    return visit.back(f"/rollouts/{_commanded(visit, wanted).id}")


def abort(visit: Visit) -> Response:
    """End a rollout: nobody begins any more; who runs the release keeps it."""
    _check_sure(visit)
    wanted = Command(ABORT, visit.visitor.key, _line(visit.words.get("why", "")))
    return visit.back(f"/rollouts/{_commanded(visit, wanted).id}")


def stop(visit: Visit) -> Response:
    """Nobody may run the rollout's bundle from now on: what `roadfuse rollout stop` does."""
    _check_sure(visit)
    why = _line(visit.words.get("why", ""))
    if not 1 <= len(why) <= book.MOST_WHY:
        raise QueryError(f"expected a reason of 1 to {book.MOST_WHY} characters, got {len(why)}")
    with visit.site.engine.begin() as connection:
        one = _found(connection, visit)
        if (already := stops.reason(connection, one.bundle)) is not None:
            raise HTTPException(409, f"The bundle is stopped already: {already}")
        stop_line.stop(connection, one.bundle, f"{why} (by {visit.visitor.key})")
        connection.execute(select(func.pg_notify(book.CHANNEL, "")))
    return visit.back(f"/rollouts/{one.id}")


def _commanded(visit: Visit, wanted: Command) -> Rollout:
    with visit.site.engine.begin() as connection:
        one = _found(connection, visit)
        try:
            return book.command(connection, one.id, wanted)
        except RolloutError as error:  # of its state, which another may have changed meanwhile
            raise HTTPException(409, str(error)) from None


def _check_sure(visit: Visit) -> None:
    if visit.words.get("sure") != "yes":
        raise QueryError("expected a tick at what will happen, got none")


def _found(connection: Connection, visit: Visit) -> Rollout:
    """The rollout of the path, or 404."""
    id = str(visit.request.path_params["rollout"])
    if _ID.fullmatch(id):
        try:
            one = book.get(connection, id)
        except RolloutError:
            pass
        else:
            if one.id == id:
                return one
    raise HTTPException(404, "There is no such rollout.")


def _now(visit: Visit, connection: Connection, one: Rollout) -> dict[str, Any]:
    evidence = visit.site.watch.evidence(connection, one.id)
    records = rollout_view.records(connection, one.id)
    waves = rollout_view.began(records)
    view = rollout_view.view(evidence, waves, max(log.now_s(connection), evidence.at_s))
    happened = rollout_drawing.marks(evidence, [(wave, float(said["at_s"])) for wave, said in waves.items()])
    events, _ = rollout_log.page(connection, one.id, None, without=(log.OBSERVED, log.RECORDED), most=_EVENTS)
    names = rollout_words.bundles(connection, [one.bundle, *(runs.bundle for runs in view.runs)])
    return {
        "rollout": one, "view": view, "records": records, "curve": rollout_drawing.curve(evidence, happened),
        "events": events, "names": names, "part_names": rollout_words.PARTS,
        "stages": [step.name for step in view.steps],
        "gates": [(gate, *said) for gate, said in evidence.gates.items()],
        "stopped": stops.reason(connection, one.bundle),
    }  # fmt: skip


def _actions(connection: Connection, one: Rollout, visit: Visit) -> dict[str, Any]:
    evidence = visit.site.watch.evidence(connection, one.id)
    following = (evidence.wave or 0) + 1
    is_asked = evidence.asked == following and following not in evidence.approved
    return {
        "rollout": one,
        "state": evidence.state,
        "approve": following if is_asked else 0,
        "failed": sum(known.failed_s is not None for known in evidence.vehicles.values()),
        "stopped": stops.reason(connection, one.bundle),
    }


def _vehicles(visit: Visit, connection: Connection, evidence: Evidence) -> dict[str, Any]:
    """A page of them, by name and part."""
    find, part = visit.words.get("find", "").strip()[:_MOST_NAME], visit.words.get("part", "")
    if part and part not in rollout_words.PARTS:
        raise QueryError(f"expected a part of {', '.join(rollout_words.PARTS)}, got {part[:40]!r}")
    page = visit.whole("page") or 0
    found = rollout_view.found(evidence, find, part)
    shown = found[page * VEHICLES : (page + 1) * VEHICLES]
    names = rollout_words.bundles(connection, [known.report.active for known in shown])
    return {
        "find": find, "of_part": part, "page": page, "vehicles": shown, "found": len(found), "names_of_shown": names,
        "more": page + 1 if len(found) > (page + 1) * VEHICLES else None,
    }  # fmt: skip


def _waves(visit: Visit, connection: Connection, shown: Iterable[Rollout]) -> dict[str, str]:
    """Rollout -> the wave that it is in, or came to."""
    found = {}
    for one in shown:
        policy = select(ROLLOUTS.c.policy["waves"]).where(ROLLOUTS.c.id == one.id)
        if one.state == CREATED:
            continue
        rows = ROLLOUT_LOG.c
        last = (
            select(rows.content["wave"])
            .where(rows.rollout == one.id, rows.kind == log.RECORDED, rows.content["what"].astext == "promote")
            .order_by(rows.number.desc())
            .limit(1)
        )
        wave = connection.execute(last).scalar_one_or_none()
        if wave is None:
            continue
        names = [stage["name"] for stage in connection.execute(policy).scalar_one()]
        name = "shadow" if not wave else names[int(wave) - 1] if wave <= len(names) else "held back"
        found[one.id] = f"{wave:.0f}, {name}" if wave else name
    return found


def _releases(connection: Connection, before: int | None) -> tuple[list[Released], int | None]:
    rows = RELEASES.c
    columns = (
        rows.counter,
        rows.name,
        rows.version,
        rows.bundle_id,
        rows.released_at,
        rows.revoked_at,
        rows.revoked_why,
    )
    query = select(*columns).order_by(rows.counter.desc()).limit(_RELEASES + 1)
    found = connection.execute(query.where(rows.counter < before) if before else query).all()
    shown = found[:_RELEASES]
    gates: dict[int, list[tuple[str, str, str]]] = {}
    said = GATES.c
    verdicts = select(said.release, said.gate, said.verdict, said.why).order_by(said.release, said.place)
    for row in connection.execute(verdicts.where(said.release.in_([row.counter for row in shown]))):
        gates.setdefault(row.release, []).append((row.gate, row.verdict, row.why))
    stopped = select(STOPS.c.bundle_id, STOPS.c.why).where(
        STOPS.c.bundle_id.in_([row.bundle_id for row in shown]), STOPS.c.lifted_at.is_(None)
    )
    whys = {row.bundle_id: row.why for row in connection.execute(stopped.order_by(STOPS.c.number))}
    released = [
        Released(
            row.counter, row.name, row.version, row.bundle_id, row.released_at,
            row.revoked_why if row.revoked_at is not None else None, whys.get(row.bundle_id, ""),
            gates.get(row.counter, []),
        )
        for row in shown
    ]  # fmt: skip
    return released, shown[-1].counter if len(found) > _RELEASES else None


def _line(value: str) -> str:
    return one_line(value)[: book.MOST_WHY]
