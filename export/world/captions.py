"""One English sentence that says what a moment is."""

from __future__ import annotations

from collections import Counter
from typing import Any

LIGHTS = {"day": "by day", "dusk": "at dusk", "night": "at night"}
WEATHERS = {"clear": "", "rain": " in the rain", "fog": " in fog", "snow": " in the snow"}
PLACES = {"highway": "on a highway", "urban": "on a city street", "residential": "on a residential street",
          "tunnel": "in a tunnel"}  # fmt: skip
ACTIONS = {"cruise": "cruising", "accelerate": "accelerating", "brake": "braking", "stop": "standing still",
           "turn_left": "turning left", "turn_right": "turning right"}  # fmt: skip
VEHICLES = {"car": "car", "van": "van", "truck": "truck", "bus": "bus", "emergency": "emergency vehicle"}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
SOUNDS = {"siren": "a siren wails", "horn": "a horn sounds", "footsteps": "footsteps can be heard",
          "speech": "someone is talking", "rain": "rain drums on the roof"}  # fmt: skip


def caption(truth: Any) -> str:
    """The sentence for a filled GroundTruth message."""
    head = f"{ACTIONS[truth.ego_action].capitalize()} {PLACES[truth.place]} {LIGHTS[truth.light]}"
    head += "" if truth.place == "tunnel" else WEATHERS[truth.weather]
    clauses = [c for c in (_vehicles(truth), _people(truth)) if c]
    heard = [SOUNDS[s.name] for s in truth.sounds if s.name in SOUNDS]
    text = head + (" with " + " and ".join(clauses) if clauses else " on an empty road")
    if heard:
        text += "; " + " and ".join(heard)
    return text + "."


def _vehicles(truth: Any) -> str:
    counts = Counter(
        o.variant
        for o in truth.objects
        if o.kind == "vehicle" and o.visibility > 0.3 and o.width_px * o.height_px > 150
    )
    parts = [_count(counts[v], VEHICLES[v]) for v in ("emergency", "truck", "bus", "van", "car") if counts[v]]
    return ", ".join(parts)


def _people(truth: Any) -> str:
    people = Counter(
        o.intent for o in truth.objects if o.kind == "pedestrian" and o.visibility > 0.3 and o.height_px > 14
    )
    parts = []
    if people["crosses"]:
        parts.append(_count(people["crosses"], "pedestrian") + " crossing")
    if people["will_cross"]:
        parts.append(_count(people["will_cross"], "pedestrian") + " about to cross")
    beside = people["waits"] + people["walks"]
    if beside:
        parts.append(_count(beside, "pedestrian") + " beside the road")
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    if number == 1:
        return ("an " if noun[0] in "aeiou" else "a ") + noun
    return f"{NUMBERS[number] if number < len(NUMBERS) else 'many'} {noun}s"
