"""Whether a dead network slows the loop: runs of one drive against a real clock, beside an uplink that gets nowhere.

    python benchmarks/dead_network.py [--seconds 20] [--rounds 5] [--json FILE]

The network is none (no uplink runs), dead (nobody listens), stalled (connections are taken and never answered) or cut
(each is reset at once). The uplink has scenes of an earlier run to hand up all the while. Rounds alternate, so that
what else the machine does falls on all alike; the figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud import certificates
from edge.uplink import identity as identities
from export.world.command import main as simulate

NETWORKS = ("none", "dead", "stalled", "cut")
FIGURES = (("step", "p50"), ("step", "p99"), ("latency", "p50"), ("latency", "p99"))
ROADFUSE = (sys.executable, "-m", "edge.command")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the drive")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args(argv)
    found: dict[str, list[dict[str, Any]]] = {network: [] for network in NETWORKS}
    with tempfile.TemporaryDirectory() as folder:
        drive, full, key = Path(folder) / "drive.mcap", Path(folder) / "full", Path(folder) / "identity"
        simulate(["--scenario", "demo", "--seed", "7", "--seconds", str(words.seconds), "--out", str(drive)])
        roadfuse("replay", drive, "--spool", full)
        issue(key, Path(folder) / "ca")
        for _ in range(words.rounds):
            for network in NETWORKS:
                spool = Path(folder) / "spool"
                shutil.copytree(full, spool)
                with uplink(network, spool, key):
                    found[network].append(json.loads(roadfuse("run", drive, "--spool", spool, "--json")))
                shutil.rmtree(spool)
    rows = {network: row(runs) for network, runs in found.items()}
    print(f"{'network':10s}" + "".join(f"{' '.join(figure):>14s}" for figure in FIGURES) + "    frames by deadline")
    for network, figures in rows.items():
        cells = "".join(f"{figures[' '.join(figure)]:11.2f} ms" for figure in FIGURES)
        print(f"{network:10s}{cells}    {100 * figures['coverage']:.2f} %")
    if words.json:
        words.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def row(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over runs."""
    figures = {
        f"{of} {at}": statistics.median(
            (run["latency_ms"] if of == "latency" else run["stage_ms"][of])[at] for run in runs
        )
        for of, at in FIGURES
    }
    return figures | {"coverage": statistics.median(run["coverage"] for run in runs)}


def roadfuse(*words: object) -> str:
    """What a command prints."""
    return subprocess.run([*ROADFUSE, *map(str, words)], check=True, capture_output=True, text=True).stdout


def issue(folder: Path, ca: Path) -> None:
    """A vehicle's key and certificate."""
    authority = certificates.create(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    request = certificates.read_request(identities._request(key, "car-1"))
    folder.mkdir()
    (folder / identities.CLOUD_CA).write_bytes(authority.pem)
    (folder / identities.CERTIFICATE).write_bytes(certificates.issue_vehicle(authority, request).pem)
    secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / identities.KEY).write_bytes(key.private_bytes(serialization.Encoding.PEM, *secret))


@contextmanager
def uplink(network: str, spool: Path, identity: Path) -> Iterator[None]:
    """An uplink that tries all the while."""
    if network == "none":
        yield
        return
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if network == "dead":
            server.close()
        else:
            threading.Thread(target=answer, args=(server, network == "cut"), daemon=True).start()
        argv = ("uplink", "run", "--spool", spool, "--cloud", f"localhost:{port}", "--identity", identity)
        process = subprocess.Popen(
            [*ROADFUSE, *map(str, argv), "--clips", "all"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
            if process.poll() is not None:
                raise SystemExit(f"the uplink ended by itself with {process.returncode}")
        finally:
            process.terminate()
            process.wait(30)


def answer(server: socket.socket, resets: bool) -> None:
    """Takes connections, and never says a word."""
    taken = []
    with suppress(OSError):  # until the server is closed
        while True:
            connection, _ = server.accept()
            if resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            else:
                taken.append(connection)


if __name__ == "__main__":
    sys.exit(main())
