"""The cache of rendered worlds: memory-mapped arrays by split, and the labels read off their truth.

A cache is reused when it was made from the same plan. It does not notice that the world's code changed (the digest of
that code is in the cache and ends up in the bundle's lineage): use a new folder then.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import export.world
from export.labels import boxes_of, sounds_of, tags_of
from export.plan import FPS, WorldPlan
from export.render import Rendered, render
from roadfuse.v1.truth_pb2 import GroundTruth

PICTURE = (640, 384)  # of the world's camera, in which the truth's boxes are given


@dataclass(frozen=True, slots=True)
class Split:
    """Frames of all worlds of a split, world after world, `per_world` frames each at 4 fps.

    image: (n, 192, 320, 3) uint8. pcm: (n, 16000) int16. motion: (n, 12, 50) float32. tags: (n, T) uint8.
    sounds: (n, S) uint8. boxes: (n, 24, 6) float32 as labels.boxes_of. world: (n,) index of the world.
    """

    image: NDArray[np.uint8]
    pcm: NDArray[np.int16]
    motion: NDArray[np.float32]
    tags: NDArray[np.uint8]
    sounds: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    world: NDArray[np.int64]
    per_world: int
    world_sha256: str

    def __len__(self) -> int:
        return len(self.image)


def prepare(folder: Path, plans: list[WorldPlan], workers: int, label: str = "") -> Split:
    """Renders the plans into `folder`, or takes what lies there from the same plans."""
    key = {"fps": FPS, "plans": [asdict(plan) for plan in plans]}
    done = folder / "cache.json"
    if not (done.is_file() and json.loads(done.read_text())["key"] == key):
        _render_all(folder, plans, workers, label)
        done.write_text(json.dumps({"key": key, "world_sha256": world_digest()}))
    return load(folder, plans)


def load(folder: Path, plans: list[WorldPlan]) -> Split:
    """Opens a finished cache; arrays stay on disk until touched."""
    image, pcm, motion = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "pcm", "motion"))
    raw, ends = np.load(folder / "truth.npy"), np.load(folder / "truth_ends.npy")
    starts = np.concatenate([[0], ends[:-1]])
    truths = [GroundTruth.FromString(raw[a:b].tobytes()) for a, b in zip(starts, ends)]
    boxes = np.stack([boxes_of(truth, *PICTURE) for truth in truths])
    tags = np.stack([tags_of(truth, rows) for truth, rows in zip(truths, boxes)])
    sounds = np.stack([sounds_of(truth) for truth in truths])
    per_world = plans[0].frames
    digest = str(json.loads((folder / "cache.json").read_text())["world_sha256"])
    return Split(image, pcm, motion, tags, sounds, boxes, np.arange(len(image)) // per_world, per_world, digest)


def world_digest() -> str:
    """SHA-256 over the world's source files."""
    digest = hashlib.sha256()
    root = Path(str(export.world.__file__)).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _render_all(folder: Path, plans: list[WorldPlan], workers: int, label: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cache.json").unlink(missing_ok=True)
    per_world = plans[0].frames
    count = per_world * len(plans)
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "image": ((count, 192, 320, 3), np.uint8),
        "pcm": ((count, 16000), np.int16),
        "motion": ((count, 12, 50), np.float32),
    }
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name, (shape, dtype) in shapes.items()
    }
    truths: list[bytes] = []
    for i, world in enumerate(tqdm(_rendered(plans, workers), total=len(plans), desc=f"render {label}", unit="world")):
        rows = slice(i * per_world, (i + 1) * per_world)
        for name, array in arrays.items():
            array[rows] = getattr(world, name)
        truths += world.truths
    for array in arrays.values():
        array.flush()
    np.save(folder / "truth.npy", np.frombuffer(b"".join(truths), np.uint8))
    np.save(folder / "truth_ends.npy", np.cumsum([len(truth) for truth in truths]))


def _rendered(plans: list[WorldPlan], workers: int) -> Iterator[Rendered]:
    if workers <= 1:
        yield from map(render, plans)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(render, plans)
