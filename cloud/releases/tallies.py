"""Evidence as vehicles tell it, kept: cumulative within an account, so what is lost, repeated or late does no harm.

Told by a check-in or over MQTT, in any order; no number ever goes down. Sizes and names are bounded: a vehicle can
fill its own rows, and those only so far.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import grpc
from sqlalchemy import Connection

from cloud.errors import Refused
from roadfuse.v1 import updates_pb2

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


# Of each number the larger one, in one statement: words by a check-in and over MQTT may come at the same moment. A row
# that does not change is left alone, so that `told_at` says when something was new.
_KEEP: Final = """
WITH said AS (
    SELECT bundle_id, is_shadow, account, slice, seconds, frames, counts::jsonb AS counts
    FROM unnest(
        %(bundles)s::text[], %(shadows)s::boolean[], %(accounts)s::bytea[], %(slices)s::text[],
        %(seconds)s::double precision[], %(frames)s::bigint[], %(counts)s::text[]
    ) AS row (bundle_id, is_shadow, account, slice, seconds, frames, counts)
)
INSERT INTO tallies (vehicle, bundle_id, is_shadow, account, slice, seconds, frames, counts)
SELECT %(vehicle)s, said.* FROM said
WHERE EXISTS (
    SELECT FROM tallies known WHERE known.vehicle = %(vehicle)s AND known.bundle_id = said.bundle_id
    AND known.is_shadow = said.is_shadow AND known.account = said.account AND known.slice = said.slice
) OR (SELECT count(*) FROM tallies WHERE vehicle = %(vehicle)s) + (SELECT count(*) FROM said) <= %(most_rows)s
ON CONFLICT (vehicle, bundle_id, is_shadow, account, slice) DO UPDATE SET
    seconds = greatest(tallies.seconds, excluded.seconds),
    frames = greatest(tallies.frames, excluded.frames),
    counts = (
        SELECT coalesce(jsonb_object_agg(key, greatest(known.value::numeric, told.value::numeric)), '{}')
        FROM jsonb_each_text(tallies.counts) known (key, value)
        FULL JOIN jsonb_each_text(excluded.counts) told (key, value) USING (key)
    ),
    told_at = now()
WHERE (
    excluded.seconds > tallies.seconds OR excluded.frames > tallies.frames OR EXISTS (
        SELECT FROM jsonb_each_text(excluded.counts) told (key, value)
        WHERE told.value::numeric > coalesce((tallies.counts ->> key)::numeric, -1)
    )
) AND (SELECT count(*) FROM jsonb_object_keys(tallies.counts || excluded.counts)) <= %(most_metrics)s"""


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
    """Take evidence in.

    Returns:
        How many rows changed.
    """
    if not told:
        return 0
    told = dict(sorted(told.items()))  # rows are locked in one order, whoever else tells of them
    bundles, shadows, accounts, slices = map(list, zip(*told))
    done = connection.exec_driver_sql(
        _KEEP,
        {
            "vehicle": vehicle, "bundles": bundles, "shadows": shadows, "accounts": accounts, "slices": slices,
            "seconds": [tally.seconds for tally in told.values()],
            "frames": [tally.frames for tally in told.values()],
            "counts": [json.dumps(tally.counts) for tally in told.values()],
            "most_rows": MOST_ROWS, "most_metrics": MOST_METRICS,
        },
    )  # fmt: skip
    return done.rowcount


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
