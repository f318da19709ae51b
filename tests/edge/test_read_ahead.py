"""The process that reads ahead gives what reading here gives, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.drive.reader import DriveReader
from edge.errors import DriveDamaged, DriveError
from edge.feed import Fed, events
from edge.read_ahead import ReadAhead
from edge.streams import STREAMS


def plain(fed: Fed) -> tuple[Any, ...]:
    """An event as values that compare."""
    sample = fed.event.sample
    values = [] if sample is None else [v.tobytes() if isinstance(v, np.ndarray) else v for v in sample]
    return (fed.event._replace(sample=type(sample).__name__), values, fed.message)


def test_events_are_those_of_the_drive_in_its_order(drive: Path) -> None:
    with DriveReader(drive) as reader:
        here = [plain(fed) for fed in events(reader, STREAMS)]
        with ReadAhead(reader) as ahead:
            there = [plain(fed) for fed in ahead.events(STREAMS)]
    assert there == here


def test_a_picture_stays_what_it_is_as_long_as_it_is_held(drive: Path) -> None:
    held = []
    with DriveReader(drive) as reader, ReadAhead(reader) as ahead:
        for fed in ahead.events(STREAMS, messages=False):
            image = getattr(fed.event.sample, "image", None)
            if image is not None and len(held) % 3 != 1:
                held.append((image, image.copy()))
            elif image is not None:
                held.append((image[:1], image[:1].copy()))
    assert len(held) > 20
    assert all(np.array_equal(image, copy) for image, copy in held)


def test_room_is_taken_again_once_nobody_holds_what_lies_there(drive: Path) -> None:
    with DriveReader(drive) as reader, ReadAhead(reader) as ahead:
        batches = sum(1 for _ in ahead.events(STREAMS)) / 48
        assert len(ahead._slabs) < batches / 2


def test_events_come_too_where_no_room_can_be_shared(drive: Path) -> None:
    code = (
        "import resource, signal; from edge.drive.reader import DriveReader; from edge.read_ahead import ReadAhead\n"
        "from edge.streams import STREAMS\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        f"reader = DriveReader({str(drive)!r})\n"
        "with ReadAhead(reader) as ahead: print(sum(1 for _ in ahead.events(STREAMS)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    with DriveReader(drive) as reader:
        assert said == f"{sum(1 for _ in events(reader, STREAMS))}\n"


def test_damage_comes_after_the_last_event_before_it(drive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(drive.read_bytes()[: drive.stat().st_size // 2])
    got, damages = [], []
    with DriveReader(cut) as reader, ReadAhead(reader) as ahead, pytest.raises(DriveDamaged) as raised:
        got.extend(ahead.events(STREAMS))
    with DriveReader(cut, damages.append) as reader, ReadAhead(reader) as ahead:
        assert len(list(ahead.events(STREAMS))) == len(got) > 0
    assert [(str(damage), damage.offset) for damage in damages] == [(str(raised.value), raised.value.offset)]


def test_a_reader_may_come_after_its_owner_and_starts_no_thread_for_matrices(drive: Path) -> None:
    with DriveReader(drive) as reader, ReadAhead(reader, niceness=3) as ahead:
        next(iter(ahead.events(STREAMS)))
        process = ahead._process.pid
        assert os.getpriority(os.PRIO_PROCESS, process) == min(os.getpriority(os.PRIO_PROCESS, 0) + 3, 19)
        assert len(list(Path(f"/proc/{process}/task").iterdir())) == 1


OF_A_REAL_TIME_LOOP = """
import os, sys
from edge.drive.reader import DriveReader
from edge.read_ahead import ReadAhead
from edge.realtime import realtime
cores = os.sched_getaffinity(0)
realtime()
loops = os.sched_getaffinity(0)
with DriveReader(sys.argv[1]) as reader, ReadAhead(reader, 3, cores) as ahead:
    process = ahead._process.pid
    is_apart = len(cores) == 1 or len(loops) > 1 or not os.sched_getaffinity(process) & loops
    print(os.sched_getscheduler(process) == os.SCHED_OTHER, is_apart, os.getpriority(os.PRIO_PROCESS, process))
"""


def test_a_reader_of_a_real_time_loop_leaves_it_its_scheduling_and_its_core(drive: Path) -> None:
    command = [sys.executable, "-c", OF_A_REAL_TIME_LOOP, str(drive)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    niceness = min(os.getpriority(os.PRIO_PROCESS, 0) + 3, 19)
    assert done.stdout.split() == ["True", "True", str(niceness)]


def test_events_without_messages_still_say_of_which_topic_they_are(drive: Path) -> None:
    with DriveReader(drive) as reader:
        here = [fed.message.topic for fed in events(reader, STREAMS)]
        with ReadAhead(reader) as ahead:
            there = [fed.message for fed in ahead.events(STREAMS, messages=False)]
    assert [message.topic for message in there] == here and not any(message.payload for message in there)


def test_a_killed_reader_is_one_clear_error(drive: Path) -> None:
    with DriveReader(drive) as reader, ReadAhead(reader) as ahead:
        ahead._process.send_signal(signal.SIGKILL)
        with pytest.raises(DriveError, match="expected its reader to finish, got exit status -9"):
            for _ in ahead.events(STREAMS):
                pass


def test_a_reader_that_nobody_asks_ends_when_it_is_closed_or_forgotten(drive: Path) -> None:
    with DriveReader(drive) as reader:
        with ReadAhead(reader) as ahead:
            pass
        assert ahead._process.returncode is not None
        forgotten = ReadAhead(reader)
        process = forgotten._process
        assert process.stdin is not None
        process.stdin.close()  # as when its owner is killed
        assert process.wait(60) == 0
        forgotten.close()


def test_the_reader_ends_with_the_process_it_reads_for(drive: Path) -> None:
    code = (
        "import os, sys; from edge.drive.reader import DriveReader; from edge.read_ahead import ReadAhead\n"
        "from edge.streams import STREAMS\n"
        f"ahead = ReadAhead(DriveReader({str(drive)!r})); next(ahead.events(STREAMS))\n"
        "print(ahead._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout
    status = Path("/proc") / said.strip() / "stat"
    for _ in range(600):
        if not status.exists() or " Z " in status.read_text():
            return
        time.sleep(0.05)
    os.kill(int(said), signal.SIGKILL)
    pytest.fail("the reader still runs 30 s after its parent was killed")
