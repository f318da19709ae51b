"""The analyst's network: what every moment of a clip shows, looking forward in time as well as back.

It reads the vehicle's own embeddings and boxes (each quarter of a second), so it costs next to nothing and needs no
picture. How it was trained and how right it is stands in export/reference/analyst.json, which names the bundle
whose embeddings it understands.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import export
from cloud.embed import lowering
from cloud.errors import ModelError
from cloud.labels import LABELS, of_tag
from export.model.analyst_outputs import BOXES

REFERENCE: Final = Path(export.__file__).parent / "reference"
INPUTS: Final = ("embeddings", "presence", "boxes")
MODALITIES: Final = ("camera", "audio", "motion", "lidar")
DIMENSIONS: Final = 192
MAX_MOMENTS: Final = 14_400  # an hour; longer ones are looked at in parts
_UNIT: Final = 0.02  # by which a length may differ from 1
# Facts by the names of their labels; values that say nothing are no labels.
_KIND: Final = {"kind": "large"}
_VALUE: Final = {"emergency=True": "emergency:yes"}
_SILENT: Final = ("", "False")

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen, moment by moment.

    labels: probability of each label (cloud/labels.py). embeddings: (t, 192) float32 unit length, of the same space as
    the vehicle's.
    """

    labels: list[dict[str, float]]
    embeddings: F32


class AnalystNetwork:
    """The network, verified; calls may come from any thread.

    Attributes:
        model: SHA-256 of its file.
        space: id of the bundle whose embeddings it reads.
        step_s: time between moments.
        window: moments that it sees together; of longer clips the windows overlap by half.
    """

    def __init__(self, session: ort.InferenceSession, said: _Said) -> None:
        self.model, self.space, self.step_s, self.window = said.model, said.space, said.step_s, said.window
        self._session = session
        self._columns = [(i, label) for i, label in enumerate(map(label_of_column, said.columns)) if label]
        self.labels = tuple(label for _, label in self._columns)

    @staticmethod
    def open(folder: Path | None = None) -> AnalystNetwork:
        """The network of a folder with analyst.json and analyst.onnx; None: the reference one.

        Raises:
            ModelError: a file is missing, or is not the one that analyst.json speaks of.
        """
        folder = REFERENCE if folder is None else folder
        said = _read(folder / "analyst.json")
        path = folder / "analyst.onnx"
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: expected the analyst's network, got {error.strerror}") from None
        found = hashlib.sha256(model).hexdigest()
        if found != said.model:
            raise ModelError(f"{path}: expected SHA-256 {said.model[:16]}, got {found[:16]}")
        missing = set(LABELS) - set(map(label_of_column, said.columns))
        if missing:
            raise ModelError(f"{path}: expected a column for every label, got none for {', '.join(sorted(missing))}")
        session = lowering.session(str(path), model, threads=1)
        ports = [port.name for port in session.get_inputs()]
        if ports != list(INPUTS):
            raise ModelError(f"{path}: expected the inputs {', '.join(INPUTS)}, got {', '.join(ports)}")
        return AnalystNetwork(session, said)

    def look(self, embeddings: F32, presence: NDArray[np.bool_], boxes: F32) -> Looked:
        """What a clip shows.

        Args:
            embeddings: (t, 4, 192) unit length in the order of MODALITIES, a moment every step_s; what is absent is
                not looked at.
            presence: (t, 4).
            boxes: (t, *BOXES) the camera's best objects; not looked at where it is absent.

        Raises:
            ModelError: another form, no moment or too many, something present that is no unit vector, or a box that is
                not finite.
        """
        given, here, seen = _checked(embeddings, presence, boxes)
        said = np.zeros((len(given), len(self.labels)), np.float32)
        found = np.zeros((len(given), DIMENSIONS), np.float32)
        columns = [i for i, _ in self._columns]
        for window, kept in windows(len(given), self.window):
            tensors = dict(zip(INPUTS, (given[window], here[window], seen[window])))
            p, e = self._session.run(["probabilities", "embedding"], tensors)
            own = slice(kept.start - window.start, kept.stop - window.start)
            said[kept], found[kept] = p[own][:, columns], e[own]
        return Looked([dict(zip(self.labels, row)) for row in said.tolist()], found)


def windows(moments: int, longest: int) -> list[tuple[slice, slice]]:
    """Overlapping windows over a clip, and of each the moments that it speaks for: those that it sees most around."""
    if moments <= longest:
        return [(slice(0, moments), slice(0, moments))]
    starts = [*range(0, moments - longest, longest // 2), moments - longest]
    middles = [(before + longest + after) // 2 for before, after in itertools.pairwise(starts)]
    edges = itertools.pairwise([0, *middles, moments])
    return [(slice(at, at + longest), slice(first, end)) for at, (first, end) in zip(starts, edges)]


def _checked(embeddings: F32, presence: NDArray[np.bool_], boxes: F32) -> tuple[F32, F32, F32]:
    if embeddings.ndim != 3 or embeddings.shape[1:] != (len(MODALITIES), DIMENSIONS):
        raise ModelError(f"expected embeddings (t, {len(MODALITIES)}, {DIMENSIONS}), got {embeddings.shape}")
    if not 1 <= len(embeddings) <= MAX_MOMENTS:
        raise ModelError(f"expected 1 to {MAX_MOMENTS} moments, got {len(embeddings)}")
    if presence.shape != embeddings.shape[:2]:
        raise ModelError(f"expected presence {embeddings.shape[:2]}, got {presence.shape}")
    if boxes.shape != (len(embeddings), *BOXES):
        raise ModelError(f"expected boxes {(len(embeddings), *BOXES)}, got {boxes.shape}")
    here = np.asarray(presence, np.bool_)
    given = np.where(here[:, :, None], np.asarray(embeddings, np.float32), np.float32(0.0))
    lengths = np.linalg.norm(given, axis=2)[here]
    if not np.all(np.abs(lengths - 1.0) <= _UNIT):  # NaN is caught here, too
        wrong = lengths[~(np.abs(lengths - 1.0) <= _UNIT)][0]
        raise ModelError(f"expected embeddings of unit length, got one of {wrong:g}")
    seen = np.where(here[:, :1, None], np.asarray(boxes, np.float32), np.float32(0.0))
    if not np.isfinite(seen).all():
        raise ModelError("expected boxes of finite numbers, got others")
    return given, here.astype(np.float32), seen


@dataclass(frozen=True, slots=True)
class _Said:
    """What analyst.json says."""

    model: str
    space: str
    step_s: float
    window: int
    columns: tuple[str, ...]


def _read(path: Path) -> _Said:
    try:
        said = json.loads(path.read_text())
        read = _Said(
            str(said["model"]), str(said["space"]), float(said["step_s"]), int(said["window"]),
            tuple(map(str, said["columns"])),
        )  # fmt: skip
    except OSError as error:
        raise ModelError(f"{path}: expected what the analyst's network is, got {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: expected model, space, step_s, window and columns, got {error!r}") from None
    if read.window < 2 or read.step_s <= 0.0:
        raise ModelError(f"{path}: expected a window of at least 2 moments, got {read.window} each {read.step_s} s")
    return read


def label_of_column(column: str) -> str:
    """The label of a column, "" of one that says nothing."""
    kind, _, value = column.partition("=")
    if value in _SILENT:
        return ""
    if kind == "tag":
        return of_tag(value)
    return _VALUE.get(column, f"{_KIND.get(kind, kind)}:{value}")
