"""Float weights beside a bundle: float16 in one compressed file, enough to go on training or to lower again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edge.errors import ConfigError
from export.learn import Network


def save_weights(path: Path, net: Network) -> None:
    """Writes every parameter and buffer, float16 where it is float."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    halves = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in arrays.items()}
    np.savez_compressed(path, allow_pickle=False, **halves)


def load_weights(path: Path) -> Network:
    """The network that save_weights wrote.

    Raises:
        ConfigError: a weight is missing or of another shape.
    """
    net = Network()
    with np.load(path, allow_pickle=False) as arrays:
        state = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    try:
        net.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    except RuntimeError as error:
        raise ConfigError(f"{path}: not the weights of this network ({error})") from error
    return net.eval()
