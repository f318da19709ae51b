"""A live run: whatever breaks it is told, and what came before is kept."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.campaigns import file
from edge.campaigns.probe import Probe, ProbeSet
from edge.campaigns.wire import set_bytes
from edge.command import main as roadfuse
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError, DriveDamaged
from edge.recorder import RUN_METADATA, Recorder
from edge.run import Inbox
from edge.run import main as run_main
from edge.updates.disk import RealDisk
from edge.updates.slots import Slots, read_answer, slots_record
from edge.uplink.outbox import Outbox
from roadfuse.v1 import decision_pb2

FAR_NS = 1 << 62
ONE_SCENE = "[scenes]\nopen_at = 0.0\nclose_below = 0.0\nmax_s = 20.0\n"


def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.command", "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload, no-any-return]


def copied(
    drive: Path, out: Path, *, until_s: float = math.inf, further: tuple[tuple[str, bytes, float], ...] = ()
) -> Path:
    """A drive as far as an instant from its start, with messages that it did not have: (topic, payload, when)."""
    with DriveReader(drive) as source:
        messages = list(source.messages())
    start_ns = messages[0].arrival_ns
    kept = [message for message in messages if message.arrival_ns - start_ns <= until_s * 1e9]
    for topic, payload, at_s in further:
        at_ns = start_ns + round(at_s * 1e9)
        kept.append(messages[0]._replace(arrival_ns=at_ns, capture_ns=at_ns, topic=topic, payload=payload, sequence=0))
    with DriveWriter(out) as target:
        for message in sorted(kept):
            target.copy(message)
    return out


def heard() -> None:
    """In a child: a shell's background job, which these tests may be part of, hands down that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def decisions_in(recorded: Path) -> list[decision_pb2.Decision]:
    """Those that are there, be it being written or cut off."""
    found: list[decision_pb2.Decision] = []
    with suppress(DriveDamaged), DriveReader(recorded) as reader:
        messages = reader.messages(topics=[topics.DECISION])
        found.extend(decision_pb2.Decision.FromString(message.payload) for message in messages)  # as far as it goes
    return found


def test_a_run_never_records_over_its_own_drive(drive: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mcap"
    own.write_bytes(drive.read_bytes())
    done = run(own, "--out", own)
    assert done.returncode == 2 and "another file than the input" in done.stderr and done.stderr.count("\n") == 1
    assert own.read_bytes() == drive.read_bytes()


def test_a_drive_that_breaks_off_is_told_and_what_came_before_is_recorded(drive: Path, tmp_path: Path) -> None:
    cut, out = tmp_path / "cut.mcap", tmp_path / "out.mcap"
    cut.write_bytes(drive.read_bytes()[: drive.stat().st_size // 2])
    done = run(cut, "--out", out, "--speed", 4)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    with DriveReader(out) as reader:
        assert not reader.complete and RUN_METADATA in reader.metadata
    assert len(decisions_in(out)) > 20
    assert roadfuse(["replay", str(out), "--verify", "--json"]) == 0


def test_an_interrupted_run_keeps_the_scene_that_is_open(drive: Path, tmp_path: Path) -> None:
    config = tmp_path / "one.toml"
    config.write_text(ONE_SCENE)
    out, spool = tmp_path / "out.mcap", tmp_path / "spool"
    command = [sys.executable, "-m", "edge.command", "run", str(drive), "--out", str(out), "--spool", str(spool)]
    child = subprocess.Popen(
        [*command, "--config", str(config), "--speed", "0.25"], stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not (out.exists() and len(decisions_in(out)) > 20):
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[1].strip() == "roadfuse run: interrupted" and child.returncode == 130
    with Outbox(spool) as outbox:
        (scene,), _ = outbox.to_tell(9)
    assert scene.bytes > 0 and len(list(spool.glob("*.mcap"))) == 1
    with DriveReader(out) as reader:
        assert not reader.complete


def test_what_a_drive_recorded_of_campaigns_does_not_overrule_what_is_looked_for_now(
    drive: Path, tmp_path: Path
) -> None:
    old = ProbeSet((Probe("old", is_stopped=True),))
    told = copied(drive, tmp_path / "told.mcap", until_s=2, further=((topics.CAMPAIGNS, set_bytes(old), 1.0),))
    file.write(tmp_path / "now.probes", ProbeSet((Probe("now", expires_ns=FAR_NS),)))
    words = ["--out", str(tmp_path / "out.mcap"), "--probes", str(tmp_path / "now.probes"), "--json"]
    assert run_main([str(told), *words]) == 0
    with DriveReader(tmp_path / "out.mcap") as reader:
        looked_for = [message.payload for message in reader.messages(topics=[topics.CAMPAIGNS])]
    assert len(looked_for) == 1 and b"now" in looked_for[0]


@pytest.mark.parametrize("speed", ["nan", "inf", "-inf", "0", "-1"])
def test_a_speed_that_is_none_is_refused(drive: Path, speed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_main([str(drive), f"--speed={speed}"])
    assert "expected a positive number" in capsys.readouterr().err


def test_two_bundles_are_refused(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roadfuse(["run", str(drive), "--bundle", str(tmp_path), "--bundle", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "roadfuse run: --bundle: expected one, got 2\n"


def test_a_folder_of_updates_that_is_not_there_is_said(drive: Path, tmp_path: Path) -> None:
    done = run(copied(drive, tmp_path / "short.mcap", until_s=0.5), "--updates", tmp_path / "updates")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'updates'}: no updates there yet: the reference bundle runs\n" in done.stderr


def test_a_start_that_is_refused_because_another_run_goes_on_is_not_counted_against_its_bundle(
    drive: Path, tmp_path: Path
) -> None:
    disk = RealDisk(tmp_path / "updates")
    disk.make_folder("bundles")
    slots_record(disk).write(Slots(epoch=1).to_bytes())
    short, spool = copied(drive, tmp_path / "short.mcap", until_s=0.5), tmp_path / "spool"
    words = [str(short), "--updates", str(tmp_path / "updates"), "--spool", str(spool)]
    other = Recorder(None, spool, lossless=True)
    with pytest.raises(ConfigError, match="in use"):
        run_main(words)
    assert read_answer(disk) is None
    other.close()
    assert run_main(words) == 0
    answer = read_answer(disk)
    assert answer is not None and answer.starts == 0


def test_a_run_with_updates_says_in_its_drive_which_bundle_it_began_with(drive: Path, tmp_path: Path) -> None:
    short, out = copied(drive, tmp_path / "short.mcap", until_s=0.5), tmp_path / "out.mcap"
    assert run_main([str(short), "--updates", str(tmp_path / "updates"), "--out", str(out)]) == 0
    with DriveReader(out) as reader:
        facts = reader.metadata["roadfuse.drive"]
    assert (facts["source"], facts["bundle"]) == ("short.mcap", bundles.load(None).id)


BESIDE = """
import os, sys, threading
from pathlib import Path
from edge import bundle
from edge.campaigns.file import ProbeFile
from edge.drive.reader import DriveReader
from edge.loop import Loop, LoopConfig
from edge.realtime import realtime
from edge.run import Inbox, live
from edge.statistics import RunStatistics

cores, found = os.sched_getaffinity(0), {}

def note():
    found[threading.current_thread().name] = os.sched_getscheduler(0), os.sched_getaffinity(0)

class Noting(Inbox):
    def put(self, item):
        note()
        super().put(item)

class NotingFile(ProbeFile):
    def changed(self):
        note()
        return super().changed()

config = LoopConfig()
loop = Loop(bundle.load(None), config)
realtime()
with DriveReader(sys.argv[1]) as drive:
    statistics, probes = RunStatistics(config.deadline_ns), NotingFile(Path("none"))
    for _ in live(loop, drive, None, statistics, 1.0, Noting(), probes, cores=cores):
        pass
loops = os.sched_getaffinity(0)
is_pinned = len(loops) == 1 < len(cores)
for name in ("sensors", "campaigns"):
    policy, its = found[name]
    print(name, policy == os.SCHED_OTHER, not (is_pinned and its & loops))
"""


def test_what_runs_beside_a_real_time_loop_leaves_it_its_scheduling_and_its_core(drive: Path, tmp_path: Path) -> None:
    short = copied(drive, tmp_path / "short.mcap", until_s=2)  # the file is looked at after a second
    done = subprocess.run([sys.executable, "-c", BESIDE, str(short)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["sensors True True", "campaigns True True"], done.stderr


def test_a_drive_without_anything_for_the_loop_is_refused(tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "none.mcap") as writer:
        writer.write_payload(topics.TRUTH, b"", capture_ns=0, arrival_ns=0, sequence=0)
    done = run(tmp_path / "none.mcap")
    assert done.returncode == 2 and "expected a stream of" in done.stderr


def test_waiting_for_what_never_comes_looks_up_now_and_then() -> None:
    assert Inbox().get(1e300) is None


def test_a_name_that_is_no_text_can_be_run_and_recorded(drive: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd\udcff.mcap"
    copied(drive, odd, until_s=1)
    done = run(odd, "--out", tmp_path / "out\udcfe.mcap", "--speed", 4)
    assert done.returncode == 0, done.stderr
    done = run(odd, "--out", tmp_path / "out.mcap", "--json", "--speed", 4)
    assert json.loads(done.stdout)["frames"] > 10
