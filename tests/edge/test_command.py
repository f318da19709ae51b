"""The one command: its table, its help, its one-line errors."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from edge.command import GROUP, main


def test_every_command_of_the_table_loads_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    is_old = sys.version_info < (3, 11)  # the cloud is not installed there
    for entry in entry_points(group=GROUP):
        try:
            command = entry.load()
        except ModuleNotFoundError as error:  # an extra that is not installed
            assert error.name in ("torch", "rerun") or (error.name, is_old) == ("sqlalchemy", True), error
            continue
        try:
            code = command(["--help"])
        except SystemExit as exit_:  # argparse leaves so; a command of commands returns
            code = exit_.code
        assert code == 0
        assert "usage: roadfuse" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(entry.name in said for entry in entry_points(group=GROUP))


def test_misuse_gives_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["fly"]) == 2
    assert "unknown command 'fly'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "replay", "report", "view"])
def test_a_missing_drive_is_one_line_and_2(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge.command", command, "/nonexistent/drive.mcap"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_output_is_no_reason_to_fail(drive: Path) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m edge.command info "$1" {closed}', sys.executable, drive], check=False
        )
        assert done.returncode == 0, closed


def test_a_word_that_is_no_text_where_one_is_needed_is_one_line() -> None:
    words = [b"cloud", b"vehicles", b"--data", b"/nonexistent", b"--label", b"\xff=x"]
    done = subprocess.run([sys.executable, "-m", "edge.command", *words], capture_output=True, check=False)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"Traceback" not in done.stderr, done.stderr


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("words", ["--help", "--version", "uplink --help", "bundle --help", "info DRIVE"])
def test_output_that_a_full_disk_refuses_is_one_line_and_2(words: str, drive: Path) -> None:
    argv = [sys.executable, "-m", "edge.command", *words.replace("DRIVE", str(drive)).split(" ")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=BUFFERED, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr, done.stderr


@pytest.mark.parametrize("words", ["--help", "--version", "uplink --help", "info DRIVE"])
def test_a_reader_of_the_output_that_went_away_is_told_nothing(words: str, drive: Path) -> None:
    argv = [sys.executable, "-m", "edge.command", *words.replace("DRIVE", str(drive)).split(" ")]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(argv, stdout=pipe, stderr=subprocess.PIPE, text=True, env=BUFFERED, check=False)
    assert (done.returncode, done.stderr) == (1, "")
