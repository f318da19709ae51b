"""What the way up costs, how fast it may be used, and how long to wait after it failed. Clocks come in; nothing here
sleeps.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Final, Literal

Clips = Literal["all", "wanted", "none"]
Waits = Literal["closed", "unasked", "price"]
_MB: Final = 1e6
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 300.0
_BURST_S: Final = 2.0  # of the rate, that may be saved up
_FOR_EVER_S: Final = threading.TIMEOUT_MAX / 2  # centuries: nothing waits for longer, nor does a call's deadline


@dataclass(frozen=True, slots=True)
class Link:
    """What the link costs.

    Attributes:
        bytes_per_s: at most; 0: as fast as it goes.
        clips: which go up: all, those that the cloud asked for (a metered link), or none. What is told of scenes always
            goes.
        price_per_mb: what a clip must be worth for each 10^6 bytes of it, in labels told wrongly; 0: the link is free.
    """

    bytes_per_s: float = 0.0
    clips: Clips = "all"
    price_per_mb: float = 0.0

    def holds_back(self, value: float, size_bytes: int, is_asked: bool) -> Waits | None:
        """What keeps a clip on board while the link is this one; None: it goes up in its turn.

        Args:
            value: what the clip is worth, in labels told wrongly; infinite: it goes at any price.
            is_asked: the cloud asked for it, by number or by a campaign.
        """
        if self.clips == "none":
            return "closed"
        if self.clips == "wanted" and not is_asked:
            return "unasked"
        return "price" if value < self.price_per_mb * size_bytes / _MB else None


class Bucket:
    """Tokens of bytes, which fill at the link's rate."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._tokens = _BURST_S * bytes_per_s
        self._last_s: float | None = None

    def wait_s(self, size_bytes: int, now_s: float) -> float:
        """Takes so many bytes; how long to wait before they are sent. More than a burst is taken on credit.

        Args:
            now_s: of a clock that never goes back.
        """
        if not self._rate:
            return 0.0
        elapsed_s = 0.0 if self._last_s is None else max(now_s - self._last_s, 0.0)
        self._last_s = now_s
        self._tokens = min(self._tokens + elapsed_s * self._rate, _BURST_S * self._rate) - size_bytes
        return self.lasts_s(0)

    def lasts_s(self, size_bytes: int) -> float:
        """How long so many bytes wait at most, together with what was taken on credit; takes none."""
        return min(max(size_bytes - self._tokens, 0.0) / self._rate, _FOR_EVER_S) if self._rate else 0.0


class Backoff:
    """Waits twice as long after each failure in a row, up to five minutes, with full jitter: a fleet whose cloud comes
    back must not come back all at once.

    Ref: Brooker, "Exponential backoff and jitter", 2015.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.SystemRandom()
        self._failures = 0

    def succeeded(self) -> None:
        """The next failure is the first again."""
        self._failures = 0

    def wait_s(self) -> float:
        """After one failure more."""
        self._failures = min(self._failures + 1, 64)
        return self._rng.uniform(0.0, min(_FIRST_WAIT_S * 2.0**self._failures, _LONGEST_WAIT_S))
