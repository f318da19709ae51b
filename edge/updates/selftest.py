"""A staged bundle proves itself away from the loop: a child process opens, checks and times it, within limits.

A bundle that hangs, crashes or eats memory takes the child with it, not the agent. What is asked of it:

    build   its engines open; for TensorRT, plans are built and kept for the loop
    test    all golden vectors within their tolerances; all outputs finite; and its engines, run in turn with the active
            bundle's on the same machine in the same seconds, no slower than the limits say
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.errors import BundleError, DeviceError, RoadfuseError, UpdateError
from edge.updates.disk import Disk
from edge.updates.slots import folder_of

_LOOK_S: Final = 0.02
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_MOST_SAID: Final = 300
_REFUSED: Final = 3  # exit code of a child that found the bundle wanting
_NATIVE: Final = "trt"
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Budget:
    """What a bundle may take.

    Attributes:
        build_s: TensorRT may search for long.
        test_s: for golden vectors and timing.
        memory_bytes: resident, of the child.
        runs: of all engines, timed; the median counts.
        ratio: of the median to the active bundle's, at most.
        latency_s: of the median, at most, whatever the active bundle takes: the loop's deadline is 100 ms.
        slack_s: below which a ratio says nothing.
    """

    build_s: float = 1800.0
    test_s: float = 300.0
    memory_bytes: int = 4 << 30
    runs: int = 30
    ratio: float = 1.5
    latency_s: float = 0.08
    slack_s: float = 0.002


class ChildTester:
    """Tries the bundles of an updates folder.

    Args:
        provider: of ONNX Runtime, or trt.
        reference: folder of the bundle that "" names.
    """

    def __init__(
        self, disk: Disk, provider: str = "cpu", budget: Budget | None = None, reference: Path = bundles.REFERENCE
    ) -> None:
        self._disk, self._provider = disk, provider
        self._budget, self._reference = budget or Budget(), reference

    def is_whole(self, bundle: str) -> bool:
        """Whether its files are what its id says."""
        try:
            return bundles.load(self._folder(bundle)).id == bundle
        except (BundleError, OSError):
            return False

    def build(self, bundle: str) -> None:
        """Open, or build, all engines.

        Raises:
            UpdateError: why it is refused.
            OSError: trying again may help.
        """
        self._child("build", self._budget.build_s, bundle, bundle)

    def test(self, bundle: str, active: str) -> None:
        """Golden vectors, finite outputs, latency.

        Raises:
            UpdateError: why it is refused.
            OSError: trying again may help.
        """
        self._child("test", self._budget.test_s, bundle, active)

    def _folder(self, bundle: str) -> Path:
        return self._disk.path(folder_of(bundle)) if bundle else self._reference

    def _child(self, what: str, most_s: float, bundle: str, active: str) -> None:
        budget = self._budget
        words = {
            "what": what, "bundle": str(self._folder(bundle)), "active": str(self._folder(active)),
            "provider": self._provider, "runs": budget.runs, "memory_bytes": budget.memory_bytes,
        }  # fmt: skip
        command = [sys.executable, "-m", "edge.updates.selftest", json.dumps(words)]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            ended = _watched(child, most_s, budget.memory_bytes)
        finally:
            _end(child)
        assert child.stdout is not None
        with child.stdout:
            said = child.stdout.read(1 << 20).decode(errors="replace").strip()
        if ended:
            raise UpdateError(f"self-test: {what}: {ended}")
        if child.returncode == _REFUSED:
            raise UpdateError(f"self-test: {said[:_MOST_SAID]}")
        if child.returncode < 0:
            raise UpdateError(f"self-test: {what}: ended by {signal.Signals(-child.returncode).name}")
        if child.returncode > 0:
            raise OSError(f"self-test: {what}: {said[-_MOST_SAID:] or f'exit code {child.returncode}'}")
        if what == "test":
            try:
                told = json.loads(said.splitlines()[-1])
                check_latency(float(told["median_s"]), float(told["active_median_s"]), budget)
            except (ValueError, KeyError, TypeError, IndexError):
                raise UpdateError("self-test: expected medians from the child, got something else") from None


def check_latency(median_s: float, active_s: float, budget: Budget) -> None:
    """Refuse a bundle that is slow.

    Raises:
        UpdateError: it is.
    """
    if not (math.isfinite(median_s) and median_s <= budget.latency_s):
        raise UpdateError(
            f"self-test: expected at most {budget.latency_s * 1e3:.1f} ms for all engines, got {median_s * 1e3:.1f}"
        )
    if not median_s <= max(active_s * budget.ratio, active_s + budget.slack_s):
        raise UpdateError(
            f"self-test: expected at most {budget.ratio:g} times the active bundle's {active_s * 1e3:.1f} ms for all "
            f"engines, got {median_s * 1e3:.1f}"
        )


def _watched(child: subprocess.Popen[bytes], most_s: float, most_bytes: int) -> str:
    """Why the child had to be ended; "" where it ended by itself."""
    began_s = time.monotonic()
    while child.poll() is None:
        if time.monotonic() - began_s > most_s:
            return f"expected an end within {most_s:.0f} s, got none"
        if _resident_bytes(child.pid) > most_bytes:
            return f"expected at most {most_bytes >> 20} MiB of memory, got more"
        time.sleep(_LOOK_S)
    return ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """With all that it started; its group has its own number."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):  # it just ended, or this is no Linux
        return 0


# The child's side.


def _main(words: Mapping[str, Any]) -> int:
    _die_with_parent()
    if words["provider"] == "cpu":  # a GPU's address space says nothing of its memory
        most = 4 * int(words["memory_bytes"])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        bundle = bundles.load(words["bundle"])
        if words["what"] == "build":
            _build(bundle, words["provider"])
            return 0
        _check(bundle, words["provider"])
        active = bundles.load(words["active"])
        print(json.dumps(_medians(bundle, active, words["provider"], int(words["runs"]))))
    except (DeviceError, OSError, ImportError) as error:  # the machine's fault, not the bundle's
        print(error)
        return 1
    except MemoryError:
        print("expected less memory to be enough, got none left")
        return _REFUSED
    except Exception as error:  # the process's top; runtimes' errors share no base class but this
        print(error if isinstance(error, RoadfuseError) else f"{type(error).__name__}: {error}")
        return _REFUSED
    return 0


def _die_with_parent() -> None:
    """An agent that is killed leaves no child that hangs for ever (Linux)."""
    import ctypes

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _build(bundle: Bundle, provider: str) -> None:
    from edge.engines import engine_opener

    if provider == _NATIVE:
        from edge.trt.library import open_tensorrt
        from edge.trt.plan_cache import PlanCache, default_folder
        from edge.trt.plans import ready_plan

        tensorrt, cache = open_tensorrt(), PlanCache(default_folder())
        for name in bundle.engines:
            plan = ready_plan(tensorrt, bundle, name, cache)
            if plan.not_kept:  # the loop would have to build it anew
                raise OSError(plan.not_kept)
        return
    opened = engine_opener(bundle, provider)
    for name in bundle.engines:
        opened(name, {}).warm_up(1)


def _check(bundle: Bundle, provider: str) -> None:
    """Golden vectors, and nothing that is not finite on any input that is known or made."""
    import numpy as np

    from edge import golden
    from edge.engines import engine_opener

    if bundle.golden is None:
        raise UpdateError("expected golden vectors in the bundle, got none")
    vectors = golden.read(bundle.golden.path)
    for answer in golden.check(bundle, vectors, provider=provider):
        if answer.where is not None:
            raise UpdateError(f"golden: {answer}")
    opened = engine_opener(bundle, provider)
    made = golden.made_inputs(bundle)
    for name in bundle.engines:
        engine = opened(name, {})
        dark = {tensor: np.zeros_like(values[:1]) for tensor, values in made.get(name, {}).items()}  # a covered camera
        for inputs in (vectors.inputs.get(name), made.get(name), dark):
            if not inputs:
                continue
            for tensor, values in golden.answer(engine, inputs, bundle.path).items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise UpdateError(f"{name} {tensor}: expected finite values, got some that are not")


def _medians(bundle: Bundle, active: Bundle, provider: str, runs: int) -> dict[str, float]:
    """Of all engines of each, in turn: what else the machine does falls on both."""
    rounds = [_round(bundle, provider), _round(active, provider)]
    for engines in rounds:
        next(engines)
    times: list[list[float]] = [[], []]
    for _ in range(runs):
        for engines, own in zip(rounds, times):
            own.append(next(engines))
    return {"median_s": sorted(times[0])[runs // 2], "active_median_s": sorted(times[1])[runs // 2]}


def _round(bundle: Bundle, provider: str) -> Iterator[float]:
    from edge.engines import engine_opener

    opened = engine_opener(bundle, provider)
    engines = [opened(name, {}) for name in bundle.engines]
    for engine in engines:
        engine.warm_up(bundle.warm_up)
    while True:
        began_s = time.perf_counter()
        for engine in engines:
            engine.run()
        yield time.perf_counter() - began_s


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
