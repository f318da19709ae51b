"""The encoders of one space in this process, called by any thread: content in, vectors or errors out, in order."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.embed import towers as files
from cloud.embed.clip import MCAP, open_clip, video_pictures
from cloud.embed.item import MODALITIES, Modality, Vector
from cloud.embed.lowering import session, video_graph
from cloud.embed.picture import read_picture
from cloud.embed.refusals import malformed, unsupported
from cloud.embed.sound import read_sound, windows
from cloud.embed.text import TextTower
from cloud.embed.towers import ENGINES, Towers
from cloud.errors import CloudError, ModelError
from edge.drive import topics
from edge.engine import BoundEngine
from edge.engines import engine_opener
from edge.errors import BundleError
from edge.image_input import ImageInput
from export.model.contract import CLIP_STEPS

# Counts up when content is read differently: what was kept by the old way is then no longer found.
PREPROCESSING: Final = 1
MAX_TEXT_BYTES: Final = 1024
# A word is split into pieces in the square of its length.
MAX_WORD_BYTES: Final = 384
MOTION_TOPICS: Final = (topics.IMU, topics.VEHICLE, topics.GNSS)
_Encoded = tuple[NDArray[np.float32], int]


class Encoders:
    """Encoders by modality, each opened when it is first needed.

    Args:
        towers: verified; None: the reference bundle and its towers.
        only: modalities that may be asked for; None: all that the towers have.
        threads: of one call of an engine.

    Attributes:
        space: the bundle's id.
        models: modality -> SHA-256, of those that may be asked for.
    """

    def __init__(self, towers: Towers | None = None, only: Collection[str] | None = None, threads: int = 1) -> None:
        self.towers = towers or files.load()
        self.space = self.towers.space
        self.models = {name: sha for name, sha in self.towers.models.items() if only is None or name in only}
        self._threads = threads
        self._locks = {name: threading.RLock() for name in MODALITIES}
        self._text: TextTower | None = None
        self._video: Any = None
        self._engines: dict[Modality, BoundEngine] = {}
        self._picture: ImageInput | None = None
        self._readers: dict[Modality, Callable[[bytes], _Encoded]] = {
            "image": lambda content: (self._see(read_picture(content)), 0),
            "audio": lambda content: (self._hear(content), 0),
            "video": self._watch,
            "motion": self._move,
            "lidar": self._range,
        }

    def encode(self, modality: Modality, batch: Sequence[bytes]) -> list[Vector | CloudError]:
        """Vectors of a batch of contents, in order; what can't be embedded gives its own error in its place."""
        if modality not in self.models:
            known = ", ".join(self.models)
            return [unsupported(f"modality: expected one of {known}, got {str(modality)[:40]!r}") for _ in batch]
        with self._locks[modality]:
            if modality == "text":
                return self._read(batch)
            return [self._one(modality, content) for content in batch]

    def clips(self, moments: NDArray[np.float32]) -> NDArray[np.float32]:
        """Camera embeddings of two seconds, (n, 8, d) oldest first, zeros where there is none, as (n, d) clips."""
        with self._locks["video"]:
            if self._video is None:
                self._video = session("clip encoder", video_graph(self.towers.video), self._threads)
            found: NDArray[np.float32] = self._video.run(None, {"moments": np.ascontiguousarray(moments, np.float32)})[
                0
            ]
            return found

    def open(self, modality: Modality) -> None:
        """Load a modality's engines now, and run them once.

        Raises:
            ModelError: they don't load or don't run.
        """
        if modality not in self.models:
            raise ModelError(f"modality: expected one of {', '.join(self.models)}, got {modality!r}")
        with self._locks[modality]:
            if modality == "text":
                self._text = self._text or TextTower(self.towers, self._threads)
                self._text.encode(["a"])
            elif modality == "video":
                with self._locks["image"]:  # it sees by the camera engine, whether or not images may be asked for
                    size = self._engine("image").outputs["embedding"].size
                self.clips(np.zeros((1, CLIP_STEPS, size), np.float32))
            else:
                self._engine(modality)

    def _read(self, batch: Sequence[bytes]) -> list[Vector | CloudError]:
        answers: list[Vector | CloudError] = []
        texts = []
        for content in batch:
            text = _text(content)
            answers.append(
                text if isinstance(text, CloudError) else ModelError("text tower: expected a vector, got none")
            )
            if isinstance(text, str):
                texts.append((len(answers) - 1, text))
        if texts:
            self._text = self._text or TextTower(self.towers, self._threads)
            for (i, _), values in zip(texts, self._text.encode([text for _, text in texts])):
                answers[i] = self._vector("text", values, 0)
        return answers

    def _one(self, modality: Modality, content: bytes) -> Vector | CloudError:
        try:
            return self._vector(modality, *self._readers[modality](content))
        except CloudError as error:
            return error

    def _vector(self, modality: Modality, values: NDArray[np.float32], instant_ns: int) -> Vector:
        length = math.sqrt(float(np.sum(values * values)))
        if not 1e-6 <= length < math.inf:
            raise ModelError(f"{modality}: expected a direction in the shared space, got none")
        unit = np.asarray(values / length, "<f4")
        return Vector(unit.tobytes(), self.space, self.models[modality], modality, instant_ns)

    def _engine(self, modality: Modality) -> BoundEngine:
        if modality not in self._engines:
            name = ENGINES[modality]
            try:
                engine = engine_opener(self.towers.bundle, "cpu")(name, {})
                engine.warm_up(1)
            except BundleError as error:
                raise ModelError(str(error)) from None
            if modality == "image":
                spec = self.towers.bundle.encoders[name].input
                self._picture = ImageInput(engine.inputs[spec["name"]], spec)
            self._engines[modality] = engine
        return self._engines[modality]

    def _run(self, modality: Modality) -> NDArray[np.float32]:
        engine = self._engine(modality)
        engine.run()
        found = engine.outputs[self.towers.bundle.encoders[ENGINES[modality]].outputs["embedding"]]
        return np.array(found.reshape(-1), np.float32)

    def _input(self, modality: Modality) -> tuple[NDArray[Any], dict[str, Any]]:
        spec = self.towers.bundle.encoders[ENGINES[modality]].input
        return self._engine(modality).inputs[spec["name"]], spec

    def _see(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._locks["image"]:  # video sees by it too
            self._engine("image")
            assert self._picture is not None
            self._picture.fill(image)
            return self._run("image")

    def _hear(self, content: bytes) -> NDArray[np.float32]:
        """The direction of all windows together, the louder ones more: silence says nothing."""
        buffer, spec = self._input("audio")
        heard = windows(*read_sound(content), spec["rate_hz"], buffer.size)
        loudness = np.sqrt((heard * heard).mean(axis=1)) + 1e-4
        total = np.zeros(0, np.float32)
        for window, weight in zip(heard, loudness):
            buffer.reshape(-1)[...] = window
            values = self._run("audio") * weight
            total = total + values if len(total) else values
        return total

    def _watch(self, content: bytes) -> _Encoded:
        instant_ns = 0
        if content.startswith(MCAP):
            with open_clip(content, topics.CAMERA) as clip:
                pictures, instant_ns = clip.pictures(CLIP_STEPS), clip.instant_ns
        else:
            pictures = video_pictures(content, CLIP_STEPS)
        seen: dict[int, NDArray[np.float32]] = {}  # a slow camera's picture stands for several moments
        for picture in pictures:
            if picture is not None and id(picture) not in seen:
                seen[id(picture)] = self._see(picture)
        size = len(next(iter(seen.values())))
        blank = np.zeros(size, np.float32)
        moments = np.stack([blank if picture is None else seen[id(picture)] for picture in pictures])
        return self.clips(moments[None])[0], instant_ns

    def _move(self, content: bytes) -> _Encoded:
        buffer, spec = self._input("motion")
        with open_clip(content, *MOTION_TOPICS) as clip:
            clip.motion_into(buffer[0], spec["window_ns"])
            return self._run("motion"), clip.instant_ns

    def _range(self, content: bytes) -> _Encoded:
        buffer, spec = self._input("lidar")
        with open_clip(content, topics.LIDAR) as clip:
            clip.lidar_into(buffer[0], spec["azimuth_deg"], spec["highest_deg"], spec["lowest_deg"])
            return self._run("lidar"), clip.instant_ns


def open_encoders(towers: Path | None, bundle: Path | None, only: Collection[str] | None = None) -> Encoders:
    """Encoders of folders; None: the reference ones.

    Raises:
        ModelError: they are not there, altered, or of different spaces.
    """
    return Encoders(files.load(towers, bundle), only)


def _text(content: bytes) -> str | CloudError:
    if len(content) > MAX_TEXT_BYTES:
        return malformed(f"text: expected at most {MAX_TEXT_BYTES} bytes, got {len(content)}")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return malformed("text: expected UTF-8, got other bytes")
    if not text.strip():
        return malformed("text: expected words, got none")
    longest = max(len(word.encode()) for word in text.split())
    if longest > MAX_WORD_BYTES:
        return malformed(f"text: expected words of at most {MAX_WORD_BYTES} bytes, got one of {longest}")
    return text
