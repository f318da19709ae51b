"""Releases, gates and vehicles in a database, and vehicles that fare as a test says, without any network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, insert, text

from cloud.gates.run import GATES as ALL_GATES
from cloud.rollouts.policy import Policy
from cloud.tables import FLEET, GATES, RELEASES, VEHICLES
from roadfuse.v1.updates_pb2 import Stage

OLD, NEW = "0d" * 32, "4e" * 32
HOUR_S = 3_600.0
INTERVAL_S = 180.0
# Two waves, and evidence that comes within a few hours.
QUICK = {
    "shadow": {"share": 0.5, "least_hours": 1.0, "each_hours": 0.1},
    "waves": [
        {"name": "canary", "share": 0.25, "least_hours": 1.0, "least_duration_h": 0.1},
        {"name": "all", "share": 1.0, "least_hours": 0.0},
    ],
    "tests": {"interval_s": INTERVAL_S, "tolerable_per_hour": 5.0, "slices": [{"name": "all"}]},
    "control": {"share": 0.2},
}


def policy(**more: Any) -> Policy:
    """The quick one, with changes."""
    return Policy.of_dict(QUICK | more)


def release(
    connection: Connection,
    counter: int = 2,
    bundle: str = NEW,
    verdict: str = "passed",
    hardware: Iterable[str] = ("x86",),
) -> int:
    """A release whose gates all say the same."""
    row = {"counter": counter, "name": "demo", "version": "1", "path": f"demo/{counter}/manifest.json",
           "bundle_id": bundle, "hardware": list(hardware), "files": []}  # fmt: skip
    connection.execute(insert(RELEASES).values(row))
    for place, gate in enumerate(ALL_GATES):
        said = {"release": counter, "gate": gate, "place": place, "verdict": verdict, "why": "so", "detail": {}}
        connection.execute(insert(GATES).values(**said, seconds=0.1))
    return counter


def clear(engine: Engine) -> None:
    """A database with nothing in it."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE vehicles, releases, rollouts, stops, metadata_files CASCADE"))


class Cars:
    """Vehicles that do as they are told at once, by a clock that a test moves, ahead of the database's."""

    def __init__(self, engine: Engine, count: int) -> None:
        self.engine, self.now_s = engine, (time.time() // HOUR_S + 24) * HOUR_S
        self.names = [f"car-{n:05d}" for n in range(count)]
        self.seconds: dict[tuple[str, str, bool], float] = {}
        self.counts: dict[tuple[str, str, bool], dict[str, int]] = {}
        self.active = dict.fromkeys(self.names, OLD)
        self.silent: set[str] = set()
        with engine.begin() as connection:
            connection.execute(insert(VEHICLES), [{"name": name} for name in self.names])
            rows = [
                {"vehicle": name, "hardware": "x86", "state": "driving", "active": OLD, "stage": Stage.STAGE_IDLE}
                for name in self.names
            ]
            connection.execute(insert(FLEET), rows)
        self.report()

    def clock(self, _: Connection) -> float:
        """What engines are given."""
        return self.now_s

    def drive(self, seconds: float, failing: Mapping[str, int] | None = None) -> None:
        """All drive for so long, and tell of it at the end.

        Args:
            failing: bundle -> failures of each vehicle that runs it, or has it in its shadow.
        """
        self.now_s += seconds
        shadows = self.assigned(1)
        for name in self.names:
            if name in self.silent:
                continue
            self._count(name, self.active[name], False, seconds, failing)
            if name in shadows and self.active[name] != NEW:
                self._count(name, NEW, True, seconds, failing)
        self.report()

    def obey(self) -> None:
        """Those that are told to run the release do."""
        for name in self.assigned(2):
            if name not in self.silent:
                self.active[name] = NEW
        self.report()

    def assigned(self, mode: int) -> set[str]:
        """Vehicles by what they are told."""
        with self.engine.begin() as connection:
            query = text("SELECT vehicle FROM assignments WHERE mode = :mode")
            return set(connection.execute(query, {"mode": mode}).scalars())

    def report(self) -> None:
        """Into the tables, as check-ins and MQTT would."""
        heard = [name for name in self.names if name not in self.silent]
        shadows = {name for name in self.assigned(1) if self.active[name] != NEW}
        stages = {True: int(Stage.STAGE_SHADOWING), False: int(Stage.STAGE_IDLE)}
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE fleet SET active = said.active, stage = said.stage, staged = said.staged, "
                "seen_at = to_timestamp(%s) FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::text[]) "
                "AS said (vehicle, active, stage, staged) WHERE fleet.vehicle = said.vehicle",
                (
                    self.now_s, heard, [self.active[name] for name in heard],
                    [stages[name in shadows] for name in heard], [NEW if name in shadows else "" for name in heard],
                ),
            )  # fmt: skip
            keys = [key for key in self.seconds if key[0] not in self.silent]
            connection.exec_driver_sql(
                "INSERT INTO tallies "
                "(vehicle, bundle_id, is_shadow, account, slice, seconds, frames, counts, told_at) "
                "SELECT v, b, s, 'a'::bytea, 'all', n, 0, c::jsonb, to_timestamp(%s) "
                "FROM unnest(%s::text[], %s::text[], %s::boolean[], %s::float8[], %s::text[]) AS said (v, b, s, n, c) "
                "ON CONFLICT (vehicle, bundle_id, is_shadow, account, slice) "
                "DO UPDATE SET seconds = excluded.seconds, counts = excluded.counts, told_at = excluded.told_at",
                (
                    self.now_s, *_columns(keys),
                    [self.seconds[key] for key in keys], [json.dumps(self.counts.get(key, {})) for key in keys],
                ),
            )  # fmt: skip

    def _count(
        self, name: str, bundle: str, is_shadow: bool, seconds: float, failing: Mapping[str, int] | None
    ) -> None:
        key = name, bundle, is_shadow
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        times = (failing or {}).get(bundle, 0)
        if times:
            counts = self.counts.setdefault(key, {})
            counts["late"] = counts.get("late", 0) + times


def _columns(keys: Iterable[tuple[str, str, bool]]) -> tuple[list[Any], list[Any], list[Any]]:
    rows = list(keys)
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
