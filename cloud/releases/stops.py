"""Bundles that nobody may run or begin to run: stopped by a rollout's rules or by a person, and let go by a person.

A notice holds all that are stopped, and a number that grows whenever one is added or let go, so that an older notice is
known as such. Who stops holds a lock, so that numbers become visible in the order in which they are given.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by

from cloud.errors import ReleaseError
from cloud.releases import stored
from cloud.tables import STOPS

# A vehicle takes no longer notice (edge/updates/claims.py). The oldest are left out then: what is revoked is gone from
# the image repository all the same.
MOST_BUNDLES: Final = 4_096
_CURRENT: Final = select(
    func.coalesce(func.max(STOPS.c.number), 0) + func.count(STOPS.c.lifted_at),
    func.array_agg(aggregate_order_by(STOPS.c.bundle_id, STOPS.c.number.desc())).filter(STOPS.c.lifted_at.is_(None)),
    func.greatest(func.max(STOPS.c.at), func.max(STOPS.c.lifted_at)),
)


@dataclass(frozen=True, slots=True)
class Notice:
    """All stops that are in force.

    Attributes:
        number: counts up.
        at: of the newest change; None where there never was one.
    """

    number: int
    bundles: tuple[str, ...]
    at: datetime.datetime | None


def current(connection: Connection) -> Notice:
    """What is stopped now."""
    row = connection.execute(_CURRENT).one()
    bundles = list(dict.fromkeys(row[1] or ()))[:MOST_BUNDLES]
    return Notice(int(row[0]), tuple(sorted(bundles)), row[2])


def stop(connection: Connection, bundle: str, why: str, rollout: str = "") -> int:
    """Stop a bundle; one that is stopped already gets another reason.

    Returns:
        The number of the notice that says so.
    """
    stored.lock(connection)
    connection.execute(insert(STOPS).values(bundle_id=bundle, rollout=rollout, why=why))
    return current(connection).number


def lift(connection: Connection, bundle: str) -> int:
    """Let a bundle go again.

    Returns:
        The number of the notice that says so.

    Raises:
        ReleaseError: it is not stopped.
    """
    stored.lock(connection)
    stops = STOPS.c
    done = connection.execute(
        update(STOPS).where(stops.bundle_id == bundle, stops.lifted_at.is_(None)).values(lifted_at=func.now())
    )
    if done.rowcount == 0:
        raise ReleaseError(f"expected a bundle that is stopped, got {bundle[:80]}")
    return current(connection).number


def reason(connection: Connection, bundle: str) -> str | None:
    """Why a bundle is stopped; None where it is not."""
    stops = STOPS.c
    return connection.execute(
        select(stops.why)
        .where(stops.bundle_id == bundle, stops.lifted_at.is_(None))
        .order_by(stops.number.desc())
        .limit(1)
    ).scalar_one_or_none()
