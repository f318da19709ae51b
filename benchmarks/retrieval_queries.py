"""What people ask for, in four languages, and which moments would be right.

The phrases are written for this benchmark and not read off the parser's words, so that what it does not know shows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LANGUAGES: Final = ("en", "de", "es", "fr")
LEAST: Final = 10  # relevant moments (or scenes) that a query must have, since ten are looked at
PHRASES: Final[dict[str, tuple[str, str, str, str]]] = {
    "place:highway": ("on a highway", "auf der Autobahn", "en la autopista", "sur l'autoroute"),
    "place:urban": ("city street", "Stadtstraße", "calle urbana", "rue du centre-ville"),
    "place:residential": ("residential street", "Wohnstraße", "calle residencial", "rue résidentielle"),
    "place:tunnel": ("in a tunnel", "im Tunnel", "en un túnel", "dans un tunnel"),
    "light:day": ("by day", "am Tag", "de día", "de jour"),
    "light:dusk": ("at dusk", "in der Dämmerung", "al anochecer", "au crépuscule"),
    "light:night": ("at night", "nachts", "de noche", "la nuit"),
    "weather:clear": ("clear weather", "klares Wetter", "tiempo despejado", "temps clair"),
    "weather:rain": ("rain", "Regen", "lluvia", "pluie"),
    "weather:fog": ("fog", "Nebel", "niebla", "brouillard"),
    "weather:snow": ("snow", "Schnee", "nieve", "neige"),
    "action:cruise": ("driving steadily", "gleichmäßige Fahrt", "velocidad constante", "vitesse constante"),
    "action:accelerate": ("accelerating", "beschleunigt", "acelera", "accélère"),
    "action:brake": ("braking", "bremst", "frena", "freine"),
    "action:stop": ("standing still", "steht", "parado", "à l'arrêt"),
    "action:turn_left": ("turning left", "biegt links ab", "gira a la izquierda", "tourne à gauche"),
    "action:turn_right": ("turning right", "biegt rechts ab", "gira a la derecha", "tourne à droite"),
    "vehicles:none": ("no vehicle ahead", "kein Fahrzeug voraus", "ningún vehículo delante", "aucun véhicule devant"),
    "vehicles:one": ("one vehicle ahead", "ein Fahrzeug voraus", "un vehículo delante", "un véhicule devant"),
    "vehicles:several": ("several vehicles", "mehrere Fahrzeuge", "varios vehículos", "plusieurs véhicules"),
    "large:car": ("a car close ahead", "ein Auto dicht voraus", "un coche cerca delante", "une voiture juste devant"),
    "large:van": ("a van", "ein Lieferwagen", "una furgoneta", "une camionnette"),
    "large:truck": ("a truck", "ein Lastwagen", "un camión", "un camion"),
    "large:bus": ("a bus", "ein Bus", "un autobús", "un autobus"),
    "emergency:yes": ("emergency vehicle", "Einsatzfahrzeug", "vehículo de emergencia", "véhicule de secours"),
    "sign:stop": ("stop sign", "Stoppschild", "señal de stop", "panneau stop"),
    "sign:yield": ("give-way sign", "Vorfahrt gewähren", "ceda el paso", "cédez le passage"),
    "sign:priority": ("priority-road sign", "Vorfahrtstraße", "calzada con prioridad", "route prioritaire"),
    "sign:no_entry": ("no-entry sign", "Einfahrt verboten", "entrada prohibida", "sens interdit"),
    "sign:no_parking": ("no-parking sign", "Parkverbot", "prohibido aparcar", "stationnement interdit"),
    "sign:speed_30": ("speed limit 30", "Tempo 30", "límite de 30", "limite de 30"),
    "sign:speed_50": ("speed limit 50", "Tempo 50", "límite de 50", "limite de 50"),
    "sign:speed_80": ("speed limit 80", "Tempo 80", "límite de 80", "limite de 80"),
    "sign:speed_120": ("speed limit 120", "Tempo 120", "límite de 120", "limite de 120"),
    "sign:crossing": ("pedestrian-crossing sign", "Fußgängerüberweg", "paso de peatones", "passage piéton"),
    "sign:curve": ("bend-ahead sign", "Kurvenschild", "señal de curva", "panneau virage"),
    "sign:roadworks": ("roadworks", "Baustelle", "obras", "travaux"),
    "sign:keep_right": ("keep-right sign", "rechts vorbeifahren", "paso obligatorio por la derecha",
                        "contournement obligatoire par la droite"),
    "sign:guide": ("direction sign", "Wegweiser", "señal de direcciones", "panneau de direction"),
    "intent:waits": ("pedestrian waiting", "Fußgänger wartet", "peatón espera", "piéton attend"),
    "intent:will_cross": ("pedestrian about to cross", "Fußgänger will die Straße überqueren",
                          "peatón a punto de cruzar", "piéton sur le point de traverser"),
    "intent:crosses": ("pedestrian crossing the road", "Fußgänger überquert die Straße",
                       "peatón cruzando la calzada", "piéton traverse la chaussée"),
    "sound:siren": ("siren", "Sirene", "sirena", "sirène"),
    "sound:horn": ("horn", "Hupe", "claxon", "klaxon"),
    "sound:footsteps": ("footsteps", "Schritte", "pasos", "bruits de pas"),
    "sound:rain": ("sound of rain", "Regengeräusch", "sonido de lluvia", "bruit de pluie"),
    "sound:speech": ("voices", "Stimmen", "voces", "voix"),
}  # fmt: skip
NO: Final = ("no", "ohne", "sin", "sans")
THEN: Final = ("{} then {} within 3 s", "{} dann {} innerhalb von 3 s", "{} luego {} en 3 s", "{} puis {} en 3 s")
# What can be denied without saying something else in the same breath.
DENIED: Final = (
    "weather:rain", "weather:fog", "weather:snow", "sound:siren", "sound:horn", "sound:footsteps", "sound:speech",
    "emergency:yes", "large:truck", "large:bus", "large:van",
)  # fmt: skip
# What begins within a scene, and can so come after something else.
BEGINS: Final = tuple(
    name for name in PHRASES if name.partition(":")[0] in ("action", "intent", "sound", "sign", "emergency", "large")
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query: all of `wanted`, none of `denied`, then, within 3 s, all of `then`.

    texts: by language, in the order of LANGUAGES.
    """

    kind: str
    wanted: tuple[str, ...]
    denied: tuple[str, ...] = ()
    then: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The query as typed, in the order of LANGUAGES."""
        return tuple(self._text(i) for i in range(len(LANGUAGES)))

    def _text(self, language: int) -> str:
        said = ", ".join(PHRASES[name][language] for name in self.wanted)
        for name in self.denied:
            said += f", {NO[language]} {_bare(PHRASES[name][language])}"
        if self.then:
            said = THEN[language].format(said, ", ".join(PHRASES[name][language] for name in self.then))
        return said


def attributes(truth: dict[str, NDArray[np.bool_]], least: int = LEAST) -> list[Asked]:
    """Every label that enough moments have."""
    return [Asked("attribute", (name,)) for name in PHRASES if truth[name].sum() >= least]


def composed(truth: dict[str, NDArray[np.bool_]], parts: int, count: int, seed: int) -> list[Asked]:
    """Conjunctions of labels of different kinds, drawn among those that enough moments fulfil."""
    drawn = _drawn(truth, parts, count, seed, lambda names: _all(truth, names).sum() >= LEAST)
    return [Asked(f"{parts} together", names) for names in drawn]


def negated(truth: dict[str, NDArray[np.bool_]], count: int, seed: int) -> list[Asked]:
    """Labels without another one that often comes with them: taking it for granted would be wrong."""

    def tells(names: tuple[str, ...]) -> bool:
        wanted, denied = _all(truth, names[:1]), truth[names[1]]
        both = int((wanted & denied).sum())
        return names[1] in DENIED and both >= 0.05 * wanted.sum() and int(wanted.sum()) - both >= LEAST

    return [Asked("negated", names[:1], names[1:]) for names in _drawn(truth, 2, count, seed, tells)]


def followed(follows: dict[tuple[str, str], int], count: int, seed: int) -> list[Asked]:
    """Pairs where the second comes within 3 s of the first in enough scenes.

    Args:
        follows: in how many scenes.
    """
    known = [pair for pair in itertools.permutations(BEGINS, 2) if follows.get(pair, 0) >= LEAST]
    chosen = np.random.default_rng(seed).permutation(len(known))[:count]
    return [Asked("then within 3 s", known[i][:1], then=known[i][1:]) for i in sorted(chosen)]


def _drawn(truth: dict[str, NDArray[np.bool_]], parts: int, count: int, seed: int, fits) -> list[tuple[str, ...]]:  # type: ignore[no-untyped-def]
    rng, names = np.random.default_rng(seed), list(PHRASES)
    found: dict[tuple[str, ...], None] = {}
    for _ in range(200 * count):
        some = tuple(names[i] for i in rng.choice(len(names), parts, replace=False))
        if len({name.partition(":")[0] for name in some}) == parts and fits(some):
            found.setdefault(some)
        if len(found) == count:
            break
    return list(found)


def _all(truth: dict[str, NDArray[np.bool_]], names: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.logical_and.reduce([truth[name] for name in names])


def _bare(phrase: str) -> str:
    """Without its article: "no truck", not "no a truck"."""
    first, _, rest = phrase.partition(" ")
    return rest if first in ("a", "ein", "un", "una", "une") else phrase
