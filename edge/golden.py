"""Golden vectors: a few inputs, and what each engine of a bundle answered to them when it was packed.

A vehicle that runs the engines on these inputs knows whether its runtime computes what the bundle's maker saw. They are
an .npz (no pickles): `ENGINE/input/TENSOR` and `ENGINE/TARGET/TENSOR`, each with one row a case; TARGET is
x86, trt, arm, or "file" for the engine's own file. Every case begins with a state of zeros.

Runtimes differ in the order of sums, and where a value falls between two int8 steps. So each tensor has a tolerance in
the manifest: 2 % of its largest value (2.5 steps) where the engine is int8, else 0.1 %. Of rows of objects only those
count that reach the threshold, in any order, for equals may change places: each, expected or got, needs its like, of
the same label and kind, with probability and box at most 0.02 apart. Of a mask of labels 0.5 % of a case's cells may
differ, for labels are no distance apart, and where two are as probable the order of sums decides.
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
_ROW_TOLERANCE: Final = 0.02  # of a probability, and of a box's share of the picture
_MASK_TOLERANCE: Final = 0.005  # share of a case's cells
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
        largest: difference over all cases; of a mask of labels, share of a case's cells that differ.
        tolerance: of `largest`.
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
        BundleError: an engine does not take the inputs, does not run, or answers what is not finite.
    """
    return {
        name: {target: _finite(bundle, name, file, inputs[name]) for target, file in files(bundle, name).items()}
        for name in bundle.engines
        if name in inputs
    }


def _finite(bundle: Bundle, name: str, file: ModelFile, inputs: Tensors) -> Tensors:
    answers = answer(_engine(bundle, name, file), inputs, bundle.path)
    for tensor, values in answers.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BundleError(f"{file.path}: expected finite answers to the golden inputs, got others in {tensor}")
    return answers


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
        BundleError: the inputs are not the engine's, or of no case.
    """
    cases = {len(values) for values in inputs.values()}
    for name, values in inputs.items():
        there = engine.inputs.get(name)
        if there is None or (values.shape[1:], values.dtype) != (there.shape[1:], there.dtype) or len(cases) != 1:
            wanted = "none" if there is None else f"{there.dtype}(cases, {', '.join(map(str, there.shape[1:]))})"
            raise BundleError(f"{path}: expected golden input {name} {wanted}, got {values.dtype}{values.shape}")
    if not any(cases):
        raise BundleError(f"{path}: expected golden inputs of a case or more, got none")
    outputs: dict[str, list[NDArray[Any]]] = {name: [] for name in engine.outputs}
    for case in range(min(cases)):
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
        constants, presence = (spec.constants, "") if isinstance(spec, EngineSpec) else ({}, spec.presence)
        inputs[name] = {
            tensor: _present(cases, values) if tensor == presence else _made(rng, cases, values)
            for tensor, values in engine.inputs.items()
            if tensor not in spec.state and tensor not in constants
        }
    return inputs


def _present(cases: int, values: NDArray[Any]) -> NDArray[Any]:
    """All modalities in the first case, one less in each other: of those that are absent the fusion sees nothing."""
    presence = np.ones((cases, *values.shape[1:]), values.dtype)
    for case in range(1, cases):
        presence[case, ..., (case - 1) % presence.shape[-1]] = 0
    return presence


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
    if expected.dtype == np.uint8 and _is_mask(bundle, what[0], what[2]):
        return _cells_compared(what, expected, got)
    expected, got = expected.astype(np.float64), got.astype(np.float64)
    allowed, rows = np.full(expected.shape[-1:], tolerance), 0
    if _is_objects(bundle, what[0], what[2]):
        tolerance, rows = min(tolerance, _ROW_TOLERANCE), expected.shape[2]
        allowed[1:6], allowed[0], allowed[6:] = tolerance, 0.0, 0.0  # label and kind are places in a list
        expected, got = _matched(expected, got, float(bundle.thresholds.get("objects", 0.5)), tolerance)
    apart = np.abs(expected - got)
    apart[np.isnan(expected) & np.isnan(got)] = 0.0
    beyond = np.argwhere(~(apart <= allowed))  # so that nothing is near a NaN
    where = None
    if len(beyond):
        index = tuple(beyond[0].tolist())
        where = index, float(expected[index]), float(got[index])
        if rows:  # those that were got follow those that were expected
            where = (*index[:2], index[2] % rows, *index[3:]), *where[1:]
    return Answer(*what, float(apart.max(initial=0.0)), tolerance, where)


def _cells_compared(what: tuple[str, str, str], expected: NDArray[Any], got: NDArray[Any]) -> Answer:
    differs = expected != got
    shares = differs.reshape(len(differs), -1).mean(axis=1)
    where = None
    if shares.max() > _MASK_TOLERANCE:
        case = int(shares.argmax())
        index = (case, *np.argwhere(differs[case])[0].tolist())
        where = index, float(expected[index]), float(got[index])
    return Answer(*what, float(shares.max()), _MASK_TOLERANCE, where)


def _is_mask(bundle: Bundle, engine: str, tensor: str) -> bool:
    outputs = bundle.engines[engine].outputs
    return any(head.kind == "mask" and outputs.get(name) == tensor for name, head in bundle.head_specs.items())


def _is_objects(bundle: Bundle, engine: str, tensor: str) -> bool:
    if engine != "camera" or "objects" not in bundle.heads:
        return False
    spec = bundle.encoders["camera"]
    return not spec.decoder and spec.outputs["objects"] == tensor


def _matched(
    expected: NDArray[Any], got: NDArray[Any], threshold: float, tolerance: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each expected row that counts beside the nearest one that was got, then each one that was got likewise.

    A row that was got counts from the tolerance above the threshold: the graph may have left out its like just below.
    """
    found = _nearest(expected, got, threshold)
    known = _nearest(got, expected, threshold + tolerance)
    return np.concatenate((expected, known), axis=2), np.concatenate((found, got), axis=2)


def _nearest(rows: NDArray[Any], others: NDArray[Any], threshold: float) -> NDArray[Any]:
    """The nearest of the others to each row that counts; to the rest, as if there were an equal one, itself."""
    likely = ~(rows[:, 0, :, 1] < threshold)  # a NaN counts
    nearest = np.abs(rows[:, 0, :, None] - others[:, 0, None]).max(axis=-1).argmin(axis=-1)
    beside = np.take_along_axis(others, nearest[:, None, :, None], axis=2)
    return np.where(likely[:, None, :, None], beside, rows)
