"""The account of bundles that decided: exposure and failures by slice, out of the decisions themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edge.decision import Decision
from edge.streams import SECOND
from edge.updates.evidence import Evidence
from edge.updates.opinion import Opinion

# Between two frames: what a pause or a step of the clock adds at most.
_LONGEST_NS: Final = SECOND // 4
_MOST_BUNDLES: Final = 6


def seconds_since(last_ns: int, stamp_ns: int) -> float:
    """Exposure that a frame adds, s."""
    return min(max(stamp_ns - last_ns, 0), _LONGEST_NS) / SECOND if last_ns else 0.0


class Account:
    """Evidence of the bundles that decided.

    Args:
        name: another one begins anew.
        so_far: what earlier processes told; counts go on from there.
    """

    def __init__(self, name: bytes, so_far: Iterable[Evidence] = ()) -> None:
        self.name = name
        self._of = {one.bundle: one for one in so_far if one.account == name and not one.is_shadow}
        self._last_ns = 0

    def of(self, bundle: str) -> Evidence:
        """Of one bundle; the eldest goes where there are too many."""
        found = self._of.pop(bundle, None) or Evidence(bundle, False, self.name)
        self._of[bundle] = found
        while len(self._of) > _MOST_BUNDLES:
            del self._of[next(iter(self._of))]
        return found

    def all(self) -> list[Evidence]:
        """Of every bundle that decided."""
        return list(self._of.values())

    def add(self, decision: Decision, opinion: Opinion, bundle: str, failed: str | None) -> None:
        """Take a decision.

        Args:
            bundle: that made it, as slots name it.
            failed: bundle that was to make it; None where that is the same.
        """
        seconds = seconds_since(self._last_ns, decision.stamp_ns)
        self._last_ns = decision.stamp_ns
        evidence = self.of(bundle)
        for name in opinion.slices:
            count = evidence.of(name)
            count.seconds += seconds
            count.frames += 1
        self._note(evidence, opinion, [name for name, happened in self._failures(opinion) if happened])
        if failed is not None and decision.put_back is not None:
            self._note(self.of(failed), opinion, ["put_back", decision.put_back.why.partition(":")[0]])

    def _failures(self, opinion: Opinion) -> list[tuple[str, bool]]:
        return [
            ("engine_error", not opinion.is_whole),
            ("not_finite", not opinion.is_finite),
            ("late", opinion.is_late),
        ]

    def _note(self, evidence: Evidence, opinion: Opinion, metrics: list[str]) -> None:
        for metric in metrics:
            for name in opinion.slices:
                evidence.of(name).add(metric)
