"""Which moments of a view a predicate leaves, a bit each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.search import kernel
from cloud.search.bitmaps import Words, packed
from cloud.search.gallery import View, byte_of
from cloud.search.predicate import NUMBERS, And, Between, Has, In, Near, Not, Or, Predicate, Then, labels_of

Mask = NDArray[np.bool_]
# Up to this share of all rows it is cheaper to look fields up row by row.
FEW: Final = 0.1
_EARTH_RADIUS_M: Final = 6_371_008.8
_M_PER_DEGREE: Final = math.radians(1.0) * _EARTH_RADIUS_M


@dataclass(frozen=True, slots=True)
class _Of:
    """A mask over scenes, or over rows."""

    mask: Mask
    is_rows: bool


def matching(view: View, predicate: Predicate, *, with_vector: bool = False) -> Words:
    """The living rows that match.

    Labels come first, as bits of all rows; what else must hold is looked up for the rows that they leave.

    Args:
        with_vector: leave out what has none.
    """
    parts = predicate.parts if isinstance(predicate, And) else (predicate,)
    labels = tuple(part for part in parts if _is_of_labels(part))
    rest = tuple(part for part in parts if not _is_of_labels(part))
    words = view.comparable if with_vector else view.living
    if labels:
        words = words & _bits(view, And(labels))
    if rest:
        words = _left(view, rest, words)
    return words


def _left(view: View, parts: tuple[Predicate, ...], words: Words) -> Words:
    """Those of some rows that all parts leave."""
    if kernel.count_of(words) > FEW * view.rows:
        return words & packed(_rows(view, _evaluate(view, And(parts))))
    rows = kernel.rows_of(words)
    for part in parts:
        if isinstance(part, Between):
            numbers = view.numbers[NUMBERS.index(part.field)]
            rows = kernel.within(numbers, view.row_scene, rows, part.low, part.high)
        else:
            rows = rows[_at(view, part, rows)]
    left = np.zeros_like(words)
    kernel.bits_of(rows, left)
    return left


def _is_of_labels(predicate: Predicate) -> bool:
    match predicate:
        case Has():
            return True
        case And(parts) | Or(parts):
            return bool(parts) and all(map(_is_of_labels, parts))
        case Not(part):
            return _is_of_labels(part)
        case _:
            return False


def _bits(view: View, predicate: Predicate) -> Words:
    """Conditions on labels alone, a bit a row; bits beyond the last row mean nothing. Not to be written to."""
    match predicate:
        case Has(label, least):
            column = view.labels.get(label)
            bound = byte_of(least)
            if column is None:
                return np.full(-(-view.rows // 64), 0 if bound else 2**64 - 1, np.uint64)
            return view.bitmaps.of(label, bound, column)
        case And(parts):
            return reduce(np.bitwise_and, [_bits(view, part) for part in parts])
        case Or(parts):
            return reduce(np.bitwise_or, [_bits(view, part) for part in parts])
        case Not(part):
            return ~_bits(view, part)
        case _:
            raise AssertionError(predicate)


def surest(view: View, predicate: Predicate, least: float, *, is_negated: bool = False) -> Words:
    """Rows among which all are whose labels are as asked for (rank.certainty) with at least a probability.

    That is at most as high as each label's that must hold, and as the highest of alternatives.
    """
    match predicate:
        case Has(label):
            column = view.labels.get(label)
            if column is None:
                return np.full(-(-view.rows // 64), 2**64 - 1 if is_negated else 0, np.uint64)
            if is_negated:
                return ~view.bitmaps.of(label, byte_of(1.0 - least) + 1, column)
            return view.bitmaps.of(label, byte_of(least), column)
        case Not(part):
            return surest(view, part, least, is_negated=not is_negated)
        case And(parts) | Or(parts):
            each = [surest(view, part, least, is_negated=is_negated) for part in parts if labels_of(part)]
            if each:
                must_all = isinstance(predicate, And) != is_negated
                return reduce(np.bitwise_and if must_all else np.bitwise_or, each)
    return np.full(-(-view.rows // 64), 2**64 - 1, np.uint64)


def _at(view: View, predicate: Predicate, rows: NDArray[np.int64]) -> Mask:
    """Which of some rows match."""
    match predicate:
        case Has(label, least):
            column = view.labels.get(label)
            is_sure: Mask = (np.zeros(len(rows), np.uint8) if column is None else column[rows]) >= byte_of(least)
            return is_sure
        case Between(field, low, high):
            numbers = view.numbers[NUMBERS.index(field)][view.row_scene[rows]]
            is_between: Mask = (numbers >= low) & (numbers <= high)
            return is_between
        case In(field, values):
            known = [view.words[field][value] for value in values if value in view.words[field]]
            return np.isin(view.texts[field][view.row_scene[rows]], known)
        case And(parts):
            return _folded([_at(view, part, rows) for part in parts], np.logical_and, np.ones(len(rows), np.bool_))
        case Or(parts):
            return _folded([_at(view, part, rows) for part in parts], np.logical_or, np.zeros(len(rows), np.bool_))
        case Not(part):
            return ~_at(view, part, rows)
        case _:
            return _rows(view, _evaluate(view, predicate))[rows]


def _evaluate(view: View, predicate: Predicate) -> _Of:
    match predicate:
        case Has(label, least):
            column = view.labels.get(label)
            bound = byte_of(least)
            if column is None:
                return _Of(np.full(view.scenes, bound == 0), is_rows=False)
            return _Of(column >= bound, is_rows=True)
        case Between(field, low, high):
            numbers = view.numbers[NUMBERS.index(field)]
            return _Of((numbers >= low) & (numbers <= high), is_rows=False)
        case In(field, values):
            words = view.words[field]
            known = [words[value] for value in values if value in words]
            return _Of(np.isin(view.texts[field], known), is_rows=False)
        case Near():
            return _Of(_near(view, predicate), is_rows=False)
        case And(parts):
            return _joined(view, parts, np.logical_and, empty=True)
        case Or(parts):
            return _joined(view, parts, np.logical_or, empty=False)
        case Not(part):
            inner = _evaluate(view, part)
            return _Of(~inner.mask, inner.is_rows)
        case Then():
            return _Of(_then(view, predicate), is_rows=True)


def _joined(view: View, parts: tuple[Predicate, ...], join: Callable[..., Mask], *, empty: bool) -> _Of:
    """Parts of scenes are joined first: there are fewer scenes than rows."""
    evaluated = [_evaluate(view, part) for part in parts]
    of_scenes = [of.mask for of in evaluated if not of.is_rows]
    of_rows = [of.mask for of in evaluated if of.is_rows]
    if not of_rows:
        return _Of(_folded(of_scenes, join, np.full(view.scenes, empty)), is_rows=False)
    if of_scenes:
        of_rows.append(_folded(of_scenes, join, of_scenes[0])[view.row_scene])
    return _Of(_folded(of_rows, join, of_rows[0]), is_rows=True)


def _folded(masks: list[Mask], join: Callable[..., Mask], empty: Mask) -> Mask:
    if not masks:
        return empty
    folded = masks[0].copy() if len(masks) > 1 else masks[0]
    for mask in masks[1:]:
        join(folded, mask, out=folded)
    return folded


def _rows(view: View, of: _Of) -> Mask:
    return of.mask if of.is_rows else of.mask[view.row_scene]


def _then(view: View, then: Then) -> Mask:
    """Rows at which `first` holds and that are followed, in their scene and in time, by one at which `second` does."""
    found = np.zeros(view.rows, np.bool_)
    firsts = np.flatnonzero(_rows(view, _evaluate(view, then.first)) & view.alive)
    seconds = np.flatnonzero(_rows(view, _evaluate(view, then.second)) & view.alive)
    # The next row that matches is the nearest in time: rows of a scene lie together, in order.
    next_one = np.searchsorted(seconds, firsts, side="right")
    has_next = next_one < len(seconds)
    firsts, followers = firsts[has_next], seconds[next_one[has_next]]
    waited_ns = view.instants_ns[followers] - view.instants_ns[firsts]
    is_soon = (view.row_scene[followers] == view.row_scene[firsts]) & (waited_ns <= then.within_s * 1e9)
    found[firsts[is_soon]] = True
    return found


def _near(view: View, near: Near) -> Mask:
    """By great circle; the sines are spared those that a difference in latitude rules out."""
    latitude, longitude = view.places
    mask = np.zeros(view.scenes, np.bool_)
    close = np.flatnonzero(np.abs(latitude - near.latitude_deg) <= near.radius_m / _M_PER_DEGREE * 1.001)
    north = np.radians(latitude[close])
    here = math.radians(near.latitude_deg)
    across = np.sin(np.radians(longitude[close] - near.longitude_deg) / 2.0) ** 2
    chord = np.sin((north - here) / 2.0) ** 2 + np.cos(north) * math.cos(here) * across
    mask[close] = 2.0 * _EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(chord, 1.0))) <= near.radius_m
    return mask
