"""The two stages of training: encoders on single instants, then fusion on sequences of their embeddings.

Stage one learns all heads and the shared space at once, through a fusion step without memory. Stage two keeps the
encoders and unrolls the fusion over seconds, with modalities that come and go and frames that repeat (training frames
are 4 a second, a vehicle gives 20).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from export.batches import Batch, augmented, batches, plain
from export.dataset import Split
from export.encoders import EMBEDDING, AudioEncoder, CameraEncoder, MotionEncoder
from export.fusion import CENTROIDS, PAIRS, FuseNet, nearest_distance
from export.labels import SCENE_TAGS, SOUND_EVENTS
from export.losses import Agreement, label_loss, object_loss

DROPOUT = 0.35  # chance that a modality is missing
LABELS = len(SCENE_TAGS) + len(SOUND_EVENTS)
AGREEMENT_WEIGHT = 0.15
OWN_WEIGHT = 0.5  # of each modality's own heads
WARM_UP_STEPS = 80  # of the encoders' learning rate
AVERAGE = 0.99  # decay per step of the running average of the weights
NOVELTY_QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: steps, batch size and peak rate of both stages; frames of an unrolled sequence."""

    steps: int
    batch: int
    rate: float
    fuse_steps: int
    fuse_batch: int
    fuse_rate: float
    unroll: int


class Network(nn.Module):
    """All that is trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.camera, self.audio, self.motion, self.fuse = CameraEncoder(), AudioEncoder(), MotionEncoder(), FuseNet()
        self.own = nn.ModuleList([nn.Linear(EMBEDDING, LABELS) for _ in range(3)])
        self.agree = nn.ModuleList([Agreement() for _ in PAIRS])

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings (b, 3, 128) and object maps; convolutions in bfloat16 while training."""
        mel = self.audio.spectrum(batch.pcm)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            camera, maps = self.camera(batch.image)
            audio, motion = self.audio.encode(mel), self.motion(batch.motion)
        return torch.stack([camera.float(), audio.float(), motion.float()], 1), maps.float()


def train_encoders(net: Network, split: Split, schedule: Schedule, seed: int) -> list[float]:
    """Stage one; leaves the running average of the weights in `net` and returns the mean loss of each tenth.

    The rate stays constant after warming up and the average stands in for annealing, so a run of fewer steps is the
    beginning of a longer one.
    """
    net.train()
    net.camera.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.rate, weight_decay=0.03)
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.05, total_iters=WARM_UP_STEPS)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)  # type: ignore[no-untyped-call]
    rng = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    progress = tqdm(batches(split, schedule.steps, schedule.batch, seed), total=schedule.steps, desc="encoders")
    for batch in progress:
        loss = _instant_loss(net, batch, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        warm.step()
        if len(losses) >= min(WARM_UP_STEPS, schedule.steps // 2):
            average.update_parameters(net)
        losses.append(float(loss.detach()))
        progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
    net.load_state_dict(average.module.state_dict())
    return _tenths(losses)


def _instant_loss(net: Network, batch: Batch, rng: torch.Generator) -> Tensor:
    modalities, maps = net.encode(batch)
    loss = object_loss(maps, batch.boxes)
    for i, head in enumerate(net.own):
        loss = loss + OWN_WEIGHT * label_loss(head(modalities[:, i] * 8.0), batch.labels)
    for agree, (a, b) in zip(net.agree, PAIRS):
        loss = loss + AGREEMENT_WEIGHT * agree(modalities[:, a], modalities[:, b], batch.world)
    presence = draw_presence(len(modalities), rng)
    given = modalities * presence[:, :, None]
    _, tags, sounds, _ = net.fuse(given, presence, torch.zeros(len(given), EMBEDDING))
    return loss + label_loss(torch.cat([tags, sounds], 1), batch.labels)


def draw_presence(count: int, rng: torch.Generator) -> Tensor:
    """(count, 3): each modality missing with probability DROPOUT, seldom all of them."""
    presence = (torch.rand(count, 3, generator=rng) > DROPOUT).float()
    empty = (presence.sum(1) == 0) & (torch.rand(count, generator=rng) < 0.8)
    presence[empty, torch.randint(0, 3, (int(empty.sum()),), generator=rng)] = 1.0
    return presence


@torch.no_grad()
def embeddings_of(net: Network, split: Split, passes: int, seed: int) -> Tensor:
    """(passes, frames, 3, 128): the first pass as it is, the others augmented."""
    net.eval()
    found = []
    for turn in range(passes):
        rng = np.random.default_rng([seed, turn])
        parts = []
        for start in tqdm(range(0, len(split), 64), desc=f"embed {turn + 1}/{passes}"):
            rows = np.arange(start, min(start + 64, len(split)))
            batch = plain(split, rows) if turn == 0 else augmented(split, rows, rng)
            parts.append(net.encode(batch)[0])
        found.append(torch.cat(parts))
    return torch.stack(found)


def train_fusion(net: Network, found: Tensor, split: Split, schedule: Schedule, seed: int) -> list[float]:
    """Stage two; `found` as embeddings_of gives it. Returns the mean loss of each tenth."""
    fuse = net.fuse.train()
    optimiser = torch.optim.AdamW(fuse.parameters(), lr=schedule.fuse_rate, weight_decay=0.05)
    warm = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.fuse_rate, schedule.fuse_steps, pct_start=0.1)
    rng = torch.Generator().manual_seed(seed + 1)
    labels = torch.from_numpy(np.concatenate([split.tags, split.sounds], 1).astype(np.float32))
    losses = []
    for _ in tqdm(range(schedule.fuse_steps), desc="fusion"):
        loss = _sequence_loss(fuse, found, labels, split.per_world, schedule, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(fuse.parameters(), 2.0)
        optimiser.step()
        warm.step()
        losses.append(float(loss.detach()))
    fuse.eval()
    return _tenths(losses)


def _sequence_loss(
    fuse: FuseNet, found: Tensor, labels: Tensor, per_world: int, schedule: Schedule, rng: torch.Generator
) -> Tensor:
    """Label loss over one unrolled batch: a start in a world each, frames repeated 1 to 5 times."""
    size = schedule.fuse_batch
    repeat = int(torch.randint(1, 6, (1,), generator=rng))
    span = (schedule.unroll + repeat - 1) // repeat
    worlds = len(labels) // per_world
    first = torch.randint(0, worlds, (size,), generator=rng) * per_world
    first = first + torch.randint(0, max(per_world - span, 1), (size,), generator=rng)
    turn = torch.randint(0, len(found), (size,), generator=rng)
    state = torch.zeros(size, EMBEDDING)
    presence = draw_presence(size, rng)
    loss = torch.zeros(())
    for step in range(schedule.unroll):
        changes = torch.rand(size, generator=rng) < 0.08  # a sensor dies or comes back
        presence = torch.where(changes[:, None], draw_presence(size, rng), presence)
        rows = first + min(step // repeat, per_world - 1)
        noise = torch.randn(size, 3, EMBEDDING, generator=rng) * 0.02
        given = nn.functional.normalize(found[turn, rows] + noise, dim=2) * presence[:, :, None]
        _, tags, sounds, state = fuse(given, presence, state)
        loss = loss + label_loss(torch.cat([tags, sounds], 1), labels[rows])
    return loss / schedule.unroll


@torch.no_grad()
def fit_scores(net: Network, found: Tensor, split: Split, seed: int) -> None:
    """Fits what the scores compare with: agreement by pair, centroids and novelty quantiles, from training moments."""
    fuse, modalities = net.fuse.eval(), found[0]
    rng = torch.Generator().manual_seed(seed + 2)
    shuffled = torch.randperm(len(modalities), generator=rng)
    for i, (a, b) in enumerate(PAIRS):
        matched = (1.0 - (modalities[:, a] * modalities[:, b]).sum(1)) * 0.5
        crossed = (1.0 - (modalities[:, a] * modalities[shuffled, b]).sum(1)) * 0.5
        fuse.pair_low[i] = matched.median()
        fuse.pair_high[i] = torch.maximum(crossed.median(), matched.median() + 1e-3)
    fused = fused_embeddings(fuse, found[-1], split.per_world, rng)
    fuse.centroids.copy_(_centroids(fused, rng))
    distance = nearest_distance(fused_embeddings(fuse, modalities, split.per_world, rng), fuse.centroids)
    knots = torch.quantile(distance[: 1 << 20], torch.tensor(NOVELTY_QUANTILES))
    knots = torch.cat([knots, knots[-1:] * 2.0]) + torch.arange(5.0) * 1e-4
    fuse.novelty_knots.copy_(knots)


def fused_embeddings(fuse: FuseNet, modalities: Tensor, per_world: int, rng: torch.Generator) -> Tensor:
    """(frames, 128): every world run from its start, with modality dropout in half of the worlds."""
    worlds = len(modalities) // per_world
    given = modalities.reshape(worlds, per_world, 3, EMBEDDING)
    presence = draw_presence(worlds, rng)
    presence[::2] = 1.0
    state = torch.zeros(worlds, EMBEDDING)
    found = []
    for step in range(per_world):
        embedding, _, _, state = fuse(given[:, step] * presence[:, :, None], presence, state)
        found.append(embedding)
    return torch.stack(found, 1).reshape(-1, EMBEDDING)


def _centroids(points: Tensor, rng: torch.Generator, rounds: int = 15) -> Tensor:
    """k-means of at most CENTROIDS clusters; an empty cluster keeps its centre."""
    centres = points[torch.randperm(len(points), generator=rng)[:CENTROIDS]].clone()
    centres = torch.cat([centres, centres[:1].expand(CENTROIDS - len(centres), -1)])
    for _ in range(rounds):
        nearest = torch.argmax(points @ centres.t() - 0.5 * (centres * centres).sum(1), 1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=CENTROIDS).float()
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1.0)[:, None], centres)
    return centres


def _tenths(losses: list[float]) -> list[float]:
    return [float(part.mean()) for part in np.array_split(np.asarray(losses), min(10, len(losses)))]
