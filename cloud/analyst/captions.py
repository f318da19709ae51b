"""A moment in a sentence or two, in four languages, telling only what is sure enough.

The wording is that of the world's grammar (export/world/grammar.py); here any of its parts may be missing. How sure is
sure enough was chosen on validation worlds, kind by kind, so that what is told is right (docs/retrieval.md has how
often, and how much is told).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cloud.errors import QueryError
from cloud.labels import LABELS
from export.world.grammar import GRAMMARS, Grammar

LANGUAGES: Final = tuple(GRAMMARS)
DEFAULT: Final = 0.0  # nothing beyond what SURE asks for
# The probability from which a kind of fact is told: python benchmarks/captions.py
SURE: Final[Mapping[str, float]] = {
    "place": 0.9,
    "light": 0.9,
    "weather": 0.9,
    "action": 0.9,
    "vehicles": 0.94,
    "large": 0.9,
    "emergency": 0.9,
    "sign": 0.94,
    "intent": 0.9,
    "sound": 0.92,
}


@dataclass(frozen=True, slots=True)
class _Rest:
    """What the grammar has no words for, since it never leaves anything out.

    scene: where nothing is known of what the car does. now: in front of an action where nothing else is. link: at the
    start of the weather's wording, only right behind the light's. rain: as a sound.
    """

    scene: str
    now: str
    link: str
    rain: str
    nothing: str


_REST: Final = {
    "en": _Rest("the scene is {rest}", "", "", "rain", "nothing can be told for sure"),
    "de": _Rest("die Szene spielt {rest}", "gerade", "", "Regen", "nichts ist sicher zu erkennen"),
    "es": _Rest("la escena transcurre {rest}", "", "y ", "lluvia", "no se puede asegurar nada"),
    "fr": _Rest("la scène se déroule {rest}", "", "", "la pluie", "rien n'est certain"),
}


def caption(labels: Mapping[str, float], language: str, least: float = DEFAULT) -> str:
    """What is sure of a moment, in sentences.

    Args:
        labels: probabilities by name (cloud/labels.py); what is not named is not known.
        language: one of LANGUAGES.
        least: probability that a fact must have besides what its kind asks for.

    Raises:
        QueryError: another language.
    """
    if language not in GRAMMARS:
        raise QueryError(f"expected a language of {', '.join(LANGUAGES)}, got {language!r}")
    grammar, rest = GRAMMARS[language], _REST[language]
    told = _values(facts_told(labels, least))
    one = {kind: values[0] for kind, values in told.items()}
    parts = [
        _opening(grammar, rest, one),
        _vehicles(grammar, one.get("vehicles", ""), one.get("large", "")),
        grammar.emergency if "emergency" in one else "",
        grammar.sign.format(sign=grammar.signs[one["sign"]]) if "sign" in one else "",
        grammar.intents[one["intent"]] if "intent" in one else "",
        _sounds(grammar, rest, told.get("sound", [])),
    ]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in [part for part in parts if part] or [rest.nothing])


def facts_told(labels: Mapping[str, float], least: float = DEFAULT) -> dict[str, float]:
    """The labels that a caption tells, with their probabilities, in its order.

    Of each kind but sounds only the likeliest one; no large vehicle where there is none; no sound of rain beside the
    weather that makes it.
    """
    likeliest: dict[str, float] = {}
    for label in LABELS:
        kind, probability = label.partition(":")[0], labels.get(label, 0.0)
        sure = probability >= max(SURE[kind], least)
        if sure and (
            kind == "sound" or probability > max((p for n, p in likeliest.items() if _is(n, kind)), default=0)
        ):
            likeliest = {n: p for n, p in likeliest.items() if kind == "sound" or not _is(n, kind)}
            likeliest[label] = probability
    if "vehicles:none" in likeliest:
        likeliest = {n: p for n, p in likeliest.items() if not _is(n, "large")}
    if "weather:rain" in likeliest:
        likeliest.pop("sound:rain", None)
    return likeliest


def _is(label: str, kind: str) -> bool:
    return label.startswith(f"{kind}:")


def _values(told: Mapping[str, float]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for label in told:
        kind, _, value = label.partition(":")
        values.setdefault(kind, []).append(value)
    return values


def _opening(grammar: Grammar, rest: _Rest, told: Mapping[str, str]) -> str:
    """When, where and what the car does; "" where none of it is known."""
    light, weather = grammar.lights.get(told.get("light", ""), ""), grammar.weathers.get(told.get("weather", ""), "")
    place = grammar.places.get(told.get("place", ""), "")
    when = f"{light} {weather if light else weather.removeprefix(rest.link)}".strip()
    if "action" not in told:
        return rest.scene.format(rest=f"{when} {place}".strip()) if when or place else ""
    action = " ".join(grammar.actions[told["action"]].format(where=place if when else "").split())
    first = when or place
    if not first:
        return f"{rest.now} {action}".strip()
    return grammar.opening.format(when=first, action=action)


def _vehicles(grammar: Grammar, count: str, large: str) -> str:
    if count == "none":
        return grammar.none
    if large:
        return (grammar.several_large if count == "several" else grammar.one_large).format(kind=grammar.kinds[large])
    return {"one": grammar.one, "several": grammar.several}.get(count, "")


def _sounds(grammar: Grammar, rest: _Rest, names: list[str]) -> str:
    if not names:
        return ""
    words = [grammar.sounds.get(name, rest.rain) for name in names]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {grammar.conjunction} {words[-1]}"
    return grammar.hearing[len(names) > 1 or names[0] in grammar.plural_sounds].format(listed=listed)
