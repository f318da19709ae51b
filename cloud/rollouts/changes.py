"""What is new in the fleet, by the tables that check-ins and MQTT write: who runs what, and how bundles fare.

Rows are read by when they were written, with some overlap: a transaction may end later than one that began after it.
What was read twice is the same, and counts are cumulative, so nothing is lost and nothing counts twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from cloud.rollouts.evidence import Increment, Judged, VehicleReport

# A statement takes 30 s at most (cloud/database.py), and all that write are one statement or a few.
OVERLAP_S: Final = 40.0
# Of who runs what: its writers take milliseconds, and all of it is read again every so often.
SHORT_OVERLAP_S: Final = 3.0
ALL_S: Final = 15.0
_FLEET: Final = """
SELECT vehicle, hardware, labels::text, software, state, stage, active, staged, counter, refused,
    refused_until, why, coalesce(extract(epoch FROM seen_at), 0)::float8
FROM fleet"""
_RECENT: Final = " WHERE seen_at > to_timestamp(:since)"
_TALLIES: Final = """
SELECT vehicle, bundle_id, is_shadow, slice, account, seconds, counts::text FROM tallies
WHERE told_at > to_timestamp(:since)"""
_VERDICTS: Final = """
SELECT scene_id, vehicle, slices::text, worse::text, better::text FROM verdicts
WHERE staged = :bundle AND judged_at > to_timestamp(:since) ORDER BY scene_id"""


class Key(NamedTuple):
    """Whose counts: of a bundle in one role on a vehicle, within a slice."""

    vehicle: str
    bundle: str
    is_shadow: bool
    slice: str


@dataclass(frozen=True, slots=True)
class Count:
    """Of all accounts of a key together; only grows."""

    seconds: float
    counts: Mapping[str, int]


_NOTHING: Final = Count(0.0, {})


class Fleet:
    """What each vehicle said last."""

    def __init__(self) -> None:
        self.reports: dict[str, VehicleReport] = {}
        self._rows: dict[str, Any] = {}
        self._since = self._all_at = 0.0

    def look(self, connection: Connection, now_s: float) -> set[str]:
        """Read what is new.

        Returns:
            Vehicles of which something is; that one was seen again is something.
        """
        if now_s - self._all_at >= ALL_S:
            rows = connection.execute(text(_FLEET))
            self._all_at = now_s
        else:
            rows = connection.execute(text(_FLEET + _RECENT), {"since": self._since})
        self._since = now_s - SHORT_OVERLAP_S
        changed = set()
        for row in rows:
            known = tuple(row)
            if self._rows.get(known[0]) != known:
                self._rows[known[0]] = known
                self.reports[known[0]] = _report(known)
                changed.add(known[0])
        return changed


class Counts:
    """How bundles fare, in sums over accounts."""

    def __init__(self) -> None:
        self.sums: dict[Key, Count] = {}
        self._accounts: dict[Key, dict[bytes, Count]] = {}
        self._since = 0.0

    def look(self, connection: Connection, now_s: float) -> None:
        """Read what is new."""
        changed = set()
        for vehicle, bundle, is_shadow, place, account, seconds, counts in connection.execute(
            text(_TALLIES), {"since": self._since}
        ):
            key = Key(vehicle, bundle, is_shadow, place)
            self._accounts.setdefault(key, {})[bytes(account)] = Count(seconds, json.loads(counts))
            changed.add(key)
        self._since = now_s - OVERLAP_S
        for key in changed:
            self.sums[key] = _sum(self._accounts[key].values())


def increments(
    sums: Mapping[Key, Count], counted: dict[Key, Count], slices: set[str], metrics: set[str]
) -> list[Increment]:
    """What came since it was counted last; `counted` is brought up to date.

    Args:
        slices, metrics: others are of no interest.
    """
    found = []
    for key in sorted(key for key, now in sums.items() if counted.get(key) is not now and key.slice in slices):
        now, before = sums[key], counted.get(key, _NOTHING)
        seconds = max(now.seconds - before.seconds, 0.0)
        counts = {
            name: count - before.counts.get(name, 0)
            for name, count in now.counts.items()
            if name in metrics and count > before.counts.get(name, 0)
        }
        counted[key] = now
        if seconds or counts:
            found.append(Increment(key.vehicle, key.bundle, key.is_shadow, key.slice, seconds, counts=counts))
    return found


def add(counted: dict[Key, Count], more: Increment) -> None:
    """Count what a log says was counted."""
    key = Key(more.vehicle, more.bundle, more.is_shadow, more.slice)
    before = counted.get(key, _NOTHING)
    counts = {name: before.counts.get(name, 0) + more.counts.get(name, 0) for name in {*before.counts, *more.counts}}
    counted[key] = Count(before.seconds + more.seconds, counts)


def verdicts(connection: Connection, bundle: str, since_s: float, known: set[int]) -> Iterator[tuple[int, Judged]]:
    """Scenes that were judged and are not yet known."""
    rows = connection.execute(text(_VERDICTS), {"bundle": bundle, "since": since_s})
    for scene, vehicle, slices, worse, better in rows:
        if scene not in known:
            places = tuple(sorted(map(str, json.loads(slices))))
            yield int(scene), Judged(vehicle, places, _size(worse), _size(better))


def to_json(counted: Mapping[Key, Count]) -> list[Any]:
    """`counted`, to be kept; `of_json` makes it back."""
    bundles = {bundle: n for n, bundle in enumerate(sorted({key.bundle for key in counted}))}
    rows = [
        [key.vehicle, bundles[key.bundle], int(key.is_shadow), key.slice, one.seconds, one.counts]
        for key, one in counted.items()
    ]
    return [list(bundles), rows]


def of_json(kept: list[Any]) -> dict[Key, Count]:
    """What `to_json` gave."""
    bundles, rows = kept
    return {
        Key(vehicle, bundles[bundle], bool(is_shadow), place): Count(seconds, counts)
        for vehicle, bundle, is_shadow, place, seconds, counts in rows
    }


def _sum(accounts: Any) -> Count:
    counts: dict[str, int] = {}
    seconds = 0.0
    for one in accounts:
        seconds += one.seconds
        for name, count in one.counts.items():
            counts[name] = counts.get(name, 0) + count
    return Count(seconds, counts)


def _report(row: Any) -> VehicleReport:
    vehicle, hardware, labels, software, state, stage, active, staged, counter, refused, until, why, seen_s = row
    return VehicleReport(
        vehicle, hardware, {name: str(value) for name, value in json.loads(labels).items()}, software, state, stage,
        active, staged, counter, refused, why, seen_s, until,
    )  # fmt: skip


def _size(labels: str) -> int:
    """How many labels; or their number, where that was written."""
    said = json.loads(labels)
    return int(said) if isinstance(said, int | float) else len(said)
