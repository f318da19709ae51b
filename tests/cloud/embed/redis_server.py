"""A real Redis for tests, on a socket of its own: killed, stopped and filled as they like."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

import redis

REDIS = shutil.which("redis-server")
MISSING = "no redis-server on this machine: apt-get install redis-server"


class RedisServer:
    """One in a folder, which ends with its `with` block; nothing of it outlives a kill."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._folder, self._words = folder, words
        self.url = f"unix://{folder / 'redis.sock'}"
        self.start()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it answers."""
        assert REDIS is not None
        argv = [REDIS, "--port", "0", "--unixsocket", "redis.sock", "--save", "", "--dir", ".", *self._words]
        self._process = subprocess.Popen(argv, cwd=self._folder, stdout=subprocess.DEVNULL)
        self.client = redis.Redis.from_url(self.url)
        for _ in range(500):
            try:
                self.client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        """It is gone, with all that it held."""
        self.client.close()
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        """It takes connections and never answers, until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again."""
        self._process.send_signal(signal.SIGCONT)
