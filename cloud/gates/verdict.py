"""What a gate says, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from cloud.errors import CloudError

PASSED: Final = "passed"
REFUSED: Final = "refused"
SKIPPED: Final = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one gate on one candidate.

    Attributes:
        gate: its name, as in cloud.gates.run.GATES.
        verdict: passed, refused or skipped.
        why: one line: what, expected, got; of one that passed what it looked at.
        detail: all figures, JSON.
        seconds: that it took.
    """

    gate: str
    verdict: str
    why: str
    detail: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class GateRefused(CloudError):
    """A candidate does not pass a gate.

    Attributes:
        detail: figures, JSON.
    """

    def __init__(self, why: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(why)
        self.detail = detail or {}


class GateSkipped(CloudError):
    """A gate does not apply."""
