"""What training minimises: object and surface maps, labels, facts, and agreement between modalities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from export.model.camera import at_cells, split_maps
from export.model.labels import FACT_SIZES, FACT_SOUNDS
from export.training.batches import Batch

SURFACE_WEIGHTS = (0.5, 1.0, 1.0, 2.5, 1.5)  # lane markings are thin
SURFACE, KIND = 0.8, 0.3  # weights of the surface, and of signs and intents, beside the boxes


def camera_loss(maps: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Objects, signs, intents and surface.

    Ref: Zhou et al., Objects as Points (arXiv 1904.07850), eq. 1: focal loss on centres, L1 on offset and log size.
    """
    parts = split_maps(maps)
    logits = parts.objects.contiguous()
    p, log_p = torch.sigmoid(logits), F.logsigmoid(logits)
    centre = (batch.heat > 0.999).float()
    hit = centre * (1.0 - p) ** 2 * log_p
    miss = (1.0 - centre) * (1.0 - batch.heat) ** 4 * p**2 * (log_p - logits) * batch.care
    count = centre.sum().clamp(min=1.0)
    there = (batch.cell >= 0).float()
    at = batch.cell.clamp(min=0)
    size = F.smooth_l1_loss(at_cells(parts.box, at), batch.size, reduction="none", beta=0.1) * there[..., None]
    return {
        "objects": -(hit + miss).sum() / count + size.sum() / count,
        "signs": KIND * _kind_loss(at_cells(parts.signs, at), batch.boxes[..., 6], there),
        "intents": KIND * _kind_loss(at_cells(parts.intents, at), batch.boxes[..., 7], there),
        "vehicles": KIND * _kind_loss(at_cells(parts.vehicles, at), batch.boxes[..., 8], there),
        "surface": SURFACE * _surface_loss(parts.surface, batch.surface),
    }  # fmt: skip


def _surface_loss(logits: Tensor, surface: Tensor) -> Tensor:
    """Weighted cross-entropy. The softmax is written out: over five channels PyTorch's own takes ten times as long."""
    logits = logits.contiguous()
    log_p = logits - logits.amax(1, keepdim=True).detach()
    log_p = log_p - log_p.exp().sum(1, keepdim=True).log()
    return F.nll_loss(log_p, surface, weight=torch.tensor(SURFACE_WEIGHTS, device=logits.device))


def _kind_loss(logits: Tensor, kind: Tensor, there: Tensor) -> Tensor:
    """Mean cross-entropy over the objects that have a kind."""
    counts = there * (kind >= 0)
    loss = F.cross_entropy(
        logits.flatten(0, 1), kind.clamp(min=0).long().flatten(), reduction="none", label_smoothing=0.02
    )
    return (loss * counts.flatten()).sum() / counts.sum().clamp(min=1.0)


def onset_loss(onsets: Tensor, seconds: Tensor) -> Tensor:
    """L1 on the seconds since each onset, of the events that are heard."""
    heard = (seconds >= 0).float()
    return ((torch.sigmoid(onsets) - seconds).abs() * heard).sum() / heard.sum().clamp(min=1.0)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, each label smoothed by 1 %."""
    return F.binary_cross_entropy_with_logits(logits, labels * 0.98 + 0.01)


def facts_loss(logits: Tensor, facts: Tensor) -> Tensor:
    """Mean over the facts of their cross-entropies. logits: (batch, FACT_VALUES); facts: (batch, 13)."""
    parts = torch.split(logits, [*FACT_SIZES, len(FACT_SOUNDS)], 1)
    losses = [F.cross_entropy(part, facts[:, i], label_smoothing=0.01) for i, part in enumerate(parts[:-1])]
    sounds = F.binary_cross_entropy_with_logits(parts[-1], facts[:, len(FACT_SIZES) :].float())
    return (torch.stack(losses).sum() + len(FACT_SOUNDS) * sounds) / facts.shape[1]


def pair_loss(first: Tensor, second: Tensor, scale: Tensor, bias: Tensor, same: Tensor, counts: Tensor) -> Tensor:
    """Sigmoid loss between two sets of embeddings. Ref: Zhai et al., arXiv 2303.15343.

    Args:
        same: (batch, batch) bool, pairs that belong together, equal facts among them.
        counts: (batch, batch) bool, pairs that say something; near-copies from one world do not.
    """
    logits = first @ second.t() * scale.exp() + bias
    signs = same.float() * 2.0 - 1.0
    share = same.float().sum(1, keepdim=True).clamp(min=1.0)
    weight = torch.where(same, 1.0 / share, 1.0) * counts
    return -(F.logsigmoid(logits * signs) * weight).sum() / len(first)


def nce_loss(first: Tensor, second: Tensor, scale: Tensor, moment: Tensor) -> Tensor:
    """InfoNCE both ways, with every equal moment as right an answer as the own one. Ref: arXiv 2004.11362, eq. 2."""
    logits = first @ second.t() * scale.exp().clamp(max=100.0)
    same = (moment[:, None] == moment[None, :]).float()
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target))
