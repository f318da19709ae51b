"""What a bundle says of a frame, in labels: so two bundles' decisions compare, and evidence finds its slices."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from edge.bundle import Bundle
from edge.decision import Decision
from edge.streams import DEADLINE_NS
from edge.updates.evidence import ALL, SLICES

# A box this much more probable than the threshold is meant; nearer to it, boxes come and go from frame to frame.
_MEANT: Final = 0.15
_DEFAULT_THRESHOLD: Final = 0.5
# Scene tags that make a slice, where it is not the tag of its name alone.
_TAGS: Final = {"town": ("town", "urban", "residential")}

Labels = frozenset[tuple[str, str]]


class Opinion(NamedTuple):
    """One decision, as far as it is compared.

    Attributes:
        stamp_ns: of the frame.
        emitted_ns: instant of the step that decided it.
        labels: (head, label) that hold.
        is_finite: whether all that it says are numbers.
        is_late: whether it took longer than there is time.
        is_whole: no engine failed.
        level: of the overload ladder.
        shed: streams whose encoders it skipped for that.
        number: of the decision in its run.
        slices: of the world, by the active bundle's tags.
        scene: number of the hard scene that it is in; 0 where it is in none.
    """

    stamp_ns: int
    emitted_ns: int
    labels: Labels
    is_finite: bool
    is_late: bool
    is_whole: bool
    level: int
    shed: frozenset[str]
    number: int
    slices: tuple[str, ...]
    scene: int


def opinion_of(decision: Decision, bundle: Bundle, *, is_late: bool) -> Opinion:
    """The opinion in a decision of the bundle."""
    labels = labels_of(decision, bundle)
    shed = frozenset(state.stream for state in decision.modalities if state.absence == "shed")
    is_whole = not any(state.absence == "failed" for state in decision.modalities)
    return Opinion(
        decision.stamp_ns, decision.emitted_ns, labels, is_finite(decision), is_late, is_whole,
        decision.overload_level, shed, decision.index, slices_of(labels), decision.scene,
    )  # fmt: skip


def labels_of(decision: Decision, bundle: Bundle) -> Labels:
    """All labels that hold: over their thresholds, or chosen."""
    found: set[tuple[str, str]] = set()
    told = [("scene_tags", decision.scene_tags), ("sound_events", decision.sound_events), *decision.heads]
    for head, readings in told:
        spec = bundle.head_specs.get(head)
        if spec is None or spec.kind == "onset" or not readings:
            continue
        if spec.kind == "single":
            found.add((head, max(readings, key=lambda reading: reading[1])[0]))
            continue
        thresholds = bundle.thresholds.get(head, [_DEFAULT_THRESHOLD] * len(readings))
        found.update((head, name) for (name, value), least in zip(readings, thresholds) if value >= least)
    least = min(float(bundle.thresholds.get("objects", _DEFAULT_THRESHOLD)) + _MEANT, 0.95)
    found.update(("objects", one.name) for one in decision.objects if one.probability >= least)
    return frozenset(found)


def slices_of(labels: Labels) -> tuple[str, ...]:
    """The slices that a frame counts in."""
    return (ALL, *(one for one in SLICES if any(("scene_tags", tag) in labels for tag in _TAGS.get(one, (one,)))))


def is_finite(decision: Decision) -> bool:
    """Whether a decision is made of numbers."""
    embedding = np.frombuffer(decision.embedding, "<f4")
    values = [value for _, value in (*decision.scene_tags, *decision.sound_events)]
    values += [value for _, readings in decision.heads for _, value in readings]
    return bool(np.isfinite(embedding).all()) and all(map(math.isfinite, values)) and math.isfinite(decision.hardness)


def is_over(elapsed_ns: int, period_ns: int) -> bool:
    """Whether a frame took too long; no longer than till the next one, or half of what a decision may take."""
    return elapsed_ns > 0.9 * min(period_ns, DEADLINE_NS)
