"""Neighbours among many rows: a faiss index of inverted lists, built beside the gallery, and never trusted blindly.

Its codes are four bits for two dimensions each, of which a core looks through many rows at once; they are so coarse
that some hundred rows are proposed for ten answers. The gallery's own bytes rank those. It knows the rows that were
there when it was built, later ones are looked at one by one. How many lists are searched is found out after the build,
on queries that were really asked where there are some.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from cloud.search import sketch
from cloud.search.bitmaps import Words
from cloud.search.gallery import View

_LOG: Final = logging.getLogger(__name__)
# Below, looking at every row takes about a millisecond.
LEAST_ROWS: Final = 60_000
POINTS_A_LIST: Final = 48  # for training
RECALL: Final = 0.975  # that is aimed for where lists are chosen; 0.95 is promised
TUNED_BY: Final = 256  # queries
TUNED_AT: Final = 10  # neighbours
# The nearest ten are among so many that the codes put first: of a million rows with a recall of 0.99.
PROPOSED: Final = 200
PROBES: Final = (4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256)
TAIL_SHARE, TAIL_ROWS = 0.05, 20_000
# Of one search or build: the other cores answer calls. OpenMP keeps the number for each thread that asks.
THREADS: Final = 1
_BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Index:
    """Inverted lists over the first `rows` of a generation of the gallery.

    Attributes:
        lists: of faiss.
        generation: of the gallery whose rows it knows.
        rows: how many of them.
        probes: lists that are searched for one query without a filter.
        recall: measured at the build with so many.
        seconds: that the build took.
        sketch: of its rows; None: there can be none.
        moved: where its rows are now that the dead ones were left behind; None: where they were.
    """

    lists: Any
    generation: int
    rows: int
    probes: int
    recall: float
    seconds: float
    sketch: sketch.Sketch | None
    moved: NDArray[np.int64] | None = None

    def seen(self, view: View) -> Index | None:
        """This index for a view's rows; None: it knows none of them."""
        if self.generation == view.generation:
            return self
        if self.generation + 1 != view.generation or view.moved is None:
            return None
        moved = view.moved[: self.rows]
        return replace(
            self, generation=view.generation, rows=int(np.count_nonzero(moved >= 0)), sketch=None, moved=moved
        )

    def is_stale(self, view: View) -> bool:
        """Whether it is time for another."""
        tail = view.rows - self.rows
        return self.generation != view.generation or tail > max(TAIL_ROWS, TAIL_SHARE * self.rows)

    def nearest(self, queries: NDArray[np.float32], count: int, probes: int, left: Words | None) -> NDArray[np.int64]:
        """(q, count) rows, the nearest first as far as the index knows; -1 where there are no more.

        Args:
            left: the rows that may be proposed; None: all.
        """
        faiss.omp_set_num_threads(THREADS)
        parameters = {"nprobe": min(probes, self.lists.nlist)}
        if left is not None:
            bits = left.view(np.uint8)
            if self.moved is not None:
                is_left = np.unpackbits(bits, bitorder="little").view(np.bool_)
                bits = np.packbits(is_left[self.moved] & (self.moved >= 0), bitorder="little")
            parameters["sel"] = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
        _, found = self.lists.search(queries, count, params=faiss.SearchParametersIVF(**parameters))
        rows: NDArray[np.int64] = found
        return rows if self.moved is None else np.where(rows >= 0, self.moved[rows], -1)


def build(view: View, asked: NDArray[np.float32], seed: int = 0) -> Index:
    """An index of a view's living rows with vectors.

    Args:
        asked: (q, d) queries to choose the number of lists by; few: rows stand in for them.
    """
    faiss.omp_set_num_threads(THREADS)
    start = time.perf_counter()
    random = np.random.default_rng(seed)
    rows = np.flatnonzero(view.alive & (view.scales > 0))
    count = 1 << max(round(np.log2(2.0 * np.sqrt(len(rows)))), 4)
    dimensions = view.vectors.shape[1]
    quantiser = faiss.IndexFlatIP(dimensions)
    lists = _lists(quantiser, dimensions, count)
    lists.cp.niter, lists.cp.seed, lists.cp.max_points_per_centroid = 8, seed + 1, POINTS_A_LIST
    lists.cp.spherical = True
    some = np.sort(random.choice(rows, min(len(rows), POINTS_A_LIST * count), replace=False))
    lists.train(view.floats(some))
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        lists.add_with_ids(view.floats(block), block)
    index = Index(lists, view.generation, view.rows, PROBES[-1], 0.0, 0.0, sketch.made(view, rows, random))
    probes, recall = _tuned(index, view, rows, asked, random)
    seconds = time.perf_counter() - start
    _LOG.info(
        "index_built rows=%d lists=%d probes=%d recall=%.4f seconds=%.1f", len(rows), count, probes, recall, seconds
    )
    return replace(index, probes=probes, recall=recall, seconds=seconds)


def _lists(quantiser: Any, dimensions: int, count: int) -> Any:
    if dimensions % 2:
        exact = faiss.ScalarQuantizer.QT_8bit
        return faiss.IndexIVFScalarQuantizer(quantiser, dimensions, count, exact, faiss.METRIC_INNER_PRODUCT, False)
    made = faiss.IndexIVFPQFastScan(quantiser, dimensions, count, dimensions // 2, 4, faiss.METRIC_INNER_PRODUCT)
    made.by_residual = False  # one table of products a query, whatever the list
    return made


def _tuned(
    index: Index, view: View, rows: NDArray[np.intp], asked: NDArray[np.float32], random: np.random.Generator
) -> tuple[int, float]:
    """The fewest lists with which the nearest are found, and how many of them are."""
    if len(asked) < TUNED_BY // 4:
        asked = view.floats(random.choice(rows, TUNED_BY))
        asked = asked + random.normal(0.0, 0.5 / np.sqrt(asked.shape[1]), asked.shape).astype(np.float32)
    asked = np.ascontiguousarray(asked[-TUNED_BY:])
    exact = _exact(view, rows, asked)
    recall = 0.0
    for probes in PROBES:
        found = index.nearest(asked, PROPOSED, probes, None)
        hits = [len(np.intersect1d(*pair)) for pair in zip(exact, found, strict=True)]
        recall = float(np.mean(hits)) / TUNED_AT
        if recall >= RECALL:
            return probes, recall
    return PROBES[-1], recall


def _exact(view: View, rows: NDArray[np.intp], asked: NDArray[np.float32]) -> NDArray[np.int64]:
    best = faiss.ResultHeap(len(asked), TUNED_AT, keep_max=True)
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        scores, found = faiss.knn(asked, view.floats(block), TUNED_AT, metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, block[found])
    best.finalize()
    nearest: NDArray[np.int64] = best.I
    return nearest
