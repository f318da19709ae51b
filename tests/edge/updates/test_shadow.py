"""The shadow decides the same frames in a process that may die; nothing of it reaches the loop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.decision import Decision
from edge.drive.reader import DriveMessage, DriveReader
from edge.feed import events
from edge.loop import Loop, LoopConfig
from edge.streams import SECOND
from edge.updates import shadow_process
from edge.updates.evidence import ALL, Evidence
from edge.updates.opinion import Opinion, opinion_of
from edge.updates.pairs import Pairs
from edge.updates.shadow import QUEUE, Shadow
from edge.updates.shadow_process import Batch, Shadowing, Task
from tests.edge.updates.variants import not_finite, raising, scaled, variant

Passed = list[tuple[list[DriveMessage], list[Opinion]]]
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def passed(drive: Path) -> Passed:
    """What a loop took and said, frame by frame."""
    return _passed(drive)


def _passed(drive: Path, over: Callable[[int], bool] = lambda _: False) -> Passed:
    """Where some frames take too long."""
    bundle = bundles.load()
    loop, found, messages = Loop(bundle), [], []

    def say(decisions: list[Decision]) -> None:
        for decision in decisions:
            loop.finished(decision, decision.emitted_ns + 60_000_000 * over(decision.index), {})
        if decisions:
            opinions = [opinion_of(decision, bundle, is_late=False)._replace(scene=1) for decision in decisions]
            found.append((messages.copy(), opinions))
            messages.clear()

    with DriveReader(drive) as reader:
        for fed in events(reader, loop.config.streams):
            while 0 < loop.due_ns < fed.event.now_ns:
                say(loop.step(None, loop.due_ns))
            messages.append(fed.message)
            say(loop.step(fed.event, fed.event.now_ns))
    return found


def task(folder: Path | None = None) -> Task:
    return Task(folder, LoopConfig(), "cpu", Evidence("ab", True, b"1"), 8 << 30)


def shadowed(passed: Passed, bundle: Bundle, lost: tuple[int, ...] = ()) -> tuple[Evidence, list[int]]:
    """Evidence, and frames of scenes, where some batches were lost."""
    shadowing, said, is_gap = Shadowing(bundle, task()), [], True
    for number, (messages, opinions) in enumerate(passed):
        if number in lost:
            is_gap = True
            continue
        said += [stamp_ns for stamp_ns, _, _ in shadowing.take(Batch(is_gap, messages, opinions))]
        is_gap = False
    return shadowing.evidence, said


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return lambda name, **changes: bundles.load(variant(folder / name, **changes))


def test_the_same_models_say_the_same_of_every_frame(passed: Passed, make: Callable[..., Bundle]) -> None:
    evidence, said = shadowed(passed, make("same"))
    whole = evidence.of(ALL)
    frames = sum(len(opinions) for _, opinions in passed)
    assert whole.counts == {"same": whole.frames}
    assert frames - 66 <= whole.frames < frames  # but for the first three seconds
    assert len(said) == whole.frames
    assert abs(whole.seconds - 0.05 * (whole.frames - 1)) < 0.01


def test_a_shadow_that_came_later_sheds_what_the_active_bundle_sheds(
    drive: Path, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_process, "WARM_NS", SECOND)  # by then each encoder ran once
    busy, shed = _passed(drive, over=lambda index: index < 3), []
    monkeypatch.setattr(Pairs, "add", lambda _, active, staged: shed.append((active.shed, staged.shed)))
    shadowed(busy, make("busy"), lost=tuple(range(31)))
    assert len({active for active, _ in shed}) > 2, "what is shed changes from frame to frame"
    assert [pair for pair in shed if pair[0] != pair[1]] == []


def test_another_model_differs_and_a_broken_one_fails(passed: Passed, make: Callable[..., Bundle]) -> None:
    different, _ = shadowed(passed, make("other", fuse=scaled("scene_tags", 0.3)))
    assert different.of(ALL).counts["differs"] > 10
    broken, _ = shadowed(passed, make("broken", fuse=not_finite("scene_tags")))
    assert broken.of(ALL).counts["not_finite"] == broken.of(ALL).counts["worse"] == broken.of(ALL).frames
    raises, _ = shadowed(passed, make("raises", fuse=raising))
    assert raises.of(ALL).frames > 0 or raises.of(ALL).counts.get("engine_error")


@pytest.mark.parametrize(("provider", "is_late"), [("cpu", False), ("trt", True)])
def test_on_a_gpu_a_bundle_is_late_by_real_time_and_on_a_cpu_by_the_processors(
    passed: Passed, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, provider: str, is_late: bool
) -> None:
    monkeypatch.setattr(shadow_process, "WARM_NS", SECOND)
    monkeypatch.setattr(shadow_process, "Loop", lambda bundle, config, _, clock: Loop(bundle, config, "cpu", clock))
    shadowing = Shadowing(replace(make(f"waits-{provider}"), threads=4), replace(task(), provider=provider))
    fuse = shadowing.loop.charge.perception.engines["fuse"]
    run = fuse.run

    def waits() -> None:
        time.sleep(0.06)  # as for a device: a frame's period is 0.05 s
        run()

    monkeypatch.setattr(fuse, "run", waits)
    for number, (messages, opinions) in enumerate(passed[:30]):
        shadowing.take(Batch(number == 0, messages, opinions))
    counts = shadowing.evidence.of(ALL)
    assert counts.frames > 0
    assert counts.counts.get("late", 0) == (counts.frames if is_late else 0)


def test_frames_around_a_gap_make_no_pairs(passed: Passed, make: Callable[..., Bundle]) -> None:
    bundle = make("gap")
    whole, _ = shadowed(passed, bundle)
    holed, _ = shadowed(passed, bundle, lost=(20, 21))
    assert 0 < holed.of(ALL).frames < whole.of(ALL).frames - 15
    assert not {"worse", "better"} & set(holed.of(ALL).counts)  # though what was lost is remembered for a while


@pytest.fixture
def shadow(make: Callable[..., Bundle], request: pytest.FixtureRequest) -> Iterator[Shadow]:
    folder = make(request.node.name[:40]).path
    shadow = Shadow(folder, LoopConfig(), "cpu", Evidence("ab", True, b"1"))
    yield shadow
    shadow.close()


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.01)


def feed(shadow: Shadow, passed: Passed) -> None:
    for messages, opinions in passed:
        until(lambda: not shadow.is_ready or len(shadow._queue) < QUEUE // 2)
        shadow.offer(messages, opinions)


def test_a_killed_process_is_started_again_and_the_counts_go_on(shadow: Shadow, passed: Passed) -> None:
    until(lambda: shadow.is_ready)
    feed(shadow, passed)
    until(lambda: shadow.evidence.of(ALL).frames > 20)
    until(lambda: shadow.opinion(passed[-1][1][-1].stamp_ns) is not None)
    told = shadow.opinion(passed[-1][1][-1].stamp_ns)
    assert told is not None and told.bundle_id == "ab" and all(tag.probability >= 0.5 for tag in told.scene_tags)
    before, pid = shadow.evidence.of(ALL).frames, shadow.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not shadow.is_ready)
    for messages, opinions in passed:
        shadow.offer(messages, opinions)  # nobody takes it, and nobody waits
    until(lambda: shadow.is_ready)
    feed(shadow, passed)
    until(lambda: shadow.evidence.of(ALL).frames > before)
    assert shadow.processes == 2 and shadow.pid != pid
    assert set(shadow.evidence.of(ALL).counts) == {"same"}
    assert not shadow.trouble


def test_a_full_queue_drops_the_oldest_and_never_waits(shadow: Shadow, passed: Passed) -> None:
    until(lambda: shadow.is_ready)
    os.kill(shadow.pid, signal.SIGSTOP)
    for _ in range(4):
        for messages, opinions in passed:
            shadow.offer(messages, opinions)
    assert shadow.dropped > 2 * len(passed)
    assert len(shadow._queue) <= QUEUE


def test_a_process_that_dies_of_itself_is_a_failure_of_the_bundle(shadow: Shadow) -> None:
    until(lambda: shadow.is_ready)
    os.kill(shadow.pid, signal.SIGSEGV)
    until(lambda: shadow.processes == 2)
    assert shadow.evidence.of(ALL).counts == {"engine_error": 1}


def test_a_bundle_that_does_not_open_is_said_and_not_tried_again(tmp_path: Path) -> None:
    shadow = Shadow(tmp_path / "none", LoopConfig(), "cpu", Evidence("ab", True, b"1"))
    until(lambda: bool(shadow.trouble))
    assert "expected a bundle folder" in shadow.trouble and shadow.processes == 1
    shadow.close()


def test_a_process_without_memory_is_given_up(make: Callable[..., Bundle]) -> None:
    shadow = Shadow(
        make("big").path, LoopConfig(), "cpu", Evidence("ab", True, b"1"), memory_bytes=100 << 20, open_s=5.0
    )

    def is_given_up() -> bool:
        shadow.check()
        return bool(shadow.trouble)

    until(is_given_up)
    assert not shadow.is_ready
    shadow.close()
