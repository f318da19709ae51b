"""Worlds as the analyst learns from them: what the engines say of each moment, and what is true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.model.analyst_outputs import BOXES, TAGS_BESIDES
from export.model.labels import FACT_SOUNDS, SCENE_TAGS, SOUND_EVENTS
from export.training.dataset import Split


@dataclass(frozen=True, slots=True)
class Clips:
    """Worlds of equal length, as the analyst sees them and as they are.

    found: (frames, 4, 192). boxes: (frames, *BOXES). facts: (frames, 13). besides: (frames, 5) 0 or 1, the rest of
    YES_OR_NO. moment: (frames,), equal where all facts are.
    """

    found: Tensor
    boxes: Tensor
    facts: Tensor
    besides: Tensor
    moment: Tensor
    per_world: int

    @staticmethod
    def of(split: Split, found: NDArray[np.float32], boxes: NDArray[np.float32]) -> Clips:
        """A split's, with what the engines say of it: embeddings and objects."""
        rain = split.sounds[:, [i for i, name in enumerate(SOUND_EVENTS) if name not in FACT_SOUNDS]]
        tags = split.tags[:, [SCENE_TAGS.index(name) for name in TAGS_BESIDES]]
        besides = torch.from_numpy(np.concatenate([rain, tags], 1).astype(np.float32))
        facts = torch.from_numpy(split.facts.astype(np.int64))
        moment: Tensor = torch.unique(facts, dim=0, return_inverse=True)[1]
        seen = torch.from_numpy(np.ascontiguousarray(boxes[:, : BOXES[0]]))
        return Clips(torch.from_numpy(found), seen, facts, besides, moment, split.per_world)

    @property
    def worlds(self) -> int:
        return len(self.facts) // self.per_world
