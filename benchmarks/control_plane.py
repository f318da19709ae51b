"""What the control plane costs: CPU of a heartbeat over MQTT, and how long a stop takes to reach the fleet.

A real mosquitto (deploy/mosquitto), the part "control" and an embedded PostgreSQL, over mTLS on this machine. Vehicles
are raw MQTT 5 connections of one asyncio process, each with a certificate of its own; their CPU is not counted. Counted
is the CPU of broker, control and all of PostgreSQL's processes (utime + stime of /proc) while heartbeats of about 300
bytes, retained and at QoS 1, come in at a steady rate, until the last of them is in the database. A device sends one
each 60 s, so devices a core = 60 s / CPU seconds of a heartbeat. Three loads: driving (each heartbeat has new counts),
parked (nothing new), and nothing at all, which is not taken off.

    python benchmarks/control_plane.py [--vehicles 2000] [--per-s 400] [--seconds 30]     prints JSON
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import platform
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, insert, text

from cloud import certificates
from cloud.database import connect, migrate
from cloud.postgres import Postgres
from cloud.rollouts import stop_line
from cloud.tables import VEHICLES
from roadfuse.v1.updates_pb2 import Evidence, StopNotice
from tests.cloud.rollouts.broker import Broker

DEVICE_S = 60.0
ACTIVE = "ab" * 32
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
HANDSHAKES = 16


class Vehicle(asyncio.Protocol):
    """One connection: CONNECT, SUBSCRIBE to stops, PUBLISH at QoS 1; no more of MQTT than that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = asyncio.get_running_loop().create_future()
        self.acked = 0
        self.stopped: dict[int, float] = {}
        self._buffer = b""
        self._id = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(_packet(0x10, _text("MQTT") + b"\x05\x02" + b"\x00\x00" + b"\x00" + _text(f"b-{self.name}")))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2:
            size, head = _length(self._buffer)
            if size is None or len(self._buffer) < head + size:
                return
            kind, body = self._buffer[0], self._buffer[head : head + size]
            self._buffer = self._buffer[head + size :]
            if kind >> 4 == 2:
                assert body[1] == 0, f"the broker refuses {self.name}: {body[1]:#x}"
                self._transport.write(_packet(0x82, b"\x00\x01\x00" + _text("roadfuse-fleet/stop") + b"\x01"))
            elif kind >> 4 == 9 and not self.ready.done():
                self.ready.set_result(None)
            elif kind >> 4 == 4:
                self.acked += 1
            elif kind >> 4 == 3:
                now = time.monotonic()
                topic = int.from_bytes(body[:2], "big") + 2
                self._transport.write(_packet(0x40, body[topic : topic + 2]))
                notice = StopNotice.FromString(body[topic + 3 + body[topic + 2] :])
                self.stopped.setdefault(notice.number, now)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionError(f"{self.name}: closed"))

    def publish(self, payload: bytes) -> None:
        self._id = self._id % 65_535 + 1
        topic = _text(f"roadfuse/{self.name}/reported")
        self._transport.write(_packet(0x33, topic + self._id.to_bytes(2, "big") + b"\x00" + payload))


def _packet(kind: int, body: bytes) -> bytes:
    size, head = len(body), bytearray([kind])
    while True:
        size, digit = divmod(size, 128)
        head.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(head) + body


def _length(buffer: bytes) -> tuple[int | None, int]:
    size = shift = 0
    for n, digit in enumerate(buffer[1:5], 2):
        size |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            return size, n
    return None, 0


def _text(words: str) -> bytes:
    return len(words.encode()).to_bytes(2, "big") + words.encode()


def heartbeat(name: str, beat: int, is_driving: bool) -> bytes:
    """A report of about 300 bytes."""
    beats = beat if is_driving else 1
    told = Evidence(bundle_id=ACTIVE, account=name.encode()[:16])
    told.tallies.add(slice="all", seconds=60.0 * beats, frames=1_200 * beats)
    state = "driving" if is_driving else "parked"
    said = {"stage": "IDLE", "active": ACTIVE, "counter": 7, "rollout": "r7-0badc0", "state": state,
            "evidence": [base64.b64encode(told.SerializeToString()).decode()]}  # fmt: skip
    return json.dumps(said, separators=(",", ":")).encode()


async def _vehicles(pipe: Connection, port: int, folder: Path, names: list[str]) -> None:
    loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(HANDSHAKES)

    async def connected(name: str) -> Vehicle:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        async with gate:
            _, vehicle = await loop.create_connection(
                lambda: Vehicle(name), "localhost", port, ssl=context, ssl_handshake_timeout=120
            )
            await vehicle.ready
        return vehicle

    vehicles = await asyncio.gather(*map(connected, names))
    pipe.send(("connected", len(vehicles)))
    beat = 0
    while True:
        order = await loop.run_in_executor(None, pipe.recv)
        if order[0] == "end":
            return
        if order[0] == "stopped":
            end = time.monotonic() + 30.0
            while any(order[1] not in one.stopped for one in vehicles) and time.monotonic() < end:
                await asyncio.sleep(0.05)
            pipe.send([one.stopped.get(order[1]) for one in vehicles])
            continue
        _, per_s, seconds, is_driving = order
        before, start, sent = sum(one.acked for one in vehicles), loop.time(), 0
        while (passed := loop.time() - start) < seconds:
            while sent < passed * per_s:
                one = vehicles[sent % len(vehicles)]
                beat += sent % len(vehicles) == 0
                one.publish(heartbeat(one.name, beat, is_driving))
                sent += 1
            await asyncio.sleep(0.005)
        last = vehicles[(sent - 1) % len(vehicles)]
        while sum(one.acked for one in vehicles) - before < sent:
            await asyncio.sleep(0.01)
        pipe.send((sent, last.name, 60.0 * beat, loop.time() - start))


def _run_vehicles(*args: Any) -> None:
    asyncio.run(_vehicles(*args))


def _issue(data: Path, names: list[str]) -> Path:
    authority, folder = certificates.load(data / "ca"), data / "vehicles"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(authority.pem)
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificates.issue_vehicle(authority, request).pem)
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        (folder / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder


def _cpu_s(pid: int, *, with_ended: bool = False) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_ended else 13])) * TICK_S


def _database_cpu_s(postmaster: int) -> float:
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    total = _cpu_s(postmaster, with_ended=True)
    for child in children:
        try:
            total += _cpu_s(int(child))
        except FileNotFoundError:
            continue
    return total


def _seconds_of(engine: Engine, vehicle: str) -> float:
    with engine.begin() as connection:
        query = text("SELECT coalesce(max(seconds), 0) FROM tallies WHERE vehicle = :name")
        return float(connection.execute(query, {"name": vehicle}).scalar_one())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", type=int, default=2_000)
    parser.add_argument("--per-s", type=float, default=400.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    names = [f"car-{n:05d}" for n in range(args.vehicles)]
    with tempfile.TemporaryDirectory(prefix="roadfuse-bench-") as place:
        data = Path(place)
        data.chmod(0o755)
        broker = Broker(data)
        vehicles = control = None
        try:
            with Postgres(data / "postgres") as server:
                engine = connect(server.url)
                migrate(engine)
                with engine.begin() as connection:
                    connection.execute(insert(VEHICLES), [{"name": name} for name in names])
                postmaster = int((data / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
                argv = ["cloud", "serve", "--only", "control", "--data", str(data), "--database", server.url]
                argv += ["--broker", f"localhost:{broker.port}", "--metrics-port", "0"]
                control = subprocess.Popen([sys.executable, "-m", "edge.command", *argv], stdout=subprocess.PIPE)
                assert control.stdout is not None and control.stdout.readline()
                folder = _issue(data, names)
                pipe, there = multiprocessing.Pipe()
                spawn = multiprocessing.get_context("spawn")
                vehicles = spawn.Process(target=_run_vehicles, args=(there, broker.port, folder, names), daemon=True)
                vehicles.start()
                start = time.monotonic()
                assert pipe.recv() == ("connected", len(names))
                figures: dict[str, Any] = {
                    "machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
                    "vehicles": len(names), "connect_s": round(time.monotonic() - start, 1),
                    "heartbeat_bytes": len(heartbeat(names[0], 9, True)),
                }  # fmt: skip
                pids = {"broker": broker.process.pid, "control": control.pid}
                for name, is_driving in (("warm-up", True), ("driving", True), ("parked", False), ("nothing", None)):
                    seconds = 2.0 * len(names) / args.per_s if name == "warm-up" else args.seconds
                    before = {part: _cpu_s(pid) for part, pid in pids.items()}
                    before["database"] = _database_cpu_s(postmaster)
                    if is_driving is None:
                        time.sleep(seconds)
                        sent, took_s = 0, seconds
                    else:
                        pipe.send(("beat", args.per_s, seconds, is_driving))
                        sent, last, reached, took_s = pipe.recv()
                        while is_driving and _seconds_of(engine, last) < reached:
                            time.sleep(0.05)
                        time.sleep(1.0)
                    after = {part: _cpu_s(pid) for part, pid in pids.items()}
                    after["database"] = _database_cpu_s(postmaster)
                    if name != "warm-up":
                        figures[name] = _load(sent, took_s, {part: after[part] - before[part] for part in after})
                figures["stop"] = {
                    "from_transaction": _stop(engine, pipe, lambda: _stop_here(engine)),
                    "from_command": _stop(engine, pipe, lambda: _stop_by_command(data, server.url)),
                }
                pipe.send(("end",))
                vehicles.join(10)
                control.terminate()
                control.wait(30)
                engine.dispose()
        finally:
            for process in (broker.process, control):
                if process is not None:
                    process.kill()
                    process.wait()
            if vehicles is not None:
                vehicles.kill()
    print(json.dumps(figures, indent=2))


def _load(sent: int, took_s: float, cpu_s: dict[str, float]) -> dict[str, Any]:
    total = sum(cpu_s.values())
    found: dict[str, Any] = {"heartbeats": sent, "per_s": round(sent / took_s, 1)}
    found["cpu_s"] = {part: round(value, 2) for part, value in cpu_s.items()}
    if sent:
        found["cpu_us_a_heartbeat"] = {part: round(1e6 * value / sent, 1) for part, value in cpu_s.items()}
        found["cpu_us_in_all"] = round(1e6 * total / sent, 1)
        found["devices_a_core"] = int(DEVICE_S / (total / sent))
    return found


def _stop(engine: Engine, pipe: Connection, stop: Any) -> dict[str, Any]:
    start = time.monotonic()
    stop()
    with engine.begin() as connection:
        said = stop_line.notice(connection)
    assert said is not None
    pipe.send(("stopped", said.number))
    heard = pipe.recv()
    took_s = sorted(at - start for at in heard if at is not None)
    return {
        "reached": len(took_s), "of": len(heard), "first_s": round(took_s[0], 3),
        "median_s": round(statistics.median(took_s), 3), "p99_s": round(took_s[int(0.99 * (len(took_s) - 1))], 3),
        "last_s": round(took_s[-1], 3),
    }  # fmt: skip


def _stop_here(engine: Engine) -> None:
    with engine.begin() as connection:
        stop_line.stop(connection, "cd" * 32, "benchmark")


def _stop_by_command(data: Path, url: str) -> None:
    argv = ["rollout", "stop", "ef" * 32, "--why", "benchmark", "--data", str(data), "--database", url]
    subprocess.run([sys.executable, "-m", "edge.command", *argv], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
