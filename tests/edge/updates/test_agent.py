"""The agent's way from an assignment to a confirmed bundle, and every way back."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from edge.errors import UpdateError
from edge.updates import operator
from edge.updates.assignment import Assignment, TargetFile
from edge.updates.install import Installer
from edge.updates.rules import MOST_STOP_NUMBER
from edge.updates.slots import Held, Slots
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2 import Mode, Stage

from .crash_disk import CrashDisk
from .simulated import Made, SimulatedCloud, Vehicle, is_whole, made


def vehicle(*stories: Made) -> tuple[Vehicle, SimulatedCloud]:
    """That has confirmed these, one after the other."""
    cloud = SimulatedCloud()
    car = Vehicle(CrashDisk(), cloud)
    for story in stories:
        cloud.assign(story)
        slots = car.settle()
        assert slots.active.bundle == story.id, slots
    return car, cloud


def test_an_assigned_release_goes_all_the_way_and_is_confirmed_by_time_alone() -> None:
    new = made(1)
    car, cloud = vehicle()
    cloud.assign(new)
    stages = []
    for _ in range(120):
        car.step()
        stages.append(car.agent.slots.stage)
    order = [stage for index, stage in enumerate(stages) if index == 0 or stages[index - 1] != stage]
    assert order == [*range(Stage.STAGE_FETCHING, Stage.STAGE_CONFIRMED + 1), Stage.STAGE_IDLE]
    assert car.agent.slots.active == Held(new.id, 1, "r")
    assert car.agent.slots.previous == Held()
    assert car.agent.slots.highest_counter == 1
    assert car.loop.running == new.id


def test_shadow_mode_stays_in_the_shadow() -> None:
    car, cloud = vehicle()
    cloud.assign(made(1), Mode.MODE_SHADOW)
    slots = car.settle(200)
    assert (slots.stage, slots.active.bundle, slots.highest_counter) == (Stage.STAGE_SHADOWING, "", 0)
    assert car.loop.acted == {""}


def test_activation_waits_for_the_shadow_to_have_run_long_enough() -> None:
    car, cloud = vehicle()
    cloud.assign(made(1))
    while car.agent.slots.stage != Stage.STAGE_SHADOWING:
        car.step()
    for _ in range(20):  # the loop stands still: no evidence, no activation
        car.clock.s += car.agent.step()
    assert car.agent.slots.stage == Stage.STAGE_SHADOWING


@pytest.mark.parametrize("where", ["build", "test", "shadow", "swap", "probation"])
def test_a_bundle_that_fails_is_refused_with_why_and_never_taken_again(where: str) -> None:
    old, bad = made(1), made(2, fault=where)
    car, cloud = vehicle(old)
    cloud.assign(bad)
    slots = car.settle()
    assert slots.stage == Stage.STAGE_REFUSED
    assert slots.active.bundle == old.id == car.loop.running
    assert slots.staged is None
    assert slots.why and slots.refused[-1].bundle == bad.id
    again = made(3, *[c for n, c in bad.files.items() if n != "manifest.json"], fault=where)
    assert again.id == bad.id
    cloud.assign(again)  # with a higher counter: it failed here by itself, so it stays out
    slots = car.settle()
    assert (slots.stage, slots.active.bundle, slots.staged) == (Stage.STAGE_REFUSED, old.id, None)
    assert "was refused here" in slots.why
    assert bad.id not in car.disk.list("bundles")


def test_withdrawn_drops_what_is_staged_and_nothing_else() -> None:
    car, cloud = vehicle(made(1))
    cloud.assign(made(2), Mode.MODE_SHADOW)
    assert car.settle().stage == Stage.STAGE_SHADOWING
    cloud.assign(None, Mode.MODE_UNSPECIFIED)
    car.agent.hint()
    slots = car.settle()
    assert (slots.stage, slots.staged) == (Stage.STAGE_IDLE, None)
    assert "withdrawn" in slots.why
    assert slots.active.counter == 1


def test_another_release_takes_the_place_of_the_staged_one() -> None:
    car, cloud = vehicle(made(1))
    cloud.assign(made(2), Mode.MODE_SHADOW)
    car.settle()
    newer = made(3)
    cloud.assign(newer)
    car.agent.hint()
    assert car.settle().active.bundle == newer.id


def test_a_counter_below_the_highest_accepted_is_never_taken() -> None:
    car, cloud = vehicle(made(1), made(5))
    cloud.assign(made(3))
    slots = car.settle()
    assert (slots.active.counter, slots.staged) == (5, None)
    assert slots.why == "release 3 is below release 5, which was accepted before"


def test_a_stop_of_the_active_bundle_puts_the_previous_one_back_at_once_and_is_durable() -> None:
    old, new = made(1), made(2)
    car, _ = vehicle(old, new)
    assert car.agent.stop(1, [new.id])
    slots = car.agent.slots
    assert (slots.active.bundle, slots.previous, slots.stage) == (old.id, None, Stage.STAGE_REFUSED)
    car.loop.look(0.1)
    assert car.loop.running == old.id
    assert Vehicle(car.disk, car.cloud).agent.slots == slots


def test_a_stop_of_both_leaves_the_reference_bundle() -> None:
    old, new = made(1), made(2)
    car, _ = vehicle(old, new)
    car.agent.stop(1, [new.id, old.id])
    assert car.agent.slots.active == Held()


def test_a_stopped_bundle_is_not_begun_and_comes_back_only_when_released_anew() -> None:
    new = made(1)
    car, cloud = vehicle()
    cloud.stop(new)
    cloud.assign(new)
    slots = car.settle()
    assert (slots.active.bundle, slots.staged) == ("", None)
    assert "stopped" in slots.why
    cloud.stop()
    assert car.settle().active.bundle == new.id
    car.agent.stop(9, [new.id])
    cloud.assignment = type(cloud.assignment)(new.release, Mode.MODE_ACTIVATE, "r", 10, frozenset(), 0, 30.0)
    assert car.settle().active.bundle == ""  # the same counter
    released_anew = made(2, *[c for n, c in new.files.items() if n != "manifest.json"])
    cloud.assign(released_anew)
    assert car.settle().active == Held(new.id, 2, "r")


def test_a_brokers_notice_with_a_number_below_the_directors_is_void_and_makes_no_director_void() -> None:
    old, new = made(1), made(2)
    car, cloud = vehicle(old, new)
    cloud.stop()
    car.agent.hint()
    car.settle()
    assert not car.agent.stop(0, [new.id])
    assert car.agent.slots.active.bundle == new.id
    car.agent.stop(MOST_STOP_NUMBER, [])
    cloud.stop(new)
    car.agent.hint()
    car.settle()
    assert car.agent.slots.active.bundle == old.id


def test_a_brokers_stop_that_comes_while_the_director_is_asked_outlives_its_answer_and_not_the_next() -> None:
    car, cloud = vehicle()
    new, check_in = made(1), cloud.check_in

    def stopping(request: updates_pb2.CheckInRequest) -> updates_pb2.CheckInResponse:
        response = check_in(request)
        car.agent.stop(1, [new.id])
        return response

    cloud.assign(new)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloud, "check_in", stopping)
        car.agent.hint()
        car.step()
    assert car.agent.slots.stopped == (new.id,) and car.agent.slots.staged is None
    car.agent.hint()
    assert car.settle().active.bundle == new.id


def test_a_stop_in_the_middle_of_fetching_counts() -> None:
    new = made(1)
    car, cloud = vehicle()
    cloud.assign(new)
    inner, calls = cloud.fetch, []

    def fetch(sha256: bytes, offset: int):  # type: ignore[no-untyped-def]
        if not calls:
            calls.append(car.agent.stop(1, [new.id]))
        return inner(sha256, offset)

    cloud.fetch = fetch  # type: ignore[method-assign]
    while not calls:
        car.step()
    assert calls == [True]
    assert (car.agent.slots.stage, car.agent.slots.staged) == (Stage.STAGE_REFUSED, None)
    assert car.loop.running == ""


def test_an_operator_gets_the_previous_bundle_back() -> None:
    old, new = made(1), made(2)
    car, _ = vehicle(old, new)
    operator.ask(car.disk, operator.BACK, new.id)
    slots = car.settle()
    assert (slots.active.bundle, car.loop.running) == (old.id, old.id)
    assert slots.refused[-1].may_come_back


def test_without_a_way_to_the_cloud_it_tries_ever_more_rarely_and_what_runs_runs_on() -> None:
    car, cloud = vehicle(made(1))
    cloud.is_down = True
    waits = []
    for _ in range(12):
        car.agent.hint()
        before = car.clock.s
        car.agent.step()
        while not car.agent._due_s <= car.clock.s:
            car.clock.s += 1.0
        waits.append(car.clock.s - before)
    assert waits == sorted(waits)
    assert 10 < waits[-1] <= 600
    assert "no way" in car.agent.trouble
    assert car.agent.slots.active.counter == 1


def test_bytes_that_are_not_what_was_signed_are_refused_after_some_tries() -> None:
    new = made(1)
    car, cloud = vehicle()
    cloud.assign(new)
    cloud.files = {digest: content[::-1] for digest, content in cloud.files.items()}

    def refuse(file: object, have: object) -> str:
        raise UpdateError("expected other bytes")

    car.agent._installer._fetcher.fetch = refuse  # type: ignore[method-assign, assignment]
    for _ in range(200):
        car.step()
    slots = car.agent.slots
    assert (slots.stage, slots.active.bundle) == (Stage.STAGE_REFUSED, "")
    assert slots.refused[-1].may_come_back


def test_a_self_test_that_takes_the_machine_with_it_is_not_tried_for_ever() -> None:
    new = made(1)
    car, cloud = vehicle()
    cloud.assign(new)
    deaths = 0
    for _ in range(50):
        car = Vehicle(car.disk, cloud)

        def die(bundle: str, active: str) -> None:
            raise KeyboardInterrupt

        car.tester.test = die  # type: ignore[method-assign]
        try:
            car.settle()
        except KeyboardInterrupt:
            deaths += 1
    assert deaths == 8
    assert "did not survive" in car.agent.slots.refused[-1].why


def test_only_bundles_in_a_slot_stay_on_the_disk() -> None:
    car, _ = vehicle(made(1), made(2), made(3))
    car.settle()
    held = [car.agent.slots.active.bundle, car.agent.slots.previous.bundle]  # type: ignore[union-attr]
    assert car.disk.list("bundles") == sorted(held)
    assert car.disk.list("parts") == []


def test_files_of_a_bundle_go_only_once_its_name_is_durably_gone_though_a_process_dies_in_between() -> None:
    car, _ = vehicle(made(1))
    name = car.agent.slots.active.bundle
    car.disk.rename(f"bundles/{name}", f"bundles/.{name}.gone")  # and there the process died
    broken: list[bool] = []

    def look(disk: CrashDisk) -> None:
        for tree in disk.states(64, Random(1)):
            left = tree["bundles"].get(name)
            broken.append(left is not None and not is_whole(CrashDisk({"bundles": {name: left}}), name))

    car.disk.on_change = look  # type: ignore[attr-defined]
    Installer(car.disk, car.agent._installer._fetcher).tidy((), keeps_parts=False)
    assert broken and not any(broken)
    assert car.disk.list("bundles") == []


def test_slots_that_are_lost_come_back_from_where_they_are_kept_once_more() -> None:
    car, _ = vehicle(made(1), made(2))
    slots = car.agent.slots
    car.disk.write("slots.a", b"rubbish")
    car.disk.remove("slots.b")
    again = Vehicle(car.disk, car.cloud)
    assert (again.agent.slots.active, again.agent.slots.previous) == (slots.active, slots.previous)
    assert again.agent.slots.highest_counter == 2


def test_with_all_records_lost_the_reference_bundle_runs_and_says_why() -> None:
    car, _ = vehicle(made(1))
    for name in ("slots.a", "slots.b", "kept.a", "kept.b"):
        car.disk.write(name, b"rubbish")
    again = Vehicle(car.disk, car.cloud)
    assert again.agent.slots.active == Held()
    assert "lost" in again.agent.slots.why
    assert again.loop.running == ""


def test_names_that_lead_out_of_the_bundle_are_refused() -> None:
    new = made(1)
    car, cloud = vehicle()
    evil = replace(new.release.files[1], name="../../slots.a")
    cloud.assign(Made(replace(new.release, files=(new.release.files[0], evil)), new.files))
    slots: Slots = car.settle()
    assert slots.stage == Stage.STAGE_REFUSED
    assert "plain file names" in slots.why


def test_a_stop_in_an_answer_whose_release_is_refused_counts_all_the_same() -> None:
    class Refused(UpdateError):
        """As edge/updates/trust.ReleaseRefused."""

        assignment = Assignment(None, Mode.MODE_ACTIVATE, "", 1, frozenset(), 0, 30.0)

    old, new = made(1), made(2)
    car, _ = vehicle(old, new)

    def verified(*_: object) -> Assignment:
        refused = Refused("release: expected hardware of x86")
        refused.assignment = replace(refused.assignment, stopped=frozenset([new.id]))
        raise refused

    car.agent._trust.verified = verified  # type: ignore[method-assign]
    car.agent.hint()
    car.step()
    assert car.agent.slots.active.bundle == old.id
    assert "expected hardware" in car.agent.trouble


def test_fetching_stops_being_wanted_when_the_slots_change() -> None:
    car, cloud = vehicle()
    cloud.assign(made(1))
    inner, wanted = cloud.fetch, []

    def fetch(sha256: bytes, offset: int) -> Iterator[bytes]:
        wanted.append(car.agent.is_wanted())
        car.agent.stop(len(wanted), ["e" * 64])
        wanted.append(car.agent.is_wanted())
        return inner(sha256, offset)

    cloud.fetch = fetch  # type: ignore[method-assign]
    while not wanted:
        car.step()
    assert wanted[:2] == [True, False]


def test_fetching_stops_being_wanted_when_an_operator_wishes_something() -> None:
    old, new = made(1), made(2)
    car, cloud = vehicle(old)
    cloud.assign(new)
    inner, wanted = cloud.fetch, []

    def fetch(sha256: bytes, offset: int) -> Iterator[bytes]:
        wanted.append(car.agent.is_wanted())
        operator.ask(car.disk, operator.BACK, old.id)
        wanted.append(car.agent.is_wanted())
        raise ConnectionError("no longer wanted just now")

    cloud.fetch = fetch  # type: ignore[method-assign]
    while not wanted:
        car.step()
    assert wanted == [True, False]
    cloud.fetch = inner  # type: ignore[method-assign]
    car.step()
    assert car.agent.slots.active == Held() and not operator.is_asked(car.disk, operator.BACK)


def test_a_base_with_a_file_that_can_not_be_read_keeps_no_release_from_coming() -> None:
    old, new = made(1), made(2)
    car, cloud = vehicle(old)
    digest, fetch = car.disk.digest, car.agent._installer._fetcher.fetch
    worn, *others = [f"bundles/{old.id}/{file.name}" for file in old.release.files]
    had = []

    def wears(name: str) -> bytes | None:
        if name == worn:
            raise OSError(errno.EIO, "Input/output error")
        return digest(name)

    def watch(file: TargetFile, have: dict[bytes, str]) -> str:
        had.append(set(have.values()))
        return fetch(file, have)

    car.disk.digest = wears  # type: ignore[method-assign]
    car.agent._installer._fetcher.fetch = watch  # type: ignore[method-assign, assignment]
    cloud.assign(new)
    assert car.settle().active.bundle == new.id
    assert had[0] == set(others)


def test_differences_may_be_built_on_what_is_on_board_and_on_the_reference() -> None:
    old, new = made(1), made(2)
    car, cloud = vehicle(old)
    car.agent._installer._reference = {b"r" * 32: "/reference/camera.onnx"}
    inner, had = car.agent._installer._fetcher.fetch, []

    def fetch(file: TargetFile, have: dict[bytes, str]) -> str:
        had.append(dict(have))
        return inner(file, have)

    car.agent._installer._fetcher.fetch = fetch  # type: ignore[method-assign, assignment]
    cloud.assign(new)
    car.settle()
    names = {f"bundles/{old.id}/{file.name}" for file in old.release.files}
    assert set(had[0].values()) == names | {"/reference/camera.onnx"}  # the previous one
    assert all(car.disk.digest(name) in had[0] for name in names if name in car.disk.list(""))


def test_a_pardoned_bundle_is_taken_again_though_its_release_is_the_same() -> None:
    old, new = made(1), made(2)
    car, cloud = vehicle(old)
    cloud.assign(new)
    test = car.tester.test

    def refuse(bundle: str, active: str) -> None:
        raise UpdateError("self-test: the machine was busy")

    car.tester.test = refuse  # type: ignore[method-assign]
    assert car.settle().refused[-1].bundle == new.id
    car.tester.test = test  # type: ignore[method-assign]
    assert car.settle().active.bundle == old.id
    operator.ask(car.disk, operator.PARDON, new.id)
    slots = car.settle()
    assert (slots.active, slots.refused) == (Held(new.id, 2, "r"), ())


def test_a_wish_is_durably_gone_before_anything_else_happens() -> None:
    car, _ = vehicle(made(1))
    for what in (operator.BACK, operator.PARDON):
        operator.ask(car.disk, what, "f" * 64)
    assert operator.heed(car.disk, lambda _: None)
    cuts = list(car.disk.states(100, Random(1)))  # type: ignore[attr-defined]
    assert cuts and not any(name.endswith(".wish") for tree in cuts for name in tree)
    assert not operator.heed(car.disk, lambda _: None)


def test_a_wish_of_rubbish_is_forgotten() -> None:
    car, _ = vehicle(made(1))
    before = car.agent.slots
    for what in (operator.BACK, operator.PARDON):
        car.disk.write(f"{what}.wish", b"\xff\0")
    car.step()
    assert car.agent.slots is before
    assert not any(operator.is_asked(car.disk, what) for what in (operator.BACK, operator.PARDON))


def test_a_wish_that_is_heeded_twice_leaves_one_bundle() -> None:
    old, new = made(1), made(2)
    car, _ = vehicle(old, new)
    for _ in range(2):  # the power was cut before it was forgotten
        operator.ask(car.disk, operator.BACK, new.id)
        car.step()
        assert car.agent.slots.active.bundle == old.id
        assert not operator.is_asked(car.disk, operator.BACK)
