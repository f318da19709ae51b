"""Pieces: the same text, the same pieces; nothing is lost; what is learned does not depend on order."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from export.model.tokens import TOKENS, Vocabulary, learn

TEXTS = ["Am Tag bei Regen steht das Auto.", "By day in the rain, the car stands still.", "la señal indica stop"] * 4
WORDS = learn(TEXTS, 330)


def test_learning_does_not_depend_on_the_order_of_texts() -> None:
    shuffled = list(TEXTS)
    random.Random(3).shuffle(shuffled)
    assert learn(shuffled, 330).merges == WORDS.merges


def test_a_known_text_takes_fewer_pieces_than_bytes() -> None:
    assert np.count_nonzero(WORDS.encode(TEXTS[0])) < 0.6 * len(TEXTS[0])


@given(st.text(min_size=1, max_size=20))
def test_no_text_loses_a_byte(text: str) -> None:
    words = "".join(text.lower().replace(".", " . ").replace(",", " , ").replace(";", " ; ").split())
    assert "".join(WORDS.decode(WORDS.encode(text)).split()) == "".join(words.split())


def test_a_long_text_is_cut_and_a_short_one_padded() -> None:
    assert WORDS.encode("straße " * 200).shape == (TOKENS,)
    assert WORDS.encode("car")[-1] == 0


def test_a_saved_vocabulary_reads_the_same(tmp_path: Path) -> None:
    WORDS.save(tmp_path / "words.json")
    assert Vocabulary.open(tmp_path / "words.json").merges == WORDS.merges


@pytest.mark.parametrize("content", ["", "{}", '{"merges": [[999, 1]]}', '{"merges": [[1]]}'])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(ConfigError, match="expected"):
        Vocabulary.open(tmp_path / "words.json")
