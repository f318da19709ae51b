"""The rules of synchronisation: order, accounts, coverage, choice, recovery."""

from __future__ import annotations

import gc
import itertools
import pickle
import random
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.frameset import EmitReason, FrameSet
from edge.streams import DEADLINE_NS, MS, SECOND
from edge.sync import Sync
from tests.edge.sources import ROW, START_NS, TABLE, Event, Tick, Vehicle, best, by_arrival, feed, play, unaccounted

CAMERA = TABLE[0]
OTHERS = [stream.name for stream in TABLE[1:]]
seeds = st.integers(0, 1 << 32)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def latencies(frames: list[FrameSet], after_ns: int = 0) -> list[int]:
    return [frame.emitted_ns - frame.stamp_ns for frame in frames if frame.stamp_ns >= after_ns]


def real(frames: list[FrameSet]) -> list[Any]:
    return [frame.frame for frame in frames if frame.frame is not None]


def keys(frames: list[FrameSet]) -> list[bytes]:
    return [frame.key() for frame in frames]


# --- order ------------------------------------------------------------------------------------------------------------


def captures(rng: random.Random, start_ns: int, end_ns: int) -> list[tuple[int, Tick]]:
    """Samples of all streams, spaced as the table promises; some are lost, but no stream falls silent."""
    taken = []
    for row, stream in enumerate(TABLE):
        if row and rng.random() < 0.15:
            continue  # dead throughout
        min_gap_ns = int(SECOND / stream.rate_hz)
        longest_ns = min(stream.silence_ns * 2 // 5, 700 * MS)  # twice that, if one is lost, is not silence yet
        usual_ns = min(int(min_gap_ns * rng.uniform(1, 3)), longest_ns)
        lost = rng.choice([0.0, 0.0, 0.2])
        stamp_ns = start_ns + rng.randrange(min_gap_ns, 2 * min_gap_ns)
        seq = rng.choice([0, 3, 10_000])
        was_lost = False
        while stamp_ns < end_ns:
            was_lost = not was_lost and rng.random() < lost
            if not was_lost:
                taken.append((row, Tick(stamp_ns, seq)))
            seq += 1
            if rng.random() < 0.02:
                stamp_ns += max(min_gap_ns, rng.randrange(longest_ns))
            else:
                stamp_ns += max(min_gap_ns, int(usual_ns * rng.uniform(0.9, 1.2)))
    return taken


def deliver(rng: random.Random, taken: list[tuple[int, Tick]], duplicates: float) -> list[Event]:
    """Arrivals less than the stream's lateness after the capture, in any order, and some again at any time later."""
    events: list[Event] = []
    for row, tick in taken:
        lateness_ns = TABLE[row].lateness_ns
        first_ns = tick.stamp_ns + rng.choice([0, lateness_ns - 1, rng.randrange(lateness_ns)])
        events.append((first_ns, row, tick))
        while rng.random() < duplicates:
            events.append((first_ns + rng.choice([0, rng.randrange(800 * MS)]), row, tick))
    rng.shuffle(events)
    return sorted(events, key=lambda event: event[0])


@quick
@given(seeds, st.sampled_from([0, 1, START_NS]), st.sampled_from([0.0, 0.3]))
def test_order_of_arrival_within_lateness_changes_nothing(seed: int, start_ns: int, duplicates: float) -> None:
    rng = random.Random(seed)
    taken = captures(rng, start_ns, start_ns + 2 * SECOND)
    until_ns = start_ns + 3 * SECOND
    in_order = sorted(((tick.stamp_ns, row, tick) for row, tick in taken), key=lambda event: event[0])
    expected = keys(list(feed(Sync(TABLE), in_order, until_ns)))
    for _ in range(2):
        assert keys(list(feed(Sync(TABLE), deliver(rng, taken, duplicates), until_ns))) == expected
    assert len(expected) >= sum(row == 0 for row, _ in taken)


# --- accounts ---------------------------------------------------------------------------------------------------------


def hostile(rng: random.Random, count: int) -> list[Event]:
    """Anything at all: wild stamps and numbers, restarts, clock steps, stalls, floods beyond the ring."""
    now_ns = rng.choice([0, START_NS])
    seqs, clocks = [0] * len(TABLE), [0] * len(TABLE)
    events: list[Event] = []
    while len(events) < count:
        now_ns += rng.choice([0, rng.randrange(10 * MS), rng.randrange(100 * MS), rng.randrange(4 * SECOND)])
        row = rng.randrange(len(TABLE))
        if rng.random() < 0.05:
            seqs[row] = rng.choice([0, seqs[row] - 5, seqs[row] + 5, seqs[row] + 5000, -3, 1 << 40])
        if rng.random() < 0.05:
            clocks[row] = rng.choice([0, -5 * SECOND, 5 * SECOND, -50 * MS, 3 * MS, -now_ns])
        burst = rng.choice([1, 1, 1, 5, TABLE[row].ring + 5])
        for i in range(burst):
            seq = seqs[row] if rng.random() < 0.9 else rng.randrange(-10, seqs[row] + 20 if seqs[row] > 0 else 20)
            stamp_ns = now_ns + clocks[row] - rng.choice([0, (burst - i) * 10 * MS, rng.randrange(SECOND)])
            events.append((now_ns, row, Tick(stamp_ns, seq)))
            seqs[row] += rng.random() < 0.95
    return events


@quick
@given(seeds)
def test_every_sample_is_accounted_for_at_every_moment(seed: int) -> None:
    rng = random.Random(seed)
    sync, came = Sync(TABLE), [0] * len(TABLE)
    pushes = sync.pushes
    last_stamp_ns = -1 << 63
    for i, (now_ns, row, sample) in enumerate(hostile(rng, 600)):
        popped = list(feed(sync, (), now_ns))
        came[row] += 1
        if rng.random() < 0.05:
            sync.refuse(row, "corrupt")
        elif pushes[row](sample, now_ns):
            while (frames := sync.pop(now_ns)) is not None:
                popped.append(frames)
        for frames in popped:
            assert frames.stamp_ns >= last_stamp_ns
            last_stamp_ns = frames.stamp_ns
        if i % 7 == 0 or popped:
            assert not unaccounted(sync, came)
        for ring in (sync.camera, *sync.others):
            assert len(ring.stamps) == len(ring.samples) <= ring.capacity
            assert ring.stamps[ring.head :] == sorted(ring.stamps[ring.head :])
    assert not unaccounted(sync, came)


@quick
@given(seeds)
def test_hostile_input_costs_a_bounded_number_of_framesets(seed: int) -> None:
    events = hostile(random.Random(seed), 300)
    frames = list(feed(Sync(TABLE), events, events[-1][0] + 10**6 * SECOND))
    assert len(frames) < 300 * 130


def test_reasons_say_what_became_of_each_sample() -> None:
    events = Vehicle().change("imu", lost=0.1).events(5)
    rng = random.Random(1)
    again = [(now_ns + rng.randrange(SECOND), row, sample) for now_ns, row, sample in events[::10]]
    events += again
    events += [(START_NS + 2 * SECOND, ROW["gnss"], Tick(START_NS + 3 * SECOND, 20))]
    sync = Sync(TABLE)
    play(by_arrival(events), sync)
    sync.refuse(ROW["camera"], "corrupt")
    came = Counter(row for _, row, _ in events)
    came[0] += 1
    assert not unaccounted(sync, [came[row] for row in range(len(TABLE))])
    accounts = sync.accounts()
    assert accounts["gnss"]["clock"] == 1
    assert accounts["camera"]["corrupt"] == 1
    assert accounts["vehicle"]["superseded"] > 200
    assert sum(account.get("duplicate", 0) for account in accounts.values()) == len(again)


# --- coverage ---------------------------------------------------------------------------------------------------------


def assert_covered(events: list[Event], frames: list[FrameSet]) -> None:
    """Each frame that came before its deadline has one FrameSet, by stamp, in time; each lost one the metronome's."""
    came = [sample for now_ns, row, sample in events if row == 0 and now_ns < sample.stamp_ns + DEADLINE_NS]
    assert real(frames) == sorted(set(came), key=lambda sample: (sample.stamp_ns, sample.seq))
    assert [frame.stamp_ns for frame in frames] == sorted(frame.stamp_ns for frame in frames)
    assert max(latencies(frames)) <= DEADLINE_NS
    seqs = {sample.seq: sample.stamp_ns for sample in came}
    missed = [frame.stamp_ns for frame in frames if frame.frame is None]
    first, last = min(seqs), max(seqs)
    for seq in set(range(first, last)) - set(seqs):
        below = max(known for known in seqs if known < seq)
        above = min(known for known in seqs if known > seq)
        share = (seq - below) / (above - below)
        instant_ns = seqs[below] + share * (seqs[above] - seqs[below])
        assert any(abs(stamp_ns - instant_ns) < 25 * MS for stamp_ns in missed), (seq, missed)


@pytest.mark.parametrize("count", range(len(OTHERS) + 1))
def test_every_frame_is_covered_with_any_streams_dead(count: int) -> None:
    for dead in itertools.combinations(OTHERS, count):
        events = Vehicle().without(*dead).events(3)
        frames = play(events)
        assert_covered(events, [frame for frame in frames if frame.stamp_ns <= events[-1][0]])
        for row, stream in enumerate(TABLE[1:]):
            present = [bool(frame.picks[row].samples) for frame in frames[20:50]]
            assert not any(present) if stream.name in dead else all(present)


@pytest.mark.parametrize("dead", OTHERS)
def test_every_frame_is_covered_while_a_stream_dies_and_returns(dead: str) -> None:
    span = (START_NS + SECOND, START_NS + 3 * SECOND)
    events = Vehicle().change(dead, dead=span).events(6)
    frames = play(events)
    assert_covered(events, frames)
    row = ROW[dead] - 1
    assert not frames[55].picks[row].samples or TABLE[row + 1].tolerance_ns > SECOND
    assert all(frame.picks[row].samples for frame in frames if span[1] + SECOND < frame.stamp_ns < span[1] + 2 * SECOND)


@pytest.mark.parametrize("seed", range(8))
def test_every_frame_is_covered_on_a_faulty_load(seed: int) -> None:
    vehicle = Vehicle(seed=seed).change("camera", lost=0.1).change("imu", lost=0.1, jitter_ms=15.0)
    vehicle.change("lidar", jitter_ms=60.0).change("audio", stall=(START_NS + SECOND, START_NS + 2 * SECOND))
    rng = random.Random(seed)
    events = vehicle.events(10)
    events = by_arrival([*events, *((now_ns + rng.randrange(SECOND), row, tick) for now_ns, row, tick in events[::9])])
    assert_covered(events, play(events))


@quick
@given(seeds, st.sampled_from([5.0, 10.0, 20.0, 30.0, 60.0]), st.sampled_from([0, START_NS]))
def test_every_frame_is_covered_at_any_camera_rate(seed: int, rate_hz: float, start_ns: int) -> None:
    rng = random.Random(seed)
    vehicle = Vehicle(start_ns=start_ns, seed=seed).without(*rng.sample(OTHERS, 3))
    vehicle.change("camera", rate_hz=rate_hz, delay_ms=rng.uniform(1, 60), jitter_ms=0.0)
    events = vehicle.events(3)
    frames = play(events)
    assert_covered(events, frames)
    assert all(frame.frame is not None for frame in frames)


def test_lost_frames_get_a_frameset_in_time() -> None:
    events = [event for event in Vehicle().events(10) if event[1] or event[2].seq % 10 not in (4, 7, 8)]
    frames = play(events)
    assert_covered(events, frames)
    assert sum(frame.frame is None for frame in frames) in (58, 59, 60)
    assert {frame.camera_absence for frame in frames} == {"", "silent"}


def test_slower_camera_is_no_loss() -> None:
    """A camera that halves its rate in the dark goes on counting: nothing was dropped."""
    ticks = [Tick(START_NS + (33 * k if k < 60 else 33 * 60 + 66 * (k - 60)) * MS, k) for k in range(120)]
    events = [(tick.stamp_ns + 20 * MS, 0, tick) for tick in ticks]
    assert all(frame.frame is not None for frame in feed(Sync(TABLE), events))


# --- choice -----------------------------------------------------------------------------------------------------------


@quick
@given(seeds)
def test_nothing_that_had_arrived_would_have_been_better(seed: int) -> None:
    rng = random.Random(seed)
    vehicle = Vehicle(seed=seed)
    for name in rng.sample(OTHERS, 4):
        stall_ns = START_NS + rng.randrange(2 * SECOND)
        stall = (stall_ns, stall_ns + rng.randrange(500 * MS))
        vehicle.change(
            name, lost=rng.choice([0, 0.3]), delay_ms=rng.uniform(0, 120), jitter_ms=rng.uniform(0, 60), stall=stall
        )
    events = vehicle.events(3)
    events = by_arrival([*events, *((now_ns + rng.randrange(SECOND), row, tick) for now_ns, row, tick in events[::9])])
    arrived: list[set[Tick]] = [set() for _ in TABLE]
    sync = Sync(TABLE)
    for event in events:
        due = list(feed(sync, (), event[0]))  # left before this sample came
        for frames in due:
            assert_best(frames, arrived)
        arrived[event[1]].add(event[2])
        for frames in feed(sync, [event]):
            assert_best(frames, arrived)


def assert_best(frames: FrameSet, arrived: list[set[Tick]]) -> None:
    for stream, pick, ticks in zip(TABLE[1:], frames.picks, arrived[1:]):
        near = [tick for tick in ticks if abs(tick.stamp_ns - frames.stamp_ns) < 2 * SECOND]
        expected = best(stream, near, frames.stamp_ns)
        assert (tuple(pick.samples), pick.age_ns) == (tuple(expected.samples), expected.age_ns), stream.name


# --- latency ----------------------------------------------------------------------------------------------------------


def test_clean_load_settles_soon() -> None:
    frames = play(Vehicle().events(30))
    spent = sorted(latencies(frames))
    assert spent[len(spent) // 2] < 32 * MS
    assert Counter(frame.reason for frame in frames)[EmitReason.DEADLINE] == 0


@pytest.mark.parametrize("names", [(name,) for name in ROW] + [()], ids=lambda names: "+".join(names) or "all")
def test_hiccup_leaves_no_lasting_latency(names: tuple[str, ...]) -> None:
    stall = (START_NS + 10 * SECOND, START_NS + 10 * SECOND + 400 * MS)
    after_ns = stall[1] + 500 * MS
    clean = play(Vehicle().events(20))
    stalled = play(Vehicle().change(*names, stall=stall).events(20))
    before, after = latencies(clean, after_ns), latencies(stalled, after_ns)
    assert len(before) == len(after)
    assert sum(after) / len(after) <= sum(before) / len(before) + 0.1 * MS
    assert sum(a > b for a, b in zip(after, before)) <= len(after) // 20
    assert max(latencies([frame for frame in stalled if frame.frame is not None])) <= DEADLINE_NS


@pytest.mark.parametrize("dead", OTHERS)
def test_dead_stream_costs_no_latency(dead: str) -> None:
    clean = latencies(play(Vehicle().events(10)), START_NS + 5 * SECOND)
    vehicle = Vehicle().change(dead, dead=(START_NS + SECOND, START_NS + 20 * SECOND))
    spent = latencies(play(vehicle.events(10)), START_NS + 5 * SECOND)
    assert sum(spent) <= sum(clean)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_steady_state_keeps_no_memory_and_wakes_no_collector() -> None:
    """Thousands of frames, their samples made as they come, with the collector on as realtime() leaves it: frozen."""
    events = Vehicle().events(130)
    plain = [(now_ns, row, sample.stamp_ns, sample.seq) for now_ns, row, sample in events]
    del events
    sync = Sync(TABLE)
    collections: list[str] = []
    blocks = []
    gc.collect()
    gc.freeze()
    gc.callbacks.append(lambda phase, info: collections.append(phase))
    try:
        for tenth in range(10):
            part = plain[tenth * 5000 : (tenth + 1) * 5000]
            for _ in feed(sync, ((now_ns, row, Tick(stamp_ns, seq)) for now_ns, row, stamp_ns, seq in part)):
                pass
            blocks.append(sys.getallocatedblocks())
            if not tenth:  # the windows have filled
                collections.clear()
    finally:
        gc.callbacks.pop()
        gc.unfreeze()
    assert sync.accounts()["camera"]["used"] > 2000
    assert collections == []
    assert max(blocks[1:]) - min(blocks[1:]) < 1000  # what the rings hold goes up and down by a few dozen samples


# --- clocks, restarts, pauses -----------------------------------------------------------------------------------------


def stepped(events: list[Event], row: int, from_ns: int, step_ns: int, until_ns: int = 1 << 62) -> list[Event]:
    """The same arrivals, from a sensor whose clock was set."""
    return [
        (now_ns, r, Tick(tick.stamp_ns + step_ns, tick.seq))
        if r == row and from_ns <= now_ns < until_ns
        else (now_ns, r, tick)
        for now_ns, r, tick in events
    ]


@pytest.mark.parametrize("step_ns", [-3600 * SECOND, -5 * SECOND, -SECOND, -200 * MS, 200 * MS, 5 * SECOND])
@pytest.mark.parametrize("back_ns", [1 << 62, START_NS + 7 * SECOND])
def test_camera_clock_step_loses_no_frame(step_ns: int, back_ns: int) -> None:
    events = stepped(Vehicle().events(10), 0, START_NS + 3 * SECOND, step_ns, back_ns)
    sync = Sync(TABLE)
    frames = play(events, sync)
    assert [frame.seq for frame in frames if frame.frame is not None] == list(range(200))
    assert sum(frame.frame is None for frame in frames) <= 6  # where the step looks like lost frames
    assert max(latencies(frames)) <= DEADLINE_NS
    for row in range(len(OTHERS)):
        assert all(frame.picks[row].samples for frame in frames[10:])
    if back_ns < 1 << 62:
        assert abs(sync.camera.offset_ns) < 50 * MS


@pytest.mark.parametrize("first_seq", [0, 5, 200])
def test_camera_that_restarts_number_and_clock_comes_back(first_seq: int) -> None:
    """A network camera that boots: its counter and its clock begin anew."""
    boot_ns = START_NS + 5 * SECOND
    events = [event for event in Vehicle().events(20) if event[1] or not boot_ns < event[0] < boot_ns + 3 * SECOND]
    first = next(tick for now_ns, row, tick in events if row == 0 and now_ns > boot_ns)
    events = [
        (now_ns, row, Tick(tick.stamp_ns - first.stamp_ns, tick.seq - first.seq + first_seq))
        if row == 0 and now_ns > boot_ns
        else (now_ns, row, tick)
        for now_ns, row, tick in events
    ]
    frames = play(events)
    late = [frame for frame in frames if frame.emitted_ns > boot_ns + 5 * SECOND]
    assert len(late) > 180
    assert all(frame.frame is not None and frame.picks[1].samples for frame in late)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("step_ns", [-5 * SECOND, 5 * SECOND])
def test_stream_with_a_wrong_clock_is_absent_until_it_is_right_again(name: str, step_ns: int) -> None:
    row = ROW[name]
    events = stepped(Vehicle().events(10), row, START_NS + 3 * SECOND, step_ns, START_NS + 6 * SECOND)
    frames = play(events)
    assert_covered(events, frames)
    wrong = [frame for frame in frames if START_NS + 5 * SECOND < frame.stamp_ns < START_NS + 5.8 * SECOND]
    right = [frame for frame in frames if frame.stamp_ns > START_NS + 7 * SECOND]
    assert not any(frame.picks[row - 1].samples for frame in wrong)
    assert all(frame.picks[row - 1].samples for frame in right)


@pytest.mark.parametrize("name", list(ROW))
def test_source_that_counts_anew_is_heard(name: str) -> None:
    events = [
        (now_ns, row, Tick(tick.stamp_ns, tick.seq % 37) if row == ROW[name] else tick)
        for now_ns, row, tick in Vehicle().events(10)
    ]
    frames = play(events)
    clean = play(Vehicle().events(10))
    assert [frame.stamp_ns for frame in frames] == [frame.stamp_ns for frame in clean]
    for frame, other in zip(frames, clean):
        assert [len(pick.samples) for pick in frame.picks] == [len(pick.samples) for pick in other.picks]


@pytest.mark.parametrize("first_stamp_ns", [0, 1])
def test_time_may_begin_at_zero(first_stamp_ns: int) -> None:
    events = [(k * 50 * MS + first_stamp_ns, 0, Tick(k * 50 * MS + first_stamp_ns, k)) for k in range(10)]
    imu = [(k * 5 * MS, ROW["imu"], Tick(k * 5 * MS, k)) for k in range(100)]
    frames = list(feed(Sync(TABLE), by_arrival(events + imu), SECOND))
    assert len(real(frames)) == 10
    assert [len(frame.picks[1].samples) for frame in frames[:10]] == [1 + 10 * k for k in range(10)]


def test_stall_longer_than_the_ring_recovers() -> None:
    stall = (START_NS + 2 * SECOND, START_NS + 12 * SECOND)
    events = Vehicle().change("imu", "vehicle", "lidar", "gnss", "odometry", stall=stall).events(15)
    sync = Sync(TABLE)
    frames = play(events, sync)
    assert_covered(events, frames)
    account = sync.accounts()["imu"]
    assert account["overflow"] > 100
    after = [frame for frame in frames if frame.stamp_ns > stall[1] + 100 * MS]
    assert all(pick.samples for frame in after[2:] for pick in frame.picks)


def test_pause_of_the_whole_recording_is_not_paced() -> None:
    first = Vehicle().events(5)
    second = [
        (now_ns + 3600 * SECOND, row, Tick(tick.stamp_ns + 3600 * SECOND, tick.seq + 5000))
        for now_ns, row, tick in first
    ]
    sync = Sync(TABLE)
    frames = play(first + second, sync)
    assert len(real(frames)) == 200
    assert 30 <= sum(frame.frame is None for frame in frames) <= 45  # until the pause is known for one
    assert all(pick.samples for frame in frames[-20:] for pick in frame.picks)


def test_camera_dead_from_the_start_is_paced_by_the_metronome() -> None:
    frames = play(Vehicle().without("camera").events(10))
    gaps = {b.stamp_ns - a.stamp_ns for a, b in itertools.pairwise(frames)}
    assert gaps == {50 * MS}
    assert len(frames) in range(170, 185)
    assert all(frame.emitted_ns == frame.stamp_ns + DEADLINE_NS and frame.frame is None for frame in frames)
    assert all(pick.samples for frame in frames for pick in frame.picks)


@pytest.mark.parametrize("rate_hz", [10.0, 20.0, 30.0])
def test_camera_that_dies_and_returns_is_paced_meanwhile(rate_hz: float) -> None:
    span = (START_NS + 3 * SECOND, START_NS + 6 * SECOND)
    events = Vehicle().change("camera", rate_hz=rate_hz, dead=span).events(9)
    frames = play(events)
    period_ns = SECOND / rate_hz
    gaps = [b.stamp_ns - a.stamp_ns for a, b in itertools.pairwise(frames)]
    assert 0.4 * period_ns < min(gaps) and max(gaps) < 1.6 * period_ns
    assert len(frames) in range(int(8.8 * rate_hz), int(9 * rate_hz) + 1)
    assert len(real(frames)) == sum(row == 0 for _, row, _ in events)


def test_equal_stamps_go_by_sequence_number() -> None:
    imu, lidar, vehicle = ROW["imu"], ROW["lidar"], ROW["vehicle"]
    t = START_NS
    events: list[Event] = [(t, row, Tick(t, seq)) for row in (imu, lidar, vehicle) for seq in (1, 0, 2)]
    events += [(t + 2 * MS, 0, Tick(t + MS, 1)), (t + 3 * MS, 0, Tick(t + MS, 0))]
    frames = play(events)
    assert [frame.seq for frame in frames] == [0, 1]
    assert [tick.seq for tick in frames[0].picks[imu - 1].samples] == [0, 1, 2]
    assert [tick.seq for tick in frames[0].picks[lidar - 1].samples] == [2]
    assert [tick.seq for tick in frames[0].picks[vehicle - 1].samples] == [2]


# --- state ------------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(seeds, st.integers(0, 1200))
def test_frozen_state_goes_on_identically(seed: int, cut: int) -> None:
    vehicle = Vehicle(seed=seed).change("camera", lost=0.1).change("imu", lost=0.1, jitter_ms=15.0)
    events = vehicle.events(3)
    whole = Sync(TABLE)
    expected = list(feed(whole, events))
    sync = Sync(TABLE)
    frames = list(feed(sync, events[:cut]))
    thawed: Sync = pickle.loads(pickle.dumps(sync))
    frames += feed(thawed, events[cut:])
    assert frames == expected
    assert thawed.accounts() == whole.accounts()
    assert thawed.due_ns == whole.due_ns


def test_same_input_gives_the_same_framesets() -> None:
    events = Vehicle().change("lidar", jitter_ms=60.0).events(10)
    assert play(events) == play(events)


def test_table_that_can_not_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="pacing stream first"):
        Sync(TABLE[1:])
