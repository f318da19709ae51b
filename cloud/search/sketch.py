"""A row's vector once more, in one cache line, and how wrong that can be: most rows are ruled out without the rest.

Vectors of a space lie near few axes: 64 of the reference bundle's 192 hold 99.95 % of captions. So a row is projected
onto the gallery's own axes and kept in bytes. With v = A (code x step) + e, the part of e within the axes at most
`within` long and the part beyond them at most `beyond`, a product with q is wrong by at most

    |A'q| within + |q - A A'q| beyond

which is a bound and no estimate: what is left out by it was not among the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.search import kernel
from cloud.search.gallery import View

AXES: Final = 64  # a byte each
# With less of the vectors' squared length along the axes, the bound rules out too little.
LEAST_KEPT: Final = 0.9
_SAMPLE: Final = 1 << 15
_BLOCK: Final = 1 << 16
_ROUNDING: Final = 1e-4  # of what float32 sums up


@dataclass(frozen=True, slots=True)
class Sketch:
    """The first rows of a generation of the gallery.

    Attributes:
        axes: (d, k) float32, orthonormal columns.
        steps: (k,) float32, of one unit of a code.
        codes: (rows, k) int8.
        within, beyond: the longest errors of a row, along the axes and across them.
    """

    axes: NDArray[np.float32]
    steps: NDArray[np.float32]
    codes: NDArray[np.int8]
    within: float
    beyond: float

    def asked(self, query: NDArray[np.float32]) -> Asked:
        """A query, projected once."""
        along = np.einsum("dk,d->k", self.axes, query)  # not by BLAS, which would wake threads
        length, whole = float(np.sum(along * along)), float(np.sum(query * query))
        across = max(whole - length, 0.0)
        error = float(length**0.5 * self.within + across**0.5 * self.beyond + _ROUNDING * whole**0.5)
        return Asked(self.codes, query, along * self.steps, error)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as a sketch is asked it.

    Attributes:
        codes: of the sketch.
        query: (d,) float32.
        along: (k,) float32, what codes are multiplied by.
        error: how far a product is off at most.
    """

    codes: NDArray[np.int8]
    query: NDArray[np.float32]
    along: NDArray[np.float32]
    error: float

    def products(self, view: View, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n,) about the query's products with rows, ascending; those that came after the sketch are exact."""
        out = np.empty(len(rows), np.float32)
        known = int(np.searchsorted(rows, len(self.codes)))
        kernel.code_dots(self.codes, rows[:known], self.along, out[:known])
        kernel.dots(view.vectors, view.scales, rows[known:], self.query, out[known:])
        return out


def made(view: View, rows: NDArray[np.intp], random: np.random.Generator) -> Sketch | None:
    """Of some rows of a view, the others being 0; None: their vectors lie near no few axes."""
    some = view.floats(np.sort(random.choice(rows, min(len(rows), _SAMPLE), replace=False)))
    energies, axes = np.linalg.eigh(some.T @ some)
    if energies[-AXES:].sum() < LEAST_KEPT * energies.sum():
        return None
    axes = np.ascontiguousarray(axes[:, -AXES:])
    blocks = [rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK)]
    largest = np.max([np.abs(view.floats(block) @ axes).max(0) for block in blocks], axis=0)
    steps = np.maximum(largest / 127.0, 1e-12).astype(np.float32)
    codes = np.zeros((view.rows, axes.shape[1]), np.int8)
    within = beyond = 0.0
    for block in blocks:
        floats = view.floats(block)
        along = floats @ axes
        codes[block] = coded = np.rint(along / steps)
        within = max(within, float(np.linalg.norm(along - coded * steps, axis=1).max()))
        beyond = max(beyond, float(np.linalg.norm(floats - along @ axes.T, axis=1).max()))
    return Sketch(axes, steps, codes, within, beyond)
