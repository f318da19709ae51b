"""A bundle's ONNX files: verified whenever they are read, and small where two share their weights.

A lowering for another runtime has the same int8 weights as the engine it stands beside; only scales, biases and
quantisers differ. So it may lie there as a patch: the zstd frame of its bytes with the other file as dictionary (what
`zstd --patch-from` writes), some two hundredths of its size. Its digest is that of the ONNX bytes, whatever zstd made
them small, and whoever loads it gets those bytes in memory.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zstandard

from edge.errors import BundleError

TARGETS: Final = ("x86", "trt", "arm")
_CPU_TARGETS: Final = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm"}
MAX_BYTES: Final = 2_000_000_000  # protobuf holds no more than 2 GiB
_LEVEL: Final = 19
_BLOCK_BYTES: Final = 1 << 20
_MAX_WINDOW_LOG: Final = 31


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One ONNX model of a bundle.

    Attributes:
        path: its file: ONNX, or a patch.
        sha256: of the ONNX bytes.
        base: the model whose patch the file is; None where it is ONNX.
    """

    path: Path
    sha256: str
    base: ModelFile | None = None

    def read(self) -> bytes:
        """The ONNX bytes.

        Raises:
            BundleError: they are not what the manifest says.
        """
        if not self.path.is_file():
            raise BundleError(f"{self.path}: expected an engine of the bundle, got no file")
        size = self.path.stat().st_size
        if size > MAX_BYTES:
            raise BundleError(f"{self.path}: expected at most {MAX_BYTES} bytes, got {size}")
        content = self.path.read_bytes()
        if self.base is not None:
            content = _unpatched(self.path, self.base.read(), content)
        check_digest(self.path, self.sha256, hashlib.sha256(content).hexdigest())
        return content

    def verify(self) -> None:
        """Whether `read` would give the bytes that the manifest says; a whole file is not held in memory for it.

        Raises:
            BundleError: it would not.
        """
        if self.base is not None or not self.path.is_file() or self.path.stat().st_size > MAX_BYTES:
            self.read()
            return
        check_digest(self.path, self.sha256, sha256_of(self.path))


def target_of(provider: str, machine: str = "") -> str:
    """The lowering that a provider runs best on a machine (this one by default); "" where it is any."""
    if provider in ("tensorrt", "trt"):
        return "trt"
    return _CPU_TARGETS.get(machine or platform.machine(), "") if provider == "cpu" else ""


def model_for(file: ModelFile, lowerings: Mapping[str, ModelFile], provider: str, machine: str = "") -> ModelFile:
    """The lowering for a provider and a machine (this one by default), else the engine's own file."""
    return lowerings.get(target_of(provider, machine), file)


def patch(base: bytes, model: bytes) -> bytes:
    """The model as a patch of another one."""
    window_log = min(max((len(base) + len(model)).bit_length(), 10), _MAX_WINDOW_LOG)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=len(model), dict_size=len(base), window_log=window_log, enable_ldm=True
    )
    return zstandard.ZstdCompressor(dict_data=_dictionary(base), compression_params=parameters).compress(model)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_digest(path: Path, expected: str, got: str) -> None:
    """Refuse a file that is not what the manifest says.

    Raises:
        BundleError: it is not.
    """
    if got != expected:
        raise BundleError(f"{path}: expected SHA-256 {expected[:16]}..., got {got[:16]}...")


def _unpatched(path: Path, base: bytes, content: bytes) -> bytes:
    most = 4 * len(base) + _BLOCK_BYTES  # what claims to unfold to more is no lowering of this engine
    try:
        size = zstandard.get_frame_parameters(content).content_size
        if not 0 < size <= most:
            raise BundleError(f"{path}: expected a patch of at most {most} bytes unfolded, got {size}")
        unfold: Any = zstandard.ZstdDecompressor(dict_data=_dictionary(base), max_window_size=1 << _MAX_WINDOW_LOG)
        model: bytes = unfold.decompress(content, max_output_size=size)
    except zstandard.ZstdError as error:
        raise BundleError(
            f"{path}: expected a patch of {len(base)} bytes, got: {' '.join(str(error).split())}"
        ) from None
    return model


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
