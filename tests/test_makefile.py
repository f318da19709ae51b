"""The Makefile's habits on an older Python; a script stands in for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# It has no cloud: what asks for that fails.
PYTHON = """\
#!/bin/sh
case "$1" in -c | */ingest.py | */embed.py | */search.py | */director.py | */control_plane.py) exit 1;; esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_without_the_cloud_the_benchmarks_of_the_edge_all_run(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / ".installed").touch()
    words = ["make", "--no-print-directory", "bench", f"VENV={tmp_path}"]
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(words, cwd=ROOT, env=outside, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "benchmarks/swap.py" in done.stdout and done.stdout.endswith("its benchmarks are left out.\n")
