"""Which frames make a hard scene, and whether it is worth sending: hysteresis, a byte budget, no near-duplicates.

A scene opens when the smoothed hardness rises over a threshold, stays open while it is above a lower one, and closes a
post-roll after it last was. The threshold follows the budget: the less of it is left, the harder a scene must be.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.decision import SceneState
from edge.streams import SECOND

_HOUR_NS: Final = 3600 * SECOND
# Scenes remembered against near-duplicates.
_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """When a scene opens and closes, and what it may cost.

    Args:
        open_at: smoothed hardness at which one opens while the budget is full.
        close_below: it closes a post-roll after the smoothed hardness was last above this.
        smoothing: share of a new frame's hardness in the smoothed one.
        pre_roll_ns: kept before the first hard frame.
        post_roll_ns: kept after the last one.
        max_ns: a scene is cut at this length.
        budget_bytes_per_hour: what the uplink may carry.
        burst_bytes: how much of it may be saved up; also what a drive starts with.
        duplicate_cosine: a scene whose hardest frame is nearer than this to a queued one's is refused.
    """

    open_at: float = 0.32
    close_below: float = 0.25
    smoothing: float = 0.2
    pre_roll_ns: int = 2 * SECOND
    post_roll_ns: int = 2 * SECOND
    max_ns: int = 20 * SECOND
    budget_bytes_per_hour: int = 400_000_000
    burst_bytes: int = 200_000_000
    duplicate_cosine: float = 0.995


@dataclass(frozen=True, slots=True)
class Scene:
    """A hard scene that ended; instants are frame stamps."""

    number: int
    first_ns: int
    last_ns: int
    peak_ns: int
    peak_hardness: float
    refusal: str


class SceneCutter:
    """Follows the frames' hardness and says where scenes begin and end."""

    def __init__(self, config: SceneConfig | None = None) -> None:
        self.config = config or SceneConfig()
        self._smoothed = 0.0
        self._number = 0
        self._open = False
        self._first_ns = self._last_hard_ns = self._peak_ns = 0
        self._peak = 0.0
        self._peak_embedding: bytes = b""
        self._scene_bytes = 0
        self._tokens = float(self.config.burst_bytes)
        self._last_ns: int | None = None
        self._queued: deque[bytes] = deque(maxlen=_REMEMBERED)
        self.ended: Scene | None = None  # by the last frame

    def __call__(
        self, stamp_ns: int, hardness: float, embedding: bytes, frame_bytes: int
    ) -> tuple[SceneState, int, str]:
        """State, scene number (0 when quiet) and refusal of one frame.

        Args:
            embedding: float32 bytes of the fused embedding; b"" where there is none.
            frame_bytes: recorded bytes that arrived since the last frame.
        """
        config = self.config
        self.ended = None
        if self._last_ns is not None and stamp_ns > self._last_ns:
            earned = config.budget_bytes_per_hour * (stamp_ns - self._last_ns) / _HOUR_NS
            self._tokens = min(self._tokens + earned, config.burst_bytes)
        self._last_ns = stamp_ns
        self._smoothed += config.smoothing * (hardness - self._smoothed)
        if not self._open:
            if self._smoothed < self.threshold:
                return SceneState.QUIET, 0, ""
            self._begin(stamp_ns)
            state = SceneState.OPENED
        else:
            state = SceneState.OPEN
        self._scene_bytes += frame_bytes
        if self._smoothed >= config.close_below:
            self._last_hard_ns = stamp_ns
        if hardness > self._peak:
            self._peak, self._peak_ns, self._peak_embedding = hardness, stamp_ns, embedding
        if stamp_ns - self._last_hard_ns >= config.post_roll_ns or stamp_ns - self._first_ns >= config.max_ns:
            return self._end(stamp_ns)
        return state, self._number, ""

    @property
    def threshold(self) -> float:
        """The smoothed hardness at which a scene opens now."""
        spent = 1.0 - self._tokens / self.config.burst_bytes
        return self.config.open_at + (1.0 - self.config.open_at) * 0.5 * max(2.0 * spent - 1.0, 0.0)

    def forget_embeddings(self) -> None:
        """Another bundle decides from here on: what the last one said compares with nothing that it will say."""
        self._queued.clear()
        self._peak_embedding = b""

    def finish(self) -> Scene | None:
        """The scene that is still open when the drive ends."""
        if not self._open or self._last_ns is None:
            return None
        self._end(self._last_ns)
        return self.ended

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        return {key: value for key, value in vars(self).items() if key != "config"}

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Take a frozen state."""
        vars(self).update(frozen)
        self._queued = deque(frozen["_queued"], maxlen=_REMEMBERED)

    def _begin(self, stamp_ns: int) -> None:
        self._open = True
        self._number += 1
        self._first_ns = self._last_hard_ns = self._peak_ns = stamp_ns
        self._peak, self._peak_embedding, self._scene_bytes = -1.0, b"", 0

    def _end(self, stamp_ns: int) -> tuple[SceneState, int, str]:
        self._open = False
        self._smoothed = min(self._smoothed, self.config.close_below)
        refusal = self._refusal()
        if not refusal:
            self._tokens -= self._scene_bytes
            if self._peak_embedding:
                self._queued.append(self._peak_embedding)
        self.ended = Scene(self._number, self._first_ns, stamp_ns, self._peak_ns, self._peak, refusal)
        return (SceneState.REFUSED if refusal else SceneState.QUEUED), self._number, refusal

    def _refusal(self) -> str:
        if self._scene_bytes > self._tokens:
            return "budget"
        if self._peak_embedding and self._queued:
            queued: NDArray[np.float32] = np.frombuffer(b"".join(self._queued), dtype=np.float32)
            peak = np.frombuffer(self._peak_embedding, dtype=np.float32)
            if float((queued.reshape(len(self._queued), -1) @ peak).max()) > self.config.duplicate_cosine:
                return "near-duplicate"
        return ""
