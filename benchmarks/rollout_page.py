"""How long the pages of a rollout take, with many vehicles in it: `python -m benchmarks.rollout_page --vehicles 10000`.

A real PostgreSQL, a real web server process, and a rollout that the engine carries out: vehicles report and count each
interval, and each time the page is asked for it has the rows of one more interval to catch up on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from cloud.database import connect, migrate
from cloud.postgres import Postgres
from tests.cloud.fleet import fresh_database
from tests.cloud.web.rollout_scenery import Drive
from tests.cloud.web.scenery import Visitor, Web, key


def main() -> None:
    """Drive, ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vehicles", type=int, default=10_000)
    parser.add_argument("--intervals", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roadfuse-page-") as place:
        Path(place).chmod(0o755)
        with Postgres(Path(place) / "postgres") as server, fresh_database(server.url) as url:
            engine = connect(url)
            migrate(engine)
            drive = Drive(engine, "x86", 6, args.vehicles, {"old": 0.2, "new": 0.2}, refuse=40)
            web = Web(Path(place) / "web", url)
            try:
                _measure(drive, Visitor(web.address), key(engine, "alice"), args.intervals)
            finally:
                web.stop()
                drive.close()
                engine.dispose()


def _measure(drive: Drive, visitor: Visitor, word: str, intervals: int) -> None:
    visitor.sign_in(word)
    paths = {
        "/rollouts": "/rollouts",
        "/rollouts/ID": f"/rollouts/{drive.id}",
        "/rollouts/ID/now": f"/rollouts/{drive.id}/now",
        "/rollouts/ID/actions": f"/rollouts/{drive.id}/actions",
        "/rollouts/ID?find=0042": f"/rollouts/{drive.id}?find=0042",
        "/rollouts/ID/log": f"/rollouts/{drive.id}/log",
        "/rollouts/ID/log?all=1": f"/rollouts/{drive.id}/log?all=1",
    }
    for _ in range(intervals):
        drive.on(0.04)
    print(f"{drive.rollout.state}, {len(drive.assigned(1))} shadow it, {len(drive.assigned(2))} told to run it")
    print(f"{'first look':28s} {_asked(visitor, paths['/rollouts/ID'])[0]:8.0f} ms")
    behind = []
    for _ in range(3):
        drive.on(0.04)
        behind.append(_asked(visitor, paths["/rollouts/ID/now"])[0])
    print(f"{'one interval later':28s} {statistics.median(behind):8.0f} ms")
    for name, path in paths.items():
        took = [_asked(visitor, path) for _ in range(11)]
        print(f"{name:28s} {statistics.median(ms for ms, _ in took):8.0f} ms {took[0][1] / 1000:8.0f} kB")


def _asked(visitor: Visitor, path: str) -> tuple[float, int]:
    start = time.perf_counter()
    answer = visitor.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return (time.perf_counter() - start) * 1e3, len(answer.content)


if __name__ == "__main__":
    main()
