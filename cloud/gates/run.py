"""All gates in their order, cheapest first, to the first refusal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from cloud.gates.candidate import Candidate
from cloud.gates.latency import latency
from cloud.gates.parity import parity
from cloud.gates.replayed import replayed
from cloud.gates.response import response
from cloud.gates.static import static
from cloud.gates.vectors import vectors
from cloud.gates.verdict import PASSED, REFUSED, SKIPPED, GateRefused, GateSkipped, Verdict
from cloud.gates.whole import whole
from edge.errors import RoadfuseError

_LOG: Final = logging.getLogger(__name__)
_MOST_WHY: Final = 300  # characters

Gate = Callable[[Candidate], tuple[str, dict[str, Any]]]

# Name -> gate, in the order of what they cost.
GATES: Final[dict[str, Gate]] = {
    "whole": whole,
    "static": static,
    "golden": vectors,
    "parity": parity,
    "response": response,
    "latency": latency,
    "replay": replayed,
}


def run(candidate: Candidate, *, every: bool = False) -> Iterator[Verdict]:
    """The verdict of each gate, as it comes.

    Args:
        every: go on after a refusal.
    """
    for name, gate in GATES.items():
        verdict = judged(name, gate, candidate)
        yield verdict
        if verdict.verdict == REFUSED and not every:
            return


def judged(name: str, gate: Gate, candidate: Candidate) -> Verdict:
    """One gate's verdict. What breaks a gate does not pass it."""
    started = time.perf_counter()
    detail: dict[str, Any] = {}
    try:
        why, detail = gate(candidate)
        verdict = PASSED
    except GateSkipped as error:
        verdict, why = SKIPPED, str(error)
    except GateRefused as error:
        verdict, why, detail = REFUSED, str(error), error.detail
    except RoadfuseError as error:
        verdict, why = REFUSED, str(error)
    except Exception as error:  # a hostile file may break a reader in ways that nobody foresaw
        _LOG.exception("gate_broke gate=%s", name)
        verdict, why = REFUSED, f"expected a bundle that can be judged, got {type(error).__name__}: {error}"
    return Verdict(name, verdict, " ".join(why.split())[:_MOST_WHY], detail, time.perf_counter() - started)
