"""An analyst's report as a page shows it; whatever a model wrote into it, only what is expected is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_MOST: Final = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the analyst says, and where it can be seen.

    Attributes:
        probability: None where it gives none.
        instants_ns: moments that show it.
    """

    said: str
    probability: float | None
    instants_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What the analyst made of a clip; empty where it did not look yet."""

    caption: str
    findings: tuple[Finding, ...]
    wrong: tuple[Finding, ...]
    agreement: float | None
    model: str
    has_subtitles: bool


def report_of(report: dict[str, Any], first_ns: int) -> Report | None:
    """A report out of its JSON; None of an empty one."""
    return None if not report else Report("", (), (), None, "", False)
