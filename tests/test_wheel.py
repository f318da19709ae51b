"""The installed wheel is enough: it replays a drive far from any checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import sys
from pathlib import Path
import edge, roadfuse.v1
assert Path(edge.__file__).is_relative_to(sys.argv[1]), edge.__file__
from edge.replay import replay
from export.world.command import main as simulate
assert simulate(["--seed", "3", "--seconds", "2", "--out", "drive.mcap", "--json"]) == 0
print(len([decision for decision in replay("drive.mcap")]))
"""


def test_a_wheel_replays_a_drive_outside_the_checkout(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("roadfuse-*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert not [name for name in names if name.split("/")[0] in ("tests", "docs", "benchmarks", "proto")]
    assert "edge/bundles/reference/manifest.json" in names
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(site)],
        cwd=elsewhere,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) == 40
