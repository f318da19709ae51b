#!/usr/bin/env python3
"""Three vehicles hand their hard scenes to a cloud on this machine; questions find them, a campaign brings one more.

    deploy/fleet_demo.py --cloud FOLDER --roadfuse PROGRAM SPOOL SPOOL SPOOL

The second vehicle's network is cut for a while; the third one is on a metered link and sends only what is asked for.
FOLDER is made anew; PostgreSQL does not run as root, so its own user must be able to reach it. Everything is done by
commands that a user has; each is shown as it runs. At a terminal the cloud stays until Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import urllib.request
import wave
from pathlib import Path
from typing import Any

from demo import Demo, Failed, local, main

from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.samples import AudioChunk

CUT_S = 4.0


def _tell(demo: Demo, asked: argparse.Namespace) -> None:
    spools, data = asked.spools, ("--data", demo.data)
    demo.run("cloud", "ca", "init", *data, shown=False)
    print("Starting a cloud: PostgreSQL, ingest, search, analysis, web pages.", flush=True)
    demo.serve()
    ingest = local(demo.addresses["ingest"])

    link = demo.start(sys.executable, Path(__file__).with_name("link.py"), ingest, log="link.log")
    assert link.stdout is not None
    cuttable = f"localhost:{link.stdout.readline().strip()}"
    link.send_signal(signal.SIGUSR1)
    demo.uplink("car-1", spools[0], ingest, "all")
    demo.uplink("car-2", spools[1], cuttable, "all")
    demo.uplink("car-3", spools[2], ingest, "wanted")
    print("car-1 sends its hard scenes; car-2 has no network; car-3 sends only what is asked for.", flush=True)
    time.sleep(CUT_S)
    link.send_signal(signal.SIGUSR2)
    print(f"car-2 has its network back after {CUT_S:.0f} s.", flush=True)

    def told(count: int) -> bool:
        accounts = demo.json("uplink", "status", "--spool", spools[count])
        return not accounts["untold"] and (count == 2 or not accounts["held"])

    demo.until("All scenes were told of, and the clips of car-1 and car-2 are up", lambda: all(map(told, range(3))))
    demo.until("All clips were looked at", demo.settled)
    demo.run("scenes", "list", *data)
    demo.until("Search has them", lambda: bool(demo.json("search", "siren", *data)["answers"]))
    demo.run("search", "night, rain, a siren", *data, "--limit", 3)
    demo.run("search", "tagsüber, kein Regen", *data, "--limit", 3)
    found = demo.json("search", "siren", *data)["answers"][0]
    print("\nA second of that siren, cut out as siren.wav, is a question too:", end="")
    demo.run("search", "--sound", _heard(demo, found), *data, "--limit", 3)

    before = _received(demo, "car-3")
    query = ("campaign", "create", "crossings", "--query", "a pedestrian crosses", "--budget-mb", 100, "--days", 1)
    demo.run(*query, *data)
    demo.until("The campaign brought a clip of car-3", lambda: _received(demo, "car-3") > before)
    demo.run("campaign", "show", "crossings", *data)
    demo.until("It was looked at", demo.settled)
    demo.run("cloud", "gap", *data)

    key = demo.run("cloud", "key", "create", "demo", "--may-write", *data, shown=False).strip().splitlines()[-1]
    address = demo.addresses["web"]
    with urllib.request.urlopen(address + "/sign-in", timeout=30) as page:
        if page.status != 200:
            raise Failed(f"{address}: expected the dashboard, got status {page.status}")
    print(f"\nThe dashboard answers at {address}; sign in with the key {key}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        print("The cloud stays until Ctrl-C.", flush=True)
        signal.pause()
    else:
        print(f"Started again: roadfuse cloud serve --data {demo.data}", flush=True)


def _received(demo: Demo, vehicle: str) -> int:
    return sum(one["received"] for one in demo.json("cloud", "gap", "--data", demo.data) if one["vehicle"] == vehicle)


def _heard(demo: Demo, answer: dict[str, Any]) -> Path:
    """The second of sound up to a moment that was found, as a WAV file."""
    clip, out = demo.folder / "siren.mcap", demo.folder / "siren.wav"
    demo.run("scenes", "clip", answer["scene"], "--data", demo.data, "--out", clip, shown=False)
    blocks = []
    with DriveReader(clip) as drive:
        for message in drive.messages((topics.AUDIO,)):
            block = codec.decode(message.topic, message.payload, message.sequence)
            if isinstance(block, AudioChunk) and -1_000_000_000 <= block.stamp_ns - answer["instant_ns"] < 0:
                blocks.append(block)
    with wave.open(str(out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(blocks[0].rate_hz)
        file.writeframes(b"".join(block.pcm.astype("<i2").tobytes() for block in blocks))
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spools", nargs=3, type=Path, metavar="SPOOL")
    sys.exit(main(parser, _tell))
