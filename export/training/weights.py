"""Float weights of the vehicle's engines and the facts' tower: float16 in one compressed file, enough to lower again.

The text tower and the clip encoder lie beside it as ONNX, with a list that says of which bundle they are; what only
training needs is in the run's checkpoint.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError

from edge.errors import ConfigError
from edge.model_file import sha256_of
from export.lower import store_half
from export.model.network import Network
from export.training.grow import grown

VOCABULARY = "vocabulary.json"  # of the text tower, beside it
TOWERS = ("text", "video")
LEFT_OUT = ("text.", "clip.", "own.", "fuse.rebuild.")  # of what is saved
# What a file that is damaged, or of something else, gives.
_UNREADABLE = (
    OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def rounded(net: Network) -> Network:
    """The network with weights that float16 holds exactly: what is saved is then what ships."""
    state = {name: v.half().float() if v.is_floating_point() else v for name, v in net.state_dict().items()}
    net.load_state_dict(state)
    return net.eval()


def save_weights(path: Path, net: Network) -> None:
    """Writes parameters and buffers, float16 where they are float."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: value.detach().cpu().numpy() for name, value in net.state_dict().items() if not name.startswith(LEFT_OUT)
    }
    halves = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in arrays.items()}
    np.savez_compressed(path, allow_pickle=False, **halves, strategy=np.array(net.fuse.strategy))


def save_towers(folder: Path, towers: Mapping[str, onnx.ModelProto], bundle: str) -> None:
    """Writes the towers beside their vocabulary, and towers.json: the bundle that they belong to, and digests.

    Args:
        towers: by name; each becomes NAME.onnx.
        bundle: id, the name of the shared space.
    """
    for name, model in towers.items():
        (folder / f"{name}.onnx").write_bytes(store_half(model).SerializeToString(deterministic=True))
    files = (*(f"{name}.onnx" for name in towers), VOCABULARY)
    named = {"space": bundle, "files": {name: sha256_of(folder / name) for name in files}}
    (folder / "towers.json").write_text(json.dumps(named, indent=1) + "\n")


def read_towers(folder: Path) -> dict[str, onnx.ModelProto]:
    """The towers that save_towers wrote.

    Raises:
        OSError: one is not there.
        ConfigError: one is no ONNX model.
    """
    towers = {}
    for name in TOWERS:
        path = folder / f"{name}.onnx"
        try:
            towers[name] = onnx.load(path)
        except DecodeError:
            raise ConfigError(f"{path}: expected an ONNX model, got something else") from None
    return towers


def load_weights(path: Path, grow: bool = False, fusion: str | None = None) -> Network:
    """The network that save_weights wrote.

    Args:
        grow: of an earlier version, too, whose camera has fewer convolutions (`export.training.grow`).
        fusion: begin one of this strategy instead of the one that was saved.

    Raises:
        ConfigError: no such file, a damaged one, or a weight is missing or of another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files if name != "strategy"}
            net = Network(fusion or str(arrays["strategy"]))
        state = grown(state, net.camera) if grow else state
        left_out = (*LEFT_OUT, "fuse.") if fusion else LEFT_OUT
        state = {name: value for name, value in state.items() if not name.startswith(left_out)}
        known = {name: value for name, value in net.state_dict().items() if name.startswith(left_out)}
        net.load_state_dict(known | {name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(f"{path}: expected the weights of this network, got {reason}") from None
    return net.eval()
