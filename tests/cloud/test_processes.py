"""What the cloud's processes owe each other."""

from __future__ import annotations

import subprocess
import sys

STORM = """
import signal, time
from cloud.processes import told_to_end

told = told_to_end()
signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
until = time.monotonic() + 3.0
while time.monotonic() < until:
    told.wait(0.0001)
    told.clear()
signal.setitimer(signal.ITIMER_REAL, 0.0)
signal.raise_signal(signal.SIGTERM)
print("heard" if told.wait(30) else "deaf")
"""


def test_a_signal_that_comes_while_it_is_waited_for_locks_nothing_up() -> None:
    ran = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "heard\n"), ran.stderr[-2000:]
