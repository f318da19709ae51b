"""Training batches: balanced sampling, augmentation, and threads that prepare the next batches meanwhile.

A batch is a function of the seed and its number alone, so a resumed run sees the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.model.contract import HEIGHT_PX, WIDTH_PX
from export.training.centres import centres
from export.training.dataset import Split
from export.training.mixin import Mixin

RAREST = 0.12  # labels rarer than this are drawn more often, up to MOST times
MOST = 5.0
STILL = 0.5  # share of pictures that stay where they are: of the others, what was just small enough is told wrongly
AHEAD = 3  # batches prepared in advance


class Batch(NamedTuple):
    """One batch.

    image (b, 384, 640, 3) uint8, pcm (b, 16000), motion (b, 12, 50), lidar (b, 2, 16, 256), surface (b, 48, 80) int64,
    boxes (b, 32, 9), heat, care, size, cell as centres.Centres, tags (b, T), sounds (b, S),
    onsets (b, S), facts (b, 13) int64, single (b, 2) int64, world (b,); moment (b,): equal where all facts are.
    """

    image: Tensor
    pcm: Tensor
    motion: Tensor
    lidar: Tensor
    surface: Tensor
    boxes: Tensor
    heat: Tensor
    care: Tensor
    size: Tensor
    cell: Tensor
    tags: Tensor
    sounds: Tensor
    onsets: Tensor
    facts: Tensor
    single: Tensor
    world: Tensor
    moment: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def weights_of(split: Split) -> NDArray[np.float64]:
    """Sampling probability of each frame: frames with rare labels, signs and intents count more."""
    signs = split.facts[:, 7:8] == np.arange(1, split.facts[:, 7].max() + 1)
    intents = split.facts[:, 8:9] == np.arange(1, 4)
    labels = np.concatenate([split.tags, split.sounds, signs, intents], 1).astype(np.float64)
    boost = np.clip(RAREST / np.maximum(labels.mean(0), 1e-4), 1.0, MOST)
    weight = np.maximum((labels * boost).max(1), 1.0)
    return np.asarray(weight / weight.sum(), np.float64)


def moments_of(facts: NDArray[np.int16]) -> NDArray[np.int64]:
    """(n,) a number for each set of facts."""
    return np.asarray(np.unique(facts, axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def batches(split: Split, first: int, steps: int, size: int, seed: int, mixin: Mixin | None = None) -> Iterator[Batch]:
    """Augmented batches number first .. steps - 1, prepared ahead in a thread."""
    weights, moments = weights_of(split), moments_of(split.facts)

    def prepare(number: int) -> Batch:
        rng = np.random.default_rng([seed, number])
        rows = rng.choice(len(split), size, replace=len(split) < size, p=weights)
        return augmented(split, np.sort(rows), rng, moments, mixin)

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(prepare, number) for number in range(first, min(first + AHEAD, steps))]
        for number in range(first, steps):
            yield waiting.pop(0).result()
            if number + AHEAD < steps:
                waiting.append(pool.submit(prepare, number + AHEAD))


def plain(split: Split, rows: NDArray[np.int64], moments: NDArray[np.int64] | None = None) -> Batch:
    """Frames as they are."""
    image = np.stack([split.image(int(row)) for row in rows])
    pcm = split.pcm[rows].astype(np.float32) / np.float32(32768.0)
    return _batch(split, rows, image, pcm, split.motion[rows], split.lidar[rows], split.surface[rows],
                  split.boxes[rows], moments)  # fmt: skip


def augmented(
    split: Split, rows: NDArray[np.int64], rng: np.random.Generator, moments: NDArray[np.int64] | None = None,
    mixin: Mixin | None = None,
) -> Batch:  # fmt: skip
    """Frames shifted, scaled, relit, blurred; sound louder or softer, with noise; motion and LiDAR noisier."""
    image = np.empty((len(rows), HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    boxes, surface = split.boxes[rows].copy(), np.array(split.surface[rows])
    for i, row in enumerate(rows):
        image[i], boxes[i], surface[i] = _moved(split.image(int(row)), boxes[i], surface[i], rng)
    motion = np.array(split.motion[rows])
    motion[:, :6] += rng.normal(0.0, 0.01, motion[:, :6].shape).astype(np.float32) * motion[:, 10:11]
    motion[rng.random(len(rows)) < 0.15, 9] = 0.0
    lidar = np.array(split.lidar[rows], np.float32)
    lidar *= (rng.random((len(rows), 1, 16, 256)) > rng.uniform(0.0, 0.1, (len(rows), 1, 1, 1))).astype(np.float32)
    pcm = split.pcm[rows].astype(np.float32) / np.float32(32768.0)
    pcm *= (10.0 ** rng.uniform(-0.25, 0.25, (len(rows), 1))).astype(np.float32)
    hiss = 10.0 ** rng.uniform(-4.5, -2.9, (len(rows), 1))
    pcm += rng.standard_normal(pcm.shape, np.float32) * hiss.astype(np.float32)
    batch = _batch(split, rows, image, np.clip(pcm, -1.0, 1.0), motion, lidar, surface, boxes, moments)
    return batch if mixin is None else mixin.into(batch, rng)


def _moved(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], surface: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """One picture zoomed about 8 %, shifted up to 4 %, relit, now and then blurred; boxes and surface with it."""
    zoom, (shift_x, shift_y) = float(np.exp(rng.uniform(-0.06, 0.08))), rng.uniform(-0.04, 0.04, 2)
    if rng.random() < STILL:
        zoom, shift_x, shift_y = 1.0, 0.0, 0.0
    at_x, at_y = 0.5 + shift_x - 0.5 * zoom, 0.5 + shift_y - 0.5 * zoom
    moved = _warped(image, zoom, at_x, at_y, cv2.INTER_LINEAR)
    ground = _warped(surface, zoom, at_x, at_y, cv2.INTER_NEAREST)
    table = np.arange(256, dtype=np.float32) / 255.0
    table = np.clip(table ** float(np.exp(rng.uniform(-0.2, 0.2))) * rng.uniform(0.85, 1.15) * 255.0, 0, 255)
    cv2.LUT(moved, table.astype(np.uint8), dst=moved)
    if rng.random() < 0.15:
        moved = np.asarray(cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.5, 1.2))), np.uint8)
    left, right = boxes[:, 1] * zoom + at_x, (boxes[:, 1] + boxes[:, 3]) * zoom + at_x
    top, bottom = boxes[:, 2] * zoom + at_y, (boxes[:, 2] + boxes[:, 4]) * zoom + at_y
    left, right, top, bottom = (np.clip(side, 0, 1) for side in (left, right, top, bottom))
    there = (boxes[:, 0] >= 0) & (right - left > 0.004) & (bottom - top > 0.008)
    shifted = boxes.copy()
    shifted[:, 0] = np.where(there, boxes[:, 0], -1.0)
    shifted[:, 1:5] = np.stack([left, top, right - left, bottom - top], 1)
    return moved, shifted, ground


def _warped(image: NDArray[np.uint8], zoom: float, at_x: float, at_y: float, kind: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    matrix = np.array([[zoom, 0.0, at_x * width], [0.0, zoom, at_y * height]])
    warped = cv2.warpAffine(image, matrix, (width, height), flags=kind, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _batch(
    split: Split, rows: NDArray[np.int64], image: NDArray[np.uint8], pcm: NDArray[np.float32],
    motion: NDArray[np.float32], lidar: NDArray[np.floating], surface: NDArray[np.uint8], boxes: NDArray[np.float32],
    moments: NDArray[np.int64] | None,
) -> Batch:  # fmt: skip
    def floats(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32))

    def whole(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(values, np.int64))

    found = centres(boxes)
    return Batch(
        torch.from_numpy(image), floats(pcm), floats(motion), floats(lidar), whole(surface), floats(boxes),
        torch.from_numpy(found.heat), torch.from_numpy(found.care), torch.from_numpy(found.size),
        torch.from_numpy(found.cell),
        floats(split.tags[rows]), floats(split.sounds[rows]), floats(split.onsets[rows]), whole(split.facts[rows]),
        whole(split.single[rows]), whole(split.world[rows]), whole(rows if moments is None else moments[rows]),
    )  # fmt: skip
