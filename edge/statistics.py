"""What a run amounts to: frames, coverage, latencies, drops, scenes, and one SHA-256 over all decisions."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

from edge.decision import Decision, SceneState
from edge.scenes import Scene
from edge.streams import MS


class RunStatistics:
    """Counts a run as it goes.

    Args:
        deadline_ns: of a decision, after its frame's capture.
    """

    def __init__(self, deadline_ns: int) -> None:
        self._deadline_ns = deadline_ns
        self._digest = hashlib.sha256()
        self._stages: dict[str, list[int]] = defaultdict(list)
        self._latencies_ns: list[int] = []
        self._accounts: dict[str, dict[str, int]] = {}
        self.started_ns = self.ended_ns = 0  # by the clock
        self.first_now_ns = self.last_now_ns = 0  # by the drive
        self.frames = self.on_time = self.degraded = self.pictures = self.overloaded = 0
        self.scenes_queued = self.scenes_refused = 0

    def start(self, clock_ns: int) -> None:
        """The run begins."""
        self.started_ns = clock_ns

    def now(self, now_ns: int) -> None:
        """An event came."""
        if not self.first_now_ns:
            self.first_now_ns = now_ns
        self.last_now_ns = now_ns

    def add(self, decision: Decision) -> None:
        """A decision was made."""
        self._digest.update(decision.canonical())
        self.frames += 1
        latency_ns = decision.emitted_ns - decision.stamp_ns
        self._latencies_ns.append(latency_ns)
        self.on_time += latency_ns <= self._deadline_ns
        self.degraded += decision.degraded
        self.pictures += decision.modalities[0].present
        self.overloaded += decision.overload_level > 0
        self.scenes_queued += decision.scene_state is SceneState.QUEUED
        self.scenes_refused += decision.scene_state is SceneState.REFUSED
        for stage, elapsed_ns in decision.timings_ns.items():
            self._stages[stage].append(elapsed_ns)
        if decision.emitted_ns > self.last_now_ns:
            self.last_now_ns = decision.emitted_ns

    def end(self, clock_ns: int, accounts: dict[str, dict[str, int]], open_scene: Scene | None) -> None:
        """The run is over."""
        self.ended_ns = clock_ns
        self._accounts = accounts
        if open_scene is not None:
            self.scenes_queued += not open_scene.refusal
            self.scenes_refused += bool(open_scene.refusal)

    @property
    def sha256(self) -> str:
        """Over the canonical bytes of all decisions."""
        return self._digest.hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The object that `roadfuse replay --json` prints."""
        wall_ns = max(self.ended_ns - self.started_ns, 1)
        drive_ns = self.last_now_ns - self.first_now_ns
        model_ns = sum(sum(self._stages[stage]) for stage in ("encode", "fuse"))
        used = {name: counts.get("used", 0) for name, counts in self._accounts.items()}
        drops = {
            name: {reason: n for reason, n in sorted(counts.items()) if reason not in ("used", "buffered")}
            for name, counts in self._accounts.items()
        }
        return {
            "frames": self.frames,
            "pictures": self.pictures,
            "coverage": self.on_time / self.frames if self.frames else 0.0,
            "degraded_frames": self.degraded,
            "overloaded_frames": self.overloaded,
            "scenes": {"queued": self.scenes_queued, "refused": self.scenes_refused},
            "sha256": self.sha256,
            "used": used,
            "drops": drops,
            "buffered": {name: counts.get("buffered", 0) for name, counts in self._accounts.items()},
            "stage_ms": {stage: _percentiles_ms(values) for stage, values in self._stages.items()},
            "latency_ms": _percentiles_ms(self._latencies_ns),
            "drive_s": round(drive_ns / 1e9, 6),
            "wall_s": round(wall_ns / 1e9, 6),
            "realtime_factor": round(drive_ns / wall_ns, 3),
            "model_share": round(model_ns / wall_ns, 4),
        }


def _percentiles_ms(values_ns: list[int]) -> dict[str, float]:
    if not values_ns:
        return {"p50": 0.0, "p99": 0.0}
    ordered = sorted(values_ns)
    return {
        "p50": round(ordered[len(ordered) // 2] / MS, 4),
        "p99": round(ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)] / MS, 4),
    }
