"""An ONNX model into a TensorRT plan: strongly typed, explicit Q/DQ, static shapes or a profile.

The module `trt` is a parameter: the device gives it `tensorrt`, a machine without a GPU TensorRT-RTX, whose parser and
builder are of the same family and need none. Enum members are taken by name, each time: their numbers differ between
versions. TF32 is off: what the file calls float32 is computed in it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge.errors import BundleError
from edge.trt.onnx_plan import OnnxPlan, read_plan

if TYPE_CHECKING:
    import tensorrt as trt

Shape = tuple[int, ...]
_MAX_REASON: Final = 300  # characters
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """The sizes that one input may have; `best` is what the plan is tuned for and the loop runs."""

    least: Shape
    best: Shape
    most: Shape


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan and what it was to be.

    Attributes:
        content: the serialised engine.
        asked: by the ONNX file.
        timing: the timing cache after the build; b"" without one.
    """

    content: bytes
    asked: OnnxPlan
    timing: bytes


def build_plan(
    trt: Any,
    model: bytes,
    name: str,
    *,
    profiles: Mapping[str, Profile] | None = None,
    timing: bytes | None = None,
) -> BuiltPlan:
    """Build one engine.

    Args:
        trt: TensorRT's Python module.
        model: ONNX bytes.
        name: of the engine, for messages.
        profiles: by input, where its shape is dynamic.
        timing: what an earlier build learned about kernels, or b""; None builds without a timing cache.

    Raises:
        BundleError: TensorRT can't build it; the message has TensorRT's own reason and the node.
    """
    asked = read_plan(model, name)
    log = Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(model):
        raise BundleError(f"{name}: expected a model that TensorRT parses, got: {_parse_error(parser, log)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    _add_profile(builder, network, config, name, profiles or {})
    cache = _timing_cache(config, timing)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BundleError(f"{name}: expected a model that TensorRT builds, got: {log.reason()}")
    return BuiltPlan(bytes(plan), asked, b"" if cache is None else bytes(cache.serialize()))


class Log:
    """TensorRT's log: errors are kept for messages, warnings go to ours, the rest is dropped."""

    def __init__(self, trt: Any) -> None:
        errors = self.errors = []  # type: list[str]

        class Logger(trt.ILogger):  # type: ignore[misc]
            def log(self, severity: Any, message: str) -> None:
                if severity.name in ("ERROR", "INTERNAL_ERROR"):
                    errors.append(message)
                elif severity.name == "WARNING":
                    _log.info("tensorrt_warns %s", one_line(message))

        self.logger = Logger()

    def reason(self) -> str:
        """The first error: what follows it is its echo."""
        return one_line(self.errors[0]) if self.errors else "no reason"


def one_line(text: str) -> str:
    """TensorRT's message as one line of bounded length."""
    return " ".join(text.split())[:_MAX_REASON]


def _parse_error(parser: trt.OnnxParser, log: Log) -> str:
    if parser.num_errors == 0:
        return log.reason()
    error = parser.get_error(0)
    where = f"{error.node_operator()} {error.node_name()}: " if error.node_operator() else ""
    description = error.desc()
    if description.strip() in ("", "false"):  # all that the parser says of an operator that it lacks
        description = "an operator or a use of it that this TensorRT does not support"
    return one_line(where + description)


def _add_profile(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    name: str,
    profiles: Mapping[str, Profile],
) -> None:
    inputs = {tensor.name: tensor for tensor in (network.get_input(i) for i in range(network.num_inputs))}
    if unknown := sorted(set(profiles) - set(inputs)):
        raise BundleError(f"{name}: expected profiles of inputs {', '.join(inputs)}, got {unknown[0]}")
    dynamic = {tensor: tuple(inputs[tensor].shape) for tensor in inputs if -1 in tuple(inputs[tensor].shape)}
    for tensor, shape in dynamic.items():
        if tensor not in profiles:
            raise BundleError(f"{name}: expected static shapes or a profile, got input {tensor} {_shown(shape)}")
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor, shape in dynamic.items():
        sizes = profiles[tensor]
        _check_profile(name, tensor, shape, sizes)
        profile.set_shape(tensor, sizes.least, sizes.best, sizes.most)
    if config.add_optimization_profile(profile) < 0:
        raise BundleError(f"{name}: expected a profile that TensorRT takes, got {dict(profiles)}")


def _check_profile(name: str, tensor: str, shape: Shape, sizes: Profile) -> None:
    ranks = {len(shape), len(sizes.least), len(sizes.best), len(sizes.most)}
    ordered = all(0 < low <= best <= high for low, best, high in zip(sizes.least, sizes.best, sizes.most))
    fits = all(size in (-1, least) and size in (-1, most) for size, least, most in zip(shape, sizes.least, sizes.most))
    if len(ranks) != 1 or not ordered or not fits:
        raise BundleError(
            f"{name}: expected a profile of {tensor} {_shown(shape)} with least <= best <= most, "
            f"got {_shown(sizes.least)}, {_shown(sizes.best)}, {_shown(sizes.most)}"
        )


def _timing_cache(config: trt.IBuilderConfig, timing: bytes | None) -> trt.ITimingCache | None:
    if timing is None:
        return None
    cache = config.create_timing_cache(timing)
    if timing and (cache is None or not config.set_timing_cache(cache, False)):  # of another TensorRT or GPU
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    elif not timing:
        config.set_timing_cache(cache, False)
    return cache


def _shown(shape: Sequence[int]) -> str:
    return "x".join("?" if size == -1 else str(size) for size in shape)
