"""`/fleet`: vehicles, what each says it recorded, and what became of it; a scene that is missing stands out."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select
from starlette.responses import Response

from cloud.catalogue import Account
from cloud.report import HELD
from cloud.tables import CERTIFICATES, FLEET, SCENES, VEHICLES
from cloud.web import fleet_list
from cloud.web.fleet_list import Asked
from cloud.web.rollout_words import bundle, bundles, count, stage
from cloud.web.visit import Visit


@dataclass(frozen=True, slots=True)
class Runs:
    """Which bundle a vehicle says that it runs.

    Attributes:
        bundle, staged: in words; `staged` is "" where nothing is on its way.
        state: driving, parked, offline or gone; "" where it never said.
        why: of a bundle that it refused.
    """

    bundle: str
    staged: str
    stage: str
    state: str
    why: str


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle and its account over all its outboxes.

    Attributes:
        labels: that people gave it.
        expires_at: the last of its certificates that counts; None without one.
        runs: what it says that it runs; None where it never said so.
    """

    name: str
    labels: dict[str, str]
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
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=fleet_list.SOON_DAYS)
        return self.expires_at is None or self.expires_at < soon


def fleet(visit: Visit) -> Response:
    """A page of vehicles; what is above them counts the whole fleet."""
    asked = Asked.of(visit.words, visit.whole("page") or 0)
    accounts: dict[str, list[Account]] = {}
    for account in visit.site.catalogue.accounts():
        accounts.setdefault(account.vehicle, []).append(account)
    missing = {name for name, of_it in accounts.items() if any(account.missing for account in of_it)}
    with visit.site.engine.connect() as connection:
        names, found = fleet_list.names(connection, asked, missing)
        counts = fleet_list.counts(connection, missing)
        vehicles = _vehicles(connection, names, accounts)
    columns = ("given", "received", "evicted", "lost", "on_board", "missing")
    totals = {name: sum(getattr(one, name) for of_it in accounts.values() for one in of_it) for name in columns}
    more = asked.page + 1 if found > (asked.page + 1) * fleet_list.PAGE else None
    return visit.page(
        "fleet.html", vehicles=vehicles, totals=totals, asked=asked, found=found, counts=counts, more=more,
        first=asked.page * fleet_list.PAGE + 1, statuses=fleet_list.STATUSES, count=count,
    )  # fmt: skip


def _vehicles(connection: Connection, names: Sequence[str], accounts: Mapping[str, list[Account]]) -> list[Vehicle]:
    told, expiries, runs = _told(connection, names), _expiries(connection, names), _runs(connection, names)
    columns = (VEHICLES.c.name, VEHICLES.c.revoked_at, FLEET.c.labels)
    query = select(*columns).outerjoin(FLEET, FLEET.c.vehicle == VEHICLES.c.name).where(VEHICLES.c.name.in_(names))
    nothing: dict[str, Any] = {"last_told": None, "on_board_bytes": 0, "received_bytes": 0, "wanted": 0}
    return [
        Vehicle(
            name=row.name,
            labels=row.labels or {},
            revoked_at=row.revoked_at,
            expires_at=expiries.get(row.name),
            accounts=accounts.get(row.name, []),
            runs=runs.get(row.name),
            **told.get(row.name, nothing),
        )
        for row in connection.execute(query.order_by(VEHICLES.c.name))
    ]


def _told(connection: Connection, names: Sequence[str]) -> dict[str, dict[str, Any]]:
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
        )
        .where(columns.vehicle.in_(names))
        .group_by(columns.vehicle)
    )
    return {row.vehicle: {name: value for name, value in row._mapping.items() if name != "vehicle"} for row in rows}


def _runs(connection: Connection, names: Sequence[str]) -> dict[str, Runs]:
    fleet = FLEET.c
    said = (fleet.vehicle, fleet.active, fleet.staged, fleet.stage, fleet.state, fleet.why)
    rows = connection.execute(select(*said).where(fleet.seen_at.is_not(None), fleet.vehicle.in_(names))).all()
    known = bundles(connection, {id for row in rows for id in (row.active, row.staged)})
    return {
        row.vehicle: Runs(
            bundle(known, row.active),
            bundle(known, row.staged) if row.staged and row.staged != row.active else "",
            stage(row.stage),
            row.state,
            row.why,
        )
        for row in rows
    }


def _expiries(connection: Connection, names: Sequence[str]) -> dict[str, datetime.datetime]:
    rows = connection.execute(
        select(CERTIFICATES.c.vehicle, func.max(CERTIFICATES.c.expires_at).label("last"))
        .where(CERTIFICATES.c.revoked_at.is_(None), CERTIFICATES.c.vehicle.in_(names))
        .group_by(CERTIFICATES.c.vehicle)
    )
    return {row.vehicle: row.last for row in rows}
