"""A bundle's engine as a plan for this device: from the cache, or built, checked and kept."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.bundle import Bundle
from edge.errors import BundleError
from edge.trt.build import BuiltPlan, Profile, build_plan
from edge.trt.engine import load_engine
from edge.trt.layers import engine_layers, is_told, not_int8
from edge.trt.library import TensorRt
from edge.trt.onnx_plan import OnnxPlan, read_plan
from edge.trt.plan_cache import PlanCache

PROVIDER: Final = "trt"
_RECIPE: Final = "1"  # of build_plan: raise it when the same ONNX file is to give another plan
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadyPlan:
    """A plan that this device can load.

    Attributes:
        name: of the engine.
        content: the serialised engine.
        path: where the cache keeps it.
        not_kept: why the cache does not, though it was built; "" where it does.
        state: "cached", "built", or "rebuilt" where a cache file could not be used.
        why: what was wrong with that file, else "".
        asked: by the ONNX file.
        not_int8: those of its int8 nodes that TensorRT did not build in int8.
        seconds: that the build took; 0 from the cache.
    """

    name: str
    content: bytes
    path: Path
    not_kept: str
    state: str
    why: str
    asked: OnnxPlan
    not_int8: tuple[str, ...]
    seconds: float


def ready_plan(tensorrt: TensorRt, bundle: Bundle, name: str, cache: PlanCache) -> ReadyPlan:
    """The plan of one engine; one that was built is given though it can't be kept.

    Args:
        tensorrt: of this device.
        bundle: verified.
        name: of its engine: a modality or "fuse".
        cache: where it may lie already, and will.

    Raises:
        BundleError: TensorRT can't build it, or not in the precision that the manifest promises.
    """
    spec = bundle.engines[name]
    model, profiles = spec.model(PROVIDER).read(), _profiles(bundle, name)
    asked = read_plan(model, name)
    if spec.precision == "int8" and not asked.int8:  # trt: guarded (the manifest's word)
        raise BundleError(f"{name}: expected layers in int8, as the manifest says, got an ONNX file that has none")
    key = {
        "onnx": hashlib.sha256(model).hexdigest(),
        "profiles": str(profiles) if profiles else "",
        "recipe": _RECIPE,
        **_of_device(tensorrt),
    }
    why = ""
    try:
        entry = cache.read(name, key)
    except BundleError as error:
        entry, why = None, str(error)
        _log.warning("plan_rebuilt engine=%s reason=%s", name, why)
    if entry is not None:
        missing = tuple(map(str, entry.notes.get("not_int8", ())))
        _warn(name, asked, missing)
        return ReadyPlan(name, entry.content, cache.path(name, key), "", "cached", "", asked, missing, 0.0)
    start = time.perf_counter()
    built = _built(tensorrt, model, name, profiles, cache)
    seconds = time.perf_counter() - start
    missing = _checked(tensorrt, built, name)
    _warn(name, asked, missing)
    not_kept = _kept(cache, name, key, built.content, {"not_int8": missing})
    state = "rebuilt" if why else "built"
    return ReadyPlan(name, built.content, cache.path(name, key), not_kept, state, why, asked, missing, seconds)


def _built(tensorrt: TensorRt, model: bytes, name: str, profiles: Mapping[str, Profile], cache: PlanCache) -> BuiltPlan:
    """Build with the device's timing cache, and keep what the build learned."""
    key = _of_device(tensorrt)
    try:
        known = cache.read("timing", key)
    except BundleError as error:
        known = None
        _log.warning("timing_cache_dropped reason=%s", error)
    timing = known.content if known else b""
    built = build_plan(tensorrt.trt, model, name, profiles=profiles, timing=timing)
    if built.timing != timing:
        _kept(cache, "timing", key, built.timing, {})
    return built


def _kept(cache: PlanCache, name: str, key: Mapping[str, str], content: bytes, notes: Mapping[str, Any]) -> str:
    """Keep what was built; why it can't be, else "": a full disk says nothing of a plan that is in hand."""
    try:
        cache.write(name, key, content, notes)
    except OSError as error:
        _log.warning("plan_not_kept name=%s reason=%s", name, error)
        return str(error)
    return ""


def _checked(tensorrt: TensorRt, built: BuiltPlan, name: str) -> tuple[str, ...]:
    """Which of the nodes asked for in int8 are not; all of them is an error."""
    _, engine = load_engine(tensorrt.trt, built.content, name)
    if not built.asked.int8:
        return ()
    layers = engine_layers(tensorrt.trt, engine, name)
    missing = not_int8(built.asked.int8, layers)
    if len(missing) == len(built.asked.int8) and is_told(missing, layers):
        raise BundleError(f"{name}: expected {len(missing)} layers in int8, TensorRT built none: {_some(missing)}")
    return missing


def _warn(name: str, asked: OnnxPlan, missing: tuple[str, ...]) -> None:
    if missing:
        _log.warning(
            "layers_not_int8 engine=%s count=%d of=%d: %s", name, len(missing), len(asked.int8), _some(missing)
        )


def _of_device(tensorrt: TensorRt) -> dict[str, str]:
    """All of the device and its libraries that a plan depends on."""
    device = tensorrt.device
    return {
        "tensorrt": tensorrt.version,
        "cuda": "{}.{}".format(*device.cuda),
        "sm": "{}.{}".format(*device.sm),
        "device": device.name,
    }


def _profiles(bundle: Bundle, name: str) -> dict[str, Profile]:
    """Of the manifest: engine -> "profiles": input -> [least, best, most]."""
    entry = bundle.manifest["fuse"] if name == "fuse" else bundle.manifest["encoders"][name]
    found: dict[str, Any] = entry.get("profiles", {})
    try:
        return {tensor: Profile(*(tuple(map(int, shape)) for shape in shapes)) for tensor, shapes in found.items()}
    except (TypeError, ValueError, AttributeError):
        raise BundleError(f"{name}: expected profiles of input -> [least, best, most] shapes, got {found}") from None


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
