"""Rollouts that went through the rules: vehicles of one hardware class each, looked at by the cloud's own engine."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, insert, text

from cloud.gates.run import GATES as ALL_GATES
from cloud.rollouts import book
from cloud.rollouts.engine import Control
from cloud.rollouts.evidence import START, Command
from cloud.rollouts.policy import Policy
from cloud.tables import FLEET, GATES, RELEASES, VEHICLES
from roadfuse.v1.updates_pb2 import Stage

HOUR_S, INTERVAL_S = 3_600.0, 180.0
OLD = "0d" * 32
SLICES = {"all": 1.0, "night": 0.3, "rain": 0.2}
POLICY: dict[str, Any] = {
    "seed": "the same lots each time",
    "shadow": {"share": 0.5, "least_hours": 4.0, "each_hours": 0.1},
    "waves": [
        {"name": "canary", "share": 0.2, "least_hours": 2.0, "least_duration_h": 0.2},
        {"name": "all", "share": 1.0, "least_hours": 0.0},
    ],
    "tests": {
        "interval_s": INTERVAL_S,
        "tolerable_per_hour": 4.0,
        "slices": [{"name": name, "weight": 5.0 if name == "all" else 1.0} for name in SLICES],
    },
    "control": {"share": 0.2},
}


def release(connection: Connection, counter: int, bundle: str, hardware: str, **verdicts: tuple[str, str]) -> None:
    """A release whose gates passed, but for those that say otherwise."""
    row = {"counter": counter, "name": "demo", "version": f"1.{counter}", "path": f"demo/{counter}/manifest.json",
           "bundle_id": bundle, "hardware": [hardware], "files": []}  # fmt: skip
    connection.execute(insert(RELEASES).values(row))
    for place, gate in enumerate(ALL_GATES):
        verdict, why = verdicts.get(gate, ("passed", "as the current one"))
        said = {"release": counter, "gate": gate, "place": place, "verdict": verdict, "why": why, "detail": {}}
        connection.execute(insert(GATES).values(**said, seconds=0.1))


class Drive:
    """Vehicles that share a hardware class and a rollout; they do as they are told.

    Args:
        rates: "old", "new" -> failures an hour of those that run it, or have it in their shadow.
        refuse: of those that are told to run it, so many refuse.
    """

    def __init__(
        self,
        engine: Engine,
        hardware: str,
        counter: int,
        count: int,
        rates: Mapping[str, float],
        *,
        refuse: int = 0,
        policy: Mapping[str, Any] = POLICY,
        by: str = "ann",
        start: bool = True,
        now_s: float = 0.0,
    ) -> None:
        self.engine, self.rates, self.new = engine, {OLD: rates["old"]}, f"{counter:02x}" * 32
        self.rates[self.new] = rates["new"]
        # Ahead of the database's clock, which commands are written by.
        self.now_s = now_s or (time.time() // INTERVAL_S + 3) * INTERVAL_S
        self.random = random.Random(counter)
        self.names = [f"{hardware}-{n:05d}" for n in range(count)]
        self.active = dict.fromkeys(self.names, OLD)
        self.refusing, self.refused = refuse, set[str]()
        self.tallies: dict[tuple[str, str, bool, str], tuple[float, int]] = {}
        with engine.begin() as connection:
            connection.execute(insert(VEHICLES), [{"name": name} for name in self.names])
            rows = [{"vehicle": name, "hardware": hardware, "state": "driving", "active": OLD} for name in self.names]
            connection.execute(insert(FLEET), rows)
            release(connection, counter, self.new, hardware, parity=("skipped", "the bundle has no fp32 engine"))
            self.id = book.create(connection, counter, Policy.of_dict(policy), by).id
            if start:
                book.command(connection, self.id, Command(START, by))
        self.connection = engine.connect()
        self.control = Control(self.connection, clock=lambda _: self.now_s, grace_s=0.0)
        self.report()

    def close(self) -> None:
        """No engine works on it any more."""
        self.connection.close()

    def on(self, hours: float, until: str = "") -> str:
        """Drive on, until it is over or in a state; gives the state."""
        end_s = self.now_s + hours * HOUR_S
        while self.now_s < end_s and not (one := self.rollout).is_over and one.state != until:
            rest_s = INTERVAL_S - self.now_s % INTERVAL_S - 2.0
            self._drive(rest_s if rest_s > 0 else rest_s + INTERVAL_S)
            self.control.cycle()
            self.now_s += 3.0
            self._obey()
            self.control.cycle()
        return self.rollout.state

    def command(self, kind: str, by: str = "bob", **more: Any) -> None:
        """Somebody says so, and it is carried out."""
        with self.engine.begin() as connection:
            book.command(connection, self.id, Command(kind, by, **more))
        self.control.cycle()

    @property
    def rollout(self) -> book.Rollout:
        """As the database has it."""
        with self.engine.connect() as connection:
            return book.get(connection, self.id)

    def assigned(self, mode: int) -> set[str]:
        """Vehicles by what they are told."""
        query = text("SELECT vehicle FROM assignments WHERE mode = :mode AND rollout = :id")
        with self.engine.connect() as connection:
            return set(connection.execute(query, {"mode": mode, "id": self.id}).scalars())

    def report(self) -> None:
        """Into the tables, as check-ins would."""
        shadows = {name for name in self.assigned(1) if self.active[name] != self.new}
        stages = [
            int(Stage.STAGE_REFUSED if name in self.refused else Stage.STAGE_SHADOWING if name in shadows
                else Stage.STAGE_CONFIRMED if self.active[name] == self.new else Stage.STAGE_IDLE)
            for name in self.names
        ]  # fmt: skip
        columns = [
            self.names, [self.active[name] for name in self.names], stages,
            [self.new if name in shadows else "" for name in self.names],
            [self.new if name in self.refused else "" for name in self.names],
            ["self-test: lane differs by 0.31, at most 0.02" if name in self.refused else "" for name in self.names],
        ]  # fmt: skip
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE fleet SET active = said.active, stage = said.stage, staged = said.staged, rollout = %s, "
                "refused = said.refused, why = said.why, seen_at = to_timestamp(%s) "
                "FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::text[], %s::text[], %s::text[]) "
                "AS said (vehicle, active, stage, staged, refused, why) WHERE fleet.vehicle = said.vehicle",
                (self.id, self.now_s, *columns),
            )
            keys = list(self.tallies)
            if not keys:
                return
            counts = [
                json.dumps(dict.fromkeys(("late", "worse", "better") if key[2] else ("late",), times) if times else {})
                for key in keys
                for times in (self.tallies[key][1],)
            ]
            connection.exec_driver_sql(
                "INSERT INTO tallies (vehicle, bundle_id, is_shadow, account, slice, seconds, frames, counts, told_at) "
                "SELECT v, b, s, 'a'::bytea, p, n, 0, c::jsonb, to_timestamp(%s) FROM unnest(%s::text[], %s::text[], "
                "%s::boolean[], %s::text[], %s::float8[], %s::text[]) AS said (v, b, s, p, n, c) "
                "ON CONFLICT (vehicle, bundle_id, is_shadow, account, slice) "
                "DO UPDATE SET seconds = excluded.seconds, counts = excluded.counts, told_at = excluded.told_at",
                (
                    self.now_s, *map(list, zip(*keys)), [self.tallies[key][0] for key in keys], counts,
                ),
            )  # fmt: skip

    def _drive(self, seconds: float) -> None:
        self.now_s += seconds
        shadows = self.assigned(1)
        for name in self.names:
            self._count(name, self.active[name], False, seconds)
            if name in shadows and self.active[name] != self.new:
                self._count(name, self.new, True, seconds)
        self.report()

    def _obey(self) -> None:
        for name in sorted(self.assigned(2)):
            if self.active[name] == self.new or name in self.refused:
                continue
            if len(self.refused) < self.refusing:
                self.refused.add(name)
            else:
                self.active[name] = self.new
        self.report()

    def _count(self, name: str, bundle: str, is_shadow: bool, seconds: float) -> None:
        # Nobody acts on what the shadow does wrong, and a fault may show only when somebody does.
        rate = self.rates[OLD] if is_shadow else self.rates[bundle]
        failed = int(self.random.random() < 1.0 - math.exp(-rate * seconds / HOUR_S))
        place = self.random.choices(list(SLICES), [0.5, 0.3, 0.2])[0]
        for where in {"all", place}:
            key = name, bundle, is_shadow, where
            before = self.tallies.get(key, (0.0, 0))
            self.tallies[key] = before[0] + seconds, before[1] + failed
