"""Stops past every queue: a thread with its own connections to the database and to the broker, that does nothing else.

Whoever stops a bundle tells the database in the same transaction (NOTIFY); the notice leaves when that is committed.
It is retained, and published again whenever the line comes up, and looked for every second should a word get lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from cloud.errors import RolloutError
from cloud.releases import stops
from cloud.rollouts import book
from cloud.rollouts.mqtt import STOP, Address, Line
from roadfuse.v1.updates_pb2 import StopNotice

_LOG: Final = logging.getLogger(__name__)
CHANNEL: Final = "roadfuse_stop"
_LOOK_S: Final = 1.0
_AWAY_S: Final = 0.5


def announce(connection: Connection) -> None:
    """Have the notice published when this transaction is committed."""
    connection.execute(select(func.pg_notify(CHANNEL, "")))


def stop(connection: Connection, bundle: str, why: str, rollout: str = "") -> int:
    """Stop a bundle on all vehicles, at once when the transaction is committed.

    Returns:
        The number of the notice.
    """
    number = stops.stop(connection, bundle, why, rollout)
    announce(connection)
    return number


def notice(connection: Connection) -> StopNotice | None:
    """What vehicles are told; None where nothing was ever stopped."""
    now = stops.current(connection)
    if now.at is None:
        return None
    said = StopNotice(number=now.number, bundle_ids=now.bundles)
    said.at.FromDatetime(now.at)
    return said


def publish(broker: str, data: Path, is_plain: bool, said: StopNotice, timeout_s: float = 10.0) -> None:
    """Publish a notice from here, should no engine run.

    Raises:
        RolloutError: the broker did not take it in time.
    """
    with Line(Address.parse(broker, data, is_plain), "roadfuse-cloud-stop-by-hand") as line:
        word = line.say(STOP, said.SerializeToString()) if line.wait(timeout_s) else None
        if word is not None:
            word.wait_for_publish(timeout_s)
        if word is None or not word.is_published():
            raise RolloutError(f"expected the broker {broker} to take the notice within {timeout_s:g} s, got no answer")


class StopLine(threading.Thread):
    """Publishes notices, and passes other words of the database on. To be started and ended.

    Args:
        engine: of a migrated database.
        address: of the broker; None: there is none.
        on_command: called when a rollout was commanded something.
    """

    def __init__(self, engine: Engine, address: Address | None, on_command: Callable[[], object]) -> None:
        super().__init__(name="stop-line", daemon=True)
        self._engine, self._on_command = engine, on_command
        self._line = None if address is None else Line(address, "roadfuse-cloud-stop", on_up=self._on_up)
        self._ending = threading.Event()
        self._ups = 0
        self._said: tuple[int, bytes] | None = None  # on which connection, what
        self.published_at: dict[int, float] = {}  # number of a notice -> time.monotonic

    def end(self) -> None:
        """Stop listening."""
        self._ending.set()
        self.join()

    def run(self) -> None:
        """Until the end."""
        if self._line is None:
            self._listen_for_ever()
        else:
            with self._line:
                self._listen_for_ever()

    def _on_up(self) -> None:
        self._ups += 1

    def _listen_for_ever(self) -> None:
        while not self._ending.is_set():
            try:
                self._listen()
            except (psycopg.Error, SQLAlchemyError) as error:
                _LOG.warning("database_away error=%s", str(error).partition("\n")[0])
                self._ending.wait(_AWAY_S)

    def _listen(self) -> None:
        # Never by the URL as text: SQLAlchemy writes a blank in it as '+', which libpq takes for a plus.
        positional, named = self._engine.dialect.create_connect_args(self._engine.url)
        with psycopg.connect(*positional, autocommit=True, **{"connect_timeout": 10, **named}) as words:
            words.execute(f"LISTEN {CHANNEL}")
            words.execute(f"LISTEN {book.CHANNEL}")
            self._look()
            while not self._ending.is_set():
                heard = False
                for word in words.notifies(timeout=_LOOK_S, stop_after=1):
                    heard = True
                    if word.channel == book.CHANNEL:
                        self._on_command()
                    else:
                        self._look()
                if not heard:
                    self._look()

    def _look(self) -> None:
        """Publish the notice if it is not the one that was published last."""
        with self._engine.connect() as connection:
            said = notice(connection)
        if said is None or self._line is None:
            return
        word = self._ups, said.SerializeToString()
        if word != self._said and self._line.say(STOP, word[1]) is not None:
            self._said = word
            self.published_at.setdefault(said.number, time.monotonic())
