"""How fast drives are written and read, beside the stock mcap library in the same run.

The load is that of a vehicle: camera 20 Hz (60 kB), sound 50 Hz, IMU 200 Hz, CAN 100 Hz, GNSS 10 Hz; payloads are
serialised beforehand, so that both sides do the same work: compress, index, check and order.

    python benchmarks/drive.py [--seconds 60] [--repeats 5]     prints JSON; medians, messages a second
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import CHUNK_BYTES, DriveWriter

RATES_HZ = {topics.CAMERA: 20, topics.AUDIO: 50, topics.IMU: 200, topics.CAN: 100, topics.GNSS: 10}
PAYLOAD_BYTES = {topics.CAMERA: 60_000, topics.AUDIO: 640, topics.IMU: 70, topics.CAN: 20, topics.GNSS: 70}
Event = tuple[int, str, int, bytes]  # arrival, topic, sequence, payload


def load(seconds: int) -> list[Event]:
    """All messages of the load in order of arrival."""
    dice = random.Random(1)
    payloads = {topic: [dice.randbytes(size) for _ in range(16)] for topic, size in PAYLOAD_BYTES.items()}
    return sorted(
        (seq * 1_000_000_000 // rate_hz, topic, seq, payloads[topic][seq % 16])
        for topic, rate_hz in RATES_HZ.items()
        for seq in range(seconds * rate_hz)
    )


def write_ours(path: Path, events: list[Event]) -> None:
    with DriveWriter(path) as drive:
        for arrival_ns, topic, seq, payload in events:
            drive.write_payload(topic, payload, capture_ns=arrival_ns, arrival_ns=arrival_ns, sequence=seq)


def write_stock(path: Path, events: list[Event]) -> None:
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
        writer.start()
        channels = {
            topic: writer.register_channel(topic, "protobuf", writer.register_schema(topic, "protobuf", b""))
            for topic in RATES_HZ
        }
        for arrival_ns, topic, seq, payload in events:
            writer.add_message(channels[topic], arrival_ns, payload, arrival_ns, seq)
        writer.finish()


def read_ours(path: Path) -> int:
    with DriveReader(path) as drive:
        return sum(1 for _ in drive.messages())


def read_stock(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in make_reader(file, validate_crcs=True).iter_messages())


def read_ours_one_topic(path: Path) -> int:
    with DriveReader(path) as drive:
        return sum(1 for _ in drive.messages({topics.GNSS}))


def read_stock_one_topic(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in make_reader(file, validate_crcs=True).iter_messages([topics.GNSS]))


def seconds_of(work: Callable[..., Any], *args: Any) -> float:
    """CPU seconds of this process: other work on the machine does not count."""
    start = time.process_time()
    work(*args)
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=60, help="length of the drive (default 60)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median counts (default 5)")
    options = parser.parse_args()
    events = load(options.seconds)
    spent: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ours, stock = Path(folder) / "ours.mcap", Path(folder) / "stock.mcap"
        for _ in range(options.repeats):  # in turns, so that both meet the same machine
            for name, work, *args in (
                ("write", write_ours, ours, events),
                ("write_stock", write_stock, stock, events),
                ("read", read_ours, ours),
                ("read_stock", read_stock, ours),
                ("read_one_topic", read_ours_one_topic, ours),
                ("read_one_topic_stock", read_stock_one_topic, ours),
            ):
                spent.setdefault(name, []).append(seconds_of(work, *args))
        sizes = {"file_bytes": ours.stat().st_size, "file_bytes_stock": stock.stat().st_size}
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "messages": len(events),
        "repeats": options.repeats,
        **sizes,
    }
    for name, times in spent.items():
        result[f"{name}_messages_per_cpu_s"] = round(len(events) / statistics.median(times))
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
