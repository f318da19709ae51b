"""By which path a query is answered, and the answer: which scenes, at which moment, with which score.

    predicate      leaves      path
    -              few rows    exact          every row is ranked
    -              many        approximate    the index proposes, the gallery ranks
    some           <= EXACT    filtered       every row that matches is ranked
    some           more        approximate    the index proposes among those that match, searching more lists
    labels         any         filtered       how sure they are ranks too, and the index knows nothing of that

An answer is never short: where the index proposes too few scenes, all are ranked. Pages after an approximate one are
ranked exactly, without the scenes that it showed, so that nothing is shown twice and nothing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.search import kernel, matching
from cloud.search.bitmaps import Words, packed
from cloud.search.gallery import View
from cloud.search.index import PROPOSED, Index
from cloud.search.predicate import ANY, NUMBERS, Predicate
from cloud.search.rank import HARDNESS_WEIGHT, LABEL_WEIGHT, certainty
from cloud.search.sketch import Asked, Sketch

# Scattered rows that are ranked in about a millisecond.
EXACT_ROWS: Final = 50_000
# From this share on all rows are read in a row, which is faster than jumping from one to the next.
DENSE_SHARE: Final = 0.12
# Rows that the index proposes for each answer; its codes are coarse.
OVERSAMPLED: Final = 8
# Lists, as a multiple of those without a filter: a fifth of the rows lie in a fifth of what a list holds.
FILTERED_PROBES: Final = 6.0
MAX_PROPOSED: Final = 16_384
MAX_PROBES: Final = 1_024
# From so many rows on it pays to rule out most of them: by a sketch, and by how sure their labels are.
SKETCHED_ROWS: Final = 2_048
SURE_ROWS: Final = 4_096
# Surest rows to see by what others must reach.
SAMPLE: Final = 512
# Least probabilities of labels by which surer rows are told from others; a bitmap of each stays in memory.
SUREST: Final = (0.98, 0.9, 0.8, 0.7, 0.6)
ROUNDING: Final = 1e-4  # of scores
FIRST: Final = (float("inf"), -1)
_EMPTY: Final = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Sought:
    """A query as the gallery is asked it.

    Attributes:
        vector: (d,) float32, the weighted sum of unit vectors; None: nothing is to be alike.
        after: score and scene id of the last answer that was shown.
        shown: ids of scenes that were shown before by an approximate page.
        must_be_exact: whatever it takes.
    """

    predicate: Predicate
    vector: NDArray[np.float32] | None
    limit: int
    after: tuple[float, int] = FIRST
    shown: tuple[int, ...] = ()
    must_be_exact: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of the gallery, the best of each scene, in order.

    Attributes:
        matching: scenes that the predicate leaves; None where they were not counted.
        exact_rows: that were ranked one by one.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    path: str
    matching: int | None
    exact_rows: int
    vector: NDArray[np.float32] | None = field(default=None)


def find(view: View, index: Index | None, sought: Sequence[Sought]) -> list[Found]:
    """Answer queries; those without a filter go through the index together, as one matrix."""
    index = None if index is None else index.seen(view)
    together = [i for i, one in enumerate(sought) if index is not None and _is_plain(one)]
    found: dict[int, Found] = {}
    if together and index is not None:
        count = _proposals(max(sought[i].limit for i in together))
        queries = np.stack([np.asarray(sought[i].vector, np.float32) for i in together])
        proposed = index.nearest(queries, count, index.probes, None)
        for i, rows in zip(together, proposed, strict=True):
            found[i] = _ranked(view, sought[i], _with_tail(view, index, rows, None), "approximate", None)
            if len(found[i].rows) < sought[i].limit:
                found[i] = _alone(view, None, sought[i])
    return [found[i] if i in found else _alone(view, index, one) for i, one in enumerate(sought)]


def _proposals(limit: int) -> int:
    return max(PROPOSED, OVERSAMPLED * limit)


def _is_plain(one: Sought) -> bool:
    return one.predicate == ANY and one.vector is not None and not one.must_be_exact


def _alone(view: View, index: Index | None, one: Sought) -> Found:
    left = matched = matching.matching(view, one.predicate, with_vector=one.vector is not None)
    if one.shown:
        slots = [view.slots[scene] for scene in one.shown if view.slots.get(scene, view.scenes) < view.scenes]
        of_scenes = np.zeros(view.scenes, np.bool_)
        of_scenes[slots] = True
        left = matched & ~packed(of_scenes[view.row_scene])
    count = int(kernel.count_of(left))
    has_labels = certainty(view, one.predicate, _EMPTY) is not None
    if one.vector is not None and not one.must_be_exact and count > EXACT_ROWS and index and not has_labels:
        found = _proposed(view, index, one, left, count)
        if found is not None:
            return found
    sketch = None if index is None else index.sketch
    is_sure_first = has_labels and count > SURE_ROWS
    is_narrowed = is_sure_first or (sketch is not None and count > SKETCHED_ROWS)
    if one.vector is not None and one.after == FIRST and is_narrowed:
        rows = _hopeful(view, sketch, one, left, is_sure_first=is_sure_first)
    else:
        rows = kernel.rows_of(left)
    scenes = int(kernel.scenes_of(matched, view.firsts))  # with those that were shown before
    return _ranked(view, one, rows, "exact" if one.predicate == ANY else "filtered", scenes, count)


def _proposed(view: View, index: Index, one: Sought, left: Words, left_rows: int) -> Found | None:
    """What the index finds among some rows; None: too little."""
    assert one.vector is not None
    count = _proposals(one.limit)
    share = left_rows / max(view.rows, 1)
    probes = min(int(index.probes * max(FILTERED_PROBES, share**-0.75)), MAX_PROBES)
    queries = one.vector[None, :]
    while count <= MAX_PROPOSED:
        rows = index.nearest(queries, count, probes, left)[0]
        found = _ranked(view, one, _with_tail(view, index, rows, left), "approximate", None)
        if len(found.rows) >= one.limit:
            return found
        if np.count_nonzero(rows >= 0) < count:  # there are no more in these lists
            return None
        count *= 4
    return None


def _with_tail(view: View, index: Index, rows: NDArray[np.int64], left: Words | None) -> NDArray[np.int64]:
    """Rows that are proposed and alive, and all that are younger than the index."""
    proposed = np.sort(rows[rows >= 0])
    proposed = proposed[view.alive[proposed]]
    if view.rows == index.rows:
        return proposed
    first = index.rows // 64
    younger = 64 * first + kernel.rows_of((view.comparable if left is None else left)[first:])
    return np.concatenate([proposed, younger[younger >= index.rows]])


def _ranked(
    view: View, one: Sought, rows: NDArray[np.int64], path: str, scenes: int | None, count: int | None = None
) -> Found:
    """The best of some rows, ascending.

    Args:
        scenes, count: that match; by default nobody counted, and these rows.
    """
    sure = certainty(view, one.predicate, rows)
    scores = np.empty(len(rows), np.float32)
    if one.vector is not None:
        _products(view, one.vector, rows, scores)
    else:
        hardness = view.numbers[NUMBERS.index("hardness")]
        scores[:] = HARDNESS_WEIGHT * np.nan_to_num(hardness)[view.row_scene[rows]]
    if sure is not None:
        scores += np.float32(LABEL_WEIGHT) * sure
    best, best_scores = kernel.best_scenes(scores, rows, view.row_scene, view.ids, one.limit, *one.after)
    return Found(best, best_scores, path, scenes, len(rows) if count is None else count, one.vector)


def _products(view: View, query: NDArray[np.float32], rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    if len(rows) > DENSE_SHARE * view.rows:
        every = np.empty(view.rows, np.float32)
        kernel.all_dots(view.vectors, view.scales, query, every)
        out[:] = every[rows]
    else:
        kernel.dots(view.vectors, view.scales, rows, query, out)


def _sample(one: Sought) -> int:
    return max(SAMPLE, 16 * one.limit)


def _hopeful(view: View, sketch: Sketch | None, one: Sought, left: Words, *, is_sure_first: bool) -> NDArray[np.int64]:
    """Those of many rows, ascending, that may be among the best; no other is lost.

    Args:
        is_sure_first: the rows whose labels are surest come first, and others must reach what the best of them reach.
            How unsure labels may be for that is known by then: no product is larger than query and longest row allow.
    """
    assert one.vector is not None
    first = left
    for least in SUREST if is_sure_first else ():
        some = left & matching.surest(view, one.predicate, least)
        if kernel.count_of(some) >= _sample(one):
            first = some
            break
    asked = None if sketch is None else sketch.asked(one.vector)
    error = 0.0 if asked is None else asked.error
    rows, scores = _about(view, asked, one, kernel.rows_of(first))
    _, best = kernel.best_scenes(scores, rows, view.row_scene, view.ids, one.limit, *one.after)
    if len(best) < one.limit:
        return kernel.rows_of(left)
    reach = float(np.linalg.norm(one.vector)) * view.longest
    bound = float(best[-1]) - error - ROUNDING * (1.0 + abs(float(best[-1])) + reach)
    hopeful = rows[scores >= bound - error]
    if first is left:
        return hopeful
    least_sure = (bound - reach) / LABEL_WEIGHT
    rest = left & ~first
    for least in SUREST:
        if math.log(least) <= least_sure:
            rest &= matching.surest(view, one.predicate, least)
            break
    rows, scores = _about(view, asked, one, kernel.rows_of(rest), least_sure)
    return np.sort(np.concatenate([hopeful, rows[scores >= bound - error]]))


def _about(
    view: View, asked: Asked | None, one: Sought, rows: NDArray[np.int64], least_sure: float = -math.inf
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of those of some rows that are sure enough: scores, as far as the sketch tells."""
    assert one.vector is not None
    sure = certainty(view, one.predicate, rows)
    if sure is not None and least_sure > -math.inf:
        is_sure = sure >= np.float32(least_sure)
        rows, sure = rows[is_sure], sure[is_sure]
    if asked is None:
        scores = np.empty(len(rows), np.float32)
        _products(view, one.vector, rows, scores)
    else:
        scores = asked.products(view, rows)
    if sure is not None:
        scores += np.float32(LABEL_WEIGHT) * sure
    return rows, scores
