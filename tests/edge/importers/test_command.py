"""`roadfuse import`: one line for a user's mistake, no half-written drive, cuts, names of what is left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.command import main as roadfuse
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.errors import ConfigError, SourceError
from edge.importers import command, detect
from edge.importers.recording import Options, Recording


@pytest.fixture
def film(make: Any, tmp_path: Path) -> Path:
    """Two seconds of pictures and sound, and a track that has no topic."""
    make.mp4(tmp_path / "film", pictures=20, container="mp4", payloads=(b"notes",))
    return tmp_path / "film"


def test_the_result_is_printed_for_scripts(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roadfuse(["import", str(film), "--out", str(tmp_path / "a.mcap"), "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["format"] == "video"
    assert result["streams"] == {topics.CAMERA: 20, topics.AUDIO: 100}
    assert result["skipped"][0]["reason"] == "a drive has no topic for data tracks"
    assert printed.err.splitlines() == [f"skipped {e['name']}: {e['reason']}" for e in result["skipped"]]


def test_the_drive_says_where_it_comes_from(film: Path, tmp_path: Path) -> None:
    command.import_recording(film, tmp_path / "a.mcap")
    with DriveReader(tmp_path / "a.mcap") as drive:
        facts = drive.metadata["roadfuse.drive"]
        assert (facts["source"], facts["importer"], facts["arrival"]) == ("film", "video", "capture")
        skipped = json.loads(drive.metadata["roadfuse.import"]["skipped"])
    assert [entry["name"].split(" (")[0] for entry in skipped] == ["track 2"]


def test_a_cut_is_a_part_of_the_whole(film: Path, importing: Callable[..., Any]) -> None:
    whole = importing(film)
    part = importing(film, cut=command.Cut(0.5, 1.0))
    for topic, messages in part.streams.items():
        first = whole.streams[topics.CAMERA][0].arrival_ns
        expected = [m for m in whole.streams[topic] if 500_000_000 <= m.arrival_ns - first < 1_500_000_000]
        assert [(m.arrival_ns, m.sequence) for m in messages] == [(m.arrival_ns, m.sequence) for m in expected]
        assert messages


def test_a_cut_beyond_the_end_is_refused(film: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected at least one sample"):
        command.import_recording(film, tmp_path / "a.mcap", cut=command.Cut(60.0))
    assert [path.name for path in tmp_path.iterdir()] == ["film"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["absent", "--out", "a.mcap"], "absent: expected a file or a folder, got nothing of that name"),
        (["empty", "--out", "a.mcap"], "empty: expected one of"),
        (["folder", "--out", "a.mcap"], "got a folder with nothing"),
        (["film", "--out", "absent/a.mcap"], "absent/a.mcap: expected a file in an existing folder"),
        (["film", "--out", "folder"], "folder: expected a file to write, got a folder"),
        (["film", "--out", "film"], "film: expected another file than the input"),
        (["film", "--out", "a.mcap", "--format", "gopro"], "expected a GoPro telemetry (GPMF) track"),
        (["film", "--out", "a.mcap", "--format", "mf4"], "expected an MF4 block ##HD"),
        (["film", "--out", "a.mcap", "--format", "rosbag1"], "expected a readable ROS bag"),
        (["film", "--out", "a.mcap", "--format", "kitti"], "expected"),
        (["film", "--out", "a.mcap", "--format", "comma2k19"], "expected"),
    ],
)
def test_a_mistake_gives_one_line_and_no_drive(
    film: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(film.parent)
    Path("empty").touch()
    Path("folder").mkdir()
    content = film.read_bytes()
    assert roadfuse(["import", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("roadfuse import: ") and len(printed.err.splitlines()) == 1
    assert line in printed.err
    assert sorted(path.name for path in Path().iterdir()) == ["empty", "film", "folder"]
    assert film.read_bytes() == content


def test_an_error_midway_leaves_the_old_drive(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mcap").write_bytes(b"the old drive")
    real = detect.opener("video")

    def breaks_off(source: Path, options: Options) -> Recording:
        recording = real(source, options)
        pictures = iter(recording.streams[0])

        def stream() -> Any:
            yield next(pictures)
            raise SourceError("the disk is gone")

        recording.streams[0] = stream()
        return recording

    monkeypatch.setattr(detect, "opener", lambda name: breaks_off)
    with pytest.raises(SourceError, match="the disk is gone"):
        command.import_recording(film, tmp_path / "a.mcap")
    assert (tmp_path / "a.mcap").read_bytes() == b"the old drive"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mcap", "film"]


def test_stamps_before_time_zero_are_refused(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.importers.media.ORIGIN_NS", -1_000_000_000)
    with pytest.raises(SourceError, match="expected stamps of /camera"):
        command.import_recording(film, tmp_path / "a.mcap")


def test_files_beside_the_drive_stay_whatever_they_are_called(film: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mcap.part").write_bytes(b"a note")
    command.import_recording(film, tmp_path / "a.mcap")
    source = film.rename(tmp_path / "film.mcap.part")
    content = source.read_bytes()
    command.import_recording(source, tmp_path / "film.mcap")
    assert (tmp_path / "a.mcap.part").read_bytes() == b"a note"
    assert source.read_bytes() == content
    (tmp_path / "empty").touch()
    with pytest.raises(SourceError, match="expected one of"):
        command.import_recording(tmp_path / "empty", tmp_path / "a.mcap")
    assert (tmp_path / "a.mcap.part").read_bytes() == b"a note"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.mcap", "a.mcap.part", "empty", "film.mcap", "film.mcap.part"
    ]  # fmt: skip


def test_the_drive_has_the_rights_of_any_new_file_or_of_the_one_that_it_replaces(film: Path, tmp_path: Path) -> None:
    command.import_recording(film, tmp_path / "a.mcap")
    (tmp_path / "new").touch()
    assert (tmp_path / "a.mcap").stat().st_mode == (tmp_path / "new").stat().st_mode
    (tmp_path / "a.mcap").chmod(0o640)
    command.import_recording(film, tmp_path / "a.mcap")
    assert (tmp_path / "a.mcap").stat().st_mode & 0o7777 == 0o640


def test_a_dbc_a_pipe_and_a_file_of_the_source_are_no_place_for_a_drive(film: Path, tmp_path: Path) -> None:
    (tmp_path / "car.dbc").write_text("VERSION")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metadata.yaml").write_text("rosbag2_bagfile_information:")
    for source, out, says in (
        (film, tmp_path / "car.dbc", "expected another file than the input"),
        (film, tmp_path / "pipe", "expected a file to write, got a device or pipe"),
        (tmp_path / "run", tmp_path / "run" / "metadata.yaml", "expected another file than those of the source"),
    ):
        before = None if out.is_fifo() else out.read_bytes()
        with pytest.raises(ConfigError, match=says):
            command.import_recording(source, out, Options((tmp_path / "car.dbc",)))
        assert out.is_fifo() if before is None else out.read_bytes() == before


@pytest.mark.parametrize("option", ["--start", "--seconds"])
def test_a_cut_that_no_clock_shows_is_refused(film: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        roadfuse(["import", str(film), "--out", str(film.with_name("a.mcap")), option, "1e300"])
    assert left.value.code == 2
    assert "expected seconds from 0 to" in capsys.readouterr().err
