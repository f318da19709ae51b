"""A network on a server by the Open Inference Protocol: the same answers as here, and no trust in others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cloud.analyst import calls
from cloud.analyst.network import AnalystNetwork
from cloud.analyst.triton import HEAD, Triton, TritonNetwork
from cloud.errors import ModelError
from export.model.analyst_outputs import BOXES, COLUMNS

from .model_server import Answer, Asked, of_json, serving

COUNT = 9
OTHERS = (of_json({}), of_json([]), Answer(b"no"), of_json({"name": "other"}), of_json({"error": "x"}, 404))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.Calls.__init__, "__defaults__", (None, 0.0))


@pytest.fixture(scope="module")
def network() -> AnalystNetwork:
    return AnalystNetwork.open()


def unit(rng: np.random.Generator, *shape: int) -> Any:
    values = rng.normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


RNG = np.random.default_rng(3)
EMBEDDINGS = unit(RNG, COUNT, 4, 192)
PRESENCE = RNG.random((COUNT, 4)) < 0.8
BOXES_SEEN = RNG.random((COUNT, *BOXES)).astype(np.float32) * PRESENCE[:, :1, None]


class Server:
    """As Triton answers: a model's metadata, and inference by the network that is here."""

    def __init__(self, network: AnalystNetwork, *, binary: bool = True) -> None:
        self._session, self._binary = network._session, binary
        self.change: Any = lambda head, tensors: None

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            return of_json({"name": "analyst", "versions": ["3"], "platform": "onnxruntime_onnx"})
        length = int(asked.headers[HEAD])
        head, at, given = json.loads(asked.body[:length]), length, {}
        for tensor in head["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            assert tensor["datatype"] == "FP32" and size == 4 * np.prod(tensor["shape"])
            given[tensor["name"]] = np.frombuffer(asked.body[at : at + size], "<f4").reshape(tensor["shape"])
            at += size
        assert at == len(asked.body)
        wanted = [output["name"] for output in head["outputs"]]
        tensors = dict(zip(wanted, self._session.run(wanted, given)))
        outputs = [{"name": n, "datatype": "FP32", "shape": list(v.shape)} for n, v in tensors.items()]
        told = {"model_name": "analyst", "model_version": "3", "outputs": outputs}
        body = b""
        for output in outputs:
            if self._binary:
                raw = tensors[output["name"]].astype("<f4").tobytes()
                output["parameters"] = {"binary_data_size": len(raw)}
                body += raw
            else:
                output["data"] = tensors[output["name"]].reshape(-1).tolist()
        self.change(told, tensors)
        text = json.dumps(told).encode()
        return Answer(text + body, headers={HEAD: str(len(text))} if self._binary else {})


@pytest.fixture
def server(network: AnalystNetwork) -> Server:
    return Server(network)


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with serving(server) as (url, _):
        yield url


@pytest.mark.parametrize("binary", [True, False])
def test_a_network_on_a_server_says_the_same(network: AnalystNetwork, binary: bool) -> None:
    here = network.look(EMBEDDINGS, PRESENCE, BOXES_SEEN)
    with serving(Server(network, binary=binary)) as (url, asked):
        remote = TritonNetwork(url, "analyst", network.space)
        there = remote.look(EMBEDDINGS, PRESENCE, BOXES_SEEN)
    assert np.abs(there.embeddings - here.embeddings).max() < 1e-6
    for ours, theirs in zip(here.labels, there.labels):
        assert ours.keys() == theirs.keys() and all(abs(ours[name] - theirs[name]) < 1e-6 for name in ours)
    assert [request.path for request in asked] == ["/v2/models/analyst", "/v2/models/analyst/infer"]
    assert remote.model != network.model, "its analyses are another model's"


def change_shape(head: Any, _: Any) -> None:
    head["outputs"][0]["shape"] = [COUNT, len(COLUMNS) - 1]


def change_type(head: Any, _: Any) -> None:
    head["outputs"][0]["datatype"] = "INT64"


def leave_out(head: Any, _: Any) -> None:
    head["outputs"].pop()


def lie_about_size(head: Any, _: Any) -> None:
    head["outputs"][0]["parameters"]["binary_data_size"] += 4


def negative_size(head: Any, _: Any) -> None:
    head["outputs"][0]["parameters"]["binary_data_size"] = -1


def huge_shape(head: Any, _: Any) -> None:
    head["outputs"][1]["shape"] = [1 << 40, 192]


@pytest.mark.parametrize("change", [change_shape, change_type, leave_out, lie_about_size, negative_size, huge_shape])
def test_an_answer_that_does_not_fit_is_refused(server: Server, url: str, change: Any) -> None:
    remote = TritonNetwork(url, "analyst", "s")
    server.change = change
    with pytest.raises(ModelError, match="triton: expected an answer") as told:
        remote.look(EMBEDDINGS, PRESENCE, BOXES_SEEN)
    assert "\n" not in str(told.value) and len(str(told.value)) < 300


@pytest.mark.parametrize("value", [np.nan, -0.5, 1.5, np.inf])
def test_what_are_no_probabilities_is_refused(network: AnalystNetwork, value: float) -> None:
    said = Server(network, binary=False)
    said.change = lambda head, _: head["outputs"][0]["data"].__setitem__(0, value)
    with serving(said) as (url, _), pytest.raises(ModelError, match="expected probabilities"):
        TritonNetwork(url, "analyst", "s").look(EMBEDDINGS, PRESENCE, BOXES_SEEN)


def test_vectors_that_are_no_unit_vectors_are_refused(network: AnalystNetwork) -> None:
    said = Server(network, binary=False)
    said.change = lambda head, _: head["outputs"][1].update(data=[3.0] * (COUNT * 192))
    with serving(said) as (url, _), pytest.raises(ModelError, match="unit length"):
        TritonNetwork(url, "analyst", "s").look(EMBEDDINGS, PRESENCE, BOXES_SEEN)


@pytest.mark.parametrize("answer", OTHERS)
def test_a_server_without_the_model_is_refused(answer: Answer) -> None:
    with serving(lambda _: answer) as (url, _), pytest.raises(ModelError):
        Triton(url, "analyst")


def test_too_many_moments_never_leave(url: str) -> None:
    remote = TritonNetwork(url, "analyst", "s")
    with pytest.raises(ModelError, match="expected 1 to 4096 moments, got 0"):
        remote.look(EMBEDDINGS[:0], PRESENCE[:0], BOXES_SEEN[:0])
