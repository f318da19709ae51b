"""The whole drive, one lane a quantity, all on one axis of time.

Each lane is a label and a plot. Curves and tags are stretched SVG paths, spans are elements placed by percent, so that
the page fits a phone and a wall alike. The values under the cursor come from `readout.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.report.grid import Grid, envelope
from edge.report.history import HardScene, History, Series, TruthColumns
from edge.report.lanes import stream_lanes
from edge.report.markup import Child, Markup, el, join, number
from edge.report.picture import Picture, data_uri
from edge.report.words import clock, percent, spoken

# A label takes part in the timeline once it was likely for so long; and no more labels than a person can follow.
_SHOWN_FROM_S: Final = 0.25
_MAX_TAG_LANES: Final = 14
LIKELY: Final = 0.5
# Shades of a tag: from this probability on.
_SHADES: Final = ((0.5, "p50"), (0.7, "p70"), (0.9, "p90"))
_MIN_SCENE_PERCENT: Final = 0.3


def timeline(history: History, grid: Grid, film: Sequence[Picture | None]) -> Markup:
    """The lanes, from what was decided down to what it rests on."""
    return el(
        "div",
        film_strip(film),
        el(
            "div",
            _axis(history.duration_s),
            _scenes(history),
            _hardness(history, grid),
            _tag_lanes(history, grid),
            _speed(history),
            _level(history),
            el("h3", "Sensors", class_="group"),
            stream_lanes(history),
            _labels(history, grid, history.doubts, {}, None, "doubt"),
            _overload(history, grid),
            el("div", el("i", id="cursor"), class_="overlay", aria_hidden="true"),
            class_="lanes",
            id="lanes",
            role="slider",
            tabindex=0,
            aria_label="Instant of the drive; arrow keys move by a frame, Page Up and Page Down by a second",
            aria_valuemin=0,
            aria_valuemax=number(history.duration_s, 3),
            aria_valuenow=0,
        ),
        class_="timeline",
    )


def film_strip(film: Sequence[Picture | None]) -> Markup | None:
    """Pictures over the drive; a hatched place where the camera gave none."""
    if not film:
        return None
    shots = [
        el("img", src=data_uri("image/jpeg", shot.jpeg), alt="", draggable="false") if shot else el("i", class_="gap")
        for shot in film
    ]
    return el("div", shots, class_="film", id="film", aria_hidden="true")


def lane(name: Child, *plot: Child, kind: str = "", note: Child = None) -> Markup:
    """One lane: its label, and its plot."""
    label = el("div", el("span", name), el("small", note) if note else None, class_="label")
    return el("div", label, el("div", *plot, class_="plot"), class_=f"lane {kind}".strip())


def steps(codes: NDArray[np.bool_], times_s: NDArray[np.float64], duration_s: float) -> str:
    """A path of full-height bars where `codes` is true, in a box of 1000 x 1."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], codes, [False])).astype(np.int8)))
    x = times_s[edges] * (1000.0 / duration_s)
    return "".join(f"M{number(a)} 0H{number(max(b, a + 0.4))}V1H{number(a)}z" for a, b in zip(x[::2], x[1::2]))


def plot_box(*content: Child, height: float = 1.0) -> Markup:
    """A box of 1000 x `height` that is stretched over the plot."""
    return el("svg", *content, viewBox=f"0 0 1000 {number(height)}", preserveAspectRatio="none", aria_hidden="true")


def curve(times_s: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any], top: float, duration_s: float) -> Markup:
    """A curve from 0 to `top` in a box of 1000 x 100: the area below its highest, the band between, a line."""
    if not len(times_s):
        return Markup("")
    x = [number(value) for value in times_s * (1000.0 / duration_s)]
    highs = [number(value, 2) for value in 100.0 - 100.0 * np.clip(high / top, 0.0, 1.0)]
    lows = [number(value, 2) for value in 100.0 - 100.0 * np.clip(low / top, 0.0, 1.0)]
    line = "L".join(f"{a} {b}" for a, b in zip(x, highs))
    area = el("path", d=f"M{x[0]} 100L{line}L{x[-1]} 100z", class_="area")
    band = None
    if lows != highs:
        back = "L".join(f"{a} {b}" for a, b in zip(reversed(x), reversed(lows)))
        band = el("path", d=f"M{line}L{back}z", class_="band")
    return plot_box(area, band, el("path", d=f"M{line}", class_="line"), height=100)


def _axis(duration_s: float) -> Markup:
    step_s = _tick_step(duration_s)
    ticks = [
        el("span", clock(at, tenths=step_s < 1), style=f"left:{number(100 * at / duration_s, 2)}%")
        for at in np.arange(0.0, duration_s * 0.985, step_s)
    ]
    return lane("", ticks, kind="axis")


def _tick_step(duration_s: float) -> float:
    for step_s in (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200):
        if duration_s / step_s <= 10:
            return step_s
    return duration_s / 10


def _scenes(history: History) -> Markup:
    marks = [_scene_mark(history, scene) for scene in history.scenes]
    note = None if marks else "none opened"
    return lane("Hard scenes", marks, kind="scenes", note=note)


def _scene_mark(history: History, scene: HardScene) -> Markup:
    duration_s = history.duration_s
    start_s, end_s = history.seconds(scene.first_ns), history.seconds(scene.last_ns + history.period_ns)
    left = min(100 * start_s / duration_s, 100 - _MIN_SCENE_PERCENT)
    width = min(max(100 * (end_s - start_s) / duration_s, _MIN_SCENE_PERCENT), 100 - left)
    said = f"Scene {scene.number}, {clock(start_s)} to {clock(end_s)}, {spoken(scene)}"
    return el(
        "a",
        el("span", scene.number),
        href=f"#scene-{scene.number}",
        class_=f"mark {scene.outcome}",
        style=f"left:{number(left, 3)}%;width:{number(width, 3)}%",
        title=said,
        aria_label=said,
    )


def _hardness(history: History, grid: Grid) -> Markup:
    peak = int(history.hardness.argmax())
    at_s = history.seconds(int(history.stamps_ns[peak]))
    drawn = curve(grid.times_s[:-1], grid.min(history.hardness), grid.max(history.hardness), 1.0, history.duration_s)
    scale = [el("span", word, class_="scale", style=f"top:{at}%") for word, at in (("1", 0), ("0.5", 50))]
    return lane(
        "Hardness",
        drawn,
        scale,
        kind="hardness",
        note=f"highest {history.hardness[peak]:.2f} at {clock(at_s, tenths=True)}",
    )


def _tag_lanes(history: History, grid: Grid) -> Markup:
    truth = history.truth
    sounds = _labels(history, grid, history.sound_events, truth.sounds if truth else {}, truth, "sound")
    scenes = _labels(history, grid, history.scene_tags, truth.tags if truth else {}, truth, "tag")
    key = el("small", "bar: said, darker is surer", "; thin line: true" if truth else None)
    parts: list[Child] = []
    if scenes:
        parts += [el("h3", "Scene tags", key, class_="group"), scenes]
    if sounds:
        parts += [el("h3", "Sound events", class_="group"), sounds]
    return join(parts)


def _labels(
    history: History,
    grid: Grid,
    said: dict[str, NDArray[np.float32]],
    true: dict[str, NDArray[np.bool_]],
    truth: TruthColumns | None,
    kind: str,
) -> list[Markup]:
    """A lane for each label that was likely, or true, for a while."""
    frame_s = history.period_ns / 1e9
    likely_s = {name: float((values >= LIKELY).sum()) * frame_s for name, values in said.items()}
    shown = [name for name in said if likely_s[name] >= _SHOWN_FROM_S or true.get(name, np.zeros(1)).any()]
    shown = sorted(sorted(shown, key=lambda name: -likely_s[name])[:_MAX_TAG_LANES], key=list(said).index)
    lanes = []
    for name in shown:
        values = grid.max(said[name])
        paths: list[Child] = [
            el("path", d=steps(values >= floor, grid.times_s, history.duration_s), class_=shade)
            for floor, shade in _SHADES
        ]
        plots: list[Child] = [plot_box(*paths)]
        if truth is not None and name in true:
            nearest = grid.at(Series(truth.stamps_ns, true[name].astype(np.float32))) > 0.5
            path = el("path", d=steps(nearest, grid.times_s, history.duration_s), class_="true")
            plots.append(el("div", plot_box(path), class_="truth"))
        share = likely_s[name] / history.duration_s
        lanes.append(lane(name.replace("_", " "), *plots, kind=f"label-lane {kind}", note=percent(share)))
    return lanes


def _speed(history: History) -> Markup | None:
    times_s, low, high = envelope(history, history.speed_mps)
    if not len(times_s):
        return None
    top = max(float(high.max()) * 1.1, 5.0)
    drawn = curve(times_s, np.maximum(low, 0), np.maximum(high, 0), top, history.duration_s)
    return lane("Speed", drawn, kind="speed", note=f"up to {float(high.max()) * 3.6:.0f} km/h")


def _level(history: History) -> Markup | None:
    times_s, low, high = envelope(history, history.sound_dbfs)
    if not len(times_s):
        return None
    drawn = curve(times_s, low + 70.0, high + 70.0, 70.0, history.duration_s)
    return lane("Sound level", drawn, kind="level", note=f"up to {float(high.max()):.0f} dBFS")


def _overload(history: History, grid: Grid) -> Markup:
    worst = int(history.overload.max())
    if not worst:
        return lane("Overload", el("i", class_="idle"), kind="stream", note="never")
    drawn = curve(grid.times_s[:-1], grid.min(history.overload), grid.max(history.overload), 3.0, history.duration_s)
    return lane("Overload", drawn, kind="overload", note=f"up to level {worst}")
