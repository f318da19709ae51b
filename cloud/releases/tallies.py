"""Evidence as vehicles tell it, kept: cumulative within an account, so what is lost, repeated or late does no harm.

Told by a check-in or over MQTT, in any order; no number ever goes down. Sizes and names are bounded: a vehicle can
fill its own rows, and those only so far.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import grpc
from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from cloud.errors import Refused
from cloud.tables import FLEET, TALLIES
from roadfuse.v1 import updates_pb2

_LOG: Final = logging.getLogger(__name__)
BUNDLE: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")
MOST_ACCOUNTS: Final = 16  # in one call
MOST_SLICES: Final = 64
MOST_METRICS: Final = 64
MOST_ACCOUNT_BYTES: Final = 64
# Whole numbers that JSON readers keep exact.
MOST_COUNT: Final = 1 << 53
MOST_SECONDS: Final = 1e10
# Of one vehicle, over its life. New accounts beyond are not taken in: silence, which the rules count as failure.
MOST_ROWS: Final = 4_096


# Over MQTT a word may come in between: of each count the larger one, in the database too.
_LARGER: Final = text(
    "(SELECT coalesce(jsonb_object_agg(key, greatest(known.value::numeric, told.value::numeric)), '{}') "
    "FROM jsonb_each_text(tallies.counts) known (key, value) "
    "FULL JOIN jsonb_each_text(excluded.counts) told (key, value) USING (key))"
)


class Tally(NamedTuple):
    """One row's numbers."""

    seconds: float
    frames: int
    counts: dict[str, int]


Key = tuple[str, bool, bytes, str]  # bundle, is_shadow, account, slice


def checked(evidence: Iterable[updates_pb2.Evidence]) -> dict[Key, Tally]:
    """Evidence that can be kept.

    Raises:
        Refused: INVALID_ARGUMENT: a name, a number or a size is out of bounds.
    """
    told: dict[Key, Tally] = {}
    accounts = list(evidence)
    _most("accounts in a call", len(accounts), MOST_ACCOUNTS)
    for one in accounts:
        if one.bundle_id and not BUNDLE.fullmatch(one.bundle_id):
            raise _refused("a bundle id of 64 hexadecimal digits", one.bundle_id)
        if not 1 <= len(one.account) <= MOST_ACCOUNT_BYTES:
            raise _refused(f"an account of 1 to {MOST_ACCOUNT_BYTES} bytes", len(one.account))
        _most("slices", len(one.tallies), MOST_SLICES)
        for tally in one.tallies:
            key = one.bundle_id, one.is_shadow, bytes(one.account), _name("slice", tally.slice)
            told[key] = merged(told.get(key), _tally(tally))
    return told


def merged(known: Tally | None, told: Tally) -> Tally:
    """What is known once this is told: of each number the larger one."""
    if known is None:
        return told
    counts = {name: max(known.counts.get(name, 0), told.counts.get(name, 0)) for name in known.counts | told.counts}
    return Tally(max(known.seconds, told.seconds), max(known.frames, told.frames), counts)


def keep(connection: Connection, vehicle: str, told: dict[Key, Tally]) -> int:
    """Take evidence in; calls about one vehicle follow one another.

    Returns:
        How many rows changed.
    """
    if not told:
        return 0
    connection.execute(upsert(FLEET).values(vehicle=vehicle).on_conflict_do_nothing())
    connection.execute(select(FLEET.c.vehicle).where(FLEET.c.vehicle == vehicle).with_for_update())
    rows = TALLIES.c
    known = {
        (row.bundle_id, row.is_shadow, bytes(row.account), row.slice): _known(row)
        for row in connection.execute(
            select(TALLIES).where(rows.vehicle == vehicle, rows.account.in_({account for _, _, account, _ in told}))
        )
    }
    changed = {key: merged(known.get(key), tally) for key, tally in told.items()}
    changed = {
        key: tally for key, tally in changed.items() if tally != known.get(key) and len(tally.counts) <= MOST_METRICS
    }
    if any(key not in known for key in changed):
        changed = _within(connection, vehicle, known, changed)
    if changed:
        statement = upsert(TALLIES).values(
            [
                {
                    "vehicle": vehicle, "bundle_id": key[0], "is_shadow": key[1], "account": key[2], "slice": key[3],
                    "seconds": tally.seconds, "frames": tally.frames, "counts": tally.counts,
                }
                for key, tally in sorted(changed.items())
            ]
        )  # fmt: skip
        new = statement.excluded
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[rows.vehicle, rows.bundle_id, rows.is_shadow, rows.account, rows.slice],
                set_={
                    "seconds": func.greatest(rows.seconds, new.seconds),
                    "frames": func.greatest(rows.frames, new.frames),
                    "counts": _LARGER,
                    "told_at": func.now(),
                },
            )
        )
    return len(changed)


def _within(
    connection: Connection, vehicle: str, known: dict[Key, Tally], changed: dict[Key, Tally]
) -> dict[Key, Tally]:
    """Without new rows where the vehicle has as many as it may."""
    count = connection.execute(select(func.count()).where(TALLIES.c.vehicle == vehicle)).scalar_one()
    new = [key for key in changed if key not in known]
    if count + len(new) <= MOST_ROWS:
        return changed
    _LOG.warning("tallies_refused vehicle=%s rows=%d most=%d", vehicle, len(new), MOST_ROWS)
    return {key: tally for key, tally in changed.items() if key in known}


def _known(row: Any) -> Tally:
    return Tally(row.seconds, row.frames, {name: int(count) for name, count in row.counts.items()})


def _tally(tally: updates_pb2.Tally) -> Tally:
    if not (math.isfinite(tally.seconds) and 0.0 <= tally.seconds <= MOST_SECONDS):
        raise _refused(f"seconds of 0 to {MOST_SECONDS:g}", tally.seconds)
    _most("metrics", len(tally.counts), MOST_METRICS)
    counts = {_name("metric", name): _count(name, count) for name, count in tally.counts.items()}
    return Tally(tally.seconds, _count("frames", tally.frames), counts)


def _count(what: str, count: int) -> int:
    if count > MOST_COUNT:
        raise _refused(f"{what} up to {MOST_COUNT}", count)
    return count


def _name(what: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _refused(f"a {what} of small letters, digits and _.:- up to 64", name)
    return name


def _most(what: str, count: int, most: int) -> None:
    if count > most:
        raise _refused(f"at most {most} {what}", count)


def _refused(expected: str, got: Any) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, f"expected {expected}, got {str(got)[:80]!r}")
