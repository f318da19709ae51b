"""What training minimises: object maps, labels, and agreement between modalities of the same instant."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.encoders import GRID
from export.labels import OBJECTS


def object_targets(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Object maps that a perfect network would give.

    Args:
        boxes: (batch, boxes, 6): class (-1 none), left, top, width, height (fractions), 1 to learn or 0 to ignore.

    Returns:
        heat (batch, classes, 24, 40) in 0..1, 1 at centres; care (batch, classes, 24, 40), 0 where an ignored object
        is; size targets (batch, boxes, 4) as CameraEncoder gives them; cell (batch, boxes), -1 where nothing is.
    """
    rows, columns = GRID
    kind, learn = boxes[..., 0], boxes[..., 5]
    width, height = boxes[..., 3].clamp(min=1e-3), boxes[..., 4].clamp(min=1e-3)
    x = (boxes[..., 1] + 0.5 * width) * columns  # centre in cells
    y = (boxes[..., 2] + 0.5 * height) * rows
    column, row = x.floor().clamp(0, columns - 1), y.floor().clamp(0, rows - 1)
    spread_x, spread_y = (0.13 * width * columns).clamp(min=0.45), (0.13 * height * rows).clamp(min=0.45)
    dx = (torch.arange(columns, device=boxes.device) - column[..., None]) / spread_x[..., None]
    dy = (torch.arange(rows, device=boxes.device) - row[..., None]) / spread_y[..., None]
    bump = torch.exp(-0.5 * dy * dy)[..., :, None] * torch.exp(-0.5 * dx * dx)[..., None, :]
    heat = torch.zeros(len(boxes), len(OBJECTS), rows, columns, device=boxes.device)
    care = torch.ones_like(heat)
    for index in range(len(OBJECTS)):
        here = kind == index
        heat[:, index] = (bump * (here & (learn > 0))[..., None, None]).amax(1)
        ignored = (bump * (here & (learn <= 0))[..., None, None]).amax(1) > 0.3
        care[:, index] = 1.0 - (ignored & (heat[:, index] < 0.3)).float()
    target = torch.stack([x - column - 0.5, y - row - 0.5, width.log(), height.log()], -1)
    cell = torch.where((kind >= 0) & (learn > 0), row * columns + column, torch.full_like(row, -1.0)).long()
    return heat, care, target, cell


def object_loss(maps: Tensor, boxes: Tensor) -> Tensor:
    """Penalty-reduced focal loss on centres plus L1 on offset and log size.

    Ref: Zhou et al., Objects as Points (arXiv 1904.07850), eq. 1.
    """
    heat, care, target, cell = object_targets(boxes)
    logits = maps[:, : len(OBJECTS)]
    p = torch.sigmoid(logits)
    centre = (heat > 0.999).float()
    hit = centre * (1.0 - p) ** 2 * F.logsigmoid(logits)
    miss = (1.0 - centre) * (1.0 - heat) ** 4 * p**2 * F.logsigmoid(-logits) * care
    count = centre.sum().clamp(min=1.0)
    focal = -(hit + miss).sum() / count
    sizes = maps[:, len(OBJECTS) :].flatten(2).transpose(1, 2)  # (batch, cells, 4)
    given = torch.gather(sizes, 1, cell.clamp(min=0)[..., None].expand(-1, -1, 4))
    there = (cell >= 0).float()[..., None]
    size = (F.smooth_l1_loss(given, target, reduction="none", beta=0.1) * there).sum() / count
    return focal + size


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, each label smoothed by 1 %."""
    return F.binary_cross_entropy_with_logits(logits, labels * 0.98 + 0.01)


class Agreement(nn.Module):
    """Pairwise sigmoid loss between two modalities' embeddings of the same instants.

    Moments of one world are near-copies of each other, so they are no negatives. Ref: arXiv 2303.15343.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.log(8.0)))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def forward(self, first: Tensor, second: Tensor, world: Tensor) -> Tensor:
        """first, second: (batch, 128) unit length, row by row of one instant; world: (batch,) world index."""
        logits = first @ second.t() * self.scale.exp() + self.bias
        same = torch.eye(len(first), device=first.device)
        counts = ((world[:, None] != world[None, :]) | (same > 0)).float()
        terms = -F.logsigmoid(logits * (2.0 * same - 1.0)) * counts
        return terms.sum() / len(first)
