"""MediaPipe's synchronising input over seven streams: a PassThroughCalculator with the default input stream handler.

A packet leaves once the timestamp bounds of all streams have passed it, so that at a camera packet the last packet of
each other stream is the one to hold. Timed without waiting for the graph; then once more, packet by packet, for when
each set left. MediaPipe refuses a stamp that is not newer than the stream's last: those packets count as lost.

    sync_mediapipe.py LOAD QUEUE REPEATS     output as of sync_ros.cpp; QUEUE is not used
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from mediapipe.python import packet_creator, packet_getter
from mediapipe.python._framework_bindings.calculator_graph import CalculatorGraph

NAMES = [f"s{row}" for row in range(7)]
CONFIG = (
    "".join(f'input_stream: "{name}"\noutput_stream: "out_{name}"\n' for name in NAMES)
    + 'node { calculator: "PassThroughCalculator"\n'
    + "".join(f'input_stream: "{name}"\noutput_stream: "out_{name}"\n' for name in NAMES)
    + "}"
)


class Run:
    """One pass over the load."""

    def __init__(self) -> None:
        self.arrived = 0
        self.last: list[int] = [0] * 7
        self.sets: list[tuple[int, list[int], int]] = []
        self.graph = CalculatorGraph(graph_config=CONFIG)
        for row in (*range(1, 7), 0):
            self.graph.observe_output_stream(f"out_{NAMES[row]}", self._observer(row), False)
        self.graph.start_run()

    def feed(self, packets: list[tuple[int, Any, int]], by_one: bool) -> None:
        newest = [-1] * 7
        for row, packet, stamp_us in packets:
            self.arrived += 1
            if stamp_us > newest[row]:
                newest[row] = stamp_us
                self.graph.add_packet_to_input_stream(NAMES[row], packet)
            if by_one:
                self.graph.wait_until_idle()
        self.graph.wait_until_idle()

    def _observer(self, row: int) -> Any:
        def hold(name: str, packet: Any) -> None:
            self.last[row] = packet_getter.get_int(packet)

        def emit(name: str, packet: Any) -> None:
            self.last[0] = packet_getter.get_int(packet)
            self.sets.append((self.arrived, list(self.last), packet.timestamp.value))

        return hold if row else emit


def main() -> int:
    path, repeats = sys.argv[1], int(sys.argv[3])
    lines = [tuple(map(int, line.split())) for line in Path(path).read_text().splitlines()]
    stamps_ns = [stamp_ns for _, _, stamp_ns, _ in lines]
    packets = [
        (row, packet_creator.create_int(i).at(stamp_ns // 1000), stamp_ns // 1000)
        for i, (_, row, stamp_ns, _) in enumerate(lines)
    ]
    for _ in range(repeats):
        run = Run()
        start = time.process_time()
        run.feed(packets, by_one=False)
        print("us", (time.process_time() - start) * 1e6 / len(lines))
    run = Run()
    run.feed(packets, by_one=True)
    for arrived, chosen, _ in run.sets:
        print("set", arrived, stamps_ns[chosen[0]], lines[chosen[0]][3], *(stamps_ns[i] for i in chosen[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
