"""Commands on a folder that is no cloud's: one line, 2, and nothing is made there."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.command import main

COMMANDS = (
    "rollout list", "rollout watch r1", "rollout explain r1", "rollout log r1", "rollout replay r1", "rollout create 1",
    "rollout start r1", "rollout stop 1 --why smoke",
    "release list", "release show 1", "release revoke 1 --why smoke", "release lift 1", "release refresh",
    "release keys show", "gate show --release 1", "gate run --release 1",
    "cloud vehicles", "cloud vehicles --revoke car", "cloud gap", "cloud key list", "cloud key create ana",
    "cloud enrol-token car", "cloud ca crl", "cloud serve", "cloud serve --only web", "cloud serve --only control",
    "scenes list", "scenes show 1", "scenes summary car", "scenes jobs", "search tunnel", "campaign list",
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("holds", ["nothing", "something else"])
def test_a_folder_that_is_no_clouds_is_left_as_it_is(
    words: str, holds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROADFUSE_DATABASE", raising=False)
    folder = tmp_path / "cloud"
    folder.mkdir(0o755)
    if holds == "something else":
        (folder / "notes.txt").write_text("somebody's")
        (folder / "postgres").mkdir()
    before = sorted(folder.rglob("*"))
    assert main([*words.split(), "--data", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "expected" in said and "ca init" in said and said.count("\n") == 1, said
    assert sorted(folder.rglob("*")) == before
