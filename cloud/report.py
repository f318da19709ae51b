"""What a vehicle may say of its scenes, and how a later word joins an earlier one; rules without I/O.

A report may come twice, late, or after a newer one. So the words about one scene join the same way whatever comes
between: its content never changes, a clip that is gone stays gone, and what was said first of why it went stands.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import grpc

from cloud.errors import Refused
from cloud.limits import Limits
from roadfuse.v1 import decision_pb2, ingest_pb2

HELD: Final = int(ingest_pb2.MEDIA_STATE_HELD)
EVICTED: Final = int(ingest_pb2.MEDIA_STATE_EVICTED)
LOST: Final = int(ingest_pb2.MEDIA_STATE_LOST)
OUTBOX_BYTES: Final = 16
SHA256_BYTES: Final = 32
MAX_INTEGER: Final = (1 << 63) - 1
# A clip is made anew when it is redacted, and again by a better redaction before it went up.
MAX_FORMER: Final = 8
# What one report may say of campaigns: as many scenes, each for a few of them.
MAX_CHOICES: Final = 4_000
MAX_MATCHES: Final = 64
MAX_ANSWERS: Final = 1_000
CAMPAIGN_CHARACTERS: Final = 64
ANSWERS: Final = ("kept", "gone")
# Of the scene itself; media, reason, bytes and sha256 are of its clip.
CONTENT: Final = (
    "first_ns",
    "last_ns",
    "peak_ns",
    "recorded_at",
    "hardness",
    "scores",
    "scene_tags",
    "sound_events",
    "embedding",
    "embedding_scale",
    "bundle_id",
    "lane_probability",
    "latitude_deg",
    "longitude_deg",
)
_FIRST_DAY: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MAX_SECONDS: Final = 253_402_300_799  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class Told:
    """A checked report.

    Attributes:
        scenes: by sequence, each with the columns of `cloud.tables.SCENES` that a vehicle tells.
        evictions: by sequence, `media` and `reason`.
        former: by sequence, digests that the clip had before it was made anew.
        choices: (campaign, sequence, score), also of scenes told of before; campaigns that may not exist.
        answers: to asks, by their id.
        probes_digest: of the offer that the vehicle has; None where it takes none.
    """

    outbox: bytes
    last_sequence: int
    scenes: dict[int, dict[str, Any]]
    evictions: dict[int, dict[str, Any]]
    former: dict[int, list[bytes]] = field(default_factory=dict)
    choices: list[tuple[str, int, float]] = field(default_factory=list)
    answers: dict[int, str] = field(default_factory=dict)
    probes_digest: bytes | None = None


def checked(request: ingest_pb2.ReportRequest, limits: Limits) -> Told:
    """The report, with every value in range.

    Raises:
        Refused: INVALID_ARGUMENT, naming the first thing that is wrong; ALREADY_EXISTS where it contradicts itself.
    """
    _expect(len(request.scenes) <= limits.report_scenes, f"at most {limits.report_scenes} scenes", len(request.scenes))
    count = len(request.evictions)
    _expect(count <= limits.report_evictions, f"at most {limits.report_evictions} evictions", count)
    outbox = checked_outbox(request.outbox)
    _expect(request.last_sequence <= MAX_INTEGER, "last_sequence below 2^63", request.last_sequence)
    _expect(len(request.choices) <= MAX_CHOICES, f"at most {MAX_CHOICES} choices", len(request.choices))
    _expect(len(request.answers) <= MAX_ANSWERS, f"at most {MAX_ANSWERS} answers", len(request.answers))
    told = Told(outbox, request.last_sequence, {}, {})
    if request.HasField("probes_digest"):
        told = replace(told, probes_digest=request.probes_digest)
    for summary in request.scenes:
        row = _scene(summary, limits)
        sequence = checked_sequence(summary.sequence)
        _expect(sequence <= request.last_sequence, f"scenes up to last_sequence {request.last_sequence}", sequence)
        told.choices.extend(_match(f"scene {sequence}", match, sequence) for match in summary.campaigns)
        earlier = told.scenes.setdefault(sequence, row)
        told.former[sequence] = _former(f"scene {sequence}", summary)
        earlier.update(joined(sequence, earlier, row, told.former[sequence]))
    for eviction in request.evictions:
        sequence = checked_sequence(eviction.sequence)
        where = f"eviction of scene {sequence}"
        _expect(sequence <= request.last_sequence, f"{where}: up to last_sequence {request.last_sequence}", sequence)
        _expect(eviction.media in (EVICTED, LOST), f"{where}: media EVICTED or LOST", eviction.media)
        reason = _text(f"{where}: reason", eviction.reason, limits.reason_characters)
        told.evictions.setdefault(sequence, {"media": int(eviction.media), "reason": reason})
    for choice in request.choices:
        told.choices.append(_match(f"choice of scene {choice.sequence}", choice, checked_sequence(choice.sequence)))
    for answer in request.answers:
        _expect(answer.answer in ANSWERS, f"an answer of {', '.join(ANSWERS)}", answer.answer[:40])
        if answer.id.isascii() and answer.id.isdecimal() and len(answer.id) < 19:  # others did not come from here
            told.answers[int(answer.id)] = answer.answer
    return told


def checked_outbox(outbox: bytes) -> bytes:
    """The name of an outbox, or Refused."""
    _expect(len(outbox) == OUTBOX_BYTES, f"an outbox of {OUTBOX_BYTES} bytes", len(outbox))
    return outbox


def checked_sequence(sequence: int) -> int:
    """A scene's number, or Refused."""
    _expect(1 <= sequence <= MAX_INTEGER, "a sequence from 1 to 2^63-1", sequence)
    return sequence


def joined(
    sequence: int, stored: Mapping[str, Any], told: Mapping[str, Any], former: Sequence[bytes] = ()
) -> dict[str, Any]:
    """What changes in `stored` by what is told again.

    Args:
        former: digests that the clip had before it was made anew, as the vehicle says.

    Raises:
        Refused: ALREADY_EXISTS; the scene was told of with other content. A clip that has not come yet may have been
            made anew, if the vehicle names the digest that it had.
    """
    differing = next((name for name in CONTENT if stored[name] != told[name]), None)
    is_anew = stored["sha256"] in former and stored.get("received_at") is None
    if differing is None and stored["sha256"] and told["sha256"] and not is_anew:
        differing = next((name for name in ("bytes", "sha256") if stored[name] != told[name]), None)
    if differing is not None:
        raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"scene {sequence} was told of before with another {differing}")
    changes = gone(stored, told)
    if told["sha256"] and (is_anew or not stored["sha256"]):
        changes |= {"bytes": told["bytes"], "sha256": told["sha256"]}
    return changes


def gone(stored: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What changes by a word about the clip: it goes once and never comes back."""
    if stored["media"] == HELD and told["media"] != HELD:
        return {"media": told["media"], "reason": told["reason"]}
    return {}


def _scene(summary: ingest_pb2.SceneSummary, limits: Limits) -> dict[str, Any]:
    where = f"scene {summary.sequence}"
    latest = max(summary.first_ns, summary.last_ns, summary.peak_ns)
    _expect(latest <= MAX_INTEGER, f"{where}: instants below 2^63", latest)
    _expect(0 <= summary.hardness <= 1, f"{where}: hardness 0..1", summary.hardness)
    _expect(0 <= summary.lane_probability <= 1, f"{where}: lane_probability 0..1", summary.lane_probability)
    count = len(summary.scores) + len(summary.scene_tags) + len(summary.sound_events)
    _expect(count <= limits.tags, f"{where}: at most {limits.tags} scores and tags", count)
    matches = len(summary.campaigns)
    _expect(matches <= MAX_MATCHES, f"{where}: at most {MAX_MATCHES} campaigns", matches)
    _expect(
        len(summary.embedding) <= limits.embedding_bytes,
        f"{where}: an embedding of at most {limits.embedding_bytes} bytes",
        len(summary.embedding),
    )
    scale = summary.embedding_scale
    _expect(math.isfinite(scale) and scale >= 0, f"{where}: a finite embedding_scale from 0", scale)
    return {
        "first_ns": summary.first_ns,
        "last_ns": summary.last_ns,
        "peak_ns": summary.peak_ns,
        "recorded_at": _instant(where, summary),
        "hardness": summary.hardness,
        "scores": [
            {
                "name": _text(f"{where}: a score's name", score.name, limits.name_characters),
                "value": _finite(f"{where}: score {score.name}", score.value),
                "weight": _finite(f"{where}: weight of {score.name}", score.weight),
            }
            for score in summary.scores
        ],
        "scene_tags": _tags(f"{where}: scene_tags", summary.scene_tags, limits),
        "sound_events": _tags(f"{where}: sound_events", summary.sound_events, limits),
        "embedding": summary.embedding,
        "embedding_scale": scale,
        "bundle_id": _text(f"{where}: bundle_id", summary.bundle_id, limits.name_characters),
        "lane_probability": summary.lane_probability,
        "latitude_deg": _degrees(where, summary, "latitude_deg", 90),
        "longitude_deg": _degrees(where, summary, "longitude_deg", 180),
        "shadow": _shadow(where, summary, limits),
        **_clip(where, summary, limits),
    }


def _shadow(where: str, summary: ingest_pb2.SceneSummary, limits: Limits) -> dict[str, Any] | None:
    """What a staged bundle said; the first word of it stands, it is no part of the scene's content."""
    if not summary.HasField("shadow"):
        return None
    said = summary.shadow
    count = len(said.scene_tags) + len(said.sound_events)
    _expect(count <= limits.tags, f"{where}: at most {limits.tags} tags in the shadow", count)
    return {
        "bundle_id": _text(f"{where}: bundle_id in the shadow", said.bundle_id, limits.name_characters),
        "scene_tags": _tags(f"{where}: scene_tags in the shadow", said.scene_tags, limits),
        "sound_events": _tags(f"{where}: sound_events in the shadow", said.sound_events, limits),
    }


def _clip(where: str, summary: ingest_pb2.SceneSummary, limits: Limits) -> dict[str, Any]:
    _expect(summary.media in (HELD, EVICTED, LOST), f"{where}: media HELD, EVICTED or LOST", summary.media)
    size, digest = summary.bytes, len(summary.sha256)
    if summary.media == HELD or size or digest:
        _expect(
            size <= MAX_INTEGER and digest == SHA256_BYTES,
            f"{where}: a clip of less than 2^63 bytes and a SHA-256 of {SHA256_BYTES}",
            (size, digest),
        )
    reason = _text(f"{where}: reason", summary.reason, limits.reason_characters)
    return {"media": int(summary.media), "reason": reason, "bytes": size, "sha256": summary.sha256}


def _former(where: str, summary: ingest_pb2.SceneSummary) -> list[bytes]:
    former = list(summary.former_sha256)
    _expect(len(former) <= MAX_FORMER, f"{where}: at most {MAX_FORMER} former digests", len(former))
    lengths = [len(one) for one in former]
    _expect(set(lengths) <= {SHA256_BYTES}, f"{where}: former digests of {SHA256_BYTES} bytes", lengths)
    return former


def _tags(where: str, tags: Any, limits: Limits) -> list[dict[str, Any]]:
    return [
        {
            "name": _text(f"{where}: a name", tag.name, limits.name_characters),
            "probability": _finite(f"{where}: probability of {tag.name}", tag.probability),
        }
        for tag in tags
    ]


def _match(where: str, match: ingest_pb2.Choice | decision_pb2.CampaignMatch, sequence: int) -> tuple[str, int, float]:
    score = match.score
    _expect(-1.001 <= score <= 1.001, f"{where}: a campaign's score within +-1", score)  # of signed bytes: about 1
    return _text(f"{where}: a campaign", match.campaign, CAMPAIGN_CHARACTERS), sequence, score


def _instant(where: str, summary: ingest_pb2.SceneSummary) -> datetime.datetime | None:
    if not summary.HasField("recorded_at"):
        return None
    seconds, nanos = summary.recorded_at.seconds, summary.recorded_at.nanos
    _expect(
        0 <= seconds <= _MAX_SECONDS and 0 <= nanos < 1_000_000_000,
        f"{where}: recorded_at in the years 1970 to 9999",
        (seconds, nanos),
    )
    return _FIRST_DAY + datetime.timedelta(seconds=seconds, microseconds=nanos // 1000)


def _degrees(where: str, summary: ingest_pb2.SceneSummary, name: str, most: float) -> float | None:
    if not summary.HasField(name):
        return None
    value: float = getattr(summary, name)
    _expect(-most <= value <= most, f"{where}: {name} within +-{most}", value)
    return value


def _finite(where: str, value: float) -> float:
    _expect(math.isfinite(value), f"{where}: a finite number", value)
    return value


def _text(where: str, value: str, most: int) -> str:
    _expect(len(value) <= most and value.isprintable(), f"{where}: at most {most} printable characters", value[:most])
    return value


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"expected {expected}, got {got!r}")
