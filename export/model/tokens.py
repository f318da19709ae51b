"""Byte-pair pieces for captions, learned from captions: deterministic, and without a byte that it could not write.

Text is lower-cased, split into words; a word is its UTF-8 bytes with a mark in front. Piece 0 is padding, 1..256 are
the bytes, 257 the mark, further ones merges in the order in which they were learned.
Ref: Sennrich et al., arXiv 1508.07909.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError

PIECES = 768
TOKENS = 96  # of a text; what is beyond is cut
MARK = 257
_BYTES = 258  # pieces that need no merge


class Vocabulary:
    """Merges, and text into pieces by them.

    Args:
        merges: pairs of pieces, the first one being piece 258.
    """

    def __init__(self, merges: list[tuple[int, int]]) -> None:
        self.merges = merges
        self._rank = {pair: _BYTES + i for i, pair in enumerate(merges)}
        self._word = lru_cache(maxsize=1 << 14)(self._split)

    def encode(self, text: str) -> NDArray[np.int64]:
        """(96,) int64: pieces of the text, then 0."""
        pieces = self.pieces(text)
        row = np.zeros(TOKENS, np.int64)
        row[: len(pieces)] = pieces
        return row

    def pieces(self, text: str) -> list[int]:
        """Pieces of the text, at most 96."""
        return [piece for word in words(text) for piece in self._word(word)][:TOKENS]

    def decode(self, pieces: Iterable[int]) -> str:
        """The text of pieces; bytes that are no UTF-8 become the replacement sign."""
        raw = b"".join(self._bytes(int(piece)) for piece in pieces if piece > 0)
        return raw.decode("utf-8", "replace").strip()

    def save(self, path: Path) -> None:
        """Writes the merges as JSON."""
        path.write_text(json.dumps({"pieces": _BYTES + len(self.merges), "merges": self.merges}) + "\n")

    @staticmethod
    def open(path: Path) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            ConfigError: not such a file.
        """
        try:
            merges = [(int(a), int(b)) for a, b in json.loads(path.read_text())["merges"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}: expected a vocabulary with merges, got {error}") from None
        if any(not 0 < piece < _BYTES + i for i, pair in enumerate(merges) for piece in pair):
            raise ConfigError(f"{path}: expected merges of earlier pieces, got one of a later piece")
        return Vocabulary(merges)

    def _split(self, word: str) -> tuple[int, ...]:
        pieces = [MARK, *(byte + 1 for byte in word.encode())]
        while len(pieces) > 1:
            ranks = [self._rank.get(pair, PIECES) for pair in itertools.pairwise(pieces)]
            best = min(ranks)
            if best == PIECES:
                break
            at = ranks.index(best)
            pieces[at : at + 2] = [best]
        return tuple(pieces)

    def _bytes(self, piece: int) -> bytes:
        if piece <= 256:
            return bytes([piece - 1])
        if piece == MARK:
            return b" "
        first, second = self.merges[piece - _BYTES]
        return self._bytes(first) + self._bytes(second)


def learn(texts: Iterable[str], pieces: int = PIECES) -> Vocabulary:
    """The most frequent pair of neighbours becomes a piece, again and again; of equals the smaller pair."""
    counts = Counter(word for text in texts for word in words(text))
    splits = {word: [MARK, *(byte + 1 for byte in word.encode())] for word in sorted(counts)}
    merges: list[tuple[int, int]] = []
    while _BYTES + len(merges) < pieces:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, split in splits.items():
            for pair in itertools.pairwise(split):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for split in splits.values():
            _merge(split, best, _BYTES + len(merges) - 1)
    return Vocabulary(merges)


def words(text: str) -> list[str]:
    """Lower-case words; a full stop, comma or semicolon is a word of its own."""
    for sign in ".,;":
        text = text.replace(sign, f" {sign} ")
    return text.lower().split()


def _merge(split: list[int], pair: tuple[int, int], piece: int) -> None:
    at = 0
    while at < len(split) - 1:
        if (split[at], split[at + 1]) == pair:
            split[at : at + 2] = [piece]
        at += 1
