"""Who was right where a staged bundle and the active one differed: the analyst's word on the clip decides.

A vehicle tells what both said of a scene's hardest frame: labels that are more likely than not. Where only one of
them tells a label and the analyst's network, which sees more and looks forward in time too, is sure of it either way,
the other one was wrong. The analyst's own bundle has no say: it may be the active one, and nobody judges himself.

The active bundle chose the scene by its own doubts, so of two equal bundles it is the active one that errs a little
more often here: verdicts are slow to blame the staged one, and what they find better is no reason to promote it.

A verdict stands once it is written: the rollout counts it once, and a later analysis may not take that back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from cloud.labels import of_sound, of_tag
from cloud.tables import SCENES, VERDICTS
from edge.updates.evidence import SLICES

# The analyst is sure of a label from here, and sure that it does not hold up to the rest.
SURE: Final = 0.9
LIKELY: Final = 0.5
# A moment farther than this from the hardest frame says nothing of it.
MOST_APART_NS: Final = 500_000_000
# Labels of the analyst that make a scene part of a slice.
_SLICES: Final = {
    "night": ("light:night",),
    "rain": ("weather:rain",),
    "tunnel": ("place:tunnel",),
    "town": ("place:urban", "place:residential"),
    "highway": ("place:highway",),
}
assert set(_SLICES) == set(SLICES)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one scene.

    Attributes:
        worse: labels that the staged bundle alone told wrongly.
        better: that the active one alone did.
        slices: that the scene belongs to.
    """

    worse: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()


def verdict(active: Collection[str], staged: Collection[str], sure: Mapping[str, float]) -> Verdict:
    """Compare.

    Args:
        active, staged: labels that each told.
        sure: the analyst's probabilities; a label that is not among them is one that it does not know.
    """
    worse: list[str] = []
    better: list[str] = []
    for label in sorted({*active} ^ {*staged}):
        probability = sure.get(label, LIKELY)
        if probability >= SURE or probability <= 1.0 - SURE:
            staged_is_right = (label in staged) == (probability >= SURE)
            (better if staged_is_right else worse).append(label)
    places = (name for name, labels in _SLICES.items() if sum(sure.get(label, 0.0) for label in labels) >= LIKELY)
    return Verdict(tuple(worse), tuple(better), tuple(places))


def judge(
    connection: Connection,
    scene_id: int,
    stamps_ns: Sequence[int],
    labels: Sequence[Mapping[str, float]],
    known: Collection[str],
) -> Verdict | None:
    """Judge an analysed scene, once.

    Args:
        stamps_ns, labels: of the analysis' moments.
        known: labels that the network says; others come from a bundle.

    Returns:
        The verdict; None where there was nothing to judge: no staged bundle, no network, or no label that differs and
        of which the analyst is sure.
    """
    scene = connection.execute(select(SCENES).where(SCENES.c.id == scene_id)).one()
    if not scene.shadow or not known or not stamps_ns:
        return None
    at = min(range(len(stamps_ns)), key=lambda i: abs(stamps_ns[i] - scene.peak_ns))
    if abs(stamps_ns[at] - scene.peak_ns) > MOST_APART_NS:
        return None
    sure = {label: p for label, p in labels[at].items() if label in known}
    active = _told(scene.scene_tags, scene.sound_events)
    found = verdict(active, _told(scene.shadow["scene_tags"], scene.shadow["sound_events"]), sure)
    if not found.worse and not found.better:
        return None
    row = insert(VERDICTS).values(
        scene_id=scene_id, vehicle=scene.vehicle, active=scene.bundle_id, staged=scene.shadow["bundle_id"],
        worse=list(found.worse), better=list(found.better), slices=list(found.slices),
    )  # fmt: skip
    connection.execute(row.on_conflict_do_nothing())
    return found


def _told(tags: Sequence[Mapping[str, Any]], sounds: Sequence[Mapping[str, Any]]) -> set[str]:
    names = {of_tag(tag["name"]) for tag in tags if tag["probability"] >= LIKELY}
    return names | {of_sound(tag["name"]) for tag in sounds if tag["probability"] >= LIKELY}
