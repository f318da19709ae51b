"""The protocol's promises, against a real server over mTLS."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cloud.catalogue import Catalogue
from cloud.database import connect
from cloud.limits import Limits
from roadfuse.v1 import ingest_pb2

from .fleet import EVICTED, LOST, Clip, Cloud, Status, Vehicle, chunks, clip, refused, summary

MIB = 1 << 20


@pytest.fixture
def vehicle(cloud: Cloud) -> Iterator[Vehicle]:
    one = cloud.vehicle()
    yield one
    one.channel.close()


def told(vehicle: Vehicle, size: int, sequence: int = 1) -> Clip:
    """A clip whose scene the cloud knows."""
    one = clip(sequence, size)
    vehicle.report(summary(sequence, one))
    return one


def made_anew(of: Clip, old: Clip) -> ingest_pb2.SceneSummary:
    """What is told of a clip that takes an older one's place."""
    scene = summary(1, of)
    scene.former_sha256.append(old.sha256)
    return scene


def cut_off(vehicle: Vehicle, of: Clip, until: int) -> None:
    """Append up to `until` bytes, then break the connection off without a word."""
    answers = vehicle.stub.Append(_and_then_nothing(part for part in chunks(vehicle.outbox, of) if part.offset < until))
    for answer in answers:
        if answer.durable_offset >= until:
            break
    vehicle.channel.close()
    vehicle.connect()


def _and_then_nothing(parts: Any) -> Iterator[ingest_pb2.Chunk]:
    yield from parts
    threading.Event().wait(60)


def test_a_clip_goes_up_whole(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 3 * MIB + 17)
    assert vehicle.begin(one).durable_offset == 0
    assert vehicle.append(chunks(vehicle.outbox, one))[-1] == len(one.content)
    vehicle.complete(one)
    assert cloud.objects(vehicle.name) == {vehicle.place(one): one.content}
    assert cloud.staged(vehicle.name) == []
    account = vehicle.account()
    assert (account.given, account.received, account.missing) == (1, 1, 0)


def test_a_clip_of_no_bytes_is_a_clip(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 0)
    vehicle.upload(one)
    assert cloud.objects(vehicle.name) == {vehicle.place(one): b""}
    assert vehicle.account().received == 1


def test_what_was_done_is_answered_as_it_was_then(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 100_000)
    vehicle.upload(one)
    vehicle.complete(one)
    assert vehicle.begin(one).is_complete
    vehicle.report(summary(1, one))
    assert vehicle.account().received == 1
    assert len(cloud.objects(vehicle.name)) == 1


def test_a_clip_that_was_cut_off_goes_on_at_its_durable_offset(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 7 * MIB)
    vehicle.begin(one)
    cut_off(vehicle, one, 4 * MIB)
    begun = vehicle.begin(one)
    assert begun.durable_offset == 4 * MIB
    vehicle.append(chunks(vehicle.outbox, one, begun.durable_offset))
    vehicle.complete(one)
    assert list(cloud.objects(vehicle.name).values()) == [one.content]


def test_offsets_are_answered_at_least_every_four_megabytes_and_at_the_end(vehicle: Vehicle) -> None:
    one = told(vehicle, 6 * MIB + 5)
    vehicle.begin(one)
    assert vehicle.append(chunks(vehicle.outbox, one)) == [4 * MIB, 6 * MIB + 5]


def test_a_stream_that_ends_early_leaves_its_bytes_durable(vehicle: Vehicle) -> None:
    one = told(vehicle, 3 * MIB)
    vehicle.begin(one)
    assert vehicle.append(part for part in chunks(vehicle.outbox, one) if part.offset < MIB) == [MIB]
    with refused(Status.FAILED_PRECONDITION, f"expected {3 * MIB} bytes, got {MIB}"):
        vehicle.complete(one)
    assert vehicle.begin(one).durable_offset == MIB


def test_a_chunk_elsewhere_than_at_the_durable_offset_is_refused(vehicle: Vehicle) -> None:
    one = told(vehicle, MIB)
    vehicle.begin(one)
    with refused(Status.FAILED_PRECONDITION, "expected a chunk at offset 0, got 262144"):
        vehicle.append(chunks(vehicle.outbox, one, 256 << 10))
    vehicle.upload(one)


def test_a_chunk_with_another_crc_is_refused_and_leaves_nothing(vehicle: Vehicle) -> None:
    one = told(vehicle, MIB)
    vehicle.begin(one)
    parts = list(chunks(vehicle.outbox, one))
    parts[1].crc32 ^= 1
    with refused(Status.INVALID_ARGUMENT, "CRC-32"):
        vehicle.append(parts)
    assert vehicle.begin(one).durable_offset == len(parts[0].content)


@pytest.mark.parametrize("size", [0, MIB + 1])
def test_a_chunk_of_no_or_too_many_bytes_is_refused(vehicle: Vehicle, size: int) -> None:
    one = told(vehicle, 2 * MIB)
    vehicle.begin(one)
    content = one.content[:size]
    with refused(Status.INVALID_ARGUMENT, "chunk of 1 to"):
        vehicle.append(
            [ingest_pb2.Chunk(outbox=vehicle.outbox, sequence=1, content=content, crc32=zlib.crc32(content))]
        )
    assert vehicle.begin(one).durable_offset == 0


def test_a_message_beyond_the_limit_is_refused(vehicle: Vehicle) -> None:
    with refused(Status.RESOURCE_EXHAUSTED):
        vehicle.stub.Report(ingest_pb2.ReportRequest(outbox=os.urandom(5 * MIB)), timeout=30)


def test_more_bytes_than_were_announced_are_refused(vehicle: Vehicle) -> None:
    one = told(vehicle, 1000)
    vehicle.begin(one)
    longer = Clip(1, one.content + b"more")
    with refused(Status.INVALID_ARGUMENT, "at most 1000 bytes, got 1004"):
        vehicle.append(chunks(vehicle.outbox, longer))
    assert vehicle.begin(one).durable_offset == 0


def test_a_lying_digest_stores_nothing(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 2 * MIB)
    vehicle.begin(one)
    vehicle.append(chunks(vehicle.outbox, Clip(1, os.urandom(2 * MIB))))
    with refused(Status.DATA_LOSS, "SHA-256", one.sha256.hex()):
        vehicle.complete(one)
    assert cloud.objects(vehicle.name) == {} and cloud.staged(vehicle.name) == []
    assert vehicle.account().on_board == 1
    vehicle.upload(one)
    assert vehicle.account().received == 1


def test_a_clip_is_what_it_was_told_to_be(vehicle: Vehicle) -> None:
    told(vehicle, 1000)
    with refused(Status.INVALID_ARGUMENT, "expected 1000 bytes"):
        vehicle.begin(clip(1, 1000))


def test_a_scene_is_told_of_before_its_clip(vehicle: Vehicle) -> None:
    with refused(Status.NOT_FOUND, "scene"):
        vehicle.begin(clip(1, 10))
    one = told(vehicle, 10)
    with refused(Status.FAILED_PRECONDITION, "Begin first"):
        vehicle.append(chunks(vehicle.outbox, one))


def test_of_two_uploads_of_one_scene_the_later_wins(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 7 * MIB)
    vehicle.begin(one)
    more = threading.Event()

    def first() -> Iterator[ingest_pb2.Chunk]:
        parts = list(chunks(vehicle.outbox, one))
        yield from parts[:16]
        more.wait(60)
        yield from parts[16:]

    earlier = vehicle.stub.Append(first(), timeout=60)
    assert next(earlier).durable_offset == 4 * MIB
    vehicle.upload(one)
    more.set()
    with refused(Status.ABORTED, "took this upload over"):
        list(earlier)
    assert list(cloud.objects(vehicle.name).values()) == [one.content]


def test_a_vehicle_cannot_touch_anothers_scene(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 100_000)
    vehicle.begin(one)
    other = cloud.vehicle()
    other.outbox = vehicle.outbox
    for call in (other.begin, other.upload, other.complete):
        with refused(Status.NOT_FOUND):
            call(one)
    with refused(Status.FAILED_PRECONDITION):
        other.append(chunks(vehicle.outbox, one))
    other.report(summary(1), last=1)
    assert other.account().evicted == 1
    assert vehicle.account().on_board == 1
    vehicle.upload(one)
    assert cloud.objects(other.name) == {}


def test_evicting_a_clip_lets_go_of_what_is_staged(cloud: Cloud, vehicle: Vehicle) -> None:
    one = told(vehicle, 2 * MIB)
    vehicle.begin(one)
    vehicle.append(part for part in chunks(vehicle.outbox, one) if part.offset < MIB)
    vehicle.report(evictions=[ingest_pb2.Eviction(sequence=1, media=LOST, reason="damaged")], last=1)
    assert cloud.staged(vehicle.name) == []
    with refused(Status.FAILED_PRECONDITION, "gone"):
        vehicle.begin(one)
    assert vehicle.account().lost == 1


def test_a_clip_made_anew_goes_up_whole_though_half_of_the_old_one_is_staged(cloud: Cloud, vehicle: Vehicle) -> None:
    old, new = told(vehicle, MIB), clip(1, MIB // 2)
    vehicle.begin(old)
    vehicle.append(list(chunks(vehicle.outbox, old))[:2])
    assert cloud.staged(vehicle.name)
    with refused(Status.ALREADY_EXISTS):
        vehicle.report(summary(1, new))
    for _ in range(2):
        vehicle.report(made_anew(new, old))
    assert not cloud.staged(vehicle.name)
    with refused(Status.INVALID_ARGUMENT):
        vehicle.begin(old)
    vehicle.upload(new)
    assert list(cloud.objects(vehicle.name).values()) == [new.content]
    another = clip(1, 5)
    with refused(Status.ALREADY_EXISTS):  # it is here
        vehicle.report(made_anew(another, new))


def test_a_later_report_never_takes_a_received_clip_back(vehicle: Vehicle) -> None:
    one = told(vehicle, 1000)
    vehicle.upload(one)
    vehicle.report(evictions=[ingest_pb2.Eviction(sequence=1, media=EVICTED, reason="quota")], last=1)
    vehicle.report(summary(1, one))
    account = vehicle.account()
    assert (account.received, account.evicted, account.on_board) == (1, 0, 0)


def test_a_report_names_the_clips_that_are_wanted_until_they_are_here(cloud: Cloud, vehicle: Vehicle) -> None:
    one, other = clip(1, 1000), clip(2, 1000)
    vehicle.report(summary(1, one), summary(2, other))
    assert cloud.database is not None
    engine = connect(cloud.database)
    Catalogue(engine, Limits()).want(vehicle.name, vehicle.outbox, 2)
    engine.dispose()
    assert vehicle.report(last=2) == [2]
    vehicle.upload(other)
    assert vehicle.report(last=2) == []


def test_a_vehicle_stages_no_more_than_its_quota(vehicle: Vehicle) -> None:
    clips = [clip(sequence, 6 * MIB) for sequence in (1, 2, 3)]
    vehicle.report(*(summary(one.sequence, one) for one in clips))
    for one in clips[:2]:
        vehicle.begin(one)
    with refused(Status.RESOURCE_EXHAUSTED, str(16 * MIB)):
        vehicle.begin(clips[2])
    vehicle.upload(clips[0])
    vehicle.begin(clips[2])


def test_a_clip_beyond_the_limit_may_be_told_of_and_not_sent(vehicle: Vehicle) -> None:
    one = told(vehicle, 9 * MIB)
    with refused(Status.INVALID_ARGUMENT, f"at most {8 * MIB}"):
        vehicle.begin(one)
    assert vehicle.account().on_board == 1


def test_missing_numbers_are_named(vehicle: Vehicle) -> None:
    vehicle.report(summary(2), summary(5), last=7)
    account = vehicle.account()
    assert (account.given, account.evicted, account.missing) == (7, 2, 5)
    assert list(account.missing_sequences) == [1, 3, 4, 6, 7]


def test_health_and_reflection_answer(vehicle: Vehicle) -> None:
    health = health_pb2_grpc.HealthStub(vehicle.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="roadfuse.v1.Ingest"), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(vehicle.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    listed = next(iter(reflection.ServerReflectionInfo(asked, timeout=30)))
    assert "roadfuse.v1.Ingest" in [service.name for service in listed.list_services_response.service]


def test_health_is_not_watched_for_a_watch_without_an_end_takes_the_room_of_a_call(cloud: Cloud) -> None:
    """On the port of enrolment nobody has a certificate yet."""
    credentials = grpc.ssl_channel_credentials(cloud.ca)
    with grpc.secure_channel(f"localhost:{cloud.enrol_port}", credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        with refused(Status.UNIMPLEMENTED, "expected Check"):
            list(health.Watch(health_pb2.HealthCheckRequest(), timeout=30))
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_without_an_end_takes_no_room_where_nobody_has_a_certificate(cloud: Cloud) -> None:
    credentials = grpc.ssl_channel_credentials(cloud.ca)
    with grpc.secure_channel(f"localhost:{cloud.enrol_port}", credentials) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        with refused(Status.UNIMPLEMENTED):
            list(reflection.ServerReflectionInfo(asked, timeout=30))


def test_a_call_without_a_client_certificate_is_refused(cloud: Cloud) -> None:
    with grpc.secure_channel(f"127.0.0.1:{cloud.port}", grpc.ssl_channel_credentials(cloud.ca)) as channel:
        call = channel.unary_unary("/roadfuse.v1.Ingest/Account")
        with refused(Status.UNAVAILABLE):
            call(b"", timeout=30)
