"""A drive clip with decisions, and the encoders of the reference bundle, for all tests of embedding."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cloud.embed.encoders import Encoders

SECONDS = 3.0


@pytest.fixture(scope="session")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive of three seconds with the decisions of a replay."""
    from edge.replay_command import main as replay
    from export.world.command import main as simulate

    folder = tmp_path_factory.mktemp("clips")
    argv = ["--seed", "5", "--seconds", str(SECONDS), "--scenario", "demo", "--out", str(folder / "drive.mcap")]
    assert simulate([*argv, "--json"]) == 0
    assert replay([str(folder / "drive.mcap"), "--out", str(folder / "decided.mcap")]) == 0
    return folder / "decided.mcap"


@pytest.fixture(scope="session")
def clip(clip_path: Path) -> bytes:
    """Its bytes."""
    return clip_path.read_bytes()


@pytest.fixture(scope="session")
def encoders() -> Encoders:
    """Of the reference bundle."""
    from cloud.embed.encoders import Encoders

    return Encoders()
