"""The worker as a process: jobs that crash, hang, starve or are killed with it, and a database that goes away."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, text

from cloud.database import connect, migrate
from cloud.errors import CloudError
from cloud.handlers import Options
from cloud.jobs import Job, Queue
from cloud.postgres import Postgres
from cloud.tables import JOBS
from cloud.worker import main

from .chores import STEPS

REPOSITORY = Path(__file__).parents[2]
WORKER = """
import sys
from pathlib import Path
from cloud import handlers as handlers_of
from cloud import lease, worker
from cloud.settings import Settings
lease.BACKOFF_S = (0.01, 0.02)
kinds = ("note", "steps", "crash", "hang", "talk", "eat", "refuse", "fail_once", "leave")
limits = {"hang": (1.0, 60.0), "talk": (60.0, 1.0)}
handlers = {kind: handlers_of.Handler(f"tests.cloud.chores:{kind}", *limits.get(kind, (60.0, 60.0))) for kind in kinds}
options = handlers_of.Options(int(sys.argv[3]), float(sys.argv[4]), 2, 1 << 30, bundle=sys.argv[1])
data = Path(sys.argv[1])
worker.serve(Settings(data, sys.argv[2] or None), lambda line: print(line, flush=True), options, handlers)
"""


class Worker:
    """A worker's process."""

    def __init__(self, data: Path, database: str | None, hands: int = 1, lease_s: float = 20.0) -> None:
        argv = [sys.executable, "-c", WORKER, str(data), database or "", str(hands), str(lease_s)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"worker {hands}\n"

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)


def prepared(url: str) -> Engine:
    made = connect(url)
    migrate(made)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS noted (subject text PRIMARY KEY, process int)"))
        connection.execute(text("CREATE TABLE IF NOT EXISTS stepped (subject text, step int)"))
    return made


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    made = prepared(database)
    yield made
    made.dispose()


@pytest.fixture
def queue(engine: Engine) -> Queue:
    with engine.begin() as connection:
        connection.execute(delete(JOBS))
        connection.execute(text("TRUNCATE noted, stepped"))
    return Queue(engine)


def until(queue: Queue, id: int, *states: str, within_s: float = 60.0) -> Job:
    end = time.monotonic() + within_s
    while (job := queue.job(id)).state not in states:
        assert time.monotonic() < end, f"expected {states}, got {job}"
        time.sleep(0.05)
    return job


def rows(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_whatever_a_job_does_to_its_process_counts_against_it_alone(
    queue: Queue, engine: Engine, database: str, tmp_path: Path
) -> None:
    kinds = ("crash", "hang", "talk", "eat", "leave", "refuse", "fail_once", "note")
    ids = {kind: queue.put(kind, "1") for kind in kinds}
    with Worker(tmp_path, database) as worker:
        jobs = {kind: until(queue, id, "done", "parked") for kind, id in ids.items()}
        assert worker.end(signal.SIGTERM) == 0
    ends = {kind: (job.state, job.attempts) for kind, job in jobs.items()}
    assert ends == {
        "crash": ("parked", 2),
        "hang": ("parked", 2),
        "talk": ("parked", 2),
        "eat": ("parked", 2),
        "leave": ("parked", 2),
        "refuse": ("parked", 1),
        "fail_once": ("done", 2),
        "note": ("done", 1),
    }
    assert jobs["crash"].error == "its process was killed by SIGSEGV, at: decoding"
    assert jobs["hang"].error.startswith("it said nothing for 1 s, at: ")
    assert jobs["talk"].error.startswith("it took more than 1 s, at: ")
    assert "at most 1024 MiB of memory" in jobs["eat"].error
    assert jobs["leave"].error == "its process was killed by SIGKILL, at: its start"
    assert jobs["refuse"].error == "clip: expected an MCAP file, got b'x'"
    assert jobs["note"].result["process"] != worker.process.pid
    assert rows(engine, "SELECT subject FROM noted") == [("1",)]


def test_a_killed_workers_job_goes_on_from_its_checkpoint_and_no_step_is_done_twice(
    queue: Queue, engine: Engine, database: str, tmp_path: Path
) -> None:
    id = queue.put("steps", "1")
    with Worker(tmp_path, database, lease_s=1.0) as worker:
        watched = queue.watch(id, every_s=0.02)
        assert any(job.progress >= 0.3 for job in watched)  # now it pauses
        worker.end(signal.SIGKILL)
    with Worker(tmp_path, database, lease_s=1.0):
        job = until(queue, id, "done", "parked")
    assert job.state == "done" and job.attempts == 2 and job.result["from"] >= 2
    assert [step for _, step in rows(engine, "SELECT * FROM stepped ORDER BY step")] == list(range(STEPS))


def test_a_worker_that_is_asked_to_end_hands_its_jobs_back(
    queue: Queue, engine: Engine, database: str, tmp_path: Path
) -> None:
    id = queue.put("steps", "1")
    with Worker(tmp_path, database, lease_s=60.0) as worker:
        assert any(job.progress >= 0.3 for job in queue.watch(id, every_s=0.02))
        assert worker.end(signal.SIGTERM) == 0
    job = queue.job(id)
    assert (job.state, job.attempts) == ("queued", 0) and job.checkpoint["done"] >= 2
    with Worker(tmp_path, database) as worker:
        assert until(queue, id, "running", "done").attempts == 1


def test_a_job_leaves_nothing_in_the_temporary_folder_however_it_ends(
    queue: Queue, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    crash, note, steps = (queue.put(kind, "1") for kind in ("crash", "note", "steps"))
    with Worker(tmp_path, database, lease_s=60.0) as worker:
        until(queue, crash, "parked"), until(queue, note, "done")
        assert any(job.progress >= 0.3 for job in queue.watch(steps, every_s=0.02))
        (left,) = folder.glob("roadfuse-job-*")
        assert (left / "clip").read_bytes() == b"a clip", "it is the folder of the job under way alone"
        assert worker.end(signal.SIGTERM) == 0
    assert list(folder.glob("roadfuse-job-*")) == []


def test_a_cancelled_job_is_stopped_and_the_next_one_runs(
    queue: Queue, engine: Engine, database: str, tmp_path: Path
) -> None:
    id = queue.put("steps", "1")
    with Worker(tmp_path, database, lease_s=1.0):
        assert any(job.progress >= 0.3 for job in queue.watch(id, every_s=0.02))
        assert queue.cancel(id)
        assert until(queue, queue.put("note", "2"), "done").state == "done"
        steps = rows(engine, "SELECT step FROM stepped")
    assert queue.job(id).state == "cancelled" and len(steps) < STEPS


def test_hands_of_one_worker_share_the_queue(queue: Queue, engine: Engine, database: str, tmp_path: Path) -> None:
    ids = [queue.put("note", str(number)) for number in range(20)]
    with Worker(tmp_path, database, hands=2):
        processes = {until(queue, id, "done").result["process"] for id in ids}
    assert len(processes) == 2 and len(rows(engine, "SELECT * FROM noted")) == 20


def test_a_killed_database_costs_a_job_nothing(open_folder: Path, tmp_path: Path) -> None:
    with Postgres(open_folder / "mortal") as postgres:
        engine = prepared(postgres.url)
        queue = Queue(engine)
        id = queue.put("steps", "1")
        with Worker(tmp_path, postgres.url):
            assert any(job.progress >= 0.3 for job in queue.watch(id, every_s=0.02))
            pid = int((open_folder / "mortal" / "data" / "postmaster.pid").read_text().splitlines()[0])
            subprocess.run(["kill", "-KILL", str(pid)], check=True)
            end, job = time.monotonic() + 60, None
            while (job is None or job.state != "done") and time.monotonic() < end:
                time.sleep(0.2)
                try:
                    job = queue.job(id)
                except Exception:  # it is coming back
                    engine.dispose()
        assert job is not None and (job.state, job.attempts) == ("done", 1), job
        assert [step for _, step in rows(engine, "SELECT * FROM stepped ORDER BY step")] == list(range(STEPS))
        engine.dispose()


def test_help_says_what_each_option_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADFUSE_BUNDLE", "bundle%s")
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert "Args:" not in said and "by default bundle%s" in said
    assert len(re.findall(r"^  --\S+ X(?:  +|\n {20,})\S", said, re.MULTILINE)) == len(fields(Options))


def test_options_come_from_the_environment_and_nonsense_is_refused() -> None:
    told = {"ROADFUSE_HANDS": "3", "ROADFUSE_VISION_LANGUAGE": "http://model:8000"}
    options = Options.from_environment(told)
    assert (options.hands, options.vision_language, options.triton) == (3, "http://model:8000", "")
    for hands in ("0", "-1", "65"):
        with pytest.raises(CloudError, match=f"expected hands of 1 to 64, got {hands}"):
            Options.from_environment({"ROADFUSE_HANDS": hands})
    with pytest.raises(CloudError, match="ROADFUSE_HANDS: expected a number, got 'many'"):
        Options.from_environment({"ROADFUSE_HANDS": "many"})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hands", "0"),
        ("hands", "-1"),
        ("lease-s", "0"),
        ("lease-s", "nan"),
        ("most-attempts", "0"),
        ("memory-bytes", "0"),
    ],
)
def test_a_worker_that_could_do_no_job_or_would_share_one_does_not_start(
    option: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(CloudError, match=f"expected {option.replace('-', '_')} of .* to .*, got {value}"):
        main(["--data", str(tmp_path / "none"), f"--{option}", value])
    assert not (tmp_path / "none").exists()
