"""A small clip in one call: kept once, the same digest rules as for any clip, nothing acknowledged is lost."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from sqlalchemy import text

from cloud.database import connect
from roadfuse.v1 import ingest_pb2

from .fleet import EVICTED, Clip, Cloud, Status, Vehicle, chunks, clip, fresh_database, refused, summary

MIB = 1 << 20


def put(vehicle: Vehicle, of: Clip, content: bytes | None = None, sha256: bytes | None = None) -> None:
    request = ingest_pb2.PutRequest(
        outbox=vehicle.outbox,
        sequence=of.sequence,
        sha256=of.sha256 if sha256 is None else sha256,
        content=of.content if content is None else content,
    )
    vehicle.stub.Put(request, timeout=30)


def kept(cloud: Cloud, vehicle: Vehicle) -> dict[int, bytes]:
    found = cloud.objects(vehicle.name)
    return {int(Path(name).stem.partition("-")[0]): content for name, content in found.items()}


def jobs(cloud: Cloud, vehicle: Vehicle) -> int:
    assert cloud.database is not None
    engine = connect(cloud.database)
    with engine.connect() as connection:
        count = connection.execute(
            text("SELECT count(*) FROM jobs JOIN scenes ON subject = scenes.id::text WHERE vehicle = :vehicle"),
            {"vehicle": vehicle.name},
        ).scalar_one()
    engine.dispose()
    return int(count)


def test_a_clip_in_one_call_is_there_once_however_often_it_is_sent(cloud: Cloud) -> None:
    vehicle, one = cloud.vehicle(), clip(1, 100_000)
    vehicle.report(summary(1, one))
    for _ in range(3):
        put(vehicle, one)
    account = vehicle.account()
    assert (account.received, account.on_board, account.missing) == (1, 0, 0)
    assert kept(cloud, vehicle) == {1: one.content} and jobs(cloud, vehicle) == 1


def test_clips_that_come_together_are_all_kept(cloud: Cloud) -> None:
    vehicle = cloud.vehicle()
    clips = [clip(sequence, size) for sequence, size in enumerate([0, 1, 5_000, MIB] * 10, 1)]
    vehicle.report(*(summary(one.sequence, one) for one in clips))
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda one: put(vehicle, one), clips + clips))
    assert kept(cloud, vehicle) == {one.sequence: one.content for one in clips}
    assert vehicle.account().received == len(clips) == jobs(cloud, vehicle)


def test_a_bad_clip_is_refused_and_those_beside_it_are_kept(cloud: Cloud) -> None:
    vehicle = cloud.vehicle()
    clips = [clip(sequence, 10_000) for sequence in range(1, 21)]
    vehicle.report(*(summary(one.sequence, one) for one in clips))

    def send(one: Clip) -> grpc.StatusCode:
        is_bad = one.sequence % 2 == 0
        try:
            put(vehicle, one, content=os.urandom(10_000) if is_bad else None)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined]
        return Status.OK

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(send, clips))
    assert answers == [Status.OK, Status.DATA_LOSS] * 10
    assert sorted(kept(cloud, vehicle)) == list(range(1, 21, 2))


def test_what_is_not_the_told_clip_is_refused(cloud: Cloud) -> None:
    vehicle, one, other = cloud.vehicle(), clip(1, 1_000), clip(1, 2_000)
    with refused(Status.NOT_FOUND, "told of"):
        put(vehicle, one)
    vehicle.report(summary(1, one))
    with refused(Status.INVALID_ARGUMENT, "1000 bytes", "got 2000"):
        put(vehicle, other)
    with refused(Status.INVALID_ARGUMENT, "as it was told of"):
        put(vehicle, one, sha256=b"")
    with refused(Status.DATA_LOSS, "expected SHA-256"):
        put(vehicle, one, content=bytes(1_000))
    large = clip(2, MIB + 1)
    vehicle.report(summary(2, large))
    with refused(Status.INVALID_ARGUMENT, f"at most {MIB} bytes in one call"):
        put(vehicle, large)
    gone = clip(3, 1_000)
    vehicle.report(summary(3, gone))
    vehicle.report(last=3, evictions=[ingest_pb2.Eviction(sequence=3, media=EVICTED, reason="quota")])
    with refused(Status.FAILED_PRECONDITION, "gone"):
        put(vehicle, gone)
    assert kept(cloud, vehicle) == {} and jobs(cloud, vehicle) == 0


def test_another_vehicles_scene_is_none(cloud: Cloud) -> None:
    vehicle, thief, one = cloud.vehicle(), cloud.vehicle(), clip(1, 1_000)
    vehicle.report(summary(1, one))
    thief.outbox = vehicle.outbox
    with refused(Status.NOT_FOUND):
        put(thief, one)


def test_an_upload_that_was_begun_ends_with_the_clip_in_one_call(cloud: Cloud) -> None:
    vehicle, one = cloud.vehicle(), clip(1, MIB)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    vehicle.append(part for part in chunks(vehicle.outbox, one) if part.offset < MIB // 2)
    put(vehicle, one)
    assert cloud.staged(vehicle.name) == [] and kept(cloud, vehicle) == {1: one.content}
    assert vehicle.begin(one).is_complete


def test_a_killed_server_loses_no_acknowledged_clip(postgres: str, tmp_path: Path) -> None:
    with fresh_database(postgres) as database, Cloud(tmp_path, database) as cloud:
        vehicle = cloud.vehicle()
        clips = [clip(sequence, 50_000) for sequence in range(1, 200)]
        vehicle.report(*(summary(one.sequence, one) for one in clips))
        acknowledged: list[int] = []

        def send(one: Clip) -> None:
            try:
                put(vehicle, one)
                acknowledged.append(one.sequence)
            except grpc.RpcError as error:
                assert error.code() in (Status.UNAVAILABLE, Status.CANCELLED, Status.UNKNOWN)  # type: ignore[attr-defined]
            if len(acknowledged) == 50:
                cloud.kill()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(send, clips))
        assert 50 <= len(acknowledged) < len(clips)
        cloud.start()
        vehicle.connect()
        here = kept(cloud, vehicle)
        assert all(here[one.sequence] == one.content for one in clips if one.sequence in acknowledged)
        assert vehicle.account().received >= len(acknowledged)
        for one in clips:
            put(vehicle, one)
        assert kept(cloud, vehicle) == {one.sequence: one.content for one in clips}
        assert vehicle.account().received == len(clips)
