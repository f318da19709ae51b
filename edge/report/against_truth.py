"""Said against true, label by label, over the whole drive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.report.history import History
from edge.report.markup import Markup, el, number
from edge.report.words import percent

_LIKELY = 0.5
# Ground truth further than this from a frame is not of it.
_NEAR_NS = 60_000_000


def against_truth(history: History) -> Markup | None:
    """The section; None where the drive has no ground truth."""
    truth = history.truth
    if truth is None:
        return None
    rows, near = _rows(history, truth.stamps_ns)
    if not near.any():
        return None
    groups = (("Sees", history.scene_tags, truth.tags), ("Hears", history.sound_events, truth.sounds))
    body = [
        _line(group, name, said[name][near] >= _LIKELY, true[name][rows][near])
        for group, said, true in groups
        for name in said
        if name in true and (true[name][rows][near].any() or (said[name][near] >= _LIKELY).any())
    ]
    if not body:
        return None
    names = ("", "label", "true in", "said in", "found", "right")
    head = el("tr", [el("th", name, scope="col") for name in names])
    lead = (
        "Found: of the frames where it is true, the share that says so. Right: of those that say so, the share that is."
    )
    return el(
        "section",
        el("h2", "Against the ground truth"),
        el("p", lead),
        el("div", el("table", el("thead", head), el("tbody", body)), class_="scroll"),
        id="against-truth",
    )


def _rows(history: History, stamps_ns: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The truth nearest to each frame, and whether it is near enough."""
    after = np.searchsorted(stamps_ns, history.stamps_ns).clip(0, len(stamps_ns) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(stamps_ns[before] - history.stamps_ns) < np.abs(stamps_ns[after] - history.stamps_ns)
    rows = np.where(nearer, before, after)
    return rows, np.abs(stamps_ns[rows] - history.stamps_ns) <= _NEAR_NS


def _line(group: str, name: str, said: NDArray[np.bool_], true: NDArray[np.bool_]) -> Markup:
    hits = int((said & true).sum())
    found = hits / int(true.sum()) if true.any() else None
    right = hits / int(said.sum()) if said.any() else None
    return el(
        "tr",
        el("td", group, class_="muted"),
        el("th", name.replace("_", " "), scope="row"),
        el("td", percent(float(true.mean()))),
        el("td", percent(float(said.mean()))),
        _share(found),
        _share(right),
    )


def _share(share: float | None) -> Markup:
    if share is None:
        return el("td", "\u2013", class_="muted")
    bar = el("span", el("i", style=f"width:{number(100 * share)}%"), class_="meter", aria_hidden="true")
    return el("td", bar, " ", percent(share), class_="share")
