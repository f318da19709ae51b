"""TwinLiteNet's published weights as an ONNX graph: drivable area and lane lines on a grid over the picture.

`python -m export.twinlitenet WEIGHTS.pth --out twinlitenet.onnx`, then `roadfuse import-model twinlitenet.onnx --as
twinlitenet`. The architecture is written anew, with the names that the weights have: an ESPNet encoder (convolutions of
many dilations side by side, summed step by step), attention over places and over channels, and two decoders of
transposed convolutions. The graph ends in probabilities on a grid of 8x8 pixels: of drivable area the mean, of thin
lines the most.

Ref: Che et al., TwinLiteNet: an efficient and lightweight model for drivable area and lane segmentation in self-driving
cars, 2023 (https://arxiv.org/abs/2307.10705).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import ConfigError
from export.lower import lower

HEIGHT_PX, WIDTH_PX = 360, 640
GRID_PX = 8
_EPSILON = 1e-3  # of batch norm


class Conv(nn.Module):
    """Convolution, batch norm, PReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.act = nn.PReLU(outputs)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(features)))
        return out


class Up(nn.Module):
    """Twice the size: transposed convolution, batch norm, PReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.act = nn.PReLU(outputs)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.deconv(features)))
        return out


class Only(nn.Module):
    """A convolution alone, under the name that the weights have."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        pad = kernel // 2 * dilation
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.conv(features)
        return out


class Pyramid(nn.Module):
    """One reduction, then convolutions of dilation 1 to 16 side by side; wider ones add to the sum of the narrower."""

    def __init__(self, inputs: int, outputs: int, *, halved: bool) -> None:
        super().__init__()
        width = outputs // 5
        self.c1 = Only(inputs, width, 3, 2) if halved else Only(inputs, width, 1)
        self.d1 = Only(width, outputs - 4 * width)
        self.d2, self.d4, self.d8, self.d16 = (Only(width, width, dilation=reach) for reach in (2, 4, 8, 16))

    def merged(self, features: Tensor) -> Tensor:
        """(batch, outputs, ...), before normalisation."""
        reduced = self.c1(features)
        sums = [self.d2(reduced)]
        for wider in (self.d4, self.d8, self.d16):
            sums.append(sums[-1] + wider(reduced))
        return torch.cat([self.d1(reduced), *sums], 1)


class Halving(Pyramid):
    """A pyramid at half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, halved=True)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.act = nn.PReLU(outputs)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.merged(features)))
        return out


class Residual(Pyramid):
    """A pyramid beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, halved=False)
        self.bn = nn.Sequential()
        self.bn.add_module("bn", nn.BatchNorm2d(width, eps=_EPSILON))
        self.bn.add_module("act", nn.PReLU(width))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.bn(features + self.merged(features))
        return out


class PlaceAttention(nn.Module):
    """Each place gathers from the places like it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_conv, self.key_conv = nn.Conv2d(width, width // 8, 1), nn.Conv2d(width, width // 8, 1)
        self.value_conv = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        query, key, value = (conv(features).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv))
        share = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        out: Tensor = self.gamma * (value @ share.transpose(1, 2)).reshape(features.shape) + features
        return out


class ChannelAttention(nn.Module):
    """Each channel gathers from the channels unlike it."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        flat = features.flatten(2)
        alike = flat @ flat.transpose(1, 2)
        share = torch.softmax(alike.amax(-1, keepdim=True) - alike, dim=-1)
        out: Tensor = self.gamma * (share @ flat).reshape(features.shape) + features
        return out


class Encoder(nn.Module):
    """(batch, 3, height, width) to (batch, 32, height / 8, width / 8)."""

    def __init__(self, second: int, third: int) -> None:
        super().__init__()
        self.level1, self.b1 = Conv(3, 16, stride=2), Conv(19, 19)
        self.level2_0, self.level2 = Halving(19, 64), nn.Sequential(*[Residual(64) for _ in range(second)])
        self.b2 = Conv(131, 131)
        self.level3_0, self.level3 = Halving(131, 128), nn.Sequential(*[Residual(128) for _ in range(third)])
        self.b3 = Conv(256, 32)
        self.sa, self.sc = PlaceAttention(32), ChannelAttention()
        self.conv_sa, self.conv_sc = Conv(32, 32), Conv(32, 32)
        self.classifier = Conv(32, 32, 1)

    def forward(self, picture: Tensor) -> Tensor:
        half = F.avg_pool2d(picture, 3, 2, 1)
        near = self.b1(torch.cat([self.level1(picture), half], 1))
        first = self.level2_0(near)
        middle = self.b2(torch.cat([self.level2(first), first, F.avg_pool2d(half, 3, 2, 1)], 1))
        last = self.level3_0(middle)
        far = self.b3(torch.cat([last, self.level3(last)], 1))
        out: Tensor = self.classifier(self.conv_sa(self.sa(far)) + self.conv_sc(self.sc(far)))
        return out


class TwinLiteNet(nn.Module):
    """Logits of (background, drivable area) and of (background, lane line), (batch, 2, height, width) each."""

    def __init__(self, second: int = 2, third: int = 3) -> None:
        super().__init__()
        self.encoder = Encoder(second, third)
        self.up_1_1, self.up_2_1, self.classifier_1 = Up(32, 16), Up(16, 8), Up(8, 2)
        self.up_1_2, self.up_2_2, self.classifier_2 = Up(32, 16), Up(16, 8), Up(8, 2)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """picture: (batch, 3, height, width) RGB, 0..1; sides are multiples of 8."""
        features = self.encoder(picture)
        drivable = self.classifier_1(self.up_2_1(self.up_1_1(features)))
        lines = self.classifier_2(self.up_2_2(self.up_1_2(features)))
        return drivable, lines


class Grid(nn.Module):
    """Probabilities of drivable area and of lane lines, (batch, 1, height / 8, width / 8) each."""

    def __init__(self, net: TwinLiteNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        drivable, lines = (torch.softmax(logits, 1)[:, 1:] for logits in self.net(picture))
        return F.avg_pool2d(drivable, GRID_PX), F.max_pool2d(lines, GRID_PX)


def load(path: Path) -> TwinLiteNet:
    """The network with published weights.

    Raises:
        ConfigError: the file does not hold exactly its weights.
    """
    net = TwinLiteNet()
    if not path.is_file():
        raise ConfigError(f"{path}: expected TwinLiteNet's weights, got {'a folder' if path.exists() else 'nothing'}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    except Exception as error:  # of zipfile, pickle and torch, which share no base class but this
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: expected TwinLiteNet's weights, got: {said}") from None
    return net.eval()


def main(argv: list[str] | None = None) -> int:
    """Write the ONNX graph of a weights file."""
    parser = argparse.ArgumentParser(prog="python -m export.twinlitenet", description="TwinLiteNet's weights to ONNX.")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS.pth")
    parser.add_argument("--out", type=Path, required=True, metavar="MODEL.onnx")
    args = parser.parse_args(argv)
    try:
        net = load(args.weights)
    except ConfigError as error:
        print(f"twinlitenet: {error}", file=sys.stderr)
        return 2
    picture = torch.zeros(1, 3, HEIGHT_PX, WIDTH_PX)
    model = lower(Grid(net), (picture,), ["picture"], ["drivable", "lanes"])
    args.out.write_bytes(model.SerializeToString(deterministic=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
