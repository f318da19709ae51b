"""Runs a bundle's engines over a split, on the CPU, one thread, as the vehicle would; no PyTorch here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.dataset import Split

F32 = NDArray[np.float32]
ENGINES = ("camera", "audio", "motion", "fuse")


@dataclass(frozen=True, slots=True)
class Encoded:
    """embeddings: (n, 3, 128) camera, audio, motion. objects: (n, 16, 6)."""

    embeddings: F32
    objects: F32


@dataclass(frozen=True, slots=True)
class Fused:
    """tags: (n, T), sounds: (n, S) probabilities; scores: (n, 3); embedding: (n, 128)."""

    tags: F32
    sounds: F32
    scores: F32
    embedding: F32


def open_folder(folder: Path) -> dict[str, ort.InferenceSession]:
    """The four engines of a bundle folder."""
    return open_engines({name: (folder / f"{name}.onnx").read_bytes() for name in ENGINES})


def open_engines(models: Mapping[str, bytes]) -> dict[str, ort.InferenceSession]:
    """Sessions by engine name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return {
        name: ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for name, model in models.items()
    }


def encode(sessions: Mapping[str, ort.InferenceSession], split: Split) -> Encoded:
    """All frames through the three encoders."""
    embeddings = np.zeros((len(split), 3, 128), np.float32)
    objects = np.zeros((len(split), 16, 6), np.float32)
    for row in range(len(split)):
        pcm = split.pcm[row : row + 1].astype(np.float32) / np.float32(32768.0)
        outputs = sessions["camera"].run(["embedding", "objects"], {"image": np.asarray(split.image[row : row + 1])})
        embeddings[row, 0], objects[row] = outputs[0][0], outputs[1][0]
        embeddings[row, 1] = sessions["audio"].run(["embedding"], {"pcm": pcm})[0][0]
        motion = np.asarray(split.motion[row : row + 1])
        embeddings[row, 2] = sessions["motion"].run(["embedding"], {"motion": motion})[0][0]
    return Encoded(embeddings, objects)


def fuse(
    session: ort.InferenceSession, embeddings: F32, per_world: int, present: tuple[bool, bool, bool], repeat: int = 1
) -> Fused:
    """All frames through the fusion, each world from a zero state.

    Args:
        repeat: steps per frame; 5 imitates a 20 fps camera on frames that were kept at 4 fps.
    """
    mask = np.array([present], np.float32)
    outputs: list[list[NDArray[np.float32]]] = []
    state = np.zeros((1, 128), np.float32)
    for row, frame in enumerate(embeddings):
        if row % per_world == 0:
            state = np.zeros((1, 128), np.float32)
        given = frame * mask.T
        feed = {"camera": given[0:1], "audio": given[1:2], "motion": given[2:3], "presence": mask}
        for _ in range(repeat):
            *found, state = session.run(
                ["scene_tags", "sound_events", "scores", "embedding", "state_next"], {**feed, "state": state}
            )
        outputs.append([value[0] for value in found])
    tags, sounds, scores, embedding = (np.stack(part) for part in zip(*outputs))
    return Fused(tags, sounds, scores, embedding)


def latency_ms(session: ort.InferenceSession, rounds: int = 200) -> float:
    """Median time of a call through I/O binding, one thread, ms."""
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    for port in session.get_inputs():
        value = (rng.random(port.shape) * (200 if port.type == "tensor(uint8)" else 1)).astype(kinds[port.type])
        binding.bind_cpu_input(port.name, value)
    for port in session.get_outputs():
        binding.bind_output(port.name)
    took = []
    for _ in range(rounds + 10):
        start = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        took.append(time.perf_counter_ns() - start)
    return float(np.median(took[10:])) * 1e-6
