"""What the gates refuse once engines and drives run: parity, response, latency, replay, on two short drives.

ROADFUSE_LONG=1 takes every kind of bad bundle and every good one, on the standard drives.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloud.gates.candidate import Candidate
from cloud.gates.drives import prepare
from cloud.gates.policy import Policy
from cloud.gates.run import GATES, judged, run
from cloud.gates.verdict import PASSED, REFUSED, SKIPPED, Verdict
from cloud.gates.yardstick import Yardstick
from edge.bundle import REFERENCE

from . import bad_bundles, good_bundles

LONG = bool(os.environ.get("ROADFUSE_LONG"))
# Two drives have few segments; a domain has one drive.
FEW = Policy(least_units=4)
FINE = Policy(least_units=6, segment_s=1.0, alpha=0.2)


@pytest.fixture(scope="module")
def yardstick(tmp_path_factory: pytest.TempPathFactory) -> Yardstick:
    return Yardstick(None, prepare(tmp_path_factory.mktemp("drives"), "short"))


def verdict(gate: str, kind: str, folder: Path, yardstick: Yardstick, policy: Policy = FEW) -> Verdict:
    """Of one gate on one kind of bundle, good or bad."""
    maker = bad_bundles if kind in bad_bundles.KINDS else good_bundles
    made, hardware = maker.make(kind, folder)
    return judged(gate, GATES[gate], Candidate(made, yardstick, hardware, policy))


@pytest.mark.parametrize("kind", ["coarse_activations_audio"])
def test_lowerings_and_int8_that_say_something_else_are_refused(
    kind: str, tmp_path: Path, yardstick: Yardstick
) -> None:
    assert verdict("parity", kind, tmp_path / "bundle", yardstick).verdict == REFUSED


@pytest.mark.parametrize("kind", ["lidar_flipped", "faint_motion_in_fusion", "drifting_state"])
def test_input_or_past_that_no_longer_counts_is_refused(kind: str, tmp_path: Path, yardstick: Yardstick) -> None:
    found = verdict("response", kind, tmp_path / "bundle", yardstick)
    assert found.verdict == REFUSED, found


def test_slow_engine_is_refused_by_its_cpu_time(tmp_path: Path, yardstick: Yardstick) -> None:
    found = verdict("latency", "slow_camera", tmp_path / "bundle", yardstick)
    assert found.verdict == REFUSED
    assert found.detail["ratio"] > 1.25


@pytest.mark.parametrize("kind", ["high_object_threshold"])
def test_worse_decisions_on_recorded_drives_are_refused(kind: str, tmp_path: Path, yardstick: Yardstick) -> None:
    found = verdict("replay", kind, tmp_path / "bundle", yardstick)
    assert found.verdict == REFUSED
    assert found.detail["worst"][0]["low"] > found.detail["worst"][0]["effect"]


def test_bundle_that_is_worse_in_rain_alone_is_refused_and_rain_is_named(tmp_path: Path, yardstick: Yardstick) -> None:
    found = verdict("replay", "worse_in_rain", tmp_path / "bundle", yardstick, FINE)
    assert found.verdict == REFUSED
    worse = {row["slice"] for row in found.detail["worst"] if row["low"] > row["effect"]}
    assert worse == {"rain", "night"}, "it rains in the drive by night"


@pytest.mark.parametrize("gate", ["parity", "response", "replay"])
def test_bundle_nudged_by_less_than_matters_passes(gate: str, tmp_path: Path, yardstick: Yardstick) -> None:
    found = verdict(gate, "all nudged 1", tmp_path / "bundle", yardstick)
    assert found.verdict == PASSED, found.why


def test_without_drives_the_replay_is_skipped_and_says_so() -> None:
    found = judged("replay", GATES["replay"], Candidate(REFERENCE, Yardstick(), ("x86",)))
    assert (found.verdict, found.why) == (SKIPPED, "no drives given (--drives)")


def test_gates_stop_at_the_first_refusal_unless_all_are_asked_for(tmp_path: Path) -> None:
    folder, hardware = bad_bundles.make("another_name", tmp_path / "bundle")
    yardstick = Yardstick()
    assert [found.gate for found in run(Candidate(folder, yardstick, hardware))] == ["whole"]
    every = [found.gate for found in run(Candidate(folder, yardstick, hardware), every=True)]
    assert every == list(GATES)


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Yardstick:
    return Yardstick(None, prepare(tmp_path_factory.mktemp("standard"), "standard"))


@pytest.mark.skipif(not LONG, reason="ROADFUSE_LONG=1 takes all of them, on the standard drives")
@pytest.mark.parametrize("kind", list(bad_bundles.KINDS))
def test_every_kind_of_bad_bundle_is_refused(kind: str, tmp_path: Path, standard: Yardstick) -> None:
    folder, hardware = bad_bundles.make(kind, tmp_path / "bundle")
    last = list(run(Candidate(folder, standard, hardware)))[-1]
    assert last.verdict == REFUSED


@pytest.mark.skipif(not LONG, reason="ROADFUSE_LONG=1 takes all of them, on the standard drives")
@pytest.mark.parametrize("kind", list(good_bundles.KINDS))
def test_every_good_bundle_passes(kind: str, tmp_path: Path, standard: Yardstick) -> None:
    folder, hardware = good_bundles.make(kind, tmp_path / "bundle")
    refused = [found for found in run(Candidate(folder, standard, hardware)) if found.verdict != PASSED]
    assert not refused, refused
