"""Runs a bundle's engines over a split, on the CPU, one thread, as the vehicle would; no PyTorch here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tqdm import tqdm

from edge.bundle import load
from edge.errors import ConfigError
from export.model.labels import MODALITIES
from export.training.dataset import Split

F32 = NDArray[np.float32]
Sessions = Mapping[str, ort.InferenceSession]
Presence = tuple[bool, ...] | F32  # by modality, of all frames (4,) or frame by frame (n, 4); not 0: there
ENGINES = (*MODALITIES, "fuse")
HEADS = ("scene_tags", "sound_events", "ego_action", "intent", "scores", "embedding")


@dataclass(frozen=True, slots=True)
class Encoded:
    """embeddings: (n, 4, d) in the order of MODALITIES. objects: (n, 32, 7). lanes: (n, 48, 80). onsets: (n, S) s."""

    embeddings: F32
    objects: F32
    lanes: NDArray[np.uint8]
    onsets: F32


def open_bundle(
    folder: Path, target: str | None = None, *, as_written: bool = False
) -> dict[str, ort.InferenceSession]:
    """The engines of a verified bundle that run on this machine's CPU, or another of their lowerings on it."""
    files = {
        name: spec.lowerings.get(target, spec.file) if target else spec.model("cpu")
        for name, spec in load(folder).engines.items()
    }
    return open_engines({name: file.read() for name, file in files.items()}, as_written=as_written)


def open_engines(models: Mapping[str, bytes], *, as_written: bool = False) -> dict[str, ort.InferenceSession]:
    """Sessions by engine name; `as_written` runs each operator by itself, nothing fused."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return {
        name: ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for name, model in models.items()
    }


def inputs_of(split: Split, row: int) -> dict[str, NDArray[Any]]:
    """One frame's tensor for each encoder."""
    return {
        "camera": split.image(row)[None],
        "audio": split.pcm[row : row + 1].astype(np.float32) / np.float32(32768.0),
        "motion": np.asarray(split.motion[row : row + 1]),
        "lidar": split.lidar[row : row + 1].astype(np.float32),
    }


def encode(sessions: Sessions, split: Split) -> Encoded:
    """All frames through the encoders."""
    outputs: dict[str, list[NDArray[Any]]] = {}
    for row in tqdm(range(len(split)), desc="encode"):
        for name, tensor in inputs_of(split, row).items():
            session = sessions[name]
            names = [port.name for port in session.get_outputs()]
            for output, value in zip(names, session.run(names, {session.get_inputs()[0].name: tensor})):
                outputs.setdefault(f"{name} {output}", []).append(value[0])
    embeddings = np.stack([np.stack(outputs[f"{name} embedding"]) for name in MODALITIES], 1)
    objects, lanes = np.stack(outputs["camera objects"]), np.stack(outputs["camera lanes"])
    return Encoded(embeddings, objects, lanes, np.stack(outputs["audio sound_onsets"]))


def engines_said(bundle: Path, bundle_id: str, split: Split, folder: Path) -> tuple[F32, F32]:
    """(frames, 4, 192) embeddings and (frames, 32, 7) objects by a bundle's encoders; kept in a folder, as of its id.

    Raises:
        ConfigError: what is kept there is of other frames.
    """
    paths = [folder / f"{what}-{bundle_id[:16]}.npy" for what in ("embeddings", "objects")]
    if not all(path.is_file() for path in paths):
        sessions = {name: session for name, session in open_bundle(bundle).items() if name in MODALITIES}
        said = encode(sessions, split)
        for path, values in zip(paths, (said.embeddings, said.objects)):
            np.save(path, values)
    embeddings, objects = (np.asarray(np.load(path), np.float32) for path in paths)
    if not len(embeddings) == len(objects) == len(split):
        raise ConfigError(f"{paths[0]}: expected embeddings of {len(split)} frames, got {len(embeddings)}; delete it")
    return embeddings, objects


def fuse(
    session: ort.InferenceSession, embeddings: F32, per_world: int, present: Presence, repeat: int = 1
) -> dict[str, F32]:
    """All frames through the fusion, each world from a zero state; (n, ...) by output.

    Args:
        present: modalities that are there; of the others nothing is taken.
        repeat: steps per frame; 5 imitates a 20 fps camera on frames that were kept at 4 fps.
    """
    presence = np.empty(embeddings.shape[:2], np.float32)
    presence[:] = present
    shape = next(port.shape for port in session.get_inputs() if port.name == "state")
    state = np.zeros(shape, np.float32)
    outputs: list[list[F32]] = []
    for row, frame in enumerate(embeddings):
        if row % per_world == 0:
            state = np.zeros(shape, np.float32)
        mask = presence[row : row + 1]
        given = frame * mask.T
        feed = {name: given[i : i + 1] for i, name in enumerate(MODALITIES)} | {"presence": mask}
        for _ in range(repeat):
            *found, state = session.run([*HEADS, "state_next"], {**feed, "state": state})
        outputs.append([value[0] for value in found])
    return {name: np.stack(column) for name, column in zip(HEADS, zip(*outputs))}


def latency_ms(*sessions: ort.InferenceSession, rounds: int = 10, calls: int = 20) -> list[float]:
    """Median time of a call of each through I/O binding, one thread, ms; they take turns, so that all meet one load."""
    bindings = [_bound(session) for session in sessions]
    took: list[list[int]] = [[] for _ in sessions]
    for _ in range(rounds):
        for session, binding, times in zip(sessions, bindings, took):
            for call in range(calls + 2):
                start = time.perf_counter_ns()
                session.run_with_iobinding(binding)
                if call >= 2:  # the first ones of a turn find a cold cache
                    times.append(time.perf_counter_ns() - start)
    return [float(np.median(times)) * 1e-6 for times in took]


def _bound(session: ort.InferenceSession) -> ort.IOBinding:
    """Random inputs and the engine's own outputs."""
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}
    for port in session.get_inputs():
        scale = 1 if port.type == "tensor(float)" else 200
        binding.bind_cpu_input(port.name, (rng.random(port.shape) * scale).astype(kinds[port.type]))
    for port in session.get_outputs():
        binding.bind_output(port.name)
    return binding
