"""Pairs of two bundles on one frame: who differs, and who is wrong whatever the truth is."""

from __future__ import annotations

from edge import bundle as bundles
from edge.decision import Decision, DetectedObject, HeadReadings, ModalityState, Reading, SceneState, Tag
from edge.frameset import EmitReason
from edge.streams import MS
from edge.updates.account import Account
from edge.updates.evidence import ALL, Evidence
from edge.updates.opinion import Labels, Opinion, is_finite, labels_of, opinion_of, slices_of
from edge.updates.pairs import Pairs

RAIN = ("scene_tags", "rain")


def decision(
    stamp_ns: int = 1000, tags: dict[str, float] | None = None, objects: dict[str, float] | None = None,
    absence: str = "", intent: str = "none",
) -> Decision:  # fmt: skip
    labels = bundles.load().heads
    return Decision(
        stamp_ns=stamp_ns, frame_seq=0, index=0, emitted_ns=stamp_ns, reason=EmitReason.SETTLED,
        modalities=(ModalityState("camera", not absence, 0, 1, absence),), overload_level=0, hardness=0.1, scores=(),
        scene_tags=tuple(Tag(name, (tags or {}).get(name, 0.0)) for name in labels["scene_tags"]), sound_events=(),
        objects=tuple(DetectedObject(name, p, 0, 0, 9, 9) for name, p in (objects or {}).items()), embedding=b"",
        scene_state=SceneState.QUIET, scene=0, scene_refusal="", digests=(), bundle_id=bundles.load().id,
        degraded=False,
        heads=(HeadReadings("intent", tuple(Reading(one, 0.9 * (one == intent)) for one in labels["intent"])),),
    )  # fmt: skip


def opinion(stamp_ns: int, *labels: tuple[str, str], finite: bool = True, late: bool = False) -> Opinion:
    return Opinion(stamp_ns, stamp_ns, frozenset(labels), finite, late, True, 0, frozenset(), 0, (ALL, "night"), 0)


def counts(evidence: Evidence, name: str = ALL) -> dict[str, int]:
    return evidence.of(name).counts


def paired(*rows: tuple[Labels, Labels], step_ns: int = 50 * MS) -> dict[str, int]:
    """Counts after frames with these labels of the active and the staged bundle, and a quiet second."""
    evidence = Evidence("ab", True, b"1")
    pairs = Pairs(evidence)
    for i, (active, staged) in enumerate((*rows, *([(frozenset(), frozenset())] * 20))):
        pairs.add(opinion(1_000 + i * step_ns, *active), opinion(1_000 + i * step_ns, *staged))
    return counts(evidence)


NONE: Labels = frozenset()
WET: Labels = frozenset({RAIN})


def test_labels_hold_over_their_own_thresholds_and_choices_are_made() -> None:
    bundle = bundles.load()
    limits = dict(zip(bundle.heads["scene_tags"], bundle.thresholds["scene_tags"]))
    boxes = bundle.thresholds["objects"]
    said = labels_of(
        decision(
            tags={"night": limits["night"] + 0.01, "fog": limits["fog"] - 0.01, "rain": limits["rain"] - 0.01},
            objects={"vehicle": boxes + 0.2, "sign": boxes + 0.01},  # one is just seen, not meant
        ),
        bundle,
    )
    assert said == {("scene_tags", "night"), ("intent", "none"), ("objects", "vehicle")}


def test_slices_are_parts_of_the_world_by_the_tags() -> None:
    assert slices_of(frozenset({("scene_tags", "residential"), RAIN, ("sound_events", "night")})) == (
        ALL, "rain", "town",
    )  # fmt: skip


def test_equal_labels_are_the_same_and_others_differ_without_a_verdict() -> None:
    assert paired((WET, WET)) == {"same": 21}
    assert paired(*[(NONE, WET)] * 30) == {"same": 20, "differs": 30}


def test_a_label_that_only_the_staged_bundle_flickers_is_worse() -> None:
    quiet = [(NONE, NONE)] * 4
    assert paired(*quiet, (NONE, WET), (NONE, WET), *quiet) == {"same": 28, "differs": 2, "worse": 1}
    assert paired(*quiet, (WET, NONE), *quiet) == {"same": 28, "differs": 1, "better": 1}


def test_a_label_that_flickers_at_both_or_holds_or_was_there_before_is_nobodys_fault() -> None:
    quiet = [(NONE, NONE)] * 4
    assert paired(*quiet, (NONE, WET), (WET, NONE), *quiet) == {"same": 28, "differs": 2}
    assert paired(*quiet, *[(NONE, WET)] * 8, *quiet) == {"same": 28, "differs": 8}
    assert paired((NONE, WET), *quiet) == {"same": 24, "differs": 1}


def test_one_side_that_is_late_or_not_finite_decides_the_pair() -> None:
    evidence = Evidence("ab", True, b"1")
    pairs = Pairs(evidence)
    pairs.add(opinion(1_000), opinion(1_000, finite=False))
    pairs.add(opinion(2_000, late=True), opinion(2_000))
    pairs.add(opinion(3_000, late=True), opinion(3_000, late=True))
    assert counts(evidence) == counts(evidence, "night")
    assert counts(evidence) == {"same": 3, "not_finite": 1, "late": 1, "worse": 1, "better": 1}
    assert evidence.of(ALL).frames == 3


def test_what_spans_a_gap_is_no_exposure_and_no_flicker() -> None:
    evidence = Evidence("ab", True, b"1")
    pairs = Pairs(evidence)
    pairs.add(opinion(50 * MS), opinion(50 * MS))
    pairs.add(opinion(100 * MS), opinion(100 * MS, RAIN))
    pairs.pause()
    for i in range(20):
        pairs.add(opinion((200 + 50 * i) * MS), opinion((200 + 50 * i) * MS))
    assert "worse" not in counts(evidence)
    assert abs(evidence.of(ALL).seconds - (0.05 + 19 * 0.05)) < 1e-9


def test_a_decision_that_is_no_number_is_noticed() -> None:
    assert is_finite(decision())
    assert not is_finite(decision(tags={"night": float("nan")}))


def test_the_account_counts_exposure_failures_and_what_was_put_back() -> None:
    import dataclasses

    from edge.decision import PutBack

    bundle = bundles.load()
    account = Account(b"1")

    def take(one: Decision, late: bool = False, failed: str | None = None) -> None:
        account.add(one, opinion_of(one, bundle, is_late=late), "", failed)

    take(decision(1_000 * MS, tags={"night": 0.9}))
    take(decision(1_050 * MS, tags={"night": 0.9}), late=True)
    take(decision(1_100 * MS, absence="failed"))
    back = dataclasses.replace(decision(1_150 * MS), put_back=PutBack("ab" * 32, "not_finite: fuse scene_tags"))
    take(back, failed="ab" * 32)
    take(decision(9_000 * MS))
    ours, theirs = account.of(""), account.of("ab" * 32)
    assert ours.of(ALL).frames == 5 and abs(ours.of(ALL).seconds - 0.4) < 1e-9  # a pause counts for no more than that
    assert ours.of(ALL).counts == {"late": 1, "engine_error": 1}
    assert (ours.of("night").frames, ours.of("night").counts) == (2, {"late": 1})
    assert theirs.of(ALL).counts == {"put_back": 1, "not_finite": 1} and theirs.of(ALL).frames == 0


def test_an_account_goes_on_where_it_was_and_begins_anew_under_another_name() -> None:
    first = Account(b"1")
    one = decision()
    first.add(one, opinion_of(one, bundles.load(), is_late=False), "", None)
    assert Account(b"1", first.all()).of("").of(ALL).frames == 1
    assert Account(b"2", first.all()).all() == []
