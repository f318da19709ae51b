"""The text tower for any length, in integers, says what the tower as it was trained says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.embed.encoders import Encoders
from cloud.embed.item import Vector
from cloud.embed.lowering import session, text_graph, video_graph
from cloud.embed.text import TextTower
from cloud.errors import ModelError, Refused

SENTENCES = [
    "night",
    "night, siren from behind, pedestrian waits",
    "Nacht, Sirene von hinten, ein Fußgänger wartet.",
    "雪の夜、トンネル",
    "a" * 300,
    "rain " * 200,
]
words = st.lists(st.sampled_from(["night", "rain", "siren", "Straße", "behind", ",", "x" * 40, "雪"]), min_size=1)


@pytest.fixture(scope="module")
def original(encoders: Encoders):
    """One sentence at a time, padded to 96 pieces, through the file as it is."""
    tower, vocabulary = session("text", encoders.towers.text, 1), encoders.towers.vocabulary
    return lambda text: tower.run(None, {"tokens": vocabulary.encode(text)[None]})[0][0]


def test_the_tower_for_any_length_says_what_the_file_says(encoders: Encoders, original) -> None:
    found = TextTower(encoders.towers).encode(SENTENCES)
    assert found.shape == (len(SENTENCES), 192)
    cosines = (found * np.stack([original(text) for text in SENTENCES])).sum(1)
    assert cosines.min() > 0.9995, cosines


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words.map(" ".join), min_size=1, max_size=9))
def test_what_a_sentence_gets_does_not_depend_on_its_company(encoders: Encoders, original, texts: list[str]) -> None:
    """Not by a bit: a page is continued by the scores of the one before."""
    together = encoders.encode("text", [text.encode() for text in texts])
    assert len(together) == len(texts)
    for text, answer in zip(texts, together):
        (alone,) = encoders.encode("text", [text.encode()])
        assert isinstance(answer, Vector) and isinstance(alone, Vector) and answer.values == alone.values
        assert float(answer.array @ original(text)) > 0.9995


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected words"),
        (b" \n\t", "expected words"),
        (b"\xff\xfe", "expected UTF-8"),
        (b"x" * 2000, "at most 1024 bytes"),
        (b"x" * 400, "words of at most 384 bytes"),
    ],
)
def test_text_that_is_none_fails_alone(encoders: Encoders, content: bytes, said: str) -> None:
    before, answer, after = encoders.encode("text", [b"night", content, b"rain"])
    assert isinstance(before, Vector) and isinstance(after, Vector) and before.values != after.values
    assert isinstance(answer, Refused) and said in str(answer)


def test_vectors_say_where_they_belong(encoders: Encoders) -> None:
    (answer,) = encoders.encode("text", [b"night"])
    assert isinstance(answer, Vector)
    assert (answer.space, answer.model, answer.modality) == (
        encoders.towers.bundle.id,
        encoders.models["text"],
        "text",
    )
    assert abs(np.linalg.norm(answer.array) - 1) < 1e-6


def test_clips_together_are_clips_one_by_one(encoders: Encoders) -> None:
    one = session("video", encoders.towers.video, 1)
    moments = np.random.default_rng(0).normal(size=(5, 8, 192)).astype(np.float32)
    moments[1, :3] = 0.0
    expected = np.concatenate([one.run(None, {"moments": clip[None]})[0] for clip in moments])
    assert np.abs(encoders.clips(moments) - expected).max() < 1e-5


@pytest.mark.parametrize("model", [b"", b"no model", b"\x3a\x00"])
def test_a_file_that_is_no_tower_is_refused(model: bytes) -> None:
    with pytest.raises(ModelError, match="expected"):
        text_graph(model)
    with pytest.raises(ModelError, match="expected"):
        video_graph(model)


def test_a_tower_without_places_is_refused(encoders: Encoders) -> None:
    with pytest.raises(ModelError, match="table of places"):
        text_graph(encoders.towers.video)


def test_every_matrix_of_a_block_is_multiplied_in_integers(encoders: Encoders) -> None:
    graph = onnx.load_from_string(text_graph(encoders.towers.text)[0]).graph
    matrices = [node for node in graph.node if node.op_type == "MatMul"]
    assert sum(node.op_type == "DynamicQuantizeMatMul" for node in graph.node) == 8
    assert len(matrices) == 4  # of attention, whose factors both are activations
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeMatMul":
            integers = onnx.numpy_helper.to_array(weights[node.input[1]])
            assert integers.dtype == np.int8 and np.abs(integers).max() == 63
