"""The fleet as people see and sort it: what each vehicle runs, and the labels that they gave it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as upsert

from cloud import identity
from cloud.errors import IdentityError
from cloud.tables import FLEET, RELEASES, VEHICLES
from roadfuse.v1.updates_pb2 import Stage

MOST_LABELS: Final = 32
_SAID: Final = ("active", "state", "rollout", "refused", "why", "seen_at")
# What a filter (cloud/rollouts/filters.py) can say after `label.` and between quotes.
_NAME: Final = re.compile(r"[A-Za-z_][\w.\-]{0,63}", re.ASCII)
_VALUE: Final = re.compile(r'[^"\x00-\x1f\x7f]{0,128}')


def listed(connection: Connection) -> list[dict[str, Any]]:
    """All vehicles: identities, labels, and what each said last that it runs (`active` None: nothing was ever said).

    `release` is the newest release of what is active; None where no release is that bundle, as for the one that
    vehicles come with (`active` "").
    """
    heard = {
        row["vehicle"]: row for row in connection.execute(select(FLEET).where(FLEET.c.seen_at.is_not(None))).mappings()
    }
    labels = dict(connection.execute(select(FLEET.c.vehicle, FLEET.c.labels)).tuples().all())
    newest = dict(
        connection.execute(select(RELEASES.c.bundle_id, RELEASES.c.counter).order_by(RELEASES.c.counter)).tuples().all()
    )
    rows = []
    for row in identity.vehicles(connection):
        said: Any = heard.get(row["name"], {})
        rows.append({
            **row,
            "labels": labels.get(row["name"], {}),
            **{name: said.get(name) for name in _SAID},
            "release": newest.get(said["active"]) if said else None,
            "stage": Stage.Name(said["stage"]).removeprefix("STAGE_").lower() if said else None,
        })  # fmt: skip
    return rows


def one_line(said: str) -> str:
    """What a vehicle or a person wrote, as one line that a terminal shows and a database takes."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in said).split())


def label(connection: Connection, vehicle: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Give a vehicle labels; "" takes one away. Rollouts ask for them anew at each decision.

    Returns:
        All that it has now.

    Raises:
        IdentityError: no such vehicle, a label that no filter could name, or too many of them.
    """
    for name, value in labels.items():
        if not _NAME.fullmatch(name):
            raise IdentityError(f"expected a label's name of letters, digits, '_', '-' and '.', got {name[:80]!r}")
        if not _VALUE.fullmatch(value):
            raise IdentityError(f"label {name}: expected at most 128 printable characters without '\"', got {value!r}")
    if connection.execute(select(VEHICLES.c.name).where(VEHICLES.c.name == vehicle)).first() is None:
        raise IdentityError(f"expected an enrolled vehicle, got {vehicle!r}")
    connection.execute(upsert(FLEET).values(vehicle=vehicle).on_conflict_do_nothing())
    before = connection.execute(select(FLEET.c.labels).where(FLEET.c.vehicle == vehicle).with_for_update()).scalar_one()
    after = {name: value for name, value in {**before, **labels}.items() if value}
    if len(after) > MOST_LABELS:
        raise IdentityError(f"{vehicle}: expected at most {MOST_LABELS} labels, got {len(after)}")
    connection.execute(FLEET.update().where(FLEET.c.vehicle == vehicle).values(labels=after))
    return after
