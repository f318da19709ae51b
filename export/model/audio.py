"""The audio encoder: a second of sound into the shared space, and when each event began."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.labels import SOUND_EVENTS
from export.model.layers import EMBEDDING, conv
from export.model.spectrum import LogMel


class AudioEncoder(nn.Module):
    """One second of sound to embedding and onsets."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = LogMel()
        self.body = nn.Sequential(
            conv(1, 32, 2), conv(32, 64, (2, 1)), conv(64, 96, (2, 1)), conv(96, 128, 2), conv(128, 128),
            conv(128, 48, kernel=1),
        )  # -> (48, 4 bands, 13 steps of 80 ms)  # fmt: skip
        self.embed = nn.Linear(2 * 48 * 4, EMBEDDING)
        self.onset = nn.Linear(48 * 13, len(SOUND_EVENTS))
        self.drop = nn.Dropout(0.1)

    def features(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """mel: (batch, 1, 64, 50) normalised log-mel. Returns what embedding (b, 384) and onset (b, 624) rest on."""
        body = self.body(mel)
        pooled = torch.cat([body.mean(3), body.amax(3)], 1)  # over time: what sounds on, and what sounds once
        return torch.flatten(pooled, 1), torch.flatten(body.mean(2), 1)

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (batch, 192) unit length, and logits of the share of the second that went by since each onset."""
        pooled, steps = self.features(mel)
        return F.normalize(self.embed(self.drop(pooled)), dim=1), self.onset(self.drop(steps))

    def forward(self, pcm: Tensor) -> tuple[Tensor, Tensor]:
        """pcm: (batch, 16000) float, -1..1, 16 kHz. Returns embedding and seconds 0..1 since each event's onset."""
        embedding, onset = self.encode(self.spectrum(pcm))
        return embedding, torch.sigmoid(onset)
