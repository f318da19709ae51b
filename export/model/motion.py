"""The motion encoder: a second of IMU, vehicle state and GNSS speed into the shared space. Small, so it stays float."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.layers import EMBEDDING


class MotionEncoder(nn.Module):
    """One second of motion to embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(12, 32, 5, 1, 2), nn.ReLU(),
            nn.Conv1d(32, 48, 5, 2, 2), nn.ReLU(),
            nn.Conv1d(48, 32, 5, 2, 2), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Sequential(nn.Linear(32 * 13, 128), nn.ReLU(), nn.Dropout(0.1))
        self.embed = nn.Linear(128, EMBEDDING)

    def features(self, motion: Tensor) -> Tensor:
        """motion: (batch, 12, 50) float, scaled as the bundle's contract says. Returns (batch, 128)."""
        hidden: Tensor = self.hidden(torch.flatten(self.body(motion), 1))
        return hidden

    def forward(self, motion: Tensor) -> Tensor:
        """Returns (batch, 192) unit length."""
        return F.normalize(self.embed(self.features(motion)), dim=1)
