"""Captions tell what is sure and nothing else, in whole sentences of four languages."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from cloud.analyst.captions import LANGUAGES, SURE, caption, facts_told
from cloud.errors import QueryError
from cloud.labels import LABELS
from export.model.labels import FACTS
from export.world.facts import SOUNDS, Facts
from export.world.grammar import GRAMMARS, sentence

KINDS = ("place", "light", "weather", "action", "vehicles", "large", "emergency", "sign", "intent", "sound")


def drawn(rng: random.Random) -> Facts:
    """Facts that can be told together."""
    one = {name: rng.choice(values) for name, values in FACTS.items()}
    for name in ("light", "weather"):
        one[name] = "" if one["place"] == "tunnel" else rng.choice(FACTS[name][1:])
    if one["vehicles"] == "none":
        one["kind"] = ""
    one["emergency"] = rng.random() < 0.5
    return Facts(**one, sounds=tuple(name for name in SOUNDS if rng.random() < 0.4))


def labels_of(facts: Facts, p: float = 1.0) -> dict[str, float]:
    said = {
        "place": facts.place, "light": facts.light, "weather": facts.weather, "action": facts.action,
        "vehicles": facts.vehicles, "large": facts.kind, "emergency": "yes" if facts.emergency else "",
        "sign": facts.sign, "intent": facts.intent,
    }  # fmt: skip
    named = [f"{kind}:{value}" for kind, value in said.items() if value] + [f"sound:{s}" for s in facts.sounds]
    return {label: p if label in named else 0.0 for label in LABELS}


def test_where_everything_is_sure_a_caption_is_the_worlds_own() -> None:
    rng = random.Random(1)
    for _ in range(200):
        facts = drawn(rng)
        for language in LANGUAGES:
            assert caption(labels_of(facts), language) == sentence(language, facts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_whatever_is_left_out_whole_sentences_remain(language: str) -> None:
    rng = random.Random(2)
    for missing in itertools.chain.from_iterable(itertools.combinations(KINDS, n) for n in range(len(KINDS) + 1)):
        labels = {k: v for k, v in labels_of(drawn(rng)).items() if k.partition(":")[0] not in missing}
        text = caption(labels, language)
        assert text and not re.search(r"  |[{}]| [,.]|,\.|\.\.|,,", text), text
        for part in text.removesuffix(".").split(". "):
            assert part[0].isupper(), text
            assert part.split()[-1] not in {"y", "and", "und", "et", "in", "on", "at", "de", "en", "bei", "à"}, text
            assert not part.lower().startswith(("y ", ", ")), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_not_sure_is_not_told(language: str) -> None:
    rng, grammar = random.Random(3), GRAMMARS[language]
    for _ in range(100):
        facts = drawn(rng)
        labels = labels_of(facts)
        for kind in KINDS:
            unsure = {k: SURE[kind] - 1e-6 if k.startswith(f"{kind}:") and v else v for k, v in labels.items()}
            text = caption(unsure, language).lower()
            wording = {
                "place": grammar.places[facts.place], "light": grammar.lights.get(facts.light),
                "weather": grammar.weathers.get(facts.weather, "").removeprefix("y "),
                "sign": facts.sign and grammar.sign.format(sign=grammar.signs[facts.sign]),
                "intent": grammar.intents.get(facts.intent), "emergency": grammar.emergency,
                "sound": grammar.hearing[0].format(listed="").strip(),
            }.get(kind)  # fmt: skip
            assert not wording or not re.search(rf"\b{re.escape(wording.lower())}\b", text), text
            assert not any(label.startswith(f"{kind}:") for label in facts_told(unsure))


def test_the_facts_that_are_told_are_those_that_the_caption_tells() -> None:
    labels = {
        "place:urban": 0.999, "sound:siren": 0.998, "sound:rain": 0.999, "weather:rain": 0.997, "light:night": 0.4,
        "vehicles:none": 0.999, "large:truck": 0.999, "tag:pedestrian": 1.0,
    }  # fmt: skip
    told = facts_told(labels)
    assert told == {"place:urban": 0.999, "weather:rain": 0.997, "vehicles:none": 0.999, "sound:siren": 0.998}
    assert caption(labels, "en") == (
        "The scene is in the rain on a city street. There is no vehicle ahead. A siren can be heard."
    )


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"action:brake"}, ("The car brakes.", "Gerade bremst das Auto.", "El coche frena.", "La voiture freine.")),
        (
            {"weather:rain", "action:cruise"},
            ("In the rain, the car drives steadily.", "Bei Regen fährt das Auto gleichmäßig.",
             "Con lluvia, el coche circula a velocidad constante.",
             "Sous la pluie, la voiture roule à vitesse constante."),
        ),
        (
            {"place:tunnel", "sound:rain"},
            ("The scene is in a tunnel. Rain can be heard.", "Die Szene spielt in einem Tunnel. Zu hören ist Regen.",
             "La escena transcurre en un túnel. Se oye lluvia.",
             "La scène se déroule dans un tunnel. On entend la pluie."),
        ),
        (
            {"place:urban", "action:stop", "large:bus"},
            ("On a city street, the car stands still. There is a bus ahead.",
             "Auf einer Stadtstraße steht das Auto. Voraus ist ein Bus.",
             "En una calle urbana, el coche está parado. Delante hay un autobús.",
             "Dans une rue du centre-ville, la voiture est à l'arrêt. Il y a un bus devant."),
        ),
    ],
)  # fmt: skip
def test_sentences_stay_sentences_where_something_is_not_known(labels: set[str], said: tuple[str, ...]) -> None:
    for language, text in zip(LANGUAGES, said, strict=True):
        assert caption(dict.fromkeys(labels, 1.0), language) == text


def test_of_two_values_of_a_kind_the_likelier_is_told() -> None:
    assert facts_told({"light:dusk": 0.98, "light:night": 0.99}) == {"light:night": 0.99}
    assert facts_told({"light:dusk": 0.99, "light:night": 0.98}) == {"light:dusk": 0.99}


def test_who_asks_for_more_gets_less() -> None:
    labels = labels_of(drawn(random.Random(4)), p=0.99)
    assert facts_told(labels, least=0.98) == facts_told(labels)
    assert facts_told(labels, least=0.995) == {}
    assert caption(labels, "de", least=0.995) == "Nichts ist sicher zu erkennen."


def test_a_language_without_a_grammar_is_refused() -> None:
    with pytest.raises(QueryError, match="expected a language of en, de, es, fr, got 'it'"):
        caption({}, "it")
