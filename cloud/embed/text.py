"""Text into the shared space: pieces, then the tower, one sentence at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.embed.lowering import PLACES, session, text_graph
from cloud.embed.towers import Towers


class TextTower:
    """The text tower of a space; not to be called by two threads at once."""

    def __init__(self, towers: Towers, threads: int = 1) -> None:
        graph, self._places = text_graph(towers.text)
        self._session = session("text tower", graph, threads)
        self._vocabulary = towers.vocabulary

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) float32 of unit length."""
        return np.concatenate([self._one(self._vocabulary.pieces(text) or [0]) for text in texts])

    def _one(self, pieces: list[int]) -> NDArray[np.float32]:
        feed = {"tokens": np.array([pieces], np.int64), PLACES: self._places[: len(pieces)]}
        (found,) = self._session.run(None, feed)
        vector: NDArray[np.float32] = found
        return vector
