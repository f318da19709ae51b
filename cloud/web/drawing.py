"""A clip's curves as SVG: the timeline's lanes, the waveform, the way it drove.

Nothing here carries a style: the pages' policy allows none. Colours come from classes, places from attributes; a place
along the time axis is a percentage, so that the same drawing fits a phone and a wall.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup as Safe
from numpy.typing import NDArray

from cloud.labels import of_sound, of_tag
from cloud.web import words
from cloud.web.clips import Reel
from cloud.web.scenes import Scene, rank
from edge.report import sound
from edge.report.grid import envelope, runs
from edge.report.history import History, Series
from edge.report.map import LEVELS, metres
from edge.report.markup import Markup, el, number
from edge.report.words import clock

# A label has a lane once it was likely for so long; and no more lanes than a person can follow.
_SHOWN_FROM_S: Final = 0.25
_MAX_LANES: Final = 16
_LIKELY: Final = 0.5
_SHADES: Final = ((0.5, "p50"), (0.7, "p70"), (0.9, "p90"))
_WAVE_COLUMNS: Final = 900
# Parts of the hardness below this never mattered.
_LEAST_PART: Final = 0.03
_STEPS_S: Final = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_MAP_WIDTH, _MAP_HEIGHT, _MAP_MARGIN = 520, 320, 40
_MAP_POINTS: Final = 400
_LEAST_EXTENT_M: Final = 3.0


@dataclass(frozen=True, slots=True)
class Lane:
    """A quantity over time.

    Attributes:
        kind: class of the lane; the stylesheet knows its height and colour.
        note: a figure beside the name.
        said: what a reader who does not see the drawing is told.
    """

    name: str
    kind: str
    drawing: Safe
    note: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Lanes of one sort."""

    name: str
    lanes: list[Lane]


def timeline(reel: Reel, scene: Scene, moments: Sequence[tuple[int, dict[str, float]]]) -> list[Group]:
    """The lanes of a scene, from what was decided down to what it rests on."""
    groups = [Group("", [_axis(reel), _span(reel, scene)])]
    history = reel.history
    if history is not None:
        groups[0].lanes.append(_hardness(reel, history, scene))
        parts = {name: values for name, values in history.scores.items() if values.max(initial=0) >= _LEAST_PART}
        ordered = sorted(parts, key=lambda name: -float(parts[name].max()))
        groups.append(Group("What made it hard", [_part(reel, history, name, parts[name]) for name in ordered]))
        told = {of_tag(name): values for name, values in history.scene_tags.items()}
        told |= {of_sound(name): values for name, values in history.sound_events.items()}
        groups.append(Group("On board", _labels(reel, history.stamps_ns, told)))
    if moments:
        stamps, columns = _columns(moments)
        groups.append(Group("The cloud's analyst", _labels(reel, stamps, columns)))
    if history is not None:
        curves = [_curve(reel, history, history.speed_mps, "speed", "Speed", 3.6, "km/h")]
        curves.append(_curve(reel, history, history.sound_dbfs, "level", "Sound level", 1.0, "dB"))
        groups.append(Group("Vehicle", [curve for curve in curves if curve is not None]))
    return [group for group in groups if group.lanes]


def waveform(samples: NDArray[np.float32]) -> Safe:
    """The outline of a sound."""
    low, high = sound.outline(samples, _WAVE_COLUMNS)
    loudest = max(float(np.abs(samples).max(initial=0.0)), 0.02)
    bars = "".join(
        f"M{x} {number(50 - 47 * max(up, 0.012) / loudest)}V{number(50 - 47 * min(down, -0.012) / loudest)}"
        for x, (down, up) in enumerate(zip(low, high))
    )
    return Safe(el("svg", el("path", d=bars), viewBox=f"0 0 {max(len(low), 1)} 100", preserveAspectRatio="none",
                   aria_hidden="true", focusable="false"))  # fmt: skip


def way(reel: Reel, scene: Scene) -> Safe | None:
    """The GNSS track seen from above, coloured by hardness; None where there is none."""
    history = reel.history
    if history is None or len(history.track.stamps_ns) < 2:
        return None
    track = history.track
    step = max(len(track.stamps_ns) // _MAP_POINTS, 1)
    stamps = track.stamps_ns[::step]
    east_m, north_m = metres(track.latitude_deg[::step], track.longitude_deg[::step])
    across = max(float(np.ptp(east_m)), _LEAST_EXTENT_M)
    up = max(float(np.ptp(north_m)), _LEAST_EXTENT_M)
    scale = min((_MAP_WIDTH - 2 * _MAP_MARGIN) / across, (_MAP_HEIGHT - 2 * _MAP_MARGIN) / up)
    x = (east_m - (east_m.min() + east_m.max()) / 2) * scale + _MAP_WIDTH / 2
    y = ((north_m.min() + north_m.max()) / 2 - north_m) * scale + _MAP_HEIGHT / 2
    hardness = np.interp(stamps.astype(np.float64), history.stamps_ns.astype(np.float64), history.hardness)
    levels = np.clip(hardness * LEVELS, 0, LEVELS - 1).astype(int)
    lines = [
        el("polyline", points=_points(x[first : last + 1], y[first : last + 1]), class_=f"way h{level}")
        for first, last, level in runs(levels)
    ]  # fmt: skip
    peak = int(np.abs(stamps - scene.peak_ns).argmin())
    return Safe(
        el(
            "svg",
            _grid(scale),
            lines,
            el("circle", cx=number(x[0]), cy=number(y[0]), r=5, class_="start"),
            el("circle", cx=number(x[-1]), cy=number(y[-1]), r=5, class_="end"),
            el("g", el("title", "The hardest frame"), el("circle", cx=number(x[peak]), cy=number(y[peak]), r=9),
               class_="pin"),
            _scale_bar(scale),
            el("path", d=f"M{_MAP_WIDTH - 22} 34V12m-6 8l6-9 6 9", class_="north"),
            el("text", "N", x=_MAP_WIDTH - 22, y=48, text_anchor="middle"),
            el("circle", id="map-cursor", r=6, cx=-99, cy=-99),
            viewBox=f"0 0 {_MAP_WIDTH} {_MAP_HEIGHT}",
            role="img",
            aria_label="The way that the vehicle drove in this clip, seen from above, north up, coloured by hardness",
            class_="map",
            id="map",
            data_points=" ".join(
                f"{number(reel.seconds(int(stamp)), 2)},{number(a)},{number(b)}" for stamp, a, b in zip(stamps, x, y)
            ),
        )
    )  # fmt: skip


def percent(reel: Reel, instant_ns: int) -> str:
    """Where an instant lies on the axis."""
    share = min(max(reel.seconds(instant_ns) / reel.duration_s, 0.0), 1.0)
    return f"{number(100 * share, 3)}%"


def _axis(reel: Reel) -> Lane:
    step_s = next((step for step in _STEPS_S if reel.duration_s / step <= 11), 1200)
    ticks = []
    for i in range(int(reel.duration_s / step_s) + 1):
        at = f"{number(100 * i * step_s / reel.duration_s, 3)}%"
        ticks.append(el("line", x1=at, x2=at, y1="30%", y2="100%"))
        if 100 * i * step_s / reel.duration_s < 96:
            ticks.append(el("text", clock(i * step_s, tenths=step_s < 1), x=at, y="12", dx="4"))
    return Lane("", "axis", _drawn(ticks))


def _span(reel: Reel, scene: Scene) -> Lane:
    start, end = reel.seconds(scene.first_ns) / reel.duration_s, reel.seconds(scene.last_ns) / reel.duration_s
    start, end = (min(max(at, 0.0), 1.0) for at in (start, end))
    bar = el("rect", x=_share(start), width=_share(max(end - start, 0.004)), y="18%", height="64%", rx="4")
    said = (
        f"from {clock(reel.seconds(scene.first_ns), tenths=True)} to {clock(reel.seconds(scene.last_ns), tenths=True)}"
    )
    return Lane("Hard scene", "span", _drawn([bar, el("title", said)]), f"{scene.duration_s:.1f} s", said)


def _hardness(reel: Reel, history: History, scene: Scene) -> Lane:
    x = (history.stamps_ns - reel.first_ns) / 1e9 / reel.duration_s * 1000
    at = percent(reel, scene.peak_ns)
    peak = el("line", x1=at, x2=at, y1="0", y2="100%", class_="peak")
    middle = el("line", x1="0", x2="100%", y1="50%", y2="50%", class_="half")
    said = f"highest {scene.hardness:.2f} at {clock(reel.seconds(scene.peak_ns), tenths=True)}"
    drawing = _drawn([middle, _area(x, history.hardness), peak, el("title", said)])
    return Lane("Hardness", "hardness", drawing, f"{scene.hardness:.2f}", said)


def _part(reel: Reel, history: History, name: str, values: NDArray[np.float32]) -> Lane:
    x = (history.stamps_ns - reel.first_ns) / 1e9 / reel.duration_s * 1000
    most = float(values.max())
    said = f"{words.why_hard(name)}: up to {most:.2f}"
    return Lane(name.replace("_", " "), "part", _drawn([_area(x, values), el("title", said)]), f"{most:.2f}", said)


def _labels(reel: Reel, stamps_ns: NDArray[np.int64], columns: dict[str, NDArray[np.float32]]) -> list[Lane]:
    """A lane for each label that was likely for a while: what was seen before what was heard, longest first."""
    if not len(stamps_ns):
        return []
    step_s = float(np.median(np.diff(stamps_ns))) / 1e9 if len(stamps_ns) > 1 else reel.duration_s
    shares = {label: float((values >= _LIKELY).mean()) for label, values in columns.items()}
    shown = [label for label in shares if shares[label] * len(stamps_ns) * step_s >= _SHOWN_FROM_S]
    shown = sorted(shown, key=lambda label: rank((label, shares[label])))[:_MAX_LANES]
    shown.sort(key=lambda label: (label.startswith("sound:"), -shares[label]))
    return [_label(reel, stamps_ns, step_s, label, columns[label], shares[label]) for label in shown]


def _label(
    reel: Reel, stamps_ns: NDArray[np.int64], step_s: float, label: str, values: NDArray[np.float32], share: float
) -> Lane:
    shades = np.digitize(values, [at for at, _ in _SHADES])
    bars = []
    for first, last, shade in runs(shades):
        if shade:
            start = reel.seconds(int(stamps_ns[first])) / reel.duration_s
            end = (reel.seconds(int(stamps_ns[last - 1])) + step_s) / reel.duration_s
            start, end = min(max(start, 0.0), 1.0), min(max(end, 0.0), 1.0)
            since, most = clock(start * reel.duration_s, tenths=True), values[first:last].max()
            said = f"{words.said(label)}, from {since}: up to {most:.2f}"
            bars.append(el("rect", el("title", said), x=_share(start), width=_share(max(end - start, 0.002)), y="20%",
                           height="60%", class_=_SHADES[shade - 1][1]))  # fmt: skip
    told = f"likely for {words.percent(share)} of the clip"
    return Lane(words.said(label), f"label-lane {words.sense(label)}", _drawn(bars), words.percent(share), told)


def _curve(reel: Reel, history: History, series: Series, kind: str, name: str, factor: float, unit: str) -> Lane | None:
    times, low, high = envelope(history, series)
    if not len(times):
        return None
    values = (low + high) / 2 * factor
    least, most = float(values.min()), float(values.max())
    x = (times + reel.seconds(history.first_ns)) / reel.duration_s * 1000
    shown = (values - least) / max(most - least, 1e-6) * 0.9 + 0.05
    said = f"{least:.0f} to {most:.0f} {unit}"
    return Lane(name, kind, _drawn([_area(x, shown), el("title", said)]), said, said)


def _columns(
    moments: Sequence[tuple[int, dict[str, float]]],
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]:
    names = sorted({label for _, labels in moments for label in labels})
    stamps = np.array([instant for instant, _ in moments], np.int64)
    return stamps, {name: np.array([labels.get(name, 0.0) for _, labels in moments], np.float32) for name in names}


def _area(x: NDArray[np.float64], values: NDArray[Any]) -> Markup:
    """A curve of 0..1 over 0..1000, filled down to the ground; stretched to its place."""
    points = "L".join(f"{number(a)} {number(100 - 96 * b)}" for a, b in zip(x, np.clip(values, 0, 1)))
    filled = el("path", d=f"M{number(float(x[0]))} 100L{points}L{number(float(x[-1]))} 100Z", class_="area")
    line = el("path", d=f"M{points}", class_="line")
    return el("svg", filled, line, viewBox="0 0 1000 100", preserveAspectRatio="none", width="100%", height="100%")


def _drawn(parts: Iterable[Markup]) -> Safe:
    return Safe(el("svg", list(parts), aria_hidden="true", focusable="false", width="100%", height="100%"))


def _share(share: float) -> str:
    return f"{number(100 * share, 3)}%"


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return " ".join(f"{number(a)},{number(b)}" for a, b in zip(x, y))


def _grid(scale: float) -> Markup:
    """Faint lines a round number of metres apart."""
    step = _round_length(_MAP_WIDTH / scale / 5) * scale
    lines = [f"M{number(x)} 0V{_MAP_HEIGHT}" for x in np.arange(_MAP_WIDTH / 2 % step, _MAP_WIDTH, step)]
    lines += [f"M0 {number(y)}H{_MAP_WIDTH}" for y in np.arange(_MAP_HEIGHT / 2 % step, _MAP_HEIGHT, step)]
    return el("path", d="".join(lines), class_="grid")


def _scale_bar(scale: float) -> Markup:
    length_m = _round_length(_MAP_WIDTH / scale / 4)
    right = 16 + length_m * scale
    said = f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km"
    path = el("path", d=f"M16 {_MAP_HEIGHT - 20}v6H{number(right)}v-6", class_="scale")
    return el("g", path, el("text", said, x=number(right + 6), y=_MAP_HEIGHT - 12))


def _round_length(most_m: float) -> float:
    """The largest 1, 2 or 5 times a power of ten below."""
    power = 10.0 ** np.floor(np.log10(max(most_m, 1e-3)))
    return float(next(factor * power for factor in (5, 2, 1) if factor * power <= most_m * 1.0001 or factor == 1))
