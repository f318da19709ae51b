"""Words of four languages for what is known of a moment: the sentences of the world's grammar, and what people say.

A phrase is words without accents, in small letters; it means a predicate, or nothing ("": words that say nothing of
their own, such as the car of "bremst das Auto"). Articles may be left out of what is typed.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final

from cloud.search.predicate import And, Has, Or, Predicate
from export.world.grammar import GRAMMARS

ARTICLES: Final = frozenset((
    "the", "a", "an", "der", "die", "das", "den", "dem", "des", "ein", "eine", "einen", "einem", "einer", "eines",
    "el", "la", "los", "las", "un", "una", "unos", "unas", "le", "les", "une", "l", "d",
))  # fmt: skip
_LABELS: Final = {
    "place:highway": "highway, motorway, freeway, expressway, autobahn, auf der autobahn, autopista, autovia, "
    "autoroute",
    "place:urban": "city street, in the city, city, urban, downtown, town, in town, in der stadt, stadt, "
    "stadtisch, innenstadt, stadtstrasse, ciudad, en la ciudad, calle urbana, urbano, centro, en ville, ville, "
    "centre ville, urbain",
    "place:residential": "residential street, residential, residential area, suburb, neighbourhood, neighborhood, "
    "wohnstrasse, wohngebiet, im wohngebiet, zona residencial, calle residencial, rue residentielle, quartier "
    "residentiel",
    "place:tunnel": "tunnel, im tunnel, dans un tunnel, en un tunel, tunel",
    "light:day": "by day, daylight, daytime, during the day, day, tags, tagsuber, bei tag, bei tageslicht, tageslicht, "
    "de dia, durante el dia, a la luz del dia, de jour, en plein jour",
    "light:dusk": "dusk, at dusk, twilight, dawn, at dawn, evening light, dammerung, in der dammerung, abenddammerung, "
    "al anochecer, anochecer, atardecer, al atardecer, crepusculo, crepuscule, au crepuscule, a la tombee de la nuit",
    "light:night": "night, at night, by night, nighttime, in the dark, dark, nacht, bei nacht, nachts, in der nacht, "
    "im dunkeln, dunkel, dunkelheit, noche, de noche, por la noche, nocturno, oscuridad, nuit, de nuit, la nuit",
    "weather:clear": "clear weather, clear sky, clear skies, dry weather, sunny, klares wetter, bei klarem wetter, "
    "sonnig, trocken, tiempo despejado, cielo despejado, despejado, soleado, temps clair, ciel clair, ensoleille",
    "weather:rain": "rain, rainy, raining, it rains, in the rain, wet, regen, bei regen, regnerisch, es regnet, im "
    "regen, lluvia, con lluvia, llueve, lluvioso, bajo la lluvia, pluie, sous la pluie, il pleut, pluvieux",
    "weather:fog": "fog, foggy, mist, misty, in fog, in the fog, nebel, bei nebel, im nebel, neblig, nebelig, niebla, "
    "con niebla, neblina, brouillard, dans le brouillard, brume",
    "weather:snow": "snow, snowy, snowing, falling snow, snowfall, in the snow, it snows, schnee, schneefall, "
    "bei schneefall, bei schnee, im schnee, es schneit, nieve, con nieve, nevando, neige, sous la neige, il neige",
    "action:cruise": "cruise, cruises, cruising, drives steadily, driving steadily, steady speed, gleichmassig, "
    "gleichmassige fahrt, velocidad constante, a velocidad constante, vitesse constante, a vitesse constante",
    "action:accelerate": "accelerate, accelerates, accelerating, acceleration, speeds up, speeding up, the car "
    "accelerates, beschleunigt, beschleunigen, beschleunigung, das auto beschleunigt, acelera, acelerando, "
    "aceleracion, accelere, acceleration",
    "action:brake": "brake, brakes, braking, slows down, slowing down, the car is braking, hard braking, bremst, "
    "bremsen, bremsung, das auto bremst, vollbremsung, frena, frenando, frenado, frenazo, freine, freinage",
    "action:stop": "stopped, stands still, standing still, standstill, stationary, halted, the car is stopped, the "
    "car stops, steht, stillstand, im stillstand, angehalten, das auto steht, das auto halt, parado, esta parado, "
    "detenido, a l arret, arretee, arrete, la voiture est arretee",
    "action:turn_left": "turn left, turns left, turning left, left turn, biegt links ab, biegt nach links ab, nach "
    "links, linksabbiegen, linkskurve, abbiegen nach links, gira a la izquierda, giro a la izquierda, girando a la "
    "izquierda, tourne a gauche, virage a gauche",
    "action:turn_right": "turn right, turns right, turning right, right turn, biegt rechts ab, biegt nach rechts "
    "ab, nach rechts, rechtsabbiegen, rechtskurve, abbiegen nach rechts, gira a la derecha, giro a la derecha, "
    "girando a la derecha, tourne a droite, virage a droite",
    "vehicles:none": "no vehicle, no vehicles, no vehicle ahead, no vehicles ahead, no other vehicles, without "
    "vehicles, no traffic, empty road, road is empty, kein fahrzeug, keine fahrzeuge, ohne fahrzeuge, kein "
    "verkehr, leere strasse, ningun vehiculo, sin vehiculos, no hay vehiculos, no hay ningun vehiculo, sin "
    "trafico, carretera vacia, aucun vehicule, sans vehicule, pas de vehicule, pas de vehicules, route vide",
    "vehicles:one": "one vehicle, a single vehicle, one vehicle ahead, one car ahead, a vehicle ahead, ein fahrzeug "
    "voraus, ein einziges fahrzeug, un vehiculo delante, un solo vehiculo, un vehicule devant, un seul vehicule",
    "vehicles:several": "several vehicles, many vehicles, multiple vehicles, several cars, many cars, traffic, dense "
    "traffic, heavy traffic, vehicles, cars, mehrere fahrzeuge, viele fahrzeuge, viele autos, mehrere autos, verkehr, "
    "dichter verkehr, fahrzeuge, autos, varios vehiculos, muchos vehiculos, varios coches, trafico, vehiculos, coches, "
    "plusieurs vehicules, beaucoup de vehicules, plusieurs voitures, trafic, vehicules, voitures",
    "large:car": "car, auto, pkw, coche, carro, voiture",
    "large:van": "van, vans, minivan, lieferwagen, transporter, furgoneta, camionnette, fourgonnette",
    "large:truck": "truck, trucks, lorry, lorries, lastwagen, lkw, camion, camiones, camions, poids lourd",
    "large:bus": "bus, buses, coach, busse, autobus, autobuses, autocar",
    "emergency:yes": "emergency vehicle, emergency vehicles, ambulance, police car, fire engine, fire truck, flashing "
    "lights, blue light, blue lights, einsatzfahrzeug, einsatzfahrzeuge, krankenwagen, rettungswagen, polizeiauto, "
    "feuerwehr, blaulicht, vehiculo de emergencia, vehiculos de emergencia, ambulancia, coche de policia, bomberos, "
    "vehicule de secours, vehicule d urgence, vehicules d urgence, voiture de police, pompiers",
    "sign:stop": "stop sign, stopschild, stoppschild, senal de stop, panneau stop",
    "sign:yield": "give way sign, give way, yield, yield sign, vorfahrt gewahren, vorfahrt achten, ceda el paso, "
    "senal de ceda, cedez le passage",
    "sign:priority": "priority road, priority road sign, vorfahrtstrasse, vorfahrtsstrasse, calzada con prioridad, "
    "route prioritaire",
    "sign:no_entry": "no entry, no entry sign, do not enter, einfahrt verboten, einfahrtverbot, entrada prohibida, "
    "prohibido el paso, sens interdit",
    "sign:no_parking": "no parking, no parking sign, parkverbot, prohibido aparcar, prohibido estacionar, "
    "stationnement interdit, defense de stationner",
    "sign:crossing": "pedestrian crossing sign, crosswalk, crosswalk sign, zebra crossing, fussgangeruberweg, "
    "zebrastreifen, paso de peatones, paso de cebra, passage pieton, passage pietons",
    "sign:curve": "bend ahead, bend ahead sign, curve sign, bend sign, kurvenschild, eine kurve, senal de curva, "
    "panneau virage",
    "sign:roadworks": "roadworks, road works, roadworks sign, construction site, baustelle, baustellenschild, obras, "
    "senal de obras, travaux, chantier",
    "sign:keep_right": "keep right, keep right sign, rechts vorbeifahren, paso obligatorio por la derecha, "
    "contournement obligatoire par la droite",
    "sign:guide": "direction sign, guide sign, wegweiser, richtungsangaben, direcciones, senal de direccion, "
    "directions, panneau de direction",
    "intent:waits": "pedestrian waits, pedestrian waiting, pedestrian is waiting, pedestrians wait, waiting "
    "pedestrian, person waiting, someone is waiting, fussganger wartet, wartender fussganger, wartet ein "
    "fussganger, fussganger warten, peaton espera, peaton esperando, peatones esperando, pieton attend, pieton qui "
    "attend, pietons attendent",
    "intent:will_cross": "pedestrian about to cross, pedestrian is about to cross, pedestrian wants to cross, "
    "about to cross, about to cross the road, fussganger will uberqueren, fussganger will gerade uberqueren, "
    "peaton a punto de cruzar, peaton va a cruzar, a punto de cruzar, pieton va traverser, pieton sur le point de "
    "traverser, sur le point de traverser",
    "intent:crosses": "pedestrian crosses, pedestrian crossing, pedestrian is crossing, pedestrian crosses the "
    "road, pedestrian crossing the road, crossing pedestrian, pedestrians crossing, pedestrians crossing the road, "
    "person crossing, someone crosses the road, jaywalker, fussganger uberquert, fussganger quert, fussganger auf "
    "der fahrbahn, uberquert ein fussganger die strasse, peaton cruza, peaton cruzando, peatones cruzando, pieton "
    "traverse, pieton qui traverse, pietons traversent",
    "sound:siren": "siren, sirens, wailing siren, sirene, sirenen, martinshorn, sirena, sirenas, sirenes",
    "sound:horn": "horn, horns, honk, honks, honking, car horn, hupe, hupen, hupt, claxon, bocina, bocinazo, pitido, "
    "klaxon, klaxons, coup de klaxon",
    "sound:footsteps": "footsteps, steps, schritte, pasos, pas, bruits de pas",
    "sound:speech": "voices, voice, speech, talking, someone talking, people talking, stimmen, stimme, gesprach, "
    "sprechen, voces, voz, voix, paroles",
    "sound:rain": "rain noise, sound of rain, rain on the roof, regengerausch, ruido de lluvia, sonido de lluvia, "
    "bruit de pluie",
    "tag:turning": "turning, abbiegen, turns, girando, tourne",
    "tag:vehicle_close": "vehicle close, close vehicle, nearby vehicle, nahes fahrzeug, vehiculo cercano, vehicule "
    "proche",
}
_SIGN_FORMS: Final = ("{} sign", "{} schild", "schild {}", "senal de {}", "senal {}", "panneau {}", "panneau de {}")
_SPEEDS: Final = "{0} speed limit, speed limit {0}, speed limit of {0}, {0} sign, tempo {0}, limite de {0}, limite {0}"
_ANY: Final = {
    (
        "intent:waits",
        "intent:will_cross",
        "intent:crosses",
        "tag:pedestrian",
    ): "pedestrian, pedestrians, person, people, fussganger, fussgangerin, mensch, menschen, personen, peaton, "
    "peatones, persona, personas, pieton, pietons, personne",
    ("vehicles:one", "vehicles:several"): "vehicle, vehicle ahead, other vehicles, fahrzeug, vehiculo, vehicule",
    tuple(
        f"sign:{name}"
        for name in [
            "stop",
            "yield",
            "priority",
            "no_entry",
            "no_parking",
            "speed_30",
            "speed_50",
            "speed_80",
            "speed_120",
            "crossing",
            "curve",
            "roadworks",
            "keep_right",
            "guide",
        ]
    ): "sign, signs, road sign, traffic sign, schild, schilder, verkehrsschild, verkehrszeichen, senal, senales, "
    "senal de trafico, panneau, panneaux, panneau de signalisation",
    tuple(f"sign:speed_{limit}" for limit in (30, 50, 80, 120)): "speed limit, speed limit sign, tempolimit, "
    "geschwindigkeitsbegrenzung, limite de velocidad, limitation de vitesse",
}
# Who does what, where: every combination; "" of none.
_EN: Final = "pedestrian, pedestrians, person, people, someone, somebody"
_DE: Final = "fussganger, fussgangerin, person, jemand, personen"
_ES: Final = "peaton, peatones, persona, alguien"
_FR: Final = "pieton, pietons, personne, quelqu un"
_PEOPLE: Final = {
    "intent:waits": (
        (_EN, "waits, wait, waiting, is waiting, who waits, standing",
         ", beside road, at the kerb, to cross, to cross road"),
        (_DE, "wartet, warten, der wartet, wartend, steht", ", am strassenrand, am bordstein"),
        (_ES, "espera, esperan, esperando, que espera", ", junto a la calzada, para cruzar, en la acera"),
        (_FR, "attend, attendent, qui attend, en attente",
         ", au bord de la chaussee, pour traverser, sur le trottoir"),
    ),
    "intent:will_cross": (
        (_EN, "wants to, wants, is about to, about to, going to, is going to, will",
         "cross, cross the road, cross the street"),
        (_DE, "will, will gerade, mochte, wird, wollen, der",
         "uberqueren, die strasse uberqueren, die fahrbahn uberqueren, uberqueren will, die strasse uberqueren will, "
         "die fahrbahn uberqueren will"),
        (_ES, "va a, quiere, a punto de, esta a punto de, que va a, que quiere",
         "cruzar, cruzar la calle, cruzar la calzada"),
        (_FR, "va, veut, sur le point de, est sur le point de, qui va, qui veut",
         "traverser, traverser la rue, traverser la chaussee, traverser la route"),
    ),
    "intent:crosses": (
        (_EN, "crosses, cross, crossing, is crossing, who crosses, walks across",
         ", road, the road, street, the street"),
        (_DE, "uberquert, uberqueren, quert", ", die strasse, die fahrbahn"),
        (_DE, "der, die", "uberquert, die strasse uberquert, die fahrbahn uberquert, uberqueren"),
        (_ES, "cruza, cruzan, cruzando, esta cruzando, que cruza", ", la calle, la calzada, la carretera"),
        (_FR, "traverse, traversent, traversant, qui traverse", ", la rue, la chaussee, la route"),
    ),
}  # fmt: skip
# What says nothing of its own; "ahead" of "several vehicles ahead".
_SILENT: Final = (
    "dicht, nahe, cerca, juste, right, rue, dans la rue, directly, "
    "there is, there are, there, is, are, be, can be heard, heard, we hear, you hear, hear, hearing, with, in "
    "sight, close, nearby, ahead, in front, from behind, the car, fahrt das auto, lenkt das auto, das auto lenkt, "
    "das auto fahrt, while, when, during, where, sound of, sound, sounds, noise, scene, scenes, show me, show, "
    "find, find me, search, all, some, any, moment, moments, of, in, on, at, it, that, which, please, i, want, "
    "see, nearest of them, nearest, them, flashing, beside road, beside the road, road, the road, "
    "street, strasse, fahrbahn, calle, calzada, chaussee, la rue, zu horen ist, zu horen "
    "sind, zu horen, horen, ist, sind, voraus, mit, in sicht, das nachste davon ist, das nachste davon, nachste "
    "davon, davon, wahrend, wenn, wo, zeige, zeig mir, zeige mir, finde, suche, szenen, szene, ein schild zeigt, "
    "im, am, bei, auf, es gibt, gerausch, voraus ist, voraus sind, am strassenrand, strassenrand, se oye, se oyen, "
    "oye, oyen, con, delante, delante hay, hay, mas cercano es, el mas cercano es, se ve, se ven, ve, cuando, "
    "donde, escenas, escena, busca, muestra, muestrame, una senal indica, indica, en, de, que, es, esta, estan, on "
    "entend, entend, avec, devant, il y a, et le plus proche est, le plus proche est, est, sont, en vue, quand, ou "
    "il y a, scenes, montre, montre moi, cherche, trouve, un panneau indique, qui, dans, au, du, se, car is, "
    "vehicle is, drives, fahrt, circula, el coche, la voiture, roule"
)
_WORD: Final = re.compile(r"[^\W_]+(?:_[^\W_]+)*")
_PIECE: Final = re.compile(r"within:\d+(?:\.\d+)?|[^\W_]+(?:_[^\W_]+)*|[,;.!?:]")


def plain(text: str) -> str:
    """Small letters without accents; ß is ss."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign))


def words(text: str) -> list[str]:
    """The words of a text."""
    return _WORD.findall(plain(text))


def pieces(text: str) -> list[str]:
    """The words and stops of a text that is plain already; a waiting time "within:3" is one."""
    return _PIECE.findall(text)


class Node:
    """A word of phrases that begin alike.

    Attributes:
        next: by the words that go on.
        meaning: of the phrase that ends here.
    """

    __slots__ = ("meaning", "next")

    def __init__(self) -> None:
        self.next: dict[str, Node] = {}
        self.meaning: Predicate | None = None


@cache
def trie() -> Node:
    """All phrases, by their words."""
    root = Node()
    for phrase, meaning in phrases().items():
        node = root
        for word in phrase:
            node = node.next.setdefault(word, Node())
        node.meaning = meaning
    return root


@cache
def phrases() -> dict[tuple[str, ...], Predicate]:
    """What each phrase means; And(()) of one that says nothing. Later sources give way to earlier ones."""
    known: dict[tuple[str, ...], Predicate] = {}
    for phrase, predicate in itertools.chain(_of_grammar(), _of_people()):
        found = tuple(words(phrase))
        if found:
            known.setdefault(found, predicate)
            bare = tuple(word for word in found if word not in ARTICLES)
            if bare and (isinstance(predicate, Has) and not predicate.label.startswith(("vehicles:", "large:"))):
                known.setdefault(bare, predicate)
    return known


def _of_grammar() -> Iterator[tuple[str, Predicate]]:
    for g in GRAMMARS.values():
        tables = (
            ("place", g.places), ("light", g.lights), ("weather", g.weathers), ("sign", g.signs),
            ("intent", g.intents), ("sound", g.sounds), ("large", g.kinds),
        )  # fmt: skip
        for kind, wording in tables:
            for name, phrase in wording.items():
                yield phrase.removeprefix("y "), Has(f"{kind}:{name}")
        for name, phrase in g.signs.items():
            yield f"{phrase} sign is close", Has(f"sign:{name}")
            for form in _SIGN_FORMS:
                yield form.format(phrase), Has(f"sign:{name}")
            yield g.sign.format(sign=phrase), Has(f"sign:{name}")
        for name, phrase in g.actions.items():
            if phrase.endswith(" {where}"):
                yield phrase.removesuffix(" {where}"), Has(f"action:{name}")
        yield g.none, Has("vehicles:none")
        yield g.one, Has("vehicles:one")
        yield g.several, Has("vehicles:several")
        yield g.emergency, Has("emergency:yes")


def _of_people() -> Iterator[tuple[str, Predicate]]:
    for label, listed in _LABELS.items():
        for phrase in listed.split(", "):
            yield phrase, Has(label)
            if label.startswith("sign:"):
                for form in _SIGN_FORMS:
                    yield form.format(phrase), Has(label)
    for label, forms in _PEOPLE.items():
        for people, does, rest in forms:
            for said in itertools.product(people.split(", "), does.split(", "), rest.split(", ")):
                yield " ".join(said), Has(label)
    for limit in (30, 50, 80, 120):
        for phrase in _SPEEDS.format(limit).split(", "):
            yield phrase, Has(f"sign:speed_{limit}")
    for labels, listed in _ANY.items():
        for phrase in listed.split(", "):
            yield phrase, Or(tuple(Has(label) for label in labels))
    for phrase in _SILENT.split(", "):
        yield phrase, And(())
