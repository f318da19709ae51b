"""How large a rollout's log is: bytes a vehicle-hour, as JSON, in PostgreSQL and as segments, by what they say.

The real engine with the usual policy, fed once a second of simulated time by simulated vehicles (cloud/fleet), whose
words go into the tables that check-ins and MQTT write. The release is as good as what runs, so the rollout goes on for
as long as the run: it is in the shadow and, later, in waves. At the end all that may be moved is. Sizes only.

    python benchmarks/rollout_log.py [--vehicles 2000] [--hours 6] [--all-drive]      prints JSON
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert, text

from cloud.database import connect, migrate
from cloud.fleet.scenario import HARDWARE, HOUR_S, Scenario
from cloud.fleet.vehicle import Vehicle, Wish
from cloud.objects import Objects
from cloud.postgres import Postgres
from cloud.rollouts import book
from cloud.rollouts.engine import Control
from cloud.rollouts.evidence import START, Command
from cloud.rollouts.moving import move_all
from cloud.rollouts.policy import Policy
from cloud.tables import FLEET, RELEASES, VEHICLES

OLD, NEW = "0d" * 32, "4e" * 32
_FLEET = """
UPDATE fleet SET seen_at = to_timestamp(%s), state = s, stage = t, active = a, staged = g, refused = r, why = w
FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::text[], %s::text[], %s::text[], %s::text[])
    AS said (v, s, t, a, g, r, w) WHERE vehicle = v"""
_TALLIES = """
INSERT INTO tallies (vehicle, bundle_id, is_shadow, account, slice, seconds, frames, counts, told_at)
SELECT v, b, h, 'a'::bytea, s, n, f, c::jsonb, to_timestamp(%s)
FROM unnest(%s::text[], %s::text[], %s::boolean[], %s::text[], %s::float8[], %s::bigint[], %s::text[])
    AS said (v, b, h, s, n, f, c)
ON CONFLICT (vehicle, bundle_id, is_shadow, account, slice) DO UPDATE SET
    seconds = excluded.seconds, frames = excluded.frames, counts = excluded.counts, told_at = excluded.told_at"""
_SEGMENTS = "SELECT count(*), coalesce(sum(bytes), 0) FROM rollout_segments"


class Rehearsed:
    """A fleet whose words go straight into the tables."""

    def __init__(self, engine: Engine, scenario: Scenario) -> None:
        self.engine, self.now_s = engine, (time.time() // HOUR_S + 24) * HOUR_S
        beat_s = int(scenario.heartbeat_s)  # not all at once
        vehicles = [Vehicle(scenario, n, OLD, {}, self.now_s - n % beat_s) for n in range(scenario.vehicles)]
        self.vehicles = {one.name: one for one in vehicles}
        with engine.begin() as connection:
            connection.execute(insert(VEHICLES), [{"name": name} for name in self.vehicles])
            rows = [
                {"vehicle": name, "hardware": HARDWARE, "labels": one.labels, "active": OLD, "software": "1.4.2"}
                for name, one in self.vehicles.items()
            ]
            connection.execute(insert(FLEET), rows)

    def clock(self, _: Connection) -> float:
        return self.now_s

    def step(self, seconds: float) -> float:
        """Live on; gives vehicle-hours driven."""
        self.now_s += seconds
        driving = sum(one.state == "driving" for one in self.vehicles.values())
        due = [one for one in self.vehicles.values() if one.wake_s <= self.now_s]
        with self.engine.begin() as connection:
            told = connection.exec_driver_sql(
                "SELECT vehicle, mode, release FROM assignments WHERE vehicle = ANY(%s::text[])",
                ([one.name for one in due],),
            )
            wishes = {name: Wish(NEW, release, mode, "r") for name, mode, release in told}
            for one in due:
                one.told(wishes.get(one.name, Wish()))
                one.advance(self.now_s)
            linked = [one for one in due if one.is_linked or one.state == "parked"]
            self._write(connection, linked)
        return driving * seconds / HOUR_S

    def _write(self, connection: Connection, heard: list[Vehicle]) -> None:
        said = [(one.name, one.reported()) for one in heard]
        columns = [[row[name] for _, row in said] for name in ("state", "stage", "active", "staged", "refused", "why")]
        connection.exec_driver_sql(_FLEET, (self.now_s, [name for name, _ in said], *columns))
        rows = [
            (one.name, told.bundle, told.is_shadow, place, count.seconds, count.frames, json.dumps(count.counts))
            for one in heard
            for told in one.evidence
            for place, count in told.slices.items()
        ]
        if rows:
            connection.exec_driver_sql(_TALLIES, (self.now_s, *map(list, zip(*rows))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", type=int, default=2_000)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--all-drive", action="store_true", help="all the time, instead of 45 min in 3.75 h")
    args = parser.parse_args()
    habits: dict[str, Any] = {"drive_h": 1e6, "parked_h": 1e-3} if args.all_drive else {}
    with tempfile.TemporaryDirectory(prefix="roadfuse-bench-") as place:
        Path(place).chmod(0o755)
        with Postgres(Path(place) / "postgres") as server:
            engine = connect(server.url)
            migrate(engine)
            fleet = Rehearsed(engine, Scenario(vehicles=args.vehicles, **habits))
            driven_h = _run(engine, fleet, args.hours)
            with engine.begin() as connection:
                found = _sizes(connection)
            objects = Objects(str(Path(place) / "objects"))
            found["moved_rows"] = sum(move_all(engine, objects, 0.0))
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM FULL rollout_log"))  # what is free otherwise is filled by new rows
                segments, size = connection.execute(text(_SEGMENTS)).one()
                left = connection.execute(text("SELECT pg_total_relation_size('rollout_log')")).scalar_one()
            found |= {"segments": segments, "segment_bytes": int(size), "postgres_bytes_left": left}
            engine.dispose()
    share = max(found["moved_rows"], 1) / found["rows"]["observed"]
    vehicle_hours = args.vehicles * args.hours
    found |= {"vehicles": args.vehicles, "hours": args.hours, "driven_h": round(driven_h, 1)}
    found["json_bytes_a_vehicle_hour"] = round(found["json_bytes"] / vehicle_hours, 1)
    found["postgres_bytes_a_vehicle_hour"] = round(found["postgres_bytes"] / vehicle_hours, 1)
    found["segment_bytes_a_vehicle_hour"] = round(found["segment_bytes"] / share / vehicle_hours, 1)
    print(json.dumps(found, indent=2))


def _run(engine: Engine, fleet: Rehearsed, hours: float) -> float:
    with engine.begin() as connection:
        row = {"counter": 2, "name": "demo", "version": "1", "path": "demo/2/manifest.json", "bundle_id": NEW,
               "hardware": [HARDWARE], "files": []}  # fmt: skip
        connection.execute(insert(RELEASES).values(row))
        made = book.create(connection, 2, Policy(), "bench", without_gates="sizes only")
        book.command(connection, made.id, Command(START, "bench"))
    driven_h, end_s = 0.0, fleet.now_s + hours * HOUR_S
    with engine.connect() as connection:
        control = Control(connection, clock=fleet.clock, grace_s=0.0)
        while fleet.now_s < end_s:
            driven_h += fleet.step(1.0)
            control.cycle()
    return driven_h


def _sizes(connection: Connection) -> dict[str, Any]:
    connection.execute(text("ANALYZE rollout_log"))
    by_kind, by_part, rows = Counter[str](), Counter[str](), Counter[str]()
    for kind, content in connection.execute(text("SELECT kind, content::text FROM rollout_log")):
        rows[kind] += 1
        by_kind[kind] += len(content)
        for name, part in json.loads(content).items():
            by_part[f"{kind}.{name}"] += len(json.dumps(part, separators=(",", ":")))
    column, total = connection.execute(
        text("SELECT sum(pg_column_size(content)), pg_total_relation_size('rollout_log') FROM rollout_log")
    ).one()
    return {
        "state": connection.execute(text("SELECT state FROM rollouts")).scalar_one(),
        "rows": dict(rows), "json_bytes": sum(by_kind.values()), "json_bytes_by_kind": dict(by_kind),
        "json_bytes_by_part": dict(by_part.most_common(6)), "column_bytes": int(column), "postgres_bytes": int(total),
    }  # fmt: skip


if __name__ == "__main__":
    main()
