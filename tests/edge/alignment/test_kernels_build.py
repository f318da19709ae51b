"""The built kernels are those of the sources, spill nothing, and come out the same wherever they are built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.alignment import kernel_build
from edge.alignment.kernels import FAMILIES, FOLDER, MANIFEST, image, manifest
from edge.errors import DeviceError

NVCC = shutil.which("nvcc")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The built images, elsewhere."""
    for built in [*FOLDER.glob("*.fatbin"), FOLDER / MANIFEST]:
        shutil.copy(built, tmp_path)
    return tmp_path


def test_the_built_images_are_of_the_present_sources() -> None:
    assert kernel_build.stale() == []
    assert kernel_build.main(["--check"]) == 0


def test_every_family_is_built_and_has_its_kernels_without_spills() -> None:
    made = manifest()["families"]
    assert set(made) == set(FAMILIES) == {source.stem for source in FOLDER.glob("*.cu")}
    for family, entry in made.items():
        assert set(entry["kernels"]) == set(FAMILIES[family])
        for targets in entry["kernels"].values():
            assert set(targets) == {f"sm_{sm}" for sm in kernel_build.TARGETS}
            assert all(got["spill_bytes"] == 0 for got in targets.values())


def test_the_page_on_kernels_shows_the_registers_of_what_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel_build.main(["--table"]) == 0
    page = (FOLDER.parents[2] / "docs" / "kernels.md").read_text()
    assert capsys.readouterr().out in page


def test_the_images_stay_small() -> None:
    assert sum(len(image(family)) for family in FAMILIES) < 400_000


@pytest.mark.parametrize("change", ["image", "source", "options", "manifest"])
def test_a_stale_image_is_told(copied: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    made: dict[str, Any] = json.loads((copied / MANIFEST).read_text())
    if change == "image":
        (copied / "dtw.fatbin").write_bytes(b"another")
    elif change == "source":
        made["families"]["dtw"]["source_sha256"] = "0" * 64
    elif change == "options":
        made["options"] = ["-O0"]
    (copied / MANIFEST).write_text(json.dumps(made) if change != "manifest" else "{")
    assert kernel_build.main(["--check", "--out", str(copied)]) == 1
    assert capsys.readouterr().out.startswith("dtw: the image is not of these sources; run python -m")


def test_a_build_without_nvcc_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernel_build.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "kernel_build: expected nvcc of CUDA 13.0 on PATH, got none\n"


@pytest.mark.skipif(NVCC is None, reason="nvcc is not here to compile the kernels")
def test_all_targets_compile_without_spills_to_the_same_bytes_in_another_folder(tmp_path: Path) -> None:
    made, there = manifest(), tmp_path / "another folder"
    there.mkdir()
    again = kernel_build.build(there)
    for family in FAMILIES:
        for kernel, targets in again["families"][family]["kernels"].items():
            assert {target: got["spill_bytes"] for target, got in targets.items()} == {
                f"sm_{sm}": 0 for sm in kernel_build.TARGETS
            }, kernel
    if again["nvcc"] != made["nvcc"]:
        pytest.skip(f"the images were built by {made['nvcc']}, here is {again['nvcc']}")
    assert again == made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sm", [(8, 7), (9, 0)])
def test_nvrtc_makes_a_cubin_of_each_family(family: str, sm: tuple[int, int]) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed (extra rtx)")
    try:
        cubin = kernel_build.with_nvrtc(family, sm)
    except DeviceError as error:
        if "expected NVRTC" in str(error):
            pytest.skip(str(error))
        raise
    assert cubin.startswith(b"\x7fELF")
    assert all(name.encode() in cubin for name in FAMILIES[family])


def test_a_gpu_that_nvrtc_does_not_know_is_one_line() -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed (extra rtx)")
    with pytest.raises(DeviceError, match=r"^kernels: (NVRTC failed on dtw for sm_60: .*|expected NVRTC.*)$"):
        kernel_build.with_nvrtc("dtw", (6, 0))


def test_nvrtc_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(DeviceError, match=r"^kernels: expected NVRTC \(extra rtx: cuda-bindings, nvidia-cuda-nvrtc\)"):
        kernel_build.with_nvrtc("dtw", (8, 7))
