"""A decision: what the loop says of one camera frame, and its form on disk.

Measured timings are recorded with a decision but are no part of it: two runs agree when `canonical` bytes agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from edge.drive.codec import timestamp, timestamp_ns
from edge.frameset import EmitReason
from roadfuse.v1 import decision_pb2


class SceneState(IntEnum):
    """Where a frame stands in a hard scene; the numbers of roadfuse.v1.SceneState."""

    QUIET = 1
    OPENED = 2
    OPEN = 3
    QUEUED = 4
    REFUSED = 5


class ModalityState(NamedTuple):
    """One stream's part in a decision; `absence` is "" when present."""

    stream: str
    present: bool
    age_ns: int
    samples: int
    absence: str


class Score(NamedTuple):
    """A part of the hardness: its value and how much it counts, both 0..1."""

    name: str
    value: float
    weight: float


class Tag(NamedTuple):
    """A label and its probability."""

    name: str
    probability: float


class DetectedObject(NamedTuple):
    """A box in pixels of the recorded picture; `kind` is "" where the bundle tells none."""

    name: str
    probability: float
    left_px: float
    top_px: float
    width_px: float
    height_px: float
    kind: str = ""


class Reading(NamedTuple):
    """What a head says of one label: a probability, or of an onset how long ago it was, s."""

    label: str
    value: float


class HeadReadings(NamedTuple):
    """A head beside scene tags and sound events."""

    name: str
    readings: tuple[Reading, ...]


class Mask(NamedTuple):
    """A grid of labels over the picture.

    cells: rows * columns bytes, row by row: indices of `labels`, 255 for none of them.
    """

    name: str
    labels: tuple[str, ...]
    rows: int
    columns: int
    cells: bytes


class Suspect(NamedTuple):
    """A stream that has gone wrong while it still delivers.

    Attributes:
        stream: as in the stream table.
        kind: what is wrong with it, as in edge.alignment.agreement.SIGNS.
        evidence: 0..1.
        since_ns: the frame from which on it has looked so.
    """

    stream: str
    kind: str
    evidence: float
    since_ns: int


class ClockOffset(NamedTuple):
    """How late a stream's stamps are, by what the IMU felt."""

    stream: str
    late_ns: int
    confidence: float


class RigDoubt(NamedTuple):
    """Camera and LiDAR no longer sit, or keep time, as calibrated.

    Attributes:
        axis: what explains best, with its unit, as in edge.alignment.rig_evidence.AXES.
        amount: about how much.
        since_ns: the sweep from which on it has looked so.
        score: 1 and more.
    """

    axis: str
    amount: float
    since_ns: int
    score: float


class Alignment(NamedTuple):
    """Whether the streams tell of one event, one instant and one place.

    Attributes:
        agreement: 0..1; 1 where all is as usual.
        suspects: at most one a stream.
        clocks: those that there is enough to tell of.
        rig: None while nothing is in doubt.
    """

    agreement: float = 1.0
    suspects: tuple[Suspect, ...] = ()
    clocks: tuple[ClockOffset, ...] = ()
    rig: RigDoubt | None = None


IN_ORDER: Final = Alignment()


class CampaignMatch(NamedTuple):
    """A campaign that a frame or a scene is for, and how near it is to its vector (1 where it has none)."""

    campaign: str
    score: float


class PutBack(NamedTuple):
    """The bundle that was to decide failed; from this frame on another one does.

    Attributes:
        bundle_id: that failed.
        why: engine_error, not_finite, frozen or late, and what of it.
    """

    bundle_id: str
    why: str


class StageDigest(NamedTuple):
    """CRC-32 of one tensor of one stage."""

    stage: str
    tensor: str
    crc32: int


class Digests(Sequence[StageDigest]):
    """Digests of what each stage gave, computed when they are first read: not while the frame's decision is awaited.

    Args:
        outputs: stage, tensor and its bytes.
    """

    __slots__ = ("_rows",)

    def __init__(self, outputs: list[tuple[str, str, bytes]]) -> None:
        self._rows: list[tuple[str, str, bytes]] | tuple[StageDigest, ...] = outputs

    def __getitem__(self, index: Any) -> Any:
        return self._digested()[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Digests, tuple)) and self._digested() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._digested())

    def __repr__(self) -> str:
        return repr(self._digested())

    def _digested(self) -> tuple[StageDigest, ...]:
        rows = self._rows  # read once: another thread may be computing the same
        if isinstance(rows, tuple):
            return rows
        self._rows = digests = tuple([StageDigest(stage, tensor, zlib.crc32(output)) for stage, tensor, output in rows])
        return digests


_Row = TypeVar("_Row", Score, Tag, Reading)


def rows(kind: type[_Row], *columns: Iterable[object]) -> tuple[_Row, ...]:
    """Many named tuples of one kind from their columns, several times as fast as one by one.

    A tuple made of a list gets its size at once. Of an iterator, it would be made too short and grown, and the
    interpreter would keep one more tuple of that length for each, up to 2,000 of them.
    """
    new = tuple.__new__
    return tuple([new(kind, row) for row in zip(*columns)])


@dataclass(frozen=True, slots=True)
class Decision:
    """See roadfuse.v1.Decision; instants in ns."""

    stamp_ns: int
    frame_seq: int
    index: int
    emitted_ns: int
    reason: EmitReason
    modalities: tuple[ModalityState, ...]
    overload_level: int
    hardness: float
    scores: tuple[Score, ...]
    scene_tags: tuple[Tag, ...]
    sound_events: tuple[Tag, ...]
    objects: tuple[DetectedObject, ...]
    embedding: bytes
    scene_state: SceneState
    scene: int
    scene_refusal: str
    digests: Sequence[StageDigest]
    bundle_id: str
    degraded: bool
    heads: tuple[HeadReadings, ...] = ()
    masks: tuple[Mask, ...] = ()
    alignment: Alignment = IN_ORDER
    campaigns: tuple[CampaignMatch, ...] = ()
    put_back: PutBack | None = None
    timings_ns: dict[str, int] = field(default_factory=dict, compare=False)

    def to_message(self, *, timings: bool = True) -> decision_pb2.Decision:
        """The protobuf message; without timings it holds only what a replay reproduces."""
        message = decision_pb2.Decision(
            timestamp=timestamp(self.stamp_ns),
            frame_sequence=self.frame_seq & 0xFFFFFFFF,
            index=self.index,
            emitted_ns=self.emitted_ns,
            emit_reason=int(self.reason),  # type: ignore[arg-type]
            overload_level=self.overload_level,
            hardness=self.hardness,
            scene_state=int(self.scene_state),  # type: ignore[arg-type]
            scene=self.scene,
            scene_refusal=self.scene_refusal,
            bundle_id=self.bundle_id,
            degraded=self.degraded,
        )
        message.embedding.extend(np.frombuffer(self.embedding, dtype="<f4").tolist())
        add_modality = message.modalities.add
        for stream, present, age_ns, samples, absence in self.modalities:
            add_modality(stream=stream, present=present, age_ns=age_ns, samples=samples, absence=absence)
        add_score = message.scores.add
        for name, value, weight in self.scores:
            add_score(name=name, value=value, weight=weight)
        add_tag = message.scene_tags.add
        for name, probability in self.scene_tags:
            add_tag(name=name, probability=probability)
        add_sound = message.sound_events.add
        for name, probability in self.sound_events:
            add_sound(name=name, probability=probability)
        for found in self.objects:
            message.objects.add(**found._asdict())
        for head, readings in self.heads:
            add_reading = message.heads.add(name=head).readings.add
            for label, value in readings:
                add_reading(label=label, value=value)
        for mask in self.masks:
            message.masks.add(**mask._asdict())
        alignment = self.alignment
        message.alignment.agreement = alignment.agreement
        for suspect in alignment.suspects:
            message.alignment.suspects.add(**suspect._asdict())
        for clock in alignment.clocks:
            message.alignment.clocks.add(**clock._asdict())
        if alignment.rig is not None:
            message.alignment.rig.MergeFrom(decision_pb2.RigDoubt(**alignment.rig._asdict()))
        for campaign, score in self.campaigns:
            message.campaigns.add(campaign=campaign, score=score)
        if self.put_back is not None:
            message.put_back.MergeFrom(decision_pb2.PutBack(**self.put_back._asdict()))
        add_digest = message.digests.add
        for stage, tensor, crc32 in self.digests:
            add_digest(stage=stage, tensor=tensor, crc32=crc32)
        if timings:
            for stage, elapsed_ns in self.timings_ns.items():
                message.timings.add(stage=stage, elapsed_ns=elapsed_ns)
        return message

    def canonical(self) -> bytes:
        """The bytes that two equal decisions share."""
        return self.to_message(timings=False).SerializeToString(deterministic=True)

    @staticmethod
    def from_message(message: decision_pb2.Decision) -> Decision:
        """The decision in a recorded message."""
        return Decision(
            stamp_ns=timestamp_ns(message.timestamp),
            frame_seq=message.frame_sequence,
            index=message.index,
            emitted_ns=message.emitted_ns,
            reason=EmitReason(message.emit_reason),
            modalities=tuple(
                ModalityState(m.stream, m.present, m.age_ns, m.samples, m.absence) for m in message.modalities
            ),
            overload_level=message.overload_level,
            hardness=message.hardness,
            scores=tuple(Score(s.name, s.value, s.weight) for s in message.scores),
            scene_tags=tuple(Tag(t.name, t.probability) for t in message.scene_tags),
            sound_events=tuple(Tag(t.name, t.probability) for t in message.sound_events),
            objects=tuple(
                DetectedObject(o.name, o.probability, o.left_px, o.top_px, o.width_px, o.height_px, o.kind)
                for o in message.objects
            ),
            heads=tuple(
                HeadReadings(h.name, tuple(Reading(r.label, r.value) for r in h.readings)) for h in message.heads
            ),
            masks=tuple(Mask(m.name, tuple(m.labels), m.rows, m.columns, m.cells) for m in message.masks),
            alignment=_alignment(message.alignment) if message.HasField("alignment") else IN_ORDER,
            campaigns=tuple(CampaignMatch(match.campaign, match.score) for match in message.campaigns),
            put_back=PutBack(message.put_back.bundle_id, message.put_back.why)
            if message.HasField("put_back")
            else None,
            embedding=np.array(message.embedding, dtype="<f4").tobytes(),
            scene_state=SceneState(message.scene_state),
            scene=message.scene,
            scene_refusal=message.scene_refusal,
            digests=tuple(StageDigest(d.stage, d.tensor, d.crc32) for d in message.digests),
            bundle_id=message.bundle_id,
            degraded=message.degraded,
            timings_ns={timing.stage: timing.elapsed_ns for timing in message.timings},
        )


def _alignment(message: decision_pb2.Alignment) -> Alignment:
    rig = message.rig
    return Alignment(
        message.agreement,
        tuple(Suspect(s.stream, s.kind, s.evidence, s.since_ns) for s in message.suspects),
        tuple(ClockOffset(c.stream, c.late_ns, c.confidence) for c in message.clocks),
        RigDoubt(rig.axis, rig.amount, rig.since_ns, rig.score) if message.HasField("rig") else None,
    )
