"""A real mosquitto for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Mosquitto:
    """One on a free port of loopback, which may be killed and started again there.

    Args:
        folder: for its configuration and its log.
        lines: of its configuration; {address} becomes "PORT 127.0.0.1".
    """

    def __init__(self, folder: Path, lines: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._config, self._log = folder / "mosquitto.conf", folder / "log"
        user = "user root\n" if os.getuid() == 0 else ""
        self._config.write_text(lines.replace("{address}", f"{self.port} 127.0.0.1") + user)
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([str(MOSQUITTO), "-c", str(self._config)], stdout=log, stderr=log)
        for _ in range(400):
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("mosquitto does not listen")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


class Broker(Mosquitto):
    """One that lets anybody in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "listener {address}\nallow_anonymous true\n")
