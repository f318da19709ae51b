"""Feeds a recorded drive to the loop: messages decoded ahead by one thread, delivered in the order of arrival."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from edge.drive import codec, topics
from edge.drive.reader import DriveMessage, DriveReader
from edge.errors import DriveFormatError
from edge.loop import NOT_FUSED, Event
from edge.samples import Frame
from edge.streams import Stream

# Decisions of an earlier run are not what the sensors said.
NOT_SENSED: Final = frozenset({topics.DECISION, topics.DECISION_ANNOTATIONS})
_BATCH: Final = 48
_BATCHES_AHEAD: Final = 6


class Fed(NamedTuple):
    """An event for the loop, and the message it was made of."""

    event: Event
    message: DriveMessage


def events(drive: DriveReader, streams: tuple[Stream, ...], start_ns: int | None = None) -> Iterator[Fed]:
    """The drive's messages as events, in order of arrival, decoded in this thread.

    Args:
        start_ns: first arrival instant wanted.

    Raises:
        DriveDamaged: after the last event before the damage.
    """
    rows = {stream.topic: row for row, stream in enumerate(streams)}
    for message in drive.messages(start_ns=start_ns):
        if message.topic in NOT_SENSED:
            continue
        row = rows.get(message.topic, NOT_FUSED)
        sample = None if row < 0 else _sample(message, row)
        yield Fed(Event(message.arrival_ns, row, sample, len(message.payload)), message)


def _sample(message: DriveMessage, row: int) -> Any:
    """The sample; None where its content can't be decoded. A frame keeps its place even without its picture."""
    try:
        return codec.decode(message.topic, message.payload, message.sequence)
    except DriveFormatError:
        return Frame(message.capture_ns, message.sequence, None) if row == 0 else None


class ReadAhead:
    """Runs an iterator in a thread of its own, a bounded number of items ahead.

    Use it in a `with` block; an exception in the iterator is raised where its items are consumed.
    """

    def __init__(self, source: Iterator[Fed]) -> None:
        self._source = source
        self._queue: queue.Queue[list[Fed] | BaseException | None] = queue.Queue(_BATCHES_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def __enter__(self) -> Iterator[Fed]:
        self._thread.start()
        return self._items()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _items(self) -> Iterator[Fed]:
        while True:
            batch = self._queue.get()
            if batch is None:
                return
            if isinstance(batch, BaseException):
                raise batch
            yield from batch

    def _run(self) -> None:
        batch: list[Fed] = []
        try:
            for item in self._source:
                batch.append(item)
                if len(batch) == _BATCH:
                    self._put(batch)
                    batch = []
                if self._stop.is_set():
                    return
            self._put(batch)
            self._put(None)
        except BaseException as error:  # at a thread's top: the consumer raises it
            self._put(batch)
            self._put(error)

    def _put(self, item: list[Fed] | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
