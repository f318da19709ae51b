"""How sure the analyst may be: temperatures for its outputs, and how they rise with what is missing.

A network that was taught with smoothed labels is not sure enough where everything is there, and too sure where the
camera is not: one temperature can't serve both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from export.model.analyst import Panel
from export.model.analyst_outputs import GROUPS, YES_OR_NO, fact_slices
from export.model.labels import FACTS, MODALITIES
from export.model.layers import EMBEDDING
from export.training.analyst_clips import Clips


@torch.no_grad()
def looked_at(panel: Panel, clips: Clips, present: Sequence[bool] = (True,) * len(MODALITIES)) -> tuple[Tensor, Tensor]:
    """(frames, OUTPUTS) mean logits and (frames, 192) unit length: every world from end to end."""
    whole = clips.found.reshape(-1, clips.per_world, len(MODALITIES), EMBEDDING)
    presence = torch.tensor(present).float().expand(whole.shape[:3])
    boxes = clips.boxes.reshape(*whole.shape[:2], *clips.boxes.shape[1:])
    seen = [member(whole, presence, boxes) for member in panel.eval().members]
    logits = torch.stack([one.logits for one in seen]).mean(0).flatten(0, 1)
    return logits, F.normalize(torch.stack([one.embedding for one in seen]).mean(0).flatten(0, 1), dim=1)


def fitted_temperatures(panel: Panel, clips: Clips) -> Tensor:
    """(GROUPS,): the temperatures with the least cross-entropy. Ref: Guo et al., arXiv 1706.04599."""
    logits, _ = looked_at(panel, clips)
    rising = torch.zeros(len(GROUPS), requires_grad=True)
    _descend(rising, lambda: _entropy(logits, rising.exp(), clips))
    return rising.detach().nan_to_num().exp().clamp(0.25, 4.0)  # within reason, however few the worlds


def fitted_absence(panel: Panel, clips: Clips) -> Tensor:
    """(GROUPS, 4): how temperatures rise with what is missing, over every subset of the modalities alike."""
    subsets = list(itertools.product((False, True), repeat=len(MODALITIES)))
    seen = [looked_at(panel, clips, present)[0] for present in subsets]
    absent = 1.0 - torch.tensor(subsets).float()
    slopes = torch.zeros(len(GROUPS), len(MODALITIES), requires_grad=True)

    def entropy() -> Tensor:
        warm = panel.temperatures * torch.exp(absent @ slopes.t())
        terms = [_entropy(logits, each, clips) for logits, each in zip(seen, warm)]
        return torch.stack(terms).mean() + 1e-3 * (slopes * slopes).sum()

    _descend(slopes, entropy)
    return slopes.detach().nan_to_num().clamp(-1.0, 2.0)


def _entropy(logits: Tensor, warm: Tensor, clips: Clips) -> Tensor:
    """Cross-entropy of all groups at these temperatures."""
    yes = torch.cat([clips.facts[:, len(FACTS) :].float(), clips.besides], 1)
    facts = [F.cross_entropy(logits[:, part] / warm[i], clips.facts[:, i]) for i, part in enumerate(fact_slices())]
    rest = F.binary_cross_entropy_with_logits(logits[:, -len(YES_OR_NO) :] / warm[len(FACTS) :], yes)
    return torch.stack(facts).sum() + len(YES_OR_NO) * rest


def _descend(given: Tensor, loss: Callable[[], Tensor]) -> None:
    optimiser = torch.optim.LBFGS([given], max_iter=100, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(step)  # type: ignore[no-untyped-call]
