"""The client, against servers that answer when they are let: who goes together, who goes elsewhere, who is let down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud import certificates
from cloud.errors import CloudError, QueryError
from cloud.search.client import TOGETHER, Client, SearchAway
from roadfuse.v1 import search_pb2, search_pb2_grpc

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


class Process(search_pb2_grpc.SearchServicer):
    """Answers each query with its own words, once it is let."""

    def __init__(self, folder: Path) -> None:
        self.batches: list[list[str]] = []
        self.is_let = threading.Event()
        self.is_let.set()
        self.refused: dict[str, int] = {}
        self.forgets = 0
        key_pair = certificates.server_files(folder / "ca")
        self.server = grpc.server(futures.ThreadPoolExecutor(16))
        search_pb2_grpc.add_SearchServicer_to_server(self, self.server)
        self.port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([key_pair]))
        self.server.start()

    def SearchBatch(self, request: Any, context: Any) -> search_pb2.SearchBatchResponse:
        texts = [each.query.text for each in request.requests]
        self.batches.append(texts)
        assert self.is_let.wait(20)
        outcomes = [self._outcome(text) for text in texts]
        return search_pb2.SearchBatchResponse(outcomes=outcomes[: len(outcomes) - self.forgets])

    def _outcome(self, text: str) -> search_pb2.SearchOutcome:
        if text in self.refused:
            failure = search_pb2.SearchFailure(code=self.refused[text], message=f"not {text}")
            return search_pb2.SearchOutcome(failure=failure)
        condition = search_pb2.SearchCondition(all_of=search_pb2.SearchConditions())
        return search_pb2.SearchOutcome(response=search_pb2.SearchResponse(notes=[text], condition=condition))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("client")
    certificates.create(made / "ca")
    certificates.issue_server(made / "ca", ["127.0.0.1"])
    return made


@pytest.fixture
def processes(folder: Path) -> Iterator[list[Process]]:
    made = [Process(folder), Process(folder)]
    yield made
    for one in made:
        one.is_let.set()
        one.server.stop(None)


def client_of(folder: Path, *processes: Process) -> Client:
    addresses = ",".join(f"127.0.0.1:{one.port}" for one in processes)
    return Client(addresses, (folder / "ca" / "ca.pem").read_bytes(), "key")


@pytest.fixture
def client(folder: Path, processes: list[Process]) -> Iterator[Client]:
    """Of the first process alone."""
    made = client_of(folder, processes[0])
    yield made
    made.close()


@pytest.fixture
def client_of_both(folder: Path, processes: list[Process]) -> Iterator[Client]:
    made = client_of(folder, *processes)
    yield made
    made.close()


def said(text: str) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(query=search_pb2.SearchQuery(text=text))


def pages(asked: list[Any]) -> list[str]:
    return [page.result(20).notes[0] for page in asked]


def until(holds: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(2_000):
        if holds():
            return
        waiting.wait(0.01)
    raise AssertionError("it never held")


def test_a_query_alone_leaves_at_once(processes: list[Process], client: Client) -> None:
    assert client.search("siren").notes == ("siren",)
    assert processes[0].batches == [["siren"]]


def test_what_comes_while_a_call_is_under_way_goes_together(processes: list[Process], client: Client) -> None:
    process = processes[0]
    process.is_let.clear()
    texts = [f"query {i}" for i in range(1 + TOGETHER + 3)]
    first = client.ask(said(texts[0]))
    until(lambda: len(process.batches) == 1)
    asked = [first, *(client.ask(said(text)) for text in texts[1:])]
    process.is_let.set()
    assert pages(asked) == texts
    assert list(map(len, process.batches)) == [1, TOGETHER, 3]


def test_a_process_that_is_idle_is_asked_at_once(processes: list[Process], client_of_both: Client) -> None:
    for one in processes:
        one.is_let.clear()
    asked = [client_of_both.ask(said("first"))]
    until(lambda: sum(len(one.batches) for one in processes) == 1)
    asked.append(client_of_both.ask(said("second")))
    until(lambda: sum(len(one.batches) for one in processes) == 2)
    for one in processes:
        one.is_let.set()
    assert pages(asked) == ["first", "second"] and all(len(one.batches) == 1 for one in processes)


def test_each_of_many_threads_gets_its_own_page(client_of_both: Client) -> None:
    texts = [f"query {i}" for i in range(300)]
    with futures.ThreadPoolExecutor(32) as threads:
        assert [page.notes[0] for page in threads.map(client_of_both.search, texts)] == texts


@pytest.mark.parametrize("more", [{"explain": True}, {"examples": [search_pb2.SearchExample(image=b"a picture")]}])
def test_what_takes_longer_goes_alone(more: dict[str, Any], processes: list[Process], client: Client) -> None:
    process = processes[0]
    process.is_let.clear()
    asked = client.ask(said("words"))
    with futures.ThreadPoolExecutor(1) as threads:
        longer = threads.submit(client.search, "longer", **more)
        until(lambda: ["longer"] in process.batches)
        process.is_let.set()
        assert longer.result(20).notes == ("longer",) and pages([asked]) == ["words"]


def test_what_goes_alone_goes_to_the_process_with_the_least_to_do(
    processes: list[Process], client_of_both: Client
) -> None:
    for one in processes:
        one.is_let.clear()
    with futures.ThreadPoolExecutor(1) as threads:
        longer = threads.submit(client_of_both.search, "longer", explain=True)
        until(lambda: any(one.batches for one in processes))
        busy, idle = processes if processes[0].batches else reversed(processes)
        idle.is_let.set()
        for _ in range(3):
            assert client_of_both.search("quick", explain=True).notes == ("quick",)
        busy.is_let.set()
        assert longer.result(20).notes == ("longer",) and busy.batches == [["longer"]]


def test_who_went_away_is_not_asked_for(processes: list[Process], client: Client) -> None:
    process = processes[0]
    process.is_let.clear()
    first = client.ask(said("first"))
    until(lambda: len(process.batches) == 1)
    gone, last = client.ask(said("gone")), client.ask(said("last"))
    assert gone.cancel()
    process.is_let.set()
    assert pages([first, last]) == ["first", "last"] and process.batches == [["first"], ["last"]]


def test_more_than_can_wait_are_refused_at_once(
    processes: list[Process], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.search.client.WAITING", 3)
    processes[0].is_let.clear()
    first = client.ask(said("first"))
    until(lambda: len(processes[0].batches) == 1)
    asked = [client.ask(said(f"query {i}")) for i in range(3)]
    with pytest.raises(SearchAway, match="to wait"):
        client.ask(said("one more")).result(0)
    processes[0].is_let.set()
    assert pages([first, *asked]) == ["first", *(f"query {i}" for i in range(3))]


def test_each_failure_is_its_querys_own(processes: list[Process], client: Client) -> None:
    process = processes[0]
    process.refused = {"wrong": grpc.StatusCode.INVALID_ARGUMENT.value[0], "late": UNAVAILABLE, "odd": 99}
    process.is_let.clear()
    first = client.ask(said("first"))
    until(lambda: len(process.batches) == 1)
    good, *bad = [client.ask(said(text)) for text in ("good", "wrong", "late", "odd")]
    process.is_let.set()
    assert pages([first, good]) == ["first", "good"] and len(process.batches) == 2
    for page, kind in zip(bad, (QueryError, SearchAway, SearchAway), strict=True):
        with pytest.raises(kind, match="not "):
            page.result(20)


def test_what_is_unavailable_is_asked_for_elsewhere(processes: list[Process], client_of_both: Client) -> None:
    one, other = processes
    one.refused = {f"query {i}": UNAVAILABLE for i in range(8)}
    texts = [f"query {i}" for i in range(8)]
    assert pages([client_of_both.ask(said(text)) for text in texts]) == texts
    one.server.stop(None).wait()
    assert pages([client_of_both.ask(said(text)) for text in texts]) == texts
    other.server.stop(None).wait()
    for asked in [client_of_both.ask(said(text)) for text in texts]:
        with pytest.raises(SearchAway):
            asked.result(20)


def test_too_few_answers_are_none(processes: list[Process], client: Client) -> None:
    processes[0].forgets = 1
    with pytest.raises(SearchAway, match="expected 1 answers"):
        client.search("siren")


def test_nobody_waits_for_a_client_that_was_closed(processes: list[Process], client: Client) -> None:
    processes[0].is_let.clear()
    asked = [client.ask(said(f"query {i}")) for i in range(2 * TOGETHER + 3)]
    client.close()
    asked.append(client.ask(said("late")))
    for page in asked:
        with pytest.raises(CloudError):
            page.result(20)
    for explain in (False, True):
        with pytest.raises(SearchAway):
            client.search("siren", explain=explain)
