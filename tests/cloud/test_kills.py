"""Server and database are killed in the middle of everything; what was acknowledged stands."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud.postgres import Postgres

from .fleet import Cloud, Status, Vehicle, chunks, clip, command, fresh_database, refused, summary

MIB = 1 << 20
PASSING = (Status.UNAVAILABLE, Status.CANCELLED, Status.UNKNOWN)


@pytest.fixture
def mortal(postgres: str, tmp_path: Path) -> Iterator[Cloud]:
    """A server of this test's own."""
    with fresh_database(postgres) as database, Cloud(tmp_path, database) as cloud:
        yield cloud


@pytest.fixture
def whole(open_folder: Path, tmp_path: Path) -> Iterator[Cloud]:
    """A server with an embedded database, both of this test's own."""
    with Cloud(open_folder / tmp_path.name, None) as cloud:
        yield cloud


def enrolled(cloud: Cloud, name: str) -> Vehicle:
    """A vehicle of a server whose database is its own."""
    from cloud.database import opened

    with opened(cloud.data, None, share=True) as engine:
        cloud.database = engine.url.render_as_string(hide_password=False)
        vehicle = cloud.vehicle(name)
    cloud.database = None
    return vehicle


def persist(work: Any) -> None:
    """Repeat calls as a vehicle does, until they are answered."""
    for _ in range(1_000):
        try:
            work()
            return
        except grpc.RpcError as error:
            status: Any = error
            assert status.code() in PASSING, f"{status.code()}: {status.details()}"
            time.sleep(0.05)
    raise AssertionError("the server never came back")


def test_a_killed_server_loses_no_acknowledged_byte(mortal: Cloud) -> None:
    vehicle = mortal.vehicle()
    one = clip(1, 24 * MIB)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    acknowledged = 0
    for answer in vehicle.stub.Append(chunks(vehicle.outbox, one), timeout=60):
        acknowledged = answer.durable_offset
        if acknowledged >= 8 * MIB:
            break
    mortal.kill()
    mortal.start()
    vehicle.connect()
    durable = vehicle.begin(one).durable_offset
    assert acknowledged <= durable < len(one.content)
    vehicle.append(chunks(vehicle.outbox, one, durable))
    vehicle.complete(one)
    assert list(mortal.objects(vehicle.name).values()) == [one.content]


def test_nothing_is_lost_and_nothing_is_twice_through_kills_of_the_server(mortal: Cloud) -> None:
    dice = random.Random(1)
    vehicle = mortal.vehicle()
    clips = [clip(sequence, dice.choice([1_000, 100_000, 1_500_000])) for sequence in range(1, 61)]
    deaths = set(dice.sample(range(10, 60), 3))

    def up(sequence: int) -> None:
        one = clips[sequence - 1]
        persist(lambda: vehicle.report(summary(sequence, one), last=sequence))
        persist(lambda: vehicle.upload(one))

    with ThreadPoolExecutor(4) as threads:
        for start in range(1, 61, 10):
            flying = [threads.submit(up, sequence) for sequence in range(start, start + 10)]
            if deaths & set(range(start, start + 10)):
                flying[dice.randrange(3)].result()
                mortal.kill()  # the others are in the middle of something
                mortal.start()
                vehicle.connect()
            for each in flying:
                each.result()
    account = vehicle.account()
    assert (account.given, account.received, account.missing, account.on_board) == (60, 60, 0, 0)
    assert mortal.objects(vehicle.name) == {vehicle.place(one): one.content for one in clips}
    assert mortal.staged(vehicle.name) == []


def test_a_killed_database_comes_back_with_all_that_was_acknowledged(whole: Cloud) -> None:
    vehicle = enrolled(whole, "car")
    clips = [clip(sequence, 1_000) for sequence in range(1, 41)]
    pid_file = whole.data / "postgres" / "data" / "postmaster.pid"
    for one in clips:
        if one.sequence in (10, 25):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
        persist(lambda one=one: vehicle.report(summary(one.sequence, one), last=one.sequence))
        persist(lambda one=one: vehicle.upload(one))
    assert (vehicle.account().received, vehicle.account().missing) == (40, 0)


def test_a_database_that_is_away_is_said_to_be(whole: Cloud) -> None:
    vehicle = enrolled(whole, "car")
    vehicle.report(last=1)
    pid = int((whole.data / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    try:
        vehicle.report(last=2)
    except grpc.RpcError as error:
        answer: Any = error
        assert answer.code() == Status.UNAVAILABLE and "catalogue" in answer.details()
    persist(lambda: vehicle.report(last=3))
    assert vehicle.account().given == 3


def test_health_says_that_the_database_is_away(open_folder: Path, tmp_path: Path) -> None:
    with Postgres(open_folder / "away") as server, Cloud(tmp_path, server.url) as cloud:
        vehicle = cloud.vehicle()
        health, asked = health_pb2_grpc.HealthStub(vehicle.channel), health_pb2.HealthCheckRequest()
        assert health.Check(asked, timeout=30).status == health_pb2.HealthCheckResponse.SERVING
        server.close()
        with refused(Status.UNAVAILABLE, "catalogue"):
            vehicle.report(last=1)
        end = time.monotonic() + 120
        while health.Check(asked, timeout=30).status != health_pb2.HealthCheckResponse.NOT_SERVING:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_full_disk_is_said_and_costs_nothing_that_was_acknowledged(mortal: Cloud) -> None:
    """No file of the server may grow beyond 1.5 MiB, and then it may."""
    vehicle = mortal.vehicle()
    one = clip(1, 3 * MIB)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    assert mortal._process is not None
    limit = resource.prlimit(mortal._process.pid, resource.RLIMIT_FSIZE, (3 * MIB // 2 + 1, resource.RLIM_INFINITY))
    with refused(Status.RESOURCE_EXHAUSTED, "disk refused"):
        vehicle.append(chunks(vehicle.outbox, one))
    assert vehicle.begin(one).durable_offset == 3 * MIB // 2
    resource.prlimit(mortal._process.pid, resource.RLIMIT_FSIZE, limit)
    vehicle.upload(one)
    assert list(mortal.objects(vehicle.name).values()) == [one.content]


def test_chunks_go_on_only_after_begin(mortal: Cloud) -> None:
    """A server that started anew does not know how long the clip is to be."""
    vehicle = mortal.vehicle()
    one = clip(1, 2 * MIB)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    vehicle.append(part for part in chunks(vehicle.outbox, one) if part.offset < MIB)
    mortal.kill()
    mortal.start()
    vehicle.connect()
    with refused(Status.FAILED_PRECONDITION, "Begin first"):
        vehicle.append(chunks(vehicle.outbox, one, MIB))
    vehicle.upload(one)
    assert list(mortal.objects(vehicle.name).values()) == [one.content]


def test_the_database_of_a_killed_server_makes_room_for_the_next(whole: Cloud) -> None:
    vehicle = enrolled(whole, "car")
    one = clip(1, 1_000)
    vehicle.report(summary(1, one))
    vehicle.upload(one)
    whole.kill()
    whole.start()
    vehicle.connect()
    assert vehicle.account().received == 1


def test_a_server_that_is_asked_to_end_lets_calls_finish_and_exits_0(mortal: Cloud) -> None:
    vehicle = mortal.vehicle()
    one = clip(1, 2 * MIB)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    parts = list(chunks(vehicle.outbox, one))
    ending: list[Any] = []

    def until_told_to_end() -> Iterator[Any]:
        yield from parts[:4]
        assert mortal._process is not None
        mortal._process.send_signal(signal.SIGTERM)
        ending.append(True)
        yield from parts[4:]

    assert vehicle.append(until_told_to_end())[-1] == 2 * MIB and ending
    assert mortal.stop() == 0
    mortal.start()
    vehicle.connect()
    assert vehicle.begin(one).durable_offset == 2 * MIB


def test_a_server_that_is_told_to_end_again_and_again_exits_0(mortal: Cloud) -> None:
    process = mortal._process
    assert process is not None
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert process.returncode == 0


def test_two_servers_that_start_at_once_migrate_once(postgres: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with fresh_database(postgres) as database:
        both = [Cloud(tmp_path / "a", database), Cloud(tmp_path / "b", database)]
        try:
            for each in both:
                each.launch()
            for each in both:
                each.await_ready()
        finally:
            for each in both:
                each.kill()


def test_a_second_server_in_one_folder_is_refused(mortal: Cloud) -> None:
    words = ("cloud", "serve", "--data", mortal.data, "--database", mortal.database, "--port", "0", "--enrol-port", "0")
    done = command(*words, check=False)
    assert done.returncode == 2 and "another server uses" in done.stderr and done.stderr.count("\n") == 1


def test_a_clip_whose_object_was_kept_before_a_kill_is_committed_after_it(mortal: Cloud) -> None:
    """The kill came between the object and the catalogue: Complete is repeated."""
    vehicle = mortal.vehicle()
    one = clip(1, 300_000)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    vehicle.append(chunks(vehicle.outbox, one))
    mortal.kill()
    place = mortal.data / "objects" / "clips" / vehicle.name / vehicle.place(one)
    place.parent.mkdir(parents=True)
    place.hardlink_to(mortal.staged(vehicle.name)[0])
    mortal.start()
    vehicle.connect()
    vehicle.complete(one)
    assert vehicle.account().received == 1
    assert list(mortal.objects(vehicle.name).values()) == [one.content] and mortal.staged(vehicle.name) == []


def test_staged_bytes_that_are_not_the_clips_are_found_out(mortal: Cloud) -> None:
    """As after a power cut: the file is long enough, its end is not what was sent."""
    vehicle = mortal.vehicle()
    one = clip(1, 300_000)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    vehicle.append(chunks(vehicle.outbox, one))
    mortal.kill()
    staged = mortal.staged(vehicle.name)[0]
    staged.write_bytes(staged.read_bytes()[:-4096] + bytes(4096))
    mortal.start()
    vehicle.connect()
    assert vehicle.begin(one).durable_offset == len(one.content)
    with refused(Status.DATA_LOSS, "starts over"):
        vehicle.complete(one)
    vehicle.upload(one)
    assert list(mortal.objects(vehicle.name).values()) == [one.content]
