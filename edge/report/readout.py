"""The values behind the cursor: a column of the timeline each, as compact JSON for `page.js`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.report.grid import Grid
from edge.report.history import History, Series, TruthColumns
from edge.report.lanes import missing
from edge.report.markup import Markup, el, json_for_script


def readout() -> Markup:
    """The panel that `page.js` fills."""
    facts = [
        el("div", el("dt", name), el("dd", id=f"at-{key}"), class_=f"fact {key}")
        for key, name in (("reasons", "Why"), ("tags", "Sees"), ("sounds", "Hears"), ("gone", "Missing"))
    ]
    return el(
        "div",
        el(
            "div",
            el("output", "0:00.0", id="at-time"),
            el("div", el("b", id="at-hardness"), " hardness", el("i", el("i", id="at-bar"), class_="meter")),
            el("div", id="at-scene", class_="muted"),
            el("div", id="at-motion", class_="muted"),
            el("div", id="at-latency", class_="muted"),
            class_="now",
        ),
        el("dl", facts),
        el("img", id="at-picture", alt="", hidden=True),
        el("p", id="at-truth", hidden=True),
        class_="readout",
        id="readout",
        role="status",
        aria_live="off",
    )


def columns_json(history: History, grid: Grid, film_count: int) -> Markup:
    """All columns."""
    truth = history.truth
    latency_ms = (history.emitted_ns - history.stamps_ns) / 1e6
    columns: dict[str, Any] = {
        "duration": round(history.duration_s, 3),
        "period": round(history.period_ns / 1e9, 4),
        "film": film_count,
        "t": _rounded(grid.times_s[:-1], 3),
        "hardness": _percents(grid.max(history.hardness)),
        "scene": grid.max(history.scene).tolist(),
        "overload": grid.max(history.overload).tolist(),
        "latency": _rounded(np.clip(grid.max(latency_ms), -1e9, 1e9), 1),
        "speed": _rounded(grid.at(history.speed_mps) * 3.6, 1) if len(history.speed_mps) else None,
        "scores": {name: _percents(grid.max(values)) for name, values in history.scores.items() if values.any()},
        "tags": {name: _percents(grid.max(values)) for name, values in history.scene_tags.items()},
        "sounds": {name: _percents(grid.max(values)) for name, values in history.sound_events.items()},
        "gone": {name: _why(history, grid, name) for name in history.streams},
        "absences": history.absences,
        "scenes": {str(scene.number): scene.outcome for scene in history.scenes},
        "start": round(_start_s(history), 3),
        "truth": _truth(truth, grid) if truth else None,
    }
    return el("script", json_for_script(columns), type="application/json", id="columns")


def _start_s(history: History) -> float:
    """Where the cursor stands at first: at the hardest moment."""
    return history.seconds(int(history.stamps_ns[int(history.hardness.argmax())]))


def _why(history: History, grid: Grid, stream: str) -> list[int]:
    """Index of the reason where a stream is missing, 0 elsewhere."""
    shed = history.absences.index("shed") if "shed" in history.absences else -1
    codes = history.streams[stream]
    shown = np.where(missing(history, stream) | (codes == shed), codes, 0)
    why: list[int] = grid.max(shown).tolist()
    return why if any(why) else []


def _truth(truth: TruthColumns, grid: Grid) -> dict[str, Any]:
    said = grid.at(Series(truth.stamps_ns, truth.captions.astype(np.float32))).astype(int).tolist()
    used = sorted(set(said))
    return {
        "sentences": [truth.sentences[number] for number in used],
        "captions": [used.index(number) for number in said] if len(used) < 2000 else [0] * len(said),
        "tags": _true_labels(truth.tags, truth, grid),
        "sounds": _true_labels(truth.sounds, truth, grid),
    }


def _true_labels(labels: dict[str, NDArray[np.bool_]], truth: TruthColumns, grid: Grid) -> dict[str, str]:
    """A string of 0 and 1 for each label."""
    return {
        name: "".join("1" if value > 0.5 else "0" for value in grid.at(Series(truth.stamps_ns, on.astype(np.float32))))
        for name, on in labels.items()
    }


def _percents(values: NDArray[np.float32]) -> list[int]:
    percents: list[int] = np.rint(values * 100).astype(int).tolist()
    return percents


def _rounded(values: Sequence[float] | NDArray[Any], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
