"""How the sound runs along the picture, as Rerun sees it: signals, cost matrix and path of the surest stretch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import rerun as rr

from edge.alignment.job import Alignment, Settings, align, words_of
from edge.alignment.plot import cost_picture
from edge.errors import AlignmentError
from edge.viewer.sensors import SensorLog

SIGNALS: Final = "/alignment/signal"
LATER: Final = "/alignment/later_ms"
MATRIX: Final = "/alignment/matrix"
WORDS: Final = "/alignment/words"
_STRETCHES: Final = 6


def alignment_of(path: Path) -> Alignment | None:
    """Of a few stretches over the drive; None where it tells nothing, or where nothing is installed to warp with."""
    try:
        return [step.alignment for step in align(path, Settings(stretches=_STRETCHES))][-1]
    except (AlignmentError, ModuleNotFoundError):
        return None


def log_alignment(recording: rr.RecordingStream, log: SensorLog, found: Alignment) -> None:
    """Signals and lag over time; the matrix with its path, and what was found, for all of it."""
    recording.log(WORDS, rr.TextDocument(words_of(found)), static=True)
    shown = found.shown
    if shown is None:
        return
    for name, series in (("picture", shown.picture), ("sound", shown.sound)):
        values = rr.Scalars.columns(scalars=series.values[:, 0])
        recording.send_columns(f"{SIGNALS}/{name}", [log.time(series.stamps_ns)], values)
    if shown.warp is None:
        return
    stamps_ns, first = np.unique(shown.warp.stamps_ns[:, 0], return_index=True)
    lags_ms = shown.warp.lags_ns[first] / 1e6
    recording.send_columns(LATER, [log.time(stamps_ns)], rr.Scalars.columns(scalars=lags_ms))
    image, path = cost_picture(shown, found.settings.max_lag_ns)
    recording.log(MATRIX, rr.Image(image, color_model="BGR"), static=True)
    recording.log(f"{MATRIX}/path", rr.LineStrips2D([path], colors=[(196, 69, 12)]), static=True)
