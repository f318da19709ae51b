"""What is searched, in memory: a row for each moment, columns for what is asked of it. Disposable: the database has it.

Vectors are signed bytes with a scale, probabilities of labels are bytes, everything else belongs to the moment's scene.
Rows are only ever added and declared dead, so that a `View` of them stays right while it is searched; rows of one scene
lie together, in order of time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.labels import LABELS
from cloud.search.bitmaps import Bitmaps, Words, packed
from cloud.search.predicate import NUMBERS, TEXTS

FIRST_ROWS: Final = 1 << 10
# Names of labels come from vehicles' bundles; a column costs a byte a row.
MAX_LABELS: Final = 512
# Dead rows cost as much as others in every search; below so many nobody notices.
DEAD_SHARE: Final = 0.25
DEAD_ROWS: Final = 4_096
TOLD, ANALYSED = 0, 1
_FIRSTS: Final = "\0first"  # among bitmaps; no label of the database has such a name


def byte_of(probability: float) -> int:
    """A probability, or a bound of one, as it is compared: 0..255, rounded in the same way."""
    return int(min(max(probability, 0.0), 1.0) * 255.0 + 0.5)


@dataclass(frozen=True, slots=True)
class Batch:
    """Scenes that are new or changed, with all of their rows.

    Attributes:
        ids: (m,) scene ids.
        numbers: (len(NUMBERS), m), NaN where nothing is known.
        texts: m values for each of TEXTS.
        places: (2, m) latitude and longitude, degrees, NaN without a fix.
        outboxes: m.
        sequences: (m,).
        sources: (m,) TOLD or ANALYSED.
        row_scenes: (n,) index into ids, ascending; rows of a scene in order of time.
        instants_ns: (n,).
        vectors: (n, d) int8.
        scales: (n,) float32; 0 where a moment has no vector in this space.
        labels: n times label -> probability.
    """

    ids: NDArray[np.int64]
    numbers: NDArray[np.float64]
    texts: Mapping[str, Sequence[str]]
    places: NDArray[np.float64]
    outboxes: Sequence[bytes]
    sequences: NDArray[np.int64]
    sources: NDArray[np.uint8]
    row_scenes: NDArray[np.int32]
    instants_ns: NDArray[np.int64]
    vectors: NDArray[np.int8]
    scales: NDArray[np.float32]
    labels: Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class View:
    """The gallery at one moment: the first `rows` of each column. Nothing here may be written to."""

    generation: int  # rows keep their numbers within one
    rows: int
    scenes: int
    vectors: NDArray[np.int8]
    scales: NDArray[np.float32]
    row_scene: NDArray[np.int32]
    instants_ns: NDArray[np.int64]
    alive: NDArray[np.bool_]
    is_comparable: NDArray[np.bool_]  # rows that have a vector
    living: Words  # alive, a bit each
    comparable: Words  # alive and with a vector
    firsts: Words  # first of their scene
    labels: Mapping[str, NDArray[np.uint8]]
    ids: NDArray[np.int64]
    numbers: NDArray[np.float64]
    places: NDArray[np.float64]
    sequences: NDArray[np.int64]
    sources: NDArray[np.uint8]
    texts: Mapping[str, NDArray[np.int32]]
    words: Mapping[str, Mapping[str, int]]  # of each text: value -> number in the column
    values: Mapping[str, Sequence[str]]  # and the other way round
    outboxes: Sequence[bytes]
    slots: Mapping[int, int]
    longest: float  # no row's vector is longer
    bitmaps: Bitmaps
    moved: NDArray[np.int64] | None  # of each row of the generation before, its number in this one; -1: it is dead

    def probabilities(self, label: str, rows: NDArray[np.int64]) -> list[float]:
        """Of a label at some moments."""
        column = self.labels.get(label)
        probabilities: list[float] = [0.0] * len(rows) if column is None else (column[rows] / 255.0).tolist()
        return probabilities

    def floats(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, d) vectors of some rows."""
        return self.vectors[rows].astype(np.float32) * self.scales[rows, None]

    def rows_of(self, scene_id: int) -> NDArray[np.intp]:
        """A scene's rows, in order of time."""
        slot = self.slots.get(scene_id)
        return np.empty(0, np.intp) if slot is None else np.flatnonzero((self.row_scene == slot) & self.alive)


class Gallery:
    """Columns that grow. One thread writes, any number looks.

    Args:
        dimensions: of vectors.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.dropped_labels = 0
        self._lock = threading.Lock()
        self._generation = 0
        self._rows = self._scenes = self._dead = 0
        self._slots: dict[int, int] = {}
        self._first = np.zeros(FIRST_ROWS, np.int64)
        self._count = np.zeros(FIRST_ROWS, np.int64)
        self._vectors = np.zeros((FIRST_ROWS, dimensions), np.int8)
        self._scales = np.zeros(FIRST_ROWS, np.float32)
        self._row_scene = np.zeros(FIRST_ROWS, np.int32)
        self._instants = np.zeros(FIRST_ROWS, np.int64)
        self._alive = np.zeros(FIRST_ROWS, np.bool_)
        self._is_comparable = np.zeros(FIRST_ROWS, np.bool_)
        self._is_first = np.zeros(FIRST_ROWS, np.uint8)
        self._labels: dict[str, NDArray[np.uint8]] = {label: np.zeros(FIRST_ROWS, np.uint8) for label in LABELS}
        self._ids = np.zeros(FIRST_ROWS, np.int64)
        self._numbers = np.zeros((len(NUMBERS), FIRST_ROWS), np.float64)
        self._places = np.zeros((2, FIRST_ROWS), np.float64)
        self._sequences = np.zeros(FIRST_ROWS, np.int64)
        self._sources = np.zeros(FIRST_ROWS, np.uint8)
        self._texts = {name: np.zeros(FIRST_ROWS, np.int32) for name in TEXTS}
        self._words: dict[str, dict[str, int]] = {name: {} for name in TEXTS}
        self._values: dict[str, list[str]] = {name: [] for name in TEXTS}
        self._outboxes: list[bytes] = []
        self._longest = 0.0
        self._bitmaps = Bitmaps()
        self._moved: NDArray[np.int64] | None = None
        self._view: View | None = None

    @property
    def dead(self) -> int:
        """Rows that are kept for nobody."""
        return self._dead

    def view(self) -> View:
        """What can be searched now."""
        with self._lock:
            if self._view is not None:
                return self._view
            rows, scenes = self._rows, self._scenes
            alive = self._alive[:rows].copy()  # scenes that change later stay in this view as they were
            self._view = View(
                self._generation,
                rows,
                scenes,
                self._vectors[:rows],
                self._scales[:rows],
                self._row_scene[:rows],
                self._instants[:rows],
                alive,
                self._is_comparable[:rows],
                packed(alive),
                packed(alive & self._is_comparable[:rows]),
                self._bitmaps.of(_FIRSTS, 1, self._is_first[:rows]),
                {label: column[:rows] for label, column in self._labels.items()},
                self._ids[:scenes],
                self._numbers[:, :scenes],
                self._places[:, :scenes],
                self._sequences[:scenes],
                self._sources[:scenes],
                {name: column[:scenes] for name, column in self._texts.items()},
                self._words,
                self._values,
                self._outboxes,
                self._slots,
                self._longest,
                self._bitmaps,
                self._moved,
            )
            return self._view

    def put(self, batch: Batch) -> None:
        """Add scenes or replace what is known of them."""
        new = [int(scene_id) for scene_id in batch.ids if int(scene_id) not in self._slots]
        count = len(batch.row_scenes)
        self._make_room(self._rows + count, self._scenes + len(new))
        scenes = self._scenes
        for scene_id in new:
            self._slots[scene_id] = scenes
            scenes += 1
            self._outboxes.append(b"")
        slots = np.fromiter((self._slots[int(scene_id)] for scene_id in batch.ids), np.int64, len(batch.ids))
        self._write_scenes(batch, slots)
        start = self._rows
        self._write_rows(batch, slots, start)
        firsts = start + np.searchsorted(batch.row_scenes, np.arange(len(slots)))
        counts = np.bincount(batch.row_scenes, minlength=len(slots))
        with self._lock:
            for slot in slots[self._count[slots] > 0]:
                first, many = self._first[slot], self._count[slot]
                self._alive[first : first + many] = False
                self._dead += int(many)
            self._first[slots], self._count[slots] = firsts, counts
            self._rows, self._scenes = start + count, scenes
            self._view = None
        if self._dead > max(DEAD_ROWS, DEAD_SHARE * self._rows):
            self._compact()

    def _write_scenes(self, batch: Batch, slots: NDArray[np.int64]) -> None:
        self._ids[slots], self._sequences[slots] = batch.ids, batch.sequences
        self._numbers[:, slots], self._places[:, slots] = batch.numbers, batch.places
        self._sources[slots] = batch.sources
        for name in TEXTS:
            words = self._words[name]
            self._texts[name][slots] = [words.setdefault(value, len(words)) for value in batch.texts[name]]
            known = self._values[name]
            known.extend(list(words)[len(known) :] if len(words) > len(known) else ())
        for slot, outbox in zip(slots, batch.outboxes, strict=True):
            self._outboxes[slot] = outbox

    def _write_rows(self, batch: Batch, slots: NDArray[np.int64], start: int) -> None:
        rows = slice(start, start + len(batch.row_scenes))
        self._vectors[rows], self._scales[rows] = batch.vectors, batch.scales
        if len(batch.scales):
            lengths = np.sqrt(np.einsum("nd,nd->n", batch.vectors, batch.vectors, dtype=np.float32)) * batch.scales
            self._longest = max(self._longest, float(lengths.max()))
        self._row_scene[rows], self._instants[rows] = slots[batch.row_scenes], batch.instants_ns
        self._alive[rows], self._is_comparable[rows] = True, batch.scales > 0
        self._is_first[rows] = np.diff(batch.row_scenes, prepend=-1) != 0
        for row, labels in enumerate(batch.labels, start):
            for label, probability in labels.items():
                column = self._labels.get(label)
                if column is None:
                    column = self._new_label(label)
                if column is not None:
                    column[row] = byte_of(probability)

    def _new_label(self, label: str) -> NDArray[np.uint8] | None:
        if len(self._labels) >= MAX_LABELS:
            self.dropped_labels += 1
            return None
        column = np.zeros(len(self._scales), np.uint8)
        with self._lock:
            self._labels[label] = column
            self._view = None
        return column

    def _make_room(self, rows: int, scenes: int) -> None:
        if rows > len(self._scales):
            more = _doubled(len(self._scales), rows)
            with self._lock:
                for name in ("_vectors", "_scales", "_row_scene", "_instants", "_alive", "_is_comparable", "_is_first"):
                    setattr(self, name, _grown(getattr(self, name), more, 0))
                self._labels = {label: _grown(column, more, 0) for label, column in self._labels.items()}
        if scenes > len(self._ids):
            more = _doubled(len(self._ids), scenes)
            with self._lock:
                for name in ("_first", "_count", "_ids", "_sequences", "_sources"):
                    setattr(self, name, _grown(getattr(self, name), more, 0))
                self._numbers, self._places = _grown(self._numbers, more, 1), _grown(self._places, more, 1)
                self._texts = {name: _grown(column, more, 0) for name, column in self._texts.items()}

    def _compact(self) -> None:
        """Leave dead rows behind: columns are made anew, views of the old ones stay as they were."""
        kept = np.flatnonzero(self._alive[: self._rows])
        room = _doubled(FIRST_ROWS, len(kept) + 1)

        def fresh(column: NDArray[Any]) -> NDArray[Any]:
            moved = np.zeros((room, *column.shape[1:]), column.dtype)
            moved[: len(kept)] = column[kept]
            return moved

        names = ("_vectors", "_scales", "_row_scene", "_instants", "_is_comparable", "_is_first")
        columns = {name: fresh(getattr(self, name)) for name in names}
        columns["_alive"] = np.zeros(room, np.bool_)
        columns["_alive"][: len(kept)] = True
        labels = {label: fresh(column) for label, column in self._labels.items()}
        place = np.searchsorted(kept, self._first[: self._scenes])
        moved = np.full(self._rows, -1, np.int64)
        moved[kept] = np.arange(len(kept))
        with self._lock:
            for name, column in columns.items():
                setattr(self, name, column)
            self._labels = labels
            self._first[: self._scenes] = place
            self._rows, self._dead = len(kept), 0
            self._moved = moved
            self._bitmaps = Bitmaps()
            self._generation += 1
            self._view = None


def _doubled(room: int, wanted: int) -> int:
    while room < wanted:
        room *= 2
    return room


def _grown(column: NDArray[Any], room: int, axis: int) -> NDArray[Any]:
    shape = list(column.shape)
    shape[axis] = room
    grown = np.zeros(shape, column.dtype)
    grown[tuple(slice(size) for size in column.shape)] = column
    return grown
