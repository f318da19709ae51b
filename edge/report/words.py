"""Numbers and outcomes in a person's words."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.report.history import HardScene

# Clocks that count from 1970 have passed this; monotonic ones count from when the vehicle woke.
_YEAR_2001_NS = 978_307_200_000_000_000

WHY_HARD = {
    "uncertainty": "the heads are undecided",
    "disagreement": "the modalities point apart",
    "novelty": "unlike what the bundle was trained on",
    "flicker": "the tags changed much since the last frame",
    "braking": "the vehicle brakes hard",
    "takeover": "the driver took over",
    "alarm": "a siren or a horn is heard",
    "degraded": "an expected sensor is missing",
    "misaligned": "a sensor contradicts the others",
}
WHY_REFUSED = {
    "near-duplicate": "nearly the same as a scene that was queued before",
    "budget": "larger than what was left of the upload budget",
}


def clock(seconds: float, *, tenths: bool = False) -> str:
    """1:05, 1:05.3 or 2:01:05; halves go up, as in page.js."""
    shown = math.floor(seconds * 10 + 0.5) if tenths else math.floor(seconds + 0.5) * 10
    whole, tenth = divmod(shown, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    tail = f".{tenth}" if tenths else ""
    return f"{hours}:{minute:02d}:{second:02d}{tail}" if hours else f"{minute}:{second:02d}{tail}"


def length(seconds: float) -> str:
    """18.9 s, 2 min 5 s or 1 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {second} s"
    return f"{minutes // 60} h {minutes % 60} min"


def half_and_most(values: NDArray[Any]) -> tuple[float, float]:
    """The value within which half of them lie, and 99 %; values that were there, as `roadfuse replay` counts."""
    ordered = np.sort(values)
    n = len(ordered)
    return float(ordered[n // 2]), float(ordered[min(n * 99 // 100, n - 1)])


def percent(share: float) -> str:
    """A share; never 0 % for what happened, nor 100 % for what did not always."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


def spoken(scene: HardScene) -> str:
    """What became of a scene."""
    if scene.outcome == "refused":
        return f"refused: {scene.refusal or 'no reason given'}"
    return "still open when the drive ended" if scene.outcome == "open" else "queued for upload"


def began(stamp_ns: int) -> str:
    """When a drive began, as far as its clock says."""
    if stamp_ns >= _YEAR_2001_NS:
        instant = datetime.fromtimestamp(stamp_ns / 1e9, tz=timezone.utc)
        return instant.strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{stamp_ns / 1e9:.3f} s of the vehicle's clock"


def count(number: int, one: str, many: str = "") -> str:
    """1 frame, 2 frames."""
    return f"{number:,} {one if number == 1 else many or one + 's'}".replace(",", "\u2009")
