"""What the analyst is given besides embeddings, and what it says, column by column; nothing here needs PyTorch."""

from __future__ import annotations

from itertools import accumulate

from export.model.labels import FACT_SIZES, FACT_SOUNDS, FACTS, SOUND_EVENTS

STEP_S = 0.25
BOXES = (16, 7)  # of a moment: the camera's best objects, as its engine says them
WINDOW = 28  # moments that are looked at together: 7 s, the length of a training world
# What is said besides the facts: sounds and tags that no fact tells.
SOUNDS_BESIDES = tuple(name for name in SOUND_EVENTS if name not in FACT_SOUNDS)
TAGS_BESIDES = ("pedestrian", "vehicle_close", "sign", "turning")
YES_OR_NO = (*FACT_SOUNDS, *SOUNDS_BESIDES, *TAGS_BESIDES)
OUTPUTS = sum(FACT_SIZES) + len(YES_OR_NO)
# Every column as KIND=VALUE.
COLUMNS = (
    *(f"{fact}={value}" for fact, values in FACTS.items() for value in values),
    *(f"sound={name}" for name in (*FACT_SOUNDS, *SOUNDS_BESIDES)),
    *(f"tag={name}" for name in TAGS_BESIDES),
)
# What has a temperature of its own: every fact, every yes or no.
GROUPS = (*FACTS, *(column.replace("=", " ") for column in COLUMNS[-len(YES_OR_NO) :]))


def fact_slices() -> list[slice]:
    """Where each fact's values are among the columns."""
    return [slice(end - size, end) for end, size in zip(accumulate(FACT_SIZES), FACT_SIZES)]
