#!/usr/bin/env python3
"""Two releases meet two vehicles: a good one reaches both, a worse one is refused; and a fleet rehearses what then.

    deploy/rollout_demo.py --cloud FOLDER --roadfuse PROGRAM --drive DRIVE

Each vehicle is a loop that plays DRIVE at its real pace, again and again, and an update agent beside it; the cloud, the
keys, the gates and the broker are the real ones. The worse release is made here: noise in the camera's weights, as a
careless training leaves it. FOLDER is made anew; PostgreSQL does not run as root, so its own user must reach it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from demo import Demo, Failed, local, main

from edge import bundle as bundles
from edge import golden
from edge.bundle_write import Parts, write
from edge.updates.tensors import places

VEHICLES = ("car-1", "car-2")
NOISE = 24  # int8 steps
# Times are short, so that it fits a demo; the tests and their alphas are the usual ones.
POLICY = """\
[shadow]
share = 1.0
least_hours = 0.008
each_hours = 0.003
least_vehicles = 2

[[waves]]
name = "first"
count = 1
least_hours = 0.003

[[waves]]
name = "all"
share = 1.0
least_hours = 0.003

[control]
share = 0.0

# On a desk's computer frames may be late for reasons of its own.
[tests]
interval_s = 1.0
alpha_promote = 0.1
tolerable_per_hour = 600.0
metrics = [{name = "failure", counts = ["put_back", "engine_error", "not_finite", "frozen", "silent"], promotes = true}]
"""


def _tell(demo: Demo, asked: argparse.Namespace) -> None:
    folder, drive, data = demo.folder, asked.drive, ("--data", demo.data)
    demo.run("cloud", "ca", "init", *data, shown=False)
    broker = _broker(demo)
    print("Starting a cloud: PostgreSQL, ingest, the engine of rollouts; keys for releases; a broker.", flush=True)
    demo.serve("--only", "ingest,control", *(("--broker", broker) if broker else ()), waits_for=("ingest", "enrolment"))
    demo.run("release", "keys", "create", *data, "--keys", folder / "keys", shown=False)
    for vehicle in VEHICLES:
        _vehicle(demo, vehicle, drive, broker)
    print(f"{' and '.join(VEHICLES)} drive; each runs the bundle that it came with.", flush=True)

    good, worse = folder / "good", folder / "worse"
    _made(good, "demo-good", lambda model: model)
    _made(worse, "demo-worse", _noisy)
    drives = folder / "gate-drives"
    demo.run("gate", "drives", "--out", drives, "--set", "short", shown=False)
    policy = folder / "policy.toml"
    policy.write_text(POLICY)

    first = _released(demo, good)
    demo.run("gate", "run", "--release", first, *data, "--drives", drives)
    rollout = demo.json("rollout", "create", first, *data, "--policy", policy, "--start")["id"]
    bundle = bundles.load(good).id
    demo.until("Both vehicles act on the good release", lambda: all(_runs(demo, car) == bundle for car in VEHICLES))
    demo.until("Its rollout is done", lambda: _state(demo, rollout) == "done")

    second = _released(demo, worse)
    print(f"\n$ roadfuse gate run --release {second}", flush=True)
    try:
        demo.run("gate", "run", "--release", second, *data, "--drives", drives, "--against", good, shown=False)
    except Failed as refused:
        print(str(refused).partition(": ")[2], flush=True)
    else:
        raise Failed("the worse release passed the gates")
    print("\nSomebody lets it go anyway; it decides in the shadow of the good one.", flush=True)
    words = ("--policy", policy, "--start", "--without-gates", "the demo wants to see the next line of defence")
    rollout = demo.json("rollout", "create", second, *data, *words)["id"]
    explain = ("rollout", "explain", rollout, *data)
    demo.until("It is held there", lambda: "they differ on" in demo.run(*explain, shown=False))
    print("\n".join(line for line in demo.run(*explain, shown=False).splitlines() if line.startswith("waits")))
    demo.run("rollout", "abort", rollout, *data, "--why", "the two tell different things")
    for car in VEHICLES:
        if _runs(demo, car) != bundle:
            raise Failed(f"{car} does not run the good release any more")
    print(f"\nIt stays where it is; {' and '.join(VEHICLES)} still run the good one.")
    if not broker:
        print("Without mosquitto there is no rehearsal of what else would have stopped it.")
        return
    print("\nWhat if no gate had seen it? Two hundred simulated vehicles, five times the failures:")
    rehearsal = ("fleet", "simulate", "--vehicles", 200, "--speed", 300, "--plant", "failures=5,wrong=5", "--hours", 12)
    print("\n$ roadfuse " + " ".join(map(str, rehearsal)), flush=True)
    said = demo.run(*rehearsal, "--policy", _rehearsed(folder), shown=False, codes=(0, 1))
    lines = said.splitlines()
    print("\n".join((*lines[:4], "...", *lines[-7:])))
    if "is stopped" not in said or "\n0 vehicles" not in said:
        raise Failed("the worse release was not stopped before anybody acted on it")


def _rehearsed(folder: Path) -> Path:
    """The usual policy, with a shadow as large as so small a fleet needs."""
    policy = folder / "rehearsed.toml"
    policy.write_text("[shadow]\nshare = 0.3\n")
    return policy


def _broker(demo: Demo) -> str:
    """A mosquitto with the configuration that we deploy; "" where there is none on this machine."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        print("No mosquitto here: vehicles hear of releases when they check in.", flush=True)
        return ""
    demo.run("cloud", "ca", "broker", "--data", demo.data, shown=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent / "mosquitto"
    config = (here / "mosquitto.conf").read_text()
    config = config.replace("/etc/mosquitto/roadfuse/acl", str(here.resolve() / "acl"))
    config = config.replace("/etc/mosquitto/roadfuse", str(demo.data / "ca"))
    config = config.replace("listener 8883", f"listener {port} 127.0.0.1").replace(
        "persistence true", "persistence false"
    )
    (demo.folder / "mosquitto.conf").write_text(config + ("user root\n" if os.getuid() == 0 else ""))
    demo.start(program, "-c", demo.folder / "mosquitto.conf", log="mosquitto.log")
    return f"localhost:{port}"


def _vehicle(demo: Demo, vehicle: str, drive: Path, broker: str) -> None:
    identity, updates = demo.enrol(vehicle), demo.folder / f"{vehicle}-updates"
    agent = ("update", "run", "--updates", updates, "--identity", identity, "--cloud", local(demo.addresses["ingest"]))
    times = ("--shadow-s", 8, "--shadow-frames", 100, "--probation-s", 8, "--report-s", 3)
    demo.start(demo.program, *agent, *times, *(("--broker", broker) if broker else ()), log=f"{vehicle}-agent.log")

    run = (demo.program, "run", drive, "--updates", updates)
    stop = threading.Event()

    def drive_on() -> None:
        while not stop.is_set():
            with ExitStack() as lap:  # of this thread: the demo's may be unwound meanwhile
                loop = Demo(demo.folder, demo.program, lap).start(*run, log=f"{vehicle}-loop.log")
                while loop.poll() is None and not stop.wait(0.1):
                    pass

    driving = threading.Thread(target=drive_on, name=vehicle, daemon=True)
    driving.start()
    demo.stack.callback(driving.join)
    demo.stack.callback(stop.set)  # the last in is the first out: no loop is started that nobody ends


def _made(folder: Path, version: str, change: Callable[[bytes], bytes]) -> None:
    """A bundle like the reference, with another camera; its maker wrote its golden vectors, as makers do."""
    reference = bundles.load()
    assert reference.golden is not None
    models = {name: spec.file.read() for name, spec in reference.engines.items()}
    lowerings = {
        name: {target: file.read() for target, file in spec.lowerings.items()}
        for name, spec in reference.engines.items()
    }
    models["camera"] = change(models["camera"])
    lowerings["camera"] = {target: change(model) for target, model in lowerings["camera"].items()}
    manifest = {key: value for key, value in reference.manifest.items() if key != "golden"}
    inputs = golden.read(reference.golden.path).inputs
    write(folder, Parts({**manifest, "version": version}, models, lowerings, inputs))


def _noisy(model: bytes) -> bytes:
    changed = bytearray(model)
    for place in places(model):
        if place.name.endswith(b".weight.q"):
            weights = np.frombuffer(model, np.int8, place.length, place.start).astype(np.int16)
            noise = np.random.default_rng(5).integers(-NOISE, NOISE + 1, place.length)
            changed[place.start : place.end] = np.clip(weights + noise, -127, 127).astype(np.int8).tobytes()
    return bytes(changed)


def _released(demo: Demo, bundle: Path) -> int:
    keys = ("--data", demo.data, "--keys", demo.folder / "keys")
    demo.run("release", "add", bundle, *keys)
    return int(json.loads(demo.run("release", "list", "--data", demo.data, "--json", shown=False))[0]["counter"])


def _runs(demo: Demo, vehicle: str) -> str:
    said = json.loads(
        demo.run("update", "status", "--updates", demo.folder / f"{vehicle}-updates", "--json", shown=False)
    )
    return str(said["running"])


def _state(demo: Demo, rollout: str) -> str:
    rollouts = demo.json("rollout", "list", "--data", demo.data)
    return str(next(one["state"] for one in rollouts if one["id"] == rollout))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drive", type=Path, required=True, metavar="DRIVE")
    sys.exit(main(parser, _tell))
