"""A rollout's evidence as SVG: the e-value against the release below its stop boundary, and the one for the next wave.

As in cloud/web/drawing.py nothing carries a style, and places along both axes are percentages. The scale is
logarithmic: a step up is ten times the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup as Safe

from cloud.rollouts.evidence import START, Evidence
from cloud.rollouts.stages import stages
from cloud.web.rollout_words import e_value
from edge.report.markup import Markup, el, number

_LEAST_DECADE: Final = -3
_ABOVE: Final = 1.4
_STEPS_S: Final = (
    60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000,
)  # fmt: skip
_TICKS: Final = 8
# Names of waves nearer than this to the one before are left out; on a phone earlier.
_NEAR, _NEAR_PHONE = 0.09, 0.3
_ROWS: Final = 40


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened.

    Attributes:
        kind: wave, said or end; the stylesheet knows it.
    """

    at_s: float
    kind: str
    name: str
    said: str


@dataclass(frozen=True, slots=True)
class Curve:
    """The drawing, and what says the same without it.

    Attributes:
        rows: (seconds since the begin, e-value against, e-value for, what happened since the row before).
    """

    drawing: Safe
    rows: list[tuple[float, float, float, str]]


def marks(evidence: Evidence, began: Iterable[tuple[int, float]]) -> list[Mark]:
    """What happened, in its order.

    Args:
        began: waves, and when each did.
    """
    every = stages(evidence.policy)
    found = []
    for wave, at_s in began:
        name = every[wave - 1].name if 0 < wave <= len(every) else "shadow"
        found.append(Mark(at_s, "wave", name, f"wave {wave} begins: {name}" if wave else "the shadow begins"))
    for at_s, said in evidence.said:
        if said.kind != START:
            what = f" of wave {said.wave}" if said.wave else f" of {said.vehicle}" if said.vehicle else ""
            why = f": {said.why}" if said.why else ""
            found.append(Mark(at_s, "said", said.kind, f"{said.kind}{what} by {said.by}{why}"))
    if evidence.ended_s is not None:
        found.append(Mark(evidence.ended_s, "end", evidence.state, f"{evidence.state}: {evidence.why}"))
    return sorted(found, key=lambda one: one.at_s)


def curve(evidence: Evidence, happened: Sequence[Mark]) -> Curve | None:
    """The evidence over time; None before an interval is over."""
    points = evidence.curve
    if not points:
        return None
    first_s = min(evidence.started_s if evidence.started_s is not None else points[0][0], points[0][0])
    last_s = max(points[-1][0], *(one.at_s for one in happened), first_s + 60.0)
    scale = _Scale(first_s, last_s, *_decades(evidence))
    tests = evidence.policy.tests
    acted_s = next((one.at_s for one in happened if one.kind == "wave" and one.said.startswith("wave ")), math.inf)
    in_shadow = [(at_s, value) for at_s, _, value in points if at_s <= acted_s]
    acting = [(at_s, value) for at_s, _, value in points if at_s > acted_s]
    against = [(at_s, value) for at_s, value, _ in points]
    needed = 1 / tests.alpha_promote
    title, described = _described(evidence)
    drawing = el(
        "svg",
        el("title", title, id="curve-title"),
        el("desc", described, id="curve-said"),
        scale.grid(),
        [scale.mark(one, name) for one, name in _named(happened, scale)],
        el("rect", width="100%", height=_share(scale.y(1 / tests.alpha_stop)), class_="beyond"),
        scale.boundary(needed, "need", f"next wave from {e_value(needed)} (dashed)", below=True),
        scale.boundary(tests.hold_at, "hold", f"nothing begins from {e_value(tests.hold_at)}"),
        scale.boundary(1 / tests.alpha_stop, "stop", f"stopped at {e_value(1 / tests.alpha_stop)} (solid)"),
        el(
            "svg",
            [el("path", d=scale.path(part), class_="for") for part in (in_shadow, acting) if part],
            el("path", d=scale.path(against), class_="against"),
            viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%", height="100%",
        ),
        scale.dot(*(acting or in_shadow)[-1], "for"),
        scale.dot(*against[-1], "against"),
        role="img",
        aria_labelledby="curve-title curve-said",
        class_="evidence-curve",
        width="100%",
        height="100%",
    )  # fmt: skip
    return Curve(Safe(drawing), _rows(points, happened, first_s))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where an instant and an e-value lie."""

    first_s: float
    last_s: float
    low: float
    high: float

    def x(self, at_s: float) -> float:
        return min(max((at_s - self.first_s) / (self.last_s - self.first_s), 0.0), 1.0)

    def y(self, value: float) -> float:
        decade = self.low if value <= 0 else math.log10(min(value, 1e300))
        return 1.0 - (min(max(decade, self.low), self.high) - self.low) / (self.high - self.low)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{number(1000 * self.x(t))} {number(1000 * self.y(v))}" for t, v in points)

    def dot(self, at_s: float, value: float, kind: str) -> Markup:
        return el("circle", cx=_share(self.x(at_s)), cy=_share(self.y(value)), r=4, class_=kind)

    def boundary(self, value: float, kind: str, said: str, *, below: bool = False) -> Markup:
        y = _share(self.y(value))
        line = el("line", x1="0", x2="100%", y1=y, y2=y)
        # On the left: what is to be seen happens on the right.
        text = el("text", said, x="0", y=y, dx="58", dy="14" if below else "-5")
        return el("g", line, text, class_=kind)

    def mark(self, one: Mark, label: str) -> Markup:
        x = _share(self.x(one.at_s))
        line = el("line", x1=x, x2=x, y1="0", y2="100%")
        foot = el("circle", cx=x, cy="100%", r=4) if one.kind != "wave" else None
        ends = self.x(one.at_s) > 0.85
        text = el("text", one.name, x=x, y="13", dx="-5" if ends else "5", text_anchor="end" if ends else None,
                  class_=label) if label else None  # fmt: skip
        return el("g", el("title", one.said), line, foot, text, class_=f"mark {one.kind}")

    def grid(self) -> Markup:
        every = 1 if self.high - self.low <= 8 else 2
        parts = []
        for decade in range(math.ceil(self.low), math.floor(self.high) + 1):
            if decade % every == 0:
                y = _share(self.y(10.0**decade))
                parts.append(el("line", x1="0", x2="100%", y1=y, y2=y))
                said = e_value(10.0**decade) if decade > -4 else f"1e{decade}"
                if self.y(10.0**decade) > 0.1:  # above are the names of waves
                    parts.append(el("text", said, x="0", y=y, dx="4", dy="-4"))
        whole_s = self.last_s - self.first_s
        step_s = next((step for step in _STEPS_S if whole_s / step <= _TICKS), math.ceil(whole_s / _TICKS))
        for n in range(1, int(whole_s / step_s) + 1):
            share = n * step_s / whole_s
            if share < 0.97:
                x = _share(share)
                parts.append(el("line", x1=x, x2=x, y1="0", y2="100%", class_="time"))
                parts.append(
                    el("text", _clock(n * step_s), x=x, y="100%", dy="15", text_anchor="middle", class_="time")
                )
        return el("g", parts, class_="grid")


def _decades(evidence: Evidence) -> tuple[float, float]:
    """The lowest and the highest power of ten to be seen: the boundary is always there, and a little above it."""
    tests = evidence.policy.tests
    boundary = math.log10(max(1 / tests.alpha_stop, tests.hold_at, 1 / tests.alpha_promote))
    values = [value for _, *both in evidence.curve for value in both if value > 0]
    low = math.log10(max(min(values, default=1.0), 1e-300))
    return min(max(math.floor(low), _LEAST_DECADE), -1), boundary + _ABOVE


def _named(happened: Iterable[Mark], scale: _Scale) -> list[tuple[Mark, str]]:
    """Marks with the class of their names; "" of those that would lie upon one another."""
    found, last, last_on_phone = [], -1.0, -1.0
    for one in happened:
        x, label = scale.x(one.at_s), ""
        if one.kind != "said" and x - last >= _NEAR:
            last, label = x, "desk"
            if x - last_on_phone >= _NEAR_PHONE:
                last_on_phone, label = x, "all"
        found.append((one, label))
    return found


def _described(evidence: Evidence) -> tuple[str, str]:
    tests, (_, against, for_it) = evidence.policy.tests, evidence.curve[-1]
    title = f"Evidence on release {evidence.counter} over time"
    return title, (
        f"The e-value against the release is {e_value(against)} now and was at most {e_value(evidence.peak)}; "
        f"the release is stopped at {e_value(1 / tests.alpha_stop)}. The e-value that it is not worse is "
        f"{e_value(for_it)}; the next wave needs {e_value(1 / tests.alpha_promote)}. The table has the figures."
    )


def _rows(
    points: Sequence[tuple[float, float, float]], happened: Sequence[Mark], first_s: float
) -> list[tuple[float, float, float, str]]:
    """Few enough to be read; what happened is with the row that follows it."""
    step = max(math.ceil(len(points) / _ROWS), 1)
    shown = [point for n, point in enumerate(reversed(points)) if n % step == 0][::-1]
    rows, before_s = [], -math.inf
    for n, (at_s, against, for_it) in enumerate(shown):
        until_s = math.inf if n == len(shown) - 1 else at_s
        said = "; ".join(one.said for one in happened if before_s < one.at_s <= until_s)
        rows.append((at_s - first_s, against, for_it, said))
        before_s = at_s
    return rows


def _clock(seconds: float) -> str:
    """20 min, 1 h, 1:20 h, 2 days."""
    days, rest = divmod(round(seconds), 86_400)
    if days and not rest:
        return f"{days} {'day' if days == 1 else 'days'}"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours}:{minutes:02d} h" if minutes else f"{hours} h"


def _share(share: float) -> str:
    return f"{number(100 * share, 2)}%"
