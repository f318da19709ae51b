"""The loop as a pure function: frozen and thawed anywhere, or with a lane that is late, it goes on the same."""

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
from edge.decision import Decision
from edge.drive.reader import DriveReader
from edge.feed import Fed, events
from edge.loop import Loop, LoopConfig
from edge.overload import LAST_LEVEL
from edge.samples import NOT_FUSED, Event, Frame
from tests.edge.models import bundle_folder, rememberer


@pytest.fixture(scope="module")
def fed(drive: Path) -> list[Fed]:
    loop = Loop(bundle.load())
    with DriveReader(drive) as reader:
        return list(events(reader, loop.config.streams))


def run(loop: Loop, fed: list[Fed]) -> list[Decision]:
    decisions = []
    for item in fed:
        now_ns = item.event.now_ns
        while 0 < loop.due_ns < now_ns:
            decisions += loop.step(None, loop.due_ns)
        decisions += loop.step(item.event, now_ns)
    return decisions


def canonical(decisions: list[Decision]) -> list[bytes]:
    return [decision.canonical() for decision in decisions]


@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.93])
def test_a_thawed_loop_goes_on_as_the_frozen_one_would(fed: list[Fed], share: float) -> None:
    at = int(len(fed) * share)
    whole = Loop(bundle.load())
    before = run(whole, fed[:at])
    frozen = whole.freeze()
    after = run(whole, fed[at:])
    resumed = Loop(bundle.load())
    resumed.thaw(frozen)
    assert canonical(run(resumed, fed[at:])) == canonical(after)
    assert resumed.accounts() == whole.accounts()
    assert canonical(before + after) == canonical(run(Loop(bundle.load()), fed))


def test_freezing_changes_nothing(fed: list[Fed]) -> None:
    plain, watched = Loop(bundle.load()), Loop(bundle.load())
    expected = run(plain, fed[:800])
    decisions = []
    for start in range(0, 800, 50):
        decisions += run(watched, fed[start : start + 50])
        watched.freeze()
    assert canonical(decisions) == canonical(expected)


def test_a_state_of_another_bundle_is_refused(fed: list[Fed]) -> None:
    loop = Loop(bundle.load())
    frozen = loop.freeze().replace(loop.bundle.id.encode(), b"f" * 64)
    with pytest.raises(ValueError, match="state of bundle ffff"):
        loop.thaw(frozen)


def test_shedding_keeps_every_decision_and_the_recurrent_state_warm(fed: list[Fed]) -> None:
    loop = Loop(bundle.load())
    loop.ladder.level = LAST_LEVEL
    decisions = run(loop, fed[:1500])
    expected = run(Loop(bundle.load()), fed[:1500])
    assert [d.stamp_ns for d in decisions] == [d.stamp_ns for d in expected]
    shed = [d for d in decisions if any(m.absence == "shed" for m in d.modalities)]
    assert len(shed) > len(decisions) // 2
    assert all(d.overload_level == LAST_LEVEL for d in decisions)
    # Fusion ran on every frame: its output follows the recurrent state even where no encoder ran.
    assert len({d.embedding for d in decisions}) == len(decisions)


def test_what_can_not_be_decoded_is_counted_as_corrupt(fed: list[Fed]) -> None:
    loop = Loop(bundle.load())
    loop.step(Event(fed[0].event.now_ns, 1, None, 10), fed[0].event.now_ns)
    loop.step(Event(fed[0].event.now_ns, NOT_FUSED, None, 10), fed[0].event.now_ns)
    assert loop.accounts()["audio"]["corrupt"] == 1


class Uneven(ThreadPoolExecutor):
    """A lane on a machine that is busy with other things: calls begin and end late, or at once."""

    def __init__(self, seed: int) -> None:
        super().__init__(1)
        self._rng = random.Random(seed)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        before_s, after_s = (max(self._rng.uniform(-0.03, 0.03), 0.0) for _ in range(2))

        def late() -> Any:
            time.sleep(before_s)
            result = fn(*args, **kwargs)
            time.sleep(after_s)
            return result

        return super().submit(late)


@pytest.mark.parametrize("seed", range(3))
def test_when_the_lane_gets_to_its_calls_changes_no_decision(fed: list[Fed], seed: int) -> None:
    usual, uneven = Loop(bundle.load()), Loop(bundle.load())
    uneven.lane = uneven.charge.lane = Uneven(seed)
    feed = with_frozen_camera(fed[:1500], 500)  # so that alignment has something to say, and says more with each look
    expected = run(usual, feed)
    assert any(decision.alignment.suspects for decision in expected)
    assert canonical(run(uneven, feed)) == canonical(expected)


def with_frozen_camera(fed: list[Fed], first: int) -> list[Fed]:
    last = next(one.event.sample.image for one in fed if isinstance(one.event.sample, Frame))
    return [
        one._replace(event=one.event._replace(sample=one.event.sample._replace(image=last)))
        if number >= first and isinstance(one.event.sample, Frame)
        else one
        for number, one in enumerate(fed)
    ]


def test_a_picture_is_encoded_once_and_while_its_frame_waits_where_it_does(fed: list[Fed]) -> None:
    loop, threads = Loop(bundle.load()), list[str]()
    listen(loop, lambda: threads.append(threading.current_thread().name))
    arrived_ns = {one.event.sample.seq: one.event.now_ns for one in fed if isinstance(one.event.sample, Frame)}
    decisions = [decision for decision in run(loop, fed) if decision.modalities[0].present]
    waited = [decision.emitted_ns > arrived_ns[decision.frame_seq] for decision in decisions]
    assert len(threads) == len(decisions) and any(waited) and not all(waited)
    assert [name.startswith("lane") for name in threads] == waited


def test_encoding_ahead_changes_no_decision_and_no_frozen_state(fed: list[Fed]) -> None:
    ahead, due = Loop(bundle.load()), Loop(bundle.load(), LoopConfig(encode_ahead=False))
    listen(due, lambda: check(threading.current_thread() is threading.main_thread()))
    for start in range(0, 1600, 40):
        part = fed[start : start + 40]
        assert canonical(run(ahead, part)) == canonical(run(due, part))
        ahead.lane.submit(lambda: None).result()  # the next picture has been encoded, and shows nowhere
        assert ahead.freeze() == due.freeze()


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_that_was_foreseen_and_does_not_come_next_changes_no_decision(fed: list[Fed], seed: int) -> None:
    rng = random.Random(seed)
    pictures = [one.event.sample for one in fed if isinstance(one.event.sample, Frame)]
    loop, decisions = Loop(bundle.load()), []
    for one in fed[:1200]:
        loop.coming = rng.choice(pictures)
        decisions += run(loop, [one])
    assert canonical(decisions) == canonical(run(Loop(bundle.load()), fed[:1200]))


def test_a_camera_that_remembers_remembers_the_frames_that_were_decided(fed: list[Fed], tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path / "remembers", model=rememberer, encoder={"state": {"last": "last_next"}})
    pictures = [one.event.sample for one in fed if isinstance(one.event.sample, Frame)]
    ahead = Loop(bundle.load(folder))
    due, rng, decisions = Loop(bundle.load(folder), LoopConfig(encode_ahead=False)), random.Random(1), []
    for one in fed:
        ahead.coming = rng.choice(pictures)  # many a picture is encoded that does not come
        decisions += run(ahead, [one])
    assert canonical(decisions) == canonical(run(due, fed))
    assert ahead.freeze() == due.freeze()
    assert len({decision.objects[0].probability for decision in decisions if decision.objects}) > len(decisions) // 2


def test_an_encoder_that_fails_ahead_fails_the_frame_of_that_picture(fed: list[Fed]) -> None:
    decided = []
    for config in (LoopConfig(), LoopConfig(encode_ahead=False)):
        loop, runs = Loop(bundle.load(), config), iter(range(1 << 20))
        listen(loop, lambda runs=runs: check(next(runs) % 7 != 3))
        decided.append(run(loop, fed[:1200]))
    lost = [[d.index for d in each if d.modalities[0].absence == "failed"] for each in decided]
    assert lost[0] == lost[1] == list(range(3, len(decided[0]), 7))
    assert canonical(decided[0]) == canonical(decided[1])


def test_what_may_be_shed_is_not_encoded_ahead(fed: list[Fed]) -> None:
    loop = Loop(bundle.load())
    loop.ladder.level = 1
    threads: set[str] = set()
    listen(loop, lambda: threads.add(threading.current_thread().name))
    run(loop, fed[:600])
    assert threads == {threading.main_thread().name}


def listen(loop: Loop, heard: Callable[[], None]) -> None:
    """Call this whenever the camera's encoder runs."""
    engine = loop.perception.encoders["camera"]
    call = engine.run

    def listening() -> None:
        heard()
        call()

    engine.run = listening  # type: ignore[method-assign]


def check(is_right: bool) -> None:
    if not is_right:
        raise RuntimeError("not here, not now")


def test_the_lane_ends_with_the_loop() -> None:
    loop = Loop(bundle.load())
    lane = loop.lane.submit(threading.current_thread).result()
    del loop
    gc.collect()
    lane.join(10.0)
    assert not lane.is_alive()
