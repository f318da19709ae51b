"""Settings: what is right is taken, what is not is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import load
from edge.errors import ConfigError
from edge.loop import LoopConfig
from edge.streams import validate


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "loop.toml"
    path.write_text(text)
    return path


def test_no_file_gives_the_defaults() -> None:
    assert load(None) == LoopConfig()


def test_values_and_units_are_taken(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            "[loop]\ndeadline_ms = 120\nalign = false\nencode_ahead = false\n[weights]\nalarm = 0.2\n"
            "[scenes]\npre_roll_s = 3\n[streams.lidar]\nworth = 0.5\nahead_ms = 10\n",
        )
    )
    assert config.deadline_ns == 120_000_000 and not config.align and not config.encode_ahead
    assert config.weights.alarm == 0.2
    assert config.scenes.pre_roll_ns == 3_000_000_000
    lidar = config.streams[-1]
    assert (lidar.worth, lidar.ahead_ns) == (0.5, 10_000_000)
    validate(config.streams, config.deadline_ns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[loop]\ndeadline = 100\n",
            r"loop.toml:2: expected a key of align, deadline_ns, encode_ahead, got 'deadline'",
        ),
        ("[loop]\ndeadline_ms = 'soon'\n", r"loop.toml:2: expected deadline_ms as int, got 'soon'"),
        ("\n[brakes]\nx = 1\n", r"loop.toml:2: expected a table of loop, weights, scenes, streams, got 'brakes'"),
        ("[streams.sonar]\nworth = 1\n", r"loop.toml:1: expected a stream of camera, .*got 'sonar'"),
        ("[weights]\nalarm = true\n", r"loop.toml:2: expected alarm as float, got True"),
        ("[streams.lidar]\nname = 'x'\n", r"loop.toml:2: expected a key of"),
        ("[loop\n", r"loop.toml: expected TOML, got"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a TOML file, got nothing"):
        load(tmp_path / "none.toml")
