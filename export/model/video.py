"""The video encoder: the camera's embeddings of the last two seconds, in order, into one of the shared space."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.contract import CLIP_STEPS
from export.model.layers import EMBEDDING
from export.model.text import Block


class ClipEncoder(nn.Module):
    """Attention over moments; the newest asks."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(CLIP_STEPS, EMBEDDING) * 0.1)
        self.block = Block(EMBEDDING, 4)
        self.norm = nn.LayerNorm(EMBEDDING)
        self.embed = nn.Sequential(nn.Linear(2 * EMBEDDING, 256), nn.ReLU(), nn.Linear(256, EMBEDDING))

    def forward(self, moments: Tensor) -> Tensor:
        """moments: (batch, 8, 192), oldest first, zeros where there is none. Returns (batch, 192) unit length."""
        there = (moments.abs().amax(2) > 0).to(moments.dtype)
        x = self.norm(self.block(moments * 8.0 + self.place, there))
        mean = (x * there[:, :, None]).sum(1) / torch.clamp(there.sum(1, keepdim=True), min=1.0)
        return F.normalize(self.embed(torch.cat([x[:, -1], mean], 1)) + moments[:, -1] * 4.0, dim=1)
