"""Stages two and three: fusion, and clips, on sequences of embeddings that the finished encoders gave.

The fusion is unrolled over seconds, with modalities that come and go and frames that repeat (training frames are 4 a
second, a vehicle gives 20). The encoders stay as they are; the facts' tower goes on learning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export.model.contract import CLIP_STEPS
from export.model.fusion import CENTROIDS, PAIRS, STATE, FuseNet, nearest_distance
from export.model.labels import FACT_SIZES, FACT_SOUNDS, MODALITIES
from export.model.layers import EMBEDDING
from export.model.network import Network
from export.training.batches import moments_of
from export.training.dataset import Split
from export.training.encoders import TO_FACTS, draw_presence, fused_losses
from export.training.losses import nce_loss, pair_loss
from export.training.progress import Progress
from export.training.schedule import Stage

REPEATS = (1, 2, 3, 5)  # steps per frame of 4 fps; 5 imitates a 20 fps camera
CHANGES = 0.06  # chance per step that a sensor dies or comes back
NOISE = 0.02
NEAR_MISSES = 8  # facts with one value changed, as wrong answers
RETRIEVAL, NEAR_MISS = 1.0, 0.5  # weights
NOVELTY_QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Labels:
    """What a moment's embeddings are learned with, as tensors; see dataset.Split."""

    tags: Tensor
    sounds: Tensor
    single: Tensor
    facts: Tensor
    moment: Tensor
    per_world: int

    @staticmethod
    def of(split: Split) -> Labels:
        """Of a split."""
        return Labels(
            torch.from_numpy(split.tags.astype(np.float32)), torch.from_numpy(split.sounds.astype(np.float32)),
            torch.from_numpy(split.single.astype(np.int64)), torch.from_numpy(split.facts.astype(np.int64)),
            torch.from_numpy(moments_of(split.facts)), split.per_world,
        )  # fmt: skip

    @property
    def worlds(self) -> int:
        return len(self.tags) // self.per_world


def train_fusion(
    net: Network, found: Tensor, labels: Labels, stage: Stage, unroll: int, seed: int, progress: Progress,
    features: Tensor | None = None, only: int | None = None, name: str = "fusion", facts: bool = True,
) -> None:  # fmt: skip
    """Trains the fusion and the facts' tower.

    Args:
        facts: whether that tower is trained, too; without, what was trained towards it stays where it is.
        found: (passes, frames, 4, 192) embeddings; a sequence takes what lies between the first and the last pass.
        features: (frames, 4032), for the early strategy, instead.
        only: the one modality that is ever present, for a single-modality baseline.
    """
    net.train()
    trained = list(net.fuse.parameters())
    trained += [*net.facts.parameters(), net.scale, net.bias, net.temperature] if facts else []

    def loss(batch: object, step: int) -> tuple[Tensor, dict[str, float]]:
        rng = _generator(seed, 2, step)
        terms, figures = _sequence_losses(net, found, labels, stage.batch, unroll, rng, features, only)
        return torch.stack(list(terms.values())).sum(), figures | {key: float(t.detach()) for key, t in terms.items()}

    progress.stage(name, net, trained, stage, lambda first: iter(range(first, stage.steps)), loss)
    net.eval()


def _sequence_losses(
    net: Network, found: Tensor, labels: Labels, size: int, unroll: int, rng: torch.Generator,
    features: Tensor | None, only: int | None,
) -> tuple[dict[str, Tensor], dict[str, float]]:  # fmt: skip
    """Weighted terms of a batch, and what share of it was right."""
    repeat = REPEATS[int(torch.randint(0, len(REPEATS), (1,), generator=rng))]
    span = (unroll + repeat - 1) // repeat
    first = torch.randint(0, labels.worlds, (size,), generator=rng) * labels.per_world
    first = first + torch.randint(0, max(labels.per_world - span + 1, 1), (size,), generator=rng)
    share = _share(size, rng)
    state = torch.zeros(size, STATE)
    presence = _presence(size, rng, only)
    sums: dict[str, Tensor] = {}
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(unroll):
        changes = torch.rand(size, generator=rng) < CHANGES
        presence = torch.where(changes[:, None], _presence(size, rng, only), presence)
        rows = first + min(step // repeat, labels.per_world - 1)
        embeddings = F.normalize(share * found[0, rows] + (1.0 - share) * found[-1, rows], dim=2)
        noise = torch.randn(embeddings.shape, generator=rng) * NOISE
        given = F.normalize(embeddings + noise, dim=2) * presence[:, :, None]
        fused = net.fuse(given if features is None else features[rows].float(), presence, state)
        state = fused.state
        anchor = net.facts(labels.facts[rows])
        terms = fused_losses(
            net, fused, embeddings, anchor, labels.tags[rows], labels.sounds[rows], labels.single[rows],
            labels.facts[rows], labels.moment[rows],
        )  # fmt: skip
        del terms["retrieval"]  # below, over all steps at once
        seen.append((fused.embedding, anchor, labels.moment[rows]))
        terms["near misses"] = NEAR_MISS * near_miss_loss(net, fused.embedding, anchor, labels.facts[rows], rng)
        for name, term in terms.items():
            sums[name] = sums.get(name, torch.zeros(())) + term / unroll
    embedded, anchored, moments = (torch.cat(column) for column in zip(*seen))
    sums["retrieval"] = RETRIEVAL * nce_loss(embedded, anchored, net.temperature, moments)
    same = labels.moment[rows][:, None] == labels.moment[rows][None, :]
    for i in range(len(MODALITIES)):  # the anchors stay where each modality finds them
        term = pair_loss(embeddings[:, i], anchor, net.scale[i], net.bias[i], same, torch.ones_like(same))
        sums["agreement"] = sums.get("agreement", torch.zeros(())) + TO_FACTS * term
    best = (embedded @ anchored.t()).argmax(1)
    tags, sounds = (fused.logits[name] > 0 for name in ("scene_tags", "sound_events"))
    return sums, {
        "R@1 in the batch": float((moments[best] == moments).float().mean()),
        "action accuracy": float((fused.logits["ego_action"].argmax(1) == labels.single[rows, 0]).float().mean()),
        "tags F1": _f1(tags, labels.tags[rows] > 0),
        "sounds F1": _f1(sounds, labels.sounds[rows] > 0),
    }


def _share(size: int, rng: torch.Generator) -> Tensor:
    """(size, 4, 1) in 0..1, mostly near one end: how much of what a modality says is of the first pass.

    Two passes are learned by heart; what lies between them is never the same twice.
    """
    return 0.5 - 0.5 * torch.cos(math.pi * torch.rand(size, len(MODALITIES), 1, generator=rng))


def _f1(given: Tensor, truth: Tensor) -> float:
    return float(2.0 * (given & truth).sum() / (given.sum() + truth.sum()).clamp(min=1))


def _presence(size: int, rng: torch.Generator, only: int | None) -> Tensor:
    if only is None:
        return draw_presence(size, rng)
    presence = torch.zeros(size, len(MODALITIES))
    presence[:, only] = 1.0
    return presence


def near_miss_loss(net: Network, embedding: Tensor, anchor: Tensor, facts: Tensor, rng: torch.Generator) -> Tensor:
    """The own facts among such that differ in one value: what a search gets wrong first."""
    count = len(facts)
    changed = facts.repeat_interleave(NEAR_MISSES, 0)
    which = torch.randint(0, facts.shape[1], (len(changed),), generator=rng)
    sizes = torch.tensor([*FACT_SIZES, *[2] * len(FACT_SOUNDS)])[which]
    rows = torch.arange(len(changed))
    shift = (torch.rand(len(changed), generator=rng) * (sizes - 1)).long() + 1
    changed[rows, which] = (changed[rows, which] + shift) % sizes
    others = net.facts(changed).reshape(count, NEAR_MISSES, -1)
    candidates = torch.cat([anchor[:, None], others], 1)
    logits = (candidates * embedding[:, None]).sum(2) * net.temperature.exp().clamp(max=100.0)
    return F.cross_entropy(logits, torch.zeros(count, dtype=torch.int64))


def clips_of(camera: Tensor, rows: Tensor, per_world: int) -> Tensor:
    """(n, 8, 192): the camera's embeddings of the last two seconds, zeros before a world's start.

    Args:
        camera: (frames, 192).
    """
    steps = rows[:, None] + torch.arange(1 - CLIP_STEPS, 1)
    inside = steps >= (rows // per_world * per_world)[:, None]
    return camera[steps.clamp(min=0)] * inside[:, :, None]


def train_clips(net: Network, found: Tensor, labels: Labels, stage: Stage, seed: int, progress: Progress) -> None:
    """Trains the clip encoder towards the facts and the sound of the same moment."""
    net.train()

    def loss(batch: object, step: int) -> tuple[Tensor, dict[str, float]]:
        rng = _generator(seed, 3, step)
        rows = torch.randint(0, len(labels.facts), (stage.batch,), generator=rng)
        moments = clips_of(found[int(torch.randint(0, len(found), (1,), generator=rng)), :, 0], rows, labels.per_world)
        clip = net.clip(
            F.normalize(moments + torch.randn(moments.shape, generator=rng) * NOISE * (moments != 0), dim=2)
        )
        with torch.no_grad():
            anchor = net.facts(labels.facts[rows])
        to_facts = nce_loss(clip, anchor, net.temperature.detach(), labels.moment[rows])
        own = torch.arange(stage.batch)
        to_sound = nce_loss(clip, found[0, rows, 1], net.temperature.detach(), own)
        return to_facts + 0.3 * to_sound, {"to facts": float(to_facts.detach()), "to sound": float(to_sound.detach())}

    progress.stage(
        "clips", net, list(net.clip.parameters()), stage, lambda first: iter(range(first, stage.steps)), loss
    )
    net.eval()


@torch.no_grad()
def fit_scores(net: Network, found: Tensor, labels: Labels, seed: int) -> None:
    """Fits what the scores compare with: agreement by pair, centroids and novelty quantiles, from training moments."""
    fuse, modalities = net.fuse.eval(), found[0]
    rng = _generator(seed, 4, 0)
    shuffled = torch.randperm(len(modalities), generator=rng)
    for i, (a, b) in enumerate(PAIRS):
        matched = (1.0 - (modalities[:, a] * modalities[:, b]).sum(1)) * 0.5
        crossed = (1.0 - (modalities[:, a] * modalities[shuffled, b]).sum(1)) * 0.5
        fuse.pair_low[i] = matched.median()
        fuse.pair_high[i] = torch.maximum(crossed.median(), matched.median() + 1e-3)
    fused = fused_embeddings(fuse, found[-1], labels.per_world, rng)
    fuse.centroids.copy_(_centroids(fused, rng))
    distance = nearest_distance(fused_embeddings(fuse, modalities, labels.per_world, rng), fuse.centroids)
    knots = torch.quantile(distance[: 1 << 20], torch.tensor(NOVELTY_QUANTILES))
    fuse.novelty_knots.copy_(torch.cat([knots, knots[-1:] * 2.0]) + torch.arange(5.0) * 1e-4)


def fused_embeddings(fuse: FuseNet, modalities: Tensor, per_world: int, rng: torch.Generator) -> Tensor:
    """(frames, 192): every world run from its start, with modality dropout in half of the worlds."""
    worlds = len(modalities) // per_world
    given = modalities.reshape(worlds, per_world, len(MODALITIES), EMBEDDING)
    presence = draw_presence(worlds, rng)
    presence[::2] = 1.0
    state = torch.zeros(worlds, STATE)
    found = []
    for step in range(per_world):
        fused = fuse(given[:, step] * presence[:, :, None], presence, state)
        state = fused.state
        found.append(fused.embedding)
    return torch.stack(found, 1).reshape(-1, EMBEDDING)


@torch.no_grad()
def run_worlds(fuse: FuseNet, modalities: Tensor, per_world: int) -> Tensor:
    """(frames, 192): every world run from its start with all modalities."""
    worlds = len(modalities) // per_world
    given = modalities.reshape(worlds, per_world, len(MODALITIES), EMBEDDING)
    presence, state = torch.ones(worlds, len(MODALITIES)), torch.zeros(worlds, STATE)
    found = []
    for step in range(per_world):
        fused = fuse.eval()(given[:, step], presence, state)
        state = fused.state
        found.append(fused.embedding)
    return torch.stack(found, 1).reshape(-1, EMBEDDING)


def _centroids(points: Tensor, rng: torch.Generator, rounds: int = 12) -> Tensor:
    """k-means of at most CENTROIDS clusters; an empty cluster keeps its centre."""
    centres = points[torch.randperm(len(points), generator=rng)[:CENTROIDS]].clone()
    centres = torch.cat([centres, centres[:1].expand(CENTROIDS - len(centres), -1)])
    for _ in range(rounds):
        nearest = torch.argmax(points @ centres.t() - 0.5 * (centres * centres).sum(1), 1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=CENTROIDS).float()
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1.0)[:, None], centres)
    return centres


def _generator(seed: int, stage: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 16 + stage) * 1_000_003 + step)
