"""The fusion network: attention over modality tokens with a presence mask, and a recurrent state.

An absent modality is cut off twice, by zeroing its value and by masking its token, so nothing of it can leak.
The three scores are computed here too, so that every runtime gives the same ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.encoders import EMBEDDING
from export.labels import SCENE_TAGS, SOUND_EVENTS

MODALITIES = ("camera", "audio", "motion")
PAIRS = ((0, 1), (0, 2), (1, 2))
HEADS = 4
CENTROIDS = 256
NOVELTY_LEVELS = (0.0, 0.2, 0.5, 0.8, 1.0)  # novelty at the training quantiles 0.5, 0.9, 0.99, 0.999 and beyond


class FuseNet(nn.Module):
    """One step: embeddings, presence and state in; fused embedding, head probabilities, scores and state out.

    Buffers that training fits after the weights: pair_low, pair_high (3,): embedding distance that counts as agreement
    and as disagreement; centroids (256, 128); novelty_knots (5,): distances for NOVELTY_LEVELS.
    """

    pair_low: Tensor
    pair_high: Tensor
    centroids: Tensor
    novelty_knots: Tensor

    def __init__(self, width: int = EMBEDDING) -> None:
        super().__init__()
        self.width = width
        self.project = nn.ModuleList([nn.Linear(EMBEDDING, width) for _ in MODALITIES])
        self.recall = nn.Linear(EMBEDDING, width)
        self.kind = nn.Parameter(torch.randn(len(MODALITIES) + 1, width) * 0.1)
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * width, width))
        self.norm_out = nn.LayerNorm(width)
        self.gates = nn.Linear(width + EMBEDDING, 2 * EMBEDDING)
        self.candidate = nn.Linear(width + EMBEDDING, EMBEDDING)
        self.embed = nn.Linear(width + EMBEDDING, EMBEDDING)
        self.tags = nn.Linear(width + EMBEDDING, len(SCENE_TAGS))
        self.sounds = nn.Linear(width + EMBEDDING, len(SOUND_EVENTS))
        self.register_buffer("pair_low", torch.zeros(3))
        self.register_buffer("pair_high", torch.ones(3))
        self.register_buffer("centroids", torch.zeros(CENTROIDS, EMBEDDING))
        self.register_buffer("novelty_knots", torch.arange(5.0))

    def forward(self, modalities: Tensor, presence: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The learned part.

        Args:
            modalities: (batch, 3, 128) camera, audio, motion embeddings.
            presence: (batch, 3), 1 present, 0 absent.
            state: (batch, 128).

        Returns:
            fused embedding (batch, 128) unit length, tag logits, sound logits, next state (batch, 128) in -1..1.
        """
        fused = self._attend(self._tokens(modalities, presence, state), presence)
        both = torch.cat([fused, state], 1)
        update, reset = torch.chunk(torch.sigmoid(self.gates(both)), 2, 1)
        fresh = torch.tanh(self.candidate(torch.cat([fused, reset * state], 1)))
        following = update * state + (1.0 - update) * fresh
        seen = torch.cat([fused, following], 1)
        return F.normalize(self.embed(seen), dim=1), self.tags(seen), self.sounds(seen), following

    def _tokens(self, modalities: Tensor, presence: Tensor, state: Tensor) -> Tensor:
        tokens = [layer(modalities[:, i] * 8.0) for i, layer in enumerate(self.project)]
        return torch.stack([*tokens, self.recall(state)], 1) + self.kind

    def _attend(self, tokens: Tensor, presence: Tensor) -> Tensor:
        """One pre-norm transformer block; returns (batch, width), the state token plus the mean of those present."""
        batch, count, depth = tokens.shape[0], len(MODALITIES) + 1, self.width // HEADS
        mask = torch.cat([presence, torch.ones_like(presence[:, :1])], 1)
        normed = self.norm(tokens)
        q, k, v = (
            layer(normed).reshape(batch, count, HEADS, depth).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(depth) + (mask[:, None, None, :] - 1.0) * 1e4
        mixed = torch.matmul(torch.softmax(weights, 3), v).transpose(1, 2).reshape(batch, count, self.width)
        tokens = tokens + self.out(mixed)
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        share = mask[:, :3] / torch.clamp(mask[:, :3].sum(1, keepdim=True), min=1.0)
        fused: Tensor = self.norm_out(tokens[:, 3] + (tokens[:, :3] * share[:, :, None]).sum(1))
        return fused

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
        self, camera: Tensor, audio: Tensor, motion: Tensor, presence: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Each modality (1, 128), presence (1, 3), state (1, 128); outputs as in the manifest."""
        given = torch.stack([camera, audio, motion], 1)
        modalities = torch.where(presence[:, :, None] > 0.5, given, torch.zeros_like(given))
        here = (presence > 0.5).to(given.dtype)
        embedding, tags, sounds, following = self.net(modalities, here, state)
        tag_probability, sound_probability = torch.sigmoid(tags), torch.sigmoid(sounds)
        both = torch.cat([tag_probability, sound_probability], 1)
        return (
            embedding,
            tag_probability,
            sound_probability,
            self.net.scores(modalities, here, embedding, both),
            following,
        )


def nearest_distance(embedding: Tensor, centroids: Tensor) -> Tensor:
    """(batch,) squared distance from unit-length embeddings to the nearest centroid."""
    dots = torch.matmul(embedding, centroids.t())
    squares = (centroids * centroids).sum(1)
    return torch.amin(squares - 2.0 * dots, 1) + 1.0
