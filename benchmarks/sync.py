"""Synchronisation beside its peers: cost a message, coverage by deadline, and error, on clean and faulty loads.

Seven streams, 430 messages a second, in order of arrival. All contenders run in turn in the same run, so that the
ratios hold on a busy machine. Peers: ROS message_filters, both its C++ (compiled here) and its Python (`apt-get install
python3-message-filters libmessage-filters-dev`); MediaPipe 0.10.21, in a virtual environment of its own. One that can't
be had is reported as absent.

    python benchmarks/sync.py [--seconds 60] [--repeats 7] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sync_load import LOADS, TABLE, Event, Message, events, write
from sync_score import Output, score

from edge.frameset import FrameSet, Pick
from edge.sync import Sync

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "out" / "bench-venvs"
DEBIAN_PYTHON = "/usr/bin/python3"
MEDIAPIPE = "mediapipe==0.10.21"
LIBRARIES = ("message_filters", "roscpp", "rosconsole", "rostime", "cpp_common", "boost_system", "boost_thread")


class Absent(Exception):
    """A peer that can't be had here, and why."""


class Peer(NamedTuple):
    """A contender in another process."""

    name: str
    command: Callable[[], list[str]]
    queue: int
    is_slow: bool = False  # one run must do


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each load (default 60)")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each; the median counts (default 7)")
    parser.add_argument("--quick", action="store_true", help="10 s, 3 repeats")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args(argv)
    seconds, repeats = (10.0, 3) if args.quick else (args.seconds, args.repeats)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        peers, absent = _available(Path(folder))
        for name, sources in LOADS.items():
            results[name] = _run(events(sources, seconds), Path(folder) / "load.txt", peers, repeats)
            _print(name, results[name])
    for peer, why in absent.items():
        print(f"{peer}: not run: {why}")
    if args.json:
        machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        report = {**machine, "seconds": seconds, "repeats": repeats, "loads": results, "absent": absent}
        args.json.write_text(json.dumps(report, indent=1))
    return 0


def _run(load: list[Event], path: Path, peers: list[tuple[Peer, list[str]]], repeats: int) -> dict[str, Any]:
    """One load, all contenders, in turn in each round, so that a busy moment of the machine hits all of them."""
    outputs = {"roadfuse": _our_outputs(load), "nearest of arrived": _nearest_outputs(load)}
    timings: dict[str, list[float]] = {"roadfuse": [], "nearest of arrived": []}
    write(path, load)
    gc.collect()
    gc.freeze()  # as realtime() does
    for round_ in range(repeats):
        timings["roadfuse"].append(min(_cpu_us(lambda: _ours(load), len(load)) for _ in range(2)))
        timings["nearest of arrived"].append(_cpu_us(lambda: _nearest(load), len(load)))
        for peer, command in peers:
            if not (peer.is_slow and round_):
                us, outputs[peer.name] = _peer(peer, command, path, load)
                timings.setdefault(peer.name, []).append(us)
    gc.unfreeze()
    ours = statistics.median(timings["roadfuse"])
    return {
        name: {
            "us_per_message": round(statistics.median(times), 4),
            "ratio_to_roadfuse": round(statistics.median(times) / ours, 3),
            **score(load, outputs[name]),
        }
        for name, times in timings.items()
    }


def _cpu_us(run: Callable[[], None], count: int) -> float:
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1e6 / count


# --- ours, and the plainest thing that could work ---------------------------------------------------------------------


def _ours(load: list[Event]) -> None:
    """Just as the loop drives it."""
    sync = Sync(TABLE)
    pushes, pop = sync.pushes, sync.pop
    for now_ns, row, message in load:
        while now_ns >= sync.due_ns:
            pop(sync.due_ns)
        if pushes[row](message, now_ns):
            while pop(now_ns) is not None:
                pass


def _our_outputs(load: list[Event]) -> list[Output]:
    sync = Sync(TABLE)
    pushes = sync.pushes
    outputs: list[Output] = []

    def drain(arrived: int, now_ns: int) -> None:
        while (frames := sync.pop(now_ns)) is not None:
            if frames.frame is not None:
                outputs.append(_output(arrived, frames))

    for arrived, (now_ns, row, message) in enumerate(load):
        while now_ns >= sync.due_ns:
            drain(arrived, sync.due_ns)
        if pushes[row](message, now_ns):
            drain(arrived + 1, now_ns)
    while sync.camera.stamps:
        drain(len(load), sync.due_ns)
    return outputs


def _output(arrived: int, frames: FrameSet) -> Output:
    stamps = tuple(_nearest_of(pick, frames.stamp_ns) for pick in frames.picks)
    return Output(arrived, frames.emitted_ns, frames.stamp_ns, frames.seq, stamps)


def _nearest_of(pick: Pick, frame_ns: int) -> int | None:
    return min(
        (sample.stamp_ns for sample in pick.samples), key=lambda stamp_ns: abs(stamp_ns - frame_ns), default=None
    )


def _nearest(load: list[Event], found: list[Output] | None = None) -> None:
    """At each camera frame, at once, the nearest that has arrived of each stream: no order, no account, no deadline."""
    rings: list[list[Message]] = [[] for _ in TABLE]
    for arrived, (now_ns, row, message) in enumerate(load):
        if row:
            rings[row].append(message)
            continue
        frame_ns = message.stamp_ns
        chosen: list[Message | None] = []
        for ring in rings[1:]:
            best, best_ns = None, 1 << 62
            for sample in reversed(ring):
                distance_ns = abs(sample.stamp_ns - frame_ns)
                if distance_ns >= best_ns:
                    break
                best, best_ns = sample, distance_ns
            chosen.append(best)
            if len(ring) > 64:
                del ring[:-32]
        if found is not None:
            stamps = tuple(sample and sample.stamp_ns for sample in chosen)
            found.append(Output(arrived + 1, now_ns, frame_ns, message.seq, stamps))


def _nearest_outputs(load: list[Event]) -> list[Output]:
    found: list[Output] = []
    _nearest(load, found)
    return found


# --- peers ------------------------------------------------------------------------------------------------------------


def _available(folder: Path) -> tuple[list[tuple[Peer, list[str]]], dict[str, str]]:
    ros_cpp = _once(lambda: [_compiled(folder)])
    peers = (
        Peer("ROS C++, queue 100", ros_cpp, 100),
        Peer("ROS C++, queue 10", ros_cpp, 10),
        Peer("ROS Python, queue 100", _ros_python, 100, is_slow=True),
        Peer("MediaPipe 0.10.21", _mediapipe, 0),
    )
    found, absent = [], {}
    for peer in peers:
        try:
            found.append((peer, peer.command()))
        except Absent as why:
            absent[peer.name] = str(why)
    return found, absent


def _once(make: Callable[[], list[str]]) -> Callable[[], list[str]]:
    made: list[list[str]] = []

    def get() -> list[str]:
        if not made:
            made.append(make())
        return made[0]

    return get


def _compiled(folder: Path) -> str:
    binary = folder / "sync_ros"
    flags = ["-std=c++17", "-O2", *(f"-l{library}" for library in LIBRARIES)]
    _must(["g++", str(HERE / "peers" / "sync_ros.cpp"), "-o", str(binary), *flags])
    return str(binary)


def _ros_python() -> list[str]:
    _must([DEBIAN_PYTHON, "-c", "import message_filters, rospy"])
    return [DEBIAN_PYTHON, str(HERE / "peers" / "sync_ros.py")]


def _mediapipe() -> list[str]:
    home = CACHE / "mediapipe"
    python = str(home / "bin" / "python")
    if not Path(python).exists():
        venv.create(home, with_pip=True)
        _must([python, "-m", "pip", "install", "--quiet", MEDIAPIPE])
    _must([python, "-c", "import mediapipe"])
    return [python, str(HERE / "peers" / "sync_mediapipe.py")]


def _must(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{Path(command[0]).name}: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Absent(lines[-1] if lines else f"{command[0]} gave {done.returncode}")


def _peer(peer: Peer, command: list[str], path: Path, load: list[Event]) -> tuple[float, list[Output]]:
    """The faster of two runs in a fresh process (the first one warms up), and what came out."""
    arguments = [*command, str(path), str(peer.queue), "1" if peer.is_slow else "2"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    times, outputs = [], []
    for line in done.stdout.splitlines():
        kind, *values = line.split()
        if kind == "us":
            times.append(float(values[0]))
        else:
            arrived, frame_ns, seq, *stamps = map(int, values)
            outputs.append(Output(arrived, load[arrived - 1][0], frame_ns, seq, tuple(stamps)))
    return min(times), outputs


# --- the table --------------------------------------------------------------------------------------------------------


def _print(load: str, results: dict[str, Any]) -> None:
    print(f"\n{load}")
    print(f"{'':24}{'us/msg':>9}{'x ours':>9}{'covered':>9}{'latency':>9}{'age ms p50 (p99)':>18}{'':26}{'excess':>8}")
    print(f"{'':60}{'imu':>16}{'vehicle':>14}{'lidar':>16}{'p99 ms':>9}")
    for name, result in results.items():
        ages = (f"{_age(result, stream):>15}" for stream in ("imu", "vehicle", "lidar"))
        latency = result["latency_ms"].get("p50", float("nan"))
        excess = result["excess_ms"].get("p99", float("nan"))
        print(
            f"{name:24}{result['us_per_message']:9.3f}{result['ratio_to_roadfuse']:9.2f}{result['coverage']:9.2%}"
            f"{latency:9.1f}{''.join(ages)}{excess:9.2f}"
        )


def _age(result: dict[str, Any], stream: str) -> str:
    age = result["age_ms"][stream]
    return f"{age['p50']:.1f} ({age['p99']:.1f})" if age else "-"


if __name__ == "__main__":
    sys.exit(main())
