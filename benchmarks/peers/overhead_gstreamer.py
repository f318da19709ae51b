"""GStreamer: appsrc to appsink, whose callback maps the buffer and does the work in the streaming thread."""

from __future__ import annotations

import sys
import threading
from typing import Any

import gi
import numpy as np
from overhead_work import HEIGHT_PX, WIDTH_PX, Work, arguments, report

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401

PIPELINE = (
    f"appsrc name=source format=time caps=video/x-raw,format=BGR,width={WIDTH_PX},height={HEIGHT_PX},framerate=30/1 "
    "! appsink name=sink emit-signals=true sync=false max-buffers=2"
)


def main() -> int:
    model, calls, period_ms, path = arguments()
    work = Work(model)
    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE)
    source, sink = pipeline.get_by_name("source"), pipeline.get_by_name("sink")
    done = threading.Semaphore(0)

    def arrived(_: Any) -> Any:
        buffer = sink.emit("pull-sample").get_buffer()
        ok, mapped = buffer.map(Gst.MapFlags.READ)
        if not ok:
            return Gst.FlowReturn.ERROR
        work(np.frombuffer(mapped.data, np.uint8).reshape(HEIGHT_PX, WIDTH_PX, 3))
        buffer.unmap(mapped)
        done.release()
        return Gst.FlowReturn.OK

    sink.connect("new-sample", arrived)
    pipeline.set_state(Gst.State.PLAYING)
    stamp = 0

    def hand_over(picture: Any) -> int:
        nonlocal stamp
        stamp += 1
        buffer = Gst.Buffer.new_wrapped(picture.tobytes())
        buffer.pts = stamp * Gst.SECOND // 30
        source.emit("push-buffer", buffer)
        if not done.acquire(timeout=10):
            raise TimeoutError("the pipeline gave nothing for 10 s")
        return work.elapsed_ns

    report(path, calls, period_ms, hand_over)
    pipeline.set_state(Gst.State.NULL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
