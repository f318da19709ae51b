"""A server that fails is left alone, for longer each time, and one call tells for all whether it is back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud.embed.circuit import FIRST_REST_S, LONGEST_REST_S, Circuit


class Clock:
    """Seconds that a test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def entered(circuit: Circuit) -> int:
    spell = circuit.enter()
    assert spell is not None
    return spell


def test_a_server_that_answers_is_always_asked() -> None:
    circuit = Circuit(Clock())
    for _ in range(5):
        circuit.succeeded(entered(circuit))


def test_calls_that_were_under_way_together_fail_once() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    spells = [entered(circuit) for _ in range(100)]
    for spell in spells:
        circuit.failed(spell)
    assert circuit.enter() is None
    clock.now_s += FIRST_REST_S
    assert circuit.enter() is not None


def test_after_a_rest_one_call_goes_and_the_others_wait_for_what_it_finds() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed(entered(circuit))
    clock.now_s += FIRST_REST_S
    probe = entered(circuit)
    assert circuit.enter() is None
    circuit.succeeded(probe)
    assert circuit.enter() is not None and circuit.enter() is not None


def test_an_answer_from_before_a_failure_says_nothing_of_after_it() -> None:
    circuit = Circuit(Clock())
    early, late = entered(circuit), entered(circuit)
    circuit.failed(late)
    circuit.succeeded(early)
    assert circuit.enter() is None


def test_rests_grow_to_a_limit_and_begin_anew_after_an_answer() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    rests = []
    for _ in range(8):
        circuit.failed(entered(circuit))
        begun_s = clock.now_s
        while circuit._until_s > clock.now_s:
            clock.now_s += FIRST_REST_S / 4
        rests.append(clock.now_s - begun_s)
    assert rests == [min(FIRST_REST_S * 2**n, LONGEST_REST_S) for n in range(8)]
    circuit.succeeded(entered(circuit))
    circuit.failed(entered(circuit))
    clock.now_s += FIRST_REST_S
    assert circuit.enter() is not None


@given(st.lists(st.tuples(st.floats(0.0, 40.0), st.sampled_from(["enter", "succeeded", "failed"])), max_size=60))
def test_whatever_happens_it_is_asked_again_within_the_longest_rest(steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    circuit, spells = Circuit(clock), [0]
    for seconds, step in steps:
        clock.now_s += seconds
        if step == "enter":
            spell = circuit.enter()
            spells += [] if spell is None else [spell]
        else:
            getattr(circuit, step)(spells[-1])
    clock.now_s += LONGEST_REST_S
    assert circuit.enter() is not None
