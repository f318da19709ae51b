"""Six ways of making one vector of what the modalities say; each takes a presence mask and none needs a modality.

Every strategy gets the tokens of all modalities, zero where absent, and the token of the state. `Early` gets the
encoders' features instead, before they are brought into the shared space.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from export.model.labels import MODALITIES
from export.model.text import Block

COUNT = len(MODALITIES)
FEATURES = (2240, 384, 128, 1280)  # of camera, audio, motion, lidar, before their embeddings
MEMORY = 64  # slots
HOPS = 2


class Intermediate(nn.Module):
    """Cross-modal attention: modalities and the past ask each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = Block(width, 4)

    def forward(self, tokens: Tensor, recalled: Tensor, presence: Tensor) -> Tensor:
        """tokens: (batch, 4, width); recalled: (batch, width); presence: (batch, 4). Returns (batch, width)."""
        there = torch.cat([presence, torch.ones_like(presence[:, :1])], 1)
        mixed = self.block(torch.cat([tokens, recalled[:, None]], 1), there)
        own: Tensor = mixed[:, COUNT]
        return own + mean_of(mixed[:, :COUNT], presence)


class Early(nn.Module):
    """One perceptron over all features at once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(sum(FEATURES) + COUNT, 384), nn.ReLU(), nn.Dropout(0.1))
        self.out = nn.Linear(384, width)

    def forward(self, features: Tensor, recalled: Tensor, presence: Tensor) -> Tensor:
        """features: (batch, 4032), of all modalities side by side."""
        parts = torch.split(features, list(FEATURES), 1)
        given = torch.cat([part * presence[:, i : i + 1] for i, part in enumerate(parts)] + [presence], 1)
        out: Tensor = self.out(self.body(given))
        return out + recalled


class Late(nn.Module):
    """Each modality comes to its own conclusion; these are averaged (heads are linear, so logits are, too)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.ModuleList([perceptron(width, width) for _ in MODALITIES])

    def forward(self, tokens: Tensor, recalled: Tensor, presence: Tensor) -> Tensor:
        own = torch.stack([layer(tokens[:, i]) for i, layer in enumerate(self.own)], 1)
        return mean_of(own, presence) + recalled


class Weighted(nn.Module):
    """z = sum of a_i q_i, with weights a that the tokens ask for. Ref: Ilse et al., arXiv 1802.04712, eq. 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.ModuleList([perceptron(width, width) for _ in MODALITIES])
        self.worth = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, tokens: Tensor, recalled: Tensor, presence: Tensor) -> Tensor:
        worth = self.worth(tokens)[:, :, 0] + (presence - 1.0) * 1e4
        values = torch.stack([layer(tokens[:, i]) for i, layer in enumerate(self.value)], 1)
        weighted = (values * (torch.softmax(worth, 1) * presence)[:, :, None]).sum(1)
        return weighted + recalled


class Memory(nn.Module):
    """The mean of the tokens reads a learned memory, twice. Ref: Sukhbaatar et al., arXiv 1503.08895."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(MEMORY, width) * width**-0.5)
        self.values = nn.Parameter(torch.randn(MEMORY, width) * 0.1)
        self.own = nn.ModuleList([perceptron(width, width) for _ in MODALITIES])
        self.turn = nn.Linear(width, width)

    def forward(self, tokens: Tensor, recalled: Tensor, presence: Tensor) -> Tensor:
        own = torch.stack([layer(tokens[:, i]) for i, layer in enumerate(self.own)], 1)
        asked: Tensor = mean_of(own, presence) + recalled
        for _ in range(HOPS):
            read = torch.matmul(torch.softmax(torch.matmul(asked, self.keys.t()), 1), self.values)
            asked = asked + torch.relu(self.turn(asked + read)) + read
        return asked


class Hierarchical(nn.Module):
    """Outside (camera, LiDAR) and own (audio, motion) first, then both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.outside, self.own = perceptron(2 * width + 2, width), perceptron(2 * width + 2, width)
        self.both = perceptron(2 * width, width)

    def forward(self, tokens: Tensor, recalled: Tensor, presence: Tensor) -> Tensor:
        groups: list[Tensor] = [
            layer(torch.cat([tokens[:, a], tokens[:, b], presence[:, a : a + 1], presence[:, b : b + 1]], 1))
            for layer, a, b in ((self.outside, 0, 3), (self.own, 1, 2))
        ]
        both: Tensor = self.both(torch.cat(groups, 1)) + groups[0] + groups[1]
        return both + recalled


STRATEGIES: dict[str, Callable[[int], nn.Module]] = {
    "early": Early, "intermediate": Intermediate, "late": Late, "weighted": Weighted, "memory": Memory,
    "hierarchical": Hierarchical,
}  # fmt: skip


def perceptron(inputs: int, width: int) -> nn.Sequential:
    """Two layers."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width))


def mean_of(tokens: Tensor, presence: Tensor) -> Tensor:
    """(batch, width): mean of the tokens that are present, 0 without any."""
    share = presence / torch.clamp(presence.sum(1, keepdim=True), min=1.0)
    return (tokens * share[:, :, None]).sum(1)
