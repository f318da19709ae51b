"""The part "control": carries rollouts out, and speaks with the fleet over MQTT.

One at a time for a database: whoever holds its lock works, others wait for it. The lock belongs to the connection on
which all of the engine's transactions are made, so who loses one has lost the other, and begins again from the
database.

    engine      once a second, and at once when somebody commands: evidence, rules, orders (this thread)
    desires     tells vehicles that there is something to do; at a bounded rate
    intake      writes what vehicles report
    stop line   says which bundles are stopped; waits for none of the others
    moving      takes what vehicles said a while ago out of the database; none of the others waits for it
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cloud.database import opened
from cloud.processes import told_to_end
from cloud.rollouts.desires import Desires, Wanted
from cloud.rollouts.engine import Control
from cloud.rollouts.intake import Intake
from cloud.rollouts.moving import Moving
from cloud.rollouts.mqtt import HEARD, Address, Line
from cloud.rollouts.stop_line import StopLine
from cloud.settings import Settings

_LOG: Final = logging.getLogger(__name__)
# Whoever carries rollouts out holds this advisory lock; the number is ours by choice.
LOCK: Final = 0x7266726F
CYCLE_S: Final = 1.0
# Reports are written this often; each statement holds those of so long.
FLUSH_S: Final = 0.5
_AWAY_S: Final = 1.0


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Carry rollouts out until SIGTERM or SIGINT.

    Args:
        settings: where the cloud keeps things, and where the broker is.
        tell: is given one line when it begins.

    Raises:
        CloudError: it can't start; one line says why.
    """
    stopping = told_to_end()
    address = Address.of(settings)
    with opened(settings.data, settings.database, share=True) as engine:
        tell(f"control {settings.broker or 'without a broker'}")
        while not stopping.is_set():
            try:
                with engine.connect() as connection:
                    if _is_ours(connection):
                        _lead(engine, connection, settings, address, stopping)
            except SQLAlchemyError as error:
                _LOG.warning("database_away error=%s", str(error).partition("\n")[0])
            stopping.wait(_AWAY_S)


def _is_ours(connection: Connection) -> bool:
    with connection.begin():
        return bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}).scalar_one())


def _lead(
    engine: Engine, connection: Connection, settings: Settings, address: Address | None, stopping: threading.Event
) -> None:
    """Until somebody stops this process, or the connection breaks."""
    wake = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(_release, connection)
        moving = Moving(engine, settings)
        moving.start()
        stack.callback(moving.end)
        stop_line = StopLine(engine, address, wake.set)
        stop_line.start()
        stack.callback(stop_line.end)
        want: Callable[[dict[str, Wanted]], object] = lambda _: None  # noqa: E731 - nobody to tell
        if address is not None:
            desires = Desires(engine, address)
            desires.start()
            stack.callback(desires.end)
            want = desires.want
            stack.enter_context(_taking_in(engine, address))
        control = Control(connection, want)
        while not stopping.is_set():
            control.cycle()
            wake.wait(CYCLE_S)
            wake.clear()


def _release(connection: Connection) -> None:
    with contextlib.suppress(SQLAlchemyError), connection.begin():
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})


@contextlib.contextmanager
def _taking_in(engine: Engine, address: Address) -> Iterator[Intake]:
    """Hear the fleet, and write what it says, for the length of the block."""
    intake, ending = Intake(engine), threading.Event()

    def write() -> None:
        while not ending.wait(FLUSH_S):
            try:
                intake.flush()
            except SQLAlchemyError as error:
                _LOG.warning("database_away error=%s", str(error).partition("\n")[0])
                time.sleep(_AWAY_S)

    writer = threading.Thread(target=write, name="intake", daemon=True)
    with Line(address, "roadfuse-cloud-intake", HEARD, on_message=intake.take):
        writer.start()
        try:
            yield intake
        finally:
            ending.set()
            writer.join()
            with contextlib.suppress(SQLAlchemyError):
                intake.flush()
