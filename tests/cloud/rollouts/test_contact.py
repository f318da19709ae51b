"""Storm control: a fleet that comes back at once does not come as one again, and few vehicles call as usual."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest

from cloud.rollouts.contact import JITTER, LONGEST_S, Contacts

VEHICLES = 10_000


def calls_of(contacts: Contacts, first: list[float], until_s: float) -> list[float]:
    """When vehicles call that do as they are told; `first` are their first calls after an outage."""
    due = [(at_s, f"car-{number}") for number, at_s in enumerate(first)]
    heapq.heapify(due)
    calls = []
    while due[0][0] < until_s:
        at_s, vehicle = heapq.heappop(due)
        calls.append(at_s)
        heapq.heappush(due, (at_s + contacts.next_s(vehicle, at_s), vehicle))
    return calls


def busiest(calls: list[float], since_s: float, window_s: float = 10.0) -> float:
    """Calls a second in the busiest window after an instant."""
    counted = Counter(int(call // window_s) for call in calls if call >= since_s)
    return max(counted.values()) / window_s


@pytest.mark.parametrize("within_s", [1.0, 60.0, 300.0])
@pytest.mark.parametrize("is_known", [True, False])
def test_after_an_outage_ten_thousand_vehicles_are_spread_from_their_second_call_on(
    within_s: float, is_known: bool
) -> None:
    chance = random.Random(7)
    start_s = 1_700_000_000.0
    contacts = Contacts(target_per_s=50.0, fleet=VEHICLES if is_known else 0)
    first = [start_s + chance.uniform(0.0, within_s) for _ in range(VEHICLES)]
    calls = calls_of(contacts, first, start_s + 3_600)
    assert len(calls) > VEHICLES * 5
    assert busiest(calls, start_s + within_s + 10) <= 50.0 * 1.1
    steady = [call for call in calls if call >= start_s + 2_400]
    assert busiest(steady, 0) <= 1.3 * VEHICLES / 300.0, "an hour later they call as usual"


def test_a_fleet_that_is_too_large_for_its_interval_calls_at_the_wanted_rate() -> None:
    contacts = Contacts(target_per_s=20.0)
    calls = calls_of(contacts, [1_000.0 + number / 100 for number in range(VEHICLES)], 5_000.0)
    assert busiest(calls, 1_200.0) <= 20.0 * 1.1
    assert len([call for call in calls if call >= 4_000.0]) >= 0.8 * 20.0 * 1_000


def test_few_vehicles_call_near_the_normal_interval() -> None:
    contacts = Contacts(normal_s=300.0, fleet=10)
    for number in range(1_000):
        wait_s = contacts.next_s("car-1", 1e9 + 300.0 * number)
        assert 300.0 * (0.25 - JITTER) <= wait_s <= 300.0 * (1.25 + JITTER)
    calls = calls_of(Contacts(normal_s=300.0), [1e9], 1e9 + 30_000)
    assert 95 <= len(calls) <= 105


def test_more_calls_than_wanted_make_the_interval_longer_and_it_comes_back() -> None:
    contacts = Contacts(target_per_s=1.0, normal_s=60.0)
    for number in range(3_000):
        contacts.next_s("car-1", 100.0 + number / 100)
    assert contacts.cycle_s(130.0) == pytest.approx(4 * 60.0)
    assert contacts.cycle_s(130.0 + 600.0) == pytest.approx(60.0)


def test_the_same_calls_give_the_same_answers() -> None:
    answers = []
    for _ in range(2):
        contacts = Contacts(target_per_s=5.0)
        answers.append([contacts.next_s(f"car-{n % 50}", 10.0 + n * 0.05) for n in range(500)])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 400


def test_a_clock_that_stands_or_goes_back_gives_an_interval_still() -> None:
    contacts = Contacts()
    for now_s in (0.0, 0.0, 50.0, 49.0, -1e9):
        assert 1.0 <= contacts.next_s("car-1", now_s) <= LONGEST_S * 1.3
