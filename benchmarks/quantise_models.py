"""Three networks of known shapes for the int8 benchmark, with seeded weights and honest activations.

Weights are random (He); batch norms have uneven gains and shifts, and their statistics come from the pictures, so that
channels are unlike and every layer's activations have a normal spread, as after training. Nothing is trained: SQNR is
about arithmetic, not accuracy. Pictures are seeded 1/f noise, which has the spectrum of natural images.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

SIZE_PX = 160


def pictures(count: int, seed: int, size_px: int = SIZE_PX) -> NDArray[np.float32]:
    """(count, 3, size, size), mean 0, deviation 1, correlated between colours."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None])
    fall = 1.0 / np.maximum(frequency, 1.0 / size_px)
    noise = rng.normal(size=(count, 4, size_px, size_px))
    noise = np.fft.irfft2(np.fft.rfft2(noise) * fall, s=(size_px, size_px))
    noise = noise[:, 3:] + 0.5 * noise[:, :3]
    noise -= noise.mean((2, 3), keepdims=True)
    return (noise / noise.std((1, 2, 3), keepdims=True)).astype(np.float32)


def networks() -> dict[str, nn.Module]:
    """By name; each takes (1, 3, 160, 160)."""
    made = {"ResNet18-like": ResNet18, "MobileNetV3-like": MobileNetV3, "transformer": Transformer}
    settled = {}
    for name, kind in made.items():
        torch.manual_seed(1)
        settled[name] = _settled(kind())
    return settled


def _settled(net: nn.Module) -> nn.Module:
    """Uneven batch norms, whose statistics are those of the pictures."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.momentum = None  # a plain average
    net.train()
    with torch.no_grad():
        for batch in np.array_split(pictures(16, seed=100), 4):
            net(torch.from_numpy(batch))
    return net.eval()


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: type | None = None
) -> nn.Module:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    nn.init.kaiming_normal_(layers[0].weight)
    return nn.Sequential(*layers, *([act()] if act else []))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(inputs, outputs, 3, stride, act=nn.ReLU), _conv(outputs, outputs, 3))
        self.skip = nn.Identity() if stride == 1 and inputs == outputs else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class ResNet18(nn.Module):
    """The published layout (He et al. 2015), 11.7 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1)]
            inputs = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, kernel: int, wide: int, outputs: int, excite: bool, act: type, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(inputs, wide, 1, act=act)] if wide != inputs else []
        layers += [_conv(wide, wide, kernel, stride, groups=wide, act=act)]
        layers += [SqueezeExcite(wide)] if excite else []
        self.body = nn.Sequential(*layers, _conv(wide, outputs, 1))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


class MobileNetV3(nn.Module):
    """The published small layout (Howard et al. 2019)."""

    ROWS = (
        (3, 16, 16, True, nn.ReLU, 2), (3, 72, 24, False, nn.ReLU, 2), (3, 88, 24, False, nn.ReLU, 1),
        (5, 96, 40, True, nn.Hardswish, 2), (5, 240, 40, True, nn.Hardswish, 1), (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1), (5, 144, 48, True, nn.Hardswish, 1), (5, 288, 96, True, nn.Hardswish, 2),
        (5, 576, 96, True, nn.Hardswish, 1), (5, 576, 96, True, nn.Hardswish, 1),
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 16, 3, 2, act=nn.Hardswish)]
        inputs = 16
        for kernel, wide, outputs, excite, act, stride in self.ROWS:
            layers.append(InvertedResidual(inputs, kernel, wide, outputs, excite, act, stride))
            inputs = outputs
        self.body = nn.Sequential(*layers, _conv(96, 576, 1, act=nn.Hardswish))
        self.head = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_a, self.norm_b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm_a(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.softmax(q @ k.transpose(2, 3) * (width // self.heads) ** -0.5, 3) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.relu(self.up(self.norm_b(x))))


class Transformer(nn.Module):
    """A small vision transformer: patches of 16, width 192, 4 blocks, ReLU."""

    def __init__(self, width: int = 192, blocks: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.place = nn.Parameter(torch.randn(1, (SIZE_PX // 16) ** 2, width) * 0.5)
        self.blocks = nn.Sequential(*[Block(width, 3) for _ in range(blocks)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.blocks(tokens)).mean(1))
