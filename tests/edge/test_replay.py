"""What ran is what replays: the same decisions at any speed, under any load, as designed and as it happened."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from edge.command import main as roadfuse
from edge.decision import Decision
from edge.drive import topics
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import BundleError, ConfigError, DriveDamaged, DriveError, DriveFormatError
from edge.frameset import EmitReason
from edge.recorder import Recorder
from edge.replay import Replay, replay
from edge.replay_command import main as replay_main
from edge.run import main as run_main
from edge.samples import BundleInUse, Event
from edge.updates.in_use import in_use_bytes
from roadfuse.v1 import decision_pb2


def result_of(drive: Path, **options: object) -> dict[str, object]:
    with Replay(drive, **options) as run:  # type: ignore[arg-type]
        for _ in run:
            pass
    return run.statistics.as_dict()


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def without(drive: Path, dropped: set[str], out: Path) -> Path:
    """The drive without some topics."""
    return changed(drive, out, lambda message: None if message.topic in dropped else message)


def changed(drive: Path, out: Path, change: Callable[[DriveMessage], DriveMessage | None]) -> Path:
    """A drive with messages changed, or left out."""
    with DriveReader(drive) as source, DriveWriter(out) as target:
        for message in source.messages():
            if (kept := change(message)) is not None:
                target.copy(kept)
    return out


def accounted(drive: Path, result: dict[str, object]) -> None:
    """Every message of a fused stream is used, dropped for a reason, or still buffered."""
    with DriveReader(drive) as reader:
        counts: dict[str, int] = {}
        for message in reader.messages():
            counts[message.topic] = counts.get(message.topic, 0) + 1
    for stream, used in result["used"].items():  # type: ignore[attr-defined]
        topic = {"camera": topics.CAMERA}.get(stream, f"/{stream}")
        dropped = sum(result["drops"][stream].values())  # type: ignore[index]
        buffered = result["buffered"][stream]  # type: ignore[index]
        assert used + dropped + buffered == counts.get(topic, 0), stream


def test_same_sha256_for_twenty_runs_at_any_speed_load_and_hash_seed(drive: Path) -> None:
    command = [sys.executable, "-m", "edge.command", "replay", str(drive), "--json"]
    shas = set()
    for run in range(5):
        environment = {**os.environ, "PYTHONHASHSEED": str(run)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        shas.add(json.loads(done.stdout)["sha256"])
    shas |= {str(result_of(drive, speed=speed)["sha256"]) for speed in (1, 10, 10, 10)}
    shas |= {str(result_of(drive)["sha256"]) for _ in range(6)}
    with busy_processes(4):
        shas |= {str(result_of(drive)["sha256"]) for _ in range(5)}
    assert len(shas) == 1


def test_every_camera_frame_has_a_decision_by_its_deadline(drive: Path) -> None:
    result = result_of(drive)
    with DriveReader(drive) as reader:
        frames = sum(1 for _ in reader.messages(topics=[topics.CAMERA]))
    assert result["coverage"] == 1.0
    assert int(result["frames"]) >= frames  # type: ignore[call-overload]
    accounted(drive, result)


def test_faults_degrade_frames_but_miss_no_deadline_and_no_sample_is_unaccounted(faulty_drive: Path) -> None:
    result = result_of(faulty_drive)
    assert result["coverage"] == 1.0
    assert int(result["degraded_frames"]) > 10  # type: ignore[call-overload]
    assert result["drops"]["imu"]["duplicate"] > 0  # type: ignore[index]
    accounted(faulty_drive, result)


def test_any_subset_of_dead_sensors_leaves_full_coverage(drive: Path, tmp_path: Path) -> None:
    others = ["/audio", "/imu", "/gnss", "/vehicle", "/lidar"]
    subsets = [set(subset) for size in (1, 2, 5) for subset in combinations(others, size)]
    for dead in subsets[:: 2 if os.environ.get("ROADFUSE_LONG") is None else 1]:
        silent = without(drive, dead, tmp_path / "silent.mcap")
        result = result_of(silent)
        assert result["coverage"] == 1.0, dead
        accounted(silent, result)


def test_a_drive_without_camera_is_paced_by_the_metronome(drive: Path, tmp_path: Path) -> None:
    blind = without(drive, {topics.CAMERA}, tmp_path / "blind.mcap")
    decisions = list(replay(blind))
    assert len(decisions) > 60
    assert all(not decision.modalities[0].present and decision.degraded for decision in decisions)
    steps = {b.stamp_ns - a.stamp_ns for a, b in pairwise(decisions)}
    assert steps == {50_000_000}


def test_a_hiccup_leaves_no_lasting_latency(simulate_drive: Callable[..., Path]) -> None:
    clean = list(replay(simulate_drive(seconds=6, seed=9)))
    stalled = list(replay(simulate_drive("lidar:stall@2-3", "imu:stall@2-3", seconds=6, seed=9)))
    tail = 20 * 2
    before = sorted(d.emitted_ns - d.stamp_ns for d in clean[-tail:])
    after = sorted(d.emitted_ns - d.stamp_ns for d in stalled[-tail:])
    assert before[tail // 2] == after[tail // 2]
    assert after[-1] - before[-1] < 5_000_000


def test_decisions_of_a_live_run_replay_bit_for_bit(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for speed, load in (("1", 0), ("20", 0), ("6", 4)):
        recorded = tmp_path / f"recorded-{speed}.mcap"
        with busy_processes(load):
            assert run_main([str(drive), "--out", str(recorded), "--speed", speed, "--json"]) == 0
        live = json.loads(capsys.readouterr().out)
        assert replay_main([str(recorded), "--verify", "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert again["verified"] is True
        assert again["sha256"] == live["sha256"]
        assert again["frames"] == live["frames"]


def test_an_overloaded_live_run_sheds_and_still_replays_bit_for_bit(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recorded = tmp_path / "overloaded.mcap"
    with busy_processes(4):
        assert run_main([str(drive), "--out", str(recorded), "--speed", "60", "--json"]) == 0
    live = json.loads(capsys.readouterr().out)
    assert live["overloaded_frames"] > 0
    assert replay_main([str(recorded), "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == live["sha256"]


def test_verify_names_the_first_divergence(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    decided, altered = tmp_path / "decided.mcap", tmp_path / "altered.mcap"
    assert replay_main([str(drive), "--out", str(decided), "--json"]) == 0
    capsys.readouterr()
    dropped = 0
    with DriveReader(decided) as source, DriveWriter(altered) as target:
        for m in source.messages():
            if m.topic == topics.AUDIO and m.sequence == 120:  # one block of sound is gone from the recording
                dropped += 1
                continue
            target.copy(m)
    assert dropped == 1
    assert replay_main([str(altered), "--verify"]) == 1
    said = capsys.readouterr().out
    assert "diverges in stage sync, frameset" in said
    assert replay_main(["--diff", str(decided), str(decided)]) == 0
    capsys.readouterr()
    assert replay_main([str(altered), "--out", str(tmp_path / "other.mcap")]) == 0
    assert replay_main(["--diff", str(decided), str(tmp_path / "other.mcap"), "--json"]) == 1
    difference = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert difference["fields"]["digests"]["frames"] > 0
    loose = ["--tolerance", "hardness=1", "--ignore", "digests"]
    loose += [
        x
        for name in ("scores", "scene_tags", "sound_events", "embedding", "heads")
        for x in ("--tolerance", f"{name}=2")
    ]
    for name in ("scene_state", "scene", "modalities", "emitted_ns", "reason"):
        loose += ["--ignore", name]
    assert replay_main(["--diff", str(decided), str(tmp_path / "other.mcap"), *loose]) == 0


def test_replay_of_what_was_never_decided_says_so(drive: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(DriveFormatError, match="expected recorded decisions"):
        replay_main([str(drive), "--verify"])


def test_a_truncated_drive_gives_its_decisions_and_then_the_damage(drive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(drive.read_bytes()[: drive.stat().st_size // 2])
    decisions = []
    with pytest.raises(DriveDamaged, match=r"damaged at byte \d+: expected"):
        decisions.extend(replay(cut))
    assert len(decisions) > 20
    whole = [decision.canonical() for decision in replay(drive)]
    # The last frames before the cut lack what came after it; all others are the same.
    assert [d.canonical() for d in decisions[:-3]] == whole[: len(decisions) - 3]
    damages: list[DriveDamaged] = []
    with Replay(cut, on_damage=damages.append) as run:
        assert len(list(run)) == len(decisions)
    assert len(damages) == 1


@pytest.mark.parametrize("content", [b"", b"GIF89a and more", b"\x89MCAP0\r\n"])
def test_what_is_no_drive_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "no.mcap"
    path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "edge.command", "replay", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_drive_without_any_known_stream_is_refused(tmp_path: Path, drive: Path) -> None:
    alien = without(drive, {"/camera", "/audio", "/imu", "/gnss", "/vehicle", "/lidar"}, tmp_path / "alien.mcap")
    with pytest.raises(DriveFormatError, match="expected a stream of"):
        list(replay(alien))


def test_a_missing_bundle_is_refused(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle folder"):
        list(replay(drive, tmp_path / "none"))


def test_decisions_of_another_bundle_are_not_verified(drive: Path, tmp_path: Path) -> None:
    decided, foreign = tmp_path / "decided.mcap", tmp_path / "foreign.mcap"
    with Replay(drive, recorder=Recorder(decided, None, lossless=True)) as run:
        list(run)
    own = run.bundle.id.encode()
    changed(decided, foreign, lambda message: message._replace(payload=message.payload.replace(own, b"0" * 64)))
    with pytest.raises(DriveError, match="expected decisions of bundle"):
        replay_main([str(foreign), "--verify"])


def test_the_json_object_holds_what_scripts_rely_on(drive: Path, capsys: pytest.CaptureFixture) -> None:
    assert replay_main([str(drive), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"frames", "coverage", "degraded_frames", "scenes", "sha256", "drops", "stage_ms", "realtime_factor"} <= set(
        result
    )
    assert all({"p50", "p99"} <= set(stage) for stage in result["stage_ms"].values())


def test_pacing_takes_the_time_it_says(simulate_drive: Callable[..., Path]) -> None:
    path = simulate_drive(seconds=2)
    started = time.monotonic()
    result = result_of(path, speed=2)
    assert time.monotonic() - started >= 0.9  # two seconds of drive at twice the speed; never faster
    assert result["coverage"] == 1.0


@pytest.mark.parametrize("cut", [False, True])
def test_the_loop_knows_of_each_picture_before_the_one_before_it_arrives(
    drive: Path, tmp_path: Path, cut: bool
) -> None:
    if cut:
        (tmp_path / "cut.mcap").write_bytes(drive.read_bytes()[: drive.stat().st_size // 2])
        drive = tmp_path / "cut.mcap"
    arrived: list[tuple[int, int | None]] = []
    with Replay(drive) as run:
        step = run.loop.step

        def stepping(event: Event | None, now_ns: int) -> list[Decision]:
            if event is not None and event.row == 0:
                coming = run.loop.coming
                arrived.append((event.sample.seq, None if coming is None else coming.seq))
            return step(event, now_ns)

        run.loop.step = stepping  # type: ignore[method-assign]
        with pytest.raises(DriveDamaged) if cut else nullcontext():
            for _ in run:
                pass
    assert len(arrived) > 20
    assert arrived == [(this, after) for (this, _), (after, _) in pairwise(arrived)] + [(arrived[-1][0], None)]


def test_as_designed_a_frame_leaves_when_it_is_due_not_when_the_next_sample_comes(drive: Path) -> None:
    deadline_ns = 100_000_000
    for decision in replay(drive):
        assert decision.emitted_ns - decision.stamp_ns <= deadline_ns
        assert decision.reason in tuple(EmitReason)


@pytest.fixture(scope="module")
def decided(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decided") / "decided.mcap"
    assert replay_main([str(drive), "--out", str(out), "--json"]) == 0
    return out


def test_a_message_at_the_end_of_time_ends_the_replay(drive: Path, tmp_path: Path) -> None:
    with DriveReader(drive) as source, DriveWriter(tmp_path / "far.mcap") as target:
        for message in list(source.messages())[:400]:
            target.copy(message)
        target.copy(message._replace(arrival_ns=(1 << 63) - 1, topic=topics.CAN))
    far, before = result_of(tmp_path / "far.mcap"), result_of(drive)
    assert 0 < int(far["frames"]) < int(before["frames"])  # type: ignore[call-overload]


def test_a_bundle_that_a_drive_names_but_nobody_followed_is_no_part_of_the_recording(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, named = tmp_path / "out.mcap", tmp_path / "named.mcap"
    in_use = in_use_bytes(BundleInUse("ab" * 32, "", ""))
    with DriveReader(drive) as source, DriveWriter(named) as target:
        for number, message in enumerate(source.messages()):
            target.copy(message)
            if number == 100:
                target.copy(message._replace(topic=topics.BUNDLE, payload=in_use))
    assert replay_main([str(named), "--out", str(out), "--json"]) == 0
    assert replay_main([str(out), "--verify", "--json"]) == 0
    assert run_main([str(named), "--out", str(out), "--json", "--speed", "4"]) == 0
    assert replay_main([str(out), "--verify", "--json"]) == 0


def test_a_killed_recording_without_its_last_decisions_verifies(
    decided: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with DriveReader(decided) as source:
        messages = list(source.messages())
    last = max(at for at, message in enumerate(messages) if message.topic == topics.DECISION)
    lost = {at for at in range(last + 1) if messages[at].topic == topics.DECISION and last - at < 40}
    for is_whole in (False, True):
        with DriveWriter(tmp_path / "killed.mcap") as target:
            for at, message in enumerate(messages):
                if at not in lost:
                    target.copy(message)
            if not is_whole:
                target.leave()
        assert replay_main([str(tmp_path / "killed.mcap"), "--verify", "--json"]) == int(is_whole)
        assert json.loads(capsys.readouterr().out)["verified"] is not is_whole


def test_a_recording_that_was_killed_before_its_first_decision_is_not_called_verified(
    decided: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with DriveReader(decided) as source:
        messages = list(source.messages())
    decision = next(message for message in messages if message.topic == topics.DECISION)
    with suppress(KeyboardInterrupt), DriveWriter(killed := tmp_path / "killed.mcap") as target:
        for message in messages[:100]:
            if message.topic != topics.DECISION:
                target.copy(message)
        target.flush()
        target.copy(decision)  # its channel gets there, it does not
        raise KeyboardInterrupt
    with DriveReader(killed) as reader:
        assert topics.DECISION in reader.topics and not list(reader.messages(topics=[topics.DECISION]))
    assert roadfuse(["replay", str(killed), "--verify"]) == 2
    said = capsys.readouterr()
    assert "expected recorded decisions (/decision), got none" in said.err and said.err.count("\n") == 1


def test_what_happened_before_the_damage_is_repeated(decided: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(decided.read_bytes()[: decided.stat().st_size // 2])
    found: list[Decision] = []
    with pytest.raises(DriveDamaged), Replay(cut, mode="happened") as run:
        found.extend(run)
    assert len(found) > 20
    damages: list[DriveDamaged] = []
    with Replay(cut, mode="happened", on_damage=damages.append) as run:
        list(run)
    assert len(damages) == 1


def test_a_recorded_decision_that_is_none_is_told_in_one_line(
    decided: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def broken(message: DriveMessage) -> DriveMessage:
        return message._replace(payload=b"\xff\xff\xff") if message.topic == topics.DECISION else message

    def odd(message: DriveMessage) -> DriveMessage:
        if message.topic != topics.DECISION:
            return message
        decision = decision_pb2.Decision.FromString(message.payload)
        decision.emit_reason = 77  # type: ignore[assignment]
        return message._replace(payload=decision.SerializeToString())

    assert roadfuse(["replay", str(changed(decided, tmp_path / "broken.mcap", broken)), "--verify"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert roadfuse(["replay", str(changed(decided, tmp_path / "odd.mcap", odd)), "--verify", "--json"]) == 1
    assert "a decision (77" in json.loads(capsys.readouterr().out)["divergence"]


def test_runs_of_which_one_has_more_frames_are_not_called_alike(
    decided: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dropped = iter(range(1000))

    def without_first(message: DriveMessage) -> DriveMessage | None:
        return None if message.topic == topics.DECISION and next(dropped) == 0 else message

    shorter = changed(decided, tmp_path / "shorter.mcap", without_first)
    assert replay_main(["--diff", str(decided), str(shorter)]) == 1
    said = capsys.readouterr().out
    assert "1 only in" in said and "no difference" not in said


def test_what_is_no_number_differs_from_every_number_and_not_from_itself(
    decided: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def spoiled(message: DriveMessage) -> DriveMessage:
        if message.topic != topics.DECISION:
            return message
        decision = decision_pb2.Decision.FromString(message.payload)
        decision.hardness = math.nan
        decision.embedding[:] = [math.nan] * len(decision.embedding)
        return message._replace(payload=decision.SerializeToString())

    a, b = (changed(decided, tmp_path / f"{name}.mcap", spoiled) for name in "ab")
    words = ["--tolerance", "hardness=1e9", "--tolerance", "embedding=1e9", "--json"]
    for one, other in ((a, decided), (decided, a)):
        assert replay_main(["--diff", str(one), str(other), *words]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["fields"] == {
            name: {"frames": found["compared"], "largest": None} for name in ("hardness", "embedding")
        }
    assert replay_main(["--diff", str(a), str(b), "--json"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["DRIVE", "--diff", "DRIVE", "DRIVE"], "--diff: expected .* got drive"),
        (["--diff", "DRIVE", "DRIVE", "--out", "out.mcap"], "--diff: expected .* got out"),
        (["DRIVE", "--tolerance", "hardness=1"], "--tolerance: expected it beside --diff"),
        (["DRIVE", "--verify", "--ignore", "digests"], "--ignore: expected it beside --diff"),
    ],
)
def test_words_that_would_be_passed_over_are_refused(decided: Path, words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replay_main([str(decided) if word == "DRIVE" else word for word in words])


def test_a_recording_that_another_run_is_writing_is_refused_in_one_line(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mcap"
    with DriveWriter(out):
        for command in ("replay", "run"):
            assert roadfuse([command, str(drive), "--out", str(out)]) == 2
            said = capsys.readouterr()
            assert f"{out}: expected a file that nobody writes" in said.err and said.err.count("\n") == 1
    with DriveReader(out) as first:
        assert first.complete


@pytest.mark.parametrize("tolerance", ["hardness=nan", "hardness=-1", "hardness=", "hardness"])
def test_a_tolerance_that_is_no_number_is_refused(decided: Path, tolerance: str) -> None:
    with pytest.raises(ConfigError, match="FIELD=NUMBER"):
        replay_main(["--diff", str(decided), str(decided), "--tolerance", tolerance])
