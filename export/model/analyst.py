"""The analyst: looks at a whole clip, forward in time too, and says every fact of each of its moments.

It reads what the vehicle's encoders gave, four embeddings and the best boxes each quarter of a second, so it needs no
pictures. Its own embedding lies in the same shared space, nearer to the facts that hold than one that knows the past.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.analyst_outputs import GROUPS, OUTPUTS, WINDOW, YES_OR_NO
from export.model.contract import HEIGHT_PX, WIDTH_PX
from export.model.labels import FACT_SIZES, INTENTS, MODALITIES, OBJECTS, SIGN_KINDS, VEHICLE_KINDS
from export.model.layers import EMBEDDING

WIDTH, LAYERS, HEADS = 144, 3, 4
READ = 96  # numbers a box
FINER = max(len(kinds) for kinds in (SIGN_KINDS, INTENTS, VEHICLE_KINDS))


class Seen(NamedTuple):
    """logits: (batch, t, OUTPUTS), each fact's values, then YES_OR_NO. embedding: (batch, t, 192) unit length."""

    logits: Tensor
    embedding: Tensor


class Analyst(nn.Module):
    """A pre-norm transformer over moments; how far apart two moments are counts, not where they are in the clip."""

    def __init__(self, width: int = WIDTH, layers: int = LAYERS, dropout: float = 0.1) -> None:
        super().__init__()
        self.project = nn.ModuleList([nn.Linear(EMBEDDING, width) for _ in MODALITIES])
        self.absent = nn.Parameter(torch.zeros(len(MODALITIES), width))
        self.boxes = BoxReader(width)
        self.blocks = nn.ModuleList([Around(width, HEADS, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.say = nn.Linear(width, OUTPUTS)
        self.embed = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, EMBEDDING))
        self.drop = nn.Dropout(dropout)

    def forward(self, embeddings: Tensor, presence: Tensor, boxes: Tensor) -> Seen:
        """What each moment shows.

        Args:
            embeddings: (batch, t, 4, 192) unit length, in the order of MODALITIES; t at most WINDOW.
            presence: (batch, t, 4), 1 present, 0 absent.
            boxes: (batch, t, *BOXES), the camera's; where it is absent they are not looked at.
        """
        here = presence[..., None]
        x = torch.zeros_like(embeddings[:, :, 0, :1])
        for i, layer in enumerate(self.project):
            given = torch.where(here[:, :, i] > 0.5, embeddings[:, :, i], torch.zeros_like(embeddings[:, :, i]))
            x = x + here[:, :, i] * layer(self.drop(given) * 8.0) + (1.0 - here[:, :, i]) * self.absent[i]
        camera = here[:, :, MODALITIES.index("camera")]
        x = x + camera * self.boxes(torch.where(camera[..., None] > 0.5, boxes, torch.zeros_like(boxes)))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return Seen(self.say(x), F.normalize(self.embed(x), dim=2))


class BoxReader(nn.Module):
    """What a moment's boxes are together: a perceptron looks at each; the largest value and the sum are kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Linear(len(OBJECTS) + FINER + 7, READ), nn.ReLU(), nn.Linear(READ, READ), nn.ReLU()
        )
        self.say = nn.Linear(2 * READ, width)

    def forward(self, boxes: Tensor) -> Tensor:
        """boxes: (batch, t, *BOXES): class, probability, left, top, width, height (fractions), finer kind."""
        kind, p, finer = boxes[..., :1], boxes[..., 1:2], boxes[..., 6:]
        size = boxes[..., 4:6] * torch.tensor([WIDTH_PX, HEIGHT_PX], device=boxes.device)
        said = [
            (kind == torch.arange(len(OBJECTS), device=boxes.device)).to(boxes.dtype),
            (finer == torch.arange(FINER, device=boxes.device)).to(boxes.dtype),
            boxes[..., 1:6],
            torch.log2(torch.clamp(size, min=4.0)) - 4.0,
        ]
        read = self.look(torch.cat(said, -1)) * torch.sqrt(torch.clamp(p, 0.0, 1.0))
        grown: Tensor = self.say(torch.cat([read.amax(2), read.sum(2) * 0.25], -1))
        return grown


class Around(nn.Module):
    """Attention over the moments around each one, with a learned weight for every distance in time."""

    def __init__(self, width: int, heads: int, dropout: float, grow: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.distance = nn.Parameter(torch.zeros(2 * WINDOW - 1, heads))
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, grow * width), nn.ReLU(), nn.Linear(grow * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, t, width)."""
        batch, count, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in torch.unbind(qkv, 2))
        steps = torch.arange(count, device=x.device)
        apart = steps[:, None] - steps[None, :] + (WINDOW - 1)
        near = self.distance[apart].permute(2, 0, 1)
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) * (width // self.heads) ** -0.5 + near, 3)
        x = x + self.drop(self.out(torch.matmul(weights, v).transpose(1, 2).reshape(batch, count, width)))
        grown: Tensor = x + self.drop(self.mlp(self.norm_mlp(x)))
        return grown


class Panel(nn.Module):
    """Several analysts as one: their mean probabilities, made honest by temperatures, and their mean embedding.

    Buffers: temperatures (GROUPS,), by which a group's logits are divided where nothing is missing; absence
    (GROUPS, 4), by how much their logarithms rise with the share of the moments that lack a modality.
    """

    temperatures: Tensor
    absence: Tensor

    def __init__(self, members: list[Analyst]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("temperatures", torch.ones(len(GROUPS)))
        self.register_buffer("absence", torch.zeros(len(GROUPS), len(MODALITIES)))

    def forward(self, embeddings: Tensor, presence: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """One clip.

        Args:
            embeddings: (t, 4, 192). presence: (t, 4). boxes: (t, *BOXES).

        Returns:
            (t, OUTPUTS) probabilities, (t, 192) unit length.
        """
        seen = [member(embeddings[None], presence[None], boxes[None]) for member in self.members]
        logits = torch.stack([one.logits[0] for one in seen]).mean(0)
        embedding = F.normalize(torch.stack([one.embedding[0] for one in seen]).mean(0), dim=1)
        return probabilities(logits, self.warmth(1.0 - presence.mean(0))), embedding

    def warmth(self, absent: Tensor) -> Tensor:
        """(..., GROUPS) temperatures.

        Args:
            absent: (..., 4) share of a clip's moments at which each modality is missing.
        """
        return self.temperatures * torch.exp(absent @ self.absence.t())


def probabilities(logits: Tensor, temperatures: Tensor) -> Tensor:
    """(..., OUTPUTS): each fact's values sum to one; the others are each a yes or no. temperatures: (..., GROUPS)."""
    parts = torch.split(logits, [*FACT_SIZES, len(YES_OR_NO)], -1)
    facts = [torch.softmax(part / temperatures[..., i : i + 1], -1) for i, part in enumerate(parts[:-1])]
    return torch.cat([*facts, torch.sigmoid(parts[-1] / temperatures[..., len(FACT_SIZES) :])], -1)
