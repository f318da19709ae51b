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

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.search import kernel, matching
from cloud.search.gallery import View
from cloud.search.index import PROPOSED, Index
from cloud.search.predicate import ANY, NUMBERS, Predicate
from cloud.search.rank import HARDNESS_WEIGHT, LABEL_WEIGHT, certainty

# Scattered rows that are ranked in about a millisecond.
EXACT_ROWS: Final = 50_000
# From this share on all rows are read in a row, which is faster than jumping from one to the next.
DENSE_SHARE: Final = 0.12
# Rows that the index proposes for each answer; its codes are coarse.
OVERSAMPLED: Final = 8
# Lists, as a multiple of those without a filter: a fifth of the rows lie in a fifth of what a list holds.
FILTERED_PROBES: Final = 3.0
MAX_PROPOSED: Final = 16_384
MAX_PROBES: Final = 1_024
# Rows that are ranked to see what others must reach, and how many times as many there must be for that to pay.
SAMPLE: Final = 512
MANY_SAMPLES: Final = 4
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
    hidden = None
    if one.shown:
        slots = [view.slots[scene] for scene in one.shown if view.slots.get(scene, view.scenes) < view.scenes]
        of_scenes = np.zeros(view.scenes, np.bool_)
        of_scenes[slots] = True
        hidden = of_scenes[view.row_scene]
    rows = matching.matching(view, one.predicate, hidden, with_vector=one.vector is not None)
    if one.vector is not None and not one.must_be_exact and len(rows) > EXACT_ROWS and index:
        has_labels = certainty(view, one.predicate, _EMPTY) is not None
        found = None if has_labels else _proposed(view, index, one, rows)
        if found is not None:
            return found
    return _ranked(view, one, rows, "exact" if one.predicate == ANY else "filtered", len(rows))


def _proposed(view: View, index: Index, one: Sought, left: NDArray[np.int64]) -> Found | None:
    """What the index finds among some rows; None: too little."""
    assert one.vector is not None
    mask = np.zeros(view.rows, np.bool_)
    mask[left] = True
    count = _proposals(one.limit)
    share = len(left) / max(view.rows, 1)
    probes = min(int(index.probes * max(FILTERED_PROBES, share**-0.75)), MAX_PROBES)
    queries = one.vector[None, :]
    while count <= MAX_PROPOSED:
        rows = index.nearest(queries, count, probes, mask)[0]
        found = _ranked(view, one, _with_tail(view, index, rows, mask), "approximate", None)
        if len(found.rows) >= one.limit:
            return found
        if np.count_nonzero(rows >= 0) < count:  # there are no more in these lists
            return None
        count *= 4
    return None


def _with_tail(view: View, index: Index, rows: NDArray[np.int64], mask: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Rows that are proposed and alive, and all that are younger than the index."""
    proposed = np.sort(rows[rows >= 0])
    proposed = proposed[view.alive[proposed]]
    if view.rows == index.rows:
        return proposed
    tail = slice(index.rows, view.rows)
    is_left = (view.alive[tail] & view.is_comparable[tail]) if mask is None else mask[tail]
    return np.concatenate([proposed, index.rows + np.flatnonzero(is_left)])


def _ranked(view: View, one: Sought, rows: NDArray[np.int64], path: str, left: int | None) -> Found:
    matching_rows, scenes = len(rows), -1
    sure = certainty(view, one.predicate, rows)
    is_scattered = MANY_SAMPLES * _sample(one) < len(rows) < 2 * DENSE_SHARE * view.rows
    if sure is not None and one.vector is not None and one.after == FIRST and is_scattered:
        scenes = kernel.scenes_of(rows, view.row_scene)
        kept = _hopeful(view, one, rows, sure)
        rows, sure = rows[kept], sure[kept]
    scores = np.empty(len(rows), np.float32)
    if one.vector is not None:
        if len(rows) > DENSE_SHARE * view.rows:
            every = np.empty(view.rows, np.float32)
            kernel.all_dots(view.vectors, view.scales, one.vector, every)
            scores = every[rows]
        else:
            kernel.dots(view.vectors, view.scales, rows, one.vector, scores)
    else:
        hardness = view.numbers[NUMBERS.index("hardness")]
        scores[:] = HARDNESS_WEIGHT * np.nan_to_num(hardness)[view.row_scene[rows]]
    if sure is not None:
        scores += np.float32(LABEL_WEIGHT) * sure
    best, best_scores, ranked = kernel.best_scenes(
        scores, rows, view.row_scene, view.ids, one.limit, one.after[0], one.after[1]
    )
    scenes = int(ranked) if scenes < 0 else int(scenes)
    return Found(best, best_scores, path, None if left is None else scenes, matching_rows, one.vector)


def _sample(one: Sought) -> int:
    return max(SAMPLE, 16 * one.limit)


def _hopeful(view: View, one: Sought, rows: NDArray[np.int64], sure: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows may be among the best: the surest ones are ranked, and what can't reach them is left out.

    No row is nearer than the query is long times the longest row, so nothing is lost.
    """
    assert one.vector is not None
    surest = np.flatnonzero(sure >= kernel.bound_of(sure, _sample(one)))[: 2 * _sample(one)]
    some = rows[surest]
    scores = np.empty(len(some), np.float32)
    kernel.dots(view.vectors, view.scales, some, one.vector, scores)
    scores += np.float32(LABEL_WEIGHT) * sure[surest]
    _, best, _ = kernel.best_scenes(scores, some, view.row_scene, view.ids, one.limit, *one.after)
    if len(best) < one.limit:
        return np.ones(len(rows), np.bool_)
    reach = float(np.linalg.norm(one.vector)) * view.longest
    least = (float(best[-1]) - reach) / LABEL_WEIGHT
    hopeful: NDArray[np.bool_] = sure >= np.float32(least - 1e-4 * (1.0 + abs(least) + reach))
    return hopeful
