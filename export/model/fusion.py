"""The fusion network: what the modalities say, mixed by one of the strategies, then a recurrent state and the heads.

An absent modality is cut off twice, by zeroing its value and by masking its token, so nothing of it can leak.
The three scores are computed here too, so that every runtime gives the same ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.model.labels import EGO_ACTIONS, FACT_VALUES, MODALITIES, PRESSING_INTENTS, SCENE_TAGS, SOUND_EVENTS
from export.model.layers import EMBEDDING
from export.model.strategies import STRATEGIES

PAIRS = tuple(itertools.combinations(range(len(MODALITIES)), 2))
STATE = 192
CENTROIDS = 256
NOVELTY_LEVELS = (0.0, 0.2, 0.5, 0.8, 1.0)  # novelty at the training quantiles 0.5, 0.9, 0.99, 0.999 and beyond
HEAD_SIZES = {
    "scene_tags": len(SCENE_TAGS), "sound_events": len(SOUND_EVENTS), "ego_action": len(EGO_ACTIONS),
    "intent": len(PRESSING_INTENTS),
}  # fmt: skip


class Fused(NamedTuple):
    """One step.

    embedding: (batch, 192) unit length. logits: by head. facts: logits of every fact, of use in training alone.
    rebuilt: (batch, 4, 192), what each modality's embedding should have been. state: (batch, 192) in -1..1.
    """

    embedding: Tensor
    logits: dict[str, Tensor]
    facts: Tensor
    rebuilt: Tensor
    state: Tensor


class FuseNet(nn.Module):
    """One step: embeddings, presence and state in; fused embedding, head logits and state out.

    Buffers that training fits after the weights: pair_low, pair_high (6,): embedding distance that counts as agreement
    and as disagreement; centroids (256, 192); novelty_knots (5,): distances for NOVELTY_LEVELS.
    """

    pair_low: Tensor
    pair_high: Tensor
    centroids: Tensor
    novelty_knots: Tensor

    def __init__(self, strategy: str = "intermediate", width: int = EMBEDDING) -> None:
        super().__init__()
        self.strategy = strategy
        self.project = nn.ModuleList([nn.Linear(EMBEDDING, width) for _ in MODALITIES if strategy != "early"])
        self.recall = nn.Linear(STATE, width)
        self.kind = nn.Parameter(torch.randn(len(MODALITIES), width) * 0.1)
        self.mix = STRATEGIES[strategy](width)
        self.norm = nn.LayerNorm(width)
        self.gates = nn.Linear(width + STATE, 2 * STATE)
        self.candidate = nn.Linear(width + STATE, STATE)
        self.embed = nn.Linear(width + STATE, EMBEDDING)
        told = len(MODALITIES) * width if strategy != "early" else 0
        self.heads = nn.ModuleDict({name: nn.Linear(width + STATE + told, size) for name, size in HEAD_SIZES.items()})
        self.facts = nn.Linear(EMBEDDING, FACT_VALUES)
        self.rebuild = nn.Linear(width + STATE, len(MODALITIES) * EMBEDDING)
        self.register_buffer("pair_low", torch.zeros(len(PAIRS)))
        self.register_buffer("pair_high", torch.ones(len(PAIRS)))
        self.register_buffer("centroids", torch.zeros(CENTROIDS, EMBEDDING))
        self.register_buffer("novelty_knots", torch.arange(5.0))

    def forward(self, given: Tensor, presence: Tensor, state: Tensor) -> Fused:
        """The learned part.

        Args:
            given: (batch, 4, 192) embeddings in the order of MODALITIES; for "early" (batch, 4032) features.
            presence: (batch, 4), 1 present, 0 absent.
            state: (batch, 192).
        """
        seen, told, following = self.step(given, presence, state)
        embedding = F.normalize(self.embed(seen), dim=1)
        rebuilt = F.normalize(self.rebuild(seen).reshape(len(seen), len(MODALITIES), EMBEDDING), dim=2)
        logits = {name: head(told) for name, head in self.heads.items()}
        return Fused(embedding, logits, self.facts(embedding * 8.0), rebuilt, following)

    def step(self, given: Tensor, presence: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is embedded (batch, width + 192), what the heads look at, and the next state.

        Heads look at each modality's own token, too: what one of them alone can tell is not lost in the mix.
        """
        tokens = self._tokens(given, presence)
        fused = self.norm(self.mix(tokens, self.recall(state), presence))
        update, reset = torch.chunk(torch.sigmoid(self.gates(torch.cat([fused, state], 1))), 2, 1)
        fresh = torch.tanh(self.candidate(torch.cat([fused, reset * state], 1)))
        following = update * state + (1.0 - update) * fresh
        seen = torch.cat([fused, following], 1)
        told = seen if self.strategy == "early" else torch.cat([seen, tokens.flatten(1)], 1)
        return seen, told, following

    def _tokens(self, given: Tensor, presence: Tensor) -> Tensor:
        if self.strategy == "early":
            return given
        tokens = [layer(given[:, i] * 8.0) + self.kind[i] for i, layer in enumerate(self.project)]
        return torch.stack(tokens, 1) * presence[:, :, None]

    def temper(self, head: str, temperatures: Sequence[float], biases: Sequence[float]) -> None:
        """Folds a confidence into a head's layer: logit / temperature + bias, label by label."""
        layer = self.heads[head]
        assert isinstance(layer, nn.Linear)
        with torch.no_grad():
            gain = 1.0 / torch.tensor(temperatures, dtype=torch.float32)
            layer.weight.mul_(gain[:, None])
            layer.bias.mul_(gain).add_(torch.tensor(biases, dtype=torch.float32))

    def scores(self, modalities: Tensor, presence: Tensor, embedding: Tensor, probabilities: Tensor) -> Tensor:
        """(batch, 3): uncertainty, disagreement, novelty, each 0..1."""
        p = torch.clamp(probabilities, 1e-6, 1.0 - 1e-6)
        entropy = -(p * torch.log(p) + (1.0 - p) * torch.log(1.0 - p)) / math.log(2.0)
        return torch.stack([entropy.mean(1), self._disagreement(modalities, presence), self._novelty(embedding)], 1)

    def _disagreement(self, modalities: Tensor, presence: Tensor) -> Tensor:
        first = torch.stack([modalities[:, a] for a, _ in PAIRS], 1)
        second = torch.stack([modalities[:, b] for _, b in PAIRS], 1)
        both = torch.stack([presence[:, a] * presence[:, b] for a, b in PAIRS], 1)
        distance = (1.0 - (first * second).sum(2)) * 0.5
        stretched = torch.clamp((distance - self.pair_low) / (self.pair_high - self.pair_low), 0.0, 1.0)
        return (stretched * both).sum(1) / torch.clamp(both.sum(1), min=1.0)

    def _novelty(self, embedding: Tensor) -> Tensor:
        nearest = nearest_distance(embedding, self.centroids)
        level = torch.zeros_like(nearest)
        for i in range(4):
            low, high = self.novelty_knots[i], self.novelty_knots[i + 1]
            rise = NOVELTY_LEVELS[i + 1] - NOVELTY_LEVELS[i]
            level = level + rise * torch.clamp((nearest - low) / (high - low), 0.0, 1.0)
        return level


class FuseStep(nn.Module):
    """FuseNet with the engine's named inputs and outputs."""

    def __init__(self, net: FuseNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, camera: Tensor, audio: Tensor, motion: Tensor, lidar: Tensor, presence: Tensor, state: Tensor
    ) -> tuple[Tensor, ...]:
        """Each modality (1, 192), presence (1, 4), state (1, 192); outputs as in engines.FUSE_OUTPUTS."""
        given = torch.stack([camera, audio, motion, lidar], 1)
        modalities = torch.where(presence[:, :, None] > 0.5, given, torch.zeros_like(given))
        here = (presence > 0.5).to(given.dtype)
        seen, told, following = self.net.step(modalities, here, state)
        embedding = F.normalize(self.net.embed(seen), dim=1)
        logits = {name: head(told) for name, head in self.net.heads.items()}
        tags, sounds = torch.sigmoid(logits["scene_tags"]), torch.sigmoid(logits["sound_events"])
        return (
            embedding,
            tags,
            sounds,
            torch.softmax(logits["ego_action"], 1),
            torch.softmax(logits["intent"], 1),
            self.net.scores(modalities, here, embedding, torch.cat([tags, sounds], 1)),
            following,
        )


def nearest_distance(embedding: Tensor, centroids: Tensor) -> Tensor:
    """(batch,) squared distance from unit-length embeddings to the nearest centroid."""
    dots = torch.matmul(embedding, centroids.t())
    squares = (centroids * centroids).sum(1)
    return torch.amin(squares - 2.0 * dots, 1) + 1.0
