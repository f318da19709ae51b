"""Training batches: balanced sampling, augmentation, and a thread that prepares the next batch meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.dataset import Split

WIDTH, HEIGHT = 320, 192
MIRRORED = (1, 3, 5, 7)  # motion channels that change sign left for right: accel y, gyro x and z, steering
RAREST = 0.12  # labels rarer than this are drawn more often, up to MOST times
MOST = 6.0


@dataclass(frozen=True, slots=True)
class Batch:
    """image (b, 3, 192, 320), pcm (b, 16000), motion (b, 12, 50), labels (b, T+S), boxes (b, 24, 6), world (b,)."""

    image: Tensor
    pcm: Tensor
    motion: Tensor
    labels: Tensor
    boxes: Tensor
    world: Tensor


def weights_of(split: Split) -> NDArray[np.float64]:
    """Sampling probability of each frame: frames with rare labels count more."""
    labels = np.concatenate([split.tags, split.sounds], 1).astype(np.float64)
    boost = np.clip(RAREST / np.maximum(labels.mean(0), 1e-4), 1.0, MOST)
    weight = np.maximum((labels * boost).max(1), 1.0)
    return np.asarray(weight / weight.sum(), np.float64)


def batches(split: Split, steps: int, size: int, seed: int) -> Iterator[Batch]:
    """`steps` augmented batches, prepared one ahead in a thread; the same for the same seed."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=3)  # full: the thread waits

    def prepare() -> None:
        try:
            rng = np.random.default_rng(seed)
            weights = weights_of(split)
            for _ in range(steps):
                rows = rng.choice(len(split), size, replace=len(split) < size, p=weights)
                ready.put(augmented(split, np.sort(rows), rng))
        except BaseException as error:  # handed to the reader: the thread's top
            ready.put(error)

    threading.Thread(target=prepare, daemon=True).start()
    for _ in range(steps):
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def plain(split: Split, rows: NDArray[np.int64]) -> Batch:
    """Frames as they are."""
    labels = np.concatenate([split.tags[rows], split.sounds[rows]], 1)
    return _batch(
        np.asarray(split.image[rows]), split.pcm[rows].astype(np.float32) / 32768.0, np.asarray(split.motion[rows]),
        labels, split.boxes[rows], split.world[rows],
    )  # fmt: skip


def augmented(split: Split, rows: NDArray[np.int64], rng: np.random.Generator) -> Batch:
    """Frames mirrored, shifted, scaled, relit; sound louder or softer with some noise; motion noisier, GNSS lost."""
    image, boxes = np.empty((len(rows), HEIGHT, WIDTH, 3), np.uint8), split.boxes[rows].copy()
    motion = np.array(split.motion[rows])
    mirrored = rng.random(len(rows)) < 0.5
    for i, row in enumerate(rows):
        image[i], boxes[i] = _moved(split.image[row], boxes[i], bool(mirrored[i]), rng)
    motion[:, MIRRORED] *= np.where(mirrored, -1.0, 1.0).astype(np.float32)[:, None, None]
    motion[:, :6] += rng.normal(0.0, 0.01, motion[:, :6].shape).astype(np.float32) * motion[:, 10:11]
    motion[rng.random(len(rows)) < 0.15, 9] = 0.0
    pcm = split.pcm[rows].astype(np.float32) / 32768.0
    pcm *= (10.0 ** rng.uniform(-0.3, 0.3, (len(rows), 1))).astype(np.float32)
    hiss = 10.0 ** rng.uniform(-4.5, -2.7, (len(rows), 1))
    pcm += (rng.standard_normal(pcm.shape, np.float32) * hiss).astype(np.float32)
    labels = np.concatenate([split.tags[rows], split.sounds[rows]], 1)
    return _batch(image, np.clip(pcm, -1.0, 1.0), motion, labels, boxes, split.world[rows])


def _moved(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], mirror: bool, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One picture zoomed about 10 %, shifted up to 5 %, relit; its boxes with it."""
    zoom = float(np.exp(rng.uniform(-0.1, 0.12)))
    shift_x, shift_y = rng.uniform(-0.05, 0.05, 2)
    sign = -1.0 if mirror else 1.0
    scale_x = zoom * sign
    at_x = WIDTH * (0.5 + shift_x - 0.5 * scale_x)
    at_y = HEIGHT * (0.5 + shift_y - 0.5 * zoom)
    matrix = np.array([[scale_x, 0.0, at_x], [0.0, zoom, at_y]])
    moved = cv2.warpAffine(np.asarray(image), matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    table = np.arange(256, dtype=np.float32) / 255.0
    table = np.clip(table ** float(np.exp(rng.uniform(-0.2, 0.2))) * rng.uniform(0.85, 1.15) * 255.0, 0, 255)
    moved = cv2.LUT(moved, table.astype(np.uint8))
    left, right = boxes[:, 1] * scale_x + at_x / WIDTH, (boxes[:, 1] + boxes[:, 3]) * scale_x + at_x / WIDTH
    left, right = np.clip(np.minimum(left, right), 0, 1), np.clip(np.maximum(left, right), 0, 1)
    top = np.clip(boxes[:, 2] * zoom + at_y / HEIGHT, 0, 1)
    bottom = np.clip((boxes[:, 2] + boxes[:, 4]) * zoom + at_y / HEIGHT, 0, 1)
    there = (boxes[:, 0] >= 0) & (right - left > 0.004) & (bottom - top > 0.008)
    shifted = np.stack([np.where(there, boxes[:, 0], -1.0), left, top, right - left, bottom - top, boxes[:, 5]], 1)
    return np.asarray(moved, np.uint8), shifted.astype(np.float32)


def _batch(
    image: NDArray[np.uint8], pcm: NDArray[np.float32], motion: NDArray[np.float32], labels: NDArray[np.uint8],
    boxes: NDArray[np.float32], world: NDArray[np.int64],
) -> Batch:  # fmt: skip
    picture = torch.from_numpy(image).permute(0, 3, 1, 2).to(torch.float32) * (1.0 / 255.0)
    return Batch(
        picture.contiguous(memory_format=torch.channels_last), torch.from_numpy(pcm), torch.from_numpy(motion),
        torch.from_numpy(labels.astype(np.float32)), torch.from_numpy(boxes), torch.from_numpy(world),
    )  # fmt: skip
