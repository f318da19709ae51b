"""The text tower: a caption in any of its languages into the shared space; and the tower of facts that it learns from.

What a caption says is a handful of facts. The facts' own embedding is the anchor of the shared space: scenes learn to
lie near the facts that hold, sentences near the facts that they tell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.labels import FACT_SIZES, FACT_SOUNDS, FACT_VALUES
from export.model.layers import EMBEDDING
from export.model.tokens import PIECES, TOKENS

WIDTH = 128
LAYERS = 2
HEADS = 4


class FactsTower(nn.Module):
    """A moment's facts into the shared space."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FACT_VALUES, 256), nn.ReLU(), nn.Linear(256, EMBEDDING))
        self.direct = nn.Linear(FACT_VALUES, EMBEDDING, bias=False)

    def forward(self, facts: Tensor) -> Tensor:
        """facts: (batch, 13) indices as labels.fact_indices gives them. Returns (batch, 192) unit length."""
        one_hot = one_hot_facts(facts)
        return F.normalize(self.body(one_hot) + self.direct(one_hot), dim=1)


class TextTower(nn.Module):
    """A small pre-norm transformer over byte-pair pieces, averaged over the sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Embedding(PIECES, WIDTH)
        self.place = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.02)
        self.blocks = nn.ModuleList([Block(WIDTH, HEADS) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.embed = nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, EMBEDDING))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, 96) int64, 0 = nothing there. Returns (batch, 192) unit length."""
        there = (tokens > 0).to(self.place.dtype)
        x = self.pieces(tokens) + self.place[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, there)
        mean = (self.norm(x) * there[:, :, None]).sum(1) / torch.clamp(there.sum(1, keepdim=True), min=1.0)
        return F.normalize(self.embed(mean), dim=1)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each normalised before and added after."""

    def __init__(self, width: int, heads: int, grow: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, grow * width), nn.ReLU(), nn.Linear(grow * width, width))

    def forward(self, x: Tensor, there: Tensor, causal: bool = False) -> Tensor:
        """x: (batch, count, width); there: (batch, count), 1 where a token counts."""
        batch, count, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in torch.unbind(qkv, 2))
        mask = (there[:, None, None, :] - 1.0) * 1e4
        if causal:
            mask = mask + torch.full((count, count), -1e4).triu(1)
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) * (width // self.heads) ** -0.5 + mask, 3)
        x = x + self.out(torch.matmul(weights, v).transpose(1, 2).reshape(batch, count, width))
        grown: Tensor = x + self.mlp(self.norm_mlp(x))
        return grown


def one_hot_facts(facts: Tensor) -> Tensor:
    """(batch, FACT_VALUES) float: every fact's value and every sound as a place of its own."""
    parts = [F.one_hot(facts[:, i], size).float() for i, size in enumerate(FACT_SIZES)]
    return torch.cat([*parts, facts[:, len(FACT_SIZES) : len(FACT_SIZES) + len(FACT_SOUNDS)].float()], 1)
