"""Names of what is known of a moment, as filters, captions and pages use them: `fact:value`.

    place:tunnel  light:night  weather:rain  action:brake  vehicles:several  large:truck  emergency:yes  sign:stop
    intent:waits  sound:siren  tag:vehicle_close

The facts are those of the world's captions (export/world/facts.py). What a vehicle tells of a scene are its bundle's
tags; `of_tag` and `of_sound` give them these names. A tag that no fact says, or that another bundle knows, is
`tag:NAME`.
"""

from __future__ import annotations

from typing import Final

from export.model.labels import FACTS, SOUND_EVENTS

# The facts of a caption as labels; a value that says nothing ("", none, False) is no label.
_FACT: Final = {"kind": "large"}
LABELS: Final = (
    *(
        f"{_FACT.get(fact, fact)}:{'yes' if fact == 'emergency' else value}"
        for fact, values in FACTS.items()
        for value in values
        if value not in ("", "False")
    ),
    *(f"sound:{name}" for name in SOUND_EVENTS),
)
_TAGS: Final = {
    "night": "light:night",
    "dusk": "light:dusk",
    "rain": "weather:rain",
    "fog": "weather:fog",
    "snow": "weather:snow",
    "tunnel": "place:tunnel",
    "urban": "place:urban",
    "residential": "place:residential",
    "highway": "place:highway",
    "emergency_vehicle": "emergency:yes",
    "pedestrian_crossing": "intent:crosses",
    "stopped": "action:stop",
    "braking": "action:brake",
}


def of_tag(name: str) -> str:
    """The label of a bundle's scene tag."""
    return _TAGS.get(name, f"tag:{name}")


def of_sound(name: str) -> str:
    """The label of a bundle's sound event."""
    return f"sound:{name}"
