"""Which rows have a label, a bit each: made when it is first asked for, longer when rows came.

Row r is bit r % 64 of word r // 64.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
# A million rows take 125 kB each; people ask for few bounds but 0.5, and search itself for some above and below.
MOST: Final = 512
_BITS: Final = 64


class Bitmaps:
    """Of one generation of a gallery, whose columns only grow; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int], tuple[int, Words]] = OrderedDict()  # rows, words

    def of(self, label: str, bound: int, column: NDArray[np.uint8]) -> Words:
        """The rows of a column of bytes that are not below a bound."""
        rows = len(column)
        with self._lock:
            covered, words = self._known.get((label, bound), (0, np.empty(0, np.uint64)))
            if covered < rows:
                whole = covered // _BITS  # words that will not change any more
                words = np.concatenate([words[:whole], packed(column[whole * _BITS :] >= bound)])
                self._known[label, bound] = rows, words
                if len(self._known) > MOST:
                    self._known.popitem(last=False)
            if (label, bound) in self._known:  # of no rows nothing is kept
                self._known.move_to_end((label, bound))
        return words[: -(-rows // _BITS)]


def packed(is_set: NDArray[np.bool_]) -> Words:
    """A mask of rows, a bit each; bits beyond the last row are 0."""
    some = np.packbits(is_set, bitorder="little")
    return np.pad(some, (0, -len(some) % (_BITS // 8))).view("<u8")
