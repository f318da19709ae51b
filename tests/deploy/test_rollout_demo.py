"""The demo of rollouts cleans up behind itself; a script stands in for roadfuse."""

from __future__ import annotations

import importlib
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
# A first drive is over at once, any other goes on. The agent takes its time to end: a loop may be started meanwhile.
PROGRAM = """\
#!/bin/sh
cd "$(dirname "$0")"
case "$1 $2" in
"update run")
    trap 'echo ending >> told; sleep 1; exit' TERM
    echo agent >> told
    while :; do sleep 0.1; done;;
"run "*)
    echo loop >> told
    [ "$(grep -c loop told)" = 1 ] || exec sleep 60;;
"cloud enrol-token")
    echo token;;
esac
"""


def test_a_demo_that_ends_starts_no_loop_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY)
    program, told = tmp_path / "roadfuse", tmp_path / "told"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    with ExitStack() as stack:
        demo = importlib.import_module("demo").Demo(tmp_path, str(program), stack)
        demo.addresses = {"ingest": "127.0.0.1:1", "enrolment": "127.0.0.1:2"}
        importlib.import_module("rollout_demo")._vehicle(demo, "car", tmp_path / "drive.mcap", "")
        for _ in range(600):
            if told.exists() and sorted(told.read_text().split()) == ["agent", "loop", "loop"]:
                break
            time.sleep(0.05)
    lines = told.read_text().split()
    assert sorted(lines[:-1]) == ["agent", "loop", "loop"] and lines[-1] == "ending"
