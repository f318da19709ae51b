"""Two bundles on the same frames: how often they differ, and which of them is wrong where that needs no truth.

One is wrong where it is not finite or late and the other is not, and where a label of it flickers (holds for less than
FLICKER_NS) that does not flicker at the other about then. Who is right where they merely differ is judged elsewhere.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from edge.streams import SECOND
from edge.updates.account import seconds_since
from edge.updates.evidence import BETTER, DIFFERS, SAME, WORSE, Evidence
from edge.updates.opinion import Labels, Opinion

FLICKER_NS: Final = 300_000_000
# How far apart flickers of one label at both lie that are one and the same.
_TOGETHER_NS: Final = SECOND // 2

Label = tuple[str, str]


class _Side:
    """The labels of one bundle over time."""

    def __init__(self) -> None:
        self._since: dict[Label, int] = {}
        self.flickers: deque[tuple[int, Label, tuple[str, ...]]] = deque()

    def see(self, stamp_ns: int, labels: Labels, slices: tuple[str, ...]) -> None:
        for label in [label for label in self._since if label not in labels]:
            begun_ns = self._since.pop(label)
            if begun_ns and stamp_ns - begun_ns < FLICKER_NS:
                self.flickers.append((stamp_ns, label, slices))
        for label in labels:
            self._since.setdefault(label, stamp_ns)

    def begin(self, labels: Labels) -> None:
        """What holds already began at an unknown time."""
        self._since = dict.fromkeys(labels, 0)
        self.flickers.clear()


class Pairs:
    """Counts pairs into the staged bundle's evidence.

    Args:
        evidence: of the staged bundle, in the shadow.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._last_ns = self._settled_ns = 0
        self._active, self._staged = _Side(), _Side()

    def pause(self) -> None:
        """Frames were lost: what spans the gap says nothing."""
        self._last_ns = 0

    def add(self, active: Opinion, staged: Opinion) -> None:
        """Take what both say of one frame."""
        now_ns, slices, evidence = active.stamp_ns, active.slices, self.evidence
        sides = ((self._active, active), (self._staged, staged))
        seconds = seconds_since(self._last_ns, now_ns)
        for side, opinion in sides:
            if not self._last_ns:
                side.begin(opinion.labels)
            else:
                side.see(now_ns, opinion.labels, slices)
        self._last_ns = now_ns
        metrics = [SAME if active.labels == staged.labels else DIFFERS]
        metrics += ["not_finite"] * (not staged.is_finite) + ["late"] * staged.is_late
        wrong = (not staged.is_finite) + staged.is_late - (not active.is_finite) - active.is_late
        metrics += [WORSE] * (wrong > 0) + [BETTER] * (wrong < 0)
        for name in slices:
            count = evidence.of(name)
            count.seconds += seconds
            count.frames += 1
            for metric in metrics:
                count.add(metric)
        self._settle(now_ns)

    def _settle(self, now_ns: int) -> None:
        """Judge flickers that the other side had its time to share."""
        for side, other, metric in ((self._staged, self._active, WORSE), (self._active, self._staged, BETTER)):
            for at_ns, label, slices in side.flickers:
                if at_ns + _TOGETHER_NS > now_ns or at_ns + _TOGETHER_NS <= self._settled_ns:
                    continue
                shared = any(one == label and abs(when - at_ns) <= _TOGETHER_NS for when, one, _ in other.flickers)
                for name in () if shared else slices:
                    self.evidence.of(name).add(metric)
        self._settled_ns = now_ns
        for side in (self._active, self._staged):
            while side.flickers and side.flickers[0][0] + 3 * _TOGETHER_NS < now_ns:
                side.flickers.popleft()
