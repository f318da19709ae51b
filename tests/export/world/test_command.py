"""The command: a drive that stock readers open, and one line for a mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from mcap.reader import make_reader

from edge.command import main
from edge.drive import topics
from edge.drive.writer import DriveWriter
from export.world import command
from export.world.delivery import WorldEvent
from export.world.simulate import WorldConfig, simulate
from roadfuse.v1.truth_pb2 import GroundTruth


def test_the_drive_opens_in_the_stock_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "drive.mcap"
    assert main(["simulate", "--seed", "2", "--seconds", "1", "--scenario", "urban", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    with out.open("rb") as file:
        messages = list(make_reader(file).iter_messages())
    assert len(messages) == sum(summary["messages"].values())
    truth = [GroundTruth.FromString(m.data) for _, c, m in messages if c.topic == topics.TRUTH]
    assert [t.frame_sequence for t in truth] == list(range(20)) and truth[0].caption


def test_an_interrupted_simulation_leaves_the_older_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: WorldConfig) -> Iterator[WorldEvent]:
        yield from islice(simulate(config), 50)
        raise KeyboardInterrupt

    out = tmp_path / "drive.mcap"
    out.write_bytes(b"an older drive")
    monkeypatch.setattr(command, "simulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main(["--seconds", "1", "--out", str(out)])
    assert out.read_bytes() == b"an older drive"
    assert list(tmp_path.iterdir()) == [out]


def test_a_drive_that_is_being_recorded_keeps_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "drive.mcap"
    with DriveWriter(out):
        assert main(["simulate", "--seconds", "1", "--out", str(out)]) == 2
    assert "expected a file that nobody writes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--fault", "camera:melt"], ["--scenario", "moon"], ["--seconds", "-1"], ["--seconds", "long"],
              ["--light", "noon"], ["--lidar-columns", "7"], ["--bogus"], ["--no-lidar", "--fault", "lidar:drop"],
              ["--fault", "camera:drop@5-6"], ["--fault", "camera:drop@1-2"]],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_2(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "drive.mcap"
    assert main(["simulate", "--seconds", "1", "--out", str(out), *wrong]) == 2
    error = capsys.readouterr().err
    assert error.startswith("roadfuse simulate: ") and error.count("\n") == 1
    assert not out.exists()
