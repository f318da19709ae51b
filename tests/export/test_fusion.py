"""The presence mask masks, the scores stay in 0..1, and the graph says what the module says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from export.fusion import FuseNet, FuseStep, nearest_distance  # noqa: E402
from export.lower import lower, store_half  # noqa: E402
from export.runner import open_engines  # noqa: E402

PORTS = ["camera", "audio", "motion", "presence", "state"]
OUTPUTS = ["embedding", "scene_tags", "sound_events", "scores", "state_next"]


def unit(rows: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 128, generator=rng), dim=1)


@pytest.fixture(scope="module")
def step() -> FuseStep:
    torch.manual_seed(0)
    net = FuseNet().eval()
    net.centroids.copy_(unit(256, 9))
    return FuseStep(net).eval()


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_an_absent_modality_changes_nothing_whatever_it_holds(step: FuseStep, absent: int) -> None:
    presence = torch.ones(1, 3)
    presence[0, absent] = 0.0
    state = torch.tanh(unit(1, 7))
    answers = []
    for filling in (0.0, 1.0, float("nan"), float("inf")):
        given = [unit(1, i) for i in range(3)]
        given[absent] = torch.full((1, 128), filling)
        with torch.no_grad():
            answers.append([value.numpy() for value in step(*given, presence, state)])
    for other in answers[1:]:
        for value, first in zip(other, answers[0]):
            np.testing.assert_array_equal(value, first)


def test_a_present_modality_does_change_the_answer(step: FuseStep) -> None:
    presence, state = torch.ones(1, 3), torch.zeros(1, 128)
    with torch.no_grad():
        one = step(unit(1, 0), unit(1, 1), unit(1, 2), presence, state)
        other = step(unit(1, 0), unit(1, 5), unit(1, 2), presence, state)
    assert float((one[1] - other[1]).abs().max()) > 1e-6


def test_scores_stay_within_bounds_and_disagreement_needs_two(step: FuseStep) -> None:
    for seed in range(8):
        for mask in ([1, 1, 1], [1, 0, 0], [0, 0, 0]):
            presence = torch.tensor([mask], dtype=torch.float32)
            with torch.no_grad():
                outputs = step(unit(1, seed), unit(1, seed + 20), unit(1, seed + 40), presence, torch.zeros(1, 128))
            scores = outputs[3][0]
            assert bool(((scores >= 0) & (scores <= 1)).all())
            assert float(outputs[0].norm()) == pytest.approx(1.0, abs=1e-5)
            assert bool((outputs[4].abs() <= 1.0).all())
            if sum(mask) < 2:
                assert float(scores[1]) == 0.0


def test_novelty_grows_with_the_distance_to_what_was_seen(step: FuseStep) -> None:
    step.net.novelty_knots.copy_(torch.tensor([0.01, 0.1, 0.3, 0.6, 1.2]))
    seen = step.net.centroids[:1]
    levels = [
        float(step.net._novelty(torch.nn.functional.normalize(seen + a * unit(1, 3), dim=1))) for a in (0, 0.5, 3)
    ]
    assert levels[0] == 0.0
    assert levels[0] < levels[1] < levels[2] <= 1.0
    assert float(nearest_distance(seen, step.net.centroids)) == pytest.approx(0.0, abs=1e-5)


def test_the_engine_gives_what_the_module_gives(step: FuseStep) -> None:
    zeros = torch.zeros(1, 128)
    model = lower(step, (zeros, zeros, zeros, torch.ones(1, 3), zeros), PORTS, OUTPUTS)
    assert lower(step, (zeros, zeros, zeros, torch.ones(1, 3), zeros), PORTS, OUTPUTS) == model
    sessions = open_engines({"whole": model.SerializeToString(), "half": store_half(model).SerializeToString()})
    given = [unit(1, 0), unit(1, 1), unit(1, 2), torch.tensor([[1.0, 0.0, 1.0]]), torch.tanh(unit(1, 3))]
    with torch.no_grad():
        expected = [value.numpy() for value in step(*given)]
    feed = {name: value.numpy() for name, value in zip(PORTS, given)}
    for name, tolerance in (("whole", 2e-5), ("half", 5e-3)):
        for value, right in zip(sessions[name].run(OUTPUTS, feed), expected):
            np.testing.assert_allclose(value, right, atol=tolerance)
