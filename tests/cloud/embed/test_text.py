"""The text tower for any batch and length says what the tower as it was trained says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.embed.encoders import Encoders
from cloud.embed.item import Vector
from cloud.embed.lowering import session, text_graph, video_graph
from cloud.embed.text import BATCH, TextTower
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
    assert np.abs(found - np.stack([original(text) for text in SENTENCES])).max() < 1e-5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words.map(" ".join), min_size=1, max_size=2 * BATCH + 3))
def test_what_a_sentence_gets_does_not_depend_on_its_company(encoders: Encoders, original, texts: list[str]) -> None:
    together = encoders.encode("text", [text.encode() for text in texts])
    assert len(together) == len(texts)
    for text, answer in zip(texts, together):
        assert isinstance(answer, Vector)
        assert np.abs(answer.array - original(text)).max() < 1e-5


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
