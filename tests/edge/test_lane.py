"""The lane beside the loop: what it gives back, when it ends, and that its timing changes no decision."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from edge import bundle
from edge.drive.reader import DriveReader
from edge.feed import Fed, events
from edge.lane import Lane
from edge.loop import Loop

T = TypeVar("T")


def test_calls_run_in_their_order_in_one_thread_that_is_not_the_callers() -> None:
    lane, ran = Lane(), list[int]()

    def run(number: int) -> int:
        ran.append(number)
        return threading.get_native_id()

    outcomes = [lane.begin(partial(run, number)) for number in range(9)]
    assert {outcome() for outcome in outcomes} == {lane.native_id} != {threading.get_native_id()}
    assert ran == list(range(9))


def test_who_waits_gets_the_error_and_the_next_call_its_own_result() -> None:
    lane = Lane()
    forgotten, failing, sound = lane.begin(lambda: 1), lane.begin(lambda: 1 // 0), lane.begin(lambda: 3)
    with pytest.raises(ZeroDivisionError):
        failing()
    assert sound() == 3 and forgotten() == 1


def test_its_thread_ends_with_it() -> None:
    lane = Lane()
    thread = next(one for one in threading.enumerate() if one.native_id == lane.native_id)
    del lane
    gc.collect()
    thread.join(10.0)
    assert not thread.is_alive()


class Uneven(Lane):
    """A lane on a machine that is busy with other things: calls begin and end late, or at once."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = random.Random(seed)

    def begin(self, call: Callable[[], T]) -> Callable[[], T]:
        before_s, after_s = (max(self._rng.uniform(-0.01, 0.01), 0.0) for _ in range(2))

        def late() -> T:
            time.sleep(before_s)
            result = call()
            time.sleep(after_s)
            return result

        return super().begin(late)


def _decisions(loop: Loop, fed: list[Fed]) -> list[bytes]:
    return [decision.canonical() for item in fed for decision in loop.step(item.event, item.event.now_ns)]


@pytest.mark.parametrize("seed", range(3))
def test_when_the_lane_gets_to_its_calls_changes_no_decision(drive: Path, seed: int) -> None:
    usual, uneven = Loop(bundle.load()), Loop(bundle.load())
    uneven.lane = uneven.charge.lane = Uneven(seed)
    with DriveReader(drive) as reader:
        fed = list(events(reader, usual.config.streams))[:1500]
    expected = _decisions(usual, fed)
    assert len(expected) > 20 and _decisions(uneven, fed) == expected
