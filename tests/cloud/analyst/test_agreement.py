"""Where the vehicle erred: only labels that both know, at the same frames, with how sure the analyst is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.analyst.agreement import agreement
from cloud.analyst.clip import Replayed, Told
from cloud.analyst.health import health
from edge.decision import Alignment, ClockOffset, RigDoubt, Suspect

STEP_NS = 250_000_000
NAMES = ("light:night", "sound:siren", "tag:sign")


def told(stamp_ns: int, labels: dict[str, float], hardness: float = 0.5, **more: Any) -> Told:
    return Told(stamp_ns, hardness, labels, more.get("alignment", Alignment()), more.get("absences", {}))


def clip(edge: list[dict[str, float]], shift_ns: int = 0) -> Replayed:
    stamps = [STEP_NS * (i + 1) for i in range(len(edge))]
    made = Replayed(1_000, stamps_ns=stamps)
    made.edge = [told(stamp_ns + shift_ns, labels, 0.4) for stamp_ns, labels in zip(stamps, edge)]
    made.again = [told(stamp_ns, {}, 0.5) for stamp_ns in stamps]
    return made


def test_a_clip_without_decisions_has_no_agreement() -> None:
    assert agreement(clip([]), []) is None


def test_where_they_differ_the_vehicle_erred_as_surely_as_the_analyst_is() -> None:
    edge = [{"light:night": 0.9, "sound:siren": 0.1, "tag:x": 1.0}] * 2
    ours = [{"light:night": 0.95, "sound:siren": 0.7}, {"light:night": 0.9, "sound:siren": 0.97, "sign:stop": 1.0}]
    found = agreement(clip(edge), ours)
    assert found is not None and (found["moments"], found["compared"], found["agreed"]) == (2, 4, 0.5)
    (difference,) = found["differences"]
    assert difference == {
        "label": "sound:siren", "edge_said": False, "moments": 2, "sure": 0.97, "edge": 0.1, "analyst": 0.97,
        "instant_ns": str(2 * STEP_NS), "at_s": 0.25,
    }  # fmt: skip
    assert found["expected_errors"] == pytest.approx(0.05 + 0.7 + 0.1 + 0.97)
    assert found["hardness"] == {
        "edge_peak": 0.4, "again_peak": 0.5, "apart_mean": pytest.approx(0.1), "apart_most": pytest.approx(0.1),
    }  # fmt: skip


def test_a_false_alarm_is_told_apart_from_a_miss() -> None:
    found = agreement(clip([{"sound:siren": 0.9}, {"sound:siren": 0.1}]), [{"sound:siren": 0.2}, {"sound:siren": 0.6}])
    assert found is not None
    assert [(row["edge_said"], row["sure"]) for row in found["differences"]] == [(True, 0.8), (False, 0.6)]


def test_frames_that_are_not_the_same_are_not_compared() -> None:
    found = agreement(clip([{"light:night": 0.9}], shift_ns=40_000_000), [{"light:night": 0.1}])
    assert found is not None and (found["moments"], found["agreed"], found["differences"]) == (0, None, [])


PROBABILITIES = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1))


@given(st.lists(st.tuples(PROBABILITIES, PROBABILITIES), min_size=1, max_size=20))
def test_the_share_that_agrees_and_the_differences_add_up(pairs: list[tuple[Any, Any]]) -> None:
    found = agreement(clip([edge for edge, _ in pairs]), [ours for _, ours in pairs])
    assert found is not None and found["moments"] == len(pairs)
    apart = sum(row["moments"] for row in found["differences"])
    if found["compared"]:
        assert found["agreed"] == pytest.approx(1.0 - apart / found["compared"])
    assert 0.0 <= found["expected_errors"] <= found["compared"]
    assert all(0.5 < row["sure"] <= 1.0 for row in found["differences"])


def test_health_tells_what_was_absent_suspect_late_and_out_of_place() -> None:
    made = clip([{}] * 4)
    doubt = Alignment(
        0.6, (Suspect("camera", "blurred", 0.8, STEP_NS),), (ClockOffset("audio", 70_000_000, 0.99),),
        RigDoubt("yaw_deg", 1.5, STEP_NS, 1.2),
    )  # fmt: skip
    made.edge[2] = told(3 * STEP_NS, {}, alignment=doubt, absences={"lidar": "silent"})
    made.edge[3] = told(4 * STEP_NS, {}, absences={"lidar": "silent"})
    found = health(made)
    assert (found["by"], found["agreement_least"]) == ("edge", 0.6)
    assert found["absences"] == [{"stream": "lidar", "reason": "silent", "share": 0.5, "from_s": 0.5, "to_s": 0.75}]
    assert found["suspects"] == [{"stream": "camera", "kind": "blurred", "evidence": 0.8, "frames": 1, "since_s": 0.0}]
    assert found["clocks"] == [{"stream": "audio", "late_ms": 70.0, "confidence": 0.99}]
    assert found["rig"] == {"axis": "yaw_deg", "amount": 1.5, "score": 1.2, "since_s": 0.0}
    made.edge = []
    assert health(made)["by"] == "analyst" and health(made)["suspects"] == []
