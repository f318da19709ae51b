"""Rollouts on the pages: what is shown of those that went through the rules, and what people may do with them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text, update

from cloud.objects import Objects
from cloud.releases import stops
from cloud.rollouts import book, log, moving, segments
from cloud.tables import FLEET, GATES, ROLLOUT_LOG
from cloud.web.rollout_watch import Watch

from .conftest import Stage
from .rollout_scenery import POLICY, Drive, release

SCRIPT = "<script>document.title='ran'</script>"


@dataclass
class Rollouts:
    """One of each sort.

    Attributes:
        good: it was promoted to all.
        bad: it was stopped by evidence, and three vehicles refused it.
        waiting: its second wave waits for approval.
    """

    good: Drive
    bad: Drive
    waiting: Drive


def approving() -> dict[str, Any]:
    """The policy whose second wave somebody has to approve."""
    found = copy.deepcopy(POLICY)
    found["waves"][1]["needs_approval"] = True
    return found


@pytest.fixture(scope="module")
def rollouts(stage: Stage) -> Iterator[Rollouts]:
    # One after the other: whoever carries rollouts out looks at all of them, by one clock.
    good = Drive(stage.engine, "arm", 5, 40, {"old": 1.0, "new": 0.3})
    assert good.on(12) == "done"
    bad = Drive(stage.engine, "x86", 6, 60, {"old": 0.6, "new": 12.0}, refuse=3, now_s=good.now_s)
    assert bad.on(12) == "stopped"
    # It never fails, so that what was shown once stays shown.
    waiting = Drive(stage.engine, "orin", 7, 40, {"old": 1.0, "new": 0.0}, policy=approving(), now_s=bad.now_s)
    for _ in range(60):
        assert waiting.on(0.2) == "running"
        if evidence(stage.engine, waiting.id).asked:
            break
    yield Rollouts(good, bad, waiting)
    for one in (good, bad, waiting):
        one.close()


def evidence(engine: Engine, rollout: str) -> Any:
    with engine.connect() as connection:
        return book.evidence(connection, rollout)


def said(engine: Engine, rollout: str) -> list[tuple[str, str, str]]:
    """Commands in the log: what, by whom, why."""
    return [(one.kind, one.by, one.why) for _, one in evidence(engine, rollout).said]


@pytest.fixture
def fresh(stage: Stage, rollouts: Rollouts) -> Iterator[Drive]:
    """A rollout that nobody started, on hardware of its own."""
    with stage.engine.connect() as connection:
        counter = int(connection.execute(text("SELECT coalesce(max(counter), 10) + 1 FROM releases")).scalar_one())
    now_s = rollouts.waiting.now_s
    one = Drive(stage.engine, f"box{counter}", counter, 12, {"old": 1.0, "new": 1.0}, start=False, now_s=now_s)
    yield one
    with stage.engine.begin() as connection:
        if not book.get(connection, one.id).is_over:
            book.command(connection, one.id, book.Command("abort", "ann"))
    one.control.cycle()
    rollouts.waiting.now_s = one.now_s
    one.close()


def test_all_rollouts_and_the_gates_of_all_releases_are_listed(stage: Stage, rollouts: Rollouts) -> None:
    with stage.engine.begin() as connection:
        release(connection, 4, "04" * 32, "arm", replay=("refused", f"night: accuracy 0.71 {SCRIPT}"))
    page = stage.visitor().get("/rollouts").text
    for one, state in ((rollouts.good, "done"), (rollouts.bad, "stopped"), (rollouts.waiting, "running")):
        assert f'href="/rollouts/{one.id}"' in page and f">{state}</span>" in page
    assert "held back" in page and "1, canary" in page and "worse acted on: " in page
    assert "1 refused" in page and "1 skipped" in page and "night: accuracy 0.71 &lt;script&gt;" in page
    assert "Gates" not in page.split("<nav")[0] and 'aria-current="page">Rollouts' in page


def test_a_stopped_rollout_says_why_by_which_test_and_on_what_evidence(stage: Stage, rollouts: Rollouts) -> None:
    page = stage.visitor().get(f"/rollouts/{rollouts.bad.id}").text
    one = rollouts.bad.rollout
    assert one.why.startswith("worse acted on: ") and one.why in page
    assert "no metric in any slice is over 1.25 times as frequent" in page and "e-value 1\u2009000 needed" in page
    assert page.count('class="against"') >= 2 and 'class="beyond"' in page and "stopped at 1\u2009000" in page
    assert page.count("self-test: lane differs by 0.31, at most 0.02") >= 3
    assert "3 failed" in page and '<li class="ended">' in page and "data-open" not in page
    assert "demo 1.6 (release 6)" in page and "the reference bundle" not in page
    assert ">arm-0" not in page, "vehicles that it is not about have no part in it"


def test_a_promoted_rollout_shows_each_wave_with_its_record(stage: Stage, rollouts: Rollouts) -> None:
    page = stage.visitor().get(f"/rollouts/{rollouts.good.id}").text
    assert page.count('<li class="through">') == 4 and "all waves are through" in page
    assert "<b>Wave 1, canary</b> began on e-value" in page and "plus 4 an hour (refuted)" in page
    assert "<b>40</b> of 40 vehicles" in page and "demo 1.5 (release 5)" in page
    assert page.count("<title>wave ") == 3 and "<title>the shadow begins" in page
    known = evidence(stage.engine, rollouts.good.id)
    acted = known.comparisons["active/failure/all"]
    assert f"<b>{acted.treated}</b> in " in page and f"<b>{acted.control}</b> in " in page


def test_the_figures_of_the_curve_are_in_its_table(stage: Stage, rollouts: Rollouts) -> None:
    page = stage.visitor().get(f"/rollouts/{rollouts.bad.id}/now").text
    table = page.partition('id="curve-table"')[2].partition("</table>")[0]
    rows = table.count('<th scope="row"')
    assert 8 <= rows <= 41 and "wave 1 begins: canary" in table and "stopped: worse acted on" in table
    assert "on the same frames" in page and "pairs</td>" in page
    assert page.count("<path") == 3, "against; for it in the shadow, and where it was acted on"


def test_a_rollout_that_waits_says_for_whom_and_goes_on_by_the_name_of_the_key(
    stage: Stage, rollouts: Rollouts
) -> None:
    path = f"/rollouts/{rollouts.waiting.id}"
    visitor = stage.visitor()
    page = visitor.get(path).text
    assert "approval of wave 2" in page and "Approve wave 2" in page and "data-open" in page
    assert 'aria-current="step"' in page and "by approval" in page
    assert visitor.post(f"{path}/command", kind="pause", why="rain").headers["location"] == path
    page = visitor.get(path).text
    assert "Paused by alice: rain." in page and ">Resume</button>" in page and ">Pause</button>" not in page
    assert visitor.post(f"{path}/command", kind="resume").status_code == 303
    assert visitor.post(f"{path}/command", kind="approve", wave="2", why="looks fine").status_code == 303
    for _ in range(60):
        assert rollouts.waiting.on(0.1) in ("running", "done")
        if (evidence(stage.engine, rollouts.waiting.id).wave or 0) >= 2:
            break
    assert said(stage.engine, rollouts.waiting.id)[-3:] == [
        ("pause", "alice", "rain"), ("resume", "alice", ""), ("approve", "alice", "looks fine"),
    ]  # fmt: skip
    assert evidence(stage.engine, rollouts.waiting.id).wave >= 2
    page = visitor.get(path).text
    assert "approved by alice" in page and "Approve wave" not in page


def test_a_rollout_is_started_and_aborted_but_only_by_who_is_sure(stage: Stage, fresh: Drive) -> None:
    visitor, path = stage.visitor(), f"/rollouts/{fresh.id}"
    assert "Not started." in visitor.get(path).text
    assert visitor.post(f"{path}/command", kind="pause").status_code == 409
    assert visitor.post(f"{path}/command", kind="start").status_code == 303
    assert fresh.on(0.1) == "running"
    assert visitor.post(f"{path}/command", kind="start").status_code == 409
    assert "End this rollout" in visitor.get(f"{path}/abort").text
    assert visitor.post(f"{path}/abort", why="enough").status_code == 400
    assert fresh.on(0.05) == "running"
    assert visitor.post(f"{path}/abort", why="enough", sure="yes").status_code == 303
    assert fresh.on(0.05) == "aborted"
    assert fresh.rollout.why == "aborted by alice: enough" in visitor.get(path).text
    assert visitor.post(f"{path}/abort", sure="yes").status_code == 409


def test_an_emergency_stop_wants_a_reason_and_a_tick_and_is_one_of_the_bundle(stage: Stage, fresh: Drive) -> None:
    visitor, path = stage.visitor(), f"/rollouts/{fresh.id}"
    visitor.post(f"{path}/command", kind="start")
    fresh.on(0.1)
    assert "Nobody may run bundle" in visitor.get(f"{path}/stop").text
    for words in ({"why": "smoke"}, {"sure": "yes"}, {"sure": "yes", "why": " \n "}, {"sure": "no", "why": "smoke"}):
        assert visitor.post(f"{path}/stop", **words).status_code == 400
    with stage.engine.begin() as connection:
        assert stops.reason(connection, fresh.new) is None
    assert visitor.post(f"{path}/stop", sure="yes", why="smoke\nfrom the sensor").status_code == 303
    with stage.engine.begin() as connection:
        assert stops.reason(connection, fresh.new) == "smoke from the sensor (by alice)"
    assert fresh.on(0.1) == "stopped" and not fresh.assigned(1)
    page = visitor.get(path).text
    assert "smoke from the sensor (by alice)" in page and "Emergency stop" not in page
    assert visitor.post(f"{path}/stop", sure="yes", why="again").status_code == 409
    assert "It is stopped already" in visitor.get(f"{path}/stop").text


def test_what_failed_may_try_again_alone_or_all(stage: Stage, rollouts: Rollouts) -> None:
    counter = 60
    now_s = rollouts.waiting.now_s
    one = Drive(stage.engine, "retry", counter, 20, {"old": 1.0, "new": 0.2}, refuse=2, now_s=now_s)
    while not any(known.failed_s for known in evidence(stage.engine, one.id).vehicles.values()):
        assert one.on(0.2) == "running"
    visitor, path = stage.visitor(), f"/rollouts/{one.id}"
    page = visitor.get(path).text
    (name, *_) = sorted(one.refused)
    assert "Let " in page and f'Try again<span class="hidden">: {name}' in page
    assert visitor.post(f"{path}/command", kind="retry", vehicle="arm-00000\0").status_code == 404
    assert visitor.post(f"{path}/command", kind="retry", vehicle=name).status_code == 303
    one.control.cycle()
    assert evidence(stage.engine, one.id).vehicles[name].failed_s is None
    visitor.post(f"{path}/command", kind="retry")
    one.control.cycle()
    assert [kind for kind, *_ in said(stage.engine, one.id)] == ["start", "retry", "retry"]
    one.command("abort")
    rollouts.waiting.now_s = one.now_s
    one.close()


def test_a_key_that_reads_sees_all_and_changes_nothing(stage: Stage, rollouts: Rollouts, fresh: Drive) -> None:
    reader, path = stage.visitor(stage.reading_key), f"/rollouts/{fresh.id}"
    page = reader.get(path)
    assert page.status_code == 200 and 'name="kind"' not in page.text and "Emergency stop" not in page.text
    before = said(stage.engine, fresh.id)
    for words in ({"kind": "start"}, {"kind": "approve", "wave": "1"}):
        assert reader.post(f"{path}/command", **words).status_code == 403
    assert reader.get(f"{path}/stop").status_code == reader.get(f"{path}/abort").status_code == 403
    assert reader.post(f"{path}/stop", sure="yes", why="x").status_code == 403
    assert reader.post(f"{path}/abort", sure="yes").status_code == 403
    assert said(stage.engine, fresh.id) == before
    assert reader.get(f"/rollouts/{rollouts.bad.id}").status_code == 200


def test_a_form_without_its_token_or_from_elsewhere_does_nothing(stage: Stage, fresh: Drive) -> None:
    visitor, path = stage.visitor(), f"/rollouts/{fresh.id}"
    forms = [("command", {"kind": "start"}), ("abort", {"sure": "yes"}), ("stop", {"sure": "yes", "why": "x"})]
    for what, words in forms:
        assert visitor.http.post(f"{path}/{what}", data=words).status_code == 403
        own = {"csrf": visitor.token(), **words}
        foreign = {"origin": "https://elsewhere.example"}
        assert visitor.http.post(f"{path}/{what}", data=own, headers=foreign).status_code == 403
    assert said(stage.engine, fresh.id) == [] and fresh.rollout.state == "created"


@pytest.mark.parametrize("id", ["r5", "nothing", "%00", "r5-%", "x" * 300, "%ff", "r5_"])
def test_what_is_no_rollout_is_not_found(stage: Stage, rollouts: Rollouts, id: str) -> None:
    visitor = stage.visitor()
    for rest in ("", "/now", "/actions", "/log", "/stop", "/abort"):
        assert visitor.get(f"/rollouts/{id}{rest}").status_code == 404
    assert visitor.post(f"/rollouts/{id}/command", kind="start").status_code == 404
    assert visitor.post(f"/rollouts/{id}/stop", sure="yes", why="x").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["?page=x", "?page=-1", "?part=all", "?page=99999999999999999", "/log?before=x", "/log?before=1e9"],
)
def test_words_that_make_no_sense_are_said_to_be(stage: Stage, rollouts: Rollouts, query: str) -> None:
    assert stage.visitor().get(f"/rollouts/{rollouts.bad.id}{query}").status_code == 400


@pytest.mark.parametrize("query", ["?find=%00", "?page=999999", "?find=%25%5F%27", "/log?before=1", "/log?all=1"])
def test_words_that_find_nothing_break_no_page(stage: Stage, rollouts: Rollouts, query: str) -> None:
    assert stage.visitor().get(f"/rollouts/{rollouts.bad.id}{query}").status_code == 200


def test_vehicles_are_found_by_name_and_part_a_page_at_a_time(stage: Stage, rollouts: Rollouts) -> None:
    visitor, path = stage.visitor(), f"/rollouts/{rollouts.bad.id}"
    shown = visitor.get(path).text.count('href="/?vehicle=')
    assert shown == 25
    assert visitor.get(f"{path}?page=2").text.count('href="/?vehicle=') == 10
    assert visitor.get(f"{path}?find=X86-0001").text.count('href="/?vehicle=') == 10
    failed = visitor.get(f"{path}?part=failed").text
    assert {name for name in rollouts.bad.names if f">{name}</a>" in failed} == rollouts.bad.refused


def test_the_log_is_paged_and_says_what_was_commanded_and_ordered(stage: Stage, rollouts: Rollouts) -> None:
    visitor, path = stage.visitor(), f"/rollouts/{rollouts.bad.id}/log"
    page = visitor.get(path).text
    for words in ("created by ann", "start by ann", "wave 1 begins", "told to run it, wave 1", "record of the stop"):
        assert words in page
    seen, address = set(), f"{path}?all=1"
    while address:
        page = visitor.get(address).text
        seen |= {int(row.partition("<")[0]) for row in page.split('<th scope="row" class="n">')[1:]}
        address = page.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0].replace("&amp;", "&") \
            if 'rel="next"' in page else ""  # fmt: skip
    with stage.engine.begin() as connection:
        assert sorted(seen) == list(range(1, log.last(connection, rollouts.bad.id)[0] + 1))


def test_the_log_says_what_left_the_database_and_what_was_let_go_of(
    stage: Stage, fresh: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, path = stage.visitor(), f"/rollouts/{fresh.id}"
    visitor.post(f"{path}/command", kind="start")
    fresh.on(0.5)
    curve = visitor.get(path).text.count("<tr>")
    monkeypatch.setattr(segments, "BLOCK", 4)
    assert sum(moving.move_all(stage.engine, Objects(str(tmp_path)), 0.0)) > 4
    page = visitor.get(f"{path}/log?all=1").text
    assert "left the database: roadfuse rollout log" in page and "created by ann" in page
    assert "left the database" not in visitor.get(f"{path}/log").text
    fresh.on(0.1)
    assert visitor.get(path).text.count("<tr>") >= curve
    with stage.engine.begin() as connection:
        connection.execute(text("UPDATE rollouts SET let_go_at = now() WHERE id = :id"), {"id": fresh.id})
    assert "was let go of on" in visitor.get(f"{path}/log").text


def test_markup_in_what_people_vehicles_and_gates_say_is_text(stage: Stage, fresh: Drive) -> None:
    visitor, path = stage.visitor(), f"/rollouts/{fresh.id}"
    name = fresh.names[0]
    visitor.post(f"{path}/command", kind="start", why=SCRIPT)
    fresh.on(0.1)
    visitor.post(f"{path}/command", kind="pause", why=f'"><img src=x onerror=alert(1)>{SCRIPT}')
    with stage.engine.begin() as connection:
        said = {"why": SCRIPT, "active": SCRIPT, "software": SCRIPT, "refused": fresh.new, "stage": 32_000}
        connection.execute(update(FLEET).where(FLEET.c.vehicle == name).values(**said))
        connection.execute(update(GATES).where(GATES.c.release == fresh.rollout.release).values(why=SCRIPT))
    fresh.control.cycle()
    fresh.control.cycle()
    pages = [
        visitor.get(place).text for place in (path, f"{path}/log", f"{path}/stop", "/rollouts", f"/fleet?find={name}")
    ]
    for page in pages:
        assert "<script>document" not in page and "<img src=x" not in page
    assert all("&lt;script&gt;document" in page for page in (pages[0], pages[1], pages[3], pages[4]))
    assert "stage 32000" in pages[4]


def test_the_fleet_says_which_bundle_each_vehicle_runs(stage: Stage, rollouts: Rollouts) -> None:
    visitor = stage.visitor()

    def row(name: str) -> str:
        return visitor.get(f"/fleet?find={name}").text.partition(f">{name}</a>")[2].partition("</tr>")[0]

    for drive, bundle in ((rollouts.good, "demo 1.5 (release 5)"), (rollouts.bad, "bundle 0d0d0d0d0d0d")):
        assert bundle in row(drive.names[-1])
    refused = row(min(rollouts.bad.refused))
    assert "self-test: lane differs" in refused and "refused" in refused
    assert "not told" in row(stage.vehicle.name)


def test_a_log_that_can_not_be_understood_breaks_only_its_own_page(stage: Stage, fresh: Drive) -> None:
    with stage.engine.begin() as connection:
        first = (ROLLOUT_LOG.c.rollout == fresh.id) & (ROLLOUT_LOG.c.number == 1)
        before = connection.execute(text("SELECT content::text FROM rollout_log WHERE rollout = :id AND number = 1"),
                                    {"id": fresh.id}).scalar_one()  # fmt: skip
        connection.execute(update(ROLLOUT_LOG).where(first).values(content={}))
    visitor = stage.visitor()
    try:
        assert visitor.get(f"/rollouts/{fresh.id}").status_code == 404
        assert visitor.get("/rollouts").status_code == 200
    finally:
        with stage.engine.begin() as connection:
            query = "UPDATE rollout_log SET content = CAST(:content AS jsonb) WHERE rollout = :id AND number = 1"
            connection.execute(text(query), {"id": fresh.id, "content": before})


def test_what_is_kept_between_looks_is_what_the_log_amounts_to(stage: Stage, fresh: Drive) -> None:
    watch = Watch()
    with stage.engine.begin() as connection:
        assert watch.evidence(connection, fresh.id).state == "created"
        book.command(connection, fresh.id, book.Command("start", "ann"))
    for _ in range(6):
        fresh.on(0.1)
        with stage.engine.begin() as connection:
            assert watch.evidence(connection, fresh.id) == book.evidence(connection, fresh.id)
            assert watch.evidence(connection, fresh.id) is watch.evidence(connection, fresh.id)
