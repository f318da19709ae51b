"""A lane for each sensor stream: where decisions rested on it, where it was missing and why."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.report.grid import runs
from edge.report.history import History
from edge.report.markup import Markup, el, number
from edge.report.words import clock, percent
from edge.streams import STREAMS

# A stream that flickers is drawn more coarsely, its gaps never lost, rather than in more spans than a page can hold.
MAX_SPANS: Final = 240
# Wide enough for a word.
_NAMED_FROM: Final = 0.035
_WIDE_FROM: Final = 0.12
NOT_YET: Final = "not yet"
_REQUIRED: Final = frozenset(stream.name for stream in STREAMS if stream.required)


def stream_lanes(history: History) -> list[Markup]:
    """The lanes, in the order of the stream table."""
    return [_lane(history, name) for name in history.streams]


def missing(history: History, stream: str) -> NDArray[np.bool_]:
    """(n,) bool: frames for which a stream was absent though expected (required, or seen before)."""
    absent: NDArray[np.bool_] = (history.streams[stream] != 0) & (history.streams[stream] != _code(history, "shed"))
    if stream not in _REQUIRED:
        present = np.flatnonzero(history.streams[stream] == 0)
        absent[: int(present[0]) if len(present) else len(absent)] = False
    return absent


def _lane(history: History, stream: str) -> Markup:
    codes = history.streams[stream]
    gone = missing(history, stream)
    unseen = (codes != 0) & ~gone & (codes != _code(history, "shed"))
    shown = np.where(unseen, 255, codes)
    spans = [_span(history, first, last, code) for first, last, code in _coarse_runs(shown)]
    return el(
        "div",
        el("div", el("span", stream), el("small", _note(history, gone, unseen, codes)), class_="label"),
        el("div", spans, class_="plot"),
        class_="lane stream",
        data_stream=stream,
    )


def _span(history: History, first: int, last: int, code: int) -> Markup:
    start_s = history.seconds(int(history.stamps_ns[first]))
    end_s = history.seconds(int(history.stamps_ns[last])) if last < len(history) else history.duration_s
    place = f"left:{number(100 * start_s / history.duration_s, 3)}%;"
    place += f"width:{number(100 * (end_s - start_s) / history.duration_s, 3)}%"
    if code == 0:
        return el("i", class_="span present", style=place)
    why = NOT_YET if code == 255 else history.absences[min(code, len(history.absences) - 1)]
    kind = {"shed": "shed", NOT_YET: "unseen"}.get(why, "absent")
    share = (end_s - start_s) / history.duration_s
    word = el("b", why, class_="wide" if share > _WIDE_FROM else None) if share > _NAMED_FROM else None
    title = f"{why}, {clock(start_s, tenths=True)} to {clock(end_s, tenths=True)}"
    return el("i", word if kind != "unseen" else None, class_=f"span {kind}", style=place, title=title)


def _coarse_runs(codes: NDArray[np.integer]) -> list[tuple[int, int, int]]:
    """Runs of equal codes; of coarser and coarser parts, each as bad as its worst frame, until they are few."""
    found, step = runs(codes), 1
    while len(found) > MAX_SPANS:
        step *= 2
        starts = np.arange(0, len(codes), step)
        worst = np.maximum.reduceat(codes, starts)
        found = [(first * step, min(last * step, len(codes)), code) for first, last, code in runs(worst)]
    return found


def _note(history: History, gone: NDArray[np.bool_], unseen: NDArray[np.bool_], codes: NDArray[np.uint8]) -> str:
    if not (codes == 0).any():
        return "never came"
    share = float(gone.mean())
    if share:
        why = sorted({history.absences[min(int(code), len(history.absences) - 1)] for code in np.unique(codes[gone])})
        return f"{percent(share)} {', '.join(why)}"
    if (codes == _code(history, "shed")).any():
        return "shed at times"
    if unseen.any():
        return f"from {clock(history.seconds(int(history.stamps_ns[np.argmin(unseen)])), tenths=True)} on"
    return "always there"


def _code(history: History, why: str) -> int:
    return history.absences.index(why) if why in history.absences else -1
