"""Text into the shared space: pieces, then the tower over many sentences at once, each batch as long as its longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.embed.lowering import PLACES, session, text_graph
from cloud.embed.towers import Towers

# Sentences of about one length that go through together: what they make fits a core's cache (docs/embed.md).
BATCH: Final = 8


class TextTower:
    """The text tower of a space; not to be called by two threads at once."""

    def __init__(self, towers: Towers, threads: int = 1) -> None:
        graph, self._places = text_graph(towers.text)
        self._session = session("text tower", graph, threads)
        self._vocabulary = towers.vocabulary

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) float32 of unit length."""
        rows = np.stack([self._vocabulary.encode(text) for text in texts])
        lengths = np.maximum((rows > 0).sum(1), 1)
        found: NDArray[np.float32] | None = None
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            length = int(lengths[some[-1]])
            feed = {"tokens": np.ascontiguousarray(rows[some, :length]), PLACES: self._places[:length]}
            (vectors,) = self._session.run(None, feed)
            if found is None:
                found = np.empty((len(rows), vectors.shape[1]), np.float32)
            found[some] = vectors
        assert found is not None
        return found
