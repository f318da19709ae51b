"""Reads a drive once, for everything in its report but pictures and sound."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, deque
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.alignment.offset import SURE
from edge.alignment.watch import LATE_FROM_NS
from edge.decision import Alignment, Decision, SceneState
from edge.drive import topics
from edge.drive.codec import decode, timestamp_ns
from edge.drive.reader import DriveMessage, DriveReader
from edge.errors import DriveFormatError
from edge.report import sound
from edge.report.history import HardScene, History, Series, Track
from edge.report.truth_log import TruthLog
from edge.samples import AudioChunk, GnssFix, VehicleState
from roadfuse.v1 import decision_pb2, truth_pb2

# More names, or more scenes, than any run has; a hostile drive gets no further.
MAX_NAMES: Final = 128
MAX_SCENES: Final = 2000
MAX_PEAKS: Final = 64
# Ground truth that may belong to a decision which is still to come.
_TRUTHS: Final = 64


def gather(drive: DriveReader) -> History:
    """The history of the run that the drive carries.

    Raises:
        DriveFormatError: it carries no decisions, or one of them is none.
    """
    if topics.DECISION in drive.topics:
        gatherer = Gatherer()
        for message in drive.messages(topics=[*_SENSORS, topics.TRUTH, topics.DECISION]):
            gatherer.add(message)
        if gatherer.frames:
            return gatherer.finish()
    raise DriveFormatError(
        f"{drive.path}: expected recorded decisions ({topics.DECISION}), got none; "
        f"make them with: roadfuse replay {drive.path} --out DECIDED.mcap"
    )


class Gatherer:
    """Takes messages in the order of a drive; `finish` gives the history."""

    def __init__(self) -> None:
        self.frames = 0
        self._stamps, self._emitted = array("q"), array("q")
        self._hardness = array("f")
        self._overload, self._degraded = array("B"), array("B")
        self._scene = array("I")
        self._reasons: Counter[str] = Counter()
        self._scores, self._tags, self._events = _Columns(), _Columns(), _Columns()
        self._doubts = _Columns()
        self._streams = _Columns("B")
        self._absences = [""]
        self._stages: dict[str, array[int]] = {}
        self._digest = hashlib.sha256()
        self._bundles: list[str] = []
        self._speed, self._ground_speed, self._level = _Curve(), _Curve(), _Curve()
        self._fixes = (array("q"), array("d"), array("d"))
        self._truth = TruthLog()
        self._truths: deque[truth_pb2.GroundTruth] = deque(maxlen=_TRUTHS)
        self._scenes: list[HardScene] = []
        self._scenes_not_kept = 0
        self._messages: Counter[str] = Counter()
        self._unreadable: Counter[str] = Counter()

    def add(self, message: DriveMessage) -> None:
        """Take a message.

        Raises:
            DriveFormatError: a decision that is none.
        """
        self._messages[message.topic] += 1
        if message.topic == topics.DECISION:
            self._add_decision(_decision(message, self.frames))
            return
        try:
            if message.topic == topics.TRUTH:
                self._add_truth(message.payload)
            else:
                self._add_sample(decode(message.topic, message.payload, message.sequence))
        except (DriveFormatError, DecodeError):
            self._unreadable[message.topic] += 1

    def finish(self) -> History:
        """All of it, by frame stamp."""
        order = np.argsort(np.array(self._stamps, np.int64), kind="stable")
        speed = self._speed if self._speed.stamps else self._ground_speed
        stamps, latitudes, longitudes = self._fixes
        return History(
            stamps_ns=np.array(self._stamps, np.int64)[order],
            emitted_ns=np.array(self._emitted, np.int64)[order],
            hardness=np.array(self._hardness, np.float32)[order],
            overload=np.array(self._overload, np.uint8)[order],
            scene=np.array(self._scene, np.uint32)[order],
            degraded=np.array(self._degraded, np.bool_)[order],
            reasons=dict(self._reasons),
            scores=self._scores.finish(self.frames, order),
            scene_tags=self._tags.finish(self.frames, order),
            sound_events=self._events.finish(self.frames, order),
            doubts=self._doubts.finish(self.frames, order),
            streams=self._streams.finish(self.frames, order),
            absences=self._absences,
            stages_ns={name: np.array(values, np.int64) for name, values in self._stages.items()},
            sha256=self._digest.hexdigest(),
            bundle_ids=self._bundles,
            speed_mps=speed.finish(),
            sound_dbfs=self._level.finish(),
            track=Track(np.array(stamps, np.int64), np.array(latitudes), np.array(longitudes)),
            truth=self._truth.finish(),
            scenes=self._scenes,
            messages=dict(self._messages),
            unreadable=dict(self._unreadable),
            scenes_not_kept=self._scenes_not_kept,
        )

    def _add_decision(self, decision: Decision) -> None:
        self._digest.update(decision.canonical())
        self._stamps.append(decision.stamp_ns)
        self._emitted.append(decision.emitted_ns)
        self._hardness.append(_unit(decision.hardness))
        self._overload.append(min(decision.overload_level, 255))
        self._degraded.append(decision.degraded)
        self._scene.append(decision.scene & 0xFFFFFFFF)
        self._reasons[decision.reason.name.lower()] += 1
        frame = self.frames
        for name, value, weight in decision.scores:
            self._scores.put(name, frame, _unit(value * weight))
        for name, probability in decision.scene_tags:
            self._tags.put(name, frame, _unit(probability))
        for name, probability in decision.sound_events:
            self._events.put(name, frame, _unit(probability))
        for doubt, evidence in doubts_of(decision.alignment):
            self._doubts.put(doubt, frame, _unit(evidence))
        for state in decision.modalities:
            self._streams.put(state.stream, frame, self._absence(state.absence or ("" if state.present else "absent")))
        for stage, elapsed_ns in decision.timings_ns.items():
            if stage in self._stages or len(self._stages) < MAX_NAMES:
                self._stages.setdefault(stage, array("q")).append(min(elapsed_ns, 1 << 62))
        if decision.bundle_id not in self._bundles and len(self._bundles) < MAX_NAMES:
            self._bundles.append(decision.bundle_id)
        if decision.scene_state != SceneState.QUIET:
            self._follow_scene(decision)
        self.frames += 1

    def _follow_scene(self, decision: Decision) -> None:
        last = self._scenes[-1] if self._scenes else None
        if last is None or last.number != decision.scene or last.outcome != "open":
            if len(self._scenes) >= MAX_SCENES:
                self._scenes_not_kept += decision.scene_state is SceneState.OPENED
                return
            stamp_ns, now_ns = decision.stamp_ns, decision.emitted_ns
            last = HardScene(decision.scene, stamp_ns, stamp_ns, now_ns, now_ns, -1.0, stamp_ns)
            self._scenes.append(last)
        last.last_ns, last.to_ns = max(decision.stamp_ns, last.last_ns), max(decision.emitted_ns, last.to_ns)
        if decision.hardness > last.peak_hardness:
            last.peak_hardness, last.peak_ns, last.peak = _unit(decision.hardness), decision.stamp_ns, decision
            last.peak_truth = self._truth_at(decision.stamp_ns)
        if decision.scene_state in (SceneState.QUEUED, SceneState.REFUSED):
            last.outcome = "queued" if decision.scene_state is SceneState.QUEUED else "refused"
            last.refusal = decision.scene_refusal
            self._forget_easy_peaks()

    def _forget_easy_peaks(self) -> None:
        kept = [scene for scene in self._scenes if scene.peak is not None]
        if len(kept) > MAX_PEAKS:
            easiest = min(kept, key=lambda scene: scene.peak_hardness)
            easiest.peak = easiest.peak_truth = None

    def _truth_at(self, stamp_ns: int) -> truth_pb2.GroundTruth | None:
        near = min(self._truths, key=lambda truth: abs(timestamp_ns(truth.timestamp) - stamp_ns), default=None)
        fits = near is not None and abs(timestamp_ns(near.timestamp) - stamp_ns) <= 100_000_000
        return near if fits else None

    def _add_truth(self, payload: bytes) -> None:
        truth = truth_pb2.GroundTruth.FromString(payload)
        self._truth.add(truth)
        self._truths.append(truth)

    def _add_sample(self, sample: Any) -> None:
        if isinstance(sample, VehicleState):
            self._speed.add(sample.stamp_ns, sample.speed_mps)
        elif isinstance(sample, AudioChunk):
            self._level.add(sample.stamp_ns, sound.level_dbfs(sample.pcm))
        elif isinstance(sample, GnssFix):
            stamps, latitudes, longitudes = self._fixes
            stamps.append(sample.stamp_ns)
            latitudes.append(sample.latitude_deg)
            longitudes.append(sample.longitude_deg)
            if sample.velocity_enu_mps is not None:
                east, north, _ = sample.velocity_enu_mps
                self._ground_speed.add(sample.stamp_ns, float(np.hypot(east, north)))

    def _absence(self, why: str) -> int:
        if why not in self._absences:
            if len(self._absences) > MAX_NAMES:
                return MAX_NAMES
            self._absences.append(why)
        return self._absences.index(why)


def doubts_of(alignment: Alignment) -> list[tuple[str, float]]:
    """What alignment doubts of a frame, in a few words each, and the evidence, 0..1."""
    found = [(f"{suspect.stream}: {suspect.kind}", suspect.evidence) for suspect in alignment.suspects]
    if alignment.rig is not None:
        found.append((f"rig: {alignment.rig.axis}", 1.0))
    late = [clock for clock in alignment.clocks if clock.confidence >= SURE and abs(clock.late_ns) > LATE_FROM_NS]
    found += [(f"{clock.stream}: {'late' if clock.late_ns > 0 else 'early'}", clock.confidence) for clock in late]
    return found


class _Columns:
    """A column a name, all of the run's length; a name that is not in every decision has zeros elsewhere."""

    def __init__(self, kind: str = "f") -> None:
        self._kind = kind
        self._columns: dict[str, array[Any]] = {}

    def put(self, name: str, frame: int, value: float) -> None:
        column = self._columns.get(name)
        if column is None:
            if len(self._columns) >= MAX_NAMES:
                return
            column = self._columns[name] = array(self._kind)
        if len(column) < frame:
            column.extend([0] * (frame - len(column)))
        if len(column) == frame:  # a name that comes twice in a decision counts once
            column.append(value)  # type: ignore[arg-type,unused-ignore]

    def finish(self, frames: int, order: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        for column in self._columns.values():
            column.extend([0] * (frames - len(column)))
        return {name: np.array(column)[order] for name, column in self._columns.items()}


class _Curve:
    """Values by stamp."""

    def __init__(self) -> None:
        self.stamps, self._values = array("q"), array("f")

    def add(self, stamp_ns: int, value: float) -> None:
        self.stamps.append(stamp_ns)
        self._values.append(value)

    def finish(self) -> Series:
        stamps = np.array(self.stamps, np.int64)
        order = np.argsort(stamps, kind="stable")
        return Series(stamps[order], np.array(self._values, np.float32)[order])


def _decision(message: DriveMessage, index: int) -> Decision:
    try:
        return Decision.from_message(decision_pb2.Decision.FromString(message.payload))
    except (DecodeError, ValueError, DriveFormatError) as error:
        raise DriveFormatError(f"{topics.DECISION}: expected a decision as message {index}, got {error}") from None


def _unit(value: float) -> float:
    """Into 0..1; what is no number counts as 0."""
    return min(max(value, 0.0), 1.0) if value == value else 0.0


_SENSORS: Final = (topics.AUDIO, topics.GNSS, topics.VEHICLE)
