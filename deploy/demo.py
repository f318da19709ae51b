"""A cloud's folder and the commands that work on it, as the demos tell them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PATIENCE_S = 300.0


class Failed(Exception):
    """A step that did not do what it says."""


class Demo:
    """A cloud's folder and the program that works on it; what `stack` holds ends with the demo."""

    def __init__(self, folder: Path, program: str, stack: ExitStack) -> None:
        self.folder, self.data = folder, folder / "data"
        self.program, self.stack = program, stack
        self.addresses: dict[str, str] = {}

    def run(
        self, *words: object, shown: bool = True, env: dict[str, str] | None = None, codes: tuple[int, ...] = (0,)
    ) -> str:
        """`roadfuse WORDS`; gives what it prints.

        Args:
            codes: of the exit that are no failure.

        Raises:
            Failed: it said no.
        """
        argv = [str(word) for word in words]
        if shown:
            print("\n$ roadfuse " + " ".join(_quoted(word) for word in argv), flush=True)
        done = subprocess.run(
            [self.program, *argv], capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
        )
        if done.returncode not in codes:
            raise Failed(f"roadfuse {' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        if shown:
            print(done.stdout.rstrip(), flush=True)
        return done.stdout

    def json(self, *words: object) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.run(*words, "--json", shown=False))

    def start(self, *argv: object, log: str) -> subprocess.Popen[str]:
        """A process that ends with the demo; what it prints can be read."""
        with (self.folder / log).open("w") as errors:
            process = subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=errors, text=True)
        self.stack.callback(_end, process)
        return process

    def serve(self, *options: object, waits_for: tuple[str, ...] = ("ingest", "enrolment", "search", "web")) -> None:
        """Start the cloud, and wait until its parts answer."""
        ports = [f"--{name}-port=0" for name in ("enrol", "search", "web", "metrics")]
        argv = ("cloud", "serve", "--data", self.data, "--port=0", *ports, *options)
        process = self.start(self.program, *argv, log="cloud.log")
        assert process.stdout is not None
        while not set(waits_for) <= self.addresses.keys():
            line = process.stdout.readline()
            if not line:
                raise Failed(f"the cloud did not start: {(self.folder / 'cloud.log').read_text()[-2000:]}")
            name, _, address = line.strip().partition(" ")
            self.addresses[name] = address

    def enrol(self, vehicle: str) -> Path:
        """A vehicle's certificate, against a token."""
        token = self.run("cloud", "enrol-token", "--data", self.data, vehicle, shown=False).strip()
        identity = self.folder / vehicle
        place = ("--cloud", local(self.addresses["enrolment"]), "--ca", self.data / "ca" / "ca.pem")
        self.run("uplink", "enrol", *place, "--vehicle", vehicle, "--token", token, "--identity", identity, shown=False)
        return identity

    def uplink(self, vehicle: str, spool: Path, cloud: str, clips: str) -> None:
        """The vehicle's own process that hands scenes up."""
        identity = self.enrol(vehicle)
        argv = ("uplink", "run", "--spool", spool, "--cloud", cloud, "--identity", identity, "--clips", clips)
        self.start(self.program, *argv, log=f"{vehicle}.log")

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for something.

        Raises:
            Failed: for too long.
        """
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > PATIENCE_S:
                raise Failed(f"{what}: waited {PATIENCE_S:.0f} s in vain; the logs are in {self.folder}")
            time.sleep(0.5)
        print(f"{what}: after {time.monotonic() - began:.1f} s", flush=True)

    def settled(self) -> bool:
        """Whether nothing waits to be looked at, and nothing was given up."""
        counts = self.json("scenes", "jobs", "--data", self.data)["counts"]["analyse"]
        if counts["parked"]:
            raise Failed(f"a scene could not be analysed: roadfuse scenes jobs --data {self.data} says why")
        return counts["done"] > 0 and not counts["queued"] and not counts["running"]


def main(parser: argparse.ArgumentParser, tell: Callable[[Demo, argparse.Namespace], None]) -> int:
    """Tell a story in a folder that is made anew; gives the exit code.

    Args:
        parser: of what the story needs beside --cloud and --roadfuse.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cloud", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--roadfuse", default="roadfuse", metavar="PROGRAM")
    words = parser.parse_args()
    try:
        with ExitStack() as stack:
            if words.cloud.exists():
                shutil.rmtree(words.cloud)
            words.cloud.mkdir(mode=0o755)
            tell(Demo(words.cloud, words.roadfuse, stack), words)
    except Failed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def local(address: str) -> str:
    return "localhost:" + address.rpartition(":")[2]


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
