"""Training the analyst: it learns from what comes later, the graph says what the network says, and runs repeat."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

import onnxruntime as ort  # noqa: E402

from cloud.analyst.network import AnalystNetwork  # noqa: E402
from export.evaluation.analyst import calibration_error  # noqa: E402
from export.model.analyst import FINER, Analyst, Panel, probabilities  # noqa: E402
from export.model.analyst_outputs import BOXES, COLUMNS, GROUPS, OUTPUTS, WINDOW, fact_slices  # noqa: E402
from export.model.labels import FACT_SIZES, FACTS  # noqa: E402
from export.model.network import Network  # noqa: E402
from export.training.analyst import lower_panel, main, train_member, train_panel  # noqa: E402
from export.training.analyst_clips import Clips  # noqa: E402
from export.training.analyst_confidence import fitted_absence, fitted_temperatures, looked_at  # noqa: E402
from export.training.progress import Progress  # noqa: E402
from export.training.schedule import Stage  # noqa: E402

PER_WORLD = 6
STAGE = Stage(12, 16, 2e-3)


def clips(worlds: int = 12, seed: int = 0) -> Clips:
    """Worlds whose light is told by the last moment's camera alone; everything else is noise."""
    rng = torch.Generator().manual_seed(seed)
    lights = torch.nn.functional.normalize(torch.randn(4, 192, generator=torch.Generator().manual_seed(9)), dim=1)
    light = torch.randint(1, 4, (worlds,), generator=rng)
    found = torch.randn(worlds, PER_WORLD, 4, 192, generator=rng)
    found[:, -1, 0] = lights[light] * 30.0
    facts = torch.zeros(worlds, PER_WORLD, 13, dtype=torch.int64)
    facts[:, :, list(FACTS).index("light")] = light[:, None]
    facts[:, :, 9] = torch.randint(0, 2, (worlds, PER_WORLD), generator=rng)
    facts = facts.flatten(0, 1)
    besides = torch.randint(0, 2, (len(facts), 5), generator=rng).float()
    moment = torch.unique(facts, dim=0, return_inverse=True)[1]
    boxes = boxes_of(len(facts), rng)
    return Clips(torch.nn.functional.normalize(found.flatten(0, 1), dim=2), boxes, facts, besides, moment, PER_WORLD)


def boxes_of(count: int, rng: torch.Generator) -> torch.Tensor:
    """Boxes of any class, size and kind."""
    boxes = torch.rand(count, *BOXES, generator=rng)
    boxes[..., 0] = torch.randint(0, 3, boxes.shape[:2], generator=rng)
    boxes[..., 6] = torch.randint(0, FINER, boxes.shape[:2], generator=rng)
    return boxes


@pytest.fixture(scope="module")
def net() -> Network:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Network().eval()


def panel_of(seed: int, members: int = 2) -> Panel:
    torch.manual_seed(seed)
    return Panel([Analyst() for _ in range(members)]).eval()


def test_a_moment_is_told_by_what_comes_after_it(net: Network) -> None:
    panel = train_panel(net, clips(60), Stage(60, 32, 3e-3), 1, 1, Progress(None, {}, 1))
    other = clips(30, seed=1)
    with torch.no_grad():
        boxes = other.boxes.reshape(-1, PER_WORLD, *BOXES)
        seen = panel.members[0](other.found.reshape(-1, PER_WORLD, 4, 192), torch.ones(30, PER_WORLD, 4), boxes)
    part = fact_slices()[list(FACTS).index("light")]
    said = seen.logits[:, 0, part].argmax(1)
    # Of the first moment itself nothing tells it; a guess is right in a third.
    assert (said == other.facts[::PER_WORLD, 1]).float().mean() > 0.6


def test_boxes_count_where_the_camera_is_there_and_only_there() -> None:
    panel, rng = panel_of(4, 1), torch.Generator().manual_seed(1)
    given, here = torch.nn.functional.normalize(torch.randn(6, 4, 192, generator=rng), dim=2), torch.ones(6, 4)
    some, others = boxes_of(6, rng), boxes_of(6, rng)
    blind = here * torch.tensor([0.0, 1.0, 1.0, 1.0])
    nothing = torch.zeros(6, *BOXES)
    with torch.no_grad():
        assert float((panel(given, here, some)[0] - panel(given, here, others)[0]).abs().max()) > 1e-4
        torch.testing.assert_close(panel(given, blind, some), panel(given, blind, others), rtol=0, atol=0)
        shuffled = some[:, torch.randperm(BOXES[0], generator=rng)]
        torch.testing.assert_close(panel(given, here, some), panel(given, here, shuffled))  # no order among them
        unlikely = others.clone()
        unlikely[..., 1] = 0.0
        torch.testing.assert_close(panel(given, here, nothing), panel(given, here, unlikely))


def test_the_graph_says_what_the_network_says_at_any_length() -> None:
    panel = panel_of(3)
    panel.temperatures.uniform_(0.5, 2.0)
    panel.absence.uniform_(-0.5, 1.0)
    session = ort.InferenceSession(lower_panel(panel).SerializeToString())
    for count in (1, 5, WINDOW):
        given = torch.nn.functional.normalize(torch.randn(count, 4, 192), dim=2)
        here = (torch.rand(count, 4) > 0.3).float()
        boxes = boxes_of(count, torch.Generator().manual_seed(count))
        with torch.no_grad():
            said, embedding = panel(given, here, boxes)
        p, e = session.run(None, {"embeddings": given.numpy(), "presence": here.numpy(), "boxes": boxes.numpy()})
        np.testing.assert_allclose(p, said, atol=5e-3)  # float16 weights
        np.testing.assert_allclose(e, embedding, atol=5e-3)


def test_probabilities_of_a_fact_sum_to_one_at_any_temperature() -> None:
    p = probabilities(torch.randn(7, OUTPUTS) * 5.0, torch.rand(len(GROUPS)) + 0.3)
    assert len(COLUMNS) == OUTPUTS
    for part, size in zip(fact_slices(), FACT_SIZES):
        assert p[:, part].shape[1] == size
        torch.testing.assert_close(p[:, part].sum(1), torch.ones(7))
    assert float(p.min()) >= 0.0 and float(p.max()) <= 1.0


def test_fitted_temperatures_make_overconfident_outputs_honest() -> None:
    panel, known = panel_of(5, 1), clips(40, seed=2)
    analyst = panel.members[0]
    with torch.no_grad():
        analyst.say.weight.zero_()
        analyst.say.bias.zero_()
        analyst.say.bias[fact_slices()[1]] = torch.tensor([-40.0, 12.0, 0.0, 0.0])  # surer of the day than it is so
    warm = fitted_temperatures(panel, known)
    p = probabilities(analyst.say.bias[None].expand(len(known.facts), -1).detach(), warm)[:, fact_slices()[1]]
    holds = known.facts[:, 1:2].numpy() == np.arange(4)
    assert float(warm[1]) == pytest.approx(4.0)
    assert calibration_error(p.numpy().ravel(), holds.ravel()) < 0.3
    assert torch.isfinite(warm).all()


def test_without_what_tells_it_the_network_is_less_sure(net: Network) -> None:
    panel = train_panel(net, clips(60), Stage(40, 32, 3e-3), 1, 1, Progress(None, {}, 1))
    known = clips(20, seed=4)
    panel.temperatures.copy_(fitted_temperatures(panel, known))
    blind = torch.tensor([1.0, 0.0, 0.0, 0.0])  # of the camera, which alone tells the light
    without, _ = looked_at(panel, known, (False, True, True, True))
    before = probabilities(without, panel.warmth(blind))[:, fact_slices()[1]]
    panel.absence.copy_(fitted_absence(panel, known))
    after = probabilities(without, panel.warmth(blind))[:, fact_slices()[1]]
    holds = (known.facts[:, 1:2] == torch.arange(4)).numpy().ravel()
    assert calibration_error(after.numpy().ravel(), holds) <= calibration_error(before.numpy().ravel(), holds) + 0.01
    assert float(panel.absence[1, 0]) > 0.0
    torch.testing.assert_close(panel.warmth(torch.zeros(4)), panel.temperatures)


def test_a_member_does_not_depend_on_who_was_trained_before(net: Network) -> None:
    both = train_panel(net, clips(), STAGE, 1, 2, Progress(None, {}, 1))
    alone = panel_of(0)
    torch.manual_seed(101)
    alone.members[1].load_state_dict(Analyst().state_dict())
    alone.train()
    train_member(net, alone, alone.members[1], clips(), STAGE, 101, Progress(None, {}, 1), "analyst 2")  # type: ignore[arg-type]
    for name, value in both.members[1].state_dict().items():
        torch.testing.assert_close(alone.members[1].state_dict()[name], value, rtol=0, atol=0)


def test_the_command_writes_a_network_that_the_cloud_opens(tmp_path: Path) -> None:
    out = tmp_path / "analyst.onnx"
    arguments = ["--small", "--steps", "2", "--cache", str(tmp_path), "--out", str(out), "--run", str(tmp_path / "run")]
    assert main(arguments) == 0
    network = AnalystNetwork.open(tmp_path)
    first = out.read_bytes()
    said = json.loads(out.with_suffix(".json").read_text())
    assert said["space"] == network.space
    assert set(said["figures"]["facts"]) == set(GROUPS)
    assert "<polyline" in (tmp_path / "run" / "analyst 2.svg").read_text()
    assert main([*arguments[:-2]]) == 0  # the same again, without a folder of checkpoints
    assert out.read_bytes() == first
    out.with_suffix(".json").write_text(json.dumps(said | {"space": "another", "figures": {}}))
    assert main([*arguments[:-2], "--keep"]) == 0
    assert out.read_bytes() == first
    assert json.loads(out.with_suffix(".json").read_text()) == said
