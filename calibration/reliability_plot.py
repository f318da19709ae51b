"""Reliability diagrams as SVG: what a head said against how often it was right, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge.report.markup import Markup, el, number

_SIDE_PX: Final = 220
_MARGIN_PX: Final = 44
_TITLE_PX: Final = 30
_BEFORE: Final = "#b0413e"
_AFTER: Final = "#2f6db5"


def diagram(heads: Mapping[str, Mapping[str, Any]]) -> str:
    """One panel a head.

    Args:
        heads: head -> figures of calibration.confidence ("before" and "after" with their tables).
    """
    width = len(heads) * (_SIDE_PX + _MARGIN_PX) + _MARGIN_PX
    height = _SIDE_PX + _TITLE_PX + 2 * _MARGIN_PX
    panels = [
        _panel(name, figures, _MARGIN_PX + i * (_SIDE_PX + _MARGIN_PX))
        for i, (name, figures) in enumerate(heads.items())
    ]
    return el(
        "svg", el("rect", width=width, height=height, fill="white"), panels,
        xmlns="http://www.w3.org/2000/svg", width=width, height=height, font_family="sans-serif", font_size=11,
    )  # fmt: skip


def _panel(name: str, figures: Mapping[str, Any], left: int) -> Markup:
    before, after = figures["before"], figures["after"]
    ticks = [
        [
            _text(number(value, 2), value * _SIDE_PX, _SIDE_PX + 14, "middle"),
            _text(number(value, 2), -6, (1 - value) * _SIDE_PX + 4, "end"),
        ]
        for value in (0.0, 0.5, 1.0)
    ]
    legend = [
        _text(f"before: ECE {before['ece']:.3f}", 8, 16, "start", _BEFORE),
        _text(f"after: ECE {after['ece']:.3f}", 8, 30, "start", _AFTER),
    ]
    return el(
        "g",
        _text(name, _SIDE_PX / 2, -10, "middle", size=13),
        el("rect", width=_SIDE_PX, height=_SIDE_PX, fill="none", stroke="#888"),
        el("line", x1=0, y1=_SIDE_PX, x2=_SIDE_PX, y2=0, stroke="#bbb", stroke_dasharray="4 3"),
        _curve(before["table"], _BEFORE), _curve(after["table"], _AFTER),
        ticks, legend,
        _text("said", _SIDE_PX / 2, _SIDE_PX + 30, "middle"),
        transform=f"translate({left} {_TITLE_PX + 10})",
    )  # fmt: skip


def _curve(table: Sequence[Sequence[float]], color: str) -> Markup:
    """The bins as points whose area is their share of the statements, joined."""
    total = sum(count for count, _, _ in table)
    at = [(said * _SIDE_PX, (1 - held) * _SIDE_PX, 2.0 + 10.0 * (count / total) ** 0.5) for count, said, held in table]
    line = " ".join(f"{number(x)},{number(y)}" for x, y, _ in at)
    dots = [el("circle", cx=number(x), cy=number(y), r=number(r), fill=color, fill_opacity=0.45) for x, y, r in at]
    return el("g", el("polyline", points=line, fill="none", stroke=color, stroke_width=1.5), dots)


def _text(words: str, x: float, y: float, anchor: str, fill: str = "#333", size: int = 11) -> Markup:
    return el("text", words, x=number(x), y=number(y), text_anchor=anchor, fill=fill, font_size=size)
