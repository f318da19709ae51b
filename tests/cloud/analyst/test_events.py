"""Events: onset and end by hysteresis, sounds by the onset head, single moments only when sure."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloud.analyst.events import OFF, ON, SURE, events

STEP_NS = 250_000_000
FIRST_NS = 10**12


def seen(track: list[float], label: str = "intent:crosses", onsets: dict[int, float] | None = None) -> list[Any]:
    stamps = [FIRST_NS + i * STEP_NS for i in range(len(track))]
    ages = [{label: onsets[i]} if onsets and i in onsets else {} for i in range(len(track))]
    return events(stamps, [{label: p} for p in track], ages)


def at_s(ns: int) -> float:
    return (ns - FIRST_NS) / 1e9


def test_an_event_lasts_from_the_rise_to_the_fall_and_peaks_between() -> None:
    (event,) = seen([0.1, 0.1, 0.6, 0.9, 0.4, 0.7, 0.1, 0.1])
    assert (at_s(event.onset_ns), at_s(event.end_ns), at_s(event.peak_ns)) == (0.375, 1.375, 0.75)
    assert event.probability == 0.9 and not event.began_before and not event.goes_on


def test_what_holds_at_the_ends_of_the_clip_began_before_and_goes_on() -> None:
    (event,) = seen([0.9, 0.9, 0.9])
    assert event.began_before and event.goes_on
    assert (at_s(event.onset_ns), at_s(event.end_ns)) == (0.0, 0.5)


def test_a_single_moment_counts_only_when_it_is_sure() -> None:
    assert seen([0.1, 0.7, 0.1]) == []
    assert len(seen([0.1, SURE, 0.1])) == 1


def test_a_sound_began_when_the_onset_head_says() -> None:
    """It rises at 0.75 s, and the head says at three moments that it is 0.10, 0.37 and 0.58 s old."""
    (event,) = seen([0, 0, 0, 0.9, 0.9, 0.9], "sound:siren", {3: 0.10, 4: 0.37, 5: 0.58})
    assert abs(at_s(event.onset_ns) - 0.65) < 1e-6
    (older,) = seen([0, 0, 0, 0.9, 0.9, 0.9], "sound:siren", {3: 0.9, 4: 0.94, 5: 0.94})
    assert at_s(older.onset_ns) >= 0.25, "an onset long before the label rose is the head's error"
    (saturated,) = seen([0, 0.9, 0.9], "sound:siren", {1: 1.0, 2: 1.0})
    assert at_s(saturated.onset_ns) == 0.125


def test_a_sound_that_is_old_at_the_first_moment_began_before_the_clip() -> None:
    assert seen([0.9, 0.9], "sound:siren", {0: 1.0, 1: 1.0})[0].began_before
    (fresh,) = seen([0.9, 0.9, 0.9], "sound:siren", {0: 0.0, 1: 0.2, 2: 0.45})
    assert not fresh.began_before or fresh.onset_ns == FIRST_NS


def test_places_light_and_cruising_are_no_events() -> None:
    for label in ("place:urban", "light:night", "action:cruise", "tag:sign", "vehicles:one"):
        assert seen([0.9, 0.9, 0.9], label) == []
    assert len(seen([0.9, 0.9], "action:brake")) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.dictionaries(st.integers(0, 39), st.floats(0, 1)))
def test_events_of_a_label_lie_in_the_clip_in_order_and_apart(track: list[float], ages: dict[int, float]) -> None:
    found = seen(track, "sound:horn", ages)
    last_ns = FIRST_NS + (len(track) - 1) * STEP_NS
    for event in found:
        assert FIRST_NS <= event.onset_ns <= event.peak_ns <= last_ns and event.onset_ns <= event.end_ns <= last_ns
        assert event.probability >= ON > OFF
    for earlier, later in itertools.pairwise(found):
        assert earlier.peak_ns < later.peak_ns
