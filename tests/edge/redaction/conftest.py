"""A recorded clip that redaction's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge.command import main as roadfuse
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.redaction.clip import redact
from edge.redaction.facts import Facts


class Redacted(NamedTuple):
    source: Path
    path: Path
    facts: Facts


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive past a pedestrian, with a siren and talk, and what the reference bundle decided of it."""
    folder = tmp_path_factory.mktemp("recorded")
    drive, out = folder / "drive.mcap", folder / "run.mcap"
    words = ["--seed", "5", "--scenario", "demo", "--seconds", "4", "--no-lidar", "--out", str(drive)]
    assert roadfuse(["simulate", *words, "--json"]) == 0
    assert roadfuse(["replay", str(drive), "--out", str(out), "--json"]) == 0
    return out


@pytest.fixture(scope="session")
def redacted(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Redacted:
    """The same, redacted."""
    out = tmp_path_factory.mktemp("redacted") / "clip.mcap"
    facts = redact(recorded, out, durable=False)
    assert facts is not None
    return Redacted(recorded, out, facts)


def messages(path: Path) -> list[DriveMessage]:
    """All messages of a drive."""
    with DriveReader(path, on_damage=lambda _: None) as drive:
        return list(drive.messages())


def pairs(first: Path, second: Path) -> Iterator[tuple[DriveMessage, DriveMessage]]:
    """Messages of two drives side by side."""
    one, other = messages(first), messages(second)
    assert len(one) == len(other)
    return zip(one, other)
