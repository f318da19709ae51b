"""How long decisions took: from capture to decision in the drive's time, and stage by stage as measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.report.history import History
from edge.report.markup import Markup, el, number
from edge.report.words import count, half_and_most, percent
from edge.streams import DEADLINE_NS

_BINS = 40
_WIDTH, _HEIGHT, _FOOT = 600, 170, 26
_REASONS = {
    "settled": "settled: nothing that could still come would change it",
    "deadline": "deadline: its time was up",
    "value": "value: waiting longer was worth less than it cost",
}


def latency(history: History) -> Markup:
    """The section."""
    took_ms = (history.emitted_ns - history.stamps_ns) / 1e6
    p50, p99 = half_and_most(took_ms)
    lead = f"From capture to decision: half within {p50:.1f} ms, 99 % within {p99:.1f} ms, "
    late = int((took_ms > DEADLINE_NS / 1e6).sum())
    lead += f"the slowest {took_ms.max():.1f} ms; {count(late, 'frame')} later than {DEADLINE_NS / 1e6:.0f} ms."
    left = [
        el("li", el("b", percent(n / len(history))), " ", _REASONS.get(name, name))
        for name, n in sorted(history.reasons.items(), key=lambda item: -item[1])
    ]
    return el(
        "section",
        el("h2", "Latency"),
        el("p", lead),
        el(
            "div",
            el("div", _histogram(took_ms), el("ul", left, class_="why-left")),
            _stages(history),
            class_="pair",
        ),
        id="latency",
    )


def _histogram(took_ms: NDArray[np.float64]) -> Markup:
    deadline_ms = DEADLINE_NS / 1e6
    top_ms = max(deadline_ms * 1.1, min(float(np.percentile(took_ms, 99.9)) * 1.05, deadline_ms * 20))
    counts, edges = np.histogram(np.clip(took_ms, 0.0, top_ms), bins=_BINS, range=(0.0, top_ms))
    tallest = max(int(counts.max()), 1)
    width, floor = _WIDTH / _BINS, _HEIGHT - _FOOT
    bars = []
    for i, n in enumerate(counts.tolist()):
        if n:
            height = max(n / tallest * (floor - 14), 1.5)
            title = el("title", f"{edges[i]:.0f} to {edges[i + 1]:.0f} ms: {count(n, 'frame')}")
            shape = el("rect", title, x=number(i * width + 0.5), y=number(floor - height), width=number(width - 1),
                       height=number(height))  # fmt: skip
            bars.append(shape)
    x = deadline_ms / top_ms * _WIDTH
    ticks = [
        el("text", f"{at:g}", x=number(at / top_ms * _WIDTH), y=_HEIGHT - 8, text_anchor="middle" if at else "start")
        for at in _ticks(top_ms)
    ]
    return el(
        "svg",
        el("g", bars, class_="bars-of-histogram"),
        el("line", x1=0, x2=_WIDTH, y1=floor, y2=floor, class_="base"),
        el("line", x1=number(x), x2=number(x), y1=0, y2=floor, class_="deadline"),
        el("text", "deadline", x=number(x - 6), y=11, text_anchor="end", class_="deadline-word"),
        ticks,
        el("text", "ms", x=_WIDTH - 2, y=_HEIGHT - 8, text_anchor="end"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label="Histogram of the time from capture to decision",
        class_="histogram",
    )


def _ticks(top_ms: float) -> list[float]:
    step_ms = next((step for step in (10, 20, 50, 100, 200, 500, 1000) if top_ms / step <= 8), 5000)
    return [float(at) for at in np.arange(0, top_ms * 0.95, step_ms)]


def _stages(history: History) -> Markup:
    if not history.stages_ns:
        return el("p", "Stage times were not recorded.", class_="muted")
    rows = []
    for stage, took_ns in history.stages_ns.items():
        p50, p99 = half_and_most(took_ns / 1e6)
        rows.append(
            el("tr", el("th", stage, scope="row"), [el("td", f"{v:.2f}") for v in (p50, p99, took_ns.max() / 1e6)])
        )
    head = el("tr", [el("th", name, scope="col") for name in ("stage", "half within", "99 % within", "slowest")])
    caption = el("caption", "Measured on the machine that replayed it, ms")
    return el("table", caption, el("thead", head), el("tbody", rows))
