"""What leaves the database is read as if it were there; whatever happens on the way, no row is lost or there twice."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from cloud.database import connect, migrate
from cloud.errors import ObjectError, RolloutError
from cloud.objects import Objects
from cloud.rollouts import log, moving, segments
from cloud.rollouts.command import main
from cloud.rollouts.engine import KEEP_S
from cloud.rollouts.evidence import PAUSE, RESUME, STOP
from cloud.rollouts.log import Entry
from cloud.rollouts.moving import Moving, let_go, move_all
from cloud.settings import Settings
from cloud.web.rollout_watch import Watch

from .fleets import Cars, clear
from .test_control import Started

BLOCK = 16
# Dies of SIGKILL at a point of the first move.
MOVER = """
import os, signal, sys
from sqlalchemy import event
from cloud.database import connect
from cloud.objects import Objects
from cloud.rollouts import moving, segments

point, folder, url, segments.BLOCK = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def reached(there):
    if there == point:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(Objects):
    def put_contents(self, items):
        reached("before the object")
        super().put_contents(items)
        reached("after the object")

engine = connect(url)
words = {"DELETE FROM rollout_log": "after the rows", "INSERT INTO rollout_segments": "before the commit"}

@event.listens_for(engine, "after_cursor_execute")
def executed(connection, cursor, statement, *_):
    for begin, there in words.items():
        if statement.startswith(begin):
            reached(there)

for _ in moving.move_all(engine, Dying(folder), 0.0):
    reached("after the commit")
"""


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BLOCK", BLOCK)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(str(tmp_path / "objects"))


@pytest.fixture
def one(engine: Engine) -> Iterator[Started]:
    """A rollout that ran for an hour."""
    clear(engine)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE rollout_segments"))
    started = Started(engine, Cars(engine, 20), tests={"interval_s": 60.0})
    started.hours(1)
    yield started
    started.connection.close()


def whole(engine: Engine, rollout: str, objects: Objects) -> list[Entry]:
    return list(segments.read(engine, rollout, objects))


def in_table(engine: Engine, rollout: str) -> list[Entry]:
    with engine.begin() as connection:
        return list(log.streamed(connection, rollout))


def moved(engine: Engine, rollout: str) -> list[segments.Segment]:
    with engine.begin() as connection:
        return segments.of(connection, rollout)


def move(engine: Engine, objects: Objects, old_s: float = 0.0) -> int:
    return sum(move_all(engine, objects, old_s))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / "rollouts").rglob("*.zst")}


def test_rows_that_were_moved_are_read_back_the_same_and_replay_the_same(
    engine: Engine, one: Started, objects: Objects
) -> None:
    before = whole(engine, one.id, objects)
    evidence, replay = one.evidence, log.replayed(before)
    count = move(engine, objects)
    assert count == sum(segment.rows for segment in moved(engine, one.id)) > 2 * BLOCK
    assert len(in_table(engine, one.id)) == len(before) - count
    after = whole(engine, one.id, objects)
    assert after == before
    assert log.replayed(after) == replay and replay.differs == "" and replay.rows == len(before)
    assert one.evidence == evidence
    assert {row.kind for row in before} - {log.OBSERVED} == {
        row.kind for row in in_table(engine, one.id) if row.number <= moved(engine, one.id)[-1].last
    }, "what people said and what was ordered stays"


def test_the_rollout_goes_on_after_rows_were_moved_also_with_an_engine_that_starts_anew(
    engine: Engine, one: Started, objects: Objects
) -> None:
    for _ in range(3):
        assert move(engine, objects) > 0
        one.anew()
        one.hours(1)
    assert one.rollout.state == "running" or one.rollout.state == "done"
    rows = whole(engine, one.id, objects)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    given = log.replayed(rows)
    assert given.differs == "" and given.evidence == one.evidence


def test_what_is_young_or_was_not_kept_or_comes_last_stays(engine: Engine, one: Started, objects: Objects) -> None:
    assert move(engine, objects, old_s=3_600.0) == 0
    with engine.begin() as connection:
        kept = connection.execute(text("SELECT folded FROM rollouts")).scalar_one()
        connection.execute(text("UPDATE rollouts SET folded = '{}'"))
    assert move(engine, objects) == 0
    with engine.begin() as connection:
        connection.execute(text("UPDATE rollouts SET folded = jsonb_build_object('number', :n)"), {"n": 2 * BLOCK - 1})
    assert move(engine, objects) == sum(row.kind == log.OBSERVED for row in whole(engine, one.id, objects)[:BLOCK])
    last = max(in_table(engine, one.id), key=lambda row: row.number).number
    with engine.begin() as connection:
        connection.execute(text("UPDATE rollouts SET folded = jsonb_build_object('number', :n)"), {"n": last})
        connection.execute(text("DELETE FROM rollout_log WHERE number > :n"), {"n": last // BLOCK * BLOCK})
    move(engine, objects)
    assert moved(engine, one.id)[-1].last <= last // BLOCK * BLOCK - BLOCK, "the number of the next row is known"
    assert int(kept["number"]) > BLOCK


@pytest.mark.parametrize(
    "point", ["before the object", "after the object", "after the rows", "before the commit", "after the commit"]
)
def test_a_kill_leaves_rows_and_object_or_the_object_alone_and_the_next_pass_finishes(
    engine: Engine, one: Started, database: str, tmp_path: Path, point: str
) -> None:
    objects = Objects(str(tmp_path / "objects"))
    before = whole(engine, one.id, objects)
    argv = [sys.executable, "-c", MOVER, point, str(tmp_path / "objects"), database, str(BLOCK)]
    assert subprocess.run(argv, check=False, timeout=120).returncode == -signal.SIGKILL
    assert len(moved(engine, one.id)) == (point == "after the commit")
    assert whole(engine, one.id, objects) == before
    move(engine, objects)
    assert whole(engine, one.id, objects) == before
    assert files(tmp_path / "objects") == {segment.key for segment in moved(engine, one.id)}, "nothing is left over"


@pytest.mark.parametrize("harm", ["missing", "changed", "cut short"])
def test_a_segment_that_is_missing_or_damaged_is_named_in_one_line(
    engine: Engine, one: Started, database: str, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "ca").mkdir(parents=True)
    move(engine, Objects(str(data / "objects")))
    where = ["--data", str(data), "--database", database]
    assert main(["replay", one.id, *where]) == 0
    assert "the rules gave the same" in capsys.readouterr().out
    key = moved(engine, one.id)[1].key
    path = data / "objects" / key
    content = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(content[:-9] if harm == "cut short" else content[:-9] + b"x" + content[-8:])
    for command in ("replay", "log"):
        with pytest.raises(RolloutError, match=f"^{key}: expected rows .* of {one.id}.*, got ") as refused:
            main([command, one.id, *where])
        assert "\n" not in str(refused.value)
    assert main(["explain", one.id, *where]) == 0, "what is kept needs no segment"


def test_nothing_is_deleted_where_the_store_did_not_keep_what_it_was_given(
    engine: Engine, one: Started, tmp_path: Path
) -> None:
    class Forgetful(Objects):
        def put_contents(self, items: Sequence[tuple[str, bytes]]) -> None:
            super().put_contents([(key, content[:-1]) for key, content in items])

    class Away(Objects):
        def put_contents(self, items: Sequence[tuple[str, bytes]]) -> None:
            raise ObjectError("could not be kept")

    before = in_table(engine, one.id)
    for kind in (Forgetful, Away):
        with pytest.raises((RolloutError, ObjectError)):
            move(engine, kind(str(tmp_path / "bad")))
    assert in_table(engine, one.id) == before and not moved(engine, one.id)


def test_commands_and_cycles_wait_for_no_move(engine: Engine, one: Started, objects: Objects) -> None:
    said = iter([PAUSE, RESUME] * 50)

    def work(*_: Any) -> None:
        one.command(next(said))
        one.cars.now_s += 1.0
        one.cycle()

    def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("DELETE FROM rollout_log", "INSERT INTO rollout_segments")):
            work()

    mover = connect(engine.url.render_as_string(hide_password=False))
    event.listen(mover, "after_cursor_execute", executed)
    try:
        count = sum(1 for _ in move_all(mover, objects, 0.0))
    finally:
        mover.dispose()
    assert count > 2
    rows = whole(engine, one.id, objects)
    assert sum(len(row.content.get("commands", ())) for row in rows) == 1 + 2 * count
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert log.replayed(rows).differs == ""


def test_a_log_is_read_whole_while_rows_are_moved(engine: Engine, one: Started, objects: Objects) -> None:
    before = whole(engine, one.id, objects)
    reading = segments.read(engine, one.id, objects)
    read = [next(reading)]
    move(engine, objects)
    assert [*read, *reading] == before


def test_two_that_move_at_once_move_each_row_once(
    engine: Engine, one: Started, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, both, failed = whole(engine, one.id, objects), threading.Barrier(2), []
    packed = segments.packed

    def together(*args: Any) -> Any:
        found = packed(*args)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1.0)
        return found

    def work() -> None:
        try:
            move(engine, Objects(str(tmp_path / "objects")))
        except Exception as error:
            failed.append(error)

    monkeypatch.setattr(segments, "packed", together)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert whole(engine, one.id, objects) == before
    assert files(tmp_path / "objects") == {segment.key for segment in moved(engine, one.id)}


def test_the_thread_moves_and_survives_a_store_that_is_away(
    engine: Engine, one: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(moving, "LOOK_S", 0.1)
    (tmp_path / "objects").write_text("in the way")
    thread = Moving(engine, Settings(tmp_path, log_hours=0.0))
    thread.start()
    while "log_not_moved" not in caplog.text:
        thread.join(0.05)
    (tmp_path / "objects").unlink()
    while not moved(engine, one.id):
        thread.join(0.05)
    thread.end()
    assert not thread.is_alive()


def test_the_part_that_leads_moves_what_is_older_than_it_is_told(
    engine: Engine, one: Started, database: str, tmp_path: Path
) -> None:
    (tmp_path / "ca").mkdir()
    for _ in range(125):  # the part has larger blocks
        one.command(PAUSE)
        one.command(RESUME)
    one.cars.now_s += KEEP_S
    one.cycle()
    before = whole(engine, one.id, Objects(str(tmp_path / "objects")))
    one.connection.close()
    argv = [
        sys.executable, "-m", "edge.command", "cloud", "serve", "--only", "control", "--data", str(tmp_path),
        "--database", database, "--metrics-port", "0", "--log-hours", "0",
    ]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as part:
        end = time.monotonic() + 60.0
        while not moved(engine, one.id) and time.monotonic() < end:
            time.sleep(0.1)
        part.terminate()
        assert part.wait(30) == 0
    after = whole(engine, one.id, Objects(str(tmp_path / "objects")))
    assert moved(engine, one.id) and after[: len(before)] == before and log.replayed(after).differs == ""


def test_a_page_that_was_looked_at_before_rows_left_goes_on(engine: Engine, one: Started, objects: Objects) -> None:
    watch = Watch()
    with engine.begin() as connection:
        watch.evidence(connection, one.id)
    one.hours(0.5)
    move(engine, objects)
    with engine.begin() as connection:
        assert watch.evidence(connection, one.id) == one.evidence


def test_of_what_ended_long_ago_only_what_vehicles_said_is_let_go(
    engine: Engine, one: Started, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "ca").mkdir(parents=True)
    objects = Objects(str(data / "objects"))
    assert let_go(engine, objects, 0.0) == [], "it runs"
    one.command(STOP, why="smoke")
    one.cycle()
    assert one.rollout.state == "stopped"
    move(engine, objects)
    before, evidence = whole(engine, one.id, objects), one.evidence
    assert let_go(engine, objects, 3_600.0) == [], "it ended a moment ago"
    assert let_go(engine, objects, 0.0) == [one.id]
    assert in_table(engine, one.id) == [row for row in before if row.kind != log.OBSERVED]
    assert files(data / "objects") == set() and not moved(engine, one.id)
    assert one.evidence == evidence and let_go(engine, objects, 0.0) == []
    where = ["--data", str(data), "--database", database]
    with pytest.raises(RolloutError, match=f"expected what vehicles said to {one.id}, got nothing: let go of on 2"):
        main(["replay", one.id, *where])
    assert main(["log", one.id, *where]) == 0
    assert '"what": "stop"' in capsys.readouterr().out
    assert main(["watch", one.id, "--once", *where]) == 0
    assert "stop by bob: smoke" in capsys.readouterr().out


def test_who_is_killed_while_letting_go_does_it_again(engine: Engine, one: Started, tmp_path: Path) -> None:
    class Dying(Objects):
        def delete(self, key: str) -> None:
            super().delete(key)
            raise KeyboardInterrupt

    objects = Objects(str(tmp_path / "objects"))
    one.command(STOP, why="smoke")
    one.cycle()
    move(engine, objects)
    with pytest.raises(KeyboardInterrupt):
        let_go(engine, Dying(str(tmp_path / "objects")), 0.0)
    assert one.rollout.let_go_at is None
    assert let_go(engine, objects, 0.0) == [one.id]
    assert files(tmp_path / "objects") == set() and one.rollout.let_go_at is not None


def test_what_is_done_is_not_let_go_while_it_is_followed(engine: Engine, one: Started, objects: Objects) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE rollouts SET state = 'done', ended_at = now() - interval '27 days'"))
    assert let_go(engine, objects, 0.0) == []
    with engine.begin() as connection:
        connection.execute(text("UPDATE rollouts SET ended_at = now() - interval '29 days'"))
    assert let_go(engine, objects, 0.0) == [one.id]
