"""`roadfuse search` with words that mean nothing: one line says so, before anybody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.command import main

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("siren", "--cloud", ""), "expected --cloud HOST:PORT"),
        (("siren", "--cloud", "localhost:7445,"), "expected --cloud HOST:PORT"),
        (("siren", "--cloud", "", "--data", "x"), "got both"),
        (("siren",), "got neither"),
        (("--scene", "9" * 23, "--cloud", "localhost:7445"), "expected the number of a scene"),
        (("--liked", "-1", "--cloud", "localhost:7445"), "expected the number of a scene"),
        (("--where", '{"not": ' + DEEP, "--cloud", "localhost:7445"), "--where: expected JSON"),
        (("--json-predicate", "deep.json", "--cloud", "localhost:7445"), "deep.json: expected JSON"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("deep.json").write_text(DEEP)
    assert main(["search", *words]) == 2
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == 1
