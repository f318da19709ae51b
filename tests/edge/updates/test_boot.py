"""What the loop's process runs when it starts."""

from __future__ import annotations

from edge.updates.boot import Choice, answered, choose
from edge.updates.slots import Answer, Held, PutBack, Refusal, Slots
from roadfuse.v1.updates_pb2 import Stage

OLD, NEW = Held("old", 3), Held("new", 4)
PROBATION = Slots(epoch=7, active=NEW, previous=OLD, stage=Stage.STAGE_PROBATION)
ARMED = Slots(epoch=6, active=OLD, staged=NEW, stage=Stage.STAGE_ARMED)


def every(_: str) -> bool:
    return True


def test_without_slots_the_reference_bundle_runs() -> None:
    assert choose(None, Answer(running="new"), every).bundle == ""


def test_the_active_bundle_runs_and_its_start_is_counted_before_it_is_loaded() -> None:
    choice = choose(PROBATION, None, every)
    assert choice == Choice("new", starts=1)
    assert answered(choice, PROBATION, None, 9) == Answer(epoch=7, running="new", at_ns=9, starts=1)


def test_in_probation_the_second_death_in_a_row_gives_the_previous_bundle() -> None:
    choice = choose(PROBATION, Answer(epoch=7, running="new", starts=1), every)
    assert choice.bundle == "old"
    assert choice.put_back == PutBack("new", "did not survive its start, 2 times", 0)
    assert choice.starts == 1
    again = choose(PROBATION, answered(choice, PROBATION, None, 0), every)
    assert (again.bundle, again.put_back) == ("old", choice.put_back)  # as long as the agent has not heard


def test_deaths_of_another_epoch_do_not_count() -> None:
    assert choose(PROBATION, Answer(epoch=6, running="new", starts=1), every).bundle == "new"


def test_a_confirmed_bundle_is_forgiven_some_deaths_but_not_all() -> None:
    idle = Slots(epoch=8, active=NEW, previous=OLD, stage=Stage.STAGE_IDLE)
    answer, runs = None, []
    for _ in range(6):
        choice = choose(idle, answer, every)
        runs.append(choice.bundle)
        answer = answered(choice, idle, answer, 0)
    assert runs == ["new"] * 4 + ["old"] * 2


def test_until_probation_is_written_the_old_bundle_boots_even_if_the_new_one_ran() -> None:
    assert choose(ARMED, Answer(epoch=6, running="new"), every) == Choice("old")


def test_what_kills_when_armed_is_not_armed_for_ever() -> None:
    choice = choose(ARMED, Answer(epoch=6, running="old", starts=1), every)
    assert choice.bundle == "old"
    assert choice.put_back == PutBack("new", "did not survive being armed, 2 times", 0)


def test_a_put_back_that_the_agent_has_not_heard_of_holds_over_starts_and_epochs() -> None:
    back = PutBack("new", "engine error", 12)
    for epoch in (6, 7):
        choice = choose(PROBATION, Answer(epoch=epoch, running="old", put_back=back), every)
        assert (choice.bundle, choice.put_back) == ("old", back)


def test_a_bundle_that_is_not_whole_gives_way_to_the_previous_one_then_the_reference() -> None:
    choice = choose(PROBATION, None, lambda bundle: bundle != "new")
    assert (choice.bundle, choice.put_back) == ("old", PutBack("new", "is not whole or does not load", 0))
    assert choose(PROBATION, None, lambda _: False).bundle == ""


def test_a_refused_bundle_never_boots() -> None:
    refused = PROBATION.refusing(Refusal("new", 4, "bad"))
    assert choose(refused, None, every).bundle == "old"
    assert choose(refused.refusing(Refusal("old", 3, "bad")), None, every).bundle == ""


def test_the_reference_bundle_runs_whatever_happened_to_it() -> None:
    assert choose(Slots(epoch=1), Answer(epoch=1, starts=99), lambda _: False).bundle == ""
