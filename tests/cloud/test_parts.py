"""The parts as processes: they come up in order, come back when they are killed, and never outlive their parent."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud import certificates, keys
from cloud.database import connect
from cloud.search.client import Client, SearchAway

from .fleet import command, fresh_database

# As if these modules were not installed; the parts that need them are other tests' business.
ABSENT = """
import sys
for name in {names!r}:
    sys.modules[name] = None
"""


class Served:
    """`roadfuse cloud serve` with all that it starts."""

    def __init__(self, data: Path, database: str | None, *words: str, absent: tuple[str, ...]) -> None:
        self.data = data
        (data / "site").mkdir()
        (data / "site" / "sitecustomize.py").write_text(ABSENT.format(names=absent))
        certificates.create(data / "ca")
        certificates.issue_server(data / "ca", ["localhost"])
        ports = [word for name in ("port", "enrol-port", "search-port", "web-port") for word in (f"--{name}", "0")]
        argv = ["cloud", "serve", "--data", str(data), "--metrics-port", "0", *ports, *words]
        argv += [] if database is None else ["--database", database]
        with (data / "stderr").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge.command", *argv],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": str(data / "site")},
            )
        assert self.process.stdout is not None
        self.addresses = {}
        for _ in range(2):
            name, _, address = self.process.stdout.readline().strip().partition(" ")
            self.addresses[name] = address
        assert "enrolment" in self.addresses, self.log()

    def log(self) -> str:
        return (self.data / "stderr").read_text()

    def offspring(self) -> list[int]:
        """Process ids of all that it started."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def children(self) -> dict[str, int]:
        """Process ids of its parts."""
        found = {}
        for pid in self.offspring():
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if words[1:3] == ["-m", "cloud"]:
                found[words[3]] = pid
        return found

    def metrics(self, part: str) -> str:
        groups = {group["labels"]["part"]: group["targets"] for group in json.loads(self._discovered())}
        with urllib.request.urlopen(f"http://{groups[part][0]}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def _discovered(self) -> str:
        return (self.data / "metrics.json").read_text()

    def end(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


OTHERS = ("cloud.search.server", "cloud.worker", "cloud.web.server")


@pytest.fixture(scope="module")
def served(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"), database, absent=OTHERS)
    yield served
    served.end()


@pytest.fixture
def mortal(postgres: str, tmp_path: Path) -> Iterator[Served]:
    with fresh_database(postgres) as database:
        served = Served(tmp_path, database, absent=OTHERS)
        yield served
        served.end()


def until(is_so: Callable[[], object]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_serving(served: Served) -> bool:
    credentials = grpc.ssl_channel_credentials((served.data / "ca" / "ca.pem").read_bytes())
    port = served.addresses["enrolment"].rpartition(":")[2]
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_a_part_that_is_killed_comes_back_where_it_was_and_is_counted(served: Served) -> None:
    first = served.children()["ingest"]
    os.kill(first, signal.SIGKILL)
    until(lambda: is_serving(served) and served.children().get("ingest", first) != first)
    assert 'roadfuse_part_ended_total{name="ingest",reason="killed by SIGKILL"} 1.0' in served.metrics("parts")
    assert "part_ended part=ingest reason='killed by SIGKILL'" in served.log()
    assert "roadfuse_part_up" in served.metrics("parts")


def test_a_part_that_can_not_be_started_again_just_now_is_tried_again(mortal: Served) -> None:
    parent, first = mortal.process.pid, mortal.children()["ingest"]
    files = resource.prlimit(parent, resource.RLIMIT_NOFILE)
    resource.prlimit(parent, resource.RLIMIT_NOFILE, (3, files[1]))  # no pipe for another child
    os.kill(first, signal.SIGKILL)
    until(lambda: "ingest can't be started: [Errno 24]" in mortal.log())
    resource.prlimit(parent, resource.RLIMIT_NOFILE, files)
    until(lambda: is_serving(mortal) and mortal.children().get("ingest", first) != first)
    assert 'roadfuse_part_ended_total{name="ingest",reason="exit code 71"}' in mortal.metrics("parts")


def test_a_part_that_is_not_installed_is_one_line_and_the_others_serve(served: Served) -> None:
    until(lambda: served.log().count("part_off") == len(OTHERS))
    for name in ("search", "worker", "web"):
        (line,) = [line for line in served.log().splitlines() if f"part={name}" in line]
        assert f"part_off part={name}" in line and f"{name} is not installed here" in line
    assert "Traceback" not in served.log() and is_serving(served)


def test_search_with_two_ports_is_two_processes_and_either_answers_while_the_other_is_away(
    postgres: str, tmp_path: Path
) -> None:
    with fresh_database(postgres) as database:
        served = Served(tmp_path, database, "--search-port", "0,0", absent=("cloud.worker", "cloud.web.server"))
        engine = connect(database)
        try:
            assert served.process.stdout is not None
            addresses: set[str] = set()
            while len(addresses) < 2:  # others tell things too
                name, _, address = served.process.stdout.readline().strip().partition(" ")
                assert name, served.log()
                addresses |= {address} if name == "search" else set()
            with engine.begin() as connection:
                key = keys.create(connection, "tests")
            client = Client(",".join(addresses), (tmp_path / "ca" / "ca.pem").read_bytes(), key, "localhost")
            first = served.children()["search"]
            os.kill(first, signal.SIGKILL)
            for _ in range(10):
                assert client.search("night").answers == ()
            until(lambda: served.children().get("search", first) != first)
            os.kill(served.children()["search-2"], signal.SIGKILL)
            until(lambda: is_answering(client))
            assert {"search", "search-2"} <= set(served.children())
            client.close()
        finally:
            engine.dispose()
            assert served.end() == 0


def is_answering(client: Client) -> bool:
    try:
        return all(client.search("night").answers == () for _ in range(4))
    except SearchAway:
        return False


def test_no_part_outlives_a_killed_parent(mortal: Served) -> None:
    children = mortal.children()
    assert children
    mortal.process.kill()
    mortal.process.wait()
    until(lambda: all(is_gone(pid) for pid in children.values()))


def test_a_database_whose_keeper_is_killed_comes_back(open_folder: Path, tmp_path: Path) -> None:
    folder = open_folder / "keeper"
    folder.mkdir()
    served = Served(folder, None, absent=OTHERS)
    try:
        (keeper,) = [pid for pid in served.offspring() if "cloud.postgres" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(keeper, signal.SIGKILL)
        until(lambda: "database_mended" in served.log())
        until(lambda: is_serving(served))
    finally:
        assert served.end() == 0
    assert not (folder / "postgres" / "data" / "postmaster.pid").exists()


def test_a_cloud_that_is_asked_to_end_leaves_no_process_and_no_target(mortal: Served) -> None:
    children = mortal.children()
    assert mortal.end() == 0
    assert all(is_gone(pid) for pid in children.values())
    assert json.loads((mortal.data / "metrics.json").read_text()) == []


def test_a_second_cloud_in_one_folder_is_refused(served: Served) -> None:
    done = command("cloud", "serve", "--data", served.data, "--database", "postgresql://x@/none", check=False)
    assert done.returncode == 2 and "another server uses" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "nothing"), "expected --only with some of ingest, search"),
        (("--only", "ingest,oops"), "got 'oops'"),
        (("--search-port", "7445,7445"), "expected --search-port with ports, each of them once, got '7445,7445'"),
        (("--search-port", "7445,x"), "expected --search-port with ports, each of them once, got '7445,x'"),
        (("--search-port", "70000"), "expected --search-port with ports"),
        (("--only", "ingest"), "roadfuse cloud ca init"),
        ((), "roadfuse cloud ca init"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_2(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = command("cloud", "serve", "--data", tmp_path, *words, check=False)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
