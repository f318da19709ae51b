"""Handlers of jobs that go well, badly and very badly, for tests of the worker."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from cloud.errors import Hopeless
from cloud.hand import Task

STEPS = 6


def note(task: Task) -> dict[str, Any]:
    """An effect that is there once: idempotent, and fenced by the lease."""
    task.say("noting", 0.5, None)
    with task.engine.begin() as connection:
        task.hold(connection)
        values = {"subject": task.subject, "process": os.getpid()}
        connection.execute(text("INSERT INTO noted VALUES (:subject, :process) ON CONFLICT DO NOTHING"), values)
    return {"process": os.getpid()}


def steps(task: Task) -> dict[str, Any]:
    """Steps of which each leaves a checkpoint, then a pause in which whoever is killed has lost nothing."""
    (task.folder / "clip").write_bytes(b"a clip")
    first = int((task.checkpoint or {}).get("done", 0))
    for step in range(first, STEPS):
        with task.engine.begin() as connection:
            task.hold(connection)
            connection.execute(text("INSERT INTO stepped VALUES (:s, :step)"), {"s": task.subject, "step": step})
        task.say(f"step {step}", (step + 1) / STEPS, {"done": step + 1})
        while step + 1 < STEPS and not _has_heard(task, step + 1):
            time.sleep(0.02)
        time.sleep(0.6)
    return {"from": first}


def _has_heard(task: Task, done: int) -> bool:
    with task.engine.connect() as connection:
        query = text("SELECT (checkpoint->>'done')::float FROM jobs WHERE id = :id")
        return bool(connection.execute(query, {"id": task.id}).scalar_one() == done)


def crash(task: Task) -> None:
    """As native code does it."""
    (task.folder / "clip").write_bytes(b"a clip")
    task.say("decoding", 0.1, None)
    time.sleep(0.5)
    ctypes.string_at(0)


def hang(task: Task) -> None:
    """Without a word."""
    task.say("waiting for nothing", 0.1, None)
    time.sleep(600)


def talk(task: Task) -> None:
    """Without an end."""
    while True:
        task.say("talking", 0.5, None)
        time.sleep(0.05)


def eat(task: Task) -> None:
    """All memory there is."""
    held = [bytearray(64 << 20) for _ in range(1 << 20)]
    raise AssertionError(f"{len(held)} pieces of 64 MiB fit")


def refuse(task: Task) -> None:
    """Never possible."""
    raise Hopeless("clip: expected an MCAP file, got b'x'")


def fail_once(task: Task) -> dict[str, Any]:
    """Possible at the second attempt."""
    mark = Path(task.options["bundle"]) / f"mark-{task.subject}"
    if not mark.exists():
        mark.touch()
        raise OSError("no space left")
    return {}


def leave(task: Task) -> None:
    """Goes away without saying so."""
    os.kill(os.getpid(), signal.SIGKILL)
