"""A bundle that loses its health is replaced within the very frame that shows it, and the recording repeats that."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.decision import Decision
from edge.drive.reader import DriveReader
from edge.engine import BoundEngine
from edge.feed import Fed, events
from edge.loop import Loop
from edge.overload import OverloadLadder
from edge.perception import Perception
from edge.recorder import Recorder
from edge.replay import STEP_TIMING, Replay
from edge.samples import BundleInUse
from edge.streams import MS
from edge.updates.health import FROZEN_FRAMES, LATE_WINDOW, RIVAL, RIVAL_WORK, TRIALS, WORK, Health
from edge.updates.swap import fed as swap_event
from tests.edge.updates.test_swap import canonical, loop_of, run, with_swaps
from tests.edge.updates.variants import dead, not_finite, raising, scaled, variant

AT = 700  # event before which the bundle under test takes over


@pytest.fixture(scope="module")
def fed(drive: Path) -> list[Fed]:
    with DriveReader(drive) as reader:
        return list(events(reader, Loop(bundles.load()).config.streams))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    folder, number = tmp_path_factory.mktemp("bundles"), count()
    return lambda **changes: bundles.load(variant(folder / f"variant-{next(number)}", **changes))


@pytest.fixture(scope="module")
def plain(fed: list[Fed]) -> list[Decision]:
    return run(Loop(bundles.load()), fed)


def tried(fed: list[Fed], bundle: Bundle) -> list[Decision]:
    """Decisions where the bundle takes over from the reference bundle, which stays open."""
    reference = bundles.load()
    return run(loop_of(reference, bundle), with_swaps(fed, {AT: BundleInUse(bundle.id, reference.id, "armed")}))


def back(decisions: list[Decision]) -> tuple[int, Decision]:
    """The one decision at which the previous bundle was put back."""
    ((index, decision),) = [(i, d) for i, d in enumerate(decisions) if d.put_back is not None]
    return index, decision


BROKEN = {
    "not_finite: fuse scene_tags": {"fuse": not_finite("scene_tags")},
    "not_finite: camera objects": {"camera": not_finite("objects")},
    "not_finite: lidar embedding": {"lidar": not_finite("embedding")},
    "engine_error: fuse": {"fuse": raising},
}


@pytest.mark.parametrize("why", BROKEN)
def test_the_first_broken_frame_is_decided_by_the_previous_bundle(
    why: str, fed: list[Fed], plain: list[Decision], make: Callable[..., Bundle]
) -> None:
    bundle, reference = make(**BROKEN[why]), bundles.load()
    decisions = tried(fed, bundle)
    index, decision = back(decisions)
    assert decision.put_back is not None and decision.put_back.bundle_id == bundle.id
    assert decision.put_back.why.startswith(why)
    assert {d.bundle_id for d in decisions} == {reference.id}  # nobody ever acts on the broken one
    assert [d.stamp_ns for d in decisions] == [d.stamp_ns for d in plain]
    assert canonical(decisions[:index]) == canonical(plain[:index])
    # From nothing seen to what the previous bundle says of it: the encoders agree at once.
    assert decision.objects == plain[index].objects
    message = Decision.from_message(decision.to_message())
    assert message.put_back == decision.put_back


@pytest.mark.parametrize("changes", [{"camera": dead("embedding")}, {"fuse": dead("embedding")}])
def test_an_embedding_that_stands_still_while_its_input_moves_is_found(
    changes: dict[str, object], fed: list[Fed], make: Callable[..., Bundle]
) -> None:
    decisions = tried(fed, make(**changes))
    index, decision = back(decisions)
    assert decision.put_back is not None and decision.put_back.why.startswith(f"frozen: {next(iter(changes))}")
    assert decision.bundle_id == bundles.load().id
    first = next(i for i, d in enumerate(decisions) if d.bundle_id != decision.bundle_id)
    assert FROZEN_FRAMES < index - first < 3 * FROZEN_FRAMES


def test_an_embedding_that_stands_still_for_both_is_not_the_bundles_fault(
    fed: list[Fed], make: Callable[..., Bundle]
) -> None:
    previous, bundle = make(audio=dead("embedding")), make(audio=dead("embedding"), fuse=scaled("scene_tags", 0.9))
    decisions = run(
        loop_of(previous, bundle), with_swaps(fed, {AT: BundleInUse(bundle.id, previous.id, "armed")})
    )  # fmt: skip
    assert not any(d.put_back for d in decisions)
    assert decisions[-1].bundle_id == bundle.id


def test_a_bundle_that_is_merely_different_stays(fed: list[Fed], make: Callable[..., Bundle]) -> None:
    decisions = tried(fed, make(fuse=scaled("scene_tags", 0.5), camera=scaled("embedding", 1.2)))
    assert not any(d.put_back for d in decisions)


@pytest.mark.parametrize("changes", [{"fuse": raising}, {"fuse": not_finite("scene_tags")}])
def test_without_a_previous_bundle_every_frame_still_gets_a_decision(
    changes: dict[str, object], fed: list[Fed], plain: list[Decision], make: Callable[..., Bundle]
) -> None:
    decisions = run(Loop(make(**changes)), fed)
    assert [d.stamp_ns for d in decisions] == [d.stamp_ns for d in plain]
    assert not any(d.put_back for d in decisions)


def test_an_encoder_that_fails_without_a_previous_bundle_counts_as_absent(
    fed: list[Fed], plain: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(bundles.load())
    failing = loop.perception.encoders["camera"]
    ran, usual = count(), failing._call  # type: ignore[attr-defined]

    def call() -> None:
        if next(ran) in (3, 4):
            raise RuntimeError("out of memory")
        usual()

    monkeypatch.setattr(failing, "_call", call)
    decisions = run(loop, fed)
    assert [d.modalities[0].absence for d in decisions[:6]] == ["", "", "", "failed", "failed", ""]
    assert decisions[3].degraded and not decisions[3].objects and decisions[3].scene_tags
    assert canonical(decisions[:3]) == canonical(plain[:3])


class Slow:
    """A clock that a bundle's engines move on: the machine's speed as a number."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._worked_ns = threading.local()

    def __call__(self) -> int:
        return self.now_ns

    def work(self) -> int:
        """What the calling thread was given of a processor."""
        return getattr(self._worked_ns, "value", 0)

    def slowed(self, perception: Perception, cost_ns: int, work_ns: int = 0) -> Perception:
        for engine in perception.engines.values():
            self._slow(engine, cost_ns, work_ns)
        return perception

    def _slow(self, engine: BoundEngine, cost_ns: int, work_ns: int) -> None:
        usual = engine.run

        def run() -> None:
            usual()
            self.now_ns += cost_ns
            self._worked_ns.value = self.work() + work_ns

        engine.run = run  # type: ignore[method-assign]


def timed(
    fed: list[Fed], bundle: Bundle, costs_ns: tuple[int, int], recorder: Recorder | None = None,
    work_ns: tuple[int, int] | None = None,
) -> Iterator[Decision]:  # fmt: skip
    """Decisions on a machine where engines of the reference bundle and of the other one take so long, and work so."""
    clock, reference = Slow(), bundles.load()
    loop = Loop(reference, None, "cpu", clock, work=None if work_ns is None else clock.work)
    ours_ns, others_ns = work_ns or (0, 0)
    clock.slowed(loop.perception, costs_ns[0], ours_ns)
    loop.charge.bundles.hold(clock.slowed(Perception(bundle, loop.config.streams), costs_ns[1], others_ns))
    start = BundleInUse(reference.id, "", "start")
    swaps = {0: start, AT: BundleInUse(bundle.id, reference.id, "armed")}
    batch = []
    last_ns = 0
    for item in with_swaps(fed, swaps):
        while 0 < loop.due_ns < item.event.now_ns:
            yield from finish(loop, loop.step(None, loop.due_ns), clock, batch, recorder)
        last_ns = max(item.event.now_ns, last_ns + 1)  # as live: each step has an instant of its own
        batch.append(
            Fed(item.event._replace(now_ns=last_ns), item.message._replace(arrival_ns=last_ns))
        )  # fmt: skip
        yield from finish(loop, loop.step(batch[-1].event, last_ns), clock, batch, recorder)


def finish(
    loop: Loop, decisions: list[Decision], clock: Slow, batch: list[Fed], recorder: Recorder | None
) -> list[Decision]:
    for decision in decisions:
        decision.timings_ns[STEP_TIMING] = sum(decision.timings_ns.values())
        loop.finished(decision, decision.emitted_ns + decision.timings_ns[STEP_TIMING])
    if decisions and recorder is not None:
        recorder.offer(batch.copy(), decisions, [])
        batch.clear()
    return decisions


def test_a_bundle_that_is_too_slow_is_put_back_and_the_recording_verifies(
    fed: list[Fed], make: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make(fuse=scaled("scene_tags", 0.9))
    recorded = tmp_path / "slow.mcap"
    recorder = Recorder(recorded, None, lossless=True)
    decisions = list(timed(fed, bundle, (1 * MS, 12 * MS), recorder))
    recorder.close()
    index, decision = back(decisions)
    assert decision.put_back is not None and decision.put_back.why.startswith("late: ")
    assert decision.bundle_id == bundles.load().id
    first = next(i for i, d in enumerate(decisions) if d.bundle_id == bundle.id)
    assert index - first < 3 * LATE_WINDOW
    with Replay(recorded, bundle, mode="happened") as again:
        assert canonical(again) == canonical(decisions)


def test_a_busy_machine_is_not_the_new_bundles_fault(fed: list[Fed], make: Callable[..., Bundle]) -> None:
    decisions = list(timed(fed, make(fuse=scaled("scene_tags", 0.9)), (14 * MS, 15 * MS)))
    assert not any(d.put_back for d in decisions)
    assert any(d.overload_level for d in decisions)
    assert any("previous" in d.timings_ns for d in decisions)


@pytest.mark.parametrize(
    ("costs_ns", "work_ns", "is_blamed"),
    [((1 * MS, 12 * MS), (1 * MS, 2 * MS), False), ((12 * MS, 12 * MS), (1 * MS, 12 * MS), True)],
    ids=["it waits", "it works"],
)
def test_on_a_busy_machine_only_work_is_compared(
    costs_ns: tuple[int, int], work_ns: tuple[int, int], is_blamed: bool, fed: list[Fed], make: Callable[..., Bundle]
) -> None:
    decisions = list(timed(fed, make(fuse=scaled("scene_tags", 0.9)), costs_ns, work_ns=work_ns))
    assert any(d.put_back for d in decisions) == is_blamed
    (tried, *_) = [d.timings_ns for d in decisions if RIVAL in d.timings_ns]
    for stage, each_ns in ((RIVAL_WORK, work_ns[0]), (WORK, work_ns[1])):  # engines on both threads; some are shed
        assert 2 * each_ns <= tried[stage] <= 5 * each_ns and tried[stage] % each_ns == 0


def test_a_bundle_is_acquitted_for_longer_each_time() -> None:
    health, trials = Health(), []
    for frame in range(4_000):
        timings = {"step": 60 * MS, "encode": 30 * MS, "fuse": 10 * MS}
        if health.wants_trial():
            timings["previous"] = 38 * MS
            trials.append(frame)
        assert not health.observe(timings, 1, 50 * MS)
    rounds = [trials[i] for i in range(0, len(trials), TRIALS)]
    gaps = [b - a for a, b in pairwise(rounds)]
    assert gaps == sorted(gaps) and gaps[-1] > 8 * gaps[0]


def test_frames_that_wait_for_the_processor_blame_nobody() -> None:
    health = Health()
    for frame in range(2_000):
        waits = frame % 3 == 0  # while the other one happens to run undisturbed
        timings = {"step": 60 * MS, "encode": (40 if waits else 3) * MS, "fuse": MS}
        if health.wants_trial():
            timings["previous"] = 3 * MS
        assert not health.observe(timings, 1, 50 * MS)


def test_an_engine_that_failed_once_fails_in_the_replay_too(
    fed: list[Fed], make: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, reference, recorded = make(fuse=scaled("scene_tags", 0.9)), bundles.load(), tmp_path / "failed.mcap"
    loop = loop_of(reference, bundle)
    engine = loop.charge.bundles.get(bundle.id).encoders["audio"]  # type: ignore[union-attr]
    ran, usual = count(), engine._call  # type: ignore[attr-defined]

    def call() -> None:
        if next(ran) == 7:
            raise RuntimeError("the device is gone")
        usual()

    monkeypatch.setattr(engine, "_call", call)
    recorder = Recorder(recorded, None, lossless=True)
    swaps = {0: BundleInUse(reference.id, "", "start"), AT: BundleInUse(bundle.id, reference.id, "armed")}
    decisions, batch = [], []
    for item in with_swaps(fed, swaps):
        while 0 < loop.due_ns < item.event.now_ns:
            decisions += finish(loop, loop.step(None, loop.due_ns), Slow(), batch, recorder)
        batch.append(item)
        decisions += finish(loop, loop.step(item.event, item.event.now_ns), Slow(), batch, recorder)
    recorder.close()
    _, decision = back(decisions)
    assert decision.put_back is not None and "the device is gone" in decision.put_back.why
    with Replay(recorded, bundle, mode="happened") as again:
        repeated = list(again)
    assert canonical(repeated) == canonical(decisions)


def test_the_verdict_outlives_freezing(fed: list[Fed], make: Callable[..., Bundle]) -> None:
    reference, bundle = bundles.load(), make(camera=dead("embedding"))
    swapped = with_swaps(fed, {AT: BundleInUse(bundle.id, reference.id, "armed")})
    expected = tried(fed, bundle)
    loop = loop_of(reference, bundle)
    decisions = run(loop, swapped[: AT + 250])
    frozen = loop.freeze()
    resumed = loop_of(reference, bundle)
    resumed.thaw(frozen)
    decisions += run(resumed, swapped[AT + 250 :])
    assert canonical(decisions) == canonical(expected)
    assert back(decisions)[0] > len(run(loop_of(reference, bundle), swapped[: AT + 250]))


def test_full_service_costs_no_trial(fed: list[Fed], make: Callable[..., Bundle]) -> None:
    decisions = list(timed(fed[: AT + 600], make(fuse=scaled("scene_tags", 0.9)), (1 * MS, 2 * MS)))
    assert not any("previous" in d.timings_ns for d in decisions)
    assert dataclasses.asdict(decisions[-1])["overload_level"] == OverloadLadder().level
    assert swap_event(BundleInUse("ab" * 32, "", "why"), 5).event.now_ns == 5
