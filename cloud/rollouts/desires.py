"""What vehicles are told over MQTT: that there is something to do, each as a retained word that makes it check in.

The broker keeps the last word to each vehicle; the line reads them all when it comes up, and only says what differs
from the database. So neither a broker nor an engine that starts anew makes the fleet check in. Words leave at a bounded
rate: each makes a vehicle call.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cloud.rollouts.contact import TARGET_PER_S
from cloud.rollouts.mqtt import ROOT, Address, Line, desired

_LOG: Final = logging.getLogger(__name__)
TOPIC: Final = f"{ROOT}/+/desired"
# Words a second; what vehicles may call at beside their own times.
MOST_PER_S: Final = TARGET_PER_S
_STEP_S: Final = 0.1
# The broker sends what it keeps right after the subscription; then nothing comes for so long.
_QUIET_S: Final = 1.0
_ASSIGNED: Final = """
SELECT vehicle, rollout, release, mode, (extract(epoch FROM assigned_at) * 1000000)::bigint FROM assignments"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a vehicle is to do; without a rollout nothing.

    Attributes:
        n: grows from word to word.
    """

    n: int
    rollout: str = ""
    release: int = 0
    mode: int = 0

    def says(self) -> dict[str, Any]:
        """As it is published."""
        return {"n": self.n, "rollout": self.rollout, "release": self.release, "mode": self.mode}

    def is_same(self, other: Wanted | None) -> bool:
        """Whether a vehicle that heard the other has nothing new to hear."""
        if other is None:
            return not self.rollout
        return (self.rollout, self.release, self.mode) == (other.rollout, other.release, other.mode) and (
            not self.rollout or self.n == other.n
        )


class Desires(threading.Thread):
    """Tells vehicles what is wanted of them. To be started and ended.

    Args:
        engine: of a migrated database.
        address: of the broker.
    """

    def __init__(self, engine: Engine, address: Address) -> None:
        super().__init__(name="desires", daemon=True)
        self._engine = engine
        self._line = Line(address, "roadfuse-cloud-desired", (TOPIC,), self._on_up, self._hear)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._told: dict[str, Wanted] = {}
        self._waiting: dict[str, Wanted] = {}
        self._heard_at = 0  # counts what was heard
        self._is_behind = False

    def want(self, wanted: dict[str, Wanted]) -> None:
        """Tell vehicles of what was just committed."""
        with self._lock:
            self._waiting.update(wanted)

    def end(self) -> None:
        """Stop telling."""
        self._ending.set()
        self.join()

    def run(self) -> None:
        """Until the end."""
        with self._line:
            while not self._ending.wait(_STEP_S):
                if not self._line.is_up:
                    continue
                if self._is_behind:
                    self._catch_up()
                else:
                    self._say()

    def _on_up(self) -> None:
        with self._lock:
            self._told.clear()
            self._is_behind = True

    def _hear(self, topic: str, payload: bytes, is_retained: bool) -> None:
        if not is_retained:
            return  # our own word
        vehicle = topic.split("/")[1]
        with contextlib.suppress(ValueError, TypeError, KeyError):
            said = json.loads(payload)
            word = Wanted(int(said["n"]), str(said["rollout"]), int(said["release"]), int(said["mode"]))
            with self._lock:
                self._told[vehicle] = word
                self._heard_at += 1

    def _catch_up(self) -> None:
        """Find what the broker should say and does not."""
        before = -1
        while before != self._heard_at:
            before = self._heard_at
            if self._ending.wait(_QUIET_S) or not self._line.is_up:
                return
        try:
            with self._engine.connect() as connection:
                wanted = {
                    row[0]: Wanted(int(row[4]), row[1], row[2], row[3]) for row in connection.execute(text(_ASSIGNED))
                }
        except SQLAlchemyError as error:
            _LOG.warning("database_away error=%s", str(error).partition("\n")[0])
            return
        with self._lock:
            gone = {
                vehicle: Wanted(word.n + 1)
                for vehicle, word in self._told.items()
                if word.rollout and vehicle not in wanted
            }
            self._waiting = {**gone, **wanted, **self._waiting}
            self._is_behind = False

    def _say(self) -> None:
        room = max(int(MOST_PER_S * _STEP_S), 1)
        with self._lock:
            for vehicle in list(self._waiting):
                word = self._waiting[vehicle]
                if word.is_same(self._told.get(vehicle)):
                    del self._waiting[vehicle]
                    continue
                if room == 0 or self._line.say(*desired(vehicle, word.says())) is None:
                    return
                room -= 1
                self._told[vehicle] = self._waiting.pop(vehicle)
