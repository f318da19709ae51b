"""Has the rig been knocked, or have the LiDAR's and the camera's clocks come apart? Told from ordinary driving.

Twice a second a sweep and a picture are compared (`rig_evidence`), and the comparisons of the last 5, 10 and 30 s of
driving are summed, fault by fault. In a sound rig each fault is the worse explanation, so its sum is negative; a real
one makes its own positive: what is plain within seconds, the rest a little later. What one kind of edge can say is
bounded, so that one row of trees does not outweigh all else. A fault is in doubt when its sum exceeds what hours of
drives with a sound rig ever reached (`rig_bounds`, apart for coarse LiDARs and fine ones). To a coarse LiDAR shifts of
centimetres are no reason for a doubt (at 20 m they move an edge by a pixel), but may explain one.

What gives no edges gives no evidence: night without light, fog, an empty road, a blind camera. At a standstill the same
edges would be counted again and again, so a sweep counts only after the vehicle has moved on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.alignment.projection import F64, Rig
from edge.alignment.range_edges import KINDS
from edge.alignment.rig_bounds import COARSE, FINE, WINDOWS
from edge.alignment.rig_evidence import AXES, FAULTS, SEEN_SHAPE, STEPS, evidence
from edge.errors import AlignmentError
from edge.samples import Frame, Sweep

KEPT: Final = max(WINDOWS)
EVERY_NS: Final = 450_000_000  # between comparisons; at 10 sweeps a second each fifth
LEAST_WAY_M: Final = 0.7  # and so much further
MOST_LEAD_NS: Final = 60_000_000  # between sweep and picture: what moves by itself is not where it was
CLOSE_NS: Final = 20_000_000  # a picture so near the sweep's instant is waited for, up to
PATIENCE_NS: Final = 150_000_000
_NEVER_NS: Final = int(np.iinfo(np.int64).min)
_SHIFTS: Final = np.repeat([axis.endswith("_cm") for axis in AXES], 2)
_CALM: Final = 0.5  # a doubt ends below this share of its threshold
_MOST_STEPS: Final = 2.0  # an amount beyond this is a guess


@dataclass(frozen=True, slots=True)
class RigReading:
    """What the drive says of the rig.

    Attributes:
        is_in_doubt: whether a fault explains the last seconds better than the calibration does.
        axis: that explains best, one of AXES; "" while nothing is in doubt. Axes are the camera's: turns of the LiDAR
            about right (pitch), down (yaw) and ahead (roll), its shifts, and how late its stamps are.
        amount: about how much, in the unit that the axis names; never beyond twice the step of its hypothesis.
        since_ns: stamp of the sweep from which the evidence adds up; -1 while nothing is in doubt.
        score: of the fault nearest to its threshold; 1 raises the doubt.
        comparisons: that the reading rests on, up to KEPT; fewer say less.
    """

    is_in_doubt: bool
    axis: str
    amount: float
    since_ns: int
    score: float
    comparisons: int


NOTHING_SEEN: Final = RigReading(False, "", 0.0, -1, 0.0, 0)


class Verdict:
    """Evidence of the last comparisons, and what it adds up to. Knows neither pictures nor sweeps.

    Args:
        is_fine: whether the LiDAR's rays are close, which the evidence says.
    """

    def __init__(self, is_fine: bool = False) -> None:
        self.is_fine = is_fine
        self._bounds = FINE if is_fine else COARSE
        self._ratios = np.zeros((KEPT, KINDS, FAULTS))  # oldest first
        self._stamps_ns = np.full(KEPT, _NEVER_NS, np.int64)
        self.reading = NOTHING_SEEN

    def add(self, ratios: F64, stamp_ns: int) -> RigReading:
        """One comparison more.

        Args:
            ratios: (KINDS, FAULTS) log-likelihood ratios, `rig_evidence.evidence`.
            stamp_ns: of its sweep.
        """
        self._ratios[:-1], self._stamps_ns[:-1] = self._ratios[1:], self._stamps_ns[1:]
        self._ratios[-1], self._stamps_ns[-1] = ratios / self._bounds.scales, stamp_ns
        sums = np.stack([self._ratios[-window:].sum(axis=0) for window in WINDOWS])
        scores = bounded(sums, self._bounds.loudest) / self._bounds.thresholds
        window, fault = divmod(int(scores.argmax()), FAULTS)
        score = float(scores[window, fault])
        comparisons = int((self._stamps_ns > _NEVER_NS).sum())
        if score < (_CALM if self.reading.is_in_doubt else 1.0):
            self.reading = RigReading(False, "", 0.0, -1, score, comparisons)
            return self.reading
        since_ns = self.reading.since_ns if self.reading.is_in_doubt else self._since_ns(fault)
        likelihoods = (sums[window] * self._bounds.scales).sum(axis=0)
        axis = int(likelihoods.argmax()) // 2
        amount = _steps(float(likelihoods[2 * axis]), float(likelihoods[2 * axis + 1])) * STEPS[axis]
        self.reading = RigReading(True, AXES[axis], round(amount, 3), since_ns, score, comparisons)
        return self.reading

    def freeze(self) -> dict[str, Any]:
        """All that one comparison leaves for the next."""
        reading = self.reading
        return {
            "is_fine": self.is_fine,
            "ratios": self._ratios.copy(),
            "stamps": self._stamps_ns.copy(),
            "reading": (
                reading.is_in_doubt, reading.axis, reading.amount, reading.since_ns, reading.score, reading.comparisons,
            ),
        }  # fmt: skip

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Take a frozen state."""
        self.is_fine = bool(frozen["is_fine"])
        self._bounds = FINE if self.is_fine else COARSE
        self._ratios[:] = frozen["ratios"]
        self._stamps_ns[:] = frozen["stamps"]
        self.reading = RigReading(*frozen["reading"])

    def _since_ns(self, fault: int) -> int:
        """Of the stretch up to now in which the evidence of a fault adds up to most."""
        stretches = self._ratios[::-1, :, fault].sum(axis=1).cumsum()
        return int(self._stamps_ns[len(stretches) - 1 - int(stretches.argmax())])


class RigMonitor:
    """Watches one camera and one LiDAR from the vehicle's loop.

    Args:
        rig: as calibrated.
        every_ns: between comparisons. A comparison with a LiDAR of 64 rings costs several ms: more time between them
            keeps the mean low, and the windows then span more driving.

    Raises:
        AlignmentError: no time between comparisons.
    """

    def __init__(self, rig: Rig, every_ns: int = EVERY_NS) -> None:
        if every_ns <= 0:
            raise AlignmentError(f"rig monitor: expected some time between comparisons, got {every_ns} ns")
        self.rig, self._every_ns = rig, every_ns
        self._verdict = Verdict()
        self._seen = np.zeros(SEEN_SHAPE, np.float32)
        self._last_ns: int | None = None

    @property
    def reading(self) -> RigReading:
        """As of the last comparison."""
        return self._verdict.reading

    def update(self, frame: Frame, sweep: Sweep | None, speed_mps: float, yaw_rate_radps: float) -> RigReading:
        """One camera frame; most are passed over, see EVERY_NS and LEAST_WAY_M.

        What can't be compared is no evidence: a frame without picture or of another size than the rig's, no sweep, a
        sweep taken too long before or after, motion that is not finite. After a clock that went back time counts anew.

        Args:
            frame: with its picture.
            sweep: the nearest one, ring by ring; the one of the last frame is passed over.
            speed_mps: of the vehicle, ahead.
            yaw_rate_radps: to the left.
        """
        image = frame.image
        if sweep is None or image is None or not self._is_due(frame.stamp_ns, sweep.stamp_ns, speed_mps):
            return self.reading
        if not math.isfinite(yaw_rate_radps) or not self._fits(image) or not _is_sweep(sweep.points_lidar):
            return self.reading
        self._last_ns = sweep.stamp_ns
        lead_s = (frame.stamp_ns - sweep.stamp_ns) * 1e-9
        found = evidence(self.rig, sweep.points_lidar, image, lead_s, speed_mps, yaw_rate_radps, self._seen)
        if not found.edges:
            return self.reading
        if found.is_fine != self._verdict.is_fine:
            self._verdict = Verdict(found.is_fine)  # another LiDAR: what was gathered is on another scale
        if found.is_fine and abs(frame.stamp_ns - sweep.stamp_ns) > CLOSE_NS:
            found.ratios[:, _SHIFTS] = 0.0  # what moves by itself has moved by more than 5 cm since
        return self._verdict.add(found.ratios, sweep.stamp_ns)

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        return {"verdict": self._verdict.freeze(), "seen": self._seen.copy(), "last": self._last_ns}

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Take a frozen state.

        Raises:
            AlignmentError: the state of another version.
        """
        if np.shape(frozen["seen"]) != SEEN_SHAPE or np.shape(frozen["verdict"]["ratios"]) != (KEPT, KINDS, FAULTS):
            raise AlignmentError(
                f"rig monitor: expected a state of {SEEN_SHAPE} and {(KEPT, KINDS, FAULTS)}, got "
                f"{np.shape(frozen['seen'])} and {np.shape(frozen['verdict']['ratios'])}"
            )
        self._verdict.thaw(frozen["verdict"])
        self._seen[:] = frozen["seen"]
        self._last_ns = frozen["last"]

    def _is_due(self, frame_ns: int, sweep_ns: int, speed_mps: float) -> bool:
        if abs(frame_ns - sweep_ns) > MOST_LEAD_NS or not math.isfinite(speed_mps):
            return False
        if self._last_ns is None or sweep_ns < self._last_ns:
            self._last_ns = sweep_ns  # how far the vehicle went before is not known
            return False
        apart_ns = sweep_ns - self._last_ns
        patience_ns = 0 if abs(frame_ns - sweep_ns) <= CLOSE_NS else PATIENCE_NS
        return apart_ns >= self._every_ns + patience_ns and abs(speed_mps) * apart_ns * 1e-9 >= LEAST_WAY_M

    def _fits(self, image: NDArray[np.uint8]) -> bool:
        size = self.rig.height_px, self.rig.width_px
        return image.dtype == np.uint8 and image.shape in (size, (*size, 3))


def bounded(sums: F64, loudest: F64 | float) -> F64:
    """(..., FAULTS) of (..., KINDS, FAULTS) sums of evidence, no kind of edge louder than that."""
    total: F64 = (sums / np.sqrt(1.0 + (sums / loudest) ** 2)).sum(axis=-2)
    return total


def _steps(up: float, down: float) -> float:
    """Where the parabola through down, 0 and up has its top, in steps; on the side of the better one."""
    bend = -(up + down)
    top = 0.5 * (up - down) / bend if bend > 0.0 else math.copysign(_MOST_STEPS, up - down)
    return min(max(top, -_MOST_STEPS), _MOST_STEPS)


def _is_sweep(points_lidar: NDArray[np.float32]) -> bool:
    return points_lidar.ndim == 2 and points_lidar.shape[1] >= 3
