"""The last gate before vehicles: recorded drives through the loop with both bundles, paired frame by frame.

The rule: a candidate is refused where the lower bound of how much worse it is than the current bundle exceeds the
effect that matters, for any figure, over all drives or within a domain. The bounds hold together: alpha is shared among
all figures, and among the two looks: on a third of the drives, where what is plainly worse shows already, and on all.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import numpy as np

from cloud.gates.candidate import Candidate
from cloud.gates.merit import Merit
from cloud.gates.outcome import Outcome, Truth, outcome_of
from cloud.gates.statistics import Difference, difference, multiplicities
from cloud.gates.verdict import GateRefused, GateSkipped

# How much more of it than the current bundle has is too much, as a share of the frames or a step of a score.
_HEALTH: Final = {
    "degraded": 0.01, "overloaded": 0.01, "frozen": 0.01, "suspect streams": 0.05, "in a hard scene": 0.15,
    "hardness": 0.08, "uncertainty": 0.15, "disagreement": 0.15, "novelty": 0.15,
}  # fmt: skip
# These may fall as little: budgets and campaigns live on them.
_BOTH_WAYS: Final = ("hardness", "in a hard scene", "uncertainty", "disagreement", "novelty")
_SCENE_OF_DRIVES: Final = 1.5  # a scene that only just begins makes all of a drive hard: with few drives, much of them
_LEAST_FUSED_COSINE: Final = 0.85
_KEPT: Final = 40  # differences that are written down: the worst


def replayed(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Both bundles over all drives.

    Raises:
        GateSkipped: there are no drives.
        GateRefused: what, expected, got.
    """
    yardstick, policy = candidate.current, candidate.policy
    if not yardstick.drives:
        raise GateSkipped("no drives given (--drives)")
    every = yardstick.truth(policy.segment_s)
    own: Outcome | None = None
    done, why = 0, ""
    detail: dict[str, Any] = {}
    for look in yardstick.looks:
        truth, before = every.first(look), yardstick.outcome(policy.segment_s, look)
        more = outcome_of(candidate.bundle, yardstick.drives[done:look], every.stamps_ns[done:look])
        own = more if own is None else own.then(more)
        done = look
        detail = {"frames": len(truth.unit), "drives": look}
        _check_health(own, before, candidate, look, detail)
        merit, usual = Merit(candidate.bundle, own, truth), yardstick.merit(policy.segment_s, look)
        why = _compare(merit, usual, truth, candidate, detail)
    return why, detail


def _compare(merit: Merit, usual: Merit, truth: Truth, candidate: Candidate, detail: dict[str, Any]) -> str:
    found = differences(merit, usual, truth, candidate)
    found.sort(key=lambda row: row.low - row.effect, reverse=True)
    detail |= {
        "compared": len(found),
        "worst": [_row(row) for row in found[:_KEPT]],
        "average_precision": {"candidate": merit.precision(), "current": usual.precision()},
    }
    worse = [row for row in found if row.is_worse]
    if worse:
        worst = max(worse, key=lambda row: row.low / row.effect)
        raise GateRefused(f"{worst}{f'; {len(worse) - 1} figures more' if len(worse) > 1 else ''}", detail)
    return f"{len(found)} figures on {len(truth.unit)} frames: none sure to be worse by what matters"


def differences(merit: Merit, usual: Merit, truth: Truth, candidate: Candidate) -> list[Difference]:
    """Each figure, over all drives and in each domain that has enough segments."""
    policy = candidate.policy
    pairs = []
    for name, rows in truth.slices.items():
        segments = len(np.unique(truth.unit[rows]))
        if segments < policy.least_units:
            continue
        draws = multiplicities(segments, zlib.crc32(name.encode()))
        own = {figure.name: figure for figure in merit.figures(rows, policy, usual)}
        pairs += [(name, figure, own[figure.name], draws) for figure in usual.figures(rows, policy)]
    draws = multiplicities(len(np.unique(truth.unit)), zlib.crc32(b"all"))
    own = {figure.name: figure for figure in merit.labels(policy)}
    pairs += [("all", figure, own[figure.name], draws) for figure in usual.labels(policy)]
    alpha = policy.alpha / len(pairs) / len(candidate.current.looks)
    found = [difference(name, figure, other, drawn, alpha) for name, figure, other, drawn in pairs]
    return [row for row in found if row is not None]


def _check_health(own: Outcome, before: Outcome, candidate: Candidate, drives: int, detail: dict[str, Any]) -> None:
    if own.decisions != before.decisions:
        raise GateRefused(f"decisions: expected {before.decisions}, got {own.decisions}", detail)
    if not (np.isfinite(own.embedding).all() and all(np.isfinite(rows).all() for rows in own.heads.values())):
        raise GateRefused("decisions: expected finite values, got others", detail)
    for name, most in _HEALTH.items():
        means = [float(np.nanmean(outcome.health[name])) for outcome in (own, before)]
        detail[name] = means
        if name == "in a hard scene":
            most = max(most, _SCENE_OF_DRIVES / drives)
        apart = means[0] - means[1]
        if apart > most or (name in _BOTH_WAYS and -apart > most):
            raise GateRefused(f"{name}: expected about {means[1]:.3f} (by {most:g}), got {means[0]:.3f}", detail)
    if before.embedding.shape[1] and not candidate.policy.new_space:
        norms = np.linalg.norm(own.embedding, axis=1) * np.linalg.norm(before.embedding, axis=1)
        cosine = float(np.median((own.embedding * before.embedding).sum(1) / np.maximum(norms, 1e-9)))
        detail["fused cosine"] = cosine
        if cosine < _LEAST_FUSED_COSINE:
            raise GateRefused(
                f"fused embedding: expected a median cosine of {_LEAST_FUSED_COSINE:g}, got {cosine:.3f}",
                detail,
            )


def _row(row: Difference) -> dict[str, Any]:
    rounded = {key: round(getattr(row, key), 4) for key in ("current", "candidate", "error", "low", "effect")}
    return {"slice": row.slice, "figure": row.figure, **rounded}
