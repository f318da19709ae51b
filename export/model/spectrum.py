"""Log-mel inside the graph: a windowed DFT basis as one convolution, so that the vehicle needs no FFT.

16 kHz, window 512 samples (32 ms, Hann), hop 320 (20 ms), 64 mel bands from 60 Hz to 8 kHz, 50 steps a second.
Ref: HTK mel scale, 2595 log10(1 + f/700).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

RATE_HZ = 16000
WINDOW = 512
HOP = 320
BANDS = 64
STEPS = 50
LEAD = (STEPS - 1) * HOP + WINDOW - RATE_HZ  # zeros before the second, so that it gives whole steps
LOWEST_HZ = 60.0
FLOOR = 1e-7  # power, about -70 dB full scale


class LogMel(nn.Module):
    """pcm to log-mel, scaled to about -1..1."""

    basis: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.from_numpy(dft_basis()), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_bands()), persistent=False)

    def forward(self, pcm: Tensor) -> Tensor:
        """pcm: (batch, 16000) float, -1..1. Returns (batch, 1, 64, 50)."""
        padded = F.pad(pcm.unsqueeze(1), (LEAD, 0))
        waves = F.conv1d(padded, self.basis, stride=HOP)
        bins = WINDOW // 2 + 1
        power = waves[:, :bins] ** 2 + waves[:, bins:] ** 2
        mel = torch.matmul(self.mel, power)
        return ((torch.log(mel + FLOOR) + 8.0) / 8.0).unsqueeze(1)


def dft_basis() -> NDArray[np.float32]:
    """(514, 1, 512): cosine rows, then sine rows, Hann-windowed, of unit gain; rounded to float16 as it is stored."""
    n = np.arange(WINDOW)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)
    phase = 2 * np.pi * np.outer(np.arange(WINDOW // 2 + 1), n) / WINDOW
    waves = np.concatenate([np.cos(phase), np.sin(phase)]) * (hann * 2.0 / hann.sum())
    scaled = np.round(waves * 2.0**20).astype(np.float64) / 2.0**20
    return np.asarray(scaled.astype(np.float16).astype(np.float32)[:, None, :], np.float32)


def mel_bands() -> NDArray[np.float32]:
    """(64, 257): triangles at least one bin wide, each summing to 1."""
    hz = np.arange(WINDOW // 2 + 1) * (RATE_HZ / WINDOW)
    top = 2595.0 * np.log10(1.0 + (RATE_HZ / 2) / 700.0)
    low = 2595.0 * np.log10(1.0 + LOWEST_HZ / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(low, top, BANDS + 2) / 2595.0) - 1.0)
    width = RATE_HZ / WINDOW
    rows = []
    for left, middle, right in zip(edges, edges[1:], edges[2:]):
        rise = 1.0 - (middle - hz) / max(middle - left, width)
        fall = 1.0 - (hz - middle) / max(right - middle, width)
        row = np.clip(np.minimum(rise, fall), 0.0, None)
        rows.append(row / row.sum())
    return np.asarray(rows, np.float32)
