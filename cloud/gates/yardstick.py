"""What candidates are measured against: the current bundle, and what it does on the drives, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from cloud.gates import parity, response
from cloud.gates.candidate import Graphed
from cloud.gates.merit import Merit
from cloud.gates.moments import Moments, moments
from cloud.gates.outcome import Outcome, Truth, outcome_of, truth_of
from edge import bundle as bundles
from edge.golden import Tensors

Found = TypeVar("Found")
# What is plainly worse shows on a third of the drives already.
_EARLY: Final = 3
_LEAST_FOR_TWO: Final = 12


class Yardstick(Graphed):
    """The current bundle and the drives.

    Args:
        current: its folder; None takes the reference bundle.
        drives: with ground truth; without any, gates that need them are skipped.

    Attributes:
        drives: those of an early look first.
        looks: after how many drives candidates are compared.
    """

    def __init__(self, current: Path | None = None, drives: Sequence[Path] = ()) -> None:
        super().__init__(bundles.load(current))
        early = tuple(drives[::_EARLY]) if len(drives) >= _LEAST_FOR_TWO else ()
        self.drives = (*early, *(drive for drive in drives if drive not in early))
        self.looks = (*((len(early),) if early else ()), len(self.drives))
        self._known: dict[str, Any] = {}

    def inputs(self) -> Moments:
        """Real inputs of its encoders."""
        return self._once("inputs", lambda: moments(self.bundle, self.drives))

    def twins(self) -> dict[str, float]:
        """As in cloud.gates.parity."""
        return self._once("twins", lambda: parity.twins(self, self.inputs()))

    def float_twins(self) -> dict[str, float]:
        """As in cloud.gates.parity."""
        return self._once("float_twins", lambda: parity.float_twins(self, self.inputs()))

    def embeddings(self) -> Tensors:
        """By modality, and the fused one."""
        return self._once(
            "embeddings",
            lambda: response.with_fused(self.bundle, response.embeddings(self.bundle, self.inputs())),
        )

    def responses(self) -> dict[str, float]:
        """As in cloud.gates.response."""
        return self._once("responses", lambda: response.responses(self.bundle, self.embeddings()))

    def long_run(self) -> dict[str, Any]:
        """As in cloud.gates.response."""
        return self._once("long_run", lambda: response.long_run(self.bundle, self.embeddings(), self.bundle))

    def truth(self, segment_s: float) -> Truth:
        """Of the drives."""
        return self._once(f"truth {segment_s}", lambda: truth_of(self.drives, segment_s))

    def outcome(self, segment_s: float, drives: int) -> Outcome:
        """What it decides on the first drives."""

        def make() -> Outcome:
            before = max((look for look in self.looks if look < drives), default=0)
            stamps = self.truth(segment_s).stamps_ns
            more = outcome_of(self.bundle, self.drives[before:drives], stamps[before:drives])
            return self.outcome(segment_s, before).then(more) if before else more

        return self._once(f"outcome {segment_s} {drives}", make)

    def merit(self, segment_s: float, drives: int) -> Merit:
        """How right that is."""

        def make() -> Merit:
            return Merit(self.bundle, self.outcome(segment_s, drives), self.truth(segment_s).first(drives))

        return self._once(f"merit {segment_s} {drives}", make)

    def _once(self, key: str, make: Callable[[], Found]) -> Found:
        if key not in self._known:
            self._known[key] = make()
        return cast(Found, self._known[key])
