"""Engines: a model that runs on static buffers, so that a call allocates nothing and copies nothing it need not."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.errors import BundleError, DeviceError

Tensor = NDArray[Any]
PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
DTYPES: Final[dict[str, Any]] = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
_MAX_REASON: Final = 300  # characters


class Engine(Protocol):
    """A loaded model.

    Attributes:
        inputs: by name; write into them, then `run`. What was lent is not to be written to.
        outputs: by name; valid until the next `run`.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def run(self) -> None:
        """Compute the outputs of the inputs."""


class BoundEngine(ABC):
    """An engine on static host buffers: what all have that is not the call itself.

    Args:
        name: of the engine or its file, for messages.
        inputs: by name.
        outputs: by name.
        state: input -> output that is copied into it by `advance`; it begins as zeros.
        constants: input -> its value, for good.

    Raises:
        BundleError: state or constants do not fit the tensors.
    """

    def __init__(
        self,
        name: Path | str,
        inputs: dict[str, Tensor],
        outputs: dict[str, Tensor],
        state: Mapping[str, str] | None,
        constants: Mapping[str, Any] | None,
    ) -> None:
        self._name = name
        self.inputs = inputs
        self.outputs = outputs
        self._state = [self._pair(into, out) for into, out in (state or {}).items()]
        for tensor, value in (constants or {}).items():
            self._set(tensor, value)

    @abstractmethod
    def run(self) -> None:
        """Compute the outputs of the inputs."""

    def lend(self, name: str, array: Tensor | None) -> bool:
        """Read an input from where it lies, up to the next call of this; None: from the engine's own buffer again.

        Args:
            array: C-contiguous, of the input's shape and type.

        Returns:
            Whether it does; an engine that does not goes on with its own buffer.
        """
        return array is None

    def warm_up(self, runs: int) -> None:
        """Run on what the inputs hold, without advancing the state.

        Raises:
            BundleError: the model can't run.
            DeviceError: the GPU can't, just now: no fault of the model.
        """
        try:
            for _ in range(runs):
                self.run()
        except DeviceError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class but this
            raise BundleError(f"{self._name}: expected a model that runs, got: {reason(error)}") from None

    def advance(self) -> None:
        """The last run counts: let its recurrent outputs become the next step's inputs."""
        for into, out in self._state:
            np.copyto(into, out)

    def reset(self) -> None:
        """Begin anew: a recurrent state of zeros."""
        for into, _ in self._state:
            into.fill(0)

    def freeze(self) -> list[bytes]:
        """The recurrent state."""
        return [into.tobytes() for into, _ in self._state]

    def thaw(self, state: list[bytes]) -> None:
        """Take a frozen recurrent state."""
        for (into, _), frozen in zip(self._state, state):
            into[...] = np.frombuffer(frozen, dtype=into.dtype).reshape(into.shape)

    def _pair(self, into: str, out: str) -> tuple[Tensor, Tensor]:
        if into not in self.inputs or out not in self.outputs:
            raise BundleError(
                f"{self._name}: expected a state {into!r} <- {out!r} of inputs {sorted(self.inputs)} "
                f"and outputs {sorted(self.outputs)}"
            )
        pair = self.inputs[into], self.outputs[out]
        if (pair[0].shape, pair[0].dtype) != (pair[1].shape, pair[1].dtype):
            raise BundleError(f"{self._name}: expected {out} like {into} {pair[0].shape}, got {pair[1].shape}")
        return pair

    def _set(self, name: str, value: Any) -> None:
        if name not in self.inputs:
            raise BundleError(f"{self._name}: expected a constant of inputs {sorted(self.inputs)}, got {name!r}")
        try:
            self.inputs[name][...] = value
        except (TypeError, ValueError, OverflowError):
            shape = self.inputs[name].shape
            raise BundleError(f"{self._name}: expected a constant {name} of shape {shape}, got {value!r}") from None


class OrtEngine(BoundEngine):
    """An ONNX model in ONNX Runtime with inputs and outputs bound once.

    Args:
        path: the ONNX file; every shape in it must be static (a leading batch dimension is taken as 1).
        content: its bytes where they are known and verified; None reads the file.
        threads: of the call; 1 does not spin, and is what a busy vehicle wants.
        provider: cpu, cuda or tensorrt.
        buffers: input name -> array to read from, such as another engine's output; others are allocated here.
        state: input -> output that is copied into it by `advance`; it begins as zeros.
        constants: input -> its value, for good.
        apart: a run shows in the outputs once it counts (`advance`), so that an engine may run before its turn.

    Raises:
        BundleError: the file is no such model.
        DeviceError: the provider is not there.
    """

    def __init__(
        self,
        path: Path,
        content: bytes | None = None,
        *,
        threads: int = 1,
        provider: str = "cpu",
        buffers: Mapping[str, Tensor] | None = None,
        state: Mapping[str, str] | None = None,
        constants: Mapping[str, Any] | None = None,
        apart: bool = False,
    ) -> None:
        self._session = _session(path, content, threads, provider)
        self._binding = self._session.io_binding()
        buffers = buffers or {}
        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}
        for node in self._session.get_inputs():
            array = buffers.get(node.name)
            fresh = _allocate(path, node)
            if array is None:
                array = fresh
            elif (array.shape, array.dtype, array.flags.c_contiguous) != (fresh.shape, fresh.dtype, True):
                raise BundleError(
                    f"{path}: expected input {node.name} {fresh.dtype}{fresh.shape}, got {array.dtype}{array.shape}"
                )
            self._binding.bind_input(node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            inputs[node.name] = array
        for node in self._session.get_outputs():
            array = _allocate(path, node)
            self._binding.bind_output(node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            outputs[node.name] = array
        shown = {name: array.copy() for name, array in outputs.items()} if apart else outputs
        self._apart = [(shown[name], array) for name, array in outputs.items() if apart]
        super().__init__(path, inputs, shown, state, constants)
        self._own = dict(inputs)
        self._call = _direct_call(self._session, self._binding)

    def lend(self, name: str, array: Tensor | None) -> bool:
        """Read an input from where it lies, up to the next call of this; None: from the engine's own buffer again."""
        read = self._own[name] if array is None else array
        if read is not self.inputs[name]:
            self._binding.bind_input(name, "cpu", 0, read.dtype.type, read.shape, read.ctypes.data)
            self.inputs[name] = read  # which keeps it
        return True

    def run(self) -> None:
        """Compute the outputs of the inputs."""
        self._call()

    def advance(self) -> None:
        """The last run counts: let it show, and its recurrent outputs become the next step's inputs."""
        for shown, said in self._apart:
            np.copyto(shown, said)
        super().advance()


def _session(path: Path, content: bytes | None, threads: int, provider: str) -> Any:
    available = {short: name for short, name in PROVIDERS.items() if name in ort.get_available_providers()}
    if provider not in available:
        raise DeviceError(f"provider: expected one of {', '.join(available)} here, got {provider!r}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != "cpu":  # else a missing library would quietly put the model on the CPU
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return ort.InferenceSession(content or path.read_bytes(), options, providers=[available[provider]])
    except Exception as error:  # ONNX Runtime's errors share no base class but this
        raise BundleError(f"{path}: expected a model that ONNX Runtime loads, got: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What ONNX Runtime says, in one line, without its error class and source position."""
    line = " ".join(str(error).split())
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    line = re.sub(r"/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z\[])", "", line)
    return line[:_MAX_REASON] or type(error).__name__


def _direct_call(session: Any, binding: Any) -> Callable[[], None]:
    """The session's run on these buffers, past checks in ONNX Runtime's Python layer of what can't change here."""
    native, bound = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if native is None or bound is None:
        return partial(session.run_with_iobinding, binding)
    return partial(native.run_with_iobinding, bound, None)


def _allocate(path: Path, node: Any) -> Tensor:
    if node.type not in DTYPES:
        raise BundleError(f"{path}: expected tensors of {', '.join(DTYPES)}, got {node.name} {node.type}")
    shape = [1 if i == 0 and not isinstance(size, int) else size for i, size in enumerate(node.shape)]
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise BundleError(f"{path}: expected static shapes, got {node.name} {node.shape}")
    array: Tensor = np.zeros(shape, dtype=DTYPES[node.type])
    return array
