"""The LiDAR encoder: a sweep as a range image into the shared space."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.layers import EMBEDDING, conv


class LidarEncoder(nn.Module):
    """Range image to embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(2, 24, (1, 2)), conv(24, 48, 2), conv(48, 64, 2), conv(64, 96, (1, 2)), conv(96, 96),
            conv(96, 20, kernel=1),
        )  # -> (20, 4 rows, 16 directions)  # fmt: skip
        self.embed = nn.Linear(20 * 4 * 16, EMBEDDING)
        self.drop = nn.Dropout(0.1)

    def features(self, image: Tensor) -> Tensor:
        """image: (batch, 2, 16, 256) nearness, and height in 3 m, -1..1. Returns (batch, 1280)."""
        return torch.flatten(self.body(image), 1)

    def forward(self, image: Tensor) -> Tensor:
        """Returns (batch, 192) unit length."""
        return F.normalize(self.embed(self.drop(self.features(image))), dim=1)
