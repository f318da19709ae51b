"""An earlier version's camera as today's: convolutions that it did not have begin as ones that change nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from export.model.camera import CameraEncoder
from export.training.dataset import Split

NEW = ("fine", "finer", "sharp")  # since version 4
PICTURES, AT_ONCE = 128, 32
EVERY = 7  # of the cells, enough for means


def grown(state: dict[str, Tensor], camera: CameraEncoder) -> dict[str, Tensor]:
    """The state of a network whose camera has convolutions that the state lacks: they pass on what they are given."""
    missing: dict[str, Tensor] = {}
    for name in NEW:
        layer = getattr(camera, name)
        if f"camera.{name}.0.weight" not in state:
            nn.init.dirac_(layer[0].weight)
            missing |= {f"camera.{name}.{key}": value for key, value in layer.state_dict().items()}
    return missing | state


@torch.no_grad()
def settle(camera: CameraEncoder, split: Split) -> None:
    """Tells the norms of what `grown` added what they are given, so that they change nothing in training either."""
    layers = [getattr(camera, name)[:2] for name in NEW]
    layers = [layer for layer in layers if _changes_nothing(layer[0].weight)]
    if not layers:
        return
    rows = np.linspace(0, len(split) - 1, min(PICTURES, len(split))).astype(int)
    pictures = (
        torch.stack([torch.from_numpy(split.image(int(row))) for row in rows]).permute(0, 3, 1, 2).float() / 255.0
    )
    for convolution, norm in layers:
        given: list[Tensor] = []
        hook = convolution.register_forward_pre_hook(lambda _, inputs, given=given: given.append(_cells(inputs[0])))
        for start in range(0, len(pictures), AT_ONCE):
            camera.eval().features(pictures[start : start + AT_ONCE])
        hook.remove()
        cells = torch.cat(given, 1)
        norm.running_mean.copy_(cells.mean(1))
        norm.running_var.copy_(cells.var(1))
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
        norm.bias.copy_(norm.running_mean)


def _changes_nothing(weight: Tensor) -> bool:
    return torch.equal(weight, nn.init.dirac_(torch.empty_like(weight)))


def _cells(values: Tensor) -> Tensor:
    """(channels, some cells of all pictures)."""
    return values.transpose(0, 1).flatten(1)[:, ::EVERY]
