"""What candidates are measured against: the current bundle, and what it does on the drives, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from cloud.gates import parity, response
from cloud.gates.candidate import Graphed
from cloud.gates.merit import Merit
from cloud.gates.moments import Moments, moments
from cloud.gates.outcome import Outcome, Truth, outcome_of, truth_of
from edge import bundle as bundles
from edge.golden import Tensors

Found = TypeVar("Found")


class Yardstick(Graphed):
    """The current bundle and the drives.

    Args:
        current: its folder; None takes the reference bundle.
        drives: with ground truth; without any, gates that need them are skipped.
    """

    def __init__(self, current: Path | None = None, drives: Sequence[Path] = ()) -> None:
        super().__init__(bundles.load(current))
        self.drives = tuple(drives)
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
        return self._once("long_run", lambda: response.long_run(self.bundle, self.embeddings()))

    def truth(self, segment_s: float) -> Truth:
        """Of the drives."""
        return self._once(f"truth {segment_s}", lambda: truth_of(self.drives, segment_s))

    def outcome(self, segment_s: float) -> Outcome:
        """What it decides on the drives."""
        make = lambda: outcome_of(self.bundle, self.drives, self.truth(segment_s))  # noqa: E731
        return self._once(f"outcome {segment_s}", make)

    def merit(self, segment_s: float) -> Merit:
        """How right that is."""
        make = lambda: Merit(self.bundle, self.outcome(segment_s), self.truth(segment_s))  # noqa: E731
        return self._once(f"merit {segment_s}", make)

    def _once(self, key: str, make: Callable[[], Found]) -> Found:
        if key not in self._known:
            self._known[key] = make()
        return cast(Found, self._known[key])
