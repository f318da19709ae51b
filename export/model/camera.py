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
from export.model.labels import INTENTS, OBJECTS, SIGN_KINDS, SURFACES, VEHICLE_KINDS
from export.model.layers import EMBEDDING, conv

TOP_OBJECTS = 32
PATCH = 4  # pixels
FLOOR = 30.0  # logit below all of them
CENSUS = (12, 20)  # cells of a region in which things are counted
MAP_SIZES = (len(OBJECTS), 4, len(SIGN_KINDS), len(INTENTS), len(VEHICLE_KINDS), len(SURFACES))
OBJECT_CHANNELS = sum(MAP_SIZES[:-1])
READ, ASKED = 96, 4  # of ObjectReader: numbers an object, and questions
NEAR = 64  # channels of the finest map


class Maps(NamedTuple):
    """What the camera head says of each cell, all (batch, channels, 48, 80).

    objects: class logits. box: centre offset (cells) and log size (log of the picture's fraction). signs, intents,
    vehicles: logits of the kind of a sign, the intent of a pedestrian and the kind of a vehicle centred here. surface:
    class logits.
    """

    objects: Tensor
    box: Tensor
    signs: Tensor
    intents: Tensor
    vehicles: Tensor
    surface: Tensor


class Found(NamedTuple):
    """The 32 best peaks of the object maps, best first.

    kind: (batch, 32) index into OBJECTS, int64. logit: (batch, 32). cell: (batch, 32) row * 80 + column, int64.
    """

    kind: Tensor
    logit: Tensor
    cell: Tensor


class Seen(NamedTuple):
    """features: (batch, 2240), what the embedding rests on. maps: (batch, sum(MAP_SIZES), 48, 80). found: its peaks."""

    features: Tensor
    maps: Tensor
    found: Found


class ObjectReader(nn.Module):
    """What the objects that were found are together: how many, how near, the largest sign's kind.

    A perceptron looks at each object; the largest value, the sum, and a few learned questions to all of them are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Linear(NEAR + OBJECT_CHANNELS + len(OBJECTS) + 3, READ), nn.ReLU(), nn.Linear(READ, READ), nn.ReLU()
        )
        self.ask, self.answer = nn.Linear(READ, ASKED), nn.Linear(READ, READ)

    def forward(self, blend: Tensor, maps: Tensor, found: Found) -> Tensor:
        """blend: (batch, 64, 48, 80). Returns (batch, 288)."""
        rows, columns = GRID
        row = torch.div(found.cell, columns, rounding_mode="floor")
        place = torch.stack([row / rows, (found.cell - row * columns) / columns, torch.sigmoid(found.logit)], 2)
        of_class = torch.stack([(found.kind == kind).to(place.dtype) for kind in range(len(OBJECTS))], 2)
        near, said = (at_cells(part, found.cell).to(place.dtype) for part in (blend, maps[:, :OBJECT_CHANNELS]))
        read = self.look(torch.cat([near, said * 0.25, of_class, place], 2)) * place[:, :, 2:]
        share = torch.softmax(self.ask(read), 1).transpose(1, 2)
        answers = torch.matmul(share, self.answer(read)).reshape(-1, ASKED, ASKED, READ // ASKED)
        told = torch.stack([answers[:, i, i] for i in range(ASKED)], 1).flatten(1)
        return torch.cat([read.amax(1), read.sum(1) * 0.25, told], 1)


class CameraEncoder(nn.Module):
    """Picture to embedding and maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 32, PATCH, kernel=PATCH, pad=0)  # 96 x 160
        self.fine, self.finer = conv(32, 32), conv(32, 32)
        self.near = nn.Sequential(conv(32, NEAR, 2), conv(NEAR, NEAR))  # 48 x 80
        self.middle = nn.Sequential(conv(64, 96, 2), conv(96, 96), conv(96, 96))  # 24 x 40
        self.far = nn.Sequential(conv(96, 144, 2), conv(144, 144), conv(144, 144))  # 12 x 20
        self.deep = nn.Sequential(conv(144, 160, 2), conv(160, 24, kernel=1))  # 6 x 10
        self.lateral = conv(64, 48, kernel=1)
        self.coarse = conv(96, 48, kernel=1)
        self.farthest = conv(144, 48, kernel=1)
        self.blend = conv(48, NEAR)
        self.sharp = conv(NEAR, NEAR)
        self.census = nn.Sequential(conv(64, 32, kernel=1), nn.AvgPool2d(CENSUS))
        self.maps = nn.Conv2d(64, sum(MAP_SIZES), 1)
        self.objects = ObjectReader()
        self.drop = nn.Dropout(0.1)
        self.embed = nn.Linear(24 * 6 * 10 + 32 * 4 * 4 + 3 * READ, EMBEDDING)
        with torch.no_grad():
            assert self.maps.bias is not None
            self.maps.bias[: len(OBJECTS)] = -4.5  # objects are rare: start from a low prior

    def features(self, picture: Tensor) -> Seen:
        """picture: (batch, 3, 384, 640) 0..1, BGR."""
        return self.beyond(self.stem(picture))

    def beyond(self, patches: Tensor) -> Seen:
        """patches: (batch, 32, 96, 160), what the first convolution made."""
        near = self.near(self.finer(self.fine(patches)))
        middle = self.middle(near)
        far = self.far(middle)
        wide = F.interpolate(self.farthest(far), scale_factor=2.0, mode="nearest")
        wide = F.interpolate(self.coarse(middle) + wide, scale_factor=2.0, mode="nearest")
        blend = self.sharp(self.blend(self.lateral(near) + wide))
        maps = self.maps(blend)
        found = find_objects(split_maps(maps))
        parts = [torch.flatten(self.deep(far), 1), torch.flatten(self.census(blend), 1)]
        return Seen(torch.cat([*parts, self.objects(blend, maps, found)], 1), maps, found)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (batch, 192) unit length, and all maps (batch, sum(MAP_SIZES), 48, 80)."""
        seen = self.features(picture)
        return self.embedded(seen.features), seen.maps

    def embedded(self, features: Tensor) -> Tensor:
        """Features (batch, 2240) to (batch, 192), unit length."""
        return F.normalize(self.embed(self.drop(features)), dim=1)


def split_maps(maps: Tensor) -> Maps:
    """The head's channels by meaning."""
    return Maps(*torch.split(maps, list(MAP_SIZES), 1))


def find_objects(maps: Maps) -> Found:
    """The highest 3x3 peaks of all classes. Traceable, so that it runs inside the engine."""
    rows, columns = GRID
    logits = maps.objects.float()
    peak = (logits >= F.max_pool2d(logits, 3, 1, 1)).to(logits.dtype)
    peaks = (logits + FLOOR) * peak - FLOOR
    best, where = torch.topk(peaks.reshape(-1, len(OBJECTS) * rows * columns), TOP_OBJECTS, dim=1)
    kind = torch.div(where, rows * columns, rounding_mode="floor")
    return Found(kind, best, where - kind * (rows * columns))


def decode_boxes(maps: Maps, found: Found) -> Tensor:
    """(batch, 32, 6): class index, probability, left, top, width, height (fractions of the picture)."""
    rows, columns = GRID
    row = torch.div(found.cell, columns, rounding_mode="floor")
    column = found.cell - row * columns
    dx, dy, log_w, log_h = torch.unbind(at_cells(maps.box, found.cell), 2)
    width, height = torch.exp(torch.clamp(log_w, -6.0, 0.0)), torch.exp(torch.clamp(log_h, -6.0, 0.0))
    left = (column.to(dx.dtype) + 0.5 + dx) / columns - 0.5 * width
    top = (row.to(dy.dtype) + 0.5 + dy) / rows - 0.5 * height
    return torch.stack([found.kind.to(dx.dtype), torch.sigmoid(found.logit), left, top, width, height], 2)


def at_cells(maps: Tensor, cell: Tensor) -> Tensor:
    """(batch, cells, channels): the values of maps (batch, channels, 48, 80) at cells (batch, cells)."""
    flat = maps.reshape(-1, maps.shape[1], GRID[0] * GRID[1])
    return torch.gather(flat, 2, cell[:, None, :].expand(-1, maps.shape[1], -1)).transpose(1, 2)
