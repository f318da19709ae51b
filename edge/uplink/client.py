"""Hands an outbox to a cloud: every scene is told of first, then clips go up one after the other, the worthiest first.

What the cloud acknowledged is never sent again: an upload that was cut off goes on at the byte that the cloud has
durably. A clip is let go of only once the cloud has said that all of it is there and whole.
"""

from __future__ import annotations

import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import grpc

from edge.campaigns.choosing import Campaigns
from edge.errors import RedactionError, RoadfuseError, UplinkError
from edge.uplink.asks import Ask, Asks
from edge.uplink.outbox import Held, Outbox, digest
from edge.uplink.pace import Backoff, Bucket, Link
from edge.uplink.waiting import note_link
from roadfuse.v1 import ingest_pb2 as wire
from roadfuse.v1.campaign_pb2 import AskAnswer
from roadfuse.v1.ingest_pb2_grpc import IngestStub

News: TypeAlias = wire.SceneSummary | wire.Eviction
CHUNK_BYTES: Final = 512 << 10
# A clip up to this size goes in one call: a cut costs no more than a chunk of the largest size.
WHOLE_BYTES: Final = 1 << 20
_TOLD_AT_ONCE: Final = 500
_CALL_S: Final = 30.0
_STALLED_S: Final = 120.0  # for a chunk's worth of an upload; a link that carries less is no link
_UNDER_WAY: Final = 3  # chunks that may still be in a link's buffers when no more of a clip follow
_PAUSE_S: Final = 10.0  # between chunks at most: a link that may only be used slowly carries smaller ones
_IDLE_S: Final = 2.0  # between looks into an outbox that has nothing
# Between questions what the cloud wants: its asks are worth something while the ring holds some 20 s. 2 MB a day.
# After so long more of a clip waits for its next turn: the link may be another by then, too.
_HEAR_S: Final = 10.0
# Statuses that time mends; all others are a word about what was asked.
_PASSING: Final = frozenset({
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED,
})  # fmt: skip
# A cloud that was started again forgot what was begun; bytes that were damaged on the way start over.
_BEGUN_ANEW: Final = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DATA_LOSS})
_TRIES: Final = 5  # of a clip that is refused so, or fails again and again while the cloud answers otherwise
_LATER_S: Final = 600.0  # until the next try of a clip that was put off for others
_UNKNOWN_HERE: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


@dataclass(slots=True)
class Traffic:
    """What went up: scenes told of, clips, bytes of clips sent, and failed tries."""

    told: int = 0
    clips: int = 0
    sent_bytes: int = 0
    failures: int = 0


def as_it_is(clip: Path) -> Path:
    """What `Uplink` takes as `prepare` where clips go up as they were recorded."""
    return clip


class Uplink:
    """One outbox and one cloud.

    Args:
        channel: to the cloud, by which it knows the vehicle.
        link: says what the link is now; asked before each clip, and each turn of a large one.
        clock: seconds, never going back.
        wait: sleeps so many seconds, or less when it is time to stop.
        say: takes a line about what went wrong and is tried again, or passed over.
        prepare: takes a clip's file just before it would go up and gives the one that is to go: the same, or
            `Outbox.anew` of it, written whole and durable (redacted). What it raises of ours keeps the clip on board.
        campaigns: choose among buffered scenes; None: the cloud is told that this vehicle takes none.

    Attributes:
        traffic: since the start.
    """

    def __init__(
        self,
        outbox: Outbox,
        channel: grpc.Channel,
        link: Callable[[], Link] = Link,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
        say: Callable[[str], object] = print,
        prepare: Callable[[Path], Path] = as_it_is,
        campaigns: Campaigns | None = None,
    ) -> None:
        self.traffic = Traffic()
        self._outbox = outbox
        self._stub = IngestStub(channel)
        self._link_now, self._link = link, link()
        self._bucket = Bucket(self._link.bytes_per_s)
        self._clock, self._wait, self._say = clock, wait, say
        self._prepare = prepare
        self._campaigns = campaigns
        self._asks = Asks(outbox)
        self._heard_s = -math.inf  # when the cloud answered last
        self._is_mute = False  # it does not take what was chosen, until the next start
        note_link(outbox, self._link)
        self._refusals: dict[int, int] = {}  # by clip
        self._takes_whole = True  # the cloud knows of clips in one call
        self._in_parts: set[int] = set()  # small clips whose one call failed, or lasts too long: a link may carry parts
        self._passed_over = outbox.settle()  # and clips that the cloud refuses, until the next start
        for sequence in self._passed_over:
            say(f"scene {sequence} stays on board: {outbox.anew(sequence).name} can't be read")
        self._failures: dict[int, int] = {}  # in a row, by clip
        self._durable: dict[int, int] = {}  # bytes of a clip that the cloud had at most
        self._put_off_to_s: dict[int, float] = {}  # clips that others go before until then
        self._stop = threading.Event()
        self._under_way: grpc.Call | None = None  # the long call that `stop` cuts short
        self._unheard: set[int] = set()  # scenes that it does not want to hear of

    def run(self, stop: threading.Event, backoff: Backoff | None = None) -> None:
        """Goes on until `stop`; after a failure, also of the disk, it waits and tries again, for ever.

        Raises:
            OutboxError: the outbox is damaged.
        """
        backoff = backoff or Backoff()
        self._heed(stop)
        while not stop.is_set():
            try:
                if not self.step():
                    stop.wait(_IDLE_S)
                backoff.succeeded()
            except (grpc.RpcError, UplinkError, OSError) as error:
                if stop.is_set():
                    return
                self.traffic.failures += 1
                wait_s = backoff.wait_s()
                self._say(f"{said(error)}; again in {wait_s:.1f} s")
                stop.wait(wait_s)

    def drain(self, stop: threading.Event) -> None:
        """Goes on until everything is up, or `stop`.

        Raises:
            UplinkError: a call failed, the cloud refused something, or a clip could not be read or prepared.
            OSError: the disk is full or broken.
        """
        self._heed(stop)
        try:
            while not stop.is_set() and self.step():
                pass
        except (grpc.RpcError, UplinkError) as error:
            if stop.is_set():
                return
            raise UplinkError(said(error)) from None
        if self._unheard:
            raise UplinkError(f"the cloud does not hear of {len(self._unheard)} scenes")
        stayed = self._passed_over | self._put_off_to_s.keys()
        if count := sum(clip.sequence in stayed for clip in self._outbox.in_order()):
            raise UplinkError(f"clips that did not go up, and are tried again at the next start: {count}")

    def step(self) -> bool:
        """Tells of what is new, then hands up one clip; False when there was nothing to do.

        Raises:
            grpc.RpcError: the cloud can't be reached, or is not able to just now.
            UplinkError: it refuses this vehicle.
            OSError: the disk is full or broken.
        """
        told = self.tell()
        if self._campaigns is not None and self._campaigns.choose():
            told += self.tell()
        self._look_at_link()
        now_s = self._clock()
        put_off = {sequence for sequence, to_s in self._put_off_to_s.items() if now_s < to_s}
        clip = self._outbox.next_up(self._passed_over | put_off, self._link)
        if clip is None:
            return told > 0
        if self._is_ready(clip):
            self._hand_up(clip)
        return True

    def _heed(self, stop: threading.Event) -> None:
        """From now on `stop` cuts short what is under way: the next start goes on at the byte that is durable."""
        self._stop = stop

        def cut() -> None:
            stop.wait()
            if self._under_way is not None:
                self._under_way.cancel()

        threading.Thread(target=cut, name="stop", daemon=True).start()

    def _may_be_cut(self, call: Any) -> Any:
        self._under_way = call
        if self._stop.is_set():  # before the thread above could know of this call
            call.cancel()
        return call

    def _look_at_link(self) -> None:
        link = self._link_now()
        if link == self._link:
            return
        if link.bytes_per_s != self._link.bytes_per_s:
            self._bucket = Bucket(link.bytes_per_s)
        self._link = link
        note_link(self._outbox, link)

    def tell(self) -> int:
        """Tells of all scenes that the cloud does not know, of clips that went, of what was chosen for campaigns and
        what became of asks; how many. Hears what the cloud wants, at least every ten seconds.
        """
        count = self._tell_scenes()
        return count + self._tell_choices()

    def _tell_scenes(self) -> int:
        count = 0
        while True:
            scenes, evictions = self._outbox.to_tell(_TOLD_AT_ONCE + len(self._unheard))
            every: list[News] = [*scenes, *evictions]
            news = [one for one in every if one.sequence not in self._unheard]
            if not news:
                return count
            count += self._report(news)

    def _report(self, news: Sequence[News]) -> int:
        """One report; of one that is refused each half by itself, for a bad scene must not hold up the others."""
        request = wire.ReportRequest(
            scenes=[one for one in news if isinstance(one, wire.SceneSummary)],
            evictions=[one for one in news if isinstance(one, wire.Eviction)],
        )
        try:
            response = self._call(request)
        except _Refusal as refusal:
            if len(news) > 1:
                half = len(news) // 2
                return self._report(news[:half]) + self._report(news[half:])
            self._unheard.add(news[0].sequence)
            self._say(f"scene {news[0].sequence}: the cloud does not hear of it: {refusal}")
            return 0
        self._outbox.told(news, response.wanted)
        self._hear(response)
        self.traffic.told += len(request.scenes)
        return len(news)

    def _tell_choices(self) -> int:
        """What was chosen and answered; without any the cloud is still asked now and then what it wants."""
        choices = [] if self._campaigns is None or self._is_mute else self._campaigns.to_tell()
        answers = [] if self._is_mute else self._asks.to_tell()
        if not choices and not answers and self._clock() - self._heard_s < _HEAR_S:
            return 0
        request = wire.ReportRequest(
            choices=[wire.Choice(**choice._asdict()) for choice in choices],
            answers=[AskAnswer(id=name, answer=answer) for name, answer in answers],
        )
        try:
            response = self._call(request)
        except _Refusal as refusal:
            self._is_mute = True
            self._say(f"the cloud does not hear of what was chosen for campaigns: {refusal}")
            return 0
        self._hear(response)
        try:
            self._outbox.told((), response.wanted)
            if self._campaigns is not None and choices:
                self._campaigns.told(choices)
            if answers:
                self._asks.told(name for name, _ in answers)
        except OSError as error:
            self._say(f"the cloud will be told again of what was chosen: {error}")
            return 0
        return len(choices) + len(answers)

    def _call(self, request: wire.ReportRequest) -> wire.ReportResponse:
        request.outbox, request.last_sequence = self._outbox.id, self._outbox.account().given
        if self._campaigns is not None:
            request.probes_digest = self._campaigns.digest
        with _refusals():
            response: wire.ReportResponse = self._stub.Report(request, timeout=_CALL_S)
        self._heard_s = self._clock()
        return response

    def _hear(self, response: wire.ReportResponse) -> None:
        """What the cloud wants beside clips by number."""
        if self._campaigns is not None:
            self._campaigns.hear(response)
        try:
            self._asks.put(Ask(ask.id, ask.first_ns, ask.last_ns, ask.reason) for ask in response.asks)
        except (ValueError, OSError) as error:  # on a full disk too, clips go up and make room
            self._say(f"an ask of the cloud is not taken: {error}")

    def account(self) -> wire.AccountResponse:
        """What the cloud has of this vehicle's scenes."""
        with _refusals():
            account: wire.AccountResponse = self._stub.Account(wire.AccountRequest(), timeout=_CALL_S)
        return account

    def _is_ready(self, clip: Held) -> bool:
        """Whether the clip may go as the cloud was told of it; else it was made anew, or stays on board."""
        try:
            path = self._prepare(clip.path)
            if path == clip.path:
                return True
            made_anew = digest(path)
        except FileNotFoundError:
            self._outbox.lose(clip.sequence, "file is missing")  # does nothing where it was evicted meanwhile
        except (RedactionError, OSError) as error:  # of the disk: what passes must not cost a start
            self._put_off(clip, error)
        except RoadfuseError as error:
            self._passed_over.add(clip.sequence)
            self._say(f"scene {clip.sequence} stays on board: {error}")
        else:
            self._outbox.replace(clip.sequence, *made_anew)
        return False

    def _hand_up(self, clip: Held) -> None:
        try:
            if not self._send(clip):
                return
        except FileNotFoundError:
            self._outbox.lose(clip.sequence, "file is missing")  # does nothing where it was evicted meanwhile
            return
        except _Damage as damage:
            self._outbox.lose(clip.sequence, f"damaged: {damage}")
            return
        except OSError as error:
            self._put_off(clip, error)
            return
        except _Refusal as refusal:
            self._refusals[clip.sequence] = self._refusals.get(clip.sequence, 0) + 1
            if not refusal.may_pass or self._refusals[clip.sequence] >= _TRIES:
                self._passed_over.add(clip.sequence)
            raise UplinkError(f"scene {clip.sequence}: the cloud refuses its clip: {refusal}") from None
        except (grpc.RpcError, UplinkError) as error:
            # Is it the clip or the cloud? Before the next try the cloud is to answer a report.
            self._heard_s = -math.inf
            self._failures[clip.sequence] = self._failures.get(clip.sequence, 0) + 1
            if self._failures[clip.sequence] >= _TRIES:
                self._put_off(clip, error)
            raise
        self._in_parts.add(clip.sequence)  # if this is not written down, Begin says that nothing is to be sent again
        self._outbox.deliver(clip.sequence)
        self._in_parts.discard(clip.sequence)
        for by_clip in (self._failures, self._durable, self._put_off_to_s):
            by_clip.pop(clip.sequence, None)
        self.traffic.clips += 1

    def _put_off(self, clip: Held, error: Exception) -> None:
        self._put_off_to_s[clip.sequence] = self._clock() + _LATER_S
        why = f"can't be read: {error.strerror or error}" if isinstance(error, OSError) else said(error)
        self._say(f"scene {clip.sequence}: others go first for {_LATER_S / 60:.0f} minutes: {why}")

    def _send(self, clip: Held) -> bool:
        """Hands up a clip, or what of it goes in one turn; whether the cloud has it now.

        Raises:
            OSError: its file can't be read.
            _Damage: it is not what was written.
        """
        with clip.path.open("rb") as file:  # once it is open, an eviction takes nothing from it
            if os.fstat(file.fileno()).st_size != clip.size_bytes:
                raise _Damage("not as long as it was written")
            try:
                with _refusals():
                    return self._upload(clip, file)
            except _Refusal:
                if digest(clip.path)[0] != clip.sha256:
                    raise _Damage("its digest changed") from None
                raise

    def _upload(self, clip: Held, file: BinaryIO) -> bool:
        if clip.size_bytes <= WHOLE_BYTES and clip.sequence not in self._in_parts and self._put(clip, file):
            return True
        outbox = self._outbox.id
        begun = self._stub.Begin(
            wire.BeginRequest(outbox=outbox, sequence=clip.sequence, bytes=clip.size_bytes, sha256=clip.sha256),
            timeout=_CALL_S,
        )
        if begun.is_complete:
            return True
        durable = begun.durable_offset
        if durable > self._durable.get(clip.sequence, 0):  # it came further: a poor link, and no poor clip
            self._durable[clip.sequence] = durable
            self._failures.pop(clip.sequence, None)
        if durable < clip.size_bytes:
            durable = self._append(clip, file, durable)
            if durable < clip.size_bytes:
                return False
        if durable != clip.size_bytes:
            raise UplinkError(f"scene {clip.sequence}: expected {clip.size_bytes} durable bytes, got {durable}")
        self._stub.Complete(wire.CompleteRequest(outbox=outbox, sequence=clip.sequence), timeout=_CALL_S)
        return True

    def _put(self, clip: Held, file: BinaryIO) -> bool:
        """A small clip in one call; False where the cloud knows no such call, or it would wait for more than a turn."""
        if not self._takes_whole:
            return False
        if self._bucket.lasts_s(clip.size_bytes) > _HEAR_S:
            self._in_parts.add(clip.sequence)
            return False
        content = file.read()
        wait_s = self._bucket.wait_s(len(content), self._clock())
        if wait_s > 0.0:
            self._wait(wait_s)
        request = wire.PutRequest(outbox=self._outbox.id, sequence=clip.sequence, sha256=clip.sha256, content=content)
        call = self._may_be_cut(self._stub.Put.future(request, timeout=_STALLED_S))
        if (status := call.code()) is not grpc.StatusCode.OK:
            if status is grpc.StatusCode.UNIMPLEMENTED:
                self._takes_whole = False
                return False
            self._in_parts.add(clip.sequence)
            raise call
        self.traffic.sent_bytes += len(content)
        return True

    def _append(self, clip: Held, file: BinaryIO, durable: int) -> int:
        """Sends a clip from an offset on for a turn; how far it is durable then: further than before.

        Raises:
            OSError: its file can't be read.
            UplinkError: the cloud has not all that was sent, or nothing was.
        """
        before, sent, rate = durable, _Sent(durable), self._link.bytes_per_s
        most_bytes = max(int(min(rate * _PAUSE_S, CHUNK_BYTES)), 1) if rate else CHUNK_BYTES
        allowed_s = _HEAR_S + self._bucket.lasts_s(most_bytes) + _STALLED_S * _UNDER_WAY
        call = self._stub.Append(self._chunks(clip.sequence, file, most_bytes, sent), timeout=allowed_s)
        try:
            for answer in self._may_be_cut(call):
                durable = answer.durable_offset
        except grpc.RpcError:
            if sent.unread is None:
                raise
        if sent.unread is not None:
            raise sent.unread
        if durable != sent.end or durable == before:
            raise UplinkError(f"scene {clip.sequence}: expected {sent.end} durable bytes after {before}, got {durable}")
        return durable

    def _chunks(self, sequence: int, file: BinaryIO, most_bytes: int, sent: _Sent) -> Iterator[wire.Chunk]:
        """The clip from where `sent` ends, no faster than the link may be used, for a turn; ends early when it is time
        to stop.
        """
        outbox, ends_s = self._outbox.id, self._clock() + _HEAR_S
        try:
            file.seek(sent.end)
            while content := file.read(most_bytes):
                wait_s = self._bucket.wait_s(len(content), self._clock())
                if wait_s > 0.0:
                    self._wait(wait_s)
                if self._stop.is_set():
                    return
                yield wire.Chunk(
                    outbox=outbox, sequence=sequence, offset=sent.end, content=content, crc32=zlib.crc32(content)
                )
                outbox, sequence = b"", 0  # only the first says whose it is
                sent.end += len(content)
                self.traffic.sent_bytes += len(content)
                if self._clock() >= ends_s:
                    return
        except OSError as error:
            sent.unread = error


@dataclass(slots=True)
class _Sent:
    """What a call drew of a clip.

    Attributes:
        end: offset behind it.
        unread: why the file can't be read: a call that draws chunks swallows what they raise.
    """

    end: int
    unread: OSError | None = None


class _Damage(Exception):
    """A clip on board is not what was written."""


def said(error: Exception) -> str:
    """An error of a call, in one line."""
    if not isinstance(error, grpc.RpcError):
        return str(error)
    status: Any = error  # what a channel raises is a call too
    return f"{status.code().name.lower().replace('_', ' ')}: {' '.join((status.details() or '').split())}"


class _Refusal(UplinkError):
    """The cloud refused what it was asked.

    Attributes:
        may_pass: it may not, if the upload is begun anew.
    """

    def __init__(self, message: str, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


@contextmanager
def _refusals() -> Iterator[None]:
    """Leaves failures that time mends as they are; the others become refusals."""
    try:
        yield
    except grpc.RpcError as error:
        status: Any = error
        if status.code() in _UNKNOWN_HERE:
            raise UplinkError(f"the cloud refuses this vehicle: {said(error)}") from None
        if status.code() not in _PASSING:
            raise _Refusal(said(error), status.code() in _BEGUN_ANEW) from None
        raise
