"""int8 beside NVIDIA ModelOpt and ONNX Runtime's own static quantisation: SQNR, speed on one CPU thread, bytes.

All quantise the same float files from the same 32 pictures, are measured on 16 others, and run in the same ONNX Runtime
on one thread. Times are CPU times of that thread, paired with the float graph's in alternating calls.

    python benchmarks/quantise.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from quantise_models import networks, pictures

from calibration.canonical import canonical_bytes
from calibration.ranges import collect
from export.guard import MIN_DB, guard
from export.lower import lower
from export.lowerings import lower_to
from export.sensitivity import Meter

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / "out" / "bench-venvs" / "modelopt"
WORK = HERE.parent / "out" / "bench-quantise"
CALIBRATION, TEST = pictures(32, seed=7), pictures(16, seed=8)


def main() -> int:
    options = _options()
    WORK.mkdir(parents=True, exist_ok=True)
    np.save(WORK / "calibration.npy", CALIBRATION)
    rows = []
    for name, net in networks().items():
        source = WORK / f"{name}.onnx"
        source.write_bytes(canonical_bytes(lower(net, (_tensor(TEST[:1]),), ["x"], ["y"])))
        contenders: dict[str, Callable[[Path, Path], None]] = {
            "roadfuse": lambda a, b: _ours(a, b, MIN_DB),
            "roadfuse, no floor": lambda a, b: _ours(a, b, 0.0),
            "ModelOpt, entropy": lambda a, b: _modelopt(a, b, "entropy"),
            "ModelOpt, max": lambda a, b: _modelopt(a, b, "max"),
            "ONNX Runtime static": _onnxruntime,
        }
        exact = _outputs(source)
        for contender, quantise in contenders.items():
            target = WORK / f"{name}.{contender.replace(', ', '-').replace(' ', '-')}.onnx"
            start = time.monotonic()
            quantise(source, target)
            row = {
                "network": name,
                "contender": contender,
                "sqnr_db": round(_sqnr_db(exact, _outputs(target)), 1),
                "speedup": round(_speedup(source, target, 20 if options.quick else 100), 2),
                "bytes": target.stat().st_size,
                "float_bytes": source.stat().st_size,
                "seconds": round(time.monotonic() - start),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(_table(rows))
    if options.json:
        machine = f"{platform.machine()}, Python {platform.python_version()}, ONNX Runtime {ort.__version__}"
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


def _ours(source: Path, target: Path, min_db: float) -> None:
    content = source.read_bytes()
    ranges = collect(content, ({"x": picture[None]} for picture in CALIBRATION))
    model = onnx.load_from_string(content)
    meter = Meter(model, ranges, [{"x": picture[None]} for picture in CALIBRATION[:4]])
    plan = guard(meter, "this machine", min_db)
    target.with_suffix(".plan.json").write_text(plan.to_json())
    target.write_bytes(canonical_bytes(lower_to(model, ranges, "x86", plan.floats)))


def _modelopt(source: Path, target: Path, method: str) -> None:
    python = VENV / "bin" / "python"
    if not python.exists():
        venv.create(VENV, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "nvidia-modelopt[onnx]"], check=True)
    script = HERE / "peers" / "quantise_modelopt.py"
    words = [str(python), str(script), str(source), str(WORK / "calibration.npy"), str(target), method]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ModelOpt failed: {done.stderr[-2000:]}")


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._feeds = iter([{"x": picture[None]} for picture in CALIBRATION])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _onnxruntime(source: Path, target: Path) -> None:
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(
        prepared,
        target,
        _Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _outputs(path: Path) -> np.ndarray:
    session = _session(path)
    return np.concatenate([session.run(None, {"x": picture[None]})[0] for picture in TEST])


def _sqnr_db(exact: np.ndarray, rounded: np.ndarray) -> float:
    noise = float(np.square(exact - rounded).sum())
    return float(10 * np.log10(np.square(exact).sum() / noise)) if noise else float("inf")


def _speedup(source: Path, target: Path, calls: int) -> float:
    sessions = [_session(source), _session(target)]
    feed = {"x": TEST[:1]}
    ratios = []
    for _ in range(calls + 3):
        took = []
        for session in sessions:
            start = time.thread_time_ns()
            session.run(None, feed)
            took.append(time.thread_time_ns() - start)
        ratios.append(took[0] / took[1])
    return float(np.median(ratios[3:]))


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| Network | by | SQNR, dB | times float speed | kB (float) |", "|---|---|---|---|---|"]
    for row in rows:
        size = f"{row['bytes'] / 1e3:.0f} ({row['float_bytes'] / 1e3:.0f})"
        lines.append(
            f"| {row['network']} | {row['contender']} | {row['sqnr_db']:.1f} | {row['speedup']:.2f} | {size} |"
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="int8 beside ModelOpt and ONNX Runtime.")
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
