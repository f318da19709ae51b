"""The engines of a bundle for a provider: ONNX Runtime's, or native TensorRT (`trt`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edge.bundle import Bundle, EngineSpec
from edge.engine import BoundEngine, OrtEngine, Tensor


class OpenEngine(Protocol):
    """Opens an engine by name."""

    def __call__(self, name: str, buffers: Mapping[str, Tensor], *, apart: bool = False) -> BoundEngine:
        """On given input buffers, others are its own.

        Args:
            apart: as of OrtEngine; native plans take no notice.
        """
        ...


def engine_opener(bundle: Bundle, provider: str) -> OpenEngine:
    """What opens the engines of a bundle.

    Args:
        bundle: verified.
        provider: of ONNX Runtime (cpu, cuda, tensorrt), or trt: plans from the cache, built where there is none.

    Raises:
        DeviceError: there is no such provider here; or trt, and there is no TensorRT or no GPU.
    """
    if provider == "trt":
        return _native(bundle)

    def open_engine(name: str, buffers: Mapping[str, Tensor], *, apart: bool = False) -> BoundEngine:
        spec = bundle.engines[name]
        return OrtEngine(
            spec.path,
            spec.model(provider).read(),
            threads=bundle.threads,
            provider=provider,
            buffers=buffers,
            state=spec.state,
            constants=spec.constants if isinstance(spec, EngineSpec) else None,
            apart=apart,
        )

    return open_engine


def _native(bundle: Bundle) -> OpenEngine:
    from edge.trt.engine import TensorRtEngine
    from edge.trt.library import open_tensorrt
    from edge.trt.plan_cache import PlanCache, default_folder
    from edge.trt.plans import ready_plan

    tensorrt, cache = open_tensorrt(), PlanCache(default_folder())

    def open_engine(name: str, buffers: Mapping[str, Tensor], *, apart: bool = False) -> BoundEngine:
        spec = bundle.engines[name]
        return TensorRtEngine(
            name,
            ready_plan(tensorrt, bundle, name, cache).content,
            trt=tensorrt.trt,
            driver=tensorrt.driver,
            buffers=buffers,
            state=spec.state,
            constants=spec.constants if isinstance(spec, EngineSpec) else None,
        )

    return open_engine
