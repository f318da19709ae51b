"""What one reading of a drive leaves for its report: a column a quantity, a row a decision.

Instants are frame stamps in ns. Nothing here grows with the size of pictures or sound, only with the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.decision import Decision
from roadfuse.v1 import truth_pb2

Outcome = Literal["queued", "refused", "open"]


@dataclass(slots=True)
class HardScene:
    """One hard scene of the run.

    Attributes:
        outcome: "open" where the drive ended before the scene did.
        peak: its hardest decision; None where so many scenes were harder that this one's was let go.
        peak_truth: ground truth nearest to the peak.
        from_ns, to_ns: arrival instants between which its samples lie.
    """

    number: int
    first_ns: int
    last_ns: int
    from_ns: int
    to_ns: int
    peak_hardness: float
    peak_ns: int
    outcome: Outcome = "open"
    refusal: str = ""
    peak: Decision | None = None
    peak_truth: truth_pb2.GroundTruth | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A curve of its own rate: (n,) int64 stamps in ns, (n,) float32 values."""

    stamps_ns: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.stamps_ns)


@dataclass(frozen=True, slots=True)
class Track:
    """GNSS fixes: (n,) stamps in ns, latitude and longitude in degrees."""

    stamps_ns: NDArray[np.int64]
    latitude_deg: NDArray[np.float64]
    longitude_deg: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TruthColumns:
    """Ground truth by its own instants.

    Attributes:
        tags: name in the words of the reference bundle -> (n,) bool.
        sounds: sound event -> (n,) bool.
        captions: (n,) index into `sentences`.
        sentences: each caption once.
    """

    stamps_ns: NDArray[np.int64]
    tags: dict[str, NDArray[np.bool_]]
    sounds: dict[str, NDArray[np.bool_]]
    captions: NDArray[np.int64]
    sentences: list[str]


@dataclass(slots=True)
class History:
    """The run, by frame.

    Attributes:
        stamps_ns, emitted_ns: (n,) int64, by stamp.
        hardness: (n,) float32.
        overload: (n,) uint8, level.
        scene: (n,) uint32, number or 0.
        degraded: (n,) bool.
        reasons: emit reason -> frames.
        scores: name -> (n,) float32, its part in the hardness: value times weight.
        scene_tags, sound_events: name -> (n,) float32 probability.
        doubts: what alignment doubts -> (n,) float32 evidence.
        streams: name -> (n,) uint8, index into `absences`; 0 is present.
        absences: why a stream may be absent.
        stages_ns: stage -> measured times.
        sha256: over the canonical bytes of the decisions, in the order in which they were made.
        speed_mps, sound_dbfs: curves of their own rate; empty where the drive has none.
        messages: topic -> how many, of the topics that were read.
        unreadable: topic -> messages that could not be decoded.
        scenes_not_kept: hard scenes beyond what a page can hold.
    """

    stamps_ns: NDArray[np.int64]
    emitted_ns: NDArray[np.int64]
    hardness: NDArray[np.float32]
    overload: NDArray[np.uint8]
    scene: NDArray[np.uint32]
    degraded: NDArray[np.bool_]
    reasons: dict[str, int]
    scores: dict[str, NDArray[np.float32]]
    scene_tags: dict[str, NDArray[np.float32]]
    sound_events: dict[str, NDArray[np.float32]]
    doubts: dict[str, NDArray[np.float32]]
    streams: dict[str, NDArray[np.uint8]]
    absences: list[str]
    stages_ns: dict[str, NDArray[np.int64]]
    sha256: str
    bundle_ids: list[str]
    speed_mps: Series
    sound_dbfs: Series
    track: Track
    truth: TruthColumns | None
    scenes: list[HardScene]
    messages: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    scenes_not_kept: int = 0

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def period_ns(self) -> int:
        """Usual distance of two frames."""
        return int(np.median(np.diff(self.stamps_ns))) if len(self) > 1 else 50_000_000

    @property
    def first_ns(self) -> int:
        """Stamp of the first frame."""
        return int(self.stamps_ns[0])

    @property
    def duration_s(self) -> float:
        """From the first frame to a period after the last."""
        return (int(self.stamps_ns[-1]) - self.first_ns + max(self.period_ns, 1)) / 1e9

    def seconds(self, stamp_ns: int) -> float:
        """An instant since the first frame."""
        return (stamp_ns - self.first_ns) / 1e9
