"""The link as a file says: taken when it changes, and no clip goes while nobody knows what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.uplink.link_file import LinkFile
from edge.uplink.pace import Clips, Link


def write(path: Path, text: str) -> Path:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    return fresh.replace(path)


def test_a_file_says_what_it_says_and_the_words_say_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "link.toml", "price_per_mb = 2")
    assert LinkFile(path, Link(500.0, "wanted", 7.0))() == Link(500.0, "wanted", 2)


def test_a_change_is_taken_when_the_link_is_asked_for_next(tmp_path: Path) -> None:
    path = write(tmp_path / "link.toml", "price_per_mb = 2.0")
    link = LinkFile(path, Link())
    write(path, 'price_per_mb = 0.0\nbytes_per_s = 9e5\nclips = "wanted"')
    assert link() == Link(9e5, "wanted", 0.0)


@pytest.mark.parametrize("most, said, expected", [
    ("none", "all", "none"), ("none", "wanted", "none"), ("wanted", "all", "wanted"), ("wanted", "none", "none"),
    ("all", "wanted", "wanted"), ("all", "all", "all"),
])  # fmt: skip
def test_no_file_lets_more_clips_go_than_the_words_do(
    tmp_path: Path, most: Clips, said: Clips, expected: Clips
) -> None:
    path = write(tmp_path / "link.toml", f'price_per_mb = 0\nclips = "{said}"')
    assert LinkFile(path, Link(clips=most))().clips == expected


BAD = [
    "", "price_per_mb = ", "price_per_mb = -1", "price_per_mb = nan", "price_per_mb = inf", "price_per_mb = true",
    'price_per_mb = "2"', "price_per_mb = 1\nprice = 1", 'price_per_mb = 1\nclips = "some"',
    "price_per_mb = 1\nclips = []", "price_per_mb = 1\nbytes_per_s = -1", "[price_per_mb]", "\0",
    "price_per_mb = 1" + "0" * 400, "price_per_mb = 1\nbytes_per_s = 1" + "0" * 400, "price_per_mb = 1" + "0" * 5_000,
    "price_per_mb = 0x" + "f" * 5_000, "price_per_mb = 1\nx = " + "[" * 30_000, "price_per_mb = 1e300",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_a_useless_file_is_refused_in_one_line_at_the_start(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "link.toml", text)
    with pytest.raises(ConfigError, match="expected") as raised:
        LinkFile(path, Link())
    assert "\n" not in str(raised.value) and str(raised.value).startswith(str(path))


@pytest.mark.parametrize("text", BAD)
def test_a_file_that_becomes_useless_keeps_clips_on_board_until_it_is_right_again(tmp_path: Path, text: str) -> None:
    path, lines = write(tmp_path / "link.toml", "price_per_mb = 2.0"), list[str]()
    link = LinkFile(path, Link(), lines.append)
    write(path, text)
    assert [link().clips for _ in range(3)] == ["none"] * 3 and len(lines) == 1
    write(path, "price_per_mb = 3.0")
    assert link() == Link(price_per_mb=3.0)


def test_a_file_that_goes_keeps_clips_on_board(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        LinkFile(tmp_path / "link.toml", Link())
    path, lines = write(tmp_path / "link.toml", "price_per_mb = 2.0"), list[str]()
    link = LinkFile(path, Link(), lines.append)
    path.unlink()
    assert link().clips == "none" and "No such file" in lines[0]
