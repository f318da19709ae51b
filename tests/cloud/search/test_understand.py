"""Texts in four languages become the conditions that they say."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.errors import QueryError
from cloud.search.predicate import ANY, And, Between, Has, In, Near, Not, Or, Predicate, Then, from_json, to_json
from cloud.search.understand import understand
from export.model.labels import EGO_ACTIONS
from export.world.facts import SOUNDS, Facts
from export.world.grammar import GRAMMARS, SIGNS, sentence

NOW_S = 1_800_000_000.0
TODAY_S = 1_799_971_200.0  # began at midnight, UTC
NIGHT, SIREN, HORN, RAIN, TRUCK = (
    Has("light:night"), Has("sound:siren"), Has("sound:horn"), Has("weather:rain"), Has("large:truck"),
)  # fmt: skip
WAITS, CROSSES = Has("intent:waits"), Has("intent:crosses")


def facts(of: random.Random) -> tuple[Facts, set[str]]:
    """Facts, and the labels that a sentence on them says."""
    place = of.choice(("highway", "urban", "residential", "tunnel"))
    light = "" if place == "tunnel" else of.choice(("day", "dusk", "night"))
    weather = of.choice(("clear", "rain", "fog", "snow")) if light else ""
    vehicles = of.choice(("none", "one", "several"))
    kind = "" if vehicles == "none" else of.choice(("", "car", "van", "truck", "bus"))
    made = Facts(
        place, light, weather, of.choice(EGO_ACTIONS), vehicles, kind, of.random() < 0.3, of.choice(("", *SIGNS)),
        of.choice(("", "waits", "will_cross", "crosses")), tuple(name for name in SOUNDS if of.random() < 0.3),
    )  # fmt: skip
    said = {f"place:{place}", f"action:{made.action}"} | {f"sound:{name}" for name in made.sounds}
    pairs = (("light", light), ("weather", weather), ("large", kind), ("sign", made.sign), ("intent", made.intent))
    said |= {f"{name}:{value}" for name, value in pairs if value} | ({"emergency:yes"} if made.emergency else set())
    # "There is a truck ahead" does not say that it is the only vehicle.
    return made, said | (set() if kind and vehicles == "one" else {f"vehicles:{vehicles}"})


@pytest.mark.parametrize("language", GRAMMARS)
def test_every_sentence_of_the_grammar_is_understood_completely(language: str) -> None:
    of = random.Random(7)
    for _ in range(300):
        made, expected = facts(of)
        text = sentence(language, made)
        said = understand(text, NOW_S)
        assert isinstance(said.predicate, And)
        assert {part.label for part in said.predicate.parts if isinstance(part, Has)} == expected, text
        assert len(said.predicate.parts) == len(expected) and said.residual == "" and not said.is_composed, text
        assert said.to_embed == text.strip(" .,;") or said.to_embed == text


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            ["night, siren from behind, pedestrian waits", "nachts, Sirene, Fußgänger wartet",
             "de noche, sirena, peatón esperando", "de nuit, sirène, un piéton attend"],
            And((NIGHT, SIREN, WAITS)),
        ),
        (["no siren", "not a siren", "keine Sirene", "ohne Sirene", "sin sirena", "no hay sirena", "pas de sirène",
          "sans sirène", "aucune sirène"], Not(SIREN)),
        (["no siren or horn", "without a siren and a horn", "keine Sirene und keine Hupe", "ni sirena ni claxon",
          "ni sirène ni klaxon", "neither siren nor horn"], And((Not(SIREN), Not(HORN)))),
        (["night without rain", "nachts ohne Regen", "de noche sin lluvia", "de nuit sans pluie"],
         And((NIGHT, Not(RAIN)))),
        (["no siren, night"], And((Not(SIREN), NIGHT))),
        (["rain or snow", "Regen oder Schnee", "lluvia o nieve", "pluie ou neige", "either rain or snow"],
         Or((RAIN, Has("weather:snow")))),
        (["night, rain or snow"], And((NIGHT, Or((RAIN, Has("weather:snow")))))),
        (["rain, snow or fog at night"], And((Or((RAIN, Has("weather:snow"), Has("weather:fog"))), NIGHT))),
        (["siren at night or horn by day"], Or((And((SIREN, NIGHT)), And((HORN, Has("light:day")))))),
        (["truck then horn", "Lastwagen, dann Hupe", "camión, luego claxon", "camion puis klaxon",
          "truck followed by a horn", "camion suivi d'un klaxon".replace("d'un", "de")], Then(TRUCK, HORN, 3.0)),
        (["truck then horn within 5 s", "Lastwagen, dann Hupe innerhalb von 5 Sekunden",
          "camión, luego claxon en menos de 5 segundos", "camion puis klaxon en moins de 5 secondes",
          "truck, then within 5 seconds horn"], Then(TRUCK, HORN, 5.0)),
        (["truck then horn then siren"], Then(TRUCK, Then(HORN, SIREN, 3.0), 3.0)),
        (["no vehicles", "kein Fahrzeug", "sin vehículos", "aucun véhicule"], Has("vehicles:none")),
        (["no entry sign", "Einfahrt verboten", "entrada prohibida", "sens interdit"], Has("sign:no_entry")),
        (["the car brakes", "das Auto bremst", "el coche frena", "la voiture freine"], Has("action:brake")),
        (["pedestrian crossing the road", "ein Fußgänger überquert die Straße", "jemand der die Straße überquert",
          "una persona cruza la calle", "quelqu'un traverse la rue"], CROSSES),
        (["someone is about to cross the street", "ein Fußgänger möchte die Fahrbahn überqueren",
          "una persona que quiere cruzar", "un piéton veut traverser la rue"], Has("intent:will_cross")),
        (["sans véhicule de secours", "no emergency vehicle", "kein Einsatzfahrzeug"], Not(Has("emergency:yes"))),
        (["sound:siren>0.8"], Has("sound:siren", 0.8)),
        (["vehicle:Car-1,car-2"], In("vehicle", ("Car-1", "car-2"))),
        (["hardness>=0.7"], Between("hardness", 0.7)),
        (["near:48.1,11.5,500"], Near(48.1, 11.5, 500.0)),
        (["last 24 h", "letzte 24 Stunden", "últimas 24 horas", "dernières 24 heures", "in the past 24 hours"],
         Between("recorded_s", NOW_S - 86_400)),
        (["since 2026-11-01", "seit 2026-11-01", "desde 2026-11-01", "depuis le 2026-11-01"],
         Between("recorded_s", 1_793_491_200.0)),
        (["today", "heute", "hoy", "aujourd'hui"],
         Between("recorded_s", TODAY_S, math.nextafter(TODAY_S + 86_400, 0.0))),
        (["", "   ", "show me all scenes", "no", "then"], ANY),
    ],
)  # fmt: skip
def test_texts_mean_what_they_say(texts: list[str], expected: Predicate) -> None:
    for text in texts:
        said = understand(text, NOW_S)
        assert said.predicate == expected, text
        assert said.residual == "", text


def test_what_no_condition_says_stays_to_be_embedded() -> None:
    said = understand("a purple elephant at night, vehicle:car-1", NOW_S)
    assert said.predicate == And((In("vehicle", ("car-1",)), NIGHT))
    assert said.residual == "purple elephant"
    assert said.to_embed == "a purple elephant at night", "likeness to all that was typed but filters"
    denied = understand("a purple elephant, not at night", NOW_S)
    assert denied.to_embed == "purple elephant", "embeddings do not understand `not`"
    assert understand("no siren", NOW_S).to_embed == ""
    unlike = understand("an elephant at night, not a purple unicorn", NOW_S)
    assert (unlike.to_embed, unlike.denied) == ("elephant", "purple unicorn")
    assert understand("Fußgänger wartet, letzte 2 Tage", NOW_S).to_embed == "Fußgänger wartet"
    assert understand("last 24 h", NOW_S).to_embed == ""


@pytest.mark.parametrize(
    "text", ["x" * 1_001, "night\x00", "since 2026-13-45", "near:95,0,5", "sound:siren>1.5", "media:moon"]
)
def test_texts_that_cant_be_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match="expected"):
        understand(text, NOW_S)


@settings(max_examples=300)
@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        said = understand(text, NOW_S)
    except QueryError:
        return
    assert from_json(to_json(said.predicate)) == said.predicate


WORDS = st.sampled_from((
    "night", "siren", "no", "not", "or", "and", ",", "then", "within", "3", "s", "rain", "snow", "truck",
    "pedestrian", "waits", "ohne", "oder", "dann", "keine", "sin", "o", "luego", "pas", "de", "ou", "puis", "the",
    "a", "elephant", "last", "24", "h", "hardness>0.5", "vehicle:a",
))  # fmt: skip


@settings(max_examples=300)
@given(words=st.lists(WORDS, max_size=25))
def test_any_order_of_known_words_is_read(words: list[str]) -> None:
    said = understand(" ".join(words), NOW_S)
    assert from_json(to_json(said.predicate)) == said.predicate
