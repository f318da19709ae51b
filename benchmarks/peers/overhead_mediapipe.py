"""MediaPipe's Python graph: an image packet in, a pass-through node, an observer that does the work."""

from __future__ import annotations

import sys
from typing import Any

import mediapipe
from overhead_work import Work, arguments, report

GRAPH = """
input_stream: "frame"
output_stream: "out"
node { calculator: "PassThroughCalculator" input_stream: "frame" output_stream: "out" }
"""


def main() -> int:
    model, calls, period_ms, path = arguments()
    work = Work(model)
    graph = mediapipe.CalculatorGraph(graph_config=GRAPH)

    def observe(_: str, packet: Any) -> None:
        work(mediapipe.packet_getter.get_image_frame(packet).numpy_view())

    graph.observe_output_stream("out", observe)
    graph.start_run()
    stamp = 0

    def hand_over(picture: Any) -> int:
        nonlocal stamp
        stamp += 1
        image = mediapipe.packet_creator.create_image_frame(
            image_format=mediapipe.ImageFormat.SRGB, data=picture, copy=True
        )
        graph.add_packet_to_input_stream("frame", image.at(stamp))
        graph.wait_until_idle()
        return work.elapsed_ns

    report(path, calls, period_ms, hand_over)
    graph.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
