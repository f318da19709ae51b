"""What the convolutional encoders are made of."""

from __future__ import annotations

from torch import nn

EMBEDDING = 192  # size of the shared space


def conv(inputs: int, outputs: int, stride: int | tuple[int, int] = 1, kernel: int = 3, pad: int = -1) -> nn.Sequential:
    """Convolution, batch norm (folded when lowered), ReLU: what int8 wins on."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if pad < 0 else pad, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
