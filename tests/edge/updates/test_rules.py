"""What becomes of the slots, rule by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.updates import rules
from edge.updates.assignment import Assignment
from edge.updates.boot import NOT_WHOLE
from edge.updates.evidence import ALL, Evidence
from edge.updates.rules import MOST_STOP_NUMBER, MOST_STOPPED, Limits, heed_answer, heed_stop
from edge.updates.slots import Answer, Held, PutBack, Refusal, Slots
from roadfuse.v1.updates_pb2 import Mode, Stage

from .simulated import made

OLD, NEW, NEXT = Held("a" * 64, 3), Held("b" * 64, 4), Held("c" * 64, 5)
ACCOUNT = "0a0b"
LIMITS = Limits(shadow_s=10, shadow_frames=100, shadow_late=0.1, probation_s=30)
SHADOWING = Slots(epoch=5, active=OLD, staged=NEW, stage=Stage.STAGE_SHADOWING, account=ACCOUNT)
ARMED = replace(SHADOWING, epoch=6, stage=Stage.STAGE_ARMED)
PROBATION = Slots(epoch=7, active=NEW, previous=OLD, stage=Stage.STAGE_PROBATION, account=ACCOUNT)


def seen(bundle: Held, seconds: float, frames: int, *, is_shadow: bool, **counts: int) -> tuple[str, ...]:
    one = Evidence(bundle.bundle, is_shadow, bytes.fromhex(ACCOUNT))
    one.of(ALL).seconds, one.of(ALL).frames, one.of(ALL).counts = seconds, frames, dict(counts)
    return (one.message().SerializeToString().hex(),)


def test_an_answer_of_another_epoch_moves_nothing() -> None:
    assert heed_answer(ARMED, Answer(epoch=5, running=NEW.bundle), LIMITS) is None
    assert heed_answer(ARMED, None, LIMITS) is None


def test_probation_begins_only_with_the_loops_word_that_it_runs() -> None:
    assert heed_answer(ARMED, Answer(epoch=6, running=OLD.bundle), LIMITS) is None
    after = heed_answer(ARMED, Answer(epoch=6, running=NEW.bundle), LIMITS)
    assert after is not None
    assert (after.active, after.previous, after.staged, after.stage) == (NEW, OLD, None, Stage.STAGE_PROBATION)


@pytest.mark.parametrize("epoch", [5, 6, 7, 8])
def test_a_put_back_is_heard_whatever_the_epoch(epoch: int) -> None:
    back = PutBack(NEW.bundle, "not finite", 77)
    after = heed_answer(PROBATION, Answer(epoch=epoch, running=OLD.bundle, put_back=back), LIMITS)
    assert after is not None
    assert (after.active, after.previous, after.stage) == (OLD, None, Stage.STAGE_REFUSED)
    assert after.refused[-1] == Refusal(NEW.bundle, 4, "put back: not finite")


def test_where_the_previous_one_is_broken_too_the_reference_is_active() -> None:
    back = PutBack(NEW.bundle, NOT_WHOLE, 0)
    after = heed_answer(PROBATION, Answer(epoch=7, running="", put_back=back), LIMITS)
    assert after is not None
    assert after.active == Held()
    assert after.refused[-1].may_come_back  # the disk lost it; it did nothing wrong


def test_what_can_not_be_opened_gives_way_though_something_else_runs_on() -> None:
    slots = Slots(epoch=9, active=OLD, stage=Stage.STAGE_REFUSED)  # after a stop of NEW
    after = heed_answer(slots, Answer(epoch=9, running=NEW.bundle, trouble="does not open: x"), LIMITS)
    assert after is not None
    assert after.active == Held()


@pytest.mark.parametrize("metric", ["engine_error", "not_finite", "frozen", "silent", "put_back"])
def test_any_failure_of_its_own_in_the_shadow_refuses(metric: str) -> None:
    told = seen(NEW, 1, 10, is_shadow=True, **{metric: 1})
    after = heed_answer(SHADOWING, Answer(epoch=5, running=OLD.bundle, evidence=told), LIMITS)
    assert after is not None
    assert (after.staged, after.stage) == (None, Stage.STAGE_REFUSED)
    assert metric in after.why


def test_being_late_in_the_shadow_is_judged_by_its_share() -> None:
    few, many = (seen(NEW, 20, 200, is_shadow=True, late=late) for late in (20, 21))
    assert heed_answer(SHADOWING, Answer(epoch=5, running=OLD.bundle, evidence=few), LIMITS) is None
    assert heed_answer(SHADOWING, Answer(epoch=5, running=OLD.bundle, evidence=many), LIMITS) is not None


def test_failures_of_the_active_bundle_are_not_the_shadows() -> None:
    told = seen(OLD, 20, 200, is_shadow=False, engine_error=9)
    assert heed_answer(SHADOWING, Answer(epoch=5, running=OLD.bundle, evidence=told), LIMITS) is None


def test_the_shadow_has_run_long_enough_by_time_and_by_frames_of_this_account() -> None:
    for seconds, frames, enough in ((10, 100, True), (9, 100, False), (10, 99, False)):
        answer = Answer(epoch=5, evidence=seen(NEW, seconds, frames, is_shadow=True))
        assert rules.is_shadowed(SHADOWING, answer, LIMITS) is enough
        assert not rules.is_shadowed(replace(SHADOWING, account="ff"), answer, LIMITS)
    assert not rules.is_shadowed(SHADOWING, Answer(evidence=("zz", "00ff")), LIMITS)


def test_it_is_confirmed_by_exposed_time_alone() -> None:
    for seconds, stage in ((29.0, None), (30.0, Stage.STAGE_CONFIRMED)):
        answer = Answer(epoch=7, running=NEW.bundle, evidence=seen(NEW, seconds, 1, is_shadow=False))
        after = heed_answer(PROBATION, answer, LIMITS)
        assert (after.stage if after is not None else None) == stage


def test_a_stop_of_the_previous_bundle_takes_the_way_back_but_not_the_active_one() -> None:
    after = heed_stop(PROBATION, 1, [OLD.bundle], is_signed=True)
    assert after is not None
    assert (after.active, after.previous, after.stage) == (NEW, None, Stage.STAGE_PROBATION)


def test_a_stop_of_the_staged_bundle_drops_it_and_one_of_something_else_is_remembered() -> None:
    after = heed_stop(ARMED, 1, [NEW.bundle], is_signed=False)
    assert after is not None
    assert (after.active, after.staged, after.stage) == (OLD, None, Stage.STAGE_REFUSED)
    after = heed_stop(ARMED, 2, [NEXT.bundle], is_signed=False)
    assert after is not None
    assert (after.staged, after.stopped, after.stop_number) == (NEW, (NEXT.bundle,), 0)
    assert heed_stop(after, 2, [NEXT.bundle], is_signed=False) is None


def test_only_the_director_takes_a_stop_back() -> None:
    stopped = replace(PROBATION, stop_number=4, stopped=(NEXT.bundle,))
    assert heed_stop(stopped, 4, [], is_signed=False) is None
    assert heed_stop(stopped, 3, [], is_signed=False) is None
    after = heed_stop(stopped, 4, [], is_signed=True)
    assert after is not None and after.stopped == ()


@pytest.mark.parametrize("number", [3, 4, 5, MOST_STOP_NUMBER])
def test_a_brokers_notice_takes_no_stop_back_whatever_its_number(number: int) -> None:
    stopped = replace(PROBATION, stop_number=4, stopped=(NEXT.bundle,))
    after = heed_stop(stopped, number, [], is_signed=False) or stopped
    assert (after.stopped, after.stop_number) == ((NEXT.bundle,), 4)


def test_a_brokers_number_makes_neither_the_directors_word_void_nor_a_later_stop() -> None:
    forged = heed_stop(PROBATION, MOST_STOP_NUMBER, [NEXT.bundle], is_signed=False)
    assert forged is not None and forged.stopped == (NEXT.bundle,)
    lifted = heed_stop(forged, 5, [], is_signed=True)
    assert lifted is not None and (lifted.stopped, lifted.stop_number) == ((), 5)
    stopped = heed_stop(forged, 1, [NEW.bundle], is_signed=False)
    assert stopped is not None and stopped.active == OLD


def test_a_number_that_an_older_agent_took_from_a_broker_is_forgotten_at_the_directors_next_word() -> None:
    forged = replace(PROBATION, stop_number=MOST_STOP_NUMBER, stopped=(NEXT.bundle,))
    after = heed_stop(Slots.of(forged.to_bytes()), 5, [], is_signed=True)
    assert after is not None and (after.stopped, after.stop_number) == ((), 5)


def test_a_stop_that_came_after_the_director_was_asked_outlives_its_answer() -> None:
    stopped = replace(PROBATION, stop_number=4, stopped=(OLD.bundle, NEXT.bundle))
    after = heed_stop(stopped, 4, [], is_signed=True, unknown=[NEXT.bundle])
    assert after is not None and after.stopped == (NEXT.bundle,)


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_notice_with_a_number_that_slots_do_not_take_changes_nothing(is_signed: bool) -> None:
    for number in (MOST_STOP_NUMBER + 1, 1 << 63, (1 << 64) - 1):
        assert heed_stop(PROBATION, number, [NEW.bundle], is_signed=is_signed) is None
    after = heed_stop(PROBATION, MOST_STOP_NUMBER, [NEW.bundle], is_signed=is_signed)
    assert after is not None and Slots.of(after.to_bytes()) == after


FULL = tuple(f"{number:064x}" for number in range(MOST_STOPPED))


def test_the_directors_stop_counts_though_a_broker_filled_the_list() -> None:
    filled = heed_stop(PROBATION, 10, FULL, is_signed=False)
    assert filled is not None and filled.stopped == FULL
    for unknown in ((), FULL):
        after = heed_stop(filled, 5, [NEW.bundle, "f" * 64], is_signed=True, unknown=unknown)
        assert after is not None and after.active == OLD
        assert {NEW.bundle, "f" * 64} <= set(after.stopped)
        assert len(after.stopped) == (MOST_STOPPED if unknown else 2)
        assert heed_stop(after, 5, [NEW.bundle, "f" * 64], is_signed=True, unknown=unknown) is None


def test_a_broker_pushes_out_no_stop_that_was_there() -> None:
    stopped = heed_stop(PROBATION, 4, ["f" * 64], is_signed=True)
    assert stopped is not None
    after = heed_stop(stopped, 5, FULL, is_signed=False)
    assert after is not None and "f" * 64 in after.stopped and len(after.stopped) == MOST_STOPPED


def test_a_stop_of_what_is_on_board_counts_though_there_is_no_room_to_remember_it() -> None:
    full = replace(PROBATION, stop_number=4, stopped=FULL)
    after = heed_stop(full, 4, [NEW.bundle, OLD.bundle], is_signed=False)
    assert after is not None
    assert (after.active, after.previous, after.stopped) == (Held(), None, FULL)


NOTICES = st.lists(
    st.tuples(st.integers(0, 6), st.sets(st.sampled_from([one * 64 for one in "abcdef"])), st.booleans()), max_size=8
)


@given(NOTICES)
def test_whatever_a_broker_says_the_directors_last_word_holds(notices: list[tuple[int, set[str], bool]]) -> None:
    slots, director = PROBATION, set[str]()
    for number, bundles, is_signed in notices:
        before = set(slots.stopped)
        slots = heed_stop(slots, number, bundles, is_signed=is_signed) or slots
        director = bundles if is_signed else director
        assert director <= set(slots.stopped) <= before | bundles
        assert is_signed or before <= set(slots.stopped)
        if is_signed:
            assert not bundles & {slots.active.bundle, *([slots.previous.bundle] if slots.previous else [])}


def test_rubbish_in_a_notice_names_nothing() -> None:
    rubbish = ["", "../..", "B" * 64, "é" * 64]
    assert heed_stop(PROBATION, 1, rubbish, is_signed=False) is None
    after = heed_stop(PROBATION, 1, rubbish, is_signed=True)
    assert after is not None and after.stopped == () and after.active == NEW


def test_the_reference_bundle_has_no_way_back() -> None:
    assert rules.operators_back(Slots(epoch=1), "") is None


def test_an_operator_leaves_the_bundle_that_is_named_and_no_other() -> None:
    assert rules.operators_back(PROBATION, OLD.bundle) is None
    after = rules.operators_back(PROBATION, NEW.bundle)
    assert after is not None and after.active == OLD


def test_a_pardoned_bundle_is_refused_no_more_and_others_still_are() -> None:
    others = Slots(epoch=1, refused=(Refusal("d" * 64, 6, "x"),))
    slots = rules.refused(replace(SHADOWING, refused=others.refused), "self-test: too slow")
    after = rules.pardoned(slots, NEW.bundle)
    assert after is not None
    assert (after.refused, after.stage) == (others.refused, Stage.STAGE_IDLE)
    assert after.why == f"{NEW.bundle[:12]} was pardoned by an operator"
    assert (after.active, after.highest_counter) == (slots.active, slots.highest_counter)
    assert rules.pardoned(after, NEW.bundle) is None


def test_a_pardon_of_one_that_why_does_not_speak_of_leaves_what_is_under_way() -> None:
    slots = replace(SHADOWING, refused=(Refusal("d" * 64, 6, "x"), Refusal("e" * 64, 7, "y")))
    assert rules.pardoned(slots, "d" * 64) == replace(slots, refused=slots.refused[1:])


def test_what_is_stopped_is_not_pardoned_while_the_stop_stands() -> None:
    stopped = heed_stop(SHADOWING, 3, [NEW.bundle], is_signed=True)
    assert stopped is not None
    assert rules.pardoned(stopped, NEW.bundle) is None
    lifted = heed_stop(stopped, 4, [], is_signed=True)
    assert lifted is not None
    assert rules.pardoned(lifted, NEW.bundle) is not None


def test_a_put_back_of_an_earlier_life_is_not_held_against_a_pardoned_bundle_in_the_shadow() -> None:
    old = Answer(epoch=3, running=OLD.bundle, put_back=PutBack(NEW.bundle, "late", 7))
    assert heed_answer(SHADOWING, old, LIMITS) is None
    assert heed_answer(SHADOWING, replace(old, epoch=5), LIMITS) is not None
    assert heed_answer(ARMED, old, LIMITS) is not None


def test_a_release_that_was_refused_here_is_told_as_the_one_that_why_speaks_of() -> None:
    again = made(9)
    slots = Slots(epoch=3, active=OLD).refusing(Refusal(again.id, 9, "bad")).refusing(Refusal(NEXT.bundle, 5, "other"))
    given = Assignment(again.release, Mode.MODE_ACTIVATE, "r", 0, frozenset(), 0, 30.0)
    after = rules.heed_assignment(slots, given)
    assert after is not None
    assert (after.stage, after.refused[-1].bundle, after.staged) == (Stage.STAGE_REFUSED, again.id, None)
    assert rules.heed_assignment(after, given) is None
