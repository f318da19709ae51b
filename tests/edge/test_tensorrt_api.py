"""Every TensorRT name that our code uses is there in TensorRT 10.3, 10.16 and 11.4; nothing that 11 dropped is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = ROOT.parent / "shared" / "tensorrt"
VERSIONS = ("10.3", "10.16", "11.4")
GONE_IN_11 = (
    "BuilderFlag.INT8", "BuilderFlag.FP16", "EXPLICIT_BATCH", "int8_calibrator", "supports_model", "set_dynamic_range",
    "OBEY_PRECISION_CONSTRAINTS", "platform_has_fast_int8", "device_memory_size",
)  # fmt: skip


def _users() -> list[Path]:
    """Files of the product that speak of TensorRT's module."""
    files = sorted(path for folder in ("edge", "calibration", "export") for path in (ROOT / folder).rglob("*.py"))
    return [path for path in files if "import tensorrt" in path.read_text() or path.parent.name == "trt"]


def test_the_files_that_use_tensorrt_are_found() -> None:
    assert {"build.py", "engine.py", "layers.py"} <= {path.name for path in _users()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", _users(), ids=lambda path: path.stem)
def test_every_name_is_in_every_version(path: Path, version: str) -> None:
    if not (API / "check_use.py").is_file():
        pytest.skip("the names of TensorRT's versions are not at hand (../shared/tensorrt)")
    done = subprocess.run(
        [sys.executable, str(API / "check_use.py"), str(API / f"api-{version}.json"), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", _users(), ids=lambda path: path.stem)
def test_nothing_is_used_that_tensorrt_11_dropped(path: Path) -> None:
    code = ast.unparse(ast.parse(path.read_text()))
    assert [name for name in GONE_IN_11 if f".{name}" in code and f"{name}_v2" not in code] == []
