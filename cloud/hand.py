"""The process in which handlers of jobs run: started by `cloud.worker` and by nobody else.

Whatever a job does to this process (a crash in native code, all memory taken, no word any more), the worker lives on
and knows which job it was. The worker holds the lease; here is only its word, with which what a handler writes is
fenced. Words go over a pair of sockets: `Place` once, answered with `Ready`; then an `Order` a job, and back `Said`s,
then `Done` or `Failed`. They are JSON: a process that reads hostile clips says nothing that could take the worker over.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from cloud.database import connect, first_line
from cloud.errors import Hopeless, LeaseLost
from cloud.jobs import hold
from cloud.objects import Objects
from cloud.processes import end_with
from edge.errors import RoadfuseError

_LOG: Final = logging.getLogger(__name__)
# Background work gives way to whoever waits for an answer.
NICENESS: Final = 10


@dataclass(frozen=True, slots=True)
class Order:
    """A job for a hand.

    Attributes:
        handler: module:function.
        word: of the lease, hexadecimal.
        folder: that the hand makes, and the worker removes: a hand that is killed leaves nothing.
    """

    id: int
    kind: str
    subject: str
    handler: str
    arguments: dict[str, Any]
    checkpoint: Any
    word: str
    folder: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The hand has started: what it is silent about from now on is a job."""


@dataclass(frozen=True, slots=True)
class Said:
    """How far the job is."""

    stage: str
    share: float
    checkpoint: Any


@dataclass(frozen=True, slots=True)
class Done:
    """The job is done."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """It is not, and why.

    Attributes:
        is_hopeless: trying again would not help.
        is_passing: the cause lies outside the job, such as a database that is away: no attempt of it.
    """

    error: str
    is_hopeless: bool = False
    is_passing: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """What a hand is given once.

    Attributes:
        database: URL.
        objects: folder or URL.
        memory_bytes: that the process may allocate.
        options: of handlers, by name; see cloud.handlers.Options.
    """

    database: str
    objects: str
    memory_bytes: int
    options: dict[str, Any] = field(default_factory=dict)


Word = Place | Ready | Order | Said | Done | Failed
_WORDS: Final = {kind.__name__: kind for kind in (Place, Ready, Order, Said, Done, Failed)}
MOST_WORD_BYTES: Final = 16 << 20


def send(pipe: Pipe, word: Word) -> None:
    """Say a word.

    Raises:
        OSError: nobody listens any more.
        TypeError: it holds what JSON does not know.
    """
    pipe.send_bytes(json.dumps([type(word).__name__, asdict(word)]).encode())


def heard(pipe: Pipe) -> Word:
    """The next word.

    Raises:
        EOFError, OSError: the other side is gone, or says nonsense.
    """
    content = pipe.recv_bytes(MOST_WORD_BYTES)
    try:
        name, values = json.loads(content)
        word: Word = _WORDS[name](**values)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OSError(f"expected a word of a hand, got {content[:80]!r}") from None
    return word


@dataclass(frozen=True, slots=True)
class Task:
    """What a handler gets: `def handler(task: Task) -> result as JSON`.

    A handler may be stopped at any instant and run again: what it writes must come out the same, written once or twice.

    Attributes:
        arguments: of the job. Numbers in JSON come as floats.
        checkpoint: what the last attempt left, or None.
        engine: the catalogue.
        objects: the store of clips.
        options: of the worker.
        folder: for files; gone when the job ends.
        say: (stage, share, checkpoint or None); a handler that is silent for too long is stopped.
    """

    id: int
    subject: str
    arguments: dict[str, Any]
    checkpoint: Any
    engine: Engine
    objects: Objects
    options: dict[str, Any]
    folder: Path
    word: bytes
    say: Callable[[str, float, Any], None]

    def hold(self, connection: Connection) -> None:
        """Keep the job's lease until this transaction ends; to be called before a handler writes.

        Raises:
            LeaseLost: the job is another worker's now, or was cancelled.
        """
        hold(connection, self.id, self.word)


def main(descriptor: int, parent: int) -> int:
    """Run what is ordered until the worker goes away."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the worker's
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe = Pipe(descriptor)
    place = heard(pipe)
    assert isinstance(place, Place)
    _bound(place.memory_bytes)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s [hand] %(name)s %(message)s")
    engine, objects = connect(place.database), Objects(place.objects)
    send(pipe, Ready())
    with suppress(EOFError, BrokenPipeError):
        while isinstance(order := heard(pipe), Order):
            send(pipe, _carry_out(order, place, engine, objects, pipe))
    return 0


def _carry_out(order: Order, place: Place, engine: Engine, objects: Objects, pipe: Pipe) -> Done | Failed:
    def say(stage: str, share: float, checkpoint: Any = None) -> None:
        send(pipe, Said(stage, share, checkpoint))

    try:
        module, _, name = order.handler.partition(":")
        handler: Callable[[Task], Any] = getattr(importlib.import_module(module), name)
        folder = Path(order.folder)
        folder.mkdir(mode=0o700)
        task = Task(
            order.id, order.subject, order.arguments, order.checkpoint, engine, objects, place.options, folder,
            bytes.fromhex(order.word), say,
        )  # fmt: skip
        return Done(json.loads(json.dumps(handler(task))))
    except (EOFError, BrokenPipeError):  # the worker went away
        raise
    except LeaseLost as error:
        return Failed(str(error))
    except Hopeless as error:
        return Failed(str(error), is_hopeless=True)
    except DBAPIError as error:
        if error.connection_invalidated or error.orig is None or not getattr(error.orig, "sqlstate", None):
            engine.dispose()
            return Failed(f"the database went away: {first_line(error)}", is_passing=True)
        return Failed(f"the database refused: {first_line(error)}")
    except RoadfuseError as error:
        return Failed(str(error))
    except MemoryError:
        return Failed(f"expected a job of at most {place.memory_bytes >> 20} MiB of memory, got one that wants more")
    except Exception as error:  # at a process's top: the log has all of it, the job a line
        _LOG.exception("job_failed id=%d kind=%s", order.id, order.kind)
        return Failed(f"{type(error).__name__}: {error}")


def _bound(memory_bytes: int) -> None:
    """Let a job that takes all memory be the one that fails for it."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    os.nice(NICENESS)
