"""Handing scenes up: nothing lost, nothing twice, little sent again, whatever the network and the cloud do."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge.errors import UplinkError
from edge.uplink.client import CHUNK_BYTES, WHOLE_BYTES, Uplink, said
from edge.uplink.outbox import NAME, Outbox, Quota
from edge.uplink.pace import Backoff, Bucket, Clips, Link
from edge.uplink.waiting import noted_link
from roadfuse.v1.ingest_pb2 import MEDIA_STATE_EVICTED, SceneSummary

from .ingest_server import Cloud, serve

Status = grpc.StatusCode


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def channel(cloud: Cloud) -> Iterator[grpc.Channel]:
    server, address = serve(cloud)
    with grpc.insecure_channel(address) as channel:
        yield channel
    server.stop(None)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path, Quota(1 << 40, 0)) as outbox:
        yield outbox


class Hasty(Backoff):
    def wait_s(self) -> float:
        return 0.001


def held(outbox: Outbox, content: bytes, worth: float = 1.0) -> int:
    sequence, _ = outbox.give(SceneSummary(first_ns=7, hardness=0.5), worth)
    outbox.path(sequence).write_bytes(content)
    outbox.hold(sequence, hashlib.sha256(content).digest(), len(content))
    return sequence


def drain(uplink: Uplink) -> None:
    """As `run` does, without its waits."""
    for _ in range(200):
        try:
            if not uplink.step():
                return
        except (grpc.RpcError, UplinkError):
            continue
    raise AssertionError("it never ends")


def test_all_is_told_of_and_handed_up_and_let_go_of(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    contents = {held(outbox, os.urandom(size)): size for size in (7, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 5)}
    refused, _ = outbox.give(SceneSummary(), 1.0)
    outbox.refuse(refused, "budget")
    uplink = Uplink(outbox, channel)
    uplink.drain(threading.Event())
    assert {sequence: len(clip) for (_, sequence), clip in cloud.clips.items()} == contents
    assert cloud.scenes[outbox.id, refused].media == MEDIA_STATE_EVICTED
    assert cloud.given == 5 and outbox.account().delivered == 4
    assert not list(outbox.folder.glob("scene-*"))
    assert uplink.traffic.sent_bytes == sum(contents.values()) == cloud.received_bytes


def test_a_scene_is_told_of_before_its_clip_goes_up(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    held(outbox, b"clip")
    cloud.failures["Report"] = [Status.UNAVAILABLE]
    with pytest.raises(grpc.RpcError):
        Uplink(outbox, channel).step()
    assert not cloud.staged and not cloud.clips


def test_an_upload_that_was_cut_off_sends_at_most_a_chunk_again(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    content = os.urandom(9 * CHUNK_BYTES)
    sequence = held(outbox, content)
    cloud.cut_after = 5 * CHUNK_BYTES
    drain(Uplink(outbox, channel))
    assert cloud.clips[outbox.id, sequence] == content
    assert cloud.received_bytes <= len(content) + CHUNK_BYTES


def test_an_answer_that_was_lost_makes_nothing_twice(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    sequence = held(outbox, b"x" * 1000)
    cloud.answers_lost = 2
    drain(Uplink(outbox, channel))
    assert cloud.clips == {(outbox.id, sequence): b"x" * 1000} and cloud.received_bytes == 1000
    assert outbox.account().delivered == 1


@pytest.mark.parametrize("call", ["Report", "Begin", "Append", "Complete"])
@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.INTERNAL, Status.DEADLINE_EXCEEDED, Status.UNKNOWN])
def test_a_failure_that_passes_costs_nothing(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, call: str, status: grpc.StatusCode
) -> None:
    held(outbox, b"a" * 10)
    held(outbox, b"b" * 10)
    cloud.failures[call] = [status] * 3
    drain(Uplink(outbox, channel))
    assert len(cloud.clips) == 2 and outbox.account().delivered == 2


def test_a_clip_that_the_cloud_refuses_does_not_hold_up_the_others(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    first, second = held(outbox, b"a", worth=2.0), held(outbox, b"b")
    cloud.failures["Begin"] = [Status.INVALID_ARGUMENT]
    uplink = Uplink(outbox, channel)
    with pytest.raises(
        UplinkError, match=f"scene {first}: the cloud refuses its clip: invalid argument: Begin fails as"
    ):
        uplink.step()
    drain(uplink)
    assert [sequence for _, sequence in cloud.clips] == [second]
    assert outbox.path(first).exists(), "what was refused is kept"
    drain(Uplink(outbox, channel))
    assert len(cloud.clips) == 2, "the next start asks again"


def test_a_scene_that_the_cloud_does_not_hear_of_keeps_no_other_from_being_told(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    sequences = [held(outbox, b"clip") for _ in range(9)]
    cloud.unheard = {sequences[4]}
    lines: list[str] = []
    drain(Uplink(outbox, channel, say=lines.append))
    assert {sequence for _, sequence in cloud.clips} == {*sequences} - cloud.unheard
    assert len(lines) == 1 and lines[0].startswith(f"scene {sequences[4]}: the cloud does not hear of it")


@pytest.mark.parametrize("status", [Status.FAILED_PRECONDITION, Status.DATA_LOSS])
def test_an_upload_that_the_cloud_forgot_is_begun_anew(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, status: grpc.StatusCode
) -> None:
    first, second = held(outbox, b"a", worth=2.0), held(outbox, b"b")
    cloud.failures["Complete"] = [status] * 2
    drain(Uplink(outbox, channel))
    assert {sequence for _, sequence in cloud.clips} == {first, second}


def test_a_clip_that_is_always_begun_anew_does_not_hold_up_the_others(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    first, second = held(outbox, b"a", worth=2.0), held(outbox, b"b")
    cloud.failures["Begin"] = [Status.FAILED_PRECONDITION] * 5
    drain(Uplink(outbox, channel))
    assert [sequence for _, sequence in cloud.clips] == [second] and outbox.path(first).exists()


@pytest.mark.parametrize("status", [Status.UNAUTHENTICATED, Status.PERMISSION_DENIED])
def test_a_vehicle_that_is_refused_keeps_everything(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, status: grpc.StatusCode
) -> None:
    held(outbox, b"clip")
    cloud.failures["Report"] = [status]
    with pytest.raises(UplinkError, match="the cloud refuses this vehicle"):
        Uplink(outbox, channel).step()
    assert outbox.account().held == 1


@pytest.mark.parametrize("harm, reason", [("cut", "damaged"), ("changed", "damaged"), ("gone", "file is missing")])
def test_a_damaged_clip_is_told_of_as_lost(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, harm: str, reason: str
) -> None:
    sequence, other = held(outbox, b"y" * 50), held(outbox, b"z")
    path = outbox.path(sequence)
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"y" * 10 if harm == "cut" else b"y" * 49 + b"n")
    drain(Uplink(outbox, channel))
    assert (outbox.id, sequence) not in cloud.clips and (outbox.id, other) in cloud.clips
    assert cloud.evicted[outbox.id, sequence].startswith(reason)
    assert outbox.account().lost == 1


@pytest.mark.parametrize("clips, expected", [("all", 3), ("wanted", 1), ("none", 0)])
def test_all_scenes_are_told_of_whichever_clips_may_go(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, clips: Clips, expected: int
) -> None:
    sequences = [held(outbox, b"a"), held(outbox, b"b"), held(outbox, b"c")]
    cloud.wanted = [sequences[1]]
    drain(Uplink(outbox, channel, lambda: Link(clips=clips)))
    assert len(cloud.clips) == expected and len(cloud.scenes) == 3
    assert expected != 1 or (outbox.id, sequences[1]) in cloud.clips


def test_a_clip_waits_while_the_link_costs_more_than_it_is_worth_and_goes_up_later(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    asked, plain, good = held(outbox, b"a" * 1000, 0.0), held(outbox, b"b" * 1000, 1.0), held(outbox, b"c" * 1000, 2.0)
    cloud.wanted = [asked]
    price_per_mb = 1500.0
    uplink = Uplink(outbox, channel, lambda: Link(price_per_mb=price_per_mb))
    drain(uplink)
    assert [sequence for _, sequence in cloud.clips] == [asked, good] and len(cloud.scenes) == 3
    assert noted_link(outbox) == Link(price_per_mb=1500.0) and outbox.path(plain).exists()
    price_per_mb = 0.0
    drain(uplink)
    assert [sequence for _, sequence in cloud.clips] == [asked, good, plain] and noted_link(outbox) == Link()


def test_a_rate_that_changes_counts_from_the_next_clip_on(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    links, now_s = [Link()], [0.0]
    uplink = Uplink(
        outbox, channel, lambda: links[-1], clock=lambda: now_s[0],
        wait=lambda seconds: now_s.__setitem__(0, now_s[0] + seconds),
    )  # fmt: skip
    for link, expected_s in ((Link(), 0.0), (Link(CHUNK_BYTES), 6.0), (Link(), 6.0)):
        links.append(link)
        held(outbox, os.urandom(8 * CHUNK_BYTES))
        drain(uplink)
        assert expected_s - 1.0 <= now_s[0] <= expected_s + 1.0


def test_the_link_is_used_no_faster_than_it_may_be(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    held(outbox, os.urandom(8 * CHUNK_BYTES))
    now_s = [0.0]
    uplink = Uplink(
        outbox, channel, lambda: Link(bytes_per_s=CHUNK_BYTES), clock=lambda: now_s[0],
        wait=lambda seconds: now_s.__setitem__(0, now_s[0] + seconds),
    )  # fmt: skip
    drain(uplink)
    assert 5.0 <= now_s[0] <= 7.0  # eight chunks, two of them saved up


def test_a_run_waits_longer_after_each_failure_and_goes_on(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    held(outbox, b"clip")
    cloud.failures["Report"] = [Status.UNAVAILABLE] * 3
    stop, lines = threading.Event(), list[str]()

    runner = threading.Thread(target=Uplink(outbox, channel, say=lines.append).run, args=(stop, Hasty()))
    runner.start()
    while not cloud.clips:
        stop.wait(0.01)
    stop.set()
    runner.join(timeout=10)
    assert not runner.is_alive() and len(lines) == 3
    assert all("\n" not in line and line.startswith("unavailable: Report fails as it was told to") for line in lines)


def test_waits_grow_to_a_limit_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(random.Random(1))
    waits = [backoff.wait_s() for _ in range(40)]
    assert max(waits[:3]) <= 4.0 and 100 < max(waits[10:]) <= 300.0
    backoff.succeeded()
    assert backoff.wait_s() <= 1.0


def test_a_bucket_gives_the_rate_and_never_waits_without_one() -> None:
    assert Bucket(0.0).wait_s(1 << 40, 0.0) == 0.0
    bucket, now_s = Bucket(100.0), 0.0
    for _ in range(50):
        now_s += bucket.wait_s(100, now_s)
    assert 47.0 <= now_s <= 49.0
    assert bucket.wait_s(1, now_s - 100.0) >= 0.0, "a clock that goes back gives no tokens"


def test_a_cloud_that_is_not_there_is_said_in_one_line(outbox: Outbox) -> None:
    held(outbox, b"clip")
    with grpc.insecure_channel("127.0.0.1:1") as nowhere, pytest.raises(grpc.RpcError) as raised:
        Uplink(outbox, nowhere).step()
    assert "\n" not in said(raised.value) and said(raised.value).startswith("unavailable")


def test_a_clip_goes_up_as_it_was_prepared_and_told_of_so(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    sequence = held(outbox, b"a face")

    def prepare(clip: Path) -> Path:
        if clip.read_bytes() == b"redacted":
            return clip
        anew = outbox.anew(sequence)
        anew.write_bytes(b"redacted")
        return anew

    Uplink(outbox, channel, prepare=prepare).drain(threading.Event())
    key = outbox.id, sequence
    assert cloud.clips[key] == b"redacted" and cloud.scenes[key].sha256 == hashlib.sha256(b"redacted").digest()
    assert list(cloud.scenes[key].former_sha256) == [hashlib.sha256(b"a face").digest()]
    assert cloud.received_bytes == len(b"redacted") and outbox.account().delivered == 1


def test_a_clip_that_cannot_be_prepared_stays_on_board_and_holds_up_no_other(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    bad, good = held(outbox, b"bad", 9.0), held(outbox, b"good")
    lines: list[str] = []

    def prepare(clip: Path) -> Path:
        if clip == outbox.path(bad):
            raise UplinkError("no detector")
        return clip

    with pytest.raises(UplinkError, match="did not go up"):
        Uplink(outbox, channel, say=lines.append, prepare=prepare).drain(threading.Event())
    assert list(cloud.clips) == [(outbox.id, good)] and outbox.path(bad).exists()
    assert lines == [f"scene {bad} stays on board: no detector"]


def test_a_cloud_is_asked_what_it_wants_though_there_is_nothing_to_tell_but_not_all_the_time(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    now = [0.0]
    uplink = Uplink(outbox, channel, clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 9.0, 10.0, 11.0, 20.0):
        assert not uplink.step()
    assert cloud.reports == 3


def test_a_small_clip_goes_up_in_one_call_and_a_large_one_in_parts(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    cloud.takes_whole = True
    contents = {held(outbox, os.urandom(size)): size for size in (1, WHOLE_BYTES, WHOLE_BYTES + 1)}
    uplink = Uplink(outbox, channel)
    uplink.drain(threading.Event())
    assert {sequence: len(clip) for (_, sequence), clip in cloud.clips.items()} == contents
    assert cloud.whole == 2 and len(cloud.promised) == 1 and outbox.account().delivered == 3
    assert uplink.traffic.sent_bytes == sum(contents.values())


def test_a_small_clip_whose_call_failed_goes_in_parts(outbox: Outbox, cloud: Cloud, channel: grpc.Channel) -> None:
    cloud.takes_whole = True
    cloud.failures["Put"] = [Status.UNAVAILABLE]
    first = held(outbox, b"x" * 1000, worth=2.0)
    second = held(outbox, b"y" * 1000)
    drain(Uplink(outbox, channel))
    assert cloud.clips == {(outbox.id, first): b"x" * 1000, (outbox.id, second): b"y" * 1000}
    assert [sequence for _, sequence in cloud.promised] == [first] and cloud.whole == 1


class Troubled(Cloud):
    """Does something when a call comes, before it answers."""

    def at(self, call: str, context: Any) -> None:
        raise NotImplementedError

    def _fail(self, call: str, context: Any) -> None:
        self.at(call, context)
        super()._fail(call, context)


class Broken:
    """A clip on a bad block."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> Broken:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, *_: object) -> bytes:
        raise OSError(5, "Input/output error")

    readinto = read


def break_clip(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *how: Broken(opened(path, *how)) if path == clip else opened(path, *how)
    )


@pytest.mark.parametrize("call", ["Report", "Put"])
def test_a_run_outlives_an_outbox_that_cannot_be_written_for_a_while(outbox: Outbox, call: str) -> None:
    """Here another process holds it, on a road a disk is full: what the cloud has is written down later."""
    other = sqlite3.connect(outbox.folder / NAME, isolation_level=None, check_same_thread=False)
    calls: list[str] = []

    class Locking(Troubled):
        def at(self, come: str, context: Any) -> None:
            if come == call and call not in calls:
                other.execute("BEGIN IMMEDIATE")
            calls.append(come)

    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if other.in_transaction:
            other.execute("ROLLBACK")

    cloud, stop = Locking(takes_whole=True), threading.Event()
    server, address = serve(cloud)
    outbox.execute("PRAGMA busy_timeout = 1")
    sequence = held(outbox, b"x" * 1000)
    with grpc.insecure_channel(address) as channel:
        runner = threading.Thread(
            target=Uplink(outbox, channel, wait=stop.wait, say=say).run, args=(stop, Hasty()), daemon=True
        )
        runner.start()
        while outbox.path(sequence).exists() and runner.is_alive():
            stop.wait(0.01)
        stop.set()
        runner.join(timeout=20)
    server.stop(None)
    other.close()
    assert outbox.account().delivered == 1 and cloud.received_bytes == 1000, "nothing is sent again"
    assert len(lines) == 1 and "database is locked" in lines[0] and "again in" in lines[0]


def test_a_clip_that_is_evicted_while_the_cloud_refuses_it_holds_up_no_other(outbox: Outbox) -> None:
    first, second = held(outbox, b"a", worth=2.0), held(outbox, b"b")

    class Refusing(Troubled):
        def at(self, call: str, context: Any) -> None:
            if call == "Put" and outbox.path(first).exists():
                outbox._change(first, ("held",), "evicted", "quota")
                outbox.path(first).unlink()
                context.abort(Status.INVALID_ARGUMENT, "no")

    cloud = Refusing(takes_whole=True)
    server, address = serve(cloud)
    with grpc.insecure_channel(address) as channel:
        drain(Uplink(outbox, channel))
    server.stop(None)
    assert [sequence for _, sequence in cloud.clips] == [second] and outbox.account().evicted == 1


@pytest.mark.parametrize("takes_whole", [True, False])
def test_a_clip_that_cannot_be_read_is_put_off_and_holds_up_no_other(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, takes_whole: bool
) -> None:
    cloud.takes_whole = takes_whole
    bad, good = held(outbox, b"a" * 10, worth=2.0), held(outbox, b"b" * 10)
    lines, now_s = list[str](), [0.0]
    uplink = Uplink(outbox, channel, say=lines.append, clock=lambda: now_s[0])
    with monkeypatch.context() as patch:
        break_clip(patch, outbox.path(bad))
        with pytest.raises(UplinkError, match="clips that did not go up, and are tried again at the next start: 1"):
            uplink.drain(threading.Event())
    assert [sequence for _, sequence in cloud.clips] == [good] and outbox.path(bad).exists()
    assert lines == [f"scene {bad}: others go first for 10 minutes: can't be read: Input/output error"]
    now_s[0] = 601.0
    uplink.drain(threading.Event())
    assert len(cloud.clips) == 2


@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.INTERNAL, Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE])
def test_a_clip_at_which_a_cloud_that_answers_fails_again_and_again_is_put_off(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, status: grpc.StatusCode
) -> None:
    bad, good = held(outbox, b"a", worth=2.0), held(outbox, b"b")
    now_s = [0.0]
    uplink = Uplink(outbox, channel, clock=lambda: now_s[0])
    cloud.failures["Begin"] = [status] * 5
    drain(uplink)
    assert [sequence for _, sequence in cloud.clips] == [good]
    cloud.failures["Begin"] = [status] * 3
    for now_s[0] in (601.0, 1202.0, 1803.0):
        drain(uplink)  # from here on one try each time
        assert len(cloud.clips) == 1
    now_s[0] = 2404.0
    drain(uplink)
    assert [sequence for _, sequence in cloud.clips] == [good, bad]


def test_a_clip_is_not_blamed_for_a_cloud_that_is_away(outbox: Outbox) -> None:
    class Away(Troubled):
        calls = 0  # that don't reach it

        def at(self, call: str, context: Any) -> None:
            if self.calls:
                self.calls -= 1
                context.abort(Status.UNAVAILABLE, "nobody is there")

    first, second = held(outbox, b"a", worth=2.0), held(outbox, b"b")
    cloud = Away()
    server, address = serve(cloud)
    with grpc.insecure_channel(address) as channel:
        uplink = Uplink(outbox, channel, clock=lambda: 0.0)
        uplink.tell()
        cloud.calls = 10
        drain(uplink)
    server.stop(None)
    assert [sequence for _, sequence in cloud.clips] == [first, second]


def test_a_poor_link_that_carries_a_part_of_a_clip_each_time_ends_it_before_it_begins_another(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    first, second = held(outbox, os.urandom(9 * CHUNK_BYTES), worth=1e9), held(outbox, b"b")
    uplink = Uplink(outbox, channel)
    for chunks in range(1, 9):
        cloud.cut_after = chunks * CHUNK_BYTES
        with pytest.raises(grpc.RpcError):
            uplink.step()
    drain(uplink)
    assert [sequence for _, sequence in cloud.clips] == [first, second]


def test_a_stop_ends_an_upload_at_its_pace_and_the_next_start_goes_on_there(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    content = os.urandom(40 * CHUNK_BYTES)
    sequence = held(outbox, content)
    stop, lines = threading.Event(), list[str]()
    uplink = Uplink(outbox, channel, lambda: Link(2.0 * CHUNK_BYTES), wait=stop.wait, say=lines.append)
    runner = threading.Thread(target=uplink.run, args=(stop,), daemon=True)
    runner.start()
    while cloud.received_bytes < 2 * CHUNK_BYTES:
        stop.wait(0.01)
    stop.set()
    runner.join(timeout=20)
    assert not runner.is_alive() and not lines
    assert cloud.received_bytes < len(content), "what was left did not go all at once"
    drain(Uplink(outbox, channel))
    assert cloud.clips[outbox.id, sequence] == content and cloud.received_bytes <= len(content) + CHUNK_BYTES


@pytest.mark.parametrize("call, is_once", [("Put", False), ("Append", False), ("Append", True)])
def test_a_stop_ends_an_upload_to_a_cloud_that_stalls(outbox: Outbox, call: str, is_once: bool) -> None:
    stalls, ends = threading.Event(), threading.Event()

    class Stalling(Troubled):
        def at(self, come: str, context: Any) -> None:
            if come == call:
                stalls.set()
                ends.wait(60)

    server, address = serve(Stalling(takes_whole=call == "Put"))
    held(outbox, b"clip")
    stop, lines, failed = threading.Event(), list[str](), list[Exception]()
    with grpc.insecure_channel(address) as channel:
        uplink = Uplink(outbox, channel, wait=stop.wait, say=lines.append)

        def work() -> None:
            try:
                uplink.drain(stop) if is_once else uplink.run(stop)
            except Exception as error:
                failed.append(error)

        runner = threading.Thread(target=work, daemon=True)
        runner.start()
        assert stalls.wait(20)
        stop.set()
        runner.join(timeout=20)
        assert not runner.is_alive() and not lines and not failed
    ends.set()
    server.stop(None)
    assert outbox.account().held == 1


def test_a_slow_link_carries_small_chunks_and_has_the_time_that_they_take(outbox: Outbox) -> None:
    allowed_s: list[float] = []

    class Watching(Troubled):
        def at(self, call: str, context: Any) -> None:
            if call == "Append":
                allowed_s.append(context.time_remaining())

    server, address = serve(Watching(takes_whole=True))
    held(outbox, os.urandom(WHOLE_BYTES + 1))
    waits: list[float] = []
    with grpc.insecure_channel(address) as channel:
        Uplink(outbox, channel, lambda: Link(1_000.0), clock=lambda: sum(waits), wait=waits.append).drain(
            threading.Event()
        )
    server.stop(None)
    assert outbox.account().delivered == 1
    assert max(waits) <= 10.0 and sum(waits) >= 1_000.0, "a cloud hangs up on who is silent for minutes"
    assert len(allowed_s) > 9 and min(allowed_s) > 20.0, "ten seconds, and a chunk that waits for ten"


@pytest.mark.parametrize("size", [100_000, 2_000_000])
def test_a_clip_over_a_slow_link_goes_up_in_turns_between_which_the_link_is_looked_at_and_the_cloud_heard(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, size: int
) -> None:
    cloud.takes_whole = True
    sequence, content, now_s = held(outbox, os.urandom(size)), outbox.path(1).read_bytes(), [0.0]
    links = [Link(50.0), Link(1e6, "none"), Link(1e6)]
    uplink = Uplink(
        outbox, channel, lambda: links[min(int(now_s[0] / 60.0), 2)], clock=lambda: now_s[0],
        wait=lambda seconds: now_s.__setitem__(0, now_s[0] + seconds),
    )  # fmt: skip
    uplink.drain(threading.Event())
    assert not cloud.clips and 60.0 <= now_s[0] < 80.0 and cloud.reports > 3
    assert 50 * 60 <= cloud.received_bytes <= 50 * 82
    now_s[0] = 120.0
    uplink.drain(threading.Event())
    assert cloud.clips == {(outbox.id, sequence): content} and cloud.received_bytes == size and now_s[0] < 123.0


def test_a_cloud_that_ends_an_upload_without_having_taken_any_of_it_is_a_failure(outbox: Outbox) -> None:
    class Idle(Cloud):
        def Append(self, chunks: Iterator[Any], context: Any) -> Iterator[Any]:
            yield from ()

    server, address = serve(Idle())
    held(outbox, b"clip")
    with grpc.insecure_channel(address) as channel, pytest.raises(UplinkError, match="durable bytes after 0, got 0"):
        Uplink(outbox, channel).step()
    server.stop(None)


def test_a_clip_that_a_kill_left_half_replaced_is_not_taken_for_a_damaged_one_while_the_new_one_cannot_be_read(
    outbox: Outbox, cloud: Cloud, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, lines = held(outbox, b"a face"), list[str]()
    outbox.anew(sequence).write_bytes(b"redacted")
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_put_in_place", lambda _: None)
        outbox.replace(sequence, hashlib.sha256(b"redacted").digest(), 8)
    with monkeypatch.context() as patch:
        break_clip(patch, outbox.anew(sequence))
        uplink = Uplink(outbox, channel, say=lines.append)
    with pytest.raises(UplinkError, match="did not go up"):
        uplink.drain(threading.Event())
    assert lines == [f"scene {sequence} stays on board: scene-000001.anew can't be read"] and not cloud.clips
    Uplink(outbox, channel).drain(threading.Event())
    assert list(cloud.clips.values()) == [b"redacted"]


def test_a_link_that_carries_next_to_nothing_waits_and_breaks_nothing(outbox: Outbox, channel: grpc.Channel) -> None:
    waits: list[float] = []
    held(outbox, b"clip")
    Uplink(outbox, channel, lambda: Link(1e-300), wait=waits.append).drain(threading.Event())
    assert outbox.account().delivered == 1
    for wait_s in waits:
        assert threading.Lock().acquire(timeout=wait_s), "as long as a thread can wait"
