"""The cache of rendered worlds: memory-mapped arrays by split, and the targets read off their truth.

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
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from tqdm import tqdm

import export.world
from export.training.plan import WorldPlan
from export.training.render import Rendered, render
from export.training.targets import targets
from roadfuse.v1.truth_pb2 import GroundTruth

PICTURE = (640, 384)  # of the world's camera, in which the truth's boxes are given
LANGUAGES = ("en", "de", "es", "fr")


@dataclass(frozen=True, slots=True)
class Split:
    """Frames of all worlds of a split, world after world, `per_world` frames each; zeros for what was not rendered.

    jpeg, jpeg_ends: the pictures' bytes one after the other, and where each ends. pcm: (n, 16000) int16. motion:
    (n, 12, 50) float32. lidar: (n, 2, 16, 256) float16. surface: (n, 48, 80) uint8. boxes, tags, sounds, onsets, facts,
    single: as targets.Targets, (n, ...). captions: by language. world: (n,) index of the world.
    """

    jpeg: NDArray[np.uint8]
    jpeg_ends: NDArray[np.int64]
    pcm: NDArray[np.int16]
    motion: NDArray[np.float32]
    lidar: NDArray[np.float16]
    surface: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    tags: NDArray[np.uint8]
    sounds: NDArray[np.uint8]
    onsets: NDArray[np.float32]
    facts: NDArray[np.int16]
    single: NDArray[np.int16]
    captions: dict[str, list[str]]
    domains: NDArray[np.str_]
    world: NDArray[np.int64]
    per_world: int
    world_sha256: str

    def __len__(self) -> int:
        return len(self.pcm)

    def image(self, row: int) -> NDArray[np.uint8]:
        """(384, 640, 3) uint8 BGR."""
        start = self.jpeg_ends[row - 1] if row else 0
        picture = simplejpeg.decode_jpeg(self.jpeg[start : self.jpeg_ends[row]].tobytes(), colorspace="BGR")
        return np.asarray(picture, np.uint8)


def prepare(folder: Path, plans: list[WorldPlan], workers: int, label: str = "") -> Split:
    """Renders the plans into `folder`, or takes what lies there from the same plans."""
    key = {"plans": [asdict(plan) for plan in plans]}
    done = folder / "cache.json"
    if not (done.is_file() and json.loads(done.read_text())["key"] == key):
        _render_all(folder, plans, workers, label)
        done.write_text(json.dumps({"key": key, "world_sha256": world_digest()}))
    return load(folder, plans)


def load(folder: Path, plans: list[WorldPlan]) -> Split:
    """Opens a finished cache; arrays stay on disk until touched."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("jpeg", "jpeg_ends", "surface")}
    for name, zeros in _no_sensors(len(arrays["surface"])).items():
        arrays[name] = zeros if plans[0].pictures_only else np.load(folder / f"{name}.npy", mmap_mode="r")
    raw, ends = np.load(folder / "truth.npy"), np.load(folder / "truth_ends.npy")
    starts = np.concatenate([[0], ends[:-1]])
    truths = [GroundTruth.FromString(raw[a:b].tobytes()) for a, b in zip(starts, ends)]
    digest = str(json.loads((folder / "cache.json").read_text())["world_sha256"])
    return assembled(arrays, truths, plans[0].frames, PICTURE, digest)


def assembled(
    arrays: dict[str, NDArray[Any]], truths: list[GroundTruth], per_world: int, picture: tuple[int, int], digest: str
) -> Split:
    """A split of tensors and truths; `picture`: width and height in which the truths' boxes are."""
    learned = [np.stack(column) for column in zip(*(targets(truth, *picture) for truth in truths))]
    captions = {
        language: [next((c.text for c in truth.captions if c.language == language), "") for truth in truths]
        for language in LANGUAGES
    }
    return Split(
        **arrays,
        **dict(zip(("boxes", "tags", "sounds", "onsets", "facts", "single"), learned)),
        captions=captions,
        domains=np.array([[t.place, t.light, t.weather] for t in truths]),
        world=np.arange(len(truths)) // per_world,
        per_world=per_world,
        world_sha256=digest,
    )


def _no_sensors(count: int) -> dict[str, NDArray[Any]]:
    """Zeros for `count` frames of each other sensor, that take no memory."""
    return {
        "pcm": np.broadcast_to(np.zeros(1, np.int16), (count, 16000)),
        "motion": np.broadcast_to(np.zeros(1, np.float32), (count, 12, 50)),
        "lidar": np.broadcast_to(np.zeros(1, np.float16), (count, 2, 16, 256)),
    }


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
    rendered = ("surface",) if plans[0].pictures_only else ("pcm", "motion", "lidar", "surface")
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in rendered}
    sizes: list[int] = []
    truths: list[bytes] = []
    with (folder / "jpeg.bin").open("wb") as pictures:
        for world in tqdm(_rendered(plans, workers), total=len(plans), desc=f"render {label}", unit="world"):
            for name, part in parts.items():
                part.append(getattr(world, name))
            pictures.writelines(world.jpeg)
            sizes += [len(jpeg) for jpeg in world.jpeg]
            truths += world.truths
    for name, part in parts.items():
        np.save(folder / f"{name}.npy", np.concatenate(part))
    np.save(folder / "jpeg.npy", np.fromfile(folder / "jpeg.bin", np.uint8))
    (folder / "jpeg.bin").unlink()
    np.save(folder / "jpeg_ends.npy", np.cumsum(sizes))
    np.save(folder / "truth.npy", np.frombuffer(b"".join(truths), np.uint8))
    np.save(folder / "truth_ends.npy", np.cumsum([len(truth) for truth in truths]))


def _rendered(plans: list[WorldPlan], workers: int) -> Iterator[Rendered]:
    if workers <= 1:
        yield from map(render, plans)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(render, plans)
