"""Events of a clip: from when to when something held, by its probability over the moments.

An event begins where its label rises to ON and ends where it falls below OFF; a single moment counts only when it is
sure. When a sound began the bundle's onset head knows better than the moments, which are a quarter of a second apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from cloud.analyst.clip import STEP_NS

ON, OFF, SURE = 0.5, 0.35, 0.8
# Kinds of labels that begin and end within a scene, and values of them that are no event.
KINDS: Final = ("sound", "intent", "action", "emergency", "sign")
_NO_EVENTS: Final = frozenset({"action:cruise"})
# An onset head hears one second; at its end it only knows that the sound is older.
_HEARD_S: Final = 0.95
_ONSETS: Final = 3  # moments that are asked when a sound began


@dataclass(frozen=True, slots=True)
class Event:
    """Something that held for a while.

    Attributes:
        onset_ns, end_ns: vehicle monotonic clock; the event may have begun before the clip, or go on after it.
        peak_ns: the moment at which it is surest.
        probability: there.
    """

    label: str
    onset_ns: int
    end_ns: int
    peak_ns: int
    probability: float
    began_before: bool
    goes_on: bool


def events(
    stamps_ns: Sequence[int], labels: Sequence[Mapping[str, float]], onsets: Sequence[Mapping[str, float]]
) -> list[Event]:
    """The events of a clip, by their onset.

    Args:
        stamps_ns: of the moments.
        labels: of each moment.
        onsets: of each moment, how long before it each sound began, s.
    """
    names = sorted({name for moment in labels for name in moment if name.partition(":")[0] in KINDS} - _NO_EVENTS)
    found = []
    for name in names:
        track = [moment.get(name, 0.0) for moment in labels]
        for first, last in _stretches(track):
            peak = max(range(first, last + 1), key=track.__getitem__)
            onset_ns, is_older = _onset(name, stamps_ns, onsets, first, last)
            goes_on = last == len(track) - 1
            end_ns = stamps_ns[last] if goes_on else (stamps_ns[last] + stamps_ns[last + 1]) // 2
            found.append(Event(name, onset_ns, end_ns, stamps_ns[peak], track[peak], first == 0 and is_older, goes_on))
    return sorted(found, key=lambda event: (event.onset_ns, event.label))


def _stretches(track: Sequence[float]) -> list[tuple[int, int]]:
    """First and last moment of each stretch."""
    found: list[tuple[int, int]] = []
    first = -1
    for i, probability in enumerate([*track, 0.0]):
        if first < 0 and probability >= ON:
            first = i
        elif first >= 0 and probability < OFF:
            if i - first > 1 or track[first] >= SURE:
                found.append((first, i - 1))
            first = -1
    return found


def _onset(
    name: str, stamps_ns: Sequence[int], onsets: Sequence[Mapping[str, float]], first: int, last: int
) -> tuple[int, bool]:
    """When the event began, and whether that may have been before the clip."""
    here = range(first, min(first + _ONSETS, last + 1))
    ages = [(stamps_ns[i], onsets[i][name]) for i in here if name in onsets[i]]
    young = [stamp_ns - round(age_s * 1e9) for stamp_ns, age_s in ages if 0.0 <= age_s < _HEARD_S]
    if not young:
        if first == 0:
            return stamps_ns[0], True
        return (stamps_ns[first - 1] + stamps_ns[first]) // 2, False
    # The label rises a moment or two after the sound; the head may be wrong by more than that.
    earliest_ns = stamps_ns[max(first - 1, 0)] - STEP_NS
    onset_ns = min(max(int(median(young)), earliest_ns, stamps_ns[0]), stamps_ns[first])
    return onset_ns, onset_ns == stamps_ns[0]
