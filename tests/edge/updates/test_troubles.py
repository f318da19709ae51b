"""What does not go through is one thing, in every mouth, and is over when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.updates import owner
from edge.updates.control import reported
from edge.updates.owner import Owner
from edge.updates.slots import Answer, Slots
from edge.updates.troubles import Troubles, of_both, told_why
from roadfuse.v1.updates_pb2 import Stage

from .crash_disk import CrashDisk
from .simulated import SimulatedCloud, Vehicle, made


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_each_trouble_is_told_to_the_journal_once_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    troubles = Troubles()
    for _ in range(3):
        troubles.begin("disk", "disk: full\nof \x1bthings\0")
        troubles.begin("check-in", "check-in: nobody there")
    assert str(troubles) == "disk: full of ?things?; check-in: nobody there"
    for _ in range(2):
        troubles.end("disk")
    assert str(troubles) == "check-in: nobody there"
    assert lines(caplog) == [
        "update_trouble disk: full of ?things?", "update_trouble check-in: nobody there",
        "update_trouble_over disk: full of ?things?",
    ]  # fmt: skip


def test_what_the_cloud_shows_has_why_first_then_the_agents_trouble_and_the_loops() -> None:
    answer = Answer(trouble="does not open")
    assert of_both("", None) == of_both("", Answer()) == ""
    assert of_both("disk: full", answer) == "disk: full; loop: does not open"
    assert told_why(Slots(why="healthy"), Answer(), "") == "healthy"
    assert told_why(Slots(), None, "disk: full") == "trouble: disk: full"
    assert told_why(Slots(why="healthy"), answer, "x" * 2000)[:20] == "healthy; trouble: xx"
    assert len(told_why(Slots(why="healthy"), answer, "x" * 2000)) == 1000


def test_a_stage_is_one_line_with_why_only_where_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cloud = SimulatedCloud()
    car = Vehicle(CrashDisk(), cloud)
    cloud.assign(made(1, fault="test"))
    car.settle()
    stages = [line for line in lines(caplog) if line.startswith("update_stage")]
    assert stages[:3] == ["update_stage stage=fetching", "update_stage stage=verified", "update_stage stage=built"]
    assert stages[3].startswith("update_stage stage=refused why=")


class Failing(CrashDisk):
    """Takes nothing for files whose name begins so."""

    fails_for: str | None = None

    def write(self, name: str, content: bytes) -> None:
        if self.fails_for is not None and name.startswith(self.fails_for):
            raise OSError(28, "No space left on device")
        super().write(name, content)

    def remove(self, name: str) -> None:
        if self.fails_for is not None and name.startswith(self.fails_for):
            raise OSError(5, "Input/output error")
        super().remove(name)


@pytest.fixture
def failing() -> tuple[Failing, Vehicle, SimulatedCloud]:
    disk, cloud = Failing(), SimulatedCloud()
    return disk, Vehicle(disk, cloud), cloud


def test_slots_that_cannot_be_written_are_trouble_which_the_check_in_tells(
    failing: tuple[Failing, Vehicle, SimulatedCloud],
) -> None:
    disk, car, cloud = failing
    cloud.assign(made(1, fault="probation"))
    while car.loop._answer.put_back is None:
        car.step()
    disk.fails_for = "slots"
    before, calls = car.agent.slots, len(cloud.requests)
    car.agent.hint()
    assert [car.agent.step() for _ in range(2)] == [0.0, 5.0]  # it calls the cloud, then waits
    assert car.agent.trouble == "disk: [Errno 28] No space left on device"
    assert reported(car.agent.slots, None, 0, car.agent.trouble)["why"] == f"trouble: {car.agent.trouble}"
    assert len(cloud.requests) == calls + 1
    assert car.agent.slots is before
    disk.fails_for = None
    assert car.settle().stage == Stage.STAGE_REFUSED
    assert car.agent.trouble == ""


def test_an_assignment_that_cannot_be_written_down_is_asked_for_again(
    failing: tuple[Failing, Vehicle, SimulatedCloud],
) -> None:
    disk, car, cloud = failing
    old, new = made(1), made(2)
    for bundle in (old, new):
        cloud.assign(bundle)
        car.settle()
    disk.fails_for = "kept"
    cloud.stop(new)
    car.agent.hint()
    for _ in range(20):
        car.step()
    assert car.agent.slots.active.bundle == new.id
    assert car.agent.trouble == "check-in: [Errno 28] No space left on device"
    assert not car.agent.is_checked_in()
    disk.fails_for = None
    assert car.settle().active.bundle == old.id
    assert car.agent.trouble == ""


def test_a_brokers_stop_that_is_not_durable_is_trouble_until_it_is(
    failing: tuple[Failing, Vehicle, SimulatedCloud],
) -> None:
    disk, car, cloud = failing
    new = made(1)
    cloud.assign(new)
    car.settle()
    disk.fails_for = "slots"
    with pytest.raises(OSError, match="No space"):
        car.agent.stop(1, [new.id])
    car.step()
    assert car.agent.trouble == "stop 1: not durable yet: [Errno 28] No space left on device"
    disk.fails_for = None
    assert car.agent.stop(1, [new.id])
    assert car.agent.trouble == ""


def test_trouble_with_work_is_over_when_it_went_through_or_is_wanted_no_more(
    failing: tuple[Failing, Vehicle, SimulatedCloud],
) -> None:
    _, car, cloud = failing
    new = made(1)
    cloud.assign(new)
    files, cloud.files = cloud.files, {}

    def nothing(sha256: bytes, offset: int) -> Iterator[bytes]:
        raise ConnectionError("no way to the cloud")

    fetch, cloud.fetch = cloud.fetch, nothing  # type: ignore[method-assign]
    for _ in range(10):
        car.step()
    assert car.agent.trouble == "fetching: no way to the cloud"  # check-ins go through meanwhile
    assert car.agent.is_checked_in()
    car.agent.stop(1, [new.id])
    car.step()
    assert car.agent.trouble == ""
    cloud.assign(made(2))
    cloud.stop()
    car.agent.hint()
    for _ in range(10):
        car.step()
    assert car.agent.trouble == "fetching: no way to the cloud"
    cloud.fetch, cloud.files = fetch, {**files, **cloud.files}  # type: ignore[method-assign]
    car.settle()
    assert car.agent.trouble == ""


def test_what_cannot_be_tidied_away_is_trouble_and_holds_nothing_up(
    failing: tuple[Failing, Vehicle, SimulatedCloud],
) -> None:
    disk, car, cloud = failing
    for counter in (1, 2):
        cloud.assign(made(counter))
        car.settle()
    disk.fails_for = "bundles"
    cloud.assign(made(3))
    assert car.settle().active.counter == 3
    assert car.agent.trouble == "tidying: [Errno 5] Input/output error"
    disk.fails_for = None
    car.clock.s += 60.0
    car.step()
    assert car.agent.trouble == ""


def test_status_reads_the_agents_word_while_it_lasts(tmp_path: Path) -> None:
    assert owner.said(tmp_path) == ""
    with Owner(tmp_path) as mine:
        mine.say("disk: full")
        assert owner.said(tmp_path) == "disk: full"
        mine.say("x" * 1022 + "ää")
        assert owner.said(tmp_path) == "x" * 1022 + "ä"
        mine.say("")
        assert owner.said(tmp_path) == ""
        mine.say("disk: full")
    assert owner.said(tmp_path) == ""
    (tmp_path / owner.LOCK).write_bytes(b"")  # as an older agent left it
    assert owner.said(tmp_path) == ""
