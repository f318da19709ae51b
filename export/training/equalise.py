"""Channels of one tensor made alike in reach, so that one int8 scale serves all of them.

An activation has one scale; where one channel reaches 20 and another 2, the small one is told in a tenth of the steps.
A ReLU passes a positive factor through, so a factor can be taken from what makes a channel and given to what takes it:
the network says the same in float and loses half of its noise in int8.
Ref: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (arXiv 1906.04721), with the
reach of activations measured, and weighing more: they have seven bits, weights eight and a scale for each output.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from export.model.camera import CameraEncoder
from export.model.network import Network
from export.training.batches import Batch

SHARE = 0.6  # of the activation's reach in a factor; the rest is of the weights, so that a second pass changes nothing
LEAST = 1e-3  # of the largest share: a channel that hardly ever says anything is left as it is


@dataclass(frozen=True, slots=True)
class Shared:
    """Channels that must be scaled together: who makes them (convolution, batch norm, ReLU), and who takes them."""

    makers: tuple[nn.Sequential, ...]
    takers: tuple[nn.Conv2d, ...]


def equalise(net: Network, encoders: Collection[str], frames: Iterable[Batch]) -> None:
    """Evens out the channels of these of camera, audio and lidar, in place, by what they reach on these frames."""
    chains = {"camera": _of_camera(net.camera), "audio": _of_chain(net.audio.body), "lidar": _of_chain(net.lidar.body)}
    found = [shared for name in encoders for shared in chains[name]]
    for shared, reach in zip(found, _reaches(net, found, frames)):
        _scale(shared, reach)


@torch.no_grad()
def _reaches(net: Network, found: list[Shared], frames: Iterable[Batch]) -> list[Tensor]:
    """By tensor, each channel's largest value in a frame, summed over frames: the mean is what it usually reaches."""
    reaches = [torch.zeros(shared.takers[0].in_channels) for shared in found]
    hooks = [
        maker.register_forward_hook(partial(_note, reach))
        for shared, reach in zip(found, reaches)
        for maker in shared.makers
    ]
    net.eval()
    for batch in frames:
        net.encode(batch.image, batch.pcm, batch.motion, batch.lidar)
    for hook in hooks:
        hook.remove()
    return reaches


def _note(reach: Tensor, maker: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
    """A hook of what makes the channels."""
    reach.add_(made.amax((2, 3)).sum(0))


@torch.no_grad()
def _scale(shared: Shared, reach: Tensor) -> None:
    weight = torch.stack([taker.weight.abs().amax((0, 2, 3)) for taker in shared.takers]).amax(0)
    share = reach * weight  # in what follows: no factor changes it
    heard = share > share.max() * LEAST
    factor = torch.where(heard, reach**SHARE / weight ** (1.0 - SHARE), 1.0)
    factor = torch.where(heard, factor / factor[heard].log().mean().exp(), 1.0)
    for maker in shared.makers:
        norm = maker[1]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight.div_(factor)
        norm.bias.div_(factor)
    for taker in shared.takers:
        taker.weight.mul_(factor[:, None, None])


def _of_camera(camera: CameraEncoder) -> list[Shared]:
    chains = [shared for stage in (camera.near, camera.middle, camera.far, camera.deep) for shared in _of_chain(stage)]
    return [
        *chains,
        _shared([camera.stem], [camera.fine]),
        _shared([camera.fine], [camera.finer]),
        _shared([camera.finer], [camera.near[0]]),
        _shared([camera.near[-1]], [camera.middle[0], camera.lateral]),
        _shared([camera.middle[-1]], [camera.far[0], camera.coarse]),
        _shared([camera.far[-1]], [camera.deep[0], camera.farthest]),
        _shared([camera.lateral, camera.coarse, camera.farthest], [camera.blend]),
        _shared([camera.blend], [camera.sharp]),
    ]


def _of_chain(stages: nn.Sequential) -> list[Shared]:
    """Between each two neighbours of a chain of convolutions."""
    return [_shared([first], [second]) for first, second in itertools.pairwise(stages)]


def _shared(makers: Iterable[nn.Module], takers: Iterable[nn.Module]) -> Shared:
    blocks = [[block for block in group if isinstance(block, nn.Sequential)] for group in (makers, takers)]
    convolutions = [block[0] for block in blocks[1] if isinstance(block[0], nn.Conv2d)]
    return Shared(tuple(blocks[0]), tuple(convolutions))
