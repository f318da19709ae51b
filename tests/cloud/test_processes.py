"""What the cloud's processes owe each other."""

from __future__ import annotations

import subprocess
import sys

STORM = """
import os, signal, threading
from cloud.processes import told_to_end

told, over = told_to_end(), threading.Event()

def storm():
    for _ in range(4000):
        os.kill(os.getpid(), signal.SIGTERM)
    over.set()

threading.Thread(target=storm).start()
heard = 0
while not over.is_set():
    heard += told.wait(0.0001)
    told.clear()
print("heard" if heard else "deaf")
"""


def test_a_signal_that_comes_while_it_is_waited_for_locks_nothing_up() -> None:
    ran = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "heard\n"), ran.stderr[-2000:]
