"""Four grammars for one set of facts: English, German, Spanish and French sentences on a moment.

Every value of every fact has wording of its own, so that sentences are equal if and only if the facts are.
"""

from __future__ import annotations

from dataclasses import dataclass

from export.world.facts import Facts

SIGNS = (
    "stop", "yield", "priority", "no_entry", "no_parking", "speed_30", "speed_50", "speed_80", "speed_120", "crossing",
    "curve", "roadworks", "keep_right", "guide",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grammar:
    """Wording of one language.

    actions hold {where} where the place belongs. opening joins {when} and the {action}; in a tunnel, where neither
    light nor weather can be told, the place stands in front. hearing: for one sound in the singular, for anything else.
    """

    places: dict[str, str]
    lights: dict[str, str]
    weathers: dict[str, str]
    actions: dict[str, str]
    opening: str
    none: str
    one: str
    several: str
    one_large: str
    several_large: str
    kinds: dict[str, str]
    emergency: str
    sign: str
    signs: dict[str, str]
    intents: dict[str, str]
    hearing: tuple[str, str]
    sounds: dict[str, str]
    conjunction: str
    plural_sounds: tuple[str, ...] = ()


def sentence(language: str, facts: Facts) -> str:
    """The caption of these facts in one of GRAMMARS."""
    g = GRAMMARS[language]
    parts = [_opening(g, facts), _vehicles(g, facts)]
    if facts.emergency:
        parts.append(g.emergency)
    if facts.sign:
        parts.append(g.sign.format(sign=g.signs[facts.sign]))
    if facts.intent:
        parts.append(g.intents[facts.intent])
    if facts.sounds:
        parts.append(_sounds(g, facts.sounds))
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def captions(facts: Facts) -> dict[str, str]:
    """The sentence in every language."""
    return {language: sentence(language, facts) for language in GRAMMARS}


def _opening(g: Grammar, facts: Facts) -> str:
    place = g.places[facts.place]
    when = f"{g.lights[facts.light]} {g.weathers[facts.weather]}" if facts.light else place
    action = g.actions[facts.action].format(where=place if facts.light else "")
    return " ".join(g.opening.format(when=when, action=action).split())


def _vehicles(g: Grammar, facts: Facts) -> str:
    if facts.vehicles == "none":
        return g.none
    if not facts.kind:
        return g.one if facts.vehicles == "one" else g.several
    large = g.one_large if facts.vehicles == "one" else g.several_large
    return large.format(kind=g.kinds[facts.kind])


def _sounds(g: Grammar, names: tuple[str, ...]) -> str:
    words = [g.sounds[name] for name in names]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {g.conjunction} {words[-1]}"
    several = len(names) > 1 or names[0] in g.plural_sounds
    return g.hearing[several].format(listed=listed)


def _speeds(wording: str) -> dict[str, str]:
    return {f"speed_{limit}": wording.format(limit=limit) for limit in (30, 50, 80, 120)}


GRAMMARS = {
    "en": Grammar(
        places={"highway": "on a highway", "urban": "on a city street", "residential": "on a residential street",
                "tunnel": "in a tunnel"},
        lights={"day": "by day", "dusk": "at dusk", "night": "at night"},
        weathers={"clear": "in clear weather", "rain": "in the rain", "fog": "in fog", "snow": "in falling snow"},
        actions={"cruise": "the car drives steadily {where}", "accelerate": "the car accelerates {where}",
                 "brake": "the car brakes {where}", "stop": "the car stands still {where}",
                 "turn_left": "the car turns left {where}", "turn_right": "the car turns right {where}"},
        opening="{when}, {action}",
        none="there is no vehicle ahead",
        one="there is one vehicle ahead",
        several="there are several vehicles ahead",
        one_large="there is {kind} ahead",
        several_large="there are several vehicles ahead, the nearest of them {kind}",
        kinds={"car": "a car", "van": "a van", "truck": "a truck", "bus": "a bus"},
        emergency="an emergency vehicle with flashing lights is in sight",
        sign="{sign} sign is close",
        signs={"stop": "a stop", "yield": "a give-way", "priority": "a priority-road", "no_entry": "a no-entry",
               "no_parking": "a no-parking", **_speeds("a {limit} speed-limit"), "crossing": "a pedestrian-crossing",
               "curve": "a bend-ahead", "roadworks": "a roadworks", "keep_right": "a keep-right",
               "guide": "a direction"},
        intents={"crosses": "a pedestrian is crossing the road",
                 "will_cross": "a pedestrian is about to cross the road",
                 "waits": "a pedestrian is waiting beside the road"},
        hearing=("{listed} can be heard", "{listed} can be heard"),
        sounds={"siren": "a siren", "horn": "a horn", "footsteps": "footsteps", "speech": "voices"},
        conjunction="and",
    ),
    "de": Grammar(
        places={"highway": "auf einer Autobahn", "urban": "auf einer Stadtstraße", "residential": "in einer Wohnstraße",
                "tunnel": "in einem Tunnel"},
        lights={"day": "am Tag", "dusk": "in der Dämmerung", "night": "in der Nacht"},
        weathers={"clear": "bei klarem Wetter", "rain": "bei Regen", "fog": "bei Nebel", "snow": "bei Schneefall"},
        actions={"cruise": "fährt das Auto {where} gleichmäßig", "accelerate": "beschleunigt das Auto {where}",
                 "brake": "bremst das Auto {where}", "stop": "steht das Auto {where}",
                 "turn_left": "lenkt das Auto {where} nach links", "turn_right": "lenkt das Auto {where} nach rechts"},
        opening="{when} {action}",
        none="voraus ist kein Fahrzeug",
        one="voraus ist ein Fahrzeug",
        several="voraus sind mehrere Fahrzeuge",
        one_large="voraus ist {kind}",
        several_large="voraus sind mehrere Fahrzeuge, das nächste davon ist {kind}",
        kinds={"car": "ein Auto", "van": "ein Lieferwagen", "truck": "ein Lastwagen", "bus": "ein Bus"},
        emergency="ein Einsatzfahrzeug mit Blinklicht ist in Sicht",
        sign="ein Schild zeigt {sign}",
        signs={"stop": "Halt", "yield": "Vorfahrt gewähren", "priority": "eine Vorfahrtstraße",
               "no_entry": "Einfahrt verboten", "no_parking": "Parkverbot", **_speeds("Tempo {limit}"),
               "crossing": "einen Fußgängerüberweg", "curve": "eine Kurve", "roadworks": "eine Baustelle",
               "keep_right": "rechts vorbeifahren", "guide": "Richtungsangaben"},
        intents={"crosses": "ein Fußgänger überquert die Straße",
                 "will_cross": "ein Fußgänger will gerade die Straße überqueren",
                 "waits": "ein Fußgänger wartet am Straßenrand"},
        hearing=("zu hören ist {listed}", "zu hören sind {listed}"),
        sounds={"siren": "eine Sirene", "horn": "eine Hupe", "footsteps": "Schritte", "speech": "Stimmen"},
        conjunction="und",
        plural_sounds=("footsteps", "speech"),
    ),
    "es": Grammar(
        places={"highway": "en una autopista", "urban": "en una calle urbana",
                "residential": "en una calle residencial", "tunnel": "en un túnel"},
        lights={"day": "de día", "dusk": "al anochecer", "night": "de noche"},
        weathers={"clear": "y con tiempo despejado", "rain": "y con lluvia", "fog": "y con niebla",
                  "snow": "y con nieve"},
        actions={"cruise": "el coche circula a velocidad constante {where}",
                 "accelerate": "el coche acelera {where}", "brake": "el coche frena {where}",
                 "stop": "el coche está parado {where}", "turn_left": "el coche gira a la izquierda {where}",
                 "turn_right": "el coche gira a la derecha {where}"},
        opening="{when}, {action}",
        none="delante no hay ningún vehículo",
        one="delante hay un vehículo",
        several="delante hay varios vehículos",
        one_large="delante hay {kind}",
        several_large="delante hay varios vehículos y el más cercano es {kind}",
        kinds={"car": "un coche", "van": "una furgoneta", "truck": "un camión", "bus": "un autobús"},
        emergency="se ve un vehículo de emergencia con luces intermitentes",
        sign="una señal indica {sign}",
        signs={"stop": "stop", "yield": "ceda el paso", "priority": "calzada con prioridad",
               "no_entry": "entrada prohibida", "no_parking": "prohibido aparcar", **_speeds("un límite de {limit}"),
               "crossing": "un paso de peatones", "curve": "una curva", "roadworks": "obras",
               "keep_right": "paso obligatorio por la derecha", "guide": "direcciones"},
        intents={"crosses": "un peatón está cruzando la calzada", "will_cross": "un peatón está a punto de cruzar",
                 "waits": "un peatón espera junto a la calzada"},
        hearing=("se oye {listed}", "se oyen {listed}"),
        sounds={"siren": "una sirena", "horn": "un claxon", "footsteps": "pasos", "speech": "voces"},
        conjunction="y",
        plural_sounds=("footsteps", "speech"),
    ),
    "fr": Grammar(
        places={"highway": "sur une autoroute", "urban": "dans une rue du centre-ville",
                "residential": "dans une rue résidentielle", "tunnel": "dans un tunnel"},
        lights={"day": "de jour", "dusk": "au crépuscule", "night": "de nuit"},
        weathers={"clear": "par temps clair", "rain": "sous la pluie", "fog": "dans le brouillard",
                  "snow": "sous la neige"},
        actions={"cruise": "la voiture roule à vitesse constante {where}", "accelerate": "la voiture accélère {where}",
                 "brake": "la voiture freine {where}", "stop": "la voiture est à l'arrêt {where}",
                 "turn_left": "la voiture tourne à gauche {where}",
                 "turn_right": "la voiture tourne à droite {where}"},
        opening="{when}, {action}",
        none="il n'y a aucun véhicule devant",
        one="il y a un véhicule devant",
        several="il y a plusieurs véhicules devant",
        one_large="il y a {kind} devant",
        several_large="il y a plusieurs véhicules devant, et le plus proche est {kind}",
        kinds={"car": "une voiture", "van": "une camionnette", "truck": "un camion", "bus": "un bus"},
        emergency="un véhicule de secours aux feux clignotants est en vue",
        sign="un panneau indique {sign}",
        signs={"stop": "stop", "yield": "cédez le passage", "priority": "une route prioritaire",
               "no_entry": "sens interdit", "no_parking": "stationnement interdit",
               **_speeds("une limite de {limit}"), "crossing": "un passage piéton", "curve": "un virage",
               "roadworks": "des travaux", "keep_right": "un contournement obligatoire par la droite",
               "guide": "des directions"},
        intents={"crosses": "un piéton traverse la chaussée",
                 "will_cross": "un piéton est sur le point de traverser la chaussée",
                 "waits": "un piéton attend au bord de la chaussée"},
        hearing=("on entend {listed}", "on entend {listed}"),
        sounds={"siren": "une sirène", "horn": "un klaxon", "footsteps": "des pas", "speech": "des voix"},
        conjunction="et",
    ),
}  # fmt: skip
