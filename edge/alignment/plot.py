"""The picture of an alignment, as SVG: both signals, the path over the cost matrix, what speaks for each offset, drift.

The cost matrix is drawn sheared: across is the picture's time, up is how much later the sound is. The diagonal is then
a level line at 0, and an offset a line above or below it.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.alignment.job import Alignment, words_of
from edge.alignment.methods import Aligned
from edge.alignment.offset import STEP_NS
from edge.alignment.series import F64
from edge.report.markup import Child, Markup, el, join, number

_WIDTH: Final = 960
_LEFT, _RIGHT, _GAP = 64, 16, 44
_SIGNALS, _MATRIX, _SCORES, _OVER = 120, 220, 130, 130  # heights of the panels
_TITLE: Final = 84
_PICTURE_COLOUR, _SOUND_COLOUR, _SURE = "#00705a", "#8a3d8f", "#c4450c"
_RULES: Final = {
    "text": "font:12px ui-sans-serif,system-ui,'Segoe UI',Roboto,'Noto Sans',sans-serif;fill:#646b73",
    ".title": "font-size:17px;font-weight:600;fill:#1b1f24",
    ".panel": "font-size:13px;font-weight:600;fill:#1b1f24",
    ".frame": "fill:none;stroke:#e3dfd6",
    ".zero": "stroke:#646b73;stroke-dasharray:2 4",
    ".picture": f"fill:none;stroke:{_PICTURE_COLOUR};stroke-width:1.3",
    ".sound": f"fill:none;stroke:{_SOUND_COLOUR};stroke-width:1.3",
    ".path": f"fill:none;stroke:{_SURE};stroke-width:2;stroke-linejoin:round",
    ".told": f"stroke:{_SURE};stroke-width:1.5;stroke-dasharray:5 4",
    ".chance": "fill:#9fb0bd;fill-opacity:.35",
    ".score": "fill:none;stroke:#0a64a8;stroke-width:1.6",
    ".sure": f"fill:{_SURE}",
    ".unsure": "fill:none;stroke:#9fb0bd;stroke-width:1.5",
}
# On a page the rules hold inside the figure alone.
_STYLE: Final = "".join(f".alignment {name}{{{rule}}}" for name, rule in _RULES.items())


def plot(found: Alignment, *, standalone: bool = False) -> Markup:
    """The whole figure.

    Args:
        standalone: a file of its own, on paper; else an element of a page.
    """
    panels: list[tuple[Markup, int]] = []
    if found.shown is not None:
        panels.append((_signals(found.shown), _SIGNALS))
        if found.shown.warp is not None:
            panels.append((_matrix(found.shown, found.settings.max_lag_ns), _MATRIX))
    if found.evidence is not None:
        panels.append((_scores(found), _SCORES))
    if len(found.stretches) > 1 or not panels:
        panels.append((_over_time(found), _OVER))
    parts: list[Child] = []
    y = _TITLE
    for panel, height in panels:
        parts.append(el("g", panel, transform=f"translate({_LEFT} {y})"))
        y += height + _GAP
    where = f"{found.path.name}: method {found.settings.method}, level {found.settings.level}"
    words = words_of(found)
    if found.drift is not None:
        words += f", drift {found.drift.ppm:+.0f} ± {found.drift.std_ppm:.0f} ppm"
    figure = el(
        "svg",
        el("style", Markup(_STYLE)),
        el("rect", width=_WIDTH, height=y, fill="#fbfaf7", rx=10),
        el("text", words, x=_LEFT, y=26, class_="title"),
        el("text", where, x=_LEFT, y=44),
        parts,
        viewBox=f"0 0 {_WIDTH} {y}",
        xmlns="http://www.w3.org/2000/svg" if standalone else None,
        role="img",
        aria_label=words,
        class_="alignment",
    )
    return Markup(f'<?xml version="1.0" encoding="UTF-8"?>\n{figure}\n') if standalone else figure


def _signals(shown: Aligned) -> Markup:
    """Both signals, the sound moved by the offset: what belongs together stands one above the other."""
    start_ns, span_ns = _span(shown)
    late_ns = shown.offset.offset_ns
    curves = []
    for series, moved_ns, name in ((shown.sound, late_ns, "sound"), (shown.picture, 0, "picture")):
        times = (series.stamps_ns - moved_ns - start_ns) / span_ns
        inside = (times >= 0.0) & (times <= 1.0)
        curves.append(_curve(times[inside], _unit(series.values[inside, 0]), _SIGNALS, name))
    return join(
        el("text", "Surest stretch: ", el("tspan", "change of the picture", fill=_PICTURE_COLOUR), " and ",
           el("tspan", "level of the sound", fill=_SOUND_COLOUR), f", the sound moved by {-late_ns / 1e6:+.0f} ms",
           y=-8, class_="panel"),
        _frame(_SIGNALS), curves, _time_axis(start_ns, span_ns, _SIGNALS),
    )  # fmt: skip


def _matrix(shown: Aligned, max_lag_ns: int) -> Markup:
    """Cost by the picture's time and by lag, light where both say the same, and the path on it."""
    assert shown.warp is not None
    start_ns, span_ns = _span(shown)
    lags = max_lag_ns // STEP_NS
    costs = _costs(shown, lags)
    warp = shown.warp
    x = (warp.stamps_ns[:, 0] - start_ns) / span_ns
    y = 0.5 - 0.5 * warp.lags_ns / max_lag_ns
    ticks = [(0.5 - 0.5 * at / 4, _signed(at / 4 * max_lag_ns)) for at in (-4, -2, 0, 2, 4)]
    return join(
        el("text", "Cost of taking two instants for one, and the path of least cost", y=-8, class_="panel"),
        el("image", href=_png(_shaded(costs)), width=_inner(), height=_MATRIX, preserveAspectRatio="none"),
        _level_line(0.5, _MATRIX, "zero"),
        el("path", d=_points(x, np.clip(y, 0.0, 1.0), _MATRIX), class_="path"),
        _frame(_MATRIX), _labels(ticks, _MATRIX, "ms later"), _time_axis(start_ns, span_ns, _MATRIX),
    )  # fmt: skip


def cost_picture(shown: Aligned, max_lag_ns: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The matrix as a (lags, instants, 3) BGR picture, and the path in its pixels, (k, 2) across and down."""
    assert shown.warp is not None
    image = _shaded(_costs(shown, max_lag_ns // STEP_NS))
    across = (shown.warp.stamps_ns[:, 0] - shown.picture.stamps_ns[0]) / STEP_NS
    down = (max_lag_ns - shown.warp.lags_ns) / STEP_NS
    return image, np.stack([across + 0.5, down + 0.5], 1).astype(np.float32)


def _costs(shown: Aligned, lags: int) -> F64:
    """(2 lags + 1, picture instants) squared difference, the largest lag first; NaN where there is no sound."""
    picture, sound = shown.picture, shown.sound
    at = picture.stamps_ns[None] + STEP_NS * np.arange(lags, -lags - 1, -1)[:, None]
    values = np.interp(at, sound.stamps_ns, sound.values[:, 0])
    costs: F64 = np.square(values - picture.values[:, 0])
    costs[(at < sound.stamps_ns[0]) | (at > sound.stamps_ns[-1])] = np.nan
    return costs


def _scores(found: Alignment) -> Markup:
    """What speaks for each offset, and what sounds without a relation to the picture reach."""
    assert found.evidence is not None
    evidence = found.evidence
    low, high = evidence.scores[1:].min(0), evidence.scores[1:].max(0)
    bottom, top = float(min(low.min(), evidence.scores[0].min())), float(max(high.max(), evidence.scores[0].max()))
    scale = max(top - bottom, 1e-9)
    x = (evidence.lags_ns - evidence.lags_ns[0]) / np.ptp(evidence.lags_ns)
    band = _points(np.concatenate([x, x[::-1]]), 1 - (np.concatenate([high, low[::-1]]) - bottom) / scale, _SCORES)
    told = (found.offset.offset_ns - evidence.lags_ns[0]) / np.ptp(evidence.lags_ns) * _inner()
    ticks = [el("text", f"{_signed(at)} ms", x=number(share * _inner()), y=_SCORES + 15, text_anchor=anchor)
             for at, share, anchor in _lag_ticks(int(evidence.lags_ns[-1]))]  # fmt: skip
    return join(
        el("text", "What speaks for each offset; grey: what unrelated sounds reach", y=-8, class_="panel"),
        el("path", d=f"{band}z", class_="chance"),
        el("path", d=_points(x, 1 - (evidence.scores[0] - bottom) / scale, _SCORES), class_="score"),
        el("line", x1=number(told), x2=number(told), y1=0, y2=_SCORES, class_="told"),
        _frame(_SCORES), ticks,
    )  # fmt: skip


def _over_time(found: Alignment) -> Markup:
    """Each stretch's own offset, and the line of drift."""
    stretches = found.stretches
    start_ns = min(one.start_ns for one in stretches)  # not the first one's, where a clock went back
    span_ns = max(max(one.end_ns for one in stretches) - start_ns, 1)
    most_ns = found.settings.max_lag_ns
    dots: list[Child] = []
    for one in stretches:
        if one.offset is None:
            continue
        x = (0.5 * (one.start_ns + one.end_ns) - start_ns) / span_ns * _inner()
        y = (0.5 - 0.5 * one.offset.offset_ns / most_ns) * _OVER
        title = el("title", f"{one.offset.offset_ns / 1e6:+.0f} ms, confidence {one.offset.confidence:.2f}")
        dots.append(el("circle", title, cx=number(x), cy=number(y), r=4.5 if one.offset.is_sure else 3.5,
                       class_="sure" if one.offset.is_sure else "unsure"))  # fmt: skip
    if found.drift is not None:
        reach = 0.5 * found.drift.ppm * 1e-6 * span_ns
        ends = [(0.5 - 0.5 * (found.offset.offset_ns + sign * reach) / most_ns) * _OVER for sign in (-1, 1)]
        dots.append(el("line", x1=0, x2=_inner(), y1=number(ends[0]), y2=number(ends[1]), class_="told"))
    ticks = [(0.5 - 0.5 * at / 2, _signed(at / 2 * most_ns)) for at in (-2, -1, 0, 1, 2)]
    return join(
        el("text", "Offset of each stretch; filled: sure by itself", y=-8, class_="panel"),
        _level_line(0.5, _OVER, "zero"), dots, _frame(_OVER), _labels(ticks, _OVER, "ms later"),
        _time_axis(start_ns, span_ns, _OVER, start_ns),
    )  # fmt: skip


def _span(shown: Aligned) -> tuple[int, int]:
    stamps_ns = shown.picture.stamps_ns
    return int(stamps_ns[0]), max(int(stamps_ns[-1] - stamps_ns[0]), 1)


def _unit(values: F64) -> F64:
    """Downwards from 1 to 0, for a curve."""
    low, high = float(values.min()), float(values.max())
    found: F64 = 0.96 - 0.92 * (values - low) / max(high - low, 1e-9)
    return found


def _curve(x: F64, y: F64, height: int, name: str) -> Markup:
    return el("path", d=_points(x, y, height), class_=name)


def _points(x: F64, y: F64, height: int) -> str:
    rows = zip((x * _inner()).tolist(), (y * height).tolist())
    return "M" + "L".join(f"{number(a)} {number(b)}" for a, b in rows)


def _shaded(costs: F64) -> NDArray[np.uint8]:
    """(rows, columns, 3) BGR, light where the cost is low; another shade where there is none."""
    known = costs[np.isfinite(costs)]
    dark = np.clip(costs / max(float(np.quantile(known, 0.95)), 1e-9), 0.0, 1.0) if len(known) else costs
    paper, ink = np.array([247.0, 250.0, 251.0]), np.array([74.0, 52.0, 31.0])
    image = paper + np.sqrt(np.nan_to_num(dark))[..., None] * (ink - paper)
    image[~np.isfinite(costs)] = (214, 223, 227)
    return np.asarray(image, np.uint8)


def _png(image: NDArray[np.uint8]) -> str:
    """A picture as the address of a PNG."""
    raw: NDArray[Any] = cv2.imencode(".png", image)[1]
    return f"data:image/png;base64,{base64.b64encode(raw.tobytes()).decode()}"


def _frame(height: int) -> Markup:
    return el("rect", width=_inner(), height=height, class_="frame")


def _level_line(share: float, height: int, name: str) -> Markup:
    return el("line", x1=0, x2=_inner(), y1=number(share * height), y2=number(share * height), class_=name)


def _labels(ticks: list[tuple[float, str]], height: int, unit: str) -> list[Markup]:
    rows = [el("text", text, x=-6, y=number(share * height + 4), text_anchor="end") for share, text in ticks]
    turned = f"rotate(-90 {-50} {height // 2})"
    return [*rows, el("text", unit, x=-50, y=height // 2, text_anchor="middle", transform=turned)]


def _time_axis(start_ns: int, span_ns: int, height: int, origin_ns: int = 0) -> list[Markup]:
    """Seconds of the recording's clock, or since `origin_ns`."""
    span_s = span_ns / 1e9
    step_s = next((step for step in (0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800) if span_s / step <= 12), 3600)
    first_s = (start_ns - origin_ns) / 1e9
    at = np.arange(np.ceil(first_s / step_s) * step_s, first_s + span_s * 0.999, step_s)
    return [
        el("text", f"{value:g} s", x=number((value - first_s) / span_s * _inner()), y=height + 15, text_anchor="middle")
        for value in at.tolist()
    ]


def _lag_ticks(most_ns: int) -> list[tuple[float, float, str]]:
    """Offset, place 0..1 and text anchor of nine ticks."""
    anchors = ["start", *["middle"] * 7, "end"]
    return [((at / 4 - 1) * most_ns, at / 8, anchor) for at, anchor in enumerate(anchors)]


def _signed(offset_ns: float) -> str:
    return f"{offset_ns / 1e6:+.0f}" if offset_ns else "0"


def _inner() -> int:
    return _WIDTH - _LEFT - _RIGHT
