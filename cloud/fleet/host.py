"""A whole cloud for a rehearsal, on this machine: CA, keys, database, ingest, rollout engine, broker, and the fleet.

All of it is what a real fleet talks to; only the vehicles are simulated, and the broker speaks plain text.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from cloud import certificates
from cloud.database import opened
from cloud.errors import CloudError
from cloud.fleet import members
from cloud.fleet.scenario import HARDWARE, Plant, Scenario
from cloud.fleet.vehicle import Vehicle
from cloud.objects import Objects
from cloud.releases import publisher, rotation
from cloud.releases.bundles import files_of
from cloud.releases.releases import Release
from cloud.releases.signing import Keys
from cloud.settings import Settings
from edge import bundle as bundles
from edge.bundle_write import canonical

_PATIENCE_S: Final = 60.0
_END_S: Final = 20.0
_ENROLLED: Final = 1_000  # in one transaction


class Host:
    """A rehearsal's cloud. To be used in a `with` block.

    Args:
        folder: for it, which must not be there yet; PostgreSQL's own user must be able to reach it.

    Attributes:
        data: the cloud's folder within it; the offline keys lie beside it.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists():
            raise CloudError(f"expected a folder that is not there yet, got {folder}")
        self._folder, self.data = folder, folder / "cloud"
        self._stack = ExitStack()
        self._said: queue.Queue[tuple[int, str]] = queue.Queue()
        self.broker_port = 0
        self.cloud = ""

    def __enter__(self) -> Host:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def engine(self) -> Engine:
        """The cloud's database."""
        return self._engine

    def release(self, folder: Path | None, version: str) -> Release:
        """Release a bundle.

        Args:
            folder: None: the reference bundle, under another version.
        """
        if folder is None:
            folder = self._folder / f"bundle-{version}"
            _reversioned(folder, version)
        settings = Settings(self.data)
        return publisher.add(
            self._engine, Objects(settings.objects_place), self._keys, folder, _now(), work=self.data,
            hardware=(HARDWARE,),
        )  # fmt: skip

    def fleet(self, scenario: Scenario, active: Release, plants: Mapping[str, Plant], processes: int) -> None:
        """Enrol the vehicles and start the processes that run them."""
        authority = certificates.load(self.data / "ca")
        names = [Vehicle(scenario, number, "", {}, 0.0) for number in range(scenario.vehicles)]
        known: list[members.Member] = []
        for first in range(0, len(names), _ENROLLED):
            part = {one.name: one.labels for one in names[first : first + _ENROLLED]}
            known += members.enrol(self._engine, authority, part, HARDWARE)
        start = time.monotonic()
        for number in range(processes):
            plan = self._folder / f"fleet-{number}.json"
            plan.touch(mode=0o600)
            plan.write_text(
                json.dumps(
                    {
                        "scenario": dataclasses.asdict(scenario),
                        "broker_port": self.broker_port,
                        "cloud": self.cloud,
                        "ca": str(self.data / "ca" / "ca.pem"),
                        "start": start,
                        "active": active.bundle,
                        "plants": {bundle: dataclasses.asdict(plant) for bundle, plant in plants.items()},
                        "members": [dataclasses.asdict(one) for one in known[number::processes]],
                    }
                )
            )
            worker = self._process([sys.executable, "-m", "cloud.fleet.worker", str(plan)], f"fleet-{number}")
            threading.Thread(target=self._listen, args=(number, worker), name=f"fleet-{number}", daemon=True).start()

    def told(self, timeout_s: float) -> Iterator[tuple[int, dict[str, Any]]]:
        """What the fleet's processes say for so long: the process's number, and its words.

        Raises:
            CloudError: one ended.
        """
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            try:
                number, line = self._said.get(timeout=left)
            except queue.Empty:
                return
            if not line:
                log = self._folder / f"fleet-{number}.log"
                raise CloudError(f"expected the fleet to go on, got: {_last_line(log)}")
            yield number, json.loads(line)

    def _listen(self, number: int, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            self._said.put((number, line))
        self._said.put((number, ""))

    def _start(self) -> None:
        self.data.mkdir(parents=True, mode=0o755)
        self._folder.chmod(0o755)
        certificates.create(self.data / "ca")
        certificates.issue_server(self.data / "ca", ["localhost"])
        self._broker()
        words = ["cloud", "serve", "--data", str(self.data), "--only", "ingest,control", "--broker-plain"]
        words += ["--broker", f"127.0.0.1:{self.broker_port}", "--port=0", "--enrol-port=0", "--metrics-port=0"]
        cloud = self._process([sys.executable, "-m", "edge.command", *words], "cloud")
        assert cloud.stdout is not None
        # What was started before the engine began waits for 150 s: all vehicles have to come back first.
        started: set[str] = set()
        while not started >= {"ingest", "control"}:
            line = cloud.stdout.readline()
            if not line:
                raise CloudError(f"expected a cloud that starts, got: {_last_line(self._folder / 'cloud.log')}")
            name, _, address = line.strip().partition(" ")
            started.add(name)
            if name == "ingest":
                self.cloud = "localhost:" + address.rpartition(":")[2]
        self._engine = self._stack.enter_context(opened(self.data, None, share=True))
        self._keys = Keys.at(self.data, [self._folder / "keys"])
        with self._engine.begin() as connection:
            rotation.create(connection, self._keys, _now(), b"")

    def _broker(self) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise CloudError("expected mosquitto on this machine, got none: apt-get install mosquitto")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.broker_port = free.getsockname()[1]
        config = self._folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_inflight_messages 200\nmax_queued_messages 200000\nset_tcp_nodelay true\nsys_interval 0\n"
            + ("user root\n" if os.getuid() == 0 else "")
        )
        self._process([program, "-c", str(config)], "mosquitto")
        until = time.monotonic() + _PATIENCE_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.broker_port)) == 0:
                    return
            if time.monotonic() > until:
                raise CloudError(f"expected a broker that listens, got: {_last_line(self._folder / 'mosquitto.log')}")
            time.sleep(0.05)

    def _process(self, argv: list[str], name: str) -> subprocess.Popen[str]:
        with (self._folder / f"{name}.log").open("w") as errors:
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._stack.callback(_end, process)
        return process


def _reversioned(folder: Path, version: str) -> None:
    """The reference bundle under another version: the same engines, another id."""
    reference = bundles.load()
    folder.mkdir()
    for path in files_of(reference):
        shutil.copyfile(path, folder / path.name)
    (folder / bundles.MANIFEST).write_text(canonical({**reference.manifest, "version": version}))


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "nothing"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
