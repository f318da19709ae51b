"""Golden vectors: a few inputs, and what each engine of a bundle answered to them when it was packed.

A vehicle that runs the engines on these inputs knows whether its runtime computes what the bundle's maker saw. They are
an .npz (no pickles): `ENGINE/input/TENSOR` and `ENGINE/TARGET/TENSOR`, each with one row a case; TARGET is
x86, trt, arm, or "file" for the engine's own file. Every case begins with a state of zeros.

Runtimes differ in the order of sums, and where a value falls between two int8 steps. So each tensor has a tolerance in
the manifest: 2 % of its largest value (2.5 steps) where the engine is int8, else 0.1 %. Of rows of objects only those
count that reach the head's threshold, in any order, for equals may change places.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.bundle import MAX_GOLDEN_BYTES, Bundle, EngineSpec
from edge.engine import BoundEngine, OrtEngine
from edge.engines import engine_opener
from edge.errors import BundleError
from edge.model_file import ModelFile, target_of

Tensors = dict[str, NDArray[Any]]
FILE: Final = "file"  # the target of an engine's own file
NATIVE: Final = "trt"  # the provider that is none of ONNX Runtime's
CASES: Final = 2
_INPUT: Final = "input"
_INT8_TOLERANCE: Final = 0.02
_FLOAT_TOLERANCE: Final = 0.001
_LEAST_TOLERANCE: Final = 1e-5
# What zipfile, zlib and numpy raise over an archive or a header that is damaged; RuntimeError where it is encrypted.
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, TokenError, ValueError, EOFError, KeyError, RuntimeError)
_MAX_MEMBERS: Final = 4096
_CELLS: Final = 12  # along each side of a made-up picture


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs by engine; answers by engine and target. Each tensor has one row a case."""

    inputs: dict[str, Tensors]
    answers: dict[str, dict[str, Tensors]]

    def write(self, path: Path) -> None:
        """The same vectors give the same bytes."""
        arrays = {
            f"{engine}/{_INPUT}/{name}": a for engine, tensors in self.inputs.items() for name, a in tensors.items()
        }
        for engine, targets in self.answers.items():
            for target, tensors in targets.items():
                arrays |= {f"{engine}/{target}/{name}": values for name, values in tensors.items()}
        with zipfile.ZipFile(path, "w") as archive:
            for name in sorted(arrays):
                member = zipfile.ZipInfo(f"{name}.npy")  # of 1980: no clock goes in
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w") as file:
                    np.lib.format.write_array(file, np.ascontiguousarray(arrays[name]), allow_pickle=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """How one tensor's answers compare with the golden ones.

    Attributes:
        largest: difference over all cases.
        where: case and index of the first value beyond the tolerance, with what was expected and got; None where all
            are within it.
    """

    engine: str
    target: str
    tensor: str
    largest: float
    tolerance: float
    where: tuple[tuple[int, ...], float, float] | None

    def __str__(self) -> str:
        if self.where is None:
            return (
                f"{self.engine} ({self.target}) {self.tensor}: at most {self.largest:.3g} apart of {self.tolerance:.3g}"
            )
        (case, *index), expected, got = self.where
        return (
            f"{self.engine} ({self.target}) {self.tensor}{index} of case {case}: "
            f"expected {expected:.6g}, got {got:.6g} (tolerance {self.tolerance:.3g})"
        )


def read(path: Path) -> Golden:
    """The vectors of a file whose digest is known to be right.

    Raises:
        BundleError: it holds no golden vectors.
    """
    golden = Golden({}, {})
    for name, values in arrays_of(path).items():
        engine, _, rest = name.partition("/")
        target, _, tensor = rest.partition("/")
        if not tensor or values.ndim < 1:
            raise BundleError(f"{path}: expected names ENGINE/TARGET/TENSOR of rows, got {name!r} {values.shape}")
        tensors = golden.inputs if target == _INPUT else golden.answers.setdefault(engine, {})
        tensors.setdefault(engine if target == _INPUT else target, {})[tensor] = values
    return golden


def arrays_of(path: Path) -> Tensors:
    """All arrays of an .npz file, by name.

    Raises:
        BundleError: it is none, too large, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if len(members) > _MAX_MEMBERS or size > MAX_GOLDEN_BYTES:
                raise BundleError(f"{path}: expected at most {MAX_GOLDEN_BYTES} bytes of arrays, got {size}")
            if len({member.filename for member in members}) < len(members):
                raise BundleError(f"{path}: expected each array once, got one twice")
            arrays: Tensors = {}
            for member in members:
                at, how = member.header_offset, member.compress_type
                if at < 0 or how not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise zipfile.BadZipFile(f"an array at byte {at}, of compression {how}")
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
            return arrays
    except FileNotFoundError:
        raise BundleError(f"{path}: expected arrays (.npz), got no file") from None
    except (*_DAMAGE, MemoryError) as error:
        raise BundleError(f"{path}: expected arrays (.npz), got: {' '.join(str(error).split())[:200]}") from None


def answered(bundle: Bundle, inputs: Mapping[str, Tensors]) -> dict[str, dict[str, Tensors]]:
    """What each engine and each of its lowerings answers on this machine's CPU.

    Raises:
        BundleError: an engine does not take the inputs, or does not run.
    """
    return {
        name: {
            target: answer(_engine(bundle, name, file), inputs[name], bundle.path)
            for target, file in files(bundle, name).items()
        }
        for name in bundle.engines
        if name in inputs
    }


def tolerances(bundle: Bundle, answers: Mapping[str, Mapping[str, Tensors]]) -> dict[str, dict[str, dict[str, float]]]:
    """The default tolerance of each tensor of answers."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, targets in answers.items():
        share = _INT8_TOLERANCE if bundle.engines[name].precision == "int8" else _FLOAT_TOLERANCE
        found[name] = {
            target: {
                tensor: float(f"{max(share * float(np.abs(values).max(initial=0.0)), _LEAST_TOLERANCE):.3g}")
                for tensor, values in tensors.items()
            }
            for target, tensors in targets.items()
        }
    return found


def check(bundle: Bundle, golden: Golden, target: str = "", provider: str = "cpu") -> Iterator[Answer]:
    """Run the engines on the golden inputs and compare, tensor by tensor.

    Args:
        target: x86, trt, arm or "file"; "" takes what the loop would with this provider on this machine.
        provider: of ONNX Runtime (cpu, cuda, tensorrt), or trt: native TensorRT, which runs the trt lowering alone.

    Raises:
        BundleError: no engine has golden vectors for the target, or one does not run.
    """
    assert bundle.golden is not None
    if provider == NATIVE and target not in ("", "trt"):
        raise BundleError(f"--target: expected trt with the provider {NATIVE}, got {target!r}")
    checked = 0
    for name in bundle.engines:
        known = files(bundle, name)
        chosen = target or target_of(provider)
        if chosen not in known:
            if target:
                continue
            chosen = FILE
        expected = golden.answers.get(name, {}).get(chosen)
        if expected is None or name not in golden.inputs:
            continue
        checked += 1
        native = engine_opener(bundle, NATIVE)(name, {}) if provider == NATIVE else None
        engine = native or _engine(bundle, name, known[chosen], provider)
        got = answer(engine, golden.inputs[name], bundle.path)
        allowed = bundle.golden.tolerances.get(name, {}).get(chosen, {})
        for tensor, values in expected.items():
            if tensor not in got or got[tensor].shape != values.shape:
                shape = got[tensor].shape if tensor in got else "none"
                raise BundleError(f"{bundle.golden.path}: expected {name} {tensor} of {values.shape}, got {shape}")
            yield _compared(bundle, (name, chosen, tensor), values, got[tensor], allowed.get(tensor, 0.0))
    if not checked:
        raise BundleError(f"{bundle.golden.path}: expected golden vectors of {target or 'this target'}, got none")


def files(bundle: Bundle, engine: str) -> dict[str, ModelFile]:
    """Target -> model of an engine."""
    spec = bundle.engines[engine]
    return {FILE: spec.file, **spec.lowerings}


def answer(engine: BoundEngine, inputs: Tensors, path: Path) -> Tensors:
    """The engine's outputs for each case, from a state of zeros.

    Raises:
        BundleError: the inputs are not the engine's.
    """
    cases = {len(values) for values in inputs.values()}
    for name, values in inputs.items():
        there = engine.inputs.get(name)
        if there is None or (values.shape[1:], values.dtype) != (there.shape[1:], there.dtype) or len(cases) != 1:
            wanted = "none" if there is None else f"{there.dtype}(cases, {', '.join(map(str, there.shape[1:]))})"
            raise BundleError(f"{path}: expected golden input {name} {wanted}, got {values.dtype}{values.shape}")
    outputs: dict[str, list[NDArray[Any]]] = {name: [] for name in engine.outputs}
    for case in range(min(cases, default=0)):
        engine.reset()
        for name, values in inputs.items():
            engine.inputs[name][...] = values[case]
        engine.warm_up(1)
        engine.advance()
        for name, value in engine.outputs.items():
            outputs[name].append(value.copy())
    return {name: np.stack(values) for name, values in outputs.items()}


def made_inputs(bundle: Bundle, cases: int = CASES) -> dict[str, Tensors]:
    """Inputs of no meaning but of the right kind, where nobody gave any: coarse pictures, soft noise; state stays zero.

    They tell whether a runtime computes the same, not whether an engine is any good.
    """
    rng = np.random.default_rng(7)
    inputs = {}
    for name, spec in bundle.engines.items():
        engine = _engine(bundle, name, spec.file)
        constants = spec.constants if isinstance(spec, EngineSpec) else {}
        inputs[name] = {
            tensor: _made(rng, cases, values)
            for tensor, values in engine.inputs.items()
            if tensor not in spec.state and tensor not in constants
        }
    return inputs


def _made(rng: np.random.Generator, cases: int, values: NDArray[Any]) -> NDArray[Any]:
    shape = (cases, *values.shape[1:])
    if len(shape) == 4:
        return _picture(rng, shape, values.dtype)
    if values.dtype == np.float32:
        return (rng.random(shape, np.float32) - np.float32(0.5)) * np.float32(0.2)
    return rng.integers(0, 2, shape).astype(values.dtype)


def _picture(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Large cells of random brightness: they take little room in a file."""
    picture = rng.integers(0, 256, (shape[0], *[min(size, _CELLS) for size in shape[1:]]), dtype=np.uint8)
    for axis, size in enumerate(shape[1:], 1):
        picture = picture.take(np.arange(size) * picture.shape[axis] // size, axis)
    return picture if dtype == np.uint8 else (picture * np.float32(1 / 255)).astype(dtype)


def _engine(bundle: Bundle, name: str, file: ModelFile, provider: str = "cpu") -> OrtEngine:
    spec = bundle.engines[name]
    constants = spec.constants if isinstance(spec, EngineSpec) else {}
    return OrtEngine(
        file.path, file.read(), threads=bundle.threads, provider=provider, state=spec.state, constants=constants
    )


def _compared(
    bundle: Bundle, what: tuple[str, str, str], expected: NDArray[Any], got: NDArray[Any], tolerance: float
) -> Answer:
    expected, got = expected.astype(np.float64), got.astype(np.float64)
    if _of_objects(bundle, what[0], what[2]):
        expected, got = _matched(expected, got, float(bundle.thresholds.get("objects", 0.5)))
    apart = np.abs(expected - got)
    apart[np.isnan(expected) & np.isnan(got)] = 0.0
    beyond = np.argwhere(~(apart <= tolerance))  # so that nothing is near a NaN
    where = None
    if len(beyond):
        index = tuple(beyond[0].tolist())
        where = index, float(expected[index]), float(got[index])
    return Answer(*what, float(apart.max(initial=0.0)), tolerance, where)


def _of_objects(bundle: Bundle, engine: str, tensor: str) -> bool:
    spec = bundle.encoders.get("camera")
    return engine == "camera" and spec is not None and not spec.decoder and spec.outputs.get("objects") == tensor


def _matched(expected: NDArray[Any], got: NDArray[Any], threshold: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each expected row that counts beside the nearest one that was got; the others as if they were equal."""
    likely = expected[:, 0, :, 1] >= threshold
    nearest = np.abs(expected[:, 0, :, None] - got[:, 0, None]).max(axis=-1).argmin(axis=-1)
    beside = np.take_along_axis(got, nearest[:, None, :, None], axis=2)
    return expected, np.where(likely[:, None, :, None], beside, expected)
