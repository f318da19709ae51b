"""Stage one: all encoders, the shared space and the heads at once, on single instants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from export.model.fusion import PAIRS, STATE, Fused
from export.model.labels import MODALITIES
from export.model.layers import EMBEDDING
from export.model.network import Encoded, Network
from export.model.strategies import FEATURES
from export.training.batches import Batch, augmented, batches, moments_of, plain
from export.training.dataset import Split
from export.training.losses import camera_loss, facts_loss, label_loss, nce_loss, onset_loss, pair_loss
from export.training.mixin import Mixin
from export.training.progress import Progress
from export.training.schedule import Stage

DROPOUT = 0.35  # chance that a modality is missing
ALONE = 0.12  # share of moments with one modality alone, the camera half of the time
OWN = (1.2, 0.4, 0.3, 0.3)  # weights of each modality's own facts
TO_FACTS, PAIRED = 0.15, 0.05  # weights of agreement: with the facts, and between two modalities
NCE, REBUILD = 0.3, 0.2
CAMERA_FACTS = 2.0  # of a camera trained on alone: what its own head and the fusion's ask for together


def train_encoders(
    net: Network, split: Split, stage: Stage, seed: int, progress: Progress, device: torch.device, mixin: Mixin | None
) -> None:
    """Trains everything but the text tower and the clip encoder."""
    net.to(device).train()
    net.camera.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fixed = {id(p) for module in (net.text, net.clip) for p in module.parameters()}
    trained = [p for p in net.parameters() if id(p) not in fixed]

    def terms(batch: Batch, step: int) -> dict[str, Tensor]:
        return instant_losses(net, batch.to(device), torch.Generator().manual_seed(seed * 1_000_003 + step))

    _descend("encoders", net, trained, terms, split, stage, seed, progress, mixin)


def train_camera(net: Network, split: Split, stage: Stage, seed: int, progress: Progress, device: torch.device) -> None:
    """Trains the camera on; the other encoders, the facts and so the shared space stay where they are.

    No picture from a folder comes in: of each its facts are asked.
    """
    net.to(device).eval()
    net.camera.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [*net.camera.parameters(), *net.own[MODALITIES.index("camera")].parameters()]

    def terms(batch: Batch, step: int) -> dict[str, Tensor]:
        return camera_losses(net, batch.to(device))

    _descend("camera", net, trained, terms, split, stage, seed, progress, None)


def _descend(
    name: str, net: Network, trained: list[nn.Parameter], terms: Callable[[Batch, int], dict[str, Tensor]],
    split: Split, stage: Stage, seed: int, progress: Progress, mixin: Mixin | None,
) -> None:  # fmt: skip
    """One stage on single instants; `terms` gives a batch's weighted losses at a step."""

    def loss(batch: object, step: int) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(batch, Batch)
        found = terms(batch, step)
        return torch.stack(list(found.values())).sum(), {term: float(value.detach()) for term, value in found.items()}

    progress.stage(
        name, net, trained, stage, lambda first: batches(split, first, stage.steps, stage.batch, seed, mixin), loss
    )


def instant_losses(net: Network, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
    """All weighted terms of one batch."""
    found = net.encode(batch.image, batch.pcm, batch.motion, batch.lidar)
    anchor = net.facts(batch.facts)
    terms = camera_loss(found.maps, batch)
    terms["onsets"] = onset_loss(found.onsets, batch.onsets)
    for i, (name, head) in enumerate(zip(MODALITIES, net.own)):
        terms[f"{name} facts"] = OWN[i] * facts_loss(head(found.embeddings[:, i] * 8.0), batch.facts)
    terms["agreement"] = _agreement(net, found, anchor, batch)
    presence = draw_presence(len(anchor), rng).to(anchor.device)
    given = found.embeddings * presence[:, :, None]
    fused = net.fuse(given, presence, torch.zeros(len(given), STATE, device=anchor.device))
    terms |= fused_losses(net, fused, found.embeddings, anchor, batch.tags, batch.sounds, batch.single, batch.facts,
                          batch.moment)  # fmt: skip
    return terms


def fused_losses(
    net: Network, fused: Fused, embeddings: Tensor, anchor: Tensor, tags: Tensor, sounds: Tensor, single: Tensor,
    facts: Tensor, moment: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """What one step of the fusion is asked for: its heads, the facts, the shared space, and what was missing."""
    return {
        "tags": label_loss(fused.logits["scene_tags"], tags),
        "sounds": label_loss(fused.logits["sound_events"], sounds),
        "action": 0.3 * F.cross_entropy(fused.logits["ego_action"], single[:, 0]),
        "intent": 0.3 * F.cross_entropy(fused.logits["intent"], single[:, 1]),
        "facts": facts_loss(fused.facts, facts),
        "retrieval": NCE * nce_loss(fused.embedding, anchor, net.temperature, moment),
        "rebuilt": REBUILD * (1.0 - (fused.rebuilt * embeddings.detach()).sum(2)).mean(),
    }


def camera_losses(net: Network, batch: Batch) -> dict[str, Tensor]:
    """What the camera is asked for by itself: its maps, the facts, and to lie near them."""
    embedding, maps = net.look(batch.image, fast=True)
    with torch.no_grad():
        anchor = net.facts(batch.facts)
    same = batch.moment[:, None] == batch.moment[None, :]
    i = MODALITIES.index("camera")
    return {
        **camera_loss(maps, batch),
        "camera facts": CAMERA_FACTS * facts_loss(net.own[i](embedding * 8.0), batch.facts),
        "agreement": TO_FACTS
        * pair_loss(embedding, anchor, net.scale[i].detach(), net.bias[i].detach(), same, torch.ones_like(same)),
        "retrieval": NCE * nce_loss(embedding, anchor, net.temperature.detach(), batch.moment),
    }


def _agreement(net: Network, found: Encoded, anchor: Tensor, batch: Batch) -> Tensor:
    same = batch.moment[:, None] == batch.moment[None, :]
    apart = (batch.world[:, None] != batch.world[None, :]) | torch.eye(
        len(anchor), dtype=torch.bool, device=same.device
    )
    total = torch.zeros((), device=anchor.device)
    for i in range(len(MODALITIES)):  # facts of one world that differ are no near-copies
        total = total + TO_FACTS * pair_loss(
            found.embeddings[:, i], anchor, net.scale[i], net.bias[i], same, torch.ones_like(same)
        )
    for i, (a, b) in enumerate(PAIRS, len(MODALITIES)):
        total = total + PAIRED * pair_loss(
            found.embeddings[:, a], found.embeddings[:, b], net.scale[i], net.bias[i], same, apart | same
        )
    return total


def draw_presence(count: int, rng: torch.Generator) -> Tensor:
    """(count, 4): each modality missing with probability DROPOUT, seldom all of them; now and then one alone."""
    presence = (torch.rand(count, len(MODALITIES), generator=rng) > DROPOUT).float()
    alone = torch.rand(count, generator=rng) < ALONE
    which = torch.randint(-len(MODALITIES) + 2, len(MODALITIES), (int(alone.sum()),), generator=rng).clamp(min=0)
    presence[alone] = F.one_hot(which, len(MODALITIES)).float()
    empty = (presence.sum(1) == 0) & (torch.rand(count, generator=rng) < 0.8)
    presence[empty, torch.randint(0, len(MODALITIES), (int(empty.sum()),), generator=rng)] = 1.0
    return presence


@torch.no_grad()
def embeddings_of(net: Network, split: Split, passes: int, seed: int, device: torch.device) -> Tensor:
    """(passes, frames, 4, 192): the first pass as it is, the others augmented."""
    net.to(device).eval()
    moments = moments_of(split.facts)
    found = torch.empty(passes, len(split), len(MODALITIES), EMBEDDING)
    for turn in range(passes):
        for start in tqdm(range(0, len(split), 64), desc=f"embed {turn + 1}/{passes}"):
            rows = np.arange(start, min(start + 64, len(split)))
            rng = np.random.default_rng([seed, turn, start])
            batch = (plain(split, rows, moments) if turn == 0 else augmented(split, rows, rng, moments)).to(device)
            encoded = net.encode(batch.image, batch.pcm, batch.motion, batch.lidar, fast=True)
            found[turn, rows] = encoded.embeddings.cpu()
    return found


@torch.no_grad()
def features_of(net: Network, split: Split, device: torch.device) -> Tensor:
    """(frames, 4032) float16: what early fusion looks at."""
    net.to(device).eval()
    parts = []
    for start in tqdm(range(0, len(split), 64), desc="features"):
        batch = plain(split, np.arange(start, min(start + 64, len(split)))).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(net.features(batch.image, batch.pcm, batch.motion, batch.lidar).half().cpu())
    return torch.cat(parts)


@torch.no_grad()
def embeddings_from(net: Network, features: Tensor) -> Tensor:
    """(frames, 4, 192): what the encoders' last layers make of their features."""
    last = (net.camera.embed, net.audio.embed, net.motion.embed, net.lidar.embed)
    parts = torch.split(features.float(), list(FEATURES), 1)
    return torch.stack([F.normalize(layer(part), dim=1) for layer, part in zip(last, parts)], 1)
