"""Evened channels: the same network in float, a better one in int8."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from calibration.ranges import collect  # noqa: E402
from export.lower import lower  # noqa: E402
from export.model.network import Network  # noqa: E402
from export.sensitivity import Meter  # noqa: E402
from export.training.batches import plain  # noqa: E402
from export.training.dataset import Split, prepare  # noqa: E402
from export.training.equalise import equalise  # noqa: E402
from export.training.plan import WorldPlan  # noqa: E402

ROWS = np.array([0, 3, 5, 7])
UNEVEN = 30.0
ENCODERS = ("camera", "audio", "lidar")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return prepare(tmp_path_factory.mktemp("worlds"), [WorldPlan(5, 3, "crossing", "clear", "day", 3)], 1)


@pytest.fixture
def net() -> Network:
    """One whose channels reach unlike far, but which says what an even one would."""
    torch.manual_seed(1)
    uneven = Network().eval()
    with torch.no_grad():
        for body in (uneven.lidar.body, uneven.camera.near):
            factor = torch.logspace(0, float(np.log10(UNEVEN)), body[0][0].out_channels)
            body[0][1].weight.div_(factor)
            body[0][1].bias.div_(factor)
            body[1][0].weight.mul_(factor[:, None, None])
    return uneven


def test_the_network_says_the_same(net: Network, split: Split) -> None:
    even = copy.deepcopy(net)
    equalise(even, ENCODERS, [plain(split, ROWS)])
    batch = plain(split, ROWS)
    one, other = (a.encode(batch.image, batch.pcm, batch.motion, batch.lidar) for a in (net, even))
    assert not torch.equal(net.camera.near[0][1].weight, even.camera.near[0][1].weight)
    for before, after in zip(one, other):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_an_encoder_that_is_not_named_stays_as_it_is(net: Network, split: Split) -> None:
    even = copy.deepcopy(net)
    equalise(even, ["camera"], [plain(split, ROWS)])
    assert not torch.equal(net.camera.near[0][1].weight, even.camera.near[0][1].weight)
    for name, value in net.state_dict().items():
        if not name.startswith("camera."):
            torch.testing.assert_close(even.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_a_second_pass_changes_nothing(net: Network, split: Split) -> None:
    equalise(net, ENCODERS, [plain(split, ROWS)])
    once = copy.deepcopy(net.state_dict())
    equalise(net, ENCODERS, [plain(split, ROWS)])
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, once[name], rtol=1e-3, atol=1e-6, msg=name)


def test_int8_loses_less_of_evened_channels(net: Network, split: Split, tmp_path: Path) -> None:
    even = copy.deepcopy(net)
    equalise(even, ENCODERS, [plain(split, ROWS)])
    feeds = [{"lidar": np.asarray(split.lidar[row : row + 1], np.float32)} for row in ROWS]

    def worst_db(body: Network) -> float:
        graph = lower(body.lidar, (torch.zeros(1, 2, 16, 256),), ["lidar"], ["embedding"])
        return Meter(graph, collect(graph.SerializeToString(deterministic=True), feeds), feeds).worst_db()

    assert worst_db(even) > worst_db(net) + 3.0
