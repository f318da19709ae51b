"""A drive as a Rerun recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge import view
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError, DriveFormatError
from edge.loop import LoopConfig
from edge.recorder import Recorder
from edge.replay import Replay
from edge.samples import CanFrame
from edge.scenes import SceneConfig
from export.world.command import main as simulate

rr = pytest.importorskip("rerun", reason="needs the extra `viz` (rerun-sdk)")

HARD = SceneConfig(open_at=0.001, close_below=0.0005, max_ns=1_000_000_000)


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two and a half seconds of the world, decided; the camera is dead for half a second."""
    folder = tmp_path_factory.mktemp("view")
    words = ["--seed", "5", "--seconds", "2.5", "--scenario", "siren", "--fault", "camera:drop@1-1.5", "--json"]
    assert simulate([*words, "--out", str(folder / "drive.mcap")]) == 0
    recorder = Recorder(folder / "decided.mcap", None, HARD, lossless=True)
    with Replay(folder / "drive.mcap", config=LoopConfig(scenes=HARD), recorder=recorder) as run:
        for _ in run:
            pass
    return folder / "decided.mcap"


def printed(recording: Path) -> str:
    """What Rerun's own tool finds in a recording."""
    rerun = Path(sys.executable).with_name("rerun")
    if not rerun.exists():
        pytest.skip(f"no rerun command at {rerun}")
    words = [str(rerun), "rrd", "print", "-v", str(recording)]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_recording_holds_sensors_decisions_events_and_a_layout(decided: Path, tmp_path: Path) -> None:
    out = tmp_path / "drive.rrd"
    assert view.main([str(decided), "--save", str(out)]) == 0
    found = printed(out)
    for entity in (
        "/ego/camera/picture",
        "/ego/camera/true",
        "/ego/lidar",
        "/imu/accel/z",
        "/map/fix",
        "/track/way",
        "/vehicle/speed_kmh",
        "/decision/hardness",
        "/decision/why/uncertainty",
        "/decision/sees/night",
        "/decision/hears/siren",
        "/decision/missing/camera",
        "/decision/events",
        "/alignment/signal/picture",
        "/alignment/signal/sound",
        "/alignment/later_ms",
        "/alignment/matrix/path",
    ):
        assert entity in found, entity
    assert "blueprint" in found.lower()


def test_events_say_what_a_person_would_remark_on(decided: Path) -> None:
    from edge.report.gather import gather
    from edge.viewer.decisions import events

    with DriveReader(decided) as drive:
        said = [text for _, _, text in sorted(events(gather(drive)))]
    assert "scene 1 opened" in said
    assert any(text.startswith("scene 1: ") for text in said)
    assert any(text.startswith("scene 1 is hardest") and "(" in text for text in said)
    assert "camera is missing: silent" in said
    assert "camera is back" in said


def test_a_drive_without_decisions_can_be_seen_too(decided: Path, tmp_path: Path) -> None:
    out = tmp_path / "bare.rrd"
    assert view.main([str(decided.with_name("drive.mcap")), "--save", str(out)]) == 0
    found = printed(out)
    assert "/ego/camera/picture" in found
    assert "/decision/" not in found


def test_a_drive_with_nothing_to_see_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "can.mcap"
    with DriveWriter(path) as drive:
        drive.write(topics.CAN, CanFrame(1, 0, 0, 1, b"\x00"), arrival_ns=1)
    with pytest.raises(DriveFormatError, match="expected a stream of /camera"):
        view.main([str(path), "--save", str(tmp_path / "can.rrd")])


def test_a_recording_takes_no_drives_place_and_needs_a_folder(decided: Path, tmp_path: Path) -> None:
    drive = tmp_path / "drive.mcap"
    drive.write_bytes(decided.read_bytes())
    for out, says in ((drive, "another file than the input"), (tmp_path / "no" / "v.rrd", "in an existing folder")):
        with pytest.raises(ConfigError, match=says):
            view.main([str(drive), "--save", str(out)])
    assert drive.read_bytes() == decided.read_bytes()


def test_the_viewer_is_reachable_from_this_machine_alone(
    decided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The viewer is a stand-in that notes its words."""
    viewer = tmp_path / "viewer"
    viewer.write_text('#!/bin/sh\necho "$@" > "$0.words"\ntest -s "$3"\n')
    viewer.chmod(0o755)
    monkeypatch.setattr(view, "_viewer", lambda: str(viewer))
    assert view.main([str(decided)]) == 0
    words = (tmp_path / "viewer.words").read_text().split()
    assert words[:2] == ["--bind", "127.0.0.1"]
    assert words[2].endswith("decided.rrd") and not Path(words[2]).exists()
