"""The worker: takes jobs from the queue and has each carried out by a process of its own kind, a hand.

The worker holds leases and watches; a hand runs handlers (cloud/hand.py) and may die, hang or take all memory: the
worker notes that against the job and starts a new one. SIGTERM hands leases back, so that another worker can go on at
once. While the database is away nothing is taken, and what is under way goes on for as long as its lease would hold.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing import Pipe as new_pipe
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Final

from prometheus_client import Counter
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cloud.database import opened
from cloud.errors import CloudError, LeaseLost
from cloud.hand import Done, Failed, Order, Place, Ready, Said, heard, send
from cloud.handlers import HANDLERS, Handler, Options
from cloud.jobs import Queue
from cloud.lease import Lease
from cloud.processes import told_to_end
from cloud.settings import Settings

_LOG: Final = logging.getLogger(__name__)
# Between looks into an empty queue.
LOOK_S: Final = 0.5
# While the database is away, from the first to the second.
AWAY_S: Final = (0.2, 5.0)
# A job says often how far it is; the database hears of it at most so often.
SAY_S: Final = 0.3
# A process has so long to start; on a busy machine it takes seconds.
START_S: Final = 60.0
HAND: Final = "import sys; from cloud.hand import main; sys.exit(main(*map(int, sys.argv[1:])))"
_JOBS: Final = Counter("roadfuse_jobs", "Jobs that this worker let go of, by what became of them", ["kind", "end"])


def serve(
    settings: Settings, tell: Callable[[str], None], options: Options | None = None,
    handlers: Mapping[str, Handler] | None = None,
) -> None:  # fmt: skip
    """Carry out jobs until SIGTERM or SIGINT.

    Args:
        settings: where the cloud keeps things.
        tell: is given one line when jobs are taken.
        options: None: what the environment says.
        handlers: None: HANDLERS.

    Raises:
        CloudError: it can't start; one line says why.
    """
    options = options or Options.from_environment()
    stopping = told_to_end()
    with opened(settings.data, settings.database, share=True) as engine:
        url = engine.url.render_as_string(hide_password=False)
        place = Place(url, settings.objects_place, options.memory_bytes, asdict(options))
        hands = [_Hand(engine, place, options, handlers or HANDLERS, stopping) for _ in range(options.hands)]
        for hand in hands:
            hand.start()
        tell(f"worker {options.hands}")
        while not stopping.wait(1.0):
            for hand in hands:
                if not hand.is_alive():  # its error is in the log
                    raise CloudError("a hand of the worker failed: its log says why")
        for hand in hands:
            hand.join()


class _Hand(threading.Thread):
    """Takes one job after the other and watches the process that carries it out."""

    def __init__(
        self, engine: Engine, place: Place, options: Options, handlers: Mapping[str, Handler],
        stopping: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(name="hand", daemon=True)
        self._queue = Queue(engine, options.most_attempts)
        self._place, self._options, self._handlers, self._stopping = place, options, handlers, stopping
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None
        self._folder: Path | None = None  # of the job under way

    def run(self) -> None:
        """Until the worker stops."""
        away_s = AWAY_S[0]
        while not self._stopping.is_set():
            try:
                lease = self._queue.take(list(self._handlers), self._options.lease_s)
                away_s = AWAY_S[0]
            except SQLAlchemyError as error:
                _LOG.warning("queue_away error=%s", str(error).partition("\n")[0])
                self._stopping.wait(away_s)
                away_s = min(2 * away_s, AWAY_S[1])
                continue
            if lease is None:
                self._stopping.wait(LOOK_S)
                continue
            end = _Watch(self, lease, self._handlers[lease.job.kind], self._options, self._stopping).until_end()
            self._clear()
            _JOBS.labels(lease.job.kind, end).inc()
            if end not in ("done", "failed"):
                _LOG.warning("job_let_go id=%d kind=%s end=%s", lease.job.id, lease.job.kind, end)
        self.kill()

    def order(self, lease: Lease, handler: Handler) -> tuple[Pipe, bool]:
        """Give a job to the process, which is started if need be: it will say that it is ready, then."""
        is_new = self._process is None or self._process.poll() is not None
        if is_new:
            self._launch()
        job = lease.job
        assert self._pipe is not None
        with suppress(BrokenPipeError):  # it died: its silence says so
            word = lease.word.hex()
            self._folder = Path(tempfile.gettempdir()) / f"roadfuse-job-{secrets.token_hex(8)}"
            send(
                self._pipe,
                Order(
                    job.id, job.kind, job.subject, handler.place, job.arguments, job.checkpoint, word, str(self._folder)
                ),
            )  # fmt: skip
        return self._pipe, is_new

    def died(self) -> str:
        """Of what the process died, or dies now: it is of no use any more."""
        assert self._process is not None
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.kill()
            return "its process said nonsense"
        self.kill()
        if code >= 0:
            return f"its process ended with exit code {code}"
        with suppress(ValueError):
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process was killed by signal {-code}"

    def kill(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self._clear()

    def _clear(self) -> None:
        """Remove what a job left in its folder, its hand being done with it or dead."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _launch(self) -> None:
        self.kill()
        self._pipe, there = new_pipe()
        with there:
            argv = [sys.executable, "-c", HAND, str(there.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(
                argv, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        send(self._pipe, self._place)


class _Watch:
    """One job under way: passes its words on to the queue, holds the lease, and ends what must end."""

    def __init__(
        self, hand: _Hand, lease: Lease, handler: Handler, options: Options, stopping: threading.Event
    ) -> None:
        self._hand, self._lease, self._handler, self._stopping = hand, lease, handler, stopping
        self._lease_s = options.lease_s
        self._held_until = time.monotonic() + options.lease_s  # as long as nobody else may have taken it
        self._began = self._heard = self._told = time.monotonic()
        self._said: Said | None = None  # that the queue has not heard

    def until_end(self) -> str:
        """Watch until the worker lets go of the job; gives what became of it: done, failed, lost, handed back ..."""
        try:
            answer = self._answer()
            if isinstance(answer, Done):
                self._insist(lambda: self._lease.done(answer.result))
                return "done"
            if answer.is_passing:
                self._insist(lambda: self._lease.hand_back(AWAY_S[0]))
                return "handed back"
            self._insist(lambda: self._lease.fail(answer.error, retry=not answer.is_hopeless))
            return "failed"
        except LeaseLost as lost:
            self._hand.kill()
            return "cancelled" if lost.is_cancelled else "lost"
        except _Stopped:
            self._hand.kill()
            with suppress(LeaseLost, SQLAlchemyError):
                self._lease.hand_back()
            return "handed back"
        except _Lapsed:
            self._hand.kill()
            return "lapsed"

    def _answer(self) -> Done | Failed:
        """What the hand says in the end, or what became of it."""
        pipe, is_new = self._hand.order(self._lease, self._handler)
        patience_s = START_S if is_new else self._handler.silence_s
        while True:
            if self._stopping.is_set():
                raise _Stopped
            try:
                said = heard(pipe) if pipe.poll(0.1) else None
            except (EOFError, OSError):
                return Failed(f"{self._hand.died()}, at: {self._stage()}")
            now = time.monotonic()
            if isinstance(said, Done | Failed):
                return said
            if isinstance(said, Ready):
                self._began = self._heard = now
                patience_s = self._handler.silence_s
            elif isinstance(said, Said):
                self._said, self._heard = said, now
            elif now - self._heard > patience_s:
                self._hand.kill()
                return Failed(f"it said nothing for {patience_s:g} s, at: {self._stage()}")
            if now - self._began > self._handler.most_s:
                self._hand.kill()
                return Failed(f"it took more than {self._handler.most_s:g} s, at: {self._stage()}")
            self._keep(now)

    def _stage(self) -> str:
        return (self._said.stage if self._said else self._lease.job.stage) or "its start"

    def _keep(self, now: float) -> None:
        """Tell the queue how far the job is, and hold on to the lease."""
        said = self._said
        is_news = said is not None and now - self._told >= SAY_S
        if not (is_news or self._held_until - now < self._lease_s * 2 / 3):
            return
        try:
            if is_news and said is not None:
                self._lease.progress(said.stage, said.share, said.checkpoint)
                self._lease.job = replace(self._lease.job, stage=said.stage)
                self._said = None
            else:
                self._lease.extend()
            self._held_until = now + self._lease_s
        except SQLAlchemyError as error:
            if now > self._held_until:
                raise _Lapsed from None
            _LOG.warning("queue_away job=%d error=%s", self._lease.job.id, str(error).partition("\n")[0])
            time.sleep(AWAY_S[0])
        self._told = now

    def _insist(self, word: Callable[[], None]) -> None:
        """Say the last word of a job, again and again while the database is away and the lease may hold."""
        is_first = True
        while True:
            try:
                return word()
            except LeaseLost:
                if is_first:
                    raise
                return None  # it was heard the first time, and only the answer got lost; or another has the job
            except SQLAlchemyError:
                is_first = False
                if time.monotonic() > self._held_until or self._stopping.is_set():
                    raise _Lapsed from None
                time.sleep(AWAY_S[0])


class _Stopped(Exception):
    """The worker is asked to end."""


class _Lapsed(Exception):
    """The database was away for so long that another worker may have the job."""


# What the fields of Options are to who asks for help.
_SAID: Final = {
    "hands": "jobs at once; one uses about one core",
    "lease_s": "seconds for which a killed worker's jobs wait",
    "most_attempts": "after so many a job is parked",
    "memory_bytes": "that one job may allocate",
    "bundle": "folder of a bundle that clips are analysed with, in place of the reference bundle",
    "vision_language": "URL of an OpenAI-compatible server that is asked about pictures of each scene",
    "vision_language_model": "its name there",
    "triton": "URL of a server with a larger analyst's network (KServe v2)",
    "triton_model": "its name there",
}


def main(argv: list[str] | None = None) -> int:
    """`python -m cloud.worker --data DIR`: a worker by itself, on the machine of the cloud or on another."""
    parser = argparse.ArgumentParser(
        prog="python -m cloud.worker", description="Carry out jobs until SIGTERM or SIGINT."
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the cloud's folder")
    parser.add_argument("--database", metavar="URL", help="postgresql://user@host/name; by default DIR/postgres")
    parser.add_argument("--objects", metavar="URL", help="folder or s3://bucket/prefix; by default DIR/objects")
    defaults = Options.from_environment()
    for name, value in asdict(defaults).items():
        said = _SAID[name] + ("" if value == "" else "; by default %(default)s")
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, metavar="X", help=said)
    args = vars(parser.parse_args(argv))
    settings = Settings(args.pop("data"), args.pop("database"), args.pop("objects"))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(settings, lambda line: print(line, flush=True), Options(**args))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CloudError as error:
        print(f"roadfuse: {error}", file=sys.stderr)
        sys.exit(2)
