"""dora-rs: a camera node sends the frame through shared memory, a model node does the work and answers.

The same file is both nodes; the dataflow is written by benchmarks/overhead.py.
"""

from __future__ import annotations

import sys
from typing import Any

import pyarrow
from dora import Node
from overhead_work import HEIGHT_PX, WIDTH_PX, Work, report


def camera(calls: int, period_ms: float, path: str) -> None:
    node = Node()

    def hand_over(picture: Any) -> int:
        node.send_output("frame", pyarrow.array(picture.reshape(-1)))
        while True:
            event = node.next()
            if event is None:
                raise EOFError("the model node is gone")
            if event["type"] == "INPUT":
                return int(event["value"][0].as_py())

    report(path, calls, period_ms, hand_over)


def model(path: str) -> None:
    work = Work(path)
    node = Node()
    for event in node:
        if event["type"] != "INPUT":
            continue
        work(event["value"].to_numpy(zero_copy_only=True).reshape(HEIGHT_PX, WIDTH_PX, 3))
        node.send_output("result", pyarrow.array([work.elapsed_ns]))


if __name__ == "__main__":
    if sys.argv[1] == "camera":
        camera(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
    else:
        model(sys.argv[2])
