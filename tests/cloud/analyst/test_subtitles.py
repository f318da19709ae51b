"""The subtitle track: valid WebVTT, in order, within the clip, with nothing in it that a player would misread."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.analyst.captions import LANGUAGES
from cloud.analyst.subtitles import LEAST_S, SOUNDS, subtitles
from cloud.errors import QueryError
from cloud.labels import LABELS

TIMES = re.compile(r"^(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})$")
Cue = tuple[float, float, str]


def parsed(track: str) -> list[Cue]:
    """As a strict reader of the specification takes it."""
    blocks = track.rstrip("\n").split("\n\n")
    head = blocks[0].split("\n")
    assert head[0] == "WEBVTT" and all("-->" not in line for line in head)
    cues = []
    for block in blocks[1:]:
        times, *text = block.split("\n")
        found = TIMES.match(times)
        assert found, times
        numbers = list(map(int, found.groups()))
        start, end = (3600 * numbers[i] + 60 * numbers[i + 1] + numbers[i + 2] + numbers[i + 3] / 1000 for i in (0, 4))
        assert len(text) == 1 and text[0] and "-->" not in text[0]
        assert "<" not in text[0] and ">" not in text[0] and not re.search(r"&(?!amp;|lt;|gt;)", text[0])
        assert start < end
        cues.append((start, end, text[0]))
    assert [cue[0] for cue in cues] == sorted(cue[0] for cue in cues)
    return cues


def event(label: str, onset_s: float, end_s: float) -> dict[str, Any]:
    return {"label": label, "onset_s": onset_s, "end_s": end_s}


NIGHT = {"place:urban": 0.99, "light:night": 0.99, "weather:rain": 0.99, "action:brake": 0.99, "vehicles:one": 0.99}
CRUISE = {**NIGHT, "action:brake": 0.01, "action:cruise": 0.99}


def test_a_sentence_stands_until_another_holds() -> None:
    moments = [(0.25 * i, NIGHT if i < 8 else CRUISE) for i in range(16)]
    cues = parsed(subtitles(moments, [], 4.0, "en"))
    assert [cue[:2] for cue in cues] == [(0.0, 2.0), (2.0, 4.0)]
    assert "brakes" in cues[0][2] and "steadily" in cues[1][2]


def test_sentences_do_not_flicker() -> None:
    moments = [(0.25 * i, NIGHT if i % 2 else CRUISE) for i in range(24)]
    cues = parsed(subtitles(moments, [], 6.0, "en"))
    assert all(end - start >= LEAST_S for start, end, _ in cues)


def test_sounds_stand_in_brackets_from_onset_to_end_in_each_language() -> None:
    for language in LANGUAGES:
        told = subtitles([(0.0, NIGHT)], [event("sound:siren", 1.2, 2.5), event("action:brake", 0, 1)], 3.0, language)
        cues = parsed(told)
        assert (1.2, 2.5, f"[{SOUNDS[language]['siren']}]") in cues and len(cues) == 2


def test_times_of_an_hour_and_more_are_written_whole() -> None:
    cues = parsed(subtitles([], [event("sound:horn", 3_725.5, 3_726.0)], 4_000.0, "en"))
    assert cues == [(3725.5, 3726.0, "[horn]")]


def test_what_a_player_would_read_as_markup_is_escaped() -> None:
    cues = parsed(subtitles([], [event("sound:<b>&\n\n00:00 --> 01:00", 0.0, 1.0)], 2.0, "en"))
    assert cues == [(0.0, 1.0, "[&lt;b&gt;&amp; 00:00 --&gt; 01:00]")]


def test_another_language_is_refused() -> None:
    with pytest.raises(QueryError, match="expected a language of en, de, es, fr, got 'xx'"):
        subtitles([], [], 1.0, "xx")


NAMES = st.sampled_from(LABELS) | st.text(max_size=20).map("sound:".__add__)


@given(
    st.lists(st.dictionaries(st.sampled_from(LABELS), st.floats(0, 1), max_size=12), max_size=24),
    st.lists(
        st.builds(event, NAMES, st.floats(-5, 20), st.floats(-5, 20)),
        max_size=6,
    ),
    st.sampled_from(LANGUAGES),
)  # fmt: skip
def test_any_analysis_makes_a_valid_track(labels: Any, happened: list[dict[str, Any]], language: str) -> None:
    parsed(subtitles([(0.25 * i, one) for i, one in enumerate(labels)], happened, 0.25 * len(labels), language))
