"""Vehicles of the fleet, a page of them by name: which match what was asked, and how many do."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, false, func, not_, select, true

from cloud.errors import QueryError
from cloud.tables import CERTIFICATES, FLEET, VEHICLES
from roadfuse.v1.updates_pb2 import Stage

PAGE: Final = 25
# A certificate that ends within so many days is to be renewed.
SOON_DAYS: Final = 30
# What can be asked for: state as a vehicle said it last, and what somebody should look at.
STATUSES: Final = {
    "driving": "driving",
    "parked": "parked",
    "offline": "offline",
    "gone": "gone without a word",
    "silent": "never heard of",
    "refused": "refused a release",
    "missing": "scenes missing",
    "expiring": "certificate ends soon",
    "revoked": "revoked",
}
_MOST_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What vehicles are asked for.

    Attributes:
        find: letters that their names hold.
        label: NAME=VALUE, or NAME alone for any value.
        status: of STATUSES; "": any.
        page: the first is 0.
    """

    find: str = ""
    label: str = ""
    status: str = ""
    page: int = 0

    @staticmethod
    def of(words: Mapping[str, str], page: int) -> Asked:
        """Out of a query string.

        Raises:
            QueryError: it can't be asked.
        """
        find, label, status = (words.get(name, "").strip() for name in ("find", "label", "status"))
        for text in (find, label):
            if len(text) > _MOST_CHARACTERS or not text.isprintable():
                raise QueryError(f"expected at most {_MOST_CHARACTERS} printable characters, got {text[:40]!r}")
        if status and status not in STATUSES:
            raise QueryError(f"expected a status of {', '.join(STATUSES)}, got {status[:40]!r}")
        return Asked(find, label, status, page)

    @property
    def is_all(self) -> bool:
        """Whether every vehicle is asked for."""
        return not (self.find or self.label or self.status)


def names(connection: Connection, asked: Asked, missing: set[str]) -> tuple[list[str], int]:
    """A page of vehicles' names, and how many there are on all pages.

    Args:
        missing: vehicles of which scenes are missing.
    """
    wanted = [VEHICLES.c.name.icontains(asked.find, autoescape=True)] if asked.find else []
    if asked.label:
        name, equals, value = asked.label.partition("=")
        labels = FLEET.c.labels
        wanted.append(labels.contains({name.strip(): value.strip()}) if equals else labels.has_key(name))
    if asked.status:
        wanted.append(_statuses(missing)[asked.status])
    query = _joined(VEHICLES.c.name).where(*wanted)
    count = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    shown = query.order_by(VEHICLES.c.name).limit(PAGE).offset(asked.page * PAGE)
    return list(connection.execute(shown).scalars()), int(count)


def counts(connection: Connection, missing: set[str]) -> dict[str, int]:
    """How many vehicles there are, as `all`, and of each status; one may have several."""
    columns = [func.count().filter(condition).label(name) for name, condition in _statuses(missing).items()]
    return dict(connection.execute(_joined(func.count().label("all"), *columns)).mappings().one())


def _joined(*columns: Any) -> Any:
    return select(*columns).select_from(VEHICLES.outerjoin(FLEET, FLEET.c.vehicle == VEHICLES.c.name))


def _statuses(missing: set[str]) -> dict[str, ColumnElement[bool]]:
    """Status -> whether a vehicle has it; one that is revoked has no other but that scenes are missing."""
    certificates = CERTIFICATES.c
    soon = func.now() + datetime.timedelta(days=SOON_DAYS)
    lasting = select(certificates.serial).where(
        certificates.vehicle == VEHICLES.c.name, certificates.revoked_at.is_(None), certificates.expires_at >= soon
    )
    counts = VEHICLES.c.revoked_at.is_(None)
    heard = FLEET.c.seen_at.is_not(None)
    found = {name: and_(counts, heard, FLEET.c.state == name) for name in ("driving", "parked", "offline", "gone")}
    return found | {
        "silent": and_(counts, func.coalesce(not_(heard), true())),
        "refused": and_(counts, FLEET.c.stage == Stage.STAGE_REFUSED),
        "missing": VEHICLES.c.name.in_(sorted(missing)) if missing else false(),
        "expiring": and_(counts, not_(lasting.exists())),
        "revoked": not_(counts),
    }
