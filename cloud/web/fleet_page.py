"""`/fleet`: vehicles, what each says it recorded, and what became of it; a scene that is missing stands out."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, case, func, select
from starlette.responses import Response

from cloud import identity
from cloud.catalogue import Account
from cloud.report import HELD
from cloud.tables import CERTIFICATES, FLEET, SCENES
from cloud.web.rollout_words import bundle, bundles, stage
from cloud.web.visit import Visit

# A certificate that ends within so many days is to be renewed.
SOON_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Runs:
    """Which bundle a vehicle says that it runs.

    Attributes:
        bundle, staged: in words; `staged` is "" where nothing is on its way.
        why: of a bundle that it refused.
    """

    bundle: str
    staged: str
    stage: str
    rollout: str
    why: str


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle and its account over all its outboxes.

    Attributes:
        expires_at: the last of its certificates that counts; None without one.
        runs: what it says that it runs; None where it never said so.
    """

    name: str
    enrolled_at: datetime.datetime
    revoked_at: datetime.datetime | None
    expires_at: datetime.datetime | None
    last_told: datetime.datetime | None
    on_board_bytes: int
    received_bytes: int
    wanted: int
    accounts: list[Account]
    runs: Runs | None

    def total(self, name: str) -> int:
        """A count over all its outboxes."""
        return sum(getattr(account, name) for account in self.accounts)

    @property
    def is_expiring(self) -> bool:
        """Whether it soon can't call any more."""
        if self.revoked_at is not None:
            return False
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=SOON_DAYS)
        return self.expires_at is None or self.expires_at < soon


def fleet(visit: Visit) -> Response:
    """The page."""
    accounts: dict[str, list[Account]] = {}
    for account in visit.site.catalogue.accounts():
        accounts.setdefault(account.vehicle, []).append(account)
    with visit.site.engine.connect() as connection:
        known = identity.vehicles(connection)
        told, expiries, runs = _told(connection), _expiries(connection), _runs(connection)
    vehicles = [
        Vehicle(
            name=row["name"],
            enrolled_at=row["enrolled_at"],
            revoked_at=row["revoked_at"],
            expires_at=expiries.get(row["name"]),
            accounts=accounts.get(row["name"], []),
            runs=runs.get(row["name"]),
            **(told.get(row["name"]) or {"last_told": None, "on_board_bytes": 0, "received_bytes": 0, "wanted": 0}),
        )
        for row in known
    ]
    names = ("given", "received", "evicted", "lost", "on_board", "missing")
    totals = {name: sum(vehicle.total(name) for vehicle in vehicles) for name in names}
    return visit.page("fleet.html", vehicles=vehicles, totals=totals)


def _told(connection: Connection) -> dict[str, dict[str, Any]]:
    columns = SCENES.c
    is_here = columns.received_at.is_not(None)
    is_on_board = (columns.media == HELD) & ~is_here
    rows = connection.execute(
        select(
            columns.vehicle,
            func.max(columns.told_at).label("last_told"),
            func.coalesce(func.sum(case((is_on_board, columns.bytes))), 0).label("on_board_bytes"),
            func.coalesce(func.sum(case((is_here, columns.bytes))), 0).label("received_bytes"),
            func.count(case((is_on_board & columns.wanted, 1))).label("wanted"),
        ).group_by(columns.vehicle)
    )
    return {row.vehicle: {name: value for name, value in row._mapping.items() if name != "vehicle"} for row in rows}


def _runs(connection: Connection) -> dict[str, Runs]:
    fleet = FLEET.c
    said = (fleet.vehicle, fleet.active, fleet.staged, fleet.stage, fleet.rollout, fleet.why)
    rows = connection.execute(select(*said).where(fleet.seen_at.is_not(None))).all()
    names = bundles(connection, {id for row in rows for id in (row.active, row.staged)})
    return {
        row.vehicle: Runs(
            bundle(names, row.active),
            bundle(names, row.staged) if row.staged and row.staged != row.active else "",
            stage(row.stage),
            row.rollout,
            row.why,
        )
        for row in rows
    }


def _expiries(connection: Connection) -> dict[str, datetime.datetime]:
    rows = connection.execute(
        select(CERTIFICATES.c.vehicle, func.max(CERTIFICATES.c.expires_at).label("last"))
        .where(CERTIFICATES.c.revoked_at.is_(None))
        .group_by(CERTIFICATES.c.vehicle)
    )
    return {row.vehicle: row.last for row in rows}
