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
        ("[loop]\ndeadline_ms = nan", r"loop.toml:2: expected deadline_ms as a finite number below 2\^63, got nan"),
        ("[loop]\ndeadline_ms = -inf", r"loop.toml:2: expected deadline_ms as a finite number below 2\^63, got -inf"),
        ("[loop]\ndeadline_s = 1e300", r"loop.toml:2: expected deadline_s as a finite number below 2\^63, got 1e\+300"),
        ("[weights]\nalarm = nan", r"loop.toml:2: expected alarm as a finite number below 2\^63, got nan"),
        ("[weights]\nalarm = inf", r"loop.toml:2: expected alarm as a finite number below 2\^63, got inf"),
        (
            f"[scenes]\nopen_at = 1{'0' * 400}",
            r"loop.toml:2: expected open_at as a finite number below 2\^63, got 1000",
        ),
        (f"[loop]\ndeadline_ns = 0x{'f' * 5000}", r"below 2\^63, got "),
        (f"[loop]\nalign = 0x{'f' * 5000}", r"expected align as bool, got "),
        (f"[loop]\ndeadline_ns = 1{'0' * 5000}", r"loop.toml.*: expected (TOML|deadline_ns)"),
        (f"x = {'[' * 3000}", r"loop.toml: expected TOML, got "),
        ("[weights]\nalarm = 7", r"loop.toml:2: expected alarm of 0..1, got 7"),
        ("[weights]\nnovelty = -0.1", r"loop.toml:2: expected novelty of 0..1, got -0.1"),
        ("[scenes]\nsmoothing = 1.5", r"loop.toml:2: expected smoothing of 0..1, got 1.5"),
        ("[scenes]\npre_roll_s = -3", r"loop.toml:2: expected pre_roll_s of at least 0, got -3"),
        ("[scenes]\nburst_bytes = 0", r"loop.toml:2: expected burst_bytes of at least 1, got 0"),
        ("[scenes]\nopen_at = 5", r"loop.toml:2: expected open_at of 0..1, got 5"),
        ("[scenes]\nclose_below = 7", r"loop.toml:2: expected close_below of 0..1, got 7"),
        ("[scenes]\nduplicate_cosine = -2", r"loop.toml:2: expected duplicate_cosine of -1..1, got -2"),
        ("[scenes]\nsmoothing = 0", r"loop.toml:2: expected smoothing above 0, got 0"),
        (
            "[scenes]\nopen_at = 0.2\nclose_below = 0.5",
            r"loop.toml:3: expected close_below of at most open_at, got 0.5 and 0.2",
        ),
        ("[scenes]\nopen_at = 0.2", r"loop.toml:2: expected close_below of at most open_at, got 0.25 and 0.2"),
        ("loop = 5", r"loop.toml:1: expected loop as a table, got 5"),
        ("streams = 5", r"loop.toml:1: expected streams as a table, got 5"),
        ("streams = []", r"loop.toml:1: expected streams as a table, got \[\]"),
        ("[streams]\naudio = [1]", r"loop.toml:2: expected audio as a table, got \[1\]"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load(written(tmp_path, text))
    assert len(str(raised.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[streams.audio]\nring = 512\n[streams.lidar]\nring = 'x'", 4),  # the same key in another table
        ("[weights]\n# misaligned\nmisaligned = 0.4\n\n[loop]\nalign = 1", 6),  # within a longer key
        ("[scenes]\npre_roll_s = 1  # not open_at = 5\nopen_at = 5", 3),
        ("scenes.open_at = 5", 1),
        ("# scenes\nscenes = {pre_roll_s = 1, open_at = 5}", 2),
        ("[streams]\naudio.ring = 512\nlidar = {ring = 'x'}", 3),
        ("[ streams . 'lidar' ]  # [scenes]\n\n\"ring\" = 'x'", 3),
        ("[streams.audio]\nring = 512\n[streams.sonar]\nring = 512", 3),
    ],
)
def test_the_line_is_that_of_the_key_in_its_own_table(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"loop\.toml:{line}: "):
        load(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a TOML file, got nothing"):
        load(tmp_path / "none.toml")
