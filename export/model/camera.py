"""The camera encoder: a picture into the shared space, and maps of objects and surfaces.

The first convolution takes patches of 4x4 pixels, so that full resolution costs little; in the engine the patches are
laid out byte by byte and it is a matrix product. Shapes carry a batch in training; the engine is lowered with batch 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.contract import GRID
from export.model.labels import INTENTS, OBJECTS, SIGN_KINDS, SURFACES
from export.model.layers import EMBEDDING, conv

TOP_OBJECTS = 32
PATCH = 4  # pixels
FLOOR = 30.0  # logit below all of them
CENSUS = (12, 20)  # cells of a region in which things are counted
MAP_SIZES = (len(OBJECTS), 4, len(SIGN_KINDS), len(INTENTS), len(SURFACES))


class Maps(NamedTuple):
    """What the camera head says of each cell, all (batch, channels, 48, 80).

    objects: class logits. box: centre offset (cells) and log size (log of the picture's fraction). signs, intents:
    logits of the kind of a sign and of the intent of a pedestrian centred here. surface: class logits.
    """

    objects: Tensor
    box: Tensor
    signs: Tensor
    intents: Tensor
    surface: Tensor


class CameraEncoder(nn.Module):
    """Picture to embedding and maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 32, PATCH, kernel=PATCH, pad=0)  # 96 x 160
        self.near = nn.Sequential(conv(32, 64, 2), conv(64, 64))  # 48 x 80
        self.middle = nn.Sequential(conv(64, 96, 2), conv(96, 96), conv(96, 96))  # 24 x 40
        self.far = nn.Sequential(conv(96, 144, 2), conv(144, 144), conv(144, 144))  # 12 x 20
        self.deep = nn.Sequential(conv(144, 160, 2), conv(160, 24, kernel=1))  # 6 x 10
        self.lateral = conv(64, 48, kernel=1)
        self.coarse = conv(96, 48, kernel=1)
        self.farthest = conv(144, 48, kernel=1)
        self.blend = conv(48, 64)
        self.census = nn.Sequential(conv(64, 32, kernel=1), nn.AvgPool2d(CENSUS))
        self.maps = nn.Conv2d(64, sum(MAP_SIZES), 1)
        self.drop = nn.Dropout(0.1)
        self.embed = nn.Linear(24 * 6 * 10 + 32 * 4 * 4, EMBEDDING)
        with torch.no_grad():
            assert self.maps.bias is not None
            self.maps.bias[: len(OBJECTS)] = -4.5  # objects are rare: start from a low prior

    def features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """picture: (batch, 3, 384, 640) 0..1, BGR. Returns what the embedding rests on (batch, 1952), and all maps."""
        return self.beyond(self.stem(picture))

    def beyond(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """patches: (batch, 32, 96, 160), what the first convolution made. Returns as `features`."""
        near = self.near(patches)
        middle = self.middle(near)
        far = self.far(middle)
        wide = F.interpolate(self.farthest(far), scale_factor=2.0, mode="nearest")
        wide = F.interpolate(self.coarse(middle) + wide, scale_factor=2.0, mode="nearest")
        blend = self.blend(self.lateral(near) + wide)
        both = torch.cat([torch.flatten(self.deep(far), 1), torch.flatten(self.census(blend), 1)], 1)
        return both, self.maps(blend)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (batch, 192) unit length, and all maps (batch, sum(MAP_SIZES), 48, 80)."""
        return self.embedded(*self.features(picture))

    def embedded(self, both: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Features and maps to embedding and maps."""
        return F.normalize(self.embed(self.drop(both)), dim=1), maps


def split_maps(maps: Tensor) -> Maps:
    """The head's channels by meaning."""
    return Maps(*torch.split(maps, list(MAP_SIZES), 1))


def decode_objects(maps: Maps) -> tuple[Tensor, Tensor, Tensor]:
    """Maps to the best boxes: 3x3 peaks, then the top 32. Traceable, so that it runs inside the engine.

    Returns:
        boxes (batch, 32, 6): class index, probability, left, top, width, height (fractions of the picture);
        sign kinds (batch, 32, K) and intents (batch, 32, I) as probabilities, of use where the class is the right one.
    """
    rows, columns = GRID
    logits = maps.objects
    peak = (logits >= F.max_pool2d(logits, 3, 1, 1)).to(logits.dtype)
    peaks = (logits + FLOOR) * peak - FLOOR
    best, where = torch.topk(peaks.reshape(-1, len(OBJECTS) * rows * columns), TOP_OBJECTS, dim=1)
    kind = torch.div(where, rows * columns, rounding_mode="floor")
    cell = where - kind * (rows * columns)
    row = torch.div(cell, columns, rounding_mode="floor")
    column = cell - row * columns
    dx, dy, log_w, log_h = torch.unbind(at_cells(maps.box, cell), 2)
    width, height = torch.exp(torch.clamp(log_w, -6.0, 0.0)), torch.exp(torch.clamp(log_h, -6.0, 0.0))
    left = (column.to(dx.dtype) + 0.5 + dx) / columns - 0.5 * width
    top = (row.to(dy.dtype) + 0.5 + dy) / rows - 0.5 * height
    boxes = torch.stack([kind.to(dx.dtype), torch.sigmoid(best), left, top, width, height], 2)
    return boxes, torch.softmax(at_cells(maps.signs, cell), 2), torch.softmax(at_cells(maps.intents, cell), 2)


def at_cells(maps: Tensor, cell: Tensor) -> Tensor:
    """(batch, cells, channels): the values of maps (batch, channels, 48, 80) at cells (batch, cells)."""
    flat = maps.reshape(-1, maps.shape[1], GRID[0] * GRID[1])
    return torch.gather(flat, 2, cell[:, None, :].expand(-1, maps.shape[1], -1)).transpose(1, 2)
