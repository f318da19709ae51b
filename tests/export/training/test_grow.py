"""An earlier camera says the same in today's form, until it is trained on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from edge.errors import ConfigError  # noqa: E402
from export.model.network import Network  # noqa: E402
from export.training.grow import NEW, settle  # noqa: E402
from export.training.weights import load_weights, rounded, save_weights  # noqa: E402


class Pictures:
    """A split of pictures of noise, coarse and fine."""

    def __len__(self) -> int:
        return 6

    def image(self, row: int) -> np.ndarray:
        rng = np.random.default_rng(row)
        coarse = np.kron(rng.integers(0, 200, (24, 40, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        return coarse + rng.integers(0, 50, coarse.shape).astype(np.uint8)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Weights of a network whose camera lacks what is new."""
    torch.manual_seed(3)
    path = tmp_path / "weights.npz"
    save_weights(path, rounded(Network()))
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.startswith(tuple(f"camera.{n}." for n in NEW))}
    np.savez(path, **kept)
    return path


def test_what_is_new_changes_nothing_before_and_after_it_is_settled(earlier: Path) -> None:
    split: Any = Pictures()
    pictures = torch.stack([torch.from_numpy(split.image(row)) for row in range(3)])
    net = load_weights(earlier, grow=True)
    bare = net.camera
    passed = SimpleNamespace(**{name: getattr(bare, name) for name in NEW})
    with torch.no_grad():
        for name in NEW:  # the camera as it was: without them
            setattr(bare, name, torch.nn.Identity())
        was = net.look(pictures)
        for name in NEW:
            setattr(bare, name, getattr(passed, name))
        grown = net.look(pictures)
        settle(bare, split)
        settled = net.look(pictures)
    for said in (grown, settled):
        for before, after in zip(was, said):
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    for name in NEW:
        norm = getattr(bare, name)[1]
        torch.testing.assert_close(norm.weight, torch.sqrt(norm.running_var + norm.eps))
        assert float(norm.running_var.max()) > 0.0


def test_a_convolution_that_was_trained_is_left_as_it_is(earlier: Path) -> None:
    net, split = load_weights(earlier, grow=True), Pictures()
    with torch.no_grad():
        net.camera.fine[0].weight.add_(0.01)
    before = {name: value.clone() for name, value in net.camera.fine.state_dict().items()}
    settle(net.camera, split)  # type: ignore[arg-type]
    for name, value in net.camera.fine.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_weights_of_an_earlier_camera_are_refused_where_nobody_asks_for_it_to_grow(earlier: Path) -> None:
    with pytest.raises(ConfigError, match="expected the weights of this network"):
        load_weights(earlier)
