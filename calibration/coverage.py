"""Which frames to calibrate on: few that cover what many are like, so that the rare (night, rain, a dead sensor) is in.

Greedy k-centre (Gonzalez 1985): next comes the frame farthest from all chosen so far; within twice the best possible
radius. Deterministic: ties go to the earliest frame. Features have fixed scales, so two vehicles measure alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.decision import Decision
from edge.errors import ConfigError

F32 = NDArray[np.float32]
_LIGHT = 4.0  # a quarter of the scale of brightness counts as much as a tag that comes or goes
_FULL_SCALE = {"uint8": 255.0, "int8": 127.0, "int16": 32767.0}


def describe(decision: Decision, inputs: Mapping[str, NDArray[Any]], heads: Mapping[str, Sequence[str]]) -> F32:
    """What a frame is like: which streams it has, what the bundle says of scene and sound, how bright or loud it is.

    Args:
        decision: of the frame.
        inputs: the tensors that are to be calibrated with.
        heads: the bundle's labels by head.

    Returns:
        (features,), as many for each frame; one unit is a sensor that is there or not, a tag that is certain or not.
    """
    present = [float(state.present) for state in decision.modalities]
    tags: list[float] = []
    for head, said in (("scene_tags", decision.scene_tags), ("sound_events", decision.sound_events)):
        # A head says nothing where its encoder had no input, or fusion failed.
        tags += [float(tag.probability) for tag in said] or [0.0] * len(heads.get(head, ()))
    levels = []
    for values in inputs.values():
        full = _FULL_SCALE.get(values.dtype.name, 1.0)
        levels += [_LIGHT * float(values.mean()) / full, _LIGHT * float(values.std()) / full]
    return np.array([*present, *tags, *levels], np.float32)


def choose(features: F32, count: int) -> list[int]:
    """Indices of `count` frames (or all, if fewer) that cover the rest, ascending.

    Args:
        features: (frames, features).

    Raises:
        ConfigError: there is no frame, or none is wanted.
    """
    if count < 1 or len(features) == 0:
        raise ConfigError(
            f"frames: expected at least one to choose and one to choose from, got {count}, {len(features)}"
        )
    chosen = [0]
    distance = _distances(features, 0)
    while len(chosen) < min(count, len(features)):
        farthest = int(distance.argmax())  # the first of equals
        if distance[farthest] == 0.0:  # all that is left is there already: spread over what is equal
            rest = sorted(set(range(len(features))) - set(chosen))
            spread = np.linspace(0, len(rest) - 1, min(count, len(features)) - len(chosen)).astype(int)
            chosen += [rest[i] for i in spread]
            break
        chosen.append(farthest)
        distance = np.minimum(distance, _distances(features, farthest))
    return sorted(chosen)


def radius(features: F32, chosen: list[int]) -> float:
    """How far the worst covered frame lies from its nearest chosen one."""
    nearest = np.min([_distances(features, i) for i in chosen], axis=0)
    return float(np.sqrt(nearest.max()))


def _distances(features: F32, index: int) -> NDArray[np.float64]:
    """Squared distances of all frames to one."""
    apart: NDArray[np.float64] = np.square(features.astype(np.float64) - features[index]).sum(1)
    return apart
