"""A clip's subtitle track (WebVTT): its captions over time, and what is heard in brackets.

    00:00:01.250 --> 00:00:04.000
    At night in the rain, the car brakes on a city street. A pedestrian is crossing the road.

Times count from the clip's first frame. Ref: W3C, "WebVTT: The Web Video Text Tracks Format", 4 April 2019, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from cloud.analyst.captions import LANGUAGES, caption
from cloud.errors import QueryError

SOUNDS: Final = {
    "en": {"siren": "siren", "horn": "horn", "footsteps": "footsteps", "rain": "rain", "speech": "voices"},
    "de": {"siren": "Sirene", "horn": "Hupe", "footsteps": "Schritte", "rain": "Regen", "speech": "Stimmen"},
    "es": {"siren": "sirena", "horn": "claxon", "footsteps": "pasos", "rain": "lluvia", "speech": "voces"},
    "fr": {"siren": "sirène", "horn": "klaxon", "footsteps": "pas", "rain": "pluie", "speech": "voix"},
}
# Words that flicker are not read: a sentence stands for so long at least.
LEAST_S: Final = 1.0
# What a cue without a length would get; players show none.
_SHORTEST_S: Final = 0.25


class Cue(NamedTuple):
    """Text from when to when, s after the first frame."""

    start_s: float
    end_s: float
    text: str


def subtitles(
    moments: Sequence[tuple[float, Mapping[str, float]]], events: Sequence[Mapping[str, Any]], length_s: float,
    language: str,
) -> str:  # fmt: skip
    """The track as a WebVTT file.

    Args:
        moments: of an analysis, by time: s after the clip's first frame, and labels.
        events: of its report.
        length_s: of the clip.
        language: of captions.LANGUAGES.

    Raises:
        QueryError: another language.
    """
    if language not in LANGUAGES:
        raise QueryError(f"expected a language of {', '.join(LANGUAGES)}, got {language[:40]!r}")
    cues = sorted([*_sentences(moments, length_s, language), *_heard(events, length_s, language)])
    blocks = [f"{_time(cue.start_s)} --> {_time(cue.end_s)}\n{_escaped(cue.text)}\n" for cue in cues]
    return "\n".join([f"WEBVTT\nLanguage: {language}\n", *blocks])


def _sentences(
    moments: Sequence[tuple[float, Mapping[str, float]]], length_s: float, language: str
) -> list[Cue]:  # fmt: skip
    """A sentence from where it first holds to where another does; what would flicker is told with its neighbour."""
    starts: list[tuple[float, str]] = []
    for at_s, labels in moments:
        text = caption(labels, language)
        if starts and (text == starts[-1][1] or at_s - starts[-1][0] < LEAST_S):
            continue
        starts.append((at_s, text))
    ends = [*(at_s for at_s, _ in starts[1:]), length_s]
    return [Cue(at_s, max(end_s, at_s + _SHORTEST_S), text) for (at_s, text), end_s in zip(starts, ends)]


def _heard(events: Sequence[Mapping[str, Any]], length_s: float, language: str) -> list[Cue]:
    cues = []
    for event in events:
        kind, _, name = str(event["label"]).partition(":")
        if kind == "sound":
            start_s = min(max(float(event["onset_s"]), 0.0), length_s)
            end_s = max(min(float(event["end_s"]), length_s), start_s + _SHORTEST_S)
            cues.append(Cue(start_s, end_s, f"[{SOUNDS[language].get(name, name)}]"))
    return cues


def _time(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _escaped(text: str) -> str:
    """As cue text: on one line, no tags, and nothing that looks like the arrow of a cue's times."""
    line = " ".join(text.split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
