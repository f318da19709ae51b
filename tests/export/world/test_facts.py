"""Captions say the facts of a moment: equal facts, equal sentences, in every language."""

from __future__ import annotations

import itertools

import pytest

from export.world.facts import Facts, facts
from export.world.grammar import GRAMMARS, SIGNS, captions, sentence
from export.world.places import PLACES
from export.world.scenario import LIGHTS, WEATHERS
from roadfuse.v1.truth_pb2 import GroundTruth, TrueObject, TrueSound

ACTIONS = ("cruise", "accelerate", "brake", "stop", "turn_left", "turn_right")
MOMENTS = [
    *((place, light, weather) for place in PLACES if place != "tunnel" for light in LIGHTS for weather in WEATHERS),
    ("tunnel", "", ""),
]
VEHICLES = [("none", ""), *itertools.product(("one", "several"), ("", "car", "van", "truck", "bus"))]
SOUNDS = [
    names for count in range(5) for names in itertools.combinations(("siren", "horn", "footsteps", "speech"), count)
]


def truth(**changed: object) -> GroundTruth:
    fields = {"place": "urban", "light": "day", "weather": "rain", "ego_action": "brake", **changed}
    return GroundTruth(**fields)  # type: ignore[arg-type]


def thing(kind: str, variant: str, height_px: float, intent: str = "", visibility: float = 1.0) -> TrueObject:
    return TrueObject(kind=kind, variant=variant, intent=intent, width_px=height_px, height_px=height_px,
                      visibility=visibility)  # fmt: skip


@pytest.mark.parametrize("language", GRAMMARS)
def test_sentences_are_equal_only_if_facts_are(language: str) -> None:
    rest = [
        (*vehicles, emergency, sign, intent, sounds)
        for vehicles in VEHICLES
        for emergency in (False, True)
        for sign in ("", *SIGNS)
        for intent in ("", "waits", "will_cross", "crosses")
        for sounds in SOUNDS
    ]
    moments = [(*moment, action) for moment in MOMENTS for action in ACTIONS]
    # parts of a sentence do not depend on each other: all openings with one rest, and one opening with all rests
    pool = [Facts(*moment, *rest[0]) for moment in moments] + [Facts(*moments[0], *r) for r in rest[1:]]
    assert len({sentence(language, f) for f in pool}) == len(pool)


def test_every_language_says_every_caption() -> None:
    said = captions(
        Facts("urban", "night", "snow", "brake", "several", "bus", True, "stop", "waits", ("siren", "horn"))
    )
    assert said["en"] == (
        "At night in falling snow, the car brakes on a city street. There are several vehicles ahead, the nearest of "
        "them a bus. An emergency vehicle with flashing lights is in sight. A stop sign is close. A pedestrian is "
        "waiting beside the road. A siren and a horn can be heard."
    )
    assert said["de"] == (
        "In der Nacht bei Schneefall bremst das Auto auf einer Stadtstraße. Voraus sind mehrere Fahrzeuge, das nächste "
        "davon ist ein Bus. Ein Einsatzfahrzeug mit Blinklicht ist in Sicht. Ein Schild zeigt Halt. Ein Fußgänger "
        "wartet am Straßenrand. Zu hören sind eine Sirene und eine Hupe."
    )
    assert said["es"] == (
        "De noche y con nieve, el coche frena en una calle urbana. Delante hay varios vehículos y el más cercano es un "
        "autobús. Se ve un vehículo de emergencia con luces intermitentes. Una señal indica stop. Un peatón espera "
        "junto a la calzada. Se oyen una sirena y un claxon."
    )
    assert said["fr"] == (
        "De nuit sous la neige, la voiture freine dans une rue du centre-ville. Il y a plusieurs véhicules devant, et "
        "le plus proche est un bus. Un véhicule de secours aux feux clignotants est en vue. Un panneau indique stop. "
        "Un piéton attend au bord de la chaussée. On entend une sirène et un klaxon."
    )


def test_what_is_small_hidden_or_quiet_is_no_fact() -> None:
    nothing = facts(truth())
    small = truth(
        objects=[thing("vehicle", "car", 9), thing("sign", "stop", 12), thing("pedestrian", "adult", 20, "crosses"),
                 thing("vehicle", "truck", 90, visibility=0.2)],
        sounds=[TrueSound(name="siren", level_dbfs=-44.0, prominence_db=-2.0),
                TrueSound(name="speech", level_dbfs=-30.0, prominence_db=-20.0),
                TrueSound(name="engine", level_dbfs=-20.0, prominence_db=6.0)],
    )  # fmt: skip
    assert facts(small) == nothing == Facts("urban", "day", "rain", "brake", "none", "", False, "", "", ())


def test_the_most_pressing_intent_and_the_nearest_kind_are_told() -> None:
    full = truth(
        objects=[thing("vehicle", "car", 30), thing("vehicle", "bus", 80), thing("vehicle", "emergency", 40),
                 thing("pedestrian", "adult", 60, "waits"), thing("pedestrian", "adult", 50, "will_cross"),
                 thing("sign", "yield", 25), thing("sign", "speed_50", 26)],
        sounds=[TrueSound(name="siren", level_dbfs=-30.0, prominence_db=-2.0)],
    )  # fmt: skip
    assert facts(full)[4:] == ("several", "bus", True, "speed_50", "will_cross", ("siren",))


def test_a_smaller_picture_gives_the_same_facts() -> None:
    assert facts(truth(objects=[thing("vehicle", "car", 25.0)]), rows=192).kind == "car"
    assert facts(truth(objects=[thing("vehicle", "car", 25.0)])).kind == ""


def test_neither_light_nor_weather_is_told_in_a_tunnel() -> None:
    assert facts(truth(place="tunnel", light="day")) == facts(truth(place="tunnel", light="night", weather="clear"))
