"""Replay efficiency: the time of the models alone over the time of the whole replay, and where the rest goes.

Models alone: the same engines of the same run, back to back on the tensors in their buffers, as often as the replay ran
each, on as many threads; timed before and after each replay. (An int8 model's time does not depend on the values.)
Drives: a simulated one, and the recorded GoPro walk where the data folder (ROADFUSE_DATA, else ../shared/data) has it.

    python benchmarks/replay.py [--seconds 60] [--repeats 7] [--bundle FOLDER] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import cv2

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.importers.command import main as import_recording
from edge.replay import Replay
from export.world.command import main as simulate

DATA = Path(os.environ.get("ROADFUSE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
WALK = Path("drives") / "gopro-max-walk" / "max-heromode.mp4"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the simulated drive (default 60)")
    parser.add_argument("--repeats", type=int, default=7, help="replays of each drive; the median counts (default 7)")
    parser.add_argument("--bundle", type=Path, help="bundle folder (default: the reference bundle)")
    parser.add_argument("--quick", action="store_true", help="10 s, 3 repeats")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    words = parser.parse_args(argv)
    seconds, repeats = (10.0, 3) if words.quick else (words.seconds, words.repeats)
    bundle = bundles.load(words.bundle)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, drive in _drives(Path(folder), seconds):
            cv2.setNumThreads(-1)  # as the command runs; making a drive leaves one
            results[name] = _measure(drive, bundle, repeats)
            _print(name, results[name])
    if words.json:
        machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        words.json.write_text(json.dumps({**machine, "bundle": bundle.id, "drives": results}, indent=1))
    return 0


def _drives(folder: Path, seconds: float) -> Iterator[tuple[str, Path]]:
    drive = folder / "simulated.mcap"
    simulate(["--seed", "1", "--seconds", str(seconds), "--scenario", "mixed", "--out", str(drive), "--json"])
    yield f"simulated, {seconds:g} s, 640x384", drive
    if (DATA / WALK).is_file():
        drive = folder / "walk.mcap"
        import_recording([str(DATA / WALK), "--out", str(drive)])
        yield "GoPro walk, 10.5 s, 848x480", drive
    else:
        print(f"GoPro walk: not run: no {WALK} in the data folder")


def _measure(drive: Path, bundle: Bundle, repeats: int) -> dict[str, Any]:
    runs = [_replay(drive, bundle) for _ in range(repeats)]
    shas = {run["sha256"] for run in runs}
    if len(shas) != 1:
        raise RuntimeError(f"expected one SHA-256 from all replays, got {sorted(shas)}")
    middle = {key: statistics.median([run[key] for run in runs]) for key in runs[0] if key != "sha256"}
    return {
        **{key: round(value, 4) for key, value in middle.items()},
        "efficiency_of_each_run": [round(run["efficiency"], 3) for run in runs],
        "sha256": shas.pop(),
        "us_per_frame": _breakdown(drive, bundle),
    }


def _replay(drive: Path, bundle: Bundle) -> dict[str, Any]:
    with Replay(drive, bundle) as run:
        before_s = _seconds_alone(run)
        runs = _count_runs(run)
        for engine in run.loop.perception.engines.values():
            engine.reset()
        cpu_s, started_s = time.process_time(), time.perf_counter()
        for _ in run:
            pass
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        counts = dict(runs)
        after_s = _seconds_alone(run)
        model_s = sum(counts[name] * (before_s[name] + after_s[name]) / 2 for name in counts)
    figures = run.statistics.as_dict()
    frames = figures["frames"]
    messages = sum(sum(counts.values()) for counts in run.loop.accounts().values())
    return {
        "efficiency": model_s / wall_s,
        "wall_ms_per_frame": wall_s / frames * 1e3,
        "cpu_ms_per_frame": cpu_s / frames * 1e3,
        "models_ms_per_frame": model_s / frames * 1e3,
        "realtime_factor": figures["realtime_factor"],
        "fused_messages_per_s": messages / wall_s,
        "sha256": figures["sha256"],
    }


def _seconds_alone(run: Replay, rounds: int = 150) -> dict[str, float]:
    """Seconds a call of each engine, the engines of a frame one behind the other."""
    engines = run.loop.perception.engines
    spent_ns = dict.fromkeys(engines, 0)
    for _ in range(rounds):
        for name, engine in engines.items():
            started_ns = time.perf_counter_ns()
            engine.run()
            engine.advance()
            spent_ns[name] += time.perf_counter_ns() - started_ns
    return {name: spent / rounds / 1e9 for name, spent in spent_ns.items()}


def _count_runs(run: Replay) -> Counter[str]:
    """From now on, how often each engine runs."""
    counts: Counter[str] = Counter()

    def counted(name: str, call: Callable[[], None]) -> Callable[[], None]:
        def counting() -> None:
            counts[name] += 1
            call()

        return counting

    for name, engine in run.loop.perception.engines.items():
        engine.run = counted(name, engine.run)  # type: ignore[method-assign]
    return counts


# --- where the rest goes ----------------------------------------------------------------------------------------------


class Account:
    """Time of this thread by part, without that of the parts called inside it."""

    def __init__(self) -> None:
        self.spent_ns: Counter[str] = Counter()
        self._inside_ns = [0]
        self._thread = get_ident()

    def of(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, its time booked to the part."""

        def booked(*arguments: Any) -> Any:
            if get_ident() != self._thread:
                return call(*arguments)
            self._inside_ns.append(0)
            started_ns = time.perf_counter_ns()
            result = call(*arguments)
            elapsed_ns = time.perf_counter_ns() - started_ns
            self.spent_ns[part] += elapsed_ns - self._inside_ns.pop()
            self._inside_ns[-1] += elapsed_ns
            return result

        return booked


def _breakdown(drive: Path, bundle: Bundle) -> dict[str, float]:
    """One more replay with a stopwatch around each part (which itself costs some), us a frame of the main thread."""
    account = Account()

    with Replay(drive, bundle) as run:
        ahead = run._ahead.events

        def events(*arguments: Any, **words: Any) -> Iterator[Any]:
            feed = ahead(*arguments, **words)
            return iter(account.of("waiting for the feed", lambda: next(feed, None)), None)

        run._ahead.events = events  # type: ignore[method-assign]
        loop, perception = run.loop, run.loop.perception
        for engine in perception.engines.values():
            engine.run = account.of("models", engine.run)  # type: ignore[method-assign]
        perception.encode = account.of("preprocess", perception.encode)  # type: ignore[method-assign]
        perception.fuse = account.of("preprocess", perception.fuse)  # type: ignore[method-assign]
        loop._decide = account.of("judge and decision", loop._decide)  # type: ignore[method-assign]
        loop.step = account.of("sync", loop.step)  # type: ignore[method-assign]
        run.statistics.add = account.of("statistics and hash", run.statistics.add)  # type: ignore[method-assign]
        started_ns = time.perf_counter_ns()
        for _ in run:
            pass
        account.spent_ns["the replay's own steps"] = (
            time.perf_counter_ns() - started_ns - sum(account.spent_ns.values())
        )
    frames = run.statistics.frames
    return {part: round(spent_ns / 1e3 / frames, 1) for part, spent_ns in account.spent_ns.most_common()}


def _print(name: str, row: dict[str, Any]) -> None:
    print(f"{name}: efficiency {row['efficiency']:.3f} (each run: {row['efficiency_of_each_run']})")
    print(
        f"  {row['wall_ms_per_frame']:.3f} ms a frame, models alone {row['models_ms_per_frame']:.3f}, "
        f"CPU of all threads {row['cpu_ms_per_frame']:.3f}; {row['realtime_factor']:.1f}x real time, "
        f"{row['fused_messages_per_s']:,.0f} fused messages/s"
    )
    print("  main thread, us a frame, with a stopwatch around each part:")
    for part, spent_us in row["us_per_frame"].items():
        print(f"    {part:<24} {spent_us:>8.1f}")
    print(f"  SHA-256 {row['sha256'][:16]}")


if __name__ == "__main__":
    sys.exit(main())
