"""Trust outlives torn, emptied and lost files, full disks and power cuts: nothing older is ever taken for it."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import UpdateError

from .attack import Case
from .repositories import SimulatedCloud
from .vehicle import Vehicle

# What a power cut, or a thief, may make of a copy.
WRECKS: dict[str, Callable[[bytes], bytes | None]] = {
    "whole": lambda raw: raw,
    "torn in its head": lambda raw: raw[:20],
    "torn": lambda raw: raw[: len(raw) // 2],
    "a byte short": lambda raw: raw[:-1],
    "emptied": lambda raw: b"",
    "zeros": lambda raw: bytes(len(raw)),
    "one bit other": lambda raw: raw[:-9] + bytes([raw[-9] ^ 4]) + raw[-8:],
    "of something else": lambda raw: b"#!/bin/sh\n",
    "gone": lambda raw: None,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """It runs release 2, and all roots are newer than the factory's."""
    case = Case.at(tmp_path_factory.mktemp("prepared"))
    for repository in (case.cloud.director, case.cloud.image):
        repository.rotate("timestamp")
    case.cloud.publish()
    case.vehicle.check_in()
    case.vehicle.check_in()
    assert case.vehicle.floor == 2
    return case


@pytest.fixture
def case(prepared: Case, tmp_path: Path) -> Case:
    return prepared.copied(tmp_path)


def wreck(case: Case, first: str, second: str) -> None:
    for suffix, how in (("a", first), ("b", second)):
        name = f"trust.{suffix}"
        left = WRECKS[how](case.vehicle.disk.read(name))
        if left is None:
            case.vehicle.disk.remove(name)
        else:
            case.vehicle.disk.write(name, left)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(WRECKS, WRECKS)))
def test_whatever_became_of_the_record_nothing_older_is_taken(case: Case, first: str, second: str) -> None:
    vehicle, cloud = case.vehicle, case.cloud
    request = vehicle.request()
    old_answer = cloud.check_in(request)
    wreck(case, first, second)
    vehicle.start()
    is_lost = "whole" not in (first, second)
    if is_lost:
        assert vehicle.trust.root_versions == (1, 1)
    with pytest.raises(UpdateError):  # its nonce is another process's
        vehicle.believe(old_answer, request.nonce)
    cloud.assigned = "model/1/manifest.json"
    with pytest.raises(UpdateError, match="expected a counter of at least 2, got 1: a rollback"):
        vehicle.check_in()
    assert bool(vehicle.trust.lost) == is_lost
    with pytest.raises(UpdateError, match=r"expected the nonce of this check-in|version"):
        vehicle.believe(old_answer, vehicle.nonce())
    cloud.assigned = "model/2/manifest.json"
    release = vehicle.check_in().release
    assert release is not None and release.counter == 2
    vehicle.start()
    assert vehicle.trust.root_versions == (2, 2) and not vehicle.trust.lost


@pytest.mark.parametrize("how", ["torn", "gone"])
def test_lost_record_says_so_in_one_line(case: Case, how: str) -> None:
    wreck(case, how, how)
    case.vehicle.start()
    case.vehicle.check_in()
    expected = {"torn": "expected a whole copy, got 2 damaged", "gone": "got no file, though release 2 was accepted"}
    assert expected[how] in case.vehicle.trust.lost and "\n" not in case.vehicle.trust.lost


def test_first_start_is_no_loss(tmp_path: Path) -> None:
    cloud = SimulatedCloud()
    vehicle = Vehicle(tmp_path, cloud)
    vehicle.check_in()
    assert not vehicle.trust.lost


def test_old_answer_is_refused_by_its_nonce_alone(case: Case) -> None:
    """Nothing is remembered, the answer is well signed, of yesterday, and of the right release."""
    old_answer = case.cloud.check_in(case.vehicle.request())
    wreck(case, "gone", "gone")
    case.vehicle.start()
    with pytest.raises(UpdateError, match="expected the nonce of this check-in, got another: an old answer"):
        nonce = case.vehicle.nonce()
        first = case.cloud.director.roots[1:]
        old_answer.director_roots[:] = first
        case.vehicle.believe(old_answer, nonce)


def test_power_cut_at_any_byte_of_the_record_leaves_the_old_or_the_new(case: Case) -> None:
    vehicle = case.vehicle
    before = vehicle.holds()
    vehicle.check_in()
    after = vehicle.holds()
    (name,) = (name for name in after if after[name] != before[name])
    for length in range(0, len(after[name]), 61):
        vehicle.disk.write(name, after[name][:length])
        vehicle.start()
        assert not vehicle.trust.lost and vehicle.trust.root_versions == (2, 2)
        vehicle.disk.write(name, after[name][:length] + before[name][length:])  # blocks that were not written
        vehicle.start()
        assert not vehicle.trust.lost and vehicle.trust.root_versions == (2, 2)
    assert vehicle.check_in().release is not None


def test_power_cut_between_roots_and_the_rest_keeps_the_roots(case: Case) -> None:
    """Roots are durable before the answer is looked at: the next process begins there, and the session is repeated."""
    case.cloud.director.rotate("targets")
    writes: list[str] = []

    class PowerCut(Exception):
        pass

    write = case.vehicle.disk.write

    def cut(name: str, content: bytes) -> None:
        writes.append(name)
        if len(writes) == 2:
            raise PowerCut
        write(name, content)

    case.vehicle.disk.write = cut  # type: ignore[method-assign]
    with pytest.raises(PowerCut):
        case.vehicle.check_in()
    case.vehicle.disk.write = write  # type: ignore[method-assign]
    case.vehicle.start()
    assert case.vehicle.trust.root_versions == (3, 2)
    assert case.vehicle.check_in().release is not None


def test_full_disk_takes_nothing_and_loses_nothing(case: Case) -> None:
    case.vehicle.disk.is_full_for = ("trust",)
    case.cloud.release(3)
    seen = case.vehicle.trust.root_versions
    with pytest.raises(UpdateError, match="trust: can't be written, so nothing is taken: No space left on device"):
        case.vehicle.check_in()
    assert case.vehicle.floor == 2
    case.vehicle.start()
    assert not case.vehicle.trust.lost and case.vehicle.trust.root_versions == seen
    case.vehicle.disk.is_full_for = ()
    release = case.vehicle.check_in().release
    assert release is not None and release.counter == 3


def test_full_disk_believes_no_root_that_is_not_durable(case: Case) -> None:
    case.cloud.director.rotate("timestamp")
    case.vehicle.disk.is_full_for = ("trust",)
    with pytest.raises(UpdateError, match="No space left"):
        case.vehicle.check_in()
    assert case.vehicle.trust.root_versions == (2, 2)


def test_disk_that_cannot_be_read_is_said(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(case.vehicle.disk, "read", broken)
    with pytest.raises(UpdateError, match="trust: can't be read: Input/output error"):
        case.vehicle.start()


def test_other_factory_roots_begin_anew(case: Case) -> None:
    """An operator put new roots there: all keys of the old ones were lost."""
    other = SimulatedCloud()
    case.vehicle.factory = (other.director.roots[0], other.image.roots[0])
    case.vehicle.cloud = other
    case.vehicle.start()
    for number in (2, 3):
        other.release(number)
    release = case.vehicle.check_in().release
    assert release is not None and release.counter == 3
    other.assigned = "model/2/manifest.json"
    case.vehicle.floor = 3
    with pytest.raises(UpdateError, match="a rollback"):
        case.vehicle.check_in()
