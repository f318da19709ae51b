"""Builds the kernels: nvcc to one fatbin a family, with a manifest; or NVRTC to a cubin for the GPU that is here.

    python -m edge.alignment.kernel_build [--check | --table] [--out FOLDER]

The fatbins hold machine code for Orin (sm_87), Hopper (sm_90), Thor (sm_110) and Blackwell (sm_120), and PTX from which
a driver makes code for any other GPU since Turing. The bytes depend on the sources and the compiler alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from edge.alignment.kernels import FAMILIES, FOLDER, HEADER, MANIFEST, manifest
from edge.errors import DeviceError

TARGETS: Final = (87, 90, 110, 120)
PTX: Final = 75  # the oldest that nvcc 13.0 knows
_LANGUAGE: Final = ("-std=c++17", "-fmad=false")  # kernel.cuh says why not fused
_NVCC: Final = (
    *("-O3", "--fatbin", "--compress-mode=size", "--ptxas-options=-v"),
    *(f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in TARGETS),
    f"-gencode=arch=compute_{PTX},code=compute_{PTX}",
)
_COMPILED: Final = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<sm>\d+)'.*?(?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the images (default: beside the sources)")
    parser.add_argument("--check", action="store_true", help="only compare the images with the sources; needs no nvcc")
    parser.add_argument("--table", action="store_true", help="only print registers and spills of what is built")
    words = parser.parse_args(argv)
    try:
        if words.check:
            return _report_stale(words.out)
        if words.table:
            print(table(manifest()))
            return 0
        built = build(words.out)
    except DeviceError as error:
        print(f"kernel_build: {error}", file=sys.stderr)
        return 2
    for family, entry in built["families"].items():
        spilled = sum(got["spill_bytes"] for kernel in entry["kernels"].values() for got in kernel.values())
        print(f"{family:12} {entry['bytes']:7} bytes  {len(entry['kernels'])} kernels  {spilled} bytes spilled")
    return 0


def build(out: Path) -> dict[str, Any]:
    """Compile every family into `out` and write the manifest there, which is returned.

    Raises:
        DeviceError: no nvcc, or it refuses.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise DeviceError("expected nvcc of CUDA 13.0 on PATH, got none")
    version = _run([nvcc, "--version"], FOLDER).strip().splitlines()[-1]
    families = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            image, log = compile_family(nvcc, family, Path(folder))
            (out / image.name).write_bytes(image.read_bytes())
            families[family] = {
                "source_sha256": source_sha256(family),
                "image_sha256": _sha256(image.read_bytes()),
                "bytes": image.stat().st_size,
                "kernels": resources(log),
            }
    made = {"nvcc": version, "options": [*_LANGUAGE, *_NVCC], "families": families}
    (out / MANIFEST).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    return made


def compile_family(nvcc: str, family: str, folder: Path) -> tuple[Path, str]:
    """Compile a copy of the sources in `folder`, with relative paths so that the bytes don't know where.

    Returns:
        The fatbin, and what ptxas said.
    """
    for name in (HEADER, f"{family}.cu"):
        shutil.copyfile(FOLDER / name, folder / name)
    log = _run([nvcc, *_LANGUAGE, *_NVCC, "-o", f"{family}.fatbin", f"{family}.cu"], folder)
    return folder / f"{family}.fatbin", log


def resources(log: str) -> dict[str, dict[str, dict[str, int]]]:
    """kernel -> "sm_87" -> registers a thread and bytes spilled, from ptxas -v."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for entry in _COMPILED.finditer(log):
        spilled = int(entry["stores"]) + int(entry["loads"])
        target = {"registers": int(entry["registers"]), "spill_bytes": spilled}
        found.setdefault(entry["kernel"], {})[f"sm_{entry['sm']}"] = target
    return {kernel: found[kernel] for kernel in sorted(found)}


def stale(folder: Path = FOLDER) -> list[str]:
    """Families whose image in `folder` is not of the present sources and options, or not the one that was built."""
    try:
        made = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return list(FAMILIES)
    if made["options"] != [*_LANGUAGE, *_NVCC]:
        return list(FAMILIES)
    return [family for family in FAMILIES if not _is_fresh(folder, family, made["families"].get(family, {}))]


def table(made: dict[str, Any]) -> str:
    """A manifest's registers a thread, and bytes spilled, as Markdown."""
    targets = [f"sm_{sm}" for sm in TARGETS]
    lines = ["| kernel | " + " | ".join(targets) + " | spilled |", "|---|" + "---|" * (len(targets) + 1)]
    for family in FAMILIES:
        for kernel, got in made["families"][family]["kernels"].items():
            registers = " | ".join(str(got[target]["registers"]) for target in targets)
            lines.append(f"| `{kernel}` | {registers} | {sum(got[target]['spill_bytes'] for target in targets)} |")
    return "\n".join(lines)


def source_sha256(family: str) -> str:
    """Of the header and the family's source."""
    return _sha256((FOLDER / HEADER).read_bytes() + (FOLDER / f"{family}.cu").read_bytes())


def with_nvrtc(family: str, sm: tuple[int, int]) -> bytes:
    """A cubin for one GPU, compiled in this process; needs no CUDA toolkit and no driver.

    Raises:
        DeviceError: NVRTC is not installed, does not know the GPU, or refuses.
    """
    try:
        from cuda.bindings import nvrtc

        source, header = (FOLDER / f"{family}.cu").read_bytes(), (FOLDER / HEADER).read_bytes()
        status, program = nvrtc.nvrtcCreateProgram(source, f"{family}.cu".encode(), 1, [header], [HEADER.encode()])
    except (ImportError, RuntimeError) as error:  # no cuda-bindings; no NVRTC library
        line = " ".join(str(error).split())
        raise DeviceError(
            f"kernels: expected NVRTC (extra rtx: cuda-bindings, nvidia-cuda-nvrtc), got: {line}"
        ) from None
    fine = nvrtc.nvrtcResult.NVRTC_SUCCESS
    if status != fine:
        raise DeviceError(f"kernels: NVRTC refused {family} with {status.name}")
    try:
        architecture = f"--gpu-architecture=sm_{sm[0]}{sm[1]}"
        options = [option.encode() for option in (architecture, *_LANGUAGE)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != fine:
            raise DeviceError(f"kernels: NVRTC failed on {family} for sm_{sm[0]}{sm[1]}: {_log(nvrtc, program)}")
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        cubin: bytes = b" " * size
        (status,) = nvrtc.nvrtcGetCUBIN(program, cubin)
        if status != fine:
            raise DeviceError(f"kernels: NVRTC gave no code for {family}: {status.name}")
        return cubin
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _log(nvrtc: Any, program: Any) -> str:
    """What the compiler says, in one line."""
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    return " ".join(log.rstrip(b"\0").decode(errors="replace").split())[:300]


def _report_stale(folder: Path) -> int:
    families = stale(folder)
    for family in families:
        print(f"{family}: the image is not of these sources; run python -m edge.alignment.kernel_build")
    return 1 if families else 0


def _is_fresh(folder: Path, family: str, entry: dict[str, Any]) -> bool:
    image = folder / f"{family}.fatbin"
    return (
        image.is_file()
        and entry.get("source_sha256") == source_sha256(family)
        and entry.get("image_sha256") == _sha256(image.read_bytes())
    )


def _run(command: list[str], folder: Path) -> str:
    """What a command printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeviceError(f"nvcc failed: {' '.join((done.stderr or done.stdout).split())[:300]}")
    return done.stdout + done.stderr


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
