"""What `roadfuse uplink run` does beside its main work outlives an outbox that can't be opened for a while."""

from __future__ import annotations

import argparse
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.uplink import command
from edge.uplink import outbox as outboxes
from edge.uplink.client import Traffic
from edge.uplink.outbox import NAME, Outbox, Quota
from roadfuse.v1.ingest_pb2 import SceneSummary


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said; hours and beats are short, and nobody waits long for another process."""
    said: list[str] = []
    monkeypatch.setattr(command, "_say", said.append)
    monkeypatch.setattr(command, "_HOUR_S", 0.01)
    monkeypatch.setattr(command, "_BEAT_S", 0.01)
    monkeypatch.setattr(outboxes, "_BUSY_S", 0.05)
    return said


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    with Outbox(tmp_path, Quota(1 << 40, 0)) as outbox:
        sequence, _ = outbox.give(SceneSummary(first_ns=7), 1.0)
        outbox.path(sequence).write_bytes(b"clip")
        outbox.hold(sequence, bytes(32), 4)
    return tmp_path


@pytest.fixture
def other(spool: Path) -> Iterator[sqlite3.Connection]:
    """Another process that holds the outbox."""
    other = sqlite3.connect(spool / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


def work_on(work: Callable[..., None], *words: Any, until: Callable[[], bool]) -> None:
    """Works in a thread of its own until something is so."""
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(*words, stop), daemon=True)
    worker.start()
    while not until():
        assert worker.is_alive()
        stop.wait(0.01)
    stop.set()
    worker.join(timeout=20)


def test_clips_that_are_too_old_go_though_the_outbox_could_not_be_opened_before(
    spool: Path, other: sqlite3.Connection, lines: list[str]
) -> None:
    def let_go() -> bool:
        if lines and other.in_transaction:
            other.execute("ROLLBACK")
        return not list(spool.glob("*.mcap"))

    work_on(command._keep_no_longer, argparse.Namespace(spool=spool, keep_days=1e-9), until=let_go)
    assert "stay: " in lines[0] and "database is locked" in lines[0]


def test_telemetry_goes_on_though_the_outbox_could_not_be_opened_before(
    spool: Path, other: sqlite3.Connection, lines: list[str]
) -> None:
    told: list[dict[str, Any]] = []

    def is_told() -> bool:
        if lines and other.in_transaction:
            other.execute("ROLLBACK")
        return bool(told)

    line, uplink = SimpleNamespace(telemetry=told.append), SimpleNamespace(traffic=Traffic())
    work_on(command._beat, line, spool, uplink, until=is_told)
    assert told[0]["held"] == 1 and lines[0].startswith("no telemetry: ")
