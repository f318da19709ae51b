"""Which layers stay float because int8 loses there: in accuracy, or in measured latency on this machine.

What is measured is written down as a plan, and graphs are lowered by the plan, so that their bytes do not depend on the
weather of a machine. A plan belongs to a graph's structure: new weights of the same network keep it.

Accuracy: while the SQNR is below a floor, the layer that is noisiest by itself goes. Latency: layers are tried in
float in graph order, alone and in pairs of neighbours, each trial against the best graph so far in alternating calls; a
trial wins by the median of its paired ratios. Bad bargains: a layer that makes over half of all noise and saves little
time goes too. At the end int8 as a whole must beat float clearly, or everything stays float.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from calibration.canonical import canonical
from edge.errors import ConfigError
from export.layout import WEIGHTED
from export.lowerings import int8_nodes
from export.sensitivity import Feed, Meter, open_session

FORMAT = 1
MIN_DB = 30.0  # 3 % noise; where heads' figures begin to move
_GAIN = 0.99  # a trial must save 1 % of the whole graph's time: less is noise
_HALF_DB = 3.0  # less noise by half
_LITTLE = 1.10  # a tenth of the time
_WORTH = 1.05  # at least so many times as fast must int8 be as a whole, so that it never is slower elsewhere
_PAIRS = 40
_MIN_S = 0.15  # of calls a trial, for graphs that take microseconds


@dataclass(frozen=True, slots=True)
class Plan:
    """Layers that stay float, with the reason of each.

    Attributes:
        structure: of the graph; see `structure`.
        floats: node -> why.
        measured: figures of the run that chose: machine, latencies, SQNR.
    """

    structure: str
    floats: Mapping[str, str]
    measured: Mapping[str, Any]

    def to_json(self) -> str:
        """Canonical text."""
        content = {
            "format": FORMAT,
            "structure": self.structure,
            "floats": dict(self.floats),
            "measured": dict(self.measured),
        }
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> Plan:
        """Reads what to_json wrote.

        Raises:
            ConfigError: it is no plan.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ConfigError(f"plan: expected format {FORMAT}, got {content['format']!r}")
            floats = {str(node): str(why) for node, why in content["floats"].items()}
            return Plan(str(content["structure"]), floats, dict(content["measured"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"plan: not a plan ({type(error).__name__}: {error})") from None

    def fits(self, model: onnx.ModelProto) -> None:
        """Refuse a plan of another network.

        Raises:
            ConfigError: the message names both.
        """
        got = structure(model)
        if got != self.structure:
            raise ConfigError(f"plan: expected the plan of the graph {got[:12]}, got that of {self.structure[:12]}")


def structure(model: onnx.ModelProto) -> str:
    """SHA-256 of a graph's nodes, wires, settings and shapes, without the values of its weights."""
    plain = canonical(model)
    for tensor in plain.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.raw_data = b""
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()


def read_plan(path: Path) -> Plan:
    """The plan at `path`."""
    try:
        return Plan.from_json(path.read_text())
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def guard(meter: Meter, machine: str, min_db: float = MIN_DB) -> Plan:
    """Measures a plan on this machine; x86 stands for all targets, which must agree.

    Args:
        meter: of the float graph.
        machine: what to call this machine in the plan.
        min_db: the SQNR to reach.
    """
    floats = _accurate(meter, min_db)
    timing = _Timing(meter)
    floats |= _fast(meter, timing, floats)
    floats |= _worth(meter, timing, floats)
    ratio = timing.ratio(None, floats)  # float over int8
    layers = [name for name in _layers(meter) if name not in floats]
    if layers and ratio < _WORTH:
        floats |= dict.fromkeys(
            layers, f"latency: the whole graph is {ratio:.2f} times as fast in int8, which is not worth it"
        )
        ratio = 1.0
    measured = {
        "machine": machine,
        "onnxruntime": ort.__version__,
        "speedup": round(ratio, 2),
        "sqnr_db": {name: round(value, 1) for name, value in meter.sqnr_db(floats=floats).items()},
        "int8_layers": len([name for name in _layers(meter) if name not in floats]),
        "samples": len(meter.inputs),
    }
    return Plan(structure(meter.model), floats, measured)


def _accurate(meter: Meter, min_db: float) -> dict[str, str]:
    """Noise adds up, so the layers that make most of it alone go first, as few as will do."""
    layers = _layers(meter)
    alone = {name: meter.worst_db(floats=set(layers) - {name}) for name in layers}
    ranked = sorted(layers, key=lambda name: alone[name])
    few = bisect.bisect_left(range(len(ranked)), min_db, key=lambda count: meter.worst_db(floats=ranked[:count]))
    return {name: f"accuracy: SQNR {alone[name]:.1f} dB by itself" for name in ranked[:few]}


def _worth(meter: Meter, timing: _Timing, given: Mapping[str, str]) -> dict[str, str]:
    floats = dict(given)
    now = meter.worst_db(floats=floats)
    while noisiest := _noisiest(meter, floats):
        name, then = noisiest
        ratio = timing.ratio({*floats, name}, floats)
        if then - now < _HALF_DB or ratio >= _LITTLE:
            break
        floats[name] = (
            f"bargain: SQNR {now:.1f} dB with it, {then:.1f} dB without, for {100 * (ratio - 1):.1f} % of time"
        )
        now = then
    return floats


def _noisiest(meter: Meter, floats: Collection[str]) -> tuple[str, float] | None:
    """The layer whose leaving raises the SQNR most, and to what; None where no layer is left."""
    trials = {name: meter.worst_db(floats={*floats, name}) for name in _layers(meter) if name not in floats}
    return max(trials.items(), key=lambda trial: trial[1]) if trials else None


def _fast(meter: Meter, timing: _Timing, given: Mapping[str, str]) -> dict[str, str]:
    floats: dict[str, str] = {}
    for group in _groups(meter):
        names = [name for name in group if name not in floats and name not in given]
        if len(names) < len(group):
            continue
        ratio = timing.ratio({*given, *floats, *names}, {*given, *floats})
        if ratio < _GAIN:
            why = f"latency: the graph takes {ratio:.3f} times as long with it in float"
            floats |= dict.fromkeys(names, why if len(names) == 1 else f"{why}, and its neighbour")
    return floats


def _groups(meter: Meter) -> Iterator[tuple[str, ...]]:
    layers = _layers(meter)
    yield from ((name,) for name in layers)
    yield from itertools.pairwise(layers)


def _layers(meter: Meter) -> list[str]:
    weighted = {node.name for node in meter.model.graph.node if node.op_type in WEIGHTED}
    return [name for name in int8_nodes(meter.model) if name in weighted]


class _Timing:
    """Compares latencies of two lowerings in alternating calls."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def ratio(self, one: Collection[str] | None, other: Collection[str] | None) -> float:
        """Median of the paired ratios of time; None means the float graph itself."""
        first, second = self._call(one), self._call(other)
        ratios: list[float] = []
        start = time.perf_counter()
        while len(ratios) < _PAIRS or time.perf_counter() - start < _MIN_S:
            ratios.append(_elapsed(first) / _elapsed(second))
        return float(np.median(ratios[3:]))

    def _call(self, floats: Collection[str] | None) -> Any:
        meter = self._meter
        model = meter.model if floats is None else meter.lowered("x86", floats)
        return _bound(model, meter.inputs[0])


def _bound(model: onnx.ModelProto, feed: Feed) -> Any:
    """A call on inputs and outputs that are bound once."""
    session = open_session(model)
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(value))
    for port in session.get_outputs():
        binding.bind_output(port.name)
    session.run_with_iobinding(binding)
    return lambda: session.run_with_iobinding(binding)


def _elapsed(call: Any) -> int:
    start = time.thread_time_ns()  # of this thread's CPU: who else runs on the machine does not count
    call()
    return time.thread_time_ns() - start
