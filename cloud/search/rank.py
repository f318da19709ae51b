"""What a score is made of: nearness to what was shown, and how sure the labels are that were asked for.

    score = sum of weight x cosine + LABEL_WEIGHT x log-probability of the predicate's labels

Cosines add, so that several examples are one vector (relevance feedback after Rocchio: what was liked with positive
weights, what was not with negative ones).
Ref: Rocchio, Relevance feedback in information retrieval, 1971.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.errors import QueryError
from cloud.search import kernel
from cloud.search.gallery import View
from cloud.search.predicate import And, Has, Not, Or, Predicate, Then
from cloud.search.query import Like

# Chosen on validation worlds (docs/retrieval.md): 0.99 instead of 0.8 for a label counts as much as 0.85 of cosine.
LABEL_WEIGHT: Final = 4.0
# Of what is alike in all that was asked for: harder scenes first.
HARDNESS_WEIGHT: Final = 1e-3
LIKED, DISLIKED = 0.75, -0.25
DENIED: Final = -0.5  # words of a text that no condition says, and that are denied
MAX_LIKES: Final = 64
_BYTES: Final = (np.arange(256) / 255.0).clip(1.0 / 512.0, 1.0 - 1.0 / 512.0)
_LOG: Final = np.log(_BYTES).astype(np.float32)
_LOG_NOT: Final = np.log(1.0 - _BYTES).astype(np.float32)


def joined(likes: Sequence[Like], space: str, dimensions: int) -> NDArray[np.float32] | None:
    """The one vector of several examples: their sum by weight; None without any.

    Raises:
        QueryError: of another space or size, or no numbers.
    """
    if not likes:
        return None
    if len(likes) > MAX_LIKES:
        raise QueryError(f"expected at most {MAX_LIKES} examples, got {len(likes)}")
    total = np.zeros(dimensions, np.float32)
    for like in likes:
        if like.space != space:
            raise QueryError(f"expected a vector of the space {space[:12]}, which is searched, got {like.space[:12]!r}")
        if len(like.values) != 4 * dimensions:
            raise QueryError(f"expected a vector of {dimensions} floats, got {len(like.values)} bytes")
        values = np.frombuffer(like.values, "<f4")
        length = math.sqrt(float(np.sum(values * values)))  # not by BLAS, which lets others have the interpreter
        if not (0.0 < length < math.inf and math.isfinite(like.weight)):
            raise QueryError("expected a vector and weight of finite numbers that are not all 0, got others")
        total += np.float32(like.weight / length) * values
    return total


def certainty(view: View, predicate: Predicate, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """(rows,) log-probability that the labels are as asked for, taken as independent; None where none is asked for.

    Of alternatives the surest counts; of what follows one moment, the surest one within its time.
    """
    return _certainty(view, predicate, rows, is_negated=False)


def _certainty(
    view: View, predicate: Predicate, rows: NDArray[np.int64], *, is_negated: bool
) -> NDArray[np.float32] | None:
    match predicate:
        case Has():
            sure = np.empty(len(rows), np.float32)
            _look_up(view, predicate, rows, sure, is_negated=is_negated, is_added=False)
            return sure
        case Not(part):
            return _certainty(view, part, rows, is_negated=not is_negated)
        case And(parts) | Or(parts):
            adds = isinstance(predicate, And) != is_negated
            joint: NDArray[np.float32] | None = None
            for part in parts:
                if joint is not None and adds and isinstance(part, Has):
                    _look_up(view, part, rows, joint, is_negated=is_negated, is_added=True)
                    continue
                one = _certainty(view, part, rows, is_negated=is_negated)
                if joint is None or one is None:
                    joint = one if joint is None else joint
                else:
                    (np.add if adds else np.maximum)(joint, one, out=joint)
            return joint
        case Then() if not is_negated:
            return _of_sequence(view, predicate, rows)
        case _:
            return None


def _look_up(
    view: View, has: Has, rows: NDArray[np.int64], sure: NDArray[np.float32], *, is_negated: bool, is_added: bool
) -> None:
    table = _LOG_NOT if is_negated else _LOG
    column = view.labels.get(has.label)
    if column is not None:
        kernel.looked_up(table, column, rows, sure, is_added)
    elif is_added:
        sure += table[0]
    else:
        sure[:] = table[0]


def _of_sequence(view: View, then: Then, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Of both moments, the second being the surest that comes in time."""
    first = _certainty(view, then.first, rows, is_negated=False)
    second: NDArray[np.float32] | None = None
    ahead = 1
    while True:
        # Rows of a scene lie together, in order of time: the moment `ahead` of a row is that many rows further.
        places = np.flatnonzero(rows + ahead < view.rows)
        later = rows[places] + ahead
        waited_ns = view.instants_ns[later] - view.instants_ns[rows[places]]
        is_in_time = (view.row_scene[later] == view.row_scene[rows[places]]) & (waited_ns <= then.within_s * 1e9)
        is_in_time &= view.alive[later]
        places, later = places[is_in_time], later[is_in_time]
        if not len(places):
            break
        sure = _certainty(view, then.second, later, is_negated=False)
        if sure is None:
            break
        if second is None:
            second = np.full(len(rows), _LOG[0], np.float32)
        second[places] = np.maximum(second[places], sure)
        ahead += 1
    if first is None or second is None:
        return first if second is None else second
    return first + second
