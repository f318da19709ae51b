"""Bytes that are no messages, and messages that lie: a clear status, nothing stored, the server up."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud.limits import Limits
from roadfuse.v1 import ingest_pb2

from .fleet import Cloud, Status, Vehicle, chunks, clip, summary

CASES = 400
REFUSALS = {
    Status.INVALID_ARGUMENT,
    Status.NOT_FOUND,
    Status.FAILED_PRECONDITION,
    Status.ALREADY_EXISTS,
    Status.PERMISSION_DENIED,
    Status.RESOURCE_EXHAUSTED,
}


def mangled(dice: random.Random, whole: bytes) -> bytes:
    """A message with bytes changed, cut, doubled or in place of it."""
    kind = dice.randrange(4)
    if kind == 0:
        return dice.randbytes(dice.randrange(200))
    if kind == 1:
        return whole[: dice.randrange(len(whole))]
    if kind == 2:
        at = dice.randrange(len(whole))
        return whole[:at] + dice.randbytes(dice.randrange(1, 9)) + whole[at:]
    changed = bytearray(whole)
    for _ in range(dice.randrange(1, 6)):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


@pytest.fixture
def vehicle(cloud: Cloud) -> Iterator[Vehicle]:
    one = cloud.vehicle()
    yield one
    one.channel.close()


def test_malformed_messages_are_refused_and_store_nothing_of_another_vehicle(cloud: Cloud, vehicle: Vehicle) -> None:
    dice = random.Random(7)
    one = clip(1, 100_000)
    vehicle.report(summary(1, one))
    before = vehicle.account()
    attacker = cloud.vehicle()
    report = ingest_pb2.ReportRequest(outbox=attacker.outbox, last_sequence=2, scenes=[summary(1, one), summary(2)])
    begin = ingest_pb2.BeginRequest(outbox=vehicle.outbox, sequence=1, bytes=100_000, sha256=one.sha256)
    complete = ingest_pb2.CompleteRequest(outbox=vehicle.outbox, sequence=1)
    enrol = ingest_pb2.EnrolRequest(csr=b"-----BEGIN CERTIFICATE REQUEST-----\n", token="token")
    chunk = next(chunks(vehicle.outbox, one))
    enrolment = grpc.secure_channel(f"127.0.0.1:{cloud.enrol_port}", grpc.ssl_channel_credentials(cloud.ca))
    calls: list[tuple[Any, bytes]] = [
        (attacker.channel.unary_unary("/roadfuse.v1.Ingest/Report"), report.SerializeToString()),
        (attacker.channel.unary_unary("/roadfuse.v1.Ingest/Begin"), begin.SerializeToString()),
        (attacker.channel.unary_unary("/roadfuse.v1.Ingest/Complete"), complete.SerializeToString()),
        (attacker.channel.stream_stream("/roadfuse.v1.Ingest/Append"), chunk.SerializeToString()),
        (enrolment.unary_unary("/roadfuse.v1.Enrolment/Enrol"), enrol.SerializeToString()),
    ]
    refused = 0
    for number in range(CASES):
        call, whole = calls[number % len(calls)]
        payload = mangled(dice, whole)
        try:
            if number % len(calls) == 3:
                list(call(iter([payload]), timeout=30))
            else:
                call(payload, timeout=30)
        except grpc.RpcError as error:
            status: Any = error
            assert status.code() in REFUSALS, f"case {number}: {status.code()}: {status.details()}"
            assert "\n" not in status.details()
            refused += 1
    enrolment.close()
    assert refused > CASES // 2  # some changed bytes leave an honest report
    assert vehicle.account() == before
    assert cloud.objects(attacker.name) == {} and cloud.staged(attacker.name) == []
    health = health_pb2_grpc.HealthStub(vehicle.channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    vehicle.upload(one)


def test_malformed_bytes_are_named_so(vehicle: Vehicle) -> None:
    for call in ("Report", "Begin", "Complete", "Account"):
        with pytest.raises(grpc.RpcError) as refusal:
            vehicle.channel.unary_unary(f"/roadfuse.v1.Ingest/{call}")(b"\xff\xff\xff", timeout=30)
        answer: Any = refusal.value
        assert answer.code() == Status.INVALID_ARGUMENT and "malformed" in answer.details()


def test_an_outbox_cant_be_a_path(cloud: Cloud, vehicle: Vehicle) -> None:
    one = clip(1, 10)
    vehicle.outbox = b"../../../../../x"
    assert len(vehicle.outbox) == 16
    vehicle.report(summary(1, one))
    vehicle.upload(one)
    assert list(cloud.objects(vehicle.name)) == [vehicle.place(one)]


def test_an_endless_list_of_outboxes_ends(cloud: Cloud) -> None:
    vehicle = cloud.vehicle()
    for _ in range(64):
        vehicle.outbox = os.urandom(16)
        vehicle.report(last=1)
    vehicle.outbox = os.urandom(16)
    with pytest.raises(grpc.RpcError) as refusal:
        vehicle.report(last=1)
    assert refusal.value.code() == Status.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_silent_calls_of_one_vehicle_leave_the_others_theirs(cloud: Cloud, vehicle: Vehicle) -> None:
    over = threading.Event()

    def silence() -> Iterator[ingest_pb2.Chunk]:
        over.wait()
        yield from ()

    hog = cloud.vehicle()
    try:
        calls = [hog.stub.Append(silence(), timeout=120) for _ in range(Limits().calls + 8)]
        with pytest.raises(grpc.RpcError) as wait:
            hog.stub.Account(ingest_pb2.AccountRequest(), timeout=2)
        assert wait.value.code() == Status.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        vehicle.stub.Account(ingest_pb2.AccountRequest(), timeout=30)
    finally:
        over.set()
        hog.channel.close()
    assert all(call.code() != Status.RESOURCE_EXHAUSTED for call in calls)
