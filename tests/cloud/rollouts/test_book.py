"""What may be asked of a rollout and when; each command is in the log, with who gave it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from cloud.database import connect, migrate
from cloud.errors import RolloutError
from cloud.releases import stops
from cloud.rollouts import book, log
from cloud.rollouts.evidence import ABORT, APPROVE, PAUSE, RESUME, RETRY, START, Command

from .fleets import NEW, clear, policy, release


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    clear(engine)
    with engine.begin() as connection:
        yield connection


def create(connection: Connection, counter: int = 2, **more: Any) -> book.Rollout:
    return book.create(connection, counter, policy(), "ann", **more)


def test_a_rollout_of_a_release_whose_gates_passed_is_created_and_found(connection: Connection) -> None:
    release(connection)
    made = create(connection)
    assert (made.state, made.release, made.bundle, made.created_by) == ("created", 2, NEW, "ann")
    assert book.get(connection, made.id) == book.get(connection, made.id[:5]) == made
    assert book.listed(connection, active=True) == book.listed(connection) == [made]
    assert book.policy(connection, made.id) == policy()
    first, second = log.read(connection, made.id)
    assert first.content["by"] == "ann" and first.content["policy"] == policy().to_dict()
    known = book.evidence(connection, made.id)
    assert {verdict for verdict, _ in known.gates.values()} == {"passed"} and second.kind == log.COMMANDED


@pytest.mark.parametrize("verdict", ["refused", "skipped", "nonsense"])
def test_without_its_gates_a_release_is_not_rolled_out_but_for_a_reason(connection: Connection, verdict: str) -> None:
    release(connection, verdict=verdict)
    with pytest.raises(RolloutError, match=f"to have passed gate .*, got {verdict}"):
        create(connection)
    with pytest.raises(RolloutError, match="expected a reason"):
        create(connection, without_gates="  ")
    made = create(connection, without_gates="replay of the yard is broken")
    assert log.read(connection, made.id)[0].content["without_gates"] == "replay of the yard is broken"
    assert book.evidence(connection, made.id).gates == {
        book.WITHOUT_GATES: ("passed", "ann: replay of the yard is broken")
    }


def test_a_gate_that_gave_no_verdict_did_not_pass(connection: Connection) -> None:
    release(connection)
    connection.execute(text("DELETE FROM gates WHERE gate = 'golden'"))
    with pytest.raises(RolloutError, match="passed gate golden, got no verdict"):
        create(connection)


def test_a_gate_that_the_policy_lets_be_skipped_may_be(connection: Connection) -> None:
    release(connection)
    connection.execute(text("UPDATE gates SET verdict = 'skipped' WHERE gate IN ('replay', 'parity')"))
    assert create(connection).state == "created"


def test_what_can_not_be_rolled_out_is_refused(connection: Connection) -> None:
    with pytest.raises(RolloutError, match="expected the counter of a release, got 9"):
        create(connection, 9)
    release(connection)
    stops.stop(connection, NEW, "smoke")
    with pytest.raises(RolloutError, match="not stopped, got 2, stopped: smoke"):
        create(connection)
    connection.execute(text("UPDATE releases SET revoked_at = now(), revoked_why = 'worse'"))
    with pytest.raises(RolloutError, match="that counts, got 2, revoked: worse"):
        create(connection)


@pytest.mark.parametrize("by", ["", " ", "x" * 101, "a\0b"])
def test_nobody_commands_without_a_name(connection: Connection, by: str) -> None:
    release(connection)
    made = create(connection)
    with pytest.raises(RolloutError, match="expected who says so"):
        book.command(connection, made.id, Command(START, by))


def test_commands_that_make_no_sense_are_refused(connection: Connection) -> None:
    release(connection)
    made = create(connection)

    def say(kind: str, **more: Any) -> None:
        book.command(connection, made.id, Command(kind, "bob", **more))

    for kind in (PAUSE, RESUME, APPROVE, RETRY):
        with pytest.raises(RolloutError, match="expected a rollout that was started"):
            say(kind)
    say(START)
    with pytest.raises(RolloutError, match="expected a rollout that was not started"):
        say(START)
    with pytest.raises(RolloutError, match="expected a rollout that is paused"):
        say(RESUME)
    say(PAUSE), say(RESUME)
    with pytest.raises(RolloutError, match="expected a rollout that is paused"):
        say(RESUME)
    for wave in (0, -1, 3):
        with pytest.raises(RolloutError, match="expected a wave from 1 to 2"):
            say(APPROVE, wave=wave)
    with pytest.raises(RolloutError, match="expected a command of"):
        say("format")
    connection.execute(text("UPDATE rollouts SET state = 'done'"))
    with pytest.raises(RolloutError, match="expected a rollout that is not over"):
        say(ABORT)


def test_two_rollouts_for_the_same_hardware_do_not_run_at_once(connection: Connection) -> None:
    release(connection)
    release(connection, 3, "77" * 32)
    first, second = create(connection), create(connection, 3)
    book.command(connection, first.id, Command(START, "bob"))
    with pytest.raises(RolloutError, match=f"expected no other rollout for x86, got {first.id}"):
        book.command(connection, second.id, Command(START, "bob"))
    connection.execute(text("UPDATE rollouts SET state = 'done' WHERE id = :id"), {"id": first.id})
    book.command(connection, second.id, Command(START, "bob"))


def test_of_two_starts_at_the_same_moment_the_second_waits_and_is_refused(engine: Engine) -> None:
    clear(engine)
    with engine.begin() as connection:
        release(connection)
        release(connection, 3, "77" * 32)
        first, second = create(connection), create(connection, 3)
    refused = []

    def start() -> None:
        try:
            with engine.begin() as connection:
                book.command(connection, second.id, Command(START, "bob"))
        except RolloutError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with engine.begin() as connection:
        book.command(connection, first.id, Command(START, "ann"))
        thread.start()
        while thread.is_alive() and not connection.execute(waiting).scalar_one():
            time.sleep(0.01)
    thread.join()
    assert refused and f"expected no other rollout for x86, got {first.id}" in refused[0]


def test_what_is_done_is_followed_until_later_ones_have_all_of_its_hardware(connection: Connection) -> None:
    release(connection, hardware=("x86", "orin"))
    release(connection, 3, "77" * 32)
    release(connection, 4, "88" * 32, hardware=("orin",))
    done, x86, orin = create(connection), create(connection, 3), create(connection, 4)
    change = text("UPDATE rollouts SET state = :state, created_at = created_at - interval '1 h', ended_at = "
                  "CASE WHEN :state = 'done' THEN now() END WHERE id = :id")  # fmt: skip

    def followed(one: book.Rollout, state: str) -> dict[str, tuple[str, ...]]:
        connection.execute(change, {"id": one.id, "state": state})
        return {one.id: taken for one, taken in book.followed(connection)}

    assert followed(done, "done") == {done.id: (), x86.id: (), orin.id: ()}
    assert followed(x86, "running") == {done.id: ("x86",), x86.id: (), orin.id: ()}
    connection.execute(text("UPDATE rollouts SET created_at = '2001-01-01' WHERE id = :id"), {"id": orin.id})
    assert followed(orin, "running") == {x86.id: (), orin.id: ()}, "created first, but started last"


@pytest.mark.parametrize("words", ["", "r", "%", "r2_", "nothing"])
def test_a_name_that_none_or_several_have_is_refused(connection: Connection, words: str) -> None:
    release(connection)
    release(connection, 3, "77" * 32)
    create(connection), create(connection, 3)
    with pytest.raises(RolloutError, match="expected the id of a rollout"):
        book.get(connection, words)


def test_what_is_kept_is_what_the_log_says(connection: Connection) -> None:
    release(connection)
    made = create(connection)
    known, number, aside, _ = book.loaded(connection, made.id)
    book.keep(connection, known, number, {"counted": 7})
    book.command(connection, made.id, Command(START, "bob"))
    again, last, aside, rows = book.loaded(connection, made.id)
    assert aside == {"counted": 7} and [row.number for row in rows] == [number + 1] == [last]
    assert again.state == "running" and again == log.replayed(log.read(connection, made.id)).evidence
