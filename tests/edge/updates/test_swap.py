"""A swap between two frames costs no frame, and changes no decision but by the model that makes it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.decision import Decision
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import DriveFormatError
from edge.feed import Fed, events
from edge.loop import Loop
from edge.perception import Perception
from edge.recorder import Recorder
from edge.replay import Replay
from edge.replay_command import main as replay_main
from edge.samples import BundleInUse
from edge.updates.swap import fed as swap_event
from tests.edge.models import bundle_folder
from tests.edge.updates.variants import scaled, variant


@pytest.fixture(scope="module")
def fed(drive: Path) -> list[Fed]:
    with DriveReader(drive) as reader:
        return list(events(reader, Loop(bundles.load()).config.streams))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The reference bundle with another fusion."""
    folder = tmp_path_factory.mktemp("bundles") / "other"
    return bundles.load(variant(folder, fuse=scaled("scene_tags", 0.9), motion=scaled("embedding", 0.8)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Sees one kind of thing with a camera alone: no fusion, no embedding, no tags."""
    return bundles.load(bundle_folder(tmp_path_factory.mktemp("bundles") / "small"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.load(
        bundle_folder(tmp_path_factory.mktemp("bundles") / "tiny", heads={"objects": ["thing", "other"]})
    )


def loop_of(*several: Bundle) -> Loop:
    loop = Loop(several[0])
    for one in several[1:]:
        loop.charge.bundles.hold(Perception(one, loop.config.streams))
    return loop


def run(loop: Loop, fed: Iterable[Fed]) -> list[Decision]:
    decisions = []
    for item in fed:
        while 0 < loop.due_ns < item.event.now_ns:
            decisions += loop.step(None, loop.due_ns)
        decisions += loop.step(item.event, item.event.now_ns)
    return decisions


def with_swaps(fed: list[Fed], swaps: dict[int, BundleInUse]) -> list[Fed]:
    """The events, and before the one of each place a swap at the same instant."""
    return [
        one
        for at, item in enumerate(fed)
        for one in ([swap_event(swaps[at], item.event.now_ns), item] if at in swaps else [item])
    ]


def canonical(decisions: Iterable[Decision]) -> list[bytes]:
    return [decision.canonical() for decision in decisions]


def places(loop: Loop, fed: list[Fed]) -> list[int]:
    """The event before which each frame was just decided."""
    found = []
    for at, item in enumerate(fed):
        while 0 < loop.due_ns < item.event.now_ns:
            found += [at] * len(loop.step(None, loop.due_ns))
        found += [at + 1] * len(loop.step(item.event, item.event.now_ns))
    return found


def swapped_to(bundle: Bundle, previous: Bundle | None = None) -> BundleInUse:
    return BundleInUse(bundle.id, "" if previous is None else previous.id, "armed")


def test_a_swap_at_any_frame_boundary_keeps_count_order_and_all_that_is_no_models(
    fed: list[Fed], small: Bundle, tiny: Bundle
) -> None:
    fed = fed[: len(fed) // 2]
    plain, after = run(loop_of(small), fed), run(loop_of(tiny), fed)
    boundaries = places(loop_of(small), fed)
    assert len(boundaries) > 30
    assert {one.bundle_id for one in plain} != {one.bundle_id for one in after}
    for number, at in enumerate(boundaries[:-1], start=1):
        decisions = run(loop_of(small, tiny), with_swaps(fed, {at: swapped_to(tiny)}))
        assert canonical(decisions[:number]) == canonical(plain[:number])
        assert [d.bundle_id for d in decisions[number:]] == [tiny.id] * (len(plain) - number)
        assert [(d.stamp_ns, d.index, d.emitted_ns, d.modalities) for d in decisions] == [
            (d.stamp_ns, d.index, d.emitted_ns, d.modalities) for d in plain
        ]
        assert [d.objects for d in decisions[number + 1 :]] == [d.objects for d in after[number + 1 :]]


def test_while_the_previous_bundle_is_open_no_picture_is_encoded_ahead(fed: list[Fed], other: Bundle) -> None:
    """For both are timed on whole frames then."""
    reference = bundles.load()
    loop, threads = loop_of(reference, other), set[str]()
    engine = loop.charge.bundles.get(other.id).encoders["camera"]
    call = engine.run

    def listening() -> None:
        threads.add(threading.current_thread().name)
        call()

    engine.run = listening  # type: ignore[method-assign]
    run(loop, with_swaps(fed[:600], {0: swapped_to(other, reference)}))
    assert threads == {threading.main_thread().name}


def test_the_incoming_bundle_decides_as_if_the_drive_began_with_it(fed: list[Fed], other: Bundle) -> None:
    reference = bundles.load()
    at = places(loop_of(reference), fed)[40]
    decisions = run(loop_of(reference, other), with_swaps(fed, {at: swapped_to(other, reference)}))
    plain = run(loop_of(reference), fed)
    assert canonical(decisions[:41]) == canonical(plain[:41])
    # The other bundle alone, its engines at zero and everything else as it was at the boundary.
    alone = Loop(reference)
    run(alone, fed[:at])
    perception = Perception(other, alone.config.streams)
    alone.charge.bundles.hold(perception)
    alone.step(swap_event(swapped_to(other), fed[at].event.now_ns).event, fed[at].event.now_ns)
    assert not any(values.any() for engine in perception.engines.values() for values in engine.outputs.values())
    after = run(alone, fed[at:])
    for ours, theirs in zip(decisions[41:], after, strict=True):
        assert (ours.scene_tags, ours.embedding, ours.objects) == (theirs.scene_tags, theirs.embedding, theirs.objects)
    assert decisions[41].scene_tags != plain[41].scene_tags
    assert {s.name: s.value for s in decisions[41].scores}["flicker"] == 0.0


def test_bundles_with_other_modalities_and_heads_take_turns(fed: list[Fed], small: Bundle, other: Bundle) -> None:
    reference = bundles.load()
    boundaries = places(loop_of(reference), fed)
    swaps = {
        boundaries[20]: swapped_to(small, reference),
        boundaries[50]: swapped_to(other, small),
        boundaries[80]: swapped_to(reference, other),
    }
    decisions = run(loop_of(reference, small, other), with_swaps(fed, swaps))
    assert len(decisions) == len(boundaries)
    assert [d.bundle_id for d in decisions] == (
        [reference.id] * 21 + [small.id] * 30 + [other.id] * 30 + [reference.id] * (len(boundaries) - 81)
    )
    assert not any(d.embedding or d.scene_tags for d in decisions[21:51])
    assert all(d.embedding and d.scene_tags for d in decisions[51:])


def test_under_overload_the_incoming_bundle_encodes_all_before_it_sheds(fed: list[Fed], other: Bundle) -> None:
    reference = bundles.load()
    at = places(loop_of(reference), fed)[41]
    loop = loop_of(reference, other)
    run(loop, fed[:at])
    loop.ladder.level = 3
    decisions = run(loop, with_swaps(fed[at : at + 300], {0: swapped_to(other)}))
    ours = [d for d in decisions if d.bundle_id == other.id]
    assert not any(state.absence == "shed" for state in ours[0].modalities)
    assert any(state.absence == "shed" for d in ours[1:4] for state in d.modalities)


def test_a_bundle_that_is_not_open_changes_nothing(fed: list[Fed], small: Bundle, tiny: Bundle) -> None:
    loop, fed = loop_of(small), fed[:300]
    assert canonical(run(loop, with_swaps(fed, {150: swapped_to(tiny)}))) == canonical(run(loop_of(small), fed))


def test_a_loop_that_is_frozen_after_a_swap_goes_on_where_all_bundles_are_open(
    fed: list[Fed], small: Bundle, tiny: Bundle
) -> None:
    fed = fed[:900]
    loop = loop_of(small, tiny)
    run(loop, with_swaps(fed[:400], {200: swapped_to(tiny, small)}))
    frozen = loop.freeze()
    resumed = loop_of(small, tiny)
    resumed.thaw(frozen)
    assert canonical(run(resumed, fed[400:])) == canonical(run(loop, fed[400:]))
    with pytest.raises(ValueError, match="state of bundle"):
        loop_of(small).thaw(frozen)


@pytest.fixture
def swapped(drive: Path, tmp_path: Path, small: Bundle, other: Bundle) -> tuple[Path, list[bytes]]:
    """A recorded run that began with the reference bundle and changed twice."""
    reference, source, recorded = bundles.load(), tmp_path / "source.mcap", tmp_path / "recorded.mcap"
    swaps = {
        0: BundleInUse(reference.id, "", "start"), 900: swapped_to(other, reference), 1800: swapped_to(small),
    }  # fmt: skip
    with DriveReader(drive) as reader, DriveWriter(source) as writer:
        for number, m in enumerate(reader.messages()):
            if number in swaps:
                said = swap_event(swaps[number], m.arrival_ns).message
                writer.write_payload(
                    said.topic, said.payload, capture_ns=m.arrival_ns, arrival_ns=m.arrival_ns, sequence=0
                )
            writer.copy(m)
    with Replay(source, [reference, other, small], recorder=Recorder(recorded, None, lossless=True)) as done:
        decisions = canonical(done)
    return recorded, decisions


def test_a_drive_with_swaps_replays_bit_for_bit_given_all_bundles(
    swapped: tuple[Path, list[bytes]], small: Bundle, other: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, decisions = swapped
    with DriveReader(recorded) as reader:
        assert len(list(reader.messages(topics=[topics.BUNDLE]))) == 3
    both = ["--bundle", str(other.path), "--bundle", str(small.path)]  # the reference bundle comes with roadfuse
    assert replay_main([str(recorded), "--verify", *both]) == 0
    assert "the same decisions, bit for bit" in capsys.readouterr().out
    with Replay(recorded, [small, other]) as again:
        assert canonical(again) == decisions


def test_a_missing_bundle_is_named(swapped: tuple[Path, list[bytes]], small: Bundle, other: Bundle) -> None:
    recorded, _ = swapped
    for words in (["--verify"], ["--as", "happened"], ["--bundle", str(small.path), "--bundle", str(small.path)]):
        with pytest.raises(DriveFormatError, match=f"expected bundle {other.id}, which the drive changes to") as told:
            replay_main([str(recorded), *words])
        assert "\n" not in str(told.value)


def test_as_designed_one_bundle_decides_every_frame(swapped: tuple[Path, list[bytes]], drive: Path) -> None:
    recorded, _ = swapped
    with Replay(recorded) as again, Replay(drive) as plain:
        ours, theirs = list(again), list(plain)
    assert [dataclasses.replace(d, digests=()) for d in ours] == [dataclasses.replace(d, digests=()) for d in theirs]
