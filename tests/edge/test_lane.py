"""The lane beside the loop: its timing changes no decision, and it ends with the loop."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edge import bundle
from edge.drive.reader import DriveReader
from edge.feed import Fed, events
from edge.loop import Loop


class Uneven(ThreadPoolExecutor):
    """A lane on a machine that is busy with other things: calls begin and end late, or at once."""

    def __init__(self, seed: int) -> None:
        super().__init__(1)
        self._rng = random.Random(seed)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        before_s, after_s = (max(self._rng.uniform(-0.01, 0.01), 0.0) for _ in range(2))

        def late() -> Any:
            time.sleep(before_s)
            result = fn(*args, **kwargs)
            time.sleep(after_s)
            return result

        return super().submit(late)


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


def test_the_lane_ends_with_the_loop() -> None:
    loop = Loop(bundle.load())
    lane = loop.lane.submit(threading.current_thread).result()
    del loop
    gc.collect()
    lane.join(10.0)
    assert not lane.is_alive()
