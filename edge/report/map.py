"""The way that the vehicle went, by its GNSS, coloured by how hard it was."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.report.grid import runs
from edge.report.history import History
from edge.report.markup import Child, Markup, el, number
from edge.report.words import clock, spoken

_EARTH_M: Final = 6_371_000.0
_MAX_POINTS: Final = 600
_WIDTH, _MARGIN = 640, 46
_LEAST_HEIGHT, _MOST_HEIGHT = 220, 400
# Scenes named beside the map.
_INDEX: Final = 10
# Steps of the colour scale.
LEVELS: Final = 6
# Below this the track is noise of a vehicle that stood still.
_MIN_EXTENT_M: Final = 3.0


def sketch(history: History) -> Markup | None:
    """The section; None where there is no GNSS."""
    track = history.track
    if len(track.stamps_ns) < 2:
        return None
    step = max(len(track.stamps_ns) // _MAX_POINTS, 1)
    stamps = track.stamps_ns[::step]
    east_m, north_m = metres(track.latitude_deg[::step], track.longitude_deg[::step])
    width_m, height_m = float(np.ptp(east_m)), float(np.ptp(north_m))
    across, up = max(width_m, _MIN_EXTENT_M), max(height_m, _MIN_EXTENT_M)
    scale = min((_WIDTH - 2 * _MARGIN) / across, (_MOST_HEIGHT - 2 * _MARGIN) / up)
    box_height = max(round(up * scale) + 2 * _MARGIN, _LEAST_HEIGHT)
    x = (east_m - east_m.min() - width_m / 2) * scale + _WIDTH / 2
    y = (north_m.max() - north_m - height_m / 2) * scale + box_height / 2
    hardness = np.interp(stamps.astype(np.float64), history.stamps_ns.astype(np.float64), history.hardness)
    drawing = el(
        "svg",
        _ways(x, y, hardness),
        _mark(x[0], y[0], "start", "start"),
        _mark(x[-1], y[-1], "end", "end") if abs(x[0] - x[-1]) + abs(y[0] - y[-1]) > 30 else None,
        _scene_marks(history, stamps, x, y),
        _scale_bar(scale, box_height),
        el("path", d=f"M{_WIDTH - 22} 34V12m-6 8l6-9 6 9", class_="north"),
        el("text", "N", x=_WIDTH - 22, y=47, text_anchor="middle"),
        el("circle", id="map-cursor", r=6, cx=-99, cy=-99),
        viewBox=f"0 0 {_WIDTH} {box_height}",
        role="img",
        aria_label="The track of the drive seen from above, coloured by hardness",
        class_="map",
        id="map",
        data_points=_points(history, stamps, x, y),
    )
    legend = el("p", "hardness ", [el("i", class_=f"h{i}") for i in range(LEVELS)], " 0 to 1", class_="legend")
    return el(
        "section",
        el("h2", "Where it was hard"),
        el("div", el("div", drawing, legend), _index(history), class_="pair"),
        id="where",
    )


def length_m(history: History) -> float:
    """How long the track is, with a fix a second at most, so that noise does not add up."""
    track = history.track
    if len(track.stamps_ns) < 2:
        return 0.0
    kept = np.flatnonzero(np.diff((track.stamps_ns - track.stamps_ns[0]) // 1_000_000_000, prepend=-1))
    east_m, north_m = metres(track.latitude_deg[kept], track.longitude_deg[kept])
    return float(np.hypot(np.diff(east_m), np.diff(north_m)).sum())


def _index(history: History) -> Markup | None:
    """The hardest scenes, as a table of contents."""
    hardest = sorted(history.scenes, key=lambda scene: -scene.peak_hardness)[:_INDEX]
    if not hardest:
        return None
    head = el("tr", [el("th", word, scope="col") for word in ("scene", "hardest", "at", "what became of it")])
    rows = [
        el(
            "tr",
            el("td", el("a", scene.number, href=f"#scene-{scene.number}")),
            el("td", f"{scene.peak_hardness:.2f}"),
            el("td", clock(history.seconds(scene.peak_ns), tenths=True)),
            el("td", spoken(scene)),
        )
        for scene in hardest
    ]
    return el("table", el("caption", "Hardest first"), el("thead", head), el("tbody", rows))


def metres(
    latitude_deg: NDArray[np.float64], longitude_deg: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """East and north of the first fix; flat, which is good for a city and fair for a country."""
    north_m = np.radians(latitude_deg - latitude_deg[0]) * _EARTH_M
    east_m = np.radians(longitude_deg - longitude_deg[0]) * _EARTH_M * np.cos(np.radians(latitude_deg[0]))
    return east_m, north_m


def _ways(x: NDArray[np.float64], y: NDArray[np.float64], hardness: NDArray[np.float64]) -> list[Markup]:
    levels = np.clip(hardness * LEVELS, 0, LEVELS - 1).astype(int)
    ways = []
    for first, last, level in runs(levels):
        points = " ".join(f"{number(a)},{number(b)}" for a, b in zip(x[first : last + 1], y[first : last + 1]))
        ways.append(el("polyline", points=points, class_=f"way h{level}"))
    return ways


def _mark(x: float, y: float, word: str, kind: str) -> Markup:
    return el(
        "g",
        el("circle", cx=number(x), cy=number(y), r=5, class_=kind),
        el("text", word, x=number(x), y=number(y + 22), text_anchor="middle"),
    )


def _scene_marks(history: History, stamps: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]) -> Child:
    marks = []
    for scene in history.scenes[:50]:
        i = int(np.abs(stamps - scene.peak_ns).argmin())
        shape = el("circle", cx=number(x[i]), cy=number(y[i]), r=10)
        word = el("text", scene.number, x=number(x[i]), y=number(y[i] + 4), text_anchor="middle")
        title = el("title", f"Scene {scene.number}, peak at {clock(history.seconds(scene.peak_ns), tenths=True)}")
        marks.append(el("a", title, shape, word, href=f"#scene-{scene.number}", class_=f"pin {scene.outcome}"))
    return marks


def _scale_bar(scale: float, height: int) -> Markup:
    extent_m = _WIDTH / scale / 1.5
    length_m = next((n for n in (5000, 2000, 1000, 500, 200, 100, 50, 20, 10, 5, 2, 1) if n < extent_m / 3), 1)
    if extent_m > 30_000:
        length_m = 10 ** int(np.log10(extent_m / 3))
    right = 16 + length_m * scale
    words = f"{length_m} m" if length_m < 1000 else f"{length_m / 1000:g} km"
    path = el("path", d=f"M16 {height - 20}v6H{number(right)}v-6", class_="scale")
    return el("g", path, el("text", words, x=number(right + 6), y=height - 12))


def _points(history: History, stamps: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Seconds and place of each point, for the cursor."""
    return " ".join(
        f"{number(history.seconds(int(stamp)), 2)},{number(a)},{number(b)}" for stamp, a, b in zip(stamps, x, y)
    )
