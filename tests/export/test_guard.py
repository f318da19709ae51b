"""The guard: what loses in int8 is not emitted, and what was measured is written down."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

from onnx import numpy_helper  # noqa: E402

from calibration.canonical import canonical_bytes  # noqa: E402
from calibration.ranges import collect  # noqa: E402
from edge.errors import ConfigError  # noqa: E402
from export import guard as guards  # noqa: E402
from export.guard import Plan, guard, read_plan, structure  # noqa: E402
from export.lowerings import int8_nodes, lower_to  # noqa: E402
from export.sensitivity import Meter  # noqa: E402
from tests.export import graphs  # noqa: E402


class Stopwatch:
    """Stands in for the clock only: layer -> share of the float graph's time that its int8 saves (negative: costs)."""

    def __init__(self, saved: dict[str, float]) -> None:
        self._saved = saved

    def __call__(self, meter: Meter) -> Stopwatch:
        return self

    def ratio(self, one: Collection[str] | None, other: Collection[str] | None) -> float:
        return self._time(one) / self._time(other)

    def _time(self, floats: Collection[str] | None) -> float:
        return 1.0 if floats is None else 1.0 - sum(v for name, v in self._saved.items() if name not in floats)


@pytest.fixture(scope="module")
def meter() -> Meter:
    model, feeds = graphs.camera(), graphs.pictures(12)
    return Meter(model, collect(model.SerializeToString(), feeds), feeds)


EVEN = dict.fromkeys(("first", "inner", "far", "lateral", "blend", "head"), 0.1)


def planned(meter: Meter, monkeypatch: pytest.MonkeyPatch, saved: dict[str, float], min_db: float = 0.0) -> Plan:
    monkeypatch.setattr(guards, "_Timing", Stopwatch(saved))
    return guard(meter, "a machine", min_db)


def test_what_wins_everywhere_stays_int8(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(meter, monkeypatch, EVEN)
    assert plan.floats == {}
    assert plan.measured["speedup"] == 2.5
    assert plan.measured["int8_layers"] == 6


def test_a_layer_that_is_slower_in_int8_stays_float(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(meter, monkeypatch, EVEN | {"lateral": -0.05})
    assert list(plan.floats) == ["lateral"]
    assert plan.floats["lateral"].startswith("latency")
    assert not any(
        "lateral." in t.name for t in lower_to(meter.model, meter.ranges, "x86", plan.floats).graph.initializer
    )


def test_a_gain_within_the_noise_decides_nothing(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(meter, monkeypatch, EVEN | {"lateral": -0.003}).floats == {}


def test_where_int8_as_a_whole_is_slower_everything_stays_float(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(meter, monkeypatch, dict.fromkeys(EVEN, -0.001))
    assert set(plan.floats) == set(EVEN)
    assert plan.measured["speedup"] == 1.0
    lowered = lower_to(meter.model, meter.ranges, "x86", plan.floats)
    assert "QuantizeLinear" not in {node.op_type for node in lowered.graph.node}


def test_the_floor_of_accuracy_is_reached_by_leaving_the_noisiest_out(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = meter.worst_db() + 1.0
    plan = planned(meter, monkeypatch, EVEN, floor)
    assert 0 < len(plan.floats) < 6
    assert meter.worst_db(floats=plan.floats) >= floor
    assert all(why.startswith("accuracy") for why in plan.floats.values())


def test_a_layer_that_makes_most_of_the_noise_for_little_time_stays_float(monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = graphs.camera(), graphs.pictures(12)
    for tensor in model.graph.initializer:
        if tensor.name == "head_w":
            values = numpy_helper.to_array(tensor).copy()
            values[:, 0] = 50.0 * values.std()
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    meter = Meter(model, collect(model.SerializeToString(), feeds), feeds)
    meter.probes = ("head_out",)
    cheap = planned(meter, monkeypatch, EVEN | {"head": 0.01})
    assert cheap.floats.get("head", "").startswith("bargain")
    assert "head" not in planned(meter, monkeypatch, EVEN | {"head": 0.2}).floats


def test_the_real_clock_gives_a_plan_that_lowers(meter: Meter) -> None:
    plan = guard(meter, "here", 0.0)
    assert set(plan.floats) <= set(EVEN)
    assert plan.measured["speedup"] >= 1.0
    left = [name for name in int8_nodes(meter.model, plan.floats) if name in EVEN]
    assert len(left) == plan.measured["int8_layers"]


def test_a_plan_survives_the_disk_and_gives_the_same_bytes(meter: Meter, tmp_path: Path) -> None:
    plan = Plan(structure(meter.model), {"head": "latency: measured"}, {"machine": "m"})
    (tmp_path / "p.json").write_text(plan.to_json())
    read = read_plan(tmp_path / "p.json")
    assert read == plan
    one, other = (lower_to(meter.model, meter.ranges, "trt", found.floats) for found in (plan, read))
    assert canonical_bytes(one) == canonical_bytes(other)


def test_a_plan_stays_when_weights_change_and_is_refused_for_another_network(meter: Meter) -> None:
    retrained = graphs.camera()
    retrained.graph.initializer[3].CopyFrom(
        numpy_helper.from_array(
            numpy_helper.to_array(retrained.graph.initializer[3]) * 2, retrained.graph.initializer[3].name
        )
    )
    plan = Plan(structure(meter.model), {}, {})
    plan.fits(retrained)
    with pytest.raises(ConfigError, match="expected the plan of the graph"):
        plan.fits(graphs.attention())


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 9}', '{"format": 1}', '{"format": 1, "structure": "a", "floats": 3}']
)
def test_what_is_no_plan_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ConfigError, match=r"p.json: plan: ") as caught:
        read_plan(tmp_path / "p.json")
    assert "\n" not in str(caught.value)
