"""Real sounds and pictures mixed into training: `--audio-dir` and `--image-dir`.

A sound is laid under the world's at -25 to -5 dB. Where `labels.csv` in the folder (lines `file,event[,event...]`) says
what it is, those events are learned with it when it is loud enough to be told; without labels it is background that
must not change the answer.
A picture stands in for the world's one at random: nothing in it is labelled, so it only teaches the embedding of the
other modalities to do without a camera that makes sense (its object and surface maps are not learned).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edge.errors import ConfigError
from export.model.contract import HEIGHT_PX, WIDTH_PX
from export.model.labels import FACT_SIZES, FACT_SOUNDS, SOUND_EVENTS

if TYPE_CHECKING:
    from export.training.batches import Batch

RATE_HZ = 16000
SOUNDS = (".wav", ".flac", ".ogg")
PICTURES = (".jpg", ".jpeg", ".png")
SHARE_OF_SOUNDS, SHARE_OF_PICTURES = 0.3, 0.08  # of the moments of a batch
TOLD_DB = -10.0  # a mixed-in event this loud beside the world's sound is learned
LONGEST_S = 60
EDGE_PX = 8192
_FACTS_AMONG_EVENTS = [SOUND_EVENTS.index(name) for name in FACT_SOUNDS]


@dataclass(frozen=True, slots=True)
class Mixin:
    """sounds: 16 kHz, -1..1, at least a second each. events: of each, (S,) or None. pictures: (384, 640, 3) BGR."""

    sounds: list[NDArray[np.float32]]
    events: list[NDArray[np.float32] | None]
    pictures: list[NDArray[np.uint8]]

    def into(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch with some of its sounds and pictures mixed."""
        pcm, sounds, onsets = batch.pcm.numpy().copy(), batch.sounds.clone(), batch.onsets.clone()
        image, surface = batch.image.clone(), batch.surface.clone()
        care, cell, facts = batch.care.clone(), batch.cell.clone(), batch.facts.clone()
        for row in range(len(pcm)):
            if self.sounds and rng.random() < SHARE_OF_SOUNDS:
                told = self._sound(pcm[row], rng)
                if told is not None:
                    onsets[row] = torch.where(torch.from_numpy(told) > sounds[row], -1.0, onsets[row])
                    sounds[row] = torch.maximum(sounds[row], torch.from_numpy(told))
                    heard = facts[row, len(FACT_SIZES) :]
                    heard |= torch.from_numpy(told[_FACTS_AMONG_EVENTS] > 0).to(heard.dtype)
            if self.pictures and rng.random() < SHARE_OF_PICTURES:
                image[row] = torch.from_numpy(self.pictures[int(rng.integers(len(self.pictures)))])
                care[row], cell[row], surface[row] = 0.0, -1, IGNORED
        return batch._replace(
            pcm=torch.from_numpy(pcm),
            sounds=sounds,
            onsets=onsets,
            facts=facts,
            moment=torch.unique(facts, dim=0, return_inverse=True)[1] if self.sounds else batch.moment,
            image=image,
            surface=surface,
            care=care,
            cell=cell,
            heat=batch.heat * (cell >= 0).any(1)[:, None, None, None],
        )

    def _sound(self, pcm: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32] | None:
        """Lays one sound under a second, in place; returns the events that it adds."""
        number = int(rng.integers(len(self.sounds)))
        sound = self.sounds[number]
        start = int(rng.integers(0, len(sound) - RATE_HZ + 1))
        part = sound[start : start + RATE_HZ]
        level_db = float(rng.uniform(-25.0, -5.0))
        own, world = float(np.sqrt(np.mean(part**2))), float(np.sqrt(np.mean(pcm**2)))
        if own < 1e-5:
            return None
        pcm += part * (max(world, 1e-3) * 10.0 ** (level_db / 20.0) / own)
        np.clip(pcm, -1.0, 1.0, out=pcm)
        return self.events[number] if level_db >= TOLD_DB else None


IGNORED = -100  # surface class that is not learned, PyTorch's own number for it


def read_mixin(audio: Path | None, images: Path | None) -> Mixin | None:
    """What the two folders hold; None without folders.

    Raises:
        ConfigError: a folder that is none, has nothing readable, or labels of an unknown event or file.
    """
    if audio is None and images is None:
        return None
    sounds, events = _read_sounds(audio) if audio else ([], [])
    return Mixin(sounds, events, _read_pictures(images) if images else [])


def _read_sounds(folder: Path) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32] | None]]:
    try:
        import soundfile
    except ImportError:
        raise ConfigError("--audio-dir: expected the package soundfile to be installed, got none") from None
    paths = _files(folder, SOUNDS, "--audio-dir")
    labels = _read_labels(folder, {path.name for path in paths})
    sounds, events = [], []
    for path in paths:
        try:
            with soundfile.SoundFile(path) as file:  # no more of it than is kept
                rate = int(file.samplerate)
                pcm = file.read(LONGEST_S * rate, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise ConfigError(f"--audio-dir: expected sound in {path}, got {error}") from None
        if not len(pcm):
            raise ConfigError(f"--audio-dir: expected sound in {path}, got none")
        sounds.append(_second_or_more(pcm.mean(1), rate))
        events.append(labels.get(path.name))
    return sounds, events


def _second_or_more(pcm: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """At 16 kHz, repeated to a second where it is shorter."""
    size = max(len(pcm) * RATE_HZ // rate_hz, 1)
    kind: int = cv2.INTER_AREA if size < len(pcm) else cv2.INTER_LINEAR
    row: NDArray[Any] = cv2.resize(np.ascontiguousarray(pcm[None]), (size, 1), interpolation=kind)[0]
    return np.asarray(np.tile(row, -(-RATE_HZ // size)) if size < RATE_HZ else row, np.float32)


def _read_labels(folder: Path, names: set[str]) -> dict[str, NDArray[np.float32]]:
    path = folder / "labels.csv"
    if not path.is_file():
        return {}
    labels = {}
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            name, events = row[0].strip(), [event.strip() for event in row[1:] if event.strip()]
            unknown = [event for event in events if event not in SOUND_EVENTS]
            if name not in names:
                raise ConfigError(f"{path}:{number}: expected a sound of the folder, got {name!r}")
            if unknown:
                raise ConfigError(f"{path}:{number}: expected events of {', '.join(SOUND_EVENTS)}, got {unknown[0]!r}")
            labels[name] = np.array([event in events for event in SOUND_EVENTS], np.float32)
    return labels


def _read_pictures(folder: Path) -> list[NDArray[np.uint8]]:
    pictures = []
    for path in _files(folder, PICTURES, "--image-dir"):
        try:
            picture: NDArray[Any] | None = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # a file of no bytes, or a picture beyond OpenCV's own limit
            picture = None
        if picture is None or max(picture.shape) > EDGE_PX:
            raise ConfigError(f"--image-dir: expected a picture in {path}, got none that can be read")
        pictures.append(np.asarray(cv2.resize(picture, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8))
    return pictures


def _files(folder: Path, kinds: tuple[str, ...], option: str) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"{option}: expected a folder, got {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds)
    if not paths:
        raise ConfigError(f"{option}: expected files of {', '.join(kinds)} in {folder}, got none")
    return paths
