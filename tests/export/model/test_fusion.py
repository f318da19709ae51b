"""The presence mask masks in every strategy, the scores stay in 0..1, and the graph says what the module says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from calibration.confidence import Confidence, Kind  # noqa: E402
from export.evaluation.runner import open_engines  # noqa: E402
from export.lower import lower, store_half  # noqa: E402
from export.model.contract import FUSE_OUTPUTS  # noqa: E402
from export.model.fusion import STATE, FuseNet, FuseStep, nearest_distance  # noqa: E402
from export.model.labels import MODALITIES, PRESSING_INTENTS, SOUND_EVENTS  # noqa: E402
from export.model.layers import EMBEDDING  # noqa: E402
from export.model.strategies import FEATURES, STRATEGIES  # noqa: E402

COUNT = len(MODALITIES)
PORTS = [*MODALITIES, "presence", "state"]
OUTPUTS = [*FUSE_OUTPUTS, "state_next"]
PACKABLE = [name for name in STRATEGIES if name != "early"]


def unit(rows: int, seed: int, width: int = EMBEDDING) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=rng), dim=1)


def step_of(strategy: str) -> FuseStep:
    torch.manual_seed(0)
    net = FuseNet(strategy).eval()
    net.centroids.copy_(unit(256, 9))
    return FuseStep(net).eval()


@pytest.fixture(scope="module")
def step() -> FuseStep:
    return step_of("intermediate")


@pytest.mark.parametrize("strategy", PACKABLE)
@pytest.mark.parametrize("absent", range(COUNT))
def test_an_absent_modality_changes_nothing_whatever_it_holds(strategy: str, absent: int) -> None:
    step = step_of(strategy)
    presence = torch.ones(1, COUNT)
    presence[0, absent] = 0.0
    answers = []
    for filling in (0.0, 1.0, float("nan"), float("inf")):
        given = [unit(1, i) for i in range(COUNT)]
        given[absent] = torch.full((1, EMBEDDING), filling)
        with torch.no_grad():
            answers.append([value.numpy() for value in step(*given, presence, torch.tanh(unit(1, 7, STATE)))])
    for other in answers[1:]:
        for value, first in zip(other, answers[0]):
            np.testing.assert_array_equal(value, first)


@pytest.mark.parametrize("strategy", PACKABLE)
@pytest.mark.parametrize("present", range(COUNT))
def test_a_present_modality_does_change_the_answer(strategy: str, present: int) -> None:
    step, presence, state = step_of(strategy), torch.ones(1, COUNT), torch.zeros(1, STATE)
    given = [unit(1, i) for i in range(COUNT)]
    with torch.no_grad():
        one = step(*given, presence, state)
        given[present] = unit(1, 50)
        other = step(*given, presence, state)
    assert float((one[1] - other[1]).abs().max()) > 1e-6


def test_early_fusion_hears_no_absent_features() -> None:
    torch.manual_seed(0)
    net = FuseNet("early").eval()
    given, presence = torch.randn(1, sum(FEATURES)), torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    other = given.clone()
    other[:, : FEATURES[0]] = 7.0
    with torch.no_grad():
        first, second = (net(value, presence, torch.zeros(1, STATE)) for value in (given, other))
    torch.testing.assert_close(first.embedding, second.embedding, rtol=0, atol=0)


def test_scores_stay_within_bounds_and_disagreement_needs_two(step: FuseStep) -> None:
    for seed in range(6):
        for mask in ([1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]):
            presence = torch.tensor([mask], dtype=torch.float32)
            with torch.no_grad():
                given = [unit(1, seed + 20 * i) for i in range(COUNT)]
                outputs = dict(zip(OUTPUTS, step(*given, presence, torch.zeros(1, STATE))))
            assert bool(((outputs["scores"] >= 0) & (outputs["scores"] <= 1)).all())
            assert float(outputs["embedding"].norm()) == pytest.approx(1.0, abs=1e-5)
            assert float(outputs["ego_action"].sum()) == pytest.approx(1.0, abs=1e-5)
            assert bool((outputs["state_next"].abs() <= 1.0).all())
            if sum(mask) < 2:
                assert float(outputs["scores"][0, 1]) == 0.0


def test_novelty_grows_with_the_distance_to_what_was_seen() -> None:
    step = step_of("intermediate")
    step.net.novelty_knots.copy_(torch.tensor([0.01, 0.1, 0.3, 0.6, 1.2]))
    seen = step.net.centroids[:1]
    levels = [
        float(step.net._novelty(torch.nn.functional.normalize(seen + a * unit(1, 3), dim=1))) for a in (0, 0.5, 3)
    ]
    assert levels[0] == 0.0
    assert levels[0] < levels[1] < levels[2] <= 1.0
    assert float(nearest_distance(seen, step.net.centroids)) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("strategy", PACKABLE)
def test_the_engine_gives_what_the_module_gives(strategy: str) -> None:
    step = step_of(strategy)
    example = (*[unit(1, 0) for _ in range(COUNT)], torch.ones(1, COUNT), torch.zeros(1, STATE))
    model = lower(step, example, PORTS, OUTPUTS)
    sessions = open_engines({"whole": model.SerializeToString(), "half": store_half(model).SerializeToString()})
    given = [*(unit(1, i) for i in range(COUNT)), torch.tensor([[1.0, 0.0, 1.0, 1.0]]), torch.tanh(unit(1, 3, STATE))]
    with torch.no_grad():
        expected = [value.numpy() for value in step(*given)]
    feed = {name: value.numpy() for name, value in zip(PORTS, given)}
    for name, tolerance in (("whole", 2e-5), ("half", 5e-3)):
        for value, right in zip(sessions[name].run(OUTPUTS, feed), expected):
            np.testing.assert_allclose(value, right, atol=tolerance)


@pytest.mark.parametrize(
    ("head", "labels", "kind"), [("sound_events", SOUND_EVENTS, "multi"), ("intent", PRESSING_INTENTS, "single")]
)
def test_a_tempered_head_says_what_its_confidence_would_make_of_it(
    head: str, labels: tuple[str, ...], kind: Kind
) -> None:
    step = step_of("intermediate")
    rng = np.random.default_rng(1)
    warmth = rng.uniform(0.5, 2.0, len(labels)) if kind == "multi" else np.full(len(labels), 1.7)
    bias = rng.normal(size=len(labels)) if kind == "multi" else np.zeros(len(labels))
    nothing = (None,) * len(labels)
    learned = Confidence(kind, labels, tuple(warmth), tuple(bias), (), nothing, 0.5, nothing, 0.1, None, {}, {})
    given = [*(unit(1, i) for i in range(COUNT)), torch.ones(1, COUNT), torch.tanh(unit(1, 3, STATE))]
    with torch.no_grad():
        before = step(*given)[FUSE_OUTPUTS.index(head)].numpy()
        step.net.temper(head, learned.temperatures, learned.biases)
        after = step(*given)[FUSE_OUTPUTS.index(head)].numpy()
    np.testing.assert_allclose(after, learned.apply(before), atol=1e-5)
    assert np.abs(after - before).max() > 0.01
