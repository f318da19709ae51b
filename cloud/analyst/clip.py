"""A clip through the loop again, as designed: what each moment is to the bundle, and what the vehicle said of it then.

A clip is what a vehicle sent, so nothing in it is believed: it is bounded in time, frames and bytes, and one that is
damaged or no drive at all is `Hopeless`. A moment is a camera frame every 0.25 s, first frame first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cloud.analyst.heads import Heads, sound_onsets
from cloud.errors import Hopeless
from edge.bundle import Bundle
from edge.decision import Alignment, Decision
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.errors import DriveDamaged, DriveFormatError
from edge.perception import Perception
from edge.redaction.facts import facts_of
from edge.replay import Replay
from export.model.analyst_outputs import BOXES
from roadfuse.v1 import decision_pb2

MODALITIES: Final = ("camera", "audio", "motion", "lidar")
STEP_NS: Final = 250_000_000
# A frame so much before its moment is due is the one.
_EARLY_NS: Final = 20_000_000
# After a gap the count of moments begins anew.
_LATE_NS: Final = 100_000_000
# A scene is cut at 20 s, with 2 s before it; what an ask brings may be longer. Beyond is no clip of ours.
MOST_NS: Final = 180 * 1_000_000_000
MOST_FRAMES: Final = 12_000
MOST_DECISION_BYTES: Final = 1 << 20
DIMENSIONS: Final = 192


@dataclass(frozen=True, slots=True)
class Told:
    """What was decided of one frame.

    Attributes:
        labels: calibrated.
        absences: stream -> why it was absent.
    """

    stamp_ns: int
    hardness: float
    labels: dict[str, float]
    alignment: Alignment
    absences: dict[str, str]


@dataclass(slots=True)
class Replayed:
    """A clip as the bundle sees it.

    Attributes:
        stamps_ns: (t,) frame instants of the moments, vehicle monotonic clock.
        embeddings: (t, 4, 192) float32, unit length, in the order of MODALITIES; zeros where absent.
        presence: (t, 4).
        boxes: (t, *BOXES) float32: the camera's best objects; zeros where it is absent or finds none.
        fused: (t, 192) float32: the bundle's own view of the moment.
        labels: of each moment, by the bundle's heads.
        onsets: of each moment, how long ago each sound began, s.
        again: what this replay decides of each frame.
        edge: what the vehicle decided of each frame, as recorded.
        edge_bundle: that decided then; "" where nothing is recorded.
        size_bytes: of the clip.
        redaction: what it says was covered before it left the vehicle; None: it is as it was recorded.
    """

    size_bytes: int
    stamps_ns: list[int] = field(default_factory=list)
    embeddings: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4, DIMENSIONS), np.float32))
    presence: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 4), np.bool_))
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, *BOXES), np.float32))
    fused: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, DIMENSIONS), np.float32))
    labels: list[dict[str, float]] = field(default_factory=list)
    onsets: list[dict[str, float]] = field(default_factory=list)
    again: list[Told] = field(default_factory=list)
    edge: list[Told] = field(default_factory=list)
    edge_bundle: str = ""
    redaction: dict[str, Any] | None = None

    @property
    def first_ns(self) -> int:
        """The clip's first frame."""
        return self.again[0].stamp_ns

    @property
    def last_ns(self) -> int:
        """The clip's last frame."""
        return self.again[-1].stamp_ns


def replayed(path: Path, bundle: Bundle, heads: Heads, say: Callable[[float], None]) -> Replayed:
    """Replay a clip.

    Args:
        path: a file that came from a vehicle.
        bundle: whose view it is; it needs a shared space of 192 dimensions.
        heads: of the bundle.
        say: is given the share that is done, 0..1.

    Raises:
        Hopeless: the clip is damaged, no drive, or beyond all bounds; one line says which.
        RoadfuseError: for this time.
    """
    try:
        with DriveReader(path) as drive:
            found = Replayed(drive.size_bytes, redaction=facts_of(drive.metadata))
            _recorded(drive, heads, found)
            span_ns = _span_ns(drive)
        with Replay(path, bundle) as run:
            _follow(run, heads, found, span_ns, say)
    except DriveDamaged as error:
        raise Hopeless(f"the clip is damaged at byte {error.offset}: {_nameless(error, path)}") from None
    except DriveFormatError as error:
        raise Hopeless(f"the clip can't be read: {_nameless(error, path)}") from None
    if not found.stamps_ns:
        raise Hopeless("the clip can't be analysed: expected at least one frame, got none")
    return found


def _span_ns(drive: DriveReader) -> int:
    span = drive.span_ns()
    length_ns = span[1] - span[0] if span else 0
    if not 0 <= length_ns <= MOST_NS:
        raise Hopeless(f"the clip can't be analysed: expected at most {MOST_NS / 1e9:g} s, got {length_ns / 1e9:g}")
    return length_ns


def _recorded(drive: DriveReader, heads: Heads, found: Replayed) -> None:
    """The vehicle's own decisions, where the clip has them."""
    if topics.DECISION not in drive.topics:
        return
    for message in drive.messages(topics=[topics.DECISION]):
        if len(found.edge) == MOST_FRAMES or len(message.payload) > MOST_DECISION_BYTES:
            raise Hopeless(
                f"the clip can't be analysed: expected at most {MOST_FRAMES} decisions of 1 MiB each, got more"
            )
        try:
            decision = Decision.from_message(decision_pb2.Decision.FromString(message.payload))
        except (DecodeError, DriveFormatError, ValueError):
            raise Hopeless(
                "the clip can't be analysed: expected decisions of this format, got malformed ones"
            ) from None
        found.edge.append(_told(decision, heads))
        found.edge_bundle = decision.bundle_id


def _follow(run: Replay, heads: Heads, found: Replayed, span_ns: int, say: Callable[[float], None]) -> None:
    perception = run.loop.perception
    _expect_space(run.bundle)
    at = [perception.encoders[name] for name in MODALITIES if name in perception.encoders]
    assert at
    embeddings: list[NDArray[np.float32]] = []
    presence: list[list[bool]] = []
    boxes: list[NDArray[np.float32]] = []
    fused: list[NDArray[np.float32]] = []
    due_ns = -_LATE_NS
    for decision in run:
        if len(found.again) == MOST_FRAMES:
            raise Hopeless(f"the clip can't be analysed: expected at most {MOST_FRAMES} frames, got more")
        found.again.append(_told(decision, heads))
        # The engines hold their last frame: where two decisions came at once, the second one's.
        view = perception.embedding()
        if decision.stamp_ns < due_ns - _EARLY_NS or view is None or view.tobytes() != decision.embedding:
            continue
        due_ns = (due_ns if decision.stamp_ns - due_ns < _LATE_NS else decision.stamp_ns) + STEP_NS
        there = _present(decision)
        presence.append(there)
        embeddings.append(_embeddings(perception, run.bundle, there))
        boxes.append(_boxes(perception, run.bundle, there))
        fused.append(view.astype(np.float32, copy=True))
        found.stamps_ns.append(decision.stamp_ns)
        found.labels.append(found.again[-1].labels)
        found.onsets.append(sound_onsets(decision))
        say(min((decision.stamp_ns - found.first_ns) / max(span_ns, 1), 1.0))
    if embeddings:
        found.embeddings, found.fused = np.stack(embeddings), np.stack(fused)
        found.presence, found.boxes = np.array(presence, np.bool_), np.stack(boxes)


def _expect_space(bundle: Bundle) -> None:
    if bundle.fuse is None or "embedding" not in bundle.fuse.outputs:
        raise Hopeless(f"bundle {bundle.name}: expected one whose fusion gives an embedding, got one that gives none")


def _embeddings(perception: Perception, bundle: Bundle, there: list[bool]) -> NDArray[np.float32]:
    """What each encoder gave, (4, 192); zeros of one that is not there."""
    rows = np.zeros((len(MODALITIES), DIMENSIONS), np.float32)
    for row, name in enumerate(MODALITIES):
        spec = bundle.encoders.get(name)
        if spec is None or "embedding" not in spec.outputs:
            there[row] = False
        elif there[row]:
            rows[row] = perception.encoders[name].outputs[spec.outputs["embedding"]].reshape(-1)
    return rows


def _boxes(perception: Perception, bundle: Bundle, there: list[bool]) -> NDArray[np.float32]:
    """BOXES, best first; zeros of a camera that is not there, or says them in another form."""
    count, numbers = BOXES
    rows, spec = np.zeros(BOXES, np.float32), bundle.encoders.get("camera")
    if spec is not None and there[MODALITIES.index("camera")] and "objects" in spec.outputs and not spec.decoder:
        said = perception.encoders["camera"].outputs[spec.outputs["objects"]]
        if said.ndim == 3 and said.shape[2] == numbers:
            best = said[0, :count]
            rows[: len(best)] = best
    return rows


def _present(decision: Decision) -> list[bool]:
    """Which encoders had something, in the order of MODALITIES."""
    here = {state.stream for state in decision.modalities if state.present}
    return ["camera" in here, "audio" in here, bool(here & {"imu", "vehicle"}), "lidar" in here]


def _told(decision: Decision, heads: Heads) -> Told:
    absences = {state.stream: state.absence for state in decision.modalities if not state.present}
    hardness = min(max(decision.hardness, 0.0), 1.0) if math.isfinite(decision.hardness) else 0.0
    return Told(decision.stamp_ns, hardness, heads.labels(decision), decision.alignment, absences)


def _nameless(error: Exception, path: Path) -> str:
    """The error without the name of a temporary file."""
    return str(error).replace(f"{path}: ", "").replace(str(path), "the clip")
