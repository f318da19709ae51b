"""The Search service as a process: TLS, keys, pages, hostile callers, a database that dies."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from cloud import certificates, keys
from cloud.database import connect, migrate
from cloud.embed.gateway import Gateway
from cloud.embed.item import Vector
from cloud.embed.wire import answer_of, item_message
from cloud.errors import CloudError, QueryError, Refused
from cloud.postgres import Postgres
from cloud.search.client import Client
from cloud.search.predicate import Has, Not
from cloud.search.server import CALLS_OF_CONNECTION
from cloud.settings import Settings
from roadfuse.v1 import embed_pb2, embed_pb2_grpc, search_pb2, search_pb2_grpc

from ..fleet import Status, fresh_database, refused
from .scenes import Vehicle, search_by

PROGRAM = (
    "import sys, logging; from pathlib import Path; from cloud.settings import Settings\n"
    "logging.basicConfig(level=logging.INFO)\n"
    "from cloud.search.server import serve\n"
    "serve(Settings(Path(sys.argv[1]), sys.argv[2], search_ports=(0,)), lambda line: print(line, flush=True))"
)


class Service:
    """A process, and a folder with a certificate."""

    def __init__(self, data: Path, database: str) -> None:
        self.data, self.database = data, database
        certificates.create(data / "ca")
        certificates.issue_server(data / "ca", ["localhost", "127.0.0.1"])
        self.engine = connect(database)
        migrate(self.engine)
        with self.engine.begin() as connection:
            self.key = keys.create(connection, "tests")

    def start(self) -> None:
        """Wait until it answers."""
        with (self.data / "stderr").open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(self.data), self.database],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("search "), (self.data / "stderr").read_text()[-2000:]
        self.port = int(line.rpartition(":")[2])
        credentials = grpc.ssl_channel_credentials((self.data / "ca" / "ca.pem").read_bytes())
        self.channel = grpc.secure_channel(f"127.0.0.1:{self.port}", credentials)
        self.stub = search_pb2_grpc.SearchStub(self.channel)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.engine.dispose()

    def client(self, key: str | None = None) -> Client:
        """One with the tests' key."""
        ca = (self.data / "ca" / "ca.pem").read_bytes()
        return Client(f"127.0.0.1:{self.port}", ca, self.key if key is None else key)

    def call(self, request: search_pb2.SearchRequest, method: str = "Search", key: str | None = None) -> Any:
        """The raw call."""
        metadata = (("authorization", f"Bearer {self.key if key is None else key}"),)
        return getattr(self.stub, method)(request, timeout=30, metadata=metadata)


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """It comes to hold."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never held"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def space() -> str:
    return Gateway().space


@pytest.fixture(scope="module")
def service(postgres: str, space: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Fifty scenes, each fifth with a siren, in the encoders' space."""
    with fresh_database(postgres) as url:
        made = Service(tmp_path_factory.mktemp("search"), url)
        with made.engine.begin() as connection:
            vehicle = Vehicle(connection, "car-1")
            for seed in range(1, 51):
                sounds = [{"name": "siren", "probability": 0.9}] if seed % 5 == 0 else []
                vehicle.tell(connection, seed, bundle_id=space, sound_events=sounds)
        search_by(made.engine, space, "")
        made.start()
        eventually(lambda: made.client().search(predicate=Has("sound:siren")).matching == 10)
        yield made
        assert made.stop() == 0


def test_a_text_finds_over_the_wire_and_pages_go_on(service: Service) -> None:
    client = service.client()
    first = client.search("a siren", limit=4)
    assert first.matching == 10 and first.query.predicate == Has("sound:siren")
    assert all(answer.labels["sound:siren"] > 0.8 and 0.0 <= answer.confidence <= 1.0 for answer in first.answers)
    seen = [answer.scene_id for answer in first.answers]
    page = first
    while page.cursor:
        page = client.search("a siren", limit=4, cursor=page.cursor)
        seen += [answer.scene_id for answer in page.answers]
    assert sorted(seen) == list(range(5, 51, 5))


def test_the_tree_that_was_understood_can_be_edited_and_sent_back(service: Service) -> None:
    said = service.call(search_pb2.UnderstandRequest(text="no siren"), "Understand")
    assert said.condition.none_of.label.label == "sound:siren" and said.residual == ""
    query = search_pb2.SearchQuery(condition=said.condition)
    assert service.call(search_pb2.SearchRequest(query=query)).matching == 40
    assert service.client().search(predicate=Not(Has("sound:siren"))).matching == 40


def test_a_scene_told_now_is_found(service: Service, space: str) -> None:
    with service.engine.begin() as connection:
        scene = Vehicle(connection, "car-2").tell(connection, 4_711, bundle_id=space)
    example = search_pb2.SearchExample(moment=search_pb2.SearchMoment(scene_id=scene))

    def is_found() -> bool:
        with contextlib.suppress(QueryError):
            return service.client().search(examples=[example]).answers[0].scene_id == scene
        return False

    eventually(is_found)


def test_without_a_key_that_counts_nothing_is_answered(service: Service) -> None:
    with service.engine.begin() as connection:
        ended = keys.create(connection, "ended")
        keys.revoke(connection, "ended")
    for key in ("", "rf_wrong", service.key + "x", ended, "x" * 1_000):
        with refused(Status.UNAUTHENTICATED, "API key"):
            service.call(search_pb2.SearchRequest(), key=key)
    with refused(Status.UNAUTHENTICATED):
        service.stub.Statistics(search_pb2.StatisticsRequest(), timeout=30)
    with pytest.raises(CloudError, match="API key"):
        service.client("rf_wrong").search("siren")


@contextlib.contextmanager
def requests_that_never_come() -> Iterator[Callable[[], Iterator[Any]]]:
    """Within the block; one iterator a call."""
    ended = threading.Event()

    def silence() -> Iterator[Any]:
        ended.wait()
        yield from ()

    try:
        yield silence
    finally:
        ended.set()


def test_who_has_no_key_holds_no_call_open(service: Service) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(service.channel).ServerReflectionInfo
    search = service.channel.stream_unary("/roadfuse.v1.Search/Search")
    with requests_that_never_come() as silence:
        with refused(Status.UNAUTHENTICATED, "API key"):
            next(reflection(silence(), timeout=30))
        with refused(Status.UNAUTHENTICATED, "API key"):
            search(silence(), timeout=30)
    metadata = (("authorization", f"Bearer {service.key}"),)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (listed,) = reflection(asked, timeout=30, metadata=metadata)
    assert "roadfuse.v1.Search" in [one.name for one in listed.list_services_response.service]


def test_one_connection_does_not_take_all_calls(service: Service) -> None:
    credentials = grpc.ssl_channel_credentials((service.data / "ca" / "ca.pem").read_bytes())
    with (
        grpc.secure_channel(f"127.0.0.1:{service.port}", credentials) as channel,
        requests_that_never_come() as silence,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest(), timeout=30)
        held = channel.stream_unary("/grpc.health.v1.Health/Check")  # which needs no key
        calls = [held.future(silence()) for _ in range(CALLS_OF_CONNECTION)]
        with refused(Status.DEADLINE_EXCEEDED):
            health.Check(health_pb2.HealthCheckRequest(), timeout=1)
        assert service.client().search("siren").matching == 10
        for call in calls:
            call.cancel()


def test_a_revoked_key_stops_within_moments(service: Service) -> None:
    with service.engine.begin() as connection:
        key = keys.create(connection, "short-lived")
    service.call(search_pb2.SearchRequest(), key=key)
    with service.engine.begin() as connection:
        keys.revoke(connection, "short-lived")

    def is_refused() -> bool:
        try:
            service.call(search_pb2.SearchRequest(), key=key)
        except grpc.RpcError as error:
            return bool(error.code() == Status.UNAUTHENTICATED)  # type: ignore[attr-defined]
        return False

    eventually(is_refused)


def test_parts_of_the_same_cloud_need_no_key_of_their_own(service: Service) -> None:
    client = Client.inner(Settings(service.data, search_ports=(service.port,)))
    assert client.search("siren").matching == 10


def test_a_renewed_certificate_is_taken_up_and_parts_go_on_to_know_each_other(service: Service) -> None:
    settings = Settings(service.data, service.database, search_ports=(service.port,))
    with contextlib.closing(Client.inner(settings)) as before:
        certificates.issue_server(service.data / "ca", ["localhost", "127.0.0.1"])
        shown = ssl.get_server_certificate(("127.0.0.1", service.port), timeout=30)
        wanted = x509.load_pem_x509_certificate((service.data / "ca" / "server.pem").read_bytes())
        assert x509.load_pem_x509_certificate(shown.encode()) == wanted
        with contextlib.closing(Client.inner(settings)) as after:
            assert before.search("siren").matching == after.search("siren").matching == 10


def test_a_caller_without_tls_is_not_answered(service: Service) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            search_pb2_grpc.SearchStub(channel).Search(search_pb2.SearchRequest(), timeout=5)
        assert refusal.value.code() in (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)  # type: ignore[attr-defined]


def _nested(depth: int) -> search_pb2.SearchCondition:
    made = search_pb2.SearchCondition(label=search_pb2.SearchLabel(label="sound:siren", least=0.5))
    for _ in range(depth):
        made = search_pb2.SearchCondition(none_of=made)
    return made


def _label(label: str, least: float = 0.5) -> search_pb2.SearchCondition:
    return search_pb2.SearchCondition(label=search_pb2.SearchLabel(label=label, least=least))


def _query(**said: Any) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(query=search_pb2.SearchQuery(**said))


def _vector(values: list[float], space: str, weight: float = 1.0) -> search_pb2.SearchRequest:
    vector = search_pb2.SearchVector(values=values, space=space)
    return _query(examples=[search_pb2.SearchExample(vector=vector, weight=weight)])


def test_hostile_queries_are_refused_with_a_clear_status(service: Service, space: str) -> None:
    wide = search_pb2.SearchCondition(
        any_of=search_pb2.SearchConditions(conditions=[_label("sound:siren") for _ in range(300)])
    )
    nan = float("nan")
    hostile = {
        "deep": (_query(condition=_nested(20)), ["deep"]),
        "wide": (_query(condition=wide), ["conditions"]),
        "huge text": (_query(text="night " * 1_000), ["1000 characters"]),
        "control signs": (_query(text="night\x00siren"), ["control"]),
        "empty condition": (_query(condition=search_pb2.SearchCondition()), ["condition"]),
        "probability": (_query(condition=_label("sound:siren", nan)), ["least"]),
        "probability above 1": (_query(condition=_label("sound:siren", 2.0)), ["least"]),
        "label": (_query(condition=_label("x" * 1_000)), ["has"]),
        "field": (
            _query(condition=search_pb2.SearchCondition(range=search_pb2.SearchRange(field="1; DROP TABLE scenes"))),
            ["field"],
        ),
        "place": (
            _query(condition=search_pb2.SearchCondition(place=search_pb2.SearchPlace(latitude_deg=1e9))),
            ["latitude"],
        ),
        "NaN vector": (_vector([nan] * 192, space), ["finite"]),
        "zero vector": (_vector([0.0] * 192, space), ["finite"]),
        "short vector": (_vector([1.0] * 3, space), ["192"]),
        "long vector": (_vector([1.0] * 100_000, space), ["192"]),
        "foreign vector": (_vector([1.0] * 192, "f" * 64), ["space"]),
        "weight": (_vector([1.0] * 192, space, weight=float("inf")), ["weight"]),
        "empty example": (_query(examples=[search_pb2.SearchExample()]), ["example"]),
        "many examples": (_query(examples=[search_pb2.SearchExample()] * 65), ["64"]),
        "no scene": (
            _query(examples=[search_pb2.SearchExample(moment=search_pb2.SearchMoment(scene_id=10**12))]),
            ["scene"],
        ),
        "no picture": (_query(examples=[search_pb2.SearchExample(image=b"GIF89a" + b"\0" * 64)]), ["picture"]),
        "limit": (search_pb2.SearchRequest(limit=1_000_000), ["limit"]),
        "cursor": (search_pb2.SearchRequest(cursor="../../etc/passwd"), ["cursor"]),
        "made-up cursor": (
            search_pb2.SearchRequest(cursor=base64.urlsafe_b64encode(b"\x01" * 43).decode()),
            ["cursor"],
        ),
    }
    for name, (request, words) in hostile.items():
        try:
            with refused(Status.INVALID_ARGUMENT, *words):
                service.call(request)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    assert service.client().search("siren").matching == 10


def test_sql_in_texts_is_text(service: Service) -> None:
    for said in ("'; DROP TABLE scenes; --", "siren' OR '1'='1", "vehicle:car-1';--", "\\x00 %s %(x)s :id {}"):
        service.client().search(said)
    with service.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM scenes")).scalar_one() >= 50


def test_malformed_bytes_are_refused(service: Service) -> None:
    call = service.channel.unary_unary("/roadfuse.v1.Search/Search")
    metadata = (("authorization", f"Bearer {service.key}"),)
    random = np.random.default_rng(3)
    answered = 0
    for _ in range(200):
        try:
            call(random.bytes(int(random.integers(1, 60))), timeout=10, metadata=metadata)
            answered += 1  # some bytes are a message
        except grpc.RpcError as error:
            assert error.code() == Status.INVALID_ARGUMENT, error.details()  # type: ignore[attr-defined]
    assert answered < 200
    # Nested deeper than protobuf itself goes.
    deep = b""
    for _ in range(500):
        length = len(deep)
        size = bytes([length & 127 | 128, length >> 7]) if length > 127 else bytes([length])
        deep = b"\x1a" + size + deep
    with refused(Status.INVALID_ARGUMENT):
        call(b"\x0a\x80\x10" + (b"\x12" + deep)[:2_048].ljust(2_048, b"\0"), timeout=10, metadata=metadata)


def test_a_batch_tells_each_failure_beside_the_answers(service: Service) -> None:
    queries = [
        search_pb2.SearchQuery(text="siren"),
        search_pb2.SearchQuery(text="x" * 2_000),
        search_pb2.SearchQuery(examples=[search_pb2.SearchExample()]),
        search_pb2.SearchQuery(text="no siren"),
    ]
    requests = [search_pb2.SearchRequest(query=query, limit=3) for query in queries]
    found = service.call(search_pb2.SearchBatchRequest(requests=requests), "SearchBatch").outcomes
    assert [outcome.WhichOneof("outcome") for outcome in found] == ["response", "failure", "failure", "response"]
    assert found[0].response.matching == 10 and found[3].response.matching >= 40
    assert found[1].failure.code == Status.INVALID_ARGUMENT.value[0]
    with refused(Status.INVALID_ARGUMENT, "1024"):
        service.call(search_pb2.SearchBatchRequest(), "SearchBatch")


def test_health_and_statistics_say_what_is_there(service: Service) -> None:
    health = health_pb2_grpc.HealthStub(service.channel)
    asked = [health_pb2.HealthCheckRequest(service=name) for name in ("", "roadfuse.v1.Search", "roadfuse.v1.Embed")]

    def is_told() -> bool:  # a tenth of a second after the first answer
        return {health.Check(one, timeout=10).status for one in asked} == {health_pb2.HealthCheckResponse.SERVING}

    eventually(is_told)
    said = service.call(search_pb2.StatisticsRequest(), "Statistics")
    assert said.scenes >= 50 and said.moments >= 50


def test_the_command_asks_a_server_or_looks_for_itself(service: Service, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ROADFUSE_API_KEY", service.key)
    at = ("--cloud", f"127.0.0.1:{service.port}", "--ca", str(service.data / "ca" / "ca.pem"))
    tree = tmp_path / "tree.json"
    tree.write_text('{"and": [{"has": "sound:siren"}, {"field": "vehicle", "in": ["car-1"]}]}')
    asked = _command("siren", "--where", "vehicle:car-1", "--json", *at)
    looked = _command("--json-predicate", tree, "--json", "--data", service.data, "--database", service.database)
    for done in (asked, looked):
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["matching"] == 10 and {"has": "sound:siren", "least": 0.5} in said["predicate"]["and"]
    told = _command("siren", "--limit", "3", *at)
    assert "10 fit the conditions" in told.stdout and "--cursor" in told.stdout
    for words in (("x" * 2_000, *at), ("--where", "elephants", *at), ("siren",), ("--image", "/nowhere", *at)):
        done = _command(*words)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr


def _command(*words: object) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; from cloud.search.command import main; from edge.errors import RoadfuseError\n"
        "try: sys.exit(main(sys.argv[1:]))\n"
        "except RoadfuseError as error: print(error, file=sys.stderr); sys.exit(2)"
    )
    argv = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def test_search_lives_through_a_database_that_is_killed(open_folder: Path, space: str, tmp_path: Path) -> None:
    folder = open_folder / "killed"
    with contextlib.ExitStack() as stack:
        service = Service(tmp_path, stack.enter_context(Postgres(folder)).url)
        with service.engine.begin() as connection:
            vehicle = Vehicle(connection, "car-1")
            for seed in range(1, 6):
                vehicle.tell(connection, seed, bundle_id=space)
        service.start()
        stack.callback(service.stop)
        client = service.client()
        eventually(lambda: client.search().matching == 5)
        kill(folder)
        for _ in range(10):
            assert client.search().matching == 5, "what is in memory is found without the database"
            time.sleep(0.1)
        service.engine.dispose()

        def is_told() -> bool:
            """Its keeper starts it again."""
            with contextlib.suppress(OperationalError), service.engine.begin() as connection:
                vehicle.tell(connection, 6, bundle_id=space)
                return True
            return False

        eventually(is_told)
        eventually(lambda: client.search().matching == 6)


def kill(folder: Path) -> None:
    """SIGKILL to the database's first process; its children follow."""
    pid = int(next(folder.rglob("postmaster.pid")).read_text().splitlines()[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_a_flood_of_calls_is_answered_or_refused_clearly(service: Service) -> None:
    request = search_pb2.SearchRequest(query=search_pb2.SearchQuery(text="night, siren"), limit=1)
    metadata = (("authorization", f"Bearer {service.key}"),)
    calls = [service.stub.Search.future(request, timeout=60, metadata=metadata) for _ in range(2_000)]
    codes = {call.code() for call in calls}
    assert codes <= {Status.OK, Status.RESOURCE_EXHAUSTED}
    assert Status.OK in codes


def test_a_batch_takes_the_room_of_all_its_queries(service: Service) -> None:
    one = search_pb2.SearchRequest(query=search_pb2.SearchQuery(text="night, siren"), limit=1)
    batch = search_pb2.SearchBatchRequest(requests=[one] * 1_024)
    metadata = (("authorization", f"Bearer {service.key}"),)
    calls = [service.stub.SearchBatch.future(batch, timeout=60, metadata=metadata) for _ in range(4)]
    assert {call.code() for call in calls} == {Status.OK, Status.RESOURCE_EXHAUSTED}
    assert service.call(one).path == "filtered"  # all of it is given back


def test_encoders_are_asked_where_the_environment_says(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADFUSE_ENCODERS", "audio=127.0.0.1:9")  # nobody listens there
    with fresh_database(postgres) as url:
        made = Service(tmp_path, url)
        made.start()
        try:
            items = [item_message("text", b"night"), item_message("audio", b"no sound"), item_message("image", b"none")]
            call = embed_pb2_grpc.EmbedStub(made.channel).Embed
            metadata = (("authorization", f"Bearer {made.key}"),)
            found, *others = call(embed_pb2.EmbedRequest(items=items), timeout=30, metadata=metadata).answers
        finally:
            assert made.stop() == 0
    assert isinstance(answer_of(found), Vector)
    statuses = [error.status for error in map(answer_of, others) if isinstance(error, Refused)]
    assert statuses == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT]
