"""A short drive that was really rendered and really decided."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edge.loop import LoopConfig
from edge.recorder import Recorder
from edge.replay import Replay
from edge.report.page import page
from edge.scenes import SceneConfig
from export.world import command as world

# Every frame is hard enough, and a scene is over after a second: what is tested is the page, not the bundle.
HARD = SceneConfig(open_at=0.001, close_below=0.0005, max_ns=1_000_000_000)


class Elements(HTMLParser):
    """The elements of a page as (tag, attributes), and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


def decide(drive: Path, decided: Path) -> dict[str, Any]:
    recorder = Recorder(decided, None, HARD, {"scenario": "demo"}, lossless=True)
    with Replay(drive, config=LoopConfig(scenes=HARD), recorder=recorder) as run:
        for _ in run:
            pass
    return run.statistics.as_dict()


@pytest.fixture(scope="session")
def elements() -> type[Elements]:
    """Takes a page apart."""
    return Elements


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of the world; its camera is dead for half of one."""
    path = tmp_path_factory.mktemp("report") / "drive.mcap"
    words = ["--seed", "5", "--seconds", "4", "--scenario", "siren", "--fault", "camera:drop@2-2.5", "--no-lidar"]
    assert world.main([*words, "--out", str(path), "--json"]) == 0
    return path


@pytest.fixture(scope="session")
def decided(drive: Path) -> tuple[Path, dict[str, Any]]:
    """The drive with its decisions, and the statistics of the run."""
    path = drive.with_name("decided.mcap")
    return path, decide(drive, path)


@pytest.fixture(scope="session")
def report(decided: tuple[Path, dict[str, Any]]) -> str:
    """Its page."""
    return page(decided[0])
