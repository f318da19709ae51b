"""The real-time switch says what the system refused, and undoes nothing it should not."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import gc, os
from edge.realtime import realtime
measures = realtime()
print(len(measures), gc.isenabled(), gc.get_freeze_count() > 0, len(os.sched_getaffinity(0)))
for measure in measures:
    print(measure.name, "|", measure.refusal)
"""


def test_it_reports_every_measure_and_freezes_the_garbage() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    first, *rest = done.stdout.splitlines()
    count, enabled, frozen, cores = first.split()
    assert (int(count), enabled, frozen) == (len(rest), "False", "True")
    refused = {line.split(" | ")[0]: line.partition(" | ")[2] for line in rest}
    assert any(name.startswith("fifo") for name in refused)
    assert not [name for name, why in refused.items() if name.startswith("garbage") and why]
    assert cores == "1" or any(name.startswith("core") and why for name, why in refused.items())


def test_without_the_right_it_goes_on_and_says_so() -> None:
    drop = "import ctypes, resource; resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0)); import os; os.setuid(65534)\n"
    done = subprocess.run(
        [sys.executable, "-c", "from edge.realtime import realtime\n" + drop + CHILD.replace("from edge", "#")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in done.stderr and "setuid" in done.stderr:
        return  # not root: the first test has shown the refusals already
    assert done.returncode == 0, done.stderr
    assert "fifo scheduling, priority 50 | Operation not permitted" in done.stdout


BESIDE = """
import os, threading
from edge.realtime import ordinary, realtime
cores = os.sched_getaffinity(0)
realtime()
def beside():
    ordinary(cores)
    print(os.sched_getscheduler(0), len(cores) == 1 or not os.sched_getaffinity(0) & loops)
loops = os.sched_getaffinity(0)
is_pinned = len(loops) == 1
thread = threading.Thread(target=beside)
thread.start()
thread.join()
print(is_pinned, os.sched_getaffinity(0) == loops)
"""


def test_threads_beside_the_loop_leave_it_its_scheduling_and_its_core() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, check=True)
    beside, loop = done.stdout.splitlines()
    is_pinned, is_as_it_was = loop.split()
    assert is_as_it_was == "True"
    assert beside == "0 True" or is_pinned == "False"


LANE = """
import os, threading
from concurrent.futures import ThreadPoolExecutor
from edge.realtime import realtime
executor, cores = ThreadPoolExecutor(1), os.sched_getaffinity(0)
lane = executor.submit(threading.get_native_id).result()
realtime(beside=[lane])
loops, lanes = os.sched_getaffinity(0), os.sched_getaffinity(lane)
is_pinned = len(loops) == 1 < len(cores)
print(os.sched_getscheduler(0) == os.sched_getscheduler(lane), not (is_pinned and loops & lanes))
"""


def test_the_lane_is_scheduled_as_the_loop_and_leaves_it_its_core() -> None:
    done = subprocess.run([sys.executable, "-c", LANE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
