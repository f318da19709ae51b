"""How the picture and the sound of one stretch are aligned, by choice of method and level.

    hybrid      correlation finds the offset, time warping what is left in a narrow band around it (the default)
    dtw         time warping alone
    attention   soft alignment alone

    frame       signals of every frame: how much the picture moves, how loud it is
    event       their onsets alone
    semantic    embeddings of a bundle's encoders, for attention alone

All say how sure they are in one way: against sounds of the same colour and random phase (of embeddings: rows moved in
time), which have nothing to do with the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from edge.alignment.activity import PictureActivity
from edge.alignment.attention import around, attend
from edge.alignment.band import SakoeChiba
from edge.alignment.dtw import Warp, cost, warp
from edge.alignment.offset import (
    MAX_LAG_NS,
    STEP_NS,
    SURROGATES,
    Evidence,
    Offset,
    best_lag,
    camera_sound_evidence,
    confidence,
    filtered,
    on_grid,
    on_grid_heard,
    random_phase,
    told,
)  # fmt: skip
from edge.alignment.series import F64, Series
from edge.errors import AlignmentError

Method = Literal["hybrid", "dtw", "attention"]
Level = Literal["frame", "event", "semantic"]
METHODS: Final = ("hybrid", "dtw", "attention")
LEVELS: Final = ("frame", "event", "semantic")
NARROW_NS: Final = 200_000_000  # around the offset that correlation found
CONTEXT: Final = 20  # steps to each side that attention compares
_LOUD: Final = 1.0  # standard deviations from which a rise is an onset


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """A stretch and what is known of it.

    Attributes:
        picture, sound: (n, 1) the two signals that were warped, on one grid of STEP_NS.
        warp: how the sound runs along the picture; None for attention.
        evidence: by lag, of the hybrid method alone; the others' is not additive.
    """

    offset: Offset
    picture: Series
    sound: Series
    warp: Warp | None
    evidence: Evidence | None = None


def aligned(
    activity: PictureActivity, level: Series, method: Method = "hybrid", kind: Level = "frame",
    max_lag_ns: int = MAX_LAG_NS, seed: int = 0,
) -> Aligned:  # fmt: skip
    """One stretch, by signals.

    Raises:
        AlignmentError: too little of both, or level "semantic", whose rows `aligned_embeddings` takes.
    """
    if kind == "semantic":
        raise AlignmentError("level semantic: expected embeddings of a bundle, got signals")
    evidence = camera_sound_evidence(activity, level, max_lag_ns, seed)
    offset = told(evidence)
    picture, sound = _signals(activity, level, evidence if method == "hybrid" else None, kind)
    rng = np.random.default_rng(seed)
    if method == "hybrid":
        band = SakoeChiba(NARROW_NS, offset.offset_ns)
        return Aligned(offset, picture, sound, _warped(picture, sound, band), evidence)
    others = [Series(sound.stamps_ns, row) for row in _standard(random_phase(sound.values[:, 0], SURROGATES, rng).T).T]
    if method == "dtw":
        band = SakoeChiba(max_lag_ns)
        found = _warped(picture, sound, band)
        chance = np.array([-cost(picture, other, band, open_begin=True, open_end=True) for other in others])
        return Aligned(Offset(_usual_lag(found), confidence(-found.cost, chance)), picture, sound, found)
    rows = around(picture, CONTEXT)
    ways = [attend(rows, around(other, CONTEXT), max_lag_ns, STEP_NS) for other in (sound, *others)]
    return Aligned(best_lag(ways[0].lags_ns, np.stack([way.share for way in ways])), picture, sound, None)


def aligned_embeddings(camera: Series, audio: Series, max_lag_ns: int = MAX_LAG_NS, seed: int = 0) -> Offset:
    """What embeddings of the same shared space say, by attention.

    Args:
        camera, audio: (n, d) embeddings by frame instant.

    Raises:
        AlignmentError: other widths, or too few frames to move them beyond every lag.
    """
    step_ns = int(np.median(np.diff(camera.stamps_ns))) if len(camera) > 1 else STEP_NS
    beyond = max_lag_ns // step_ns + 1
    if min(len(camera), len(audio)) < 2 * beyond + 2:
        raise AlignmentError(
            f"embeddings: expected at least {2 * beyond + 2} of each, got {len(camera)} and {len(audio)}"
        )
    rng = np.random.default_rng(seed)
    turns = rng.integers(beyond, len(audio) - beyond, SURROGATES)
    others = [Series(audio.stamps_ns, np.roll(audio.values, turn, axis=0)) for turn in turns]
    ways = [attend(camera, other, max_lag_ns, step_ns) for other in (audio, *others)]
    return best_lag(ways[0].lags_ns, np.stack([way.share for way in ways]))


def _signals(activity: PictureActivity, level: Series, evidence: Evidence | None, kind: Level) -> tuple[Series, Series]:
    """Both on one grid over the time that they share, filtered, in units of their own spread."""
    change = activity.change()
    grid = np.arange(max(change.stamps_ns[0], level.stamps_ns[0]), change.stamps_ns[-1] + 1, STEP_NS)
    heard = on_grid_heard(level, int(grid[0]), len(grid))[0]
    blocks = on_grid(change, grid)
    weights = np.ones(blocks.shape[1])
    if evidence is not None:
        weights = np.maximum(evidence.origin[..., int(evidence.scores[0].argmax())].reshape(-1), 0.0) ** 4
    picture = filtered(blocks @ (weights / max(weights.sum(), 1e-12))[:, None])
    signals = [_standard(picture), _standard(heard[:, None])]
    if kind == "event":
        signals = [_onsets(signal) for signal in signals]
    return Series(grid, signals[0]), Series(grid, signals[1])


def _warped(picture: Series, sound: Series, band: SakoeChiba) -> Warp:
    """Open ends: what moved at the end of a stretch may sound after it. Both are cut to what the band can reach."""
    late_ns = band.offset_ns
    low = max(picture.stamps_ns[0], sound.stamps_ns[0] - late_ns)
    high = min(picture.stamps_ns[-1], sound.stamps_ns[-1] - late_ns)
    inside = (picture.stamps_ns >= low) & (picture.stamps_ns <= high)
    kept = Series(picture.stamps_ns[inside], picture.values[inside])
    return warp(kept, sound, band, open_begin=True, open_end=True)


def _usual_lag(found: Warp) -> int:
    """The median lag, each point weighted by how much happens there: silence runs along anything."""
    order = np.argsort(found.lags_ns, kind="stable")
    straight = np.concatenate([[True], np.diff(found.path, axis=0).sum(1) == 2]).astype(float)
    weights = np.cumsum(straight[order])
    return int(found.lags_ns[order][np.searchsorted(weights, 0.5 * weights[-1])])


def _standard(signal: F64) -> F64:
    """(n, d) each column with mean 0 and spread 1."""
    found: F64 = (signal - signal.mean(0)) / np.maximum(signal.std(0), 1e-9)
    return found


def _onsets(signal: F64) -> F64:
    """How fast a signal rises, where it rises fast; 0 elsewhere."""
    rise = np.maximum(np.diff(signal, axis=0, prepend=signal[:1]), 0.0)
    rise /= max(float(rise.std()), 1e-9)
    return _standard(np.where(rise > _LOUD, rise, 0.0))
