"""What a swap, a put back and a shadow cost the running loop, at the pace of a drive.

    python benchmarks/swap.py [--drive DRIVE] [--rounds 3]

Each round plays 30 s of a drive live, with an update agent's part played by its clock: at 5 s a bundle goes into the
shadow, at 15 s it is armed and takes over, at 20 s it is stopped, at 24 s a bundle whose scene tags are NaN is armed.
Times are real ones; steps are from the instant at which a frame is due to its decision.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge.bundle import REFERENCE
from edge.drive.reader import DriveReader
from edge.loop import LoopConfig
from edge.realtime import ordinary, realtime
from edge.recorder import Recorder
from edge.run import Inbox, live
from edge.statistics import RunStatistics
from edge.updates.disk import RealDisk
from edge.updates.evidence import ALL
from edge.updates.host import Host
from edge.updates.slots import Held, Slots, folder_of, slots_record
from export.world.command import main as simulate
from roadfuse.v1.updates_pb2 import Stage

SECONDS = 30


@dataclass(frozen=True)
class Step:
    """One decision: when it was there (real time, s), how long it took, and whose it is."""

    at_s: float
    step_ms: float
    bundle: str
    is_back: bool


def add(disk: RealDisk, name: str, scale: float) -> Held:
    """The reference bundle with scene tags times `scale`."""
    folder = disk.path("bundles") / name
    shutil.copytree(REFERENCE, folder)
    model = onnx.load(str(folder / "fuse.onnx"))
    for node in model.graph.node:
        node.output[:] = ["raw" if one == "scene_tags" else one for one in node.output]
    model.graph.node.append(helper.make_node("Mul", ["raw", "scale"], ["scene_tags"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), "scale"))
    content = model.SerializeToString(deterministic=True)
    (folder / "fuse.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["golden"]
    manifest["fuse"]["sha256"] = hashlib.sha256(content).hexdigest()
    raw = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(raw)
    held = Held(hashlib.sha256(raw).hexdigest(), 1, "benchmark")
    folder.rename(disk.path(folder_of(held.bundle)))
    return held


class Round:
    """One run over the drive, and what happened in it."""

    def __init__(self, drive: Path, folder: Path, *, is_realtime: bool) -> None:
        self.steps: list[Step] = []
        self.wrote_s: dict[str, float] = {}
        disk = RealDisk(folder / "updates")
        disk.make_folder("bundles")
        self.good, self.bad = add(disk, "good", 1.0), add(disk, "bad", float("nan"))
        record = slots_record(disk)
        record.write(Slots(epoch=1, account="ab").to_bytes())
        plan = (
            (5.0, "shadow", Slots(2, staged=self.good, stage=Stage.STAGE_SHADOWING, account="ab")),
            (15.0, "arm", Slots(3, staged=self.good, stage=Stage.STAGE_ARMED, account="ab")),
            (20.0, "stop", Slots(4, stage=Stage.STAGE_REFUSED, account="ab")),
            (24.0, "arm a bad one", Slots(5, staged=self.bad, stage=Stage.STAGE_ARMED, account="ab")),
        )
        config = LoopConfig()
        host, inbox, counts = Host(disk, config, say=lambda line: None), Inbox(), RunStatistics(config.deadline_ns)
        loop = host.open(time.perf_counter_ns)
        self.reference = loop.bundle.id
        recorder = Recorder(folder / "recorded.mcap", None, lossless=False)
        begun = threading.Event()
        cores = os.sched_getaffinity(0)

        def agent() -> None:
            begun.wait()
            begun_s = time.monotonic()
            for at_s, name, slots in plan:
                time.sleep(max(begun_s + at_s - time.monotonic(), 0.0))
                if name == "arm":
                    shadow = host.shadow
                    self.shadowed = shadow.evidence.of(ALL) if shadow is not None else None
                    self.lost = shadow.dropped if shadow is not None else 0
                record.write(slots.to_bytes())
                self.wrote_s[name] = time.monotonic()

        threading.Thread(target=agent, daemon=True).start()
        self.refusals = [measure.refusal for measure in realtime() if measure.refusal] if is_realtime else []
        with DriveReader(drive) as reader:
            for decision in live(loop, reader, recorder, counts, 1.0, inbox, host=host):
                begun.set()
                taken = decision.timings_ns["step"] / 1e6
                is_back = decision.put_back is not None
                self.steps.append(Step(time.monotonic(), taken, decision.bundle_id, is_back))
                self.last = decision.index
        ordinary(cores)
        recorder.close()
        host.close()
        os.sched_setaffinity(0, cores)
        self.overflow = sum(inbox.overflow.values())

    def between(self, from_s: float, until_s: float) -> list[float]:
        """Step times in this span of real time, ms."""
        return [step.step_ms for step in self.steps if from_s <= step.at_s < until_s]

    def first(self, bundle: str, after_s: float) -> Step:
        """The first decision of a bundle after an instant."""
        return next(step for step in self.steps if step.at_s >= after_s and step.bundle == bundle)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, help=f"of at least {SECONDS} s (default: simulate one)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--realtime", action="store_true", help="as `roadfuse run --realtime`")
    options = parser.parse_args()
    spans: dict[str, list[float]] = defaultdict(list)
    waits: dict[str, list[float]] = defaultdict(list)
    lost = frames = 0
    with tempfile.TemporaryDirectory() as name:
        drive = options.drive or Path(name) / "drive.mcap"
        if options.drive is None:
            simulate(["--scenario", "demo", "--seed", "7", "--seconds", str(SECONDS), "--out", str(drive), "--json"])
        for number in range(options.rounds):
            one = Round(drive, Path(name) / f"round-{number}", is_realtime=options.realtime)
            wrote = one.wrote_s
            swapped, back = one.first(one.good.bundle, wrote["arm"]), one.first(one.reference, wrote["stop"])
            put_back = next(step for step in one.steps if step.is_back)
            spans["alone (1 to 5 s)"] += one.between(one.steps[0].at_s + 1, wrote["shadow"])
            spans["beside the shadow, opening"] += one.between(wrote["shadow"], wrote["shadow"] + 2)
            spans["beside the shadow, deciding"] += one.between(wrote["shadow"] + 3, wrote["arm"] - 1)
            spans["second around the swap"] += one.between(swapped.at_s - 0.5, swapped.at_s + 0.5)
            spans["second around the stop"] += one.between(back.at_s - 0.5, back.at_s + 0.5)
            spans["second around the put back"] += one.between(put_back.at_s - 0.5, put_back.at_s + 0.5)
            spans["first frame of the new one"].append(swapped.step_ms)
            spans["frame that was put back"].append(put_back.step_ms)
            waits["slots written to running, ms"].append(1e3 * (swapped.at_s - wrote["arm"]))
            waits["stop written to running, ms"].append(1e3 * (back.at_s - wrote["stop"]))
            waits["frames decided by the bad one"].append(sum(step.bundle == one.bad.bundle for step in one.steps))
            if one.shadowed is not None:
                waits["frames paired in the shadow (of about 140)"].append(one.shadowed.frames)
            waits["batches lost on the way to the shadow"].append(one.lost)
            lost += one.overflow + one.last + 1 - len(one.steps)
            frames += len(one.steps)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {options.rounds} rounds")
    print(f"frames {frames}, lost {lost}; load {os.getloadavg()[0]:.0f}; refused: {one.refusals or 'nothing'}")
    print(f"{'step time, ms':<44} {'frames':>7} {'p50':>8} {'p99':>8} {'most':>8}")
    for what, values in spans.items():
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]
        print(f"{what:<44} {len(values):>7} {statistics.median(values):>8.2f} {p99:>8.2f} {ordered[-1]:>8.2f}")
    for what, values in waits.items():
        print(f"{what:<44} median {statistics.median(values):.1f}, most {max(values):.1f}")


if __name__ == "__main__":
    main()
