"""The three encoders, one a modality, each into the same 128-d space; sized for int8 on one CPU thread.

Plain 3x3 convolutions with fused ReLU are what int8 wins on; what it loses on (normalising, log, sigmoid) stays float.
Shapes carry a batch in training; the engines are lowered with batch 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.labels import OBJECTS
from export.spectrum import LogMel

EMBEDDING = 128
GRID = (24, 40)  # cells of the object head, rows x columns
TOP_OBJECTS = 16


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm (folded when lowered), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class CameraEncoder(nn.Module):
    """Picture to embedding and object maps."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2), conv(32, 64, 2), conv(64, 64))
        self.middle = nn.Sequential(conv(64, 96, 2), conv(96, 96))
        self.far = nn.Sequential(conv(96, 128, 2), conv(128, 128))
        self.squeeze = conv(128, 24, kernel=1)
        self.embed = nn.Linear(24 * 6 * 10, EMBEDDING)
        self.lateral = conv(64, 64, kernel=1)
        self.coarse = conv(96, 64, kernel=1)
        self.farthest = conv(128, 64, kernel=1)
        self.blend = conv(64, 64)
        self.maps = nn.Conv2d(64, len(OBJECTS) + 4, 1)
        self.drop = nn.Dropout(0.1)
        with torch.no_grad():
            assert self.maps.bias is not None
            self.maps.bias[: len(OBJECTS)] = -4.0  # objects are rare: start from a low prior

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            picture: (batch, 3, 192, 320) float, 0..1, BGR.

        Returns:
            (batch, 128) unit length, and object maps (batch, 7, 24, 40): class logits, then centre offset (cells) and
            log size (log of the picture's fraction).
        """
        near = self.near(picture)
        middle = self.middle(near)
        far = self.far(middle)
        flat = torch.flatten(self.squeeze(far), 1)
        wide = F.interpolate(self.farthest(far), scale_factor=2.0, mode="nearest")
        wide = F.interpolate(self.coarse(middle) + wide, scale_factor=2.0, mode="nearest")
        maps = self.maps(self.blend(self.lateral(near) + wide))
        return F.normalize(self.embed(self.drop(flat)), dim=1), maps


class AudioEncoder(nn.Module):
    """One second of sound to embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = LogMel()
        self.body = nn.Sequential(
            conv(1, 24, 2), conv(24, 48, 2), conv(48, 64), conv(64, 96, 2), conv(96, 96)
        )  # -> (96, 8 bands, 7 steps)
        self.squeeze = conv(96, 48, kernel=1)
        self.embed = nn.Linear(2 * 48 * 8, EMBEDDING)
        self.drop = nn.Dropout(0.1)

    def forward(self, pcm: Tensor) -> Tensor:
        """pcm: (batch, 16000) float, -1..1, 16 kHz. Returns (batch, 128) unit length."""
        return self.encode(self.spectrum(pcm))

    def encode(self, mel: Tensor) -> Tensor:
        """mel: (batch, 1, 64, 50) normalised log-mel. Returns (batch, 128) unit length."""
        body = self.squeeze(self.body(mel))
        pooled = torch.cat([body.mean(3), body.amax(3)], 1)  # over time: what sounds on, and what sounds once
        return F.normalize(self.embed(self.drop(torch.flatten(pooled, 1))), dim=1)


class MotionEncoder(nn.Module):
    """One second of IMU, vehicle state and GNSS speed to embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(12, 32, 5, 1, 2), nn.ReLU(),
            nn.Conv1d(32, 48, 5, 2, 2), nn.ReLU(),
            nn.Conv1d(48, 48, 5, 2, 2), nn.ReLU(),
        )  # fmt: skip
        self.embed = nn.Sequential(nn.Linear(48 * 13, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, EMBEDDING))

    def forward(self, motion: Tensor) -> Tensor:
        """motion: (batch, 12, 50) float, scaled as the bundle's contract says. Returns (batch, 128) unit length."""
        return F.normalize(self.embed(torch.flatten(self.body(motion), 1)), dim=1)


def decode_objects(maps: Tensor) -> Tensor:
    """Object maps to the best boxes: 3x3 peaks, then the top 16. Traceable, so that it runs inside the engine.

    Args:
        maps: (batch, 7, 24, 40) as CameraEncoder gives them.

    Returns:
        (batch, 16, 6): class index, probability, left, top, width, height (fractions of the picture).
    """
    rows, columns = GRID
    classes = len(OBJECTS)
    logits = maps[:, :classes]
    peaks = torch.where(logits == F.max_pool2d(logits, 3, 1, 1), logits, torch.full_like(logits, -20.0))
    best, where = torch.topk(peaks.reshape(-1, classes * rows * columns), TOP_OBJECTS, dim=1)
    kind = torch.div(where, rows * columns, rounding_mode="floor")
    cell = where - kind * (rows * columns)
    row = torch.div(cell, columns, rounding_mode="floor")
    column = cell - row * columns
    flat = maps[:, classes:].reshape(-1, 4, rows * columns)
    dx, dy, log_w, log_h = (torch.gather(flat[:, i], 1, cell) for i in range(4))
    width, height = torch.exp(torch.clamp(log_w, -6.0, 0.0)), torch.exp(torch.clamp(log_h, -6.0, 0.0))
    left = (column.to(dx.dtype) + 0.5 + dx) / columns - 0.5 * width
    top = (row.to(dy.dtype) + 0.5 + dy) / rows - 0.5 * height
    return torch.stack([kind.to(dx.dtype), torch.sigmoid(best), left, top, width, height], 2)
