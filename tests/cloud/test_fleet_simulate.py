"""`roadfuse fleet simulate` as people call it: a whole cloud, a real broker and database, 40 vehicles in a hurry."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.edge.broker import MOSQUITTO

VEHICLES = 40
SPEED = 3_000
# All of them drive on and on, with a network: so a stop is for each.
HABITS = {
    "drive_h": 10_000,
    "parked_h": 0.01,
    "tunnels_per_h": 0,
    "heartbeat_s": 1200,
    "failures_per_h": 10,
    "spread": 0,
}
POLICY = """
[shadow]
share = 0.5

[[waves]]
name = "canary"
share = 0.25
least_hours = 5.0

[[waves]]
name = "all"

[control]
share = 0.0

[tests]
alpha_promote = 0.2
"""

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@dataclass(frozen=True)
class Rehearsed:
    """Exit code, and what the rehearsal came to."""

    code: int
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rehearsed]:
    """A good release and a worse one, both at once: most of a rehearsal is waiting."""
    folder = tmp_path_factory.mktemp("rehearsal")
    (folder / "scenario.json").write_text(json.dumps(HABITS))
    (folder / "policy.toml").write_text(POLICY)

    def run(plant: str) -> Rehearsed:
        words = ["--scenario", folder / "scenario.json", "--policy", folder / "policy.toml", "--plant", plant]
        words += ["--vehicles", VEHICLES, "--speed", SPEED, "--hours", 80, "--processes", 1, "--json"]
        argv = [sys.executable, "-m", "edge.command", "fleet", "simulate", *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        assert done.stdout, done.stderr[-2000:]
        return Rehearsed(done.returncode, json.loads(done.stdout))

    plants = {"good": "", "worse": "failures=10,wrong=5"}
    with ThreadPoolExecutor() as threads:
        return dict(zip(plants, threads.map(run, plants.values()), strict=True))


def test_a_good_release_reaches_the_whole_fleet(rehearsed: dict[str, Rehearsed]) -> None:
    good = rehearsed["good"]
    assert good.code == 0 and good.outcome["state"] == "done", good
    assert good.outcome["running"] == good.outcome["acted"] == VEHICLES
    assert "stop" not in good.outcome and good.outcome["check_ins"] >= VEHICLES


def test_a_worse_release_is_stopped_by_evidence_before_anybody_acts_on_it(rehearsed: dict[str, Rehearsed]) -> None:
    worse = rehearsed["worse"]
    assert worse.code == 1 and worse.outcome["state"] == "stopped", worse
    assert worse.outcome["why"].startswith("worse in the shadow: ") and worse.outcome["acted"] == 0


def test_a_stop_reaches_every_vehicle_that_has_a_network(rehearsed: dict[str, Rehearsed]) -> None:
    outcome = rehearsed["worse"].outcome
    assert outcome["stop"]["vehicles"] == VEHICLES and outcome["late"] == 0
