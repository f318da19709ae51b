"""Overhead around an int8 model call on a 720p frame, beside peers; and what the loop leaves behind in steady state.

Overhead: from handing the frame over until its result is there, minus the time of the work itself (shrink the picture,
run the model), which is the same for all. Ours is the whole step: sync, preprocess, engine, judge, decision. The peers
only carry the frame to a callback and the result back. Each peer that can't be had here is reported with the reason.

    python benchmarks/overhead.py [--calls 300] [--rounds 3] [--period-ms 20] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from overhead_model import make_bundle
from overhead_steady import steady_state
from peers.overhead_work import Work, time_calls

from edge import bundle as bundles
from edge import image_input
from edge.loop import Loop, LoopConfig
from edge.samples import Event, Frame
from edge.streams import MS, STREAMS

HERE = Path(__file__).resolve().parent
VENVS = HERE.parent / "out" / "bench-venvs"
PEERS = HERE / "peers"
DEBIAN_PYTHON = "/usr/bin/python3"
OURS = "roadfuse Loop.step"
FRAMES_TO_SETTLE = 8  # until sync knows that nothing came before the first
_PERIOD_NS = 50 * MS  # of the frames' stamps
_PEER_TIMEOUT_S = 300
_IMAGE_INTO = image_input.image_into


class Absent(Exception):
    """A peer that can't be had here, and why."""


class Times(NamedTuple):
    """Overheads of calls, ns: one frame a period, and one after the other."""

    paced_ns: list[int]
    at_once_ns: list[int]


Contender = Callable[[int, float], Times]  # calls, period in ms


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300, help="of each contender in each round (default 300)")
    parser.add_argument("--rounds", type=int, default=3, help="the contenders take turns so often (default 3)")
    parser.add_argument("--period-ms", type=float, default=20.0, help="between paced frames (default 20)")
    parser.add_argument("--quick", action="store_true", help="one round of 100 calls, 2,000 steady frames")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    words = parser.parse_args(argv)
    calls, rounds = (100, 1) if words.quick else (words.calls, words.rounds)
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "bundle")
        model = bundle / "camera.onnx"
        contenders, absent = _contenders(bundle, model, Path(folder))
        times: dict[str, Times] = {name: Times([], []) for name in contenders}
        for _ in range(rounds):
            for name, contender in contenders.items():
                try:
                    paced_ns, at_once_ns = contender(calls, words.period_ms)
                except Absent as reason:
                    absent[name] = str(reason)
                    continue
                times[name].paced_ns.extend(paced_ns)
                times[name].at_once_ns.extend(at_once_ns)
    figures = _figures({name: taken for name, taken in times.items() if name not in absent})
    steady = steady_state(2_000 if words.quick else 10_000)
    _print(figures, absent, steady, words.period_ms)
    if words.json:
        machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        report = {**machine, "calls": calls * rounds, "period_ms": words.period_ms, "overhead": figures}
        words.json.write_text(json.dumps({**report, "absent": absent, "steady_state": steady}, indent=1))
    return 0


def _figures(times: dict[str, Times]) -> dict[str, dict[str, float]]:
    ours = statistics.median(times[OURS].paced_ns)
    return {
        name: {
            "paced_us": round(statistics.median(taken.paced_ns) / 1e3, 1),
            "paced_p10_us": round(_quantile(taken.paced_ns, 0.1) / 1e3, 1),
            "at_once_us": round(statistics.median(taken.at_once_ns) / 1e3, 1),
            "at_once_p10_us": round(_quantile(taken.at_once_ns, 0.1) / 1e3, 1),
            "ratio_to_ours": round(statistics.median(taken.paced_ns) / ours, 2),
            "untrustworthy_p99_us": round(_quantile(taken.paced_ns, 0.99) / 1e3, 1),
        }
        for name, taken in times.items()
    }


def _quantile(values: list[int], share: float) -> int:
    return sorted(values)[int(len(values) * share)]


def _print(figures: dict[str, dict[str, float]], absent: dict[str, str], steady: dict[str, Any], period: float) -> None:
    print(f"overhead in us around one int8 call on a 720p frame; paced: a frame every {period:g} ms")
    print(f"{'contender':<22} {'paced':>8} {'p10':>8} {'at once':>8} {'p10':>8} {'x ours':>7} {'(p99)':>9}")
    for name, row in figures.items():
        print(
            f"{name:<22} {row['paced_us']:>8.1f} {row['paced_p10_us']:>8.1f} {row['at_once_us']:>8.1f} "
            f"{row['at_once_p10_us']:>8.1f} {row['ratio_to_ours']:>7.2f} {row['untrustworthy_p99_us']:>9.1f}"
        )
    for peer, why in absent.items():
        print(f"{peer}: not run: {why}")
    print("p99 of a shared machine says more of its other tenants than of the contender")
    for name, value in steady.items():
        print(f"steady state: {name.replace('_', ' ')}: {value}")


def _contenders(bundle: Path, model: Path, folder: Path) -> tuple[dict[str, Contender], dict[str, str]]:
    contenders: dict[str, Contender] = {
        "bare onnxruntime": lambda calls, period_ms: _in_process(_bare(model), calls, period_ms),
        OURS: lambda calls, period_ms: _in_process(_ours(bundle), calls, period_ms),
        "thread + queue": lambda calls, period_ms: _in_process(_threaded(model), calls, period_ms),
    }
    absent: dict[str, str] = {}
    for name, prepare in (("MediaPipe 0.10.21", _mediapipe), ("GStreamer", _gstreamer), ("dora-rs 1.1", _dora)):
        try:
            command = prepare(model, folder)
        except Absent as reason:
            absent[name] = str(reason)
            continue
        contenders[name] = lambda calls, period_ms, command=command: _peer(  # type: ignore[misc]
            command, folder / "times.json", calls, period_ms
        )
    return contenders, absent


# --- in this process --------------------------------------------------------------------------------------------------


def _in_process(hand_over: Callable[[Any], int], calls: int, period_ms: float) -> Times:
    gc.collect()
    gc.freeze()  # as realtime() does
    try:
        return Times(time_calls(calls, period_ms / 1e3, hand_over), time_calls(calls, 0.0, hand_over))
    finally:
        gc.unfreeze()


def _bare(model: Path) -> Callable[[Any], int]:
    work = Work(str(model))

    def hand_over(picture: Any) -> int:
        work(picture)
        return work.elapsed_ns

    return hand_over


def _ours(bundle: Path) -> Callable[[Any], int]:
    """The loop on a table of the camera alone; preprocessing and engine are timed where they are called."""
    loop = Loop(bundles.load(bundle), LoopConfig(streams=STREAMS[:1], align=False))  # alignment is work of its own
    spent = Stopwatch()
    image_input.image_into = spent.around(_IMAGE_INTO)
    engine = loop.perception.encoders["camera"]
    engine.run = spent.around(engine.run)  # type: ignore[method-assign]
    seq = 0

    def hand_over(picture: Any) -> int:
        nonlocal seq
        seq += 1
        spent.elapsed_ns = 0
        stamp_ns = seq * _PERIOD_NS
        now_ns = stamp_ns + MS
        decisions = loop.step(Event(now_ns, 0, Frame(stamp_ns, seq, picture), picture.nbytes), now_ns)
        if len(decisions) != 1 and seq > FRAMES_TO_SETTLE:
            raise RuntimeError(f"expected one decision a frame, got {len(decisions)}")
        return spent.elapsed_ns

    return hand_over


class Stopwatch:
    """Adds up the time spent in the calls it is put around."""

    def __init__(self) -> None:
        self.elapsed_ns = 0

    def around(self, call: Callable[..., None]) -> Callable[..., None]:
        """The call, timed."""

        def timed(*arguments: Any) -> None:
            started_ns = time.perf_counter_ns()
            call(*arguments)
            self.elapsed_ns += time.perf_counter_ns() - started_ns

        return timed


def _threaded(model: Path) -> Callable[[Any], int]:
    work = Work(str(model))
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    outbox: queue.SimpleQueue[int] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            work(inbox.get())
            outbox.put(work.elapsed_ns)

    threading.Thread(target=serve, daemon=True).start()

    def hand_over(picture: Any) -> int:
        inbox.put(picture)
        return outbox.get()

    return hand_over


# --- peers ------------------------------------------------------------------------------------------------------------


def _mediapipe(model: Path, folder: Path) -> list[str]:
    python = _venv("mediapipe", [sys.executable, "-m", "venv"], ["mediapipe==0.10.21", "onnxruntime"], "mediapipe")
    return [python, str(PEERS / "overhead_mediapipe.py"), str(model)]


def _gstreamer(model: Path, folder: Path) -> list[str]:
    needs = "apt-get install gstreamer1.0-plugins-base gir1.2-gst-plugins-base-1.0 python3-gi"
    probe = "import gi; gi.require_version('GstApp', '1.0'); from gi.repository import GstApp"
    if not Path(DEBIAN_PYTHON).exists() or subprocess.run([DEBIAN_PYTHON, "-c", probe], capture_output=True).returncode:
        raise Absent(f"no GStreamer for {DEBIAN_PYTHON} ({needs})")
    create = [sys.executable, "-m", "uv", "venv", "-q", "--python", DEBIAN_PYTHON, "--system-site-packages"]
    python = _venv("gstreamer", create, ["numpy", "onnxruntime", "opencv-python-headless"], "onnxruntime, cv2")
    return [python, str(PEERS / "overhead_gstreamer.py"), str(model)]


def _dora(model: Path, folder: Path) -> list[str]:
    wanted = ["dora-rs==1.1.*", "dora-rs-cli==1.1.*", "pyarrow", "onnxruntime", "opencv-python-headless"]
    python = _venv("dora", [sys.executable, "-m", "venv"], wanted, "dora, pyarrow")
    return [str(Path(python).parent / "dora"), "run", str(folder / "dataflow.yml"), str(model)]


def _venv(name: str, create: list[str], packages: list[str], modules: str) -> str:
    """A virtual environment's Python with these packages; made where it is not there yet."""
    home = VENVS / name
    python = home / "bin" / "python"
    if python.exists() and not subprocess.run([python, "-c", f"import {modules}"], capture_output=True).returncode:
        return str(python)
    home.parent.mkdir(parents=True, exist_ok=True)
    has_uv = not subprocess.run([sys.executable, "-m", "uv", "--version"], capture_output=True).returncode
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python)]
    if not has_uv:
        install = [str(python), "-m", "pip", "install", "-q"]
    for command in ([*create, str(home)], [*install, *packages]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"{' '.join(packages)}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return str(python)


def _peer(command: list[str], results: Path, calls: int, period_ms: float) -> Times:
    results.unlink(missing_ok=True)
    if command[1] == "run":
        dora, run, dataflow, model = command
        _write_dataflow(Path(dataflow), Path(dora).with_name("python"), model, calls, period_ms, results)
        command = [dora, run, dataflow]
    else:
        command = [*command, str(calls), str(period_ms), str(results)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PEER_TIMEOUT_S, cwd=results.parent)
    except subprocess.TimeoutExpired:
        raise Absent(f"it hung for {_PEER_TIMEOUT_S} s") from None
    if not results.exists():
        raise Absent(f"it failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    taken = json.loads(results.read_text())
    return Times(taken["paced_ns"], taken["at_once_ns"])


def _write_dataflow(path: Path, python: Path, model: str, calls: int, period_ms: float, results: Path) -> None:
    script = PEERS / "overhead_dora.py"
    camera = {"inputs": {"result": "model/result"}, "outputs": ["frame"]}
    answer = {"inputs": {"frame": "camera/frame"}, "outputs": ["result"]}
    nodes = [
        {"id": "camera", "path": str(python), "args": f"{script} camera {calls} {period_ms} {results}", **camera},
        {"id": "model", "path": str(python), "args": f"{script} model {model}", **answer},
    ]
    path.write_text(json.dumps({"nodes": nodes}))  # YAML takes JSON


if __name__ == "__main__":
    sys.exit(main())
