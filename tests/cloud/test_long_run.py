"""A fleet's scenes through everything that can go wrong: none is lost, none is there twice, the gap report is right.

A thousand scenes; ROADFUSE_LONG=1 sends a hundred thousand, or what ROADFUSE_LONG_SECONDS allow. What was seen is
written to ROADFUSE_LONG_REPORT (JSON).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from sqlalchemy import text

from cloud.database import opened
from edge.uplink.outbox import Outbox, Quota
from roadfuse.v1 import ingest_pb2
from tests.edge.broker import MOSQUITTO, Broker

from .fleet import Cloud as Enroller
from .fleet import Vehicle, clip, summary
from .test_way_up import ROADFUSE, Network, enrolled, roadfuse

IS_LONG: Final = os.environ.get("ROADFUSE_LONG") == "1"
SCENES: Final = 100_000 if IS_LONG else 1_000
GIVE_S: Final = float(os.environ.get("ROADFUSE_LONG_SECONDS", "inf"))
VEHICLES: Final = 4
# Between one fault and the next, at most.
PAUSE_S: Final = 30.0 if IS_LONG else 0.5
QUOTA_BYTES: Final = 60_000_000
RETRIES_S: Final = 60.0
PASSING: Final = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "UNKNOWN",
    "CANCELLED",
)
# What the recorder does, without a loop: it numbers scenes and writes their clips until there are so many.
RECORDER: Final = """
import hashlib, random, sys, time
from pathlib import Path
from edge.uplink.outbox import Outbox, Quota
from roadfuse.v1.ingest_pb2 import SceneSummary
rng, wanted = random.Random(), int(sys.argv[2])
with Outbox(Path(sys.argv[1]), Quota(int(sys.argv[3]), 0)) as outbox:
    outbox.recover()
    while outbox.account().given < wanted:
        at = rng.getrandbits(40)
        summary = SceneSummary(first_ns=at, peak_ns=at, last_ns=at, hardness=rng.random(), bundle_id="b" * 64)
        summary.recorded_at.FromNanoseconds(time.time_ns())
        summary.embedding, summary.embedding_scale = rng.randbytes(192), 0.01
        sequence, _ = outbox.give(summary, rng.random())
        if rng.random() < 0.2:
            outbox.refuse(sequence, "near-duplicate")
            continue
        content = rng.randbytes(rng.choice([1, 300, 5_000, 20_000] * 25 + [300_000, 1_300_000]))
        outbox.make_room(len(content))
        part = outbox.path(sequence).with_suffix(".part")
        try:
            part.write_bytes(content)
        except OSError:
            part.unlink(missing_ok=True)
            outbox.refuse(sequence, "full disk")
            continue
        part.replace(outbox.path(sequence))
        outbox.hold(sequence, hashlib.sha256(content).digest(), len(content))
"""
# A wall clock that jumps while a process runs; for recorders and the server: gRPC's calls take the machine's own clock
# for a part of their deadlines, so that one of the two alone must not jump.
JUMPING: Final = """
import os, time
path, real, real_ns, last, offset_s = os.environ["ROADFUSE_TEST_CLOCK"], time.time, time.time_ns, -1.0, 0
def now_offset():
    global last, offset_s
    if time.monotonic() - last > 0.2:
        last = time.monotonic()
        try:
            offset_s = int(open(path).read())
        except (OSError, ValueError):
            pass
    return offset_s
time.time = lambda: max(real() + now_offset(), 1.0)
time.time_ns = lambda: max(real_ns() + now_offset() * 1_000_000_000, 1)
"""


class Cloud:
    """`roadfuse cloud serve` with ingest and a worker; it comes back at its port."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.data, self.port, self.enrol_port = folder / "data", 0, 0
        self._environment = environment
        roadfuse("cloud", "ca", "init", "--data", self.data)
        self.start()

    def start(self) -> None:
        ports = ["--port", self.port, "--enrol-port", self.enrol_port, "--metrics-port", 0]
        words = ["cloud", "serve", "--only", "ingest,worker", "--data", self.data, *ports]
        with (self.data / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*ROADFUSE, *map(str, words)], stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline(), self.process.stdout.readline()]
        assert all(lines), (self.data / "log").read_text()[-2_000:]
        self.port, self.enrol_port = (int(line.rpartition(":")[2]) for line in lines)

    def part(self, name: str) -> int | None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_text().split("\0")[2:4] == ["cloud", name]:
                    return int(pid)
        return None

    def kill_part(self, name: str) -> None:
        pid = self.part(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.start()

    def kill_database(self) -> None:
        for path in self.data.rglob("postmaster.pid"):
            with suppress(ProcessLookupError, ValueError, IndexError):
                os.kill(int(path.read_text().splitlines()[0]), signal.SIGKILL)

    def kill_keeper(self) -> None:
        """Of the process that keeps the database running."""
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with suppress(OSError):
                if "cloud.postgres" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(int(pid), signal.SIGKILL)

    def fill_disk(self, seconds: float) -> None:
        """For a while no file of ingest may grow."""
        pid = self.part("ingest")
        if pid is None:
            return
        with suppress(ProcessLookupError):
            limit = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            time.sleep(seconds)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, limit[1]))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Car:
    """A recorder, an uplink and the network between; both processes come back until all scenes were given."""

    def __init__(
        self, cloud: Cloud, folder: Path, number: int, environment: dict[str, str], broker: Broker | None
    ) -> None:
        self.name, self.scenes = f"car-{number}", SCENES // VEHICLES
        self.spool = folder / f"spool-{number}"
        self.identity = enrolled(cloud, folder, self.name)  # type: ignore[arg-type]
        self.network = Network(cloud.port)
        self._environment = environment
        self._words = [] if broker is None else ["--broker", f"localhost:{broker.port}", "--broker-plain"]
        self._log = (folder / f"{self.name}.log").open("a")
        with Outbox(self.spool, Quota(QUOTA_BYTES, 0)):
            pass
        self.recorder = self._record()
        self.uplink = self._hand_up()

    def _record(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", RECORDER, str(self.spool), str(self.scenes), str(QUOTA_BYTES)]
        return subprocess.Popen(words, env=self._environment, stderr=self._log)

    def _hand_up(self) -> subprocess.Popen[bytes]:
        place = ["--spool", self.spool, "--cloud", f"localhost:{self.network.port}", "--identity", self.identity]
        words = [*ROADFUSE, "uplink", "run", *map(str, place), "--clips", "all", "--unredacted", *self._words]
        return subprocess.Popen(words, stderr=self._log, stdout=subprocess.DEVNULL)

    def tend(self) -> bool:
        """Start again what ended; whether scenes are still to come or to go up."""
        if self.uplink.poll() is not None:
            self.uplink = self._hand_up()
        if self.recorder.poll() is not None:
            try:
                with Outbox(self.spool) as outbox:
                    account = outbox.account()
                    scenes, evictions = outbox.to_tell(1)
            except Exception:  # the spool's disk is full just now
                return True
            if account.given < self.scenes or account.writing:
                self.recorder = self._record()
                return True
            return bool(account.held or scenes or evictions)
        return True

    def give_no_more(self) -> None:
        """What was given until now is all."""
        self.recorder.kill()
        self.recorder.wait()
        self.scenes = 0
        self._record().wait()  # it puts right what the kill left
        with Outbox(self.spool) as outbox:
            self.scenes = outbox.account().given

    def end(self) -> None:
        for process in (self.recorder, self.uplink):
            process.kill()
            process.wait()
        self.network.close()
        self._log.close()


@dataclass
class Probe:
    """A vehicle that calls all the time, as a client with retries does, and writes down what it met."""

    vehicle: Vehicle
    requests: int = 0
    retries: int = 0
    failed: int = 0
    answered_at: list[tuple[float, float]] = field(default_factory=list)  # of each request: begun, answered
    stopping: threading.Event = field(default_factory=threading.Event)
    sequence: int = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            self.sequence += 1
            one = clip(self.sequence, 500)
            put = ingest_pb2.PutRequest(
                outbox=self.vehicle.outbox, sequence=one.sequence, sha256=one.sha256, content=one.content
            )
            self._persist(lambda one=one: self.vehicle.report(summary(one.sequence, one), last=one.sequence))
            self._persist(lambda put=put: self.vehicle.stub.Put(put, timeout=10))
            self.stopping.wait(0.02)

    def _persist(self, call: Callable[[], Any]) -> None:
        begun, wait_s = time.monotonic(), 0.05
        self.requests += 1
        while time.monotonic() - begun < RETRIES_S:
            start = time.monotonic()
            try:
                call()
                self.answered_at.append((start, time.monotonic()))
                return
            except grpc.RpcError as error:
                status: Any = error
                assert status.code().name in PASSING, f"{status.code()}: {status.details()}"
                self.retries += 1
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, 1.0)
        self.failed += 1

    def recovery_s(self, since: float) -> float | None:
        """From an instant to the answer of the first request that began after it."""
        return next((end - since for start, end in self.answered_at[-4_000:] if start >= since), None)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="roadfuse-long-", dir="/tmp"))  # PostgreSQL must reach it as nobody
    folder.chmod(0o755)
    yield folder
    with suppress(OSError):
        subprocess.run(["umount", str(folder / "spool-0")], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def with_small_disk(folder: Path) -> bool:
    """Put the first car's spool on a disk of its own, where that is allowed."""
    spool = folder / "spool-0"
    spool.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={QUOTA_BYTES * 2}", "tmpfs", str(spool)]
    return os.geteuid() == 0 and subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0


def fill(spool: Path, seconds: float) -> None:
    """For a while the disk of a spool takes nothing."""
    ballast = spool / "ballast-of-the-test"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
    time.sleep(seconds)
    ballast.unlink(missing_ok=True)


def faults(
    cloud: Cloud, cars: list[Car], broker: Broker | None, clock: Path, rng: random.Random, small: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "recorder": lambda: rng.choice(cars).recorder.kill(),
        "uplink": lambda: rng.choice(cars).uplink.kill(),
        "ingest": lambda: cloud.kill_part("ingest"),
        "worker": lambda: cloud.kill_part("worker"),
        "whole server": cloud.kill_and_start,
        "database": cloud.kill_database,
        "database's keeper": cloud.kill_keeper,
        "network": lambda: [car.network.cut() for car in cars],
        "clock": lambda: clock.write_text(str(rng.choice([-1, 1]) * rng.choice([1, 3_600, 10**7]))),
        "server's disk full": lambda: cloud.fill_disk(0.5),
    }
    if broker is not None:
        found["broker"] = lambda: [broker.kill(), broker.start()]
    if small:
        found["vehicle's disk full"] = lambda: fill(cars[0].spool, 0.3)
    return found


def test_a_fleets_scenes_come_up_once_each_whatever_is_killed(folder: Path) -> None:
    rng, clock = random.Random(int(os.environ.get("ROADFUSE_LONG_SEED", "7"))), folder / "clock"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(JUMPING)
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "ROADFUSE_TEST_CLOCK": str(clock)}
    small = with_small_disk(folder)
    cloud = Cloud(folder, environment)
    (folder / "broker").mkdir()
    broker = Broker(folder / "broker") if MOSQUITTO else None
    began = time.monotonic()
    cars = [Car(cloud, folder, number, environment, broker) for number in range(VEHICLES)]
    probe = Probe(_probe_vehicle(cloud))
    probing = threading.Thread(target=probe.run)
    probing.start()
    inflicted: list[tuple[str, float | None]] = []
    try:
        ways = faults(cloud, cars, broker, clock, rng, small)
        deck: list[str] = []
        is_calm = is_enough = False
        while sum(car.tend() for car in cars) or len(inflicted) < len(ways):
            assert time.monotonic() - began < (7_200 if IS_LONG else 300), "it does not come to an end"
            if time.monotonic() - began > GIVE_S and not is_enough:
                is_enough = True
                for car in cars:
                    car.give_no_more()
            if not any(car.recorder.poll() is None for car in cars) and len(inflicted) >= len(ways):
                if not is_calm:  # a last fault, which lets uplinks that wait long forget what they met
                    is_calm = bool([car.uplink.kill() for car in cars])
                time.sleep(0.2)
                continue
            deck = deck or rng.sample(list(ways), len(ways))
            name, since = deck.pop(), time.monotonic()
            ways[name]()
            time.sleep(rng.uniform(0.2, 1.0) * (0.5 if is_enough else PAUSE_S))
            inflicted.append((name, _recovery(probe, since)))
    finally:
        probe.stopping.set()
        probing.join()
        for car in cars:
            car.end()
        if broker is not None:
            broker.kill()
    took_s = time.monotonic() - began
    try:
        with opened(cloud.data, None, share=True) as engine, engine.connect() as connection:
            received = connection.execute(
                text("SELECT count(*) FROM scenes WHERE received_at IS NOT NULL")
            ).scalar_one()
            jobs = connection.execute(text("SELECT count(*) FROM jobs WHERE kind = 'analyse'")).scalar_one()
        gap = {row["vehicle"]: row for row in json.loads(roadfuse("cloud", "gap", "--data", cloud.data, "--json"))}
    finally:
        cloud.stop()

    delivered = 0
    for car in cars:
        with Outbox(car.spool) as outbox:
            account, told = outbox.account(), gap[car.name]
            rows = outbox.execute("SELECT sequence, sha256 FROM scene WHERE state = 'delivered'").fetchall()
        assert account.given == car.scenes == account.delivered + account.evicted + account.lost
        assert (told["given"], told["missing"], told["on_board"]) == (account.given, 0, 0)
        assert (told["received"], told["evicted"], told["lost"]) == (account.delivered, account.evicted, account.lost)
        assert _objects(cloud, car.name) == {sequence: bytes(sha256) for sequence, sha256 in rows}
        delivered += account.delivered
    own = gap[probe.vehicle.name]
    assert (own["given"], own["received"], own["missing"]) == (probe.sequence, probe.sequence, 0)
    assert probe.failed == 0, f"{probe.failed} of {probe.requests} requests failed after their retries"
    assert received == jobs == delivered + probe.sequence, "each clip that came is analysed once"
    assert {name for name, _ in inflicted} == set(ways), "every fault struck"
    assert delivered > sum(car.scenes for car in cars) // 3
    _write_report(sum(car.scenes for car in cars), took_s, delivered, probe, inflicted)


def _probe_vehicle(cloud: Cloud) -> Vehicle:
    with opened(cloud.data, None, share=True) as engine:
        enroller = Enroller(cloud.data, engine.url.render_as_string(hide_password=False))
        enroller.port = cloud.port
        return enroller.vehicle("probe")


def _recovery(probe: Probe, since: float) -> float | None:
    """Waits for the server to answer again."""
    while (seconds := probe.recovery_s(since)) is None and time.monotonic() - since < RETRIES_S:
        time.sleep(0.02)
    return seconds


def _objects(cloud: Cloud, vehicle: str) -> dict[int, bytes]:
    folder = cloud.data / "objects" / "clips" / vehicle
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {}
    for path in files:
        sequence, _, named = path.stem.partition("-")
        digest = hashlib.sha256(path.read_bytes()).digest()
        assert digest.hex() == named, "a clip lies under its digest"
        found[int(sequence)] = digest
    assert len(found) == len(files), "no clip is there twice"
    return found


def _write_report(
    scenes: int, took_s: float, delivered: int, probe: Probe, inflicted: list[tuple[str, float | None]]
) -> None:
    recoveries: dict[str, list[float]] = {}
    for name, seconds in inflicted:
        recoveries.setdefault(name, []).append(RETRIES_S if seconds is None else seconds)
    report = {
        "scenes": scenes,
        "delivered": delivered,
        "seconds": round(took_s, 1),
        "probe": {"requests": probe.requests, "retries": probe.retries, "failed_after_retries": probe.failed},
        "faults": len(inflicted),
        "until_answered_again_s": {
            name: {"times": len(found), "median": round(statistics.median(found), 2), "worst": round(max(found), 2)}
            for name, found in sorted(recoveries.items())
        },
    }
    if path := os.environ.get("ROADFUSE_LONG_REPORT"):
        Path(path).write_text(json.dumps(report, indent=2) + "\n")
