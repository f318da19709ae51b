"""ROS message_filters' ApproximateTimeSynchronizer (the Python one) over seven streams; needs Debian's Python.

sync_ros.py LOAD QUEUE REPEATS     output as of sync_ros.cpp
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import message_filters
import rospy

SLOP_S = 0.1


def main() -> int:
    path, queue, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rospy.rostime.set_rostime_initialized(True)  # there is no node: the wall clock will do
    lines = [tuple(map(int, line.split())) for line in Path(path).read_text().splitlines()]
    sets: list[tuple[int, tuple[Any, ...]]] = []
    arrived = 0
    messages = []
    for _, row, stamp_ns, seq in lines:
        stamp = rospy.Time(stamp_ns // 10**9, stamp_ns % 10**9)
        messages.append((row, SimpleNamespace(header=SimpleNamespace(stamp=stamp), seq=seq, stamp_ns=stamp_ns)))
    for _ in range(repeats):
        filters = [message_filters.SimpleFilter() for _ in range(7)]
        sync = message_filters.ApproximateTimeSynchronizer(filters, queue, SLOP_S)
        sets.clear()
        arrived = 0
        sync.registerCallback(lambda *chosen: sets.append((arrived, chosen)))  # noqa: B023
        start = time.process_time()
        for row, message in messages:
            arrived += 1
            filters[row].signalMessage(message)
        print("us", (time.process_time() - start) * 1e6 / len(lines))
    for count, chosen in sets:
        stamps = (message.stamp_ns for message in chosen[1:])
        print("set", count, chosen[0].stamp_ns, chosen[0].seq, *stamps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
