"""Drives that the edge's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from export.world.command import main as simulate

DRIVE_S = 6.0


def simulated(path: Path, *faults: str, seconds: float = DRIVE_S, seed: int = 5, scenario: str = "demo") -> Path:
    """A simulated drive at `path`."""
    argv = ["--seed", str(seed), "--seconds", str(seconds), "--scenario", scenario, "--out", str(path)]
    for fault in faults:
        argv += ["--fault", fault]
    assert simulate([*argv, "--json"]) == 0
    return path


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of the demo scenario: all six fused streams, raw CAN and ground truth."""
    return simulated(tmp_path_factory.mktemp("drives") / "drive.mcap")


@pytest.fixture(scope="session")
def faulty_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive with a fault of each kind, on different streams at different times."""
    return simulated(
        tmp_path_factory.mktemp("drives") / "faulty.mcap",
        "lidar:drop@1-2",
        "imu:duplicate@1-2",
        "gnss:delay@1-3",
        "audio:stall@2-2.5",
        "vehicle:clock_step@3-4",
        "camera:corrupt@3-3.5",
        "camera:drop@4-4.4",
        seconds=6.0,
        seed=6,
    )


@pytest.fixture
def simulate_drive(tmp_path: Path) -> Callable[..., Path]:
    """Simulates a drive with the given faults into a fresh file."""

    def make(*faults: str, seconds: float = 3.0, seed: int = 8, scenario: str = "mixed") -> Path:
        return simulated(tmp_path / "simulated.mcap", *faults, seconds=seconds, seed=seed, scenario=scenario)

    return make
