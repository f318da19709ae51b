"""Asks a vehicle for a stretch of time while its ring still holds it; and what it answered."""

from __future__ import annotations

import datetime
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select

from cloud.errors import QueryError
from cloud.tables import ASKS, VEHICLES

# A ring holds some twenty seconds. Who comes back later than this has lost them for sure.
HOURS: Final = 1.0
MAX_S: Final = 60.0
MAX_REASON: Final = 256


def ask(connection: Connection, vehicle: str, first_ns: int, last_ns: int, reason: str) -> int:
    """Ask for what lies between two instants; the vehicle hears of it with its next report, within ten seconds.

    Args:
        first_ns, last_ns: on the vehicle's monotonic clock, both included.

    Returns:
        The ask's id; of an ask for the same that waits, that one's.

    Raises:
        QueryError: no such vehicle, or instants that no ring holds.
    """
    if not 0 <= first_ns < last_ns < 1 << 63 or last_ns - first_ns > MAX_S * 1e9:
        raise QueryError(f"expected instants in order, at most {MAX_S:g} s apart, got {first_ns} to {last_ns}")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise QueryError(f"expected a reason of at most {MAX_REASON} printable characters, got {reason[:40]!r}")
    known = connection.execute(select(VEHICLES.c.name).where(VEHICLES.c.name == vehicle).with_for_update())
    if known.one_or_none() is None:
        raise QueryError(f"expected an enrolled vehicle, got {vehicle[:64]!r}")
    columns = ASKS.c
    waiting: int | None = connection.execute(
        select(columns.id).where(
            columns.vehicle == vehicle, columns.first_ns == first_ns, columns.last_ns == last_ns,
            columns.answer.is_(None), columns.expires_at > func.now(),
        )
    ).scalar()  # fmt: skip
    if waiting is not None:
        return waiting
    row = {"vehicle": vehicle, "first_ns": first_ns, "last_ns": last_ns, "reason": reason}
    expires = func.now() + datetime.timedelta(hours=HOURS)
    found: int = connection.execute(insert(ASKS).values(**row, expires_at=expires).returning(columns.id)).scalar_one()
    return found


def listed(connection: Connection, vehicle: str | None = None) -> list[dict[str, Any]]:
    """Asks, the latest first, with what was answered."""
    query = select(ASKS).order_by(ASKS.c.id.desc()).limit(1_000)
    if vehicle is not None:
        query = query.where(ASKS.c.vehicle == vehicle)
    return [dict(row) for row in connection.execute(query).mappings()]
