"""A recorded drive becomes the same frames, tensors and targets as a rendered world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.drive.writer import DriveWriter
from edge.errors import ConfigError
from export.evaluation.drives import split_of_drives
from export.training.plan import FPS, WARM_UP_S
from export.world.command import main as simulate


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive.mcap"
    options = ["--seed", "9", "--seconds", "3", "--scenario", "urban", "--weather", "snow", "--light", "day"]
    assert simulate([*options, "--out", str(path), "--json"]) == 0
    return path


def test_a_drive_gives_four_frames_a_second_with_all_that_the_vehicle_had(recorded: Path) -> None:
    split = split_of_drives([recorded])
    assert len(split) == (3 - WARM_UP_S) * FPS
    assert split.image(0).shape == (384, 640, 3)
    assert np.abs(split.pcm).max(1).min() > 0
    assert (split.lidar[:, 0].max((1, 2)) > 0.1).all()
    assert (split.motion[:, 11] == 1.0).all()
    assert set(split.domains[:, 2]) == {"snow"}
    assert {0, 1} <= set(np.unique(split.surface))
    assert all(len(split.captions[language][0]) > 20 for language in ("en", "de", "es", "fr"))


def test_a_picture_that_is_corrupt_is_one_less(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    options = ["--seed", "9", "--seconds", "3", "--fault", "camera:corrupt@1.5-1.6", "--out", str(path), "--json"]
    assert simulate(options) == 0
    split = split_of_drives([path])
    assert len(split) == (3 - WARM_UP_S) * FPS
    assert {split.image(row).shape for row in range(len(split))} == {(384, 640, 3)}


def test_drives_follow_one_another_world_by_world(recorded: Path) -> None:
    split = split_of_drives([recorded, recorded])
    assert split.world.tolist() == sorted([0, 1] * split.per_world)
    np.testing.assert_array_equal(split.image(split.per_world), split.image(0))


def test_a_drive_without_truth_is_refused(tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "empty.mcap"):
        pass
    with pytest.raises(ConfigError, match="expected a drive with ground truth"):
        split_of_drives([tmp_path / "empty.mcap"])
