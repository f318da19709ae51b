"""The engine: orders of the rules become assignments and stops, all of it in the log, and nothing of it is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from sqlalchemy import Engine, select, text

from cloud.database import connect, migrate
from cloud.errors import RolloutError
from cloud.releases import stops
from cloud.rollouts import book, log, orders
from cloud.rollouts import engine as engine_module
from cloud.rollouts.desires import Wanted
from cloud.rollouts.engine import KEEP_S, Control
from cloud.rollouts.evidence import APPROVE, PAUSE, RESUME, START, Command, Evidence
from cloud.tables import ASSIGNMENTS

from .fleets import HOUR_S, INTERVAL_S, NEW, OLD, Cars, clear, policy, release


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def cars(engine: Engine) -> Cars:
    clear(engine)
    return Cars(engine, 40)


class Started:
    """A rollout that was started, and an engine that can be thrown away."""

    def __init__(self, engine: Engine, cars: Cars, hardware: Iterable[str] = ("x86",), **more: object) -> None:
        self.engine, self.cars = engine, cars
        self.grace_s = 0.0
        self.told: dict[str, Wanted] = {}
        with engine.begin() as connection:
            release(connection, hardware=hardware)
            self.id = book.create(connection, 2, policy(**more), "ann").id
            book.command(connection, self.id, Command(START, "ann"))
        self.connection = engine.connect()
        self.anew()

    def anew(self) -> None:
        """As after a crash: nothing is known but the database."""
        self.control = Control(self.connection, self.told.update, self.cars.clock, self.grace_s)

    def cycle(self) -> None:
        """One look."""
        self.control.cycle()

    def hours(
        self, hours: float, failing: dict[str, int] | None = None, each: Callable[[], object] = lambda: None
    ) -> None:
        """Drive, with reports and looks around the end of each interval, until it ends or is over."""
        cars = self.cars
        end_s = cars.now_s + hours * HOUR_S
        while cars.now_s < end_s and not self.rollout.is_over:
            cars.drive(INTERVAL_S - cars.now_s % INTERVAL_S - 2.0 or INTERVAL_S, failing)
            self.cycle()
            cars.now_s += 3.0
            cars.obey()
            self.cycle()
            each()

    def command(self, kind: str, **more: object) -> None:
        with self.engine.begin() as connection:
            book.command(connection, self.id, Command(kind, "bob", **more))  # type: ignore[arg-type]

    def finish(self) -> None:
        """As if all waves were through."""
        finished = {"at_s": self.cars.now_s, "orders": [orders.to_dict(orders.Finish("all waves are through"))]}
        with self.engine.begin() as connection:
            book.get(connection, self.id, lock=True)
            log.append(connection, self.id, [(log.ORDERED, finished)], log.last(connection, self.id)[0])

    @property
    def rollout(self) -> book.Rollout:
        with self.engine.begin() as connection:
            return book.get(connection, self.id)

    @property
    def evidence(self) -> Evidence:
        with self.engine.begin() as connection:
            return book.evidence(connection, self.id)

    @property
    def replay(self) -> log.Replay:
        with self.engine.begin() as connection:
            return log.replayed(log.read(connection, self.id))

    def orders(self) -> list[str]:
        """What was ordered, but for single vehicles."""
        with self.engine.begin() as connection:
            rows = [entry for entry in log.read(connection, self.id) if entry.kind == log.ORDERED]
        return [one["order"] for entry in rows for one in entry.content["orders"] if one["order"] != "assign"]


@pytest.fixture
def start(engine: Engine, cars: Cars) -> Iterator[Callable[..., Started]]:
    with contextlib.ExitStack() as stack:

        def begin(hardware: Iterable[str] = ("x86",), **more: object) -> Started:
            started = Started(engine, cars, hardware, **more)
            stack.callback(started.connection.close)
            return started

        yield begin


def test_a_good_release_goes_through_shadow_and_waves_to_all(start: Callable[..., Started], cars: Cars) -> None:
    one = start()
    one.hours(6)
    assert one.rollout.state == "done"
    assert one.orders() == ["promote", "promote", "promote", "promote", "finish"]
    cars.obey()  # those that were told last
    assert set(cars.active.values()) == {NEW} and cars.assigned(2) == set(cars.names)
    assert {word.mode for word in one.told.values()} == {2}, "all were told over MQTT"
    assert one.replay.differs == "" and one.replay.ordered > 40


def test_what_is_done_is_kept_when_it_ends_and_then_no_more_often_than_what_runs(
    start: Callable[..., Started], cars: Cars, engine: Engine
) -> None:
    one = start()
    one.hours(6)
    assert one.rollout.state == "done"
    kept = set()
    for _ in range(20):
        cars.now_s += KEEP_S / 10
        cars.report()
        one.cycle()
        with engine.begin() as connection:
            kept.add(connection.execute(text("SELECT folded->'number' FROM rollouts")).scalar_one())
            assert book.evidence(connection, one.id).state == "done"
    assert 2 <= len(kept) <= 4


def test_a_release_that_turns_out_worse_after_all_waves_are_through_is_stopped(
    start: Callable[..., Started], cars: Cars
) -> None:
    one = start(control={"share": 0.3, "joins_at_end": False})  # without anybody to compare with nobody can tell
    one.hours(6)
    assert one.rollout.state == "done"
    for _ in range(60):
        cars.drive(INTERVAL_S - cars.now_s % INTERVAL_S - 2.0 or INTERVAL_S, {NEW: 1})
        one.cycle()
        cars.now_s += 3.0
        one.cycle()
    assert one.rollout.state == "stopped" and "worse acted on" in one.rollout.why
    assert one.replay.differs == ""


def test_a_release_that_fails_in_the_shadow_is_stopped_and_nobody_acts_on_it(
    start: Callable[..., Started], cars: Cars, engine: Engine
) -> None:
    one = start()
    acted: set[str] = set()
    one.hours(6, {NEW: 1}, lambda: acted.update(name for name in cars.names if cars.active[name] == NEW))
    assert one.rollout.state == "stopped" and "worse in the shadow" in one.rollout.why
    assert not acted and not cars.assigned(1) and not cars.assigned(2)
    with engine.begin() as connection:
        assert stops.current(connection).bundles == (NEW,)
        rows = [row for row in log.read(connection, one.id) if row.kind == log.RECORDED]
    record = rows[-1].content
    assert record["what"] == "stop" and record["record"]["e_value"] >= record["record"]["needed"]
    assert {word.rollout for word in one.told.values()} == {""}, "those that shadowed were told that it is over"
    assert one.replay.differs == ""


def test_an_engine_that_starts_anew_each_time_gives_the_same_orders(start: Callable[..., Started], cars: Cars) -> None:
    one = start()
    one.hours(6, {OLD: 1}, one.anew)
    assert one.rollout.state == "done"
    assert one.orders() == ["promote", "promote", "promote", "promote", "finish"]
    assert one.replay.differs == ""
    hours = sum(one.cars.seconds.values()) / HOUR_S
    with one.engine.begin() as connection:
        known = book.evidence(connection, one.id)
    exposed = known.exposed
    counted = exposed["old/all"].hours + exposed["active/all"].hours + exposed["shadow/all"].hours
    assert 0.75 * hours < counted <= hours, "what was counted before the start is not counted again"


def test_what_happened_while_no_engine_ran_is_counted_once(start: Callable[..., Started], cars: Cars) -> None:
    one = start()
    one.hours(0.1)
    before = one.replay.evidence.exposed["old/all"].hours
    for _ in range(10):
        cars.drive(60.0)
    one.anew()
    one.hours(0.1)
    after = one.replay.evidence.exposed["old/all"].hours
    expected = 10 / 60 * len(cars.names)
    assert after - before == pytest.approx(expected + 0.1 * len(cars.names), rel=0.25)


def test_vehicles_that_could_not_be_heard_while_nothing_ran_are_not_silent(
    start: Callable[..., Started], cars: Cars
) -> None:
    one = start(silence={"after_s": 300.0})
    one.hours(0.5)
    cars.now_s += 2 * HOUR_S  # the whole cloud was away
    one.grace_s = 150.0
    one.anew()
    one.cycle()
    cars.now_s += 60.0
    one.cycle()
    cars.report()
    one.hours(6)
    assert not any(vehicle.is_silent for vehicle in one.replay.evidence.vehicles.values())
    assert one.rollout.state == "done" and one.replay.differs == ""
    assert all("silent" not in name for name in one.replay.evidence.comparisons)


def test_a_command_while_nothing_ran_makes_nobody_silent(start: Callable[..., Started], cars: Cars) -> None:
    one = start(silence={"after_s": 300.0})
    one.hours(0.3)
    cars.now_s += 2 * HOUR_S
    one.command(PAUSE)
    cars.report()
    one.anew()
    one.cycle()
    assert one.rollout.state == "paused"
    assert not any(vehicle.is_silent for vehicle in one.replay.evidence.vehicles.values())


def test_verdicts_of_the_bigger_model_count_once(start: Callable[..., Started], engine: Engine, cars: Cars) -> None:
    one = start()
    one.hours(0.2)
    for n in range(6):
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))  # no scenes are needed here
            connection.execute(
                text(
                    "INSERT INTO verdicts (scene_id, vehicle, active, staged, worse, better, slices, judged_at) "
                    "VALUES (:n, :vehicle, :old, :new, '[\"pedestrians\"]', '[]', '[\"all\"]', to_timestamp(:at))"
                ),
                {"n": n, "vehicle": cars.names[n], "old": OLD, "new": NEW, "at": cars.now_s - 1.0},
            )
        one.hours(0.06)
        one.anew()
    known = one.replay.evidence
    assert known.comparisons["judged/worse/all"].treated == 6 and known.comparisons["judged/worse/all"].control == 0


def test_a_rollout_that_can_not_be_understood_stops_no_other(
    start: Callable[..., Started], engine: Engine, cars: Cars
) -> None:
    one = start()
    with engine.begin() as connection:
        other = book.create(connection, 2, policy(), "ann")
        connection.execute(
            text("UPDATE rollout_log SET content = '{}' WHERE rollout = :id AND number = 1"), {"id": other.id}
        )
    one.hours(6)
    assert one.rollout.state == "done"


def test_a_stop_does_not_wait_for_those_that_come_back(
    start: Callable[..., Started], engine: Engine, cars: Cars
) -> None:
    one = start()
    one.hours(0.2)
    cars.now_s += 2 * HOUR_S
    one.grace_s = 150.0
    one.anew()
    with engine.begin() as connection:
        stops.stop(connection, NEW, "smoke")
    one.cycle()
    assert one.rollout.state == "stopped" and not cars.assigned(1)


@pytest.mark.parametrize("is_anew", [True, False])
def test_a_cycle_that_breaks_leaves_nothing(
    start: Callable[..., Started], engine: Engine, cars: Cars, monkeypatch: pytest.MonkeyPatch, is_anew: bool
) -> None:
    one = start()
    one.hours(0.05)
    with engine.begin() as connection:
        before = log.last(connection, one.id), list(connection.execute(select(ASSIGNMENTS)))

    def broken(*_: object) -> int:
        raise OSError("power is out")

    with monkeypatch.context() as broke:
        broke.setattr(log, "append", broken)
        for _ in range(3):
            cars.drive(INTERVAL_S)
            one.cycle()
    with engine.begin() as connection:
        assert (log.last(connection, one.id), list(connection.execute(select(ASSIGNMENTS)))) == before
    one.anew() if is_anew else None
    one.hours(6)
    assert one.rollout.state == "done" and one.replay.differs == ""


def test_commands_are_obeyed_and_kept_with_who_gave_them(start: Callable[..., Started], cars: Cars) -> None:
    waves = [{"name": "canary", "share": 0.25, "least_hours": 0.1, "needs_approval": True}, {"name": "all"}]
    one = start(waves=waves)
    one.hours(1)
    assert one.replay.evidence.asked == 1 and not cars.assigned(2)
    one.command(PAUSE, why="a holiday")
    one.command(APPROVE, wave=1)
    one.hours(0.2)
    assert one.rollout.state == "paused" and not cars.assigned(2)
    one.command(RESUME)
    one.hours(2)
    assert one.rollout.state == "done"
    said = [(command.kind, command.by) for _, command in one.replay.evidence.said]
    assert said == [("start", "ann"), ("pause", "bob"), ("approve", "bob"), ("resume", "bob")]
    assert one.replay.evidence.approved == {1: "bob"} and one.replay.differs == ""


def test_an_abort_takes_out_who_does_not_yet_run_the_release(start: Callable[..., Started], cars: Cars) -> None:
    one = start()

    def abort() -> None:
        if NEW in cars.active.values() and not one.rollout.is_over:
            one.command("abort", why="enough")

    one.hours(6, each=abort)
    assert one.rollout.state == "aborted" and "enough" in one.rollout.why
    assert cars.assigned(2) == {name for name in cars.names if cars.active[name] == NEW} != set()
    assert not cars.assigned(1) and one.replay.differs == ""


@pytest.mark.parametrize("is_done", [True, False])
def test_what_ends_is_kept_whoever_ends_it_and_though_it_was_done(
    start: Callable[..., Started], engine: Engine, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    monkeypatch.setattr(engine_module, "KEEP_S", 1e9)
    one = start()
    one.cycle()

    def is_kept() -> bool:
        with engine.begin() as connection:
            number = connection.execute(text("SELECT (folded->>'number')::int FROM rollouts")).scalar_one()
            return bool(number == log.last(connection, one.id)[0])

    if is_done:
        one.finish()
        one.cycle()
        assert one.rollout.state == "done" and is_kept()
        with engine.begin() as connection:
            stops.stop(connection, NEW, "smoke")
    else:
        one.command("abort")
    one.cycle()
    assert one.rollout.state == ("stopped" if is_done else "aborted") and is_kept()


def test_where_a_later_rollout_has_the_hardware_one_that_is_done_lets_go_of_it_alone(
    start: Callable[..., Started], engine: Engine, cars: Cars
) -> None:
    away = {"car-00000": "x86", "car-00039": "orin"}
    with engine.begin() as connection:
        connection.execute(text("UPDATE fleet SET hardware = 'orin' WHERE vehicle > 'car-00019'"))
        connection.execute(text("DELETE FROM fleet WHERE vehicle = ANY(:away)"), {"away": list(away)})
    everybody = {"shadow": {"share": 1.0}, "control": {"share": 0.0}}
    one = start(("x86", "orin"), **everybody)
    one.cycle()
    one.finish()
    one.cycle()
    with engine.begin() as connection:
        release(connection, 3, "77" * 32)
        later = book.create(connection, 3, policy(shadow={"share": 0.0, "least_vehicles": 1}), "ann")
        book.command(connection, later.id, Command(START, "ann"))
    one.cycle()
    with engine.begin() as connection:
        came = "INSERT INTO fleet (vehicle, hardware, state, active) VALUES (:vehicle, :hardware, 'driving', :active)"
        for vehicle, hardware in away.items():
            connection.execute(text(came), {"vehicle": vehicle, "hardware": hardware, "active": OLD})
    cars.now_s += 20.0
    cars.report()
    one.cycle()
    with engine.begin() as connection:
        told = {row.vehicle: row.release for row in connection.execute(select(ASSIGNMENTS))}
    assert told["car-00039"] == 2 and told.get("car-00000") != 2 and 3 in told.values()
    assert one.evidence.taken == ("x86",)


def test_a_wave_that_lasted_too_long_goes_on_as_long_again_after_a_resume(start: Callable[..., Started]) -> None:
    waves = [{"name": "canary", "share": 0.25, "least_hours": 1e6, "most_duration_h": 0.5}, {"name": "all"}]
    one = start(waves=waves)
    one.hours(2)
    assert one.orders()[-1] == "hold" and "has lasted longer than 0.5 h" in one.rollout.why
    one.command(RESUME)
    one.cycle()
    assert one.orders()[-1] == "go_on" and one.rollout.why == "" and one.replay.differs == ""
    with pytest.raises(RolloutError, match="expected a rollout that is paused, or whose wave has lasted too long"):
        one.command(RESUME)


def test_a_bundle_that_somebody_stops_ends_its_rollout(
    start: Callable[..., Started], engine: Engine, cars: Cars
) -> None:
    one = start()
    one.hours(0.1)
    assert cars.assigned(1)
    with engine.begin() as connection:
        number = stops.stop(connection, NEW, "smoke (by eve)")
    one.cycle()
    assert one.rollout.state == "stopped" and "smoke (by eve)" in one.rollout.why
    assert not cars.assigned(1) and one.replay.differs == ""
    with engine.begin() as connection:
        assert stops.current(connection).number == number, "it is stopped once"


def test_silence_of_vehicles_that_were_told_to_run_it_stops_it(start: Callable[..., Started], cars: Cars) -> None:
    one = start(silence={"after_s": 300.0})

    def die() -> None:
        cars.silent.update(cars.assigned(2))

    one.hours(8, each=die)
    assert one.rollout.state == "stopped", "they fell silent as soon as they ran it"
    assert one.replay.differs == ""


def test_a_log_that_was_tampered_with_does_not_replay(start: Callable[..., Started], engine: Engine) -> None:
    one = start()
    one.hours(1)
    assert one.replay.differs == ""
    with engine.begin() as connection:
        entries = log.read(connection, one.id)
    ordered = [n for n, entry in enumerate(entries) if entry.kind == log.ORDERED]
    assert log.replayed([*entries[: ordered[1]], *entries[ordered[1] + 1 :]]).differs
    changed = entries[ordered[1]].content["orders"][0]
    changed["vehicle" if "vehicle" in changed else "wave"] = "car-00099"
    assert "the log says" in log.replayed(entries).differs


def test_a_vehicle_that_is_heard_of_again_and_again_does_not_fill_the_log(
    start: Callable[..., Started], engine: Engine, cars: Cars
) -> None:
    one = start(tests={"interval_s": 3_600.0})
    one.cycle()
    with engine.begin() as connection:
        before = log.last(connection, one.id)[0]
    for _ in range(60):
        cars.now_s += 5.0
        cars.report()
        one.cycle()
    with engine.begin() as connection:
        assert log.last(connection, one.id)[0] - before <= 2


def test_only_one_engine_works_on_a_database(engine: Engine) -> None:
    from cloud.rollouts.control import _is_ours, _release

    with engine.connect() as first, engine.connect() as second:
        assert _is_ours(first) and not _is_ours(second)
        _release(first)
        assert _is_ours(second)
        with second.begin():
            killed = second.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with engine.begin() as third:
            third.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": killed})
        second.invalidate()
        while not _is_ours(first):  # who loses the connection loses the lock
            time.sleep(0.05)
        _release(first)
