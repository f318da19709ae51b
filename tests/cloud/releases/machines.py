"""The machine with the catalogue, and those of key holders, as persons use them: by commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.command import main

from .shelf import Shelf
from .test_image import rows


class Cloud:
    """The machine with the catalogue and without offline keys."""

    def __init__(self, shelf: Shelf, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.shelf, self.folder, self._capsys = shelf, folder, capsys

    def run(self, *words: object, code: int = 0) -> str:
        """`roadfuse release WORDS` with the cloud's data."""
        return self.alone(*words, "--data", self.shelf.data, "--database", self.shelf.database, code=code)

    def alone(self, *words: object, code: int = 0) -> str:
        """`roadfuse release WORDS` without it."""
        self._capsys.readouterr()
        got = main(["release", *map(str, words)])
        out = self._capsys.readouterr()
        assert got == code, out.err
        if code == 2:
            assert out.err.startswith("roadfuse release: ") and out.err.count("\n") == 1
        return out.out if code != 2 else out.err

    def propose(self, *words: object) -> Path:
        """A request; the catalogue is as before."""
        before = rows(self.shelf)
        path = self.folder / f"request-{len(list(self.folder.iterdir()))}.json"
        self.run(*words, "--propose", path)
        assert rows(self.shelf) == before
        return path

    def sign(self, path: Path, *holders: int, code: int = 0) -> str:
        """By holders, one after the other."""
        return "".join(
            self.alone("sign", path, "--keys", self.shelf.folders[holder], "--yes", code=code) for holder in holders
        )
