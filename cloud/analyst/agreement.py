"""Where the analyst and the vehicle say different things of the same frame, and how sure it is that the vehicle erred.

Only labels that both know are compared, at the analyst's moments. What the analyst is wrong about it takes for the
vehicle's error: its probabilities are calibrated, so their sum over moments is about right, one of them may not be.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloud.analyst.clip import Replayed, Told

_SAID: Final = 0.5
_NEAR_NS: Final = 30_000_000
MOST_DIFFERENCES: Final = 32


def agreement(clip: Replayed, labels: Sequence[Mapping[str, float]]) -> dict[str, Any] | None:
    """The report's part on the vehicle's own decisions; None where the clip has none.

    Args:
        clip: replayed.
        labels: that the analyst says of its moments.
    """
    if not clip.edge:
        return None
    recorded = sorted(clip.edge, key=lambda one: one.stamp_ns)
    pairs = [
        (stamp_ns, told, said) for stamp_ns, said in zip(clip.stamps_ns, labels) if (told := _at(recorded, stamp_ns))
    ]
    compared, agreed, expected = 0, 0, 0.0
    worst: dict[tuple[str, bool], dict[str, Any]] = {}
    for stamp_ns, told, said in pairs:
        for label in told.labels.keys() & said.keys():
            edge, ours = told.labels[label], said[label]
            is_said = edge >= _SAID
            doubt = 1.0 - ours if is_said else ours  # the chance that the vehicle erred
            compared += 1
            expected += doubt
            if doubt <= 0.5:
                agreed += 1
                continue
            row = worst.setdefault((label, is_said), {"moments": 0, "sure": 0.0})
            row["moments"] += 1
            if doubt > row["sure"]:
                at_s = (stamp_ns - clip.first_ns) / 1e9
                row |= {"sure": doubt, "edge": edge, "analyst": ours, "instant_ns": str(stamp_ns), "at_s": at_s}
    differences = [{"label": label, "edge_said": is_said, **row} for (label, is_said), row in worst.items()]
    differences.sort(key=lambda row: (-row["sure"], row["label"]))
    return {
        "bundle": clip.edge_bundle,
        "moments": len(pairs),
        "compared": compared,
        "agreed": agreed / compared if compared else None,
        "expected_errors": expected,
        "differences": differences[:MOST_DIFFERENCES],
        "hardness": _hardness(clip),
    }


def _at(told: Sequence[Told], stamp_ns: int) -> Told | None:
    """What was told of the frame at this instant; `told` is by time."""
    place = bisect_left(told, stamp_ns - _NEAR_NS, key=lambda one: one.stamp_ns)
    near = min(told[place : place + 4], key=lambda one: abs(one.stamp_ns - stamp_ns), default=None)
    return near if near is not None and abs(near.stamp_ns - stamp_ns) <= _NEAR_NS else None


def _hardness(clip: Replayed) -> dict[str, Any]:
    """The vehicle's, the replay's, and how far they are apart: overload and what came before the clip show there."""
    edge = {told.stamp_ns: told.hardness for told in clip.edge}
    again = {told.stamp_ns: told.hardness for told in clip.again}
    apart = [abs(edge[stamp_ns] - again[stamp_ns]) for stamp_ns in edge.keys() & again.keys()]
    return {
        "edge_peak": max(edge.values()),
        "again_peak": max(again.values()),
        "apart_mean": sum(apart) / len(apart) if apart else None,
        "apart_most": max(apart) if apart else None,
    }
