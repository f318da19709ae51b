"""What a vehicle may say: hostile words are refused, repeated and late ones change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.errors import Refused
from cloud.limits import Limits
from cloud.report import checked, joined
from roadfuse.v1 import ingest_pb2

from .fleet import EVICTED, HELD, LOST, Status, clip, summary

LIMITS = Limits()
ONE = clip(1, 100)


def request(*scenes: ingest_pb2.SceneSummary, **fields: Any) -> ingest_pb2.ReportRequest:
    return ingest_pb2.ReportRequest(**{"outbox": bytes(16), "last_sequence": 10, "scenes": scenes} | fields)


def of(**fields: Any) -> ingest_pb2.ReportRequest:
    return request(summary(1, ONE, **fields))


def with_tag(name: str, probability: float) -> ingest_pb2.ReportRequest:
    scene = summary(1)
    scene.scene_tags.add(name=name, probability=probability)
    return request(scene)


def with_instant(seconds: int, nanos: int) -> ingest_pb2.ReportRequest:
    scene = summary(1)
    scene.recorded_at.seconds, scene.recorded_at.nanos = seconds, nanos
    return request(scene)


def eviction(**fields: Any) -> ingest_pb2.ReportRequest:
    return request(evictions=[ingest_pb2.Eviction(**{"sequence": 1, "media": EVICTED} | fields)])


@pytest.mark.parametrize(
    "hostile",
    [
        request(outbox=b"short"),
        request(outbox=bytes(17)),
        request(last_sequence=1 << 63),
        request(summary(0)),
        request(summary(11)),
        request(*(summary(1) for _ in range(1001))),
        of(first_ns=(1 << 64) - 1),
        of(hardness=1.5),
        of(hardness=float("nan")),
        of(lane_probability=-0.1),
        of(embedding=bytes(8193)),
        of(embedding_scale=float("inf")),
        of(bundle_id="x" * 129),
        of(bundle_id="x\0y"),
        of(bundle_id="x\ny"),
        of(reason="r" * 1025),
        of(media=0),
        of(media=17),
        of(sha256=b"short"),
        of(sha256=b""),
        of(bytes=1 << 63),
        of(latitude_deg=91.0),
        of(longitude_deg=float("nan")),
        with_tag("x" * 129, 0.5),
        with_tag("'; DROP TABLE scenes; --\0", 0.5),
        with_tag("night", float("-inf")),
        with_instant(-1, 0),
        with_instant(1 << 40, 0),
        with_instant(0, -1),
        eviction(sequence=0),
        eviction(sequence=11),
        eviction(media=HELD),
        eviction(media=0),
        eviction(reason="\x1b[2J"),
    ],
)
def test_hostile_words_are_refused(hostile: ingest_pb2.ReportRequest) -> None:
    with pytest.raises(Refused) as refusal:
        checked(hostile, LIMITS)
    assert refusal.value.status == Status.INVALID_ARGUMENT
    assert "expected" in str(refusal.value) and "got" in str(refusal.value) and len(str(refusal.value)) < 1500


def test_sql_in_a_name_is_a_name() -> None:
    told = checked(with_tag("'; DROP TABLE scenes; --", 0.5), LIMITS)
    assert told.scenes[1]["scene_tags"][-1]["name"] == "'; DROP TABLE scenes; --"


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: setattr(scene, "hardness", 0.6),
        lambda scene: setattr(scene, "embedding", bytes(256)),
        lambda scene: scene.ClearField("latitude_deg"),
        lambda scene: setattr(scene.scores[0], "value", 0.2),
        lambda scene: setattr(scene, "bytes", 99),
        lambda scene: setattr(scene, "sha256", bytes(32)),
    ],
)
def test_a_scene_told_of_again_with_other_content_is_refused(
    change: Callable[[ingest_pb2.SceneSummary], None],
) -> None:
    changed = summary(1, ONE)
    change(changed)
    with pytest.raises(Refused) as refusal:
        checked(request(summary(1, ONE), changed), LIMITS)
    assert refusal.value.status == Status.ALREADY_EXISTS


@given(st.lists(st.sampled_from([HELD, EVICTED, LOST]), min_size=1, max_size=8))
def test_a_clip_that_is_gone_stays_gone_and_the_first_reason_stands(words: list[int]) -> None:
    """However words about a clip are repeated or late."""
    told = [
        checked(request(summary(1, ONE, media=word, reason=f"{place}" if word != HELD else "")), LIMITS).scenes[1]
        for place, word in enumerate(words)
    ]
    stored = dict(told[0])
    for word in told[1:]:
        stored |= joined(1, stored, word)
    first = next(((media, str(place)) for place, media in enumerate(words) if media != HELD), (HELD, ""))
    assert (stored["media"], stored["reason"]) == first
    assert all(joined(1, stored, word) == {} for word in told)


def test_an_evicted_scene_may_be_told_of_with_or_without_its_clips_digest() -> None:
    told = checked(request(summary(1, ONE), summary(1, media=EVICTED)), LIMITS).scenes[1]
    assert (told["media"], told["sha256"]) == (EVICTED, ONE.sha256)
    told = checked(request(summary(1), summary(1, ONE, media=HELD, reason="")), LIMITS).scenes[1]
    assert (told["media"], told["sha256"]) == (EVICTED, ONE.sha256)


def test_a_clip_that_was_made_anew_takes_the_place_of_one_that_did_not_come() -> None:
    anew = clip(1, 50)
    old, new = (checked(of_clip, LIMITS).scenes[1] for of_clip in (of(), request(summary(1, anew))))
    assert joined(1, old, new, [ONE.sha256]) == {"bytes": 50, "sha256": anew.sha256}
    assert joined(1, new, new, [ONE.sha256]) == {}
    with pytest.raises(Refused, match="with another"):
        joined(1, old | {"received_at": 1}, new, [ONE.sha256])
    with pytest.raises(Refused, match="with another"):
        joined(1, old, new, [bytes(32)])


def test_a_former_digest_of_any_length_is_told_by_its_length_alone() -> None:
    """What is refused goes back as a status, which holds a few kilobytes."""
    scene = summary(1, ONE)
    scene.former_sha256.append(bytes(3_000_000))
    with pytest.raises(Refused, match=r"former digests of 32 bytes, got \[3000000\]"):
        checked(request(scene), LIMITS)
