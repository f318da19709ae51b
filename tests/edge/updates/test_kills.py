"""The real agent, killed at random moments (SIGKILL) over a real folder: nothing bricked, and it ends confirmed.

ROADFUSE_LONG=1 kills 200 times.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from edge.updates.boot import choose
from edge.updates.disk import RealDisk
from edge.updates.slots import read_answer, read_slots
from roadfuse.v1.updates_pb2 import Stage

pytest.importorskip("tuf")

from .served import ROOT, LoopThread, Served, loads, small_bundle

LONG = os.environ.get("ROADFUSE_LONG") == "1"
KILLS = 200 if LONG else 6
BUNDLES = 60 if LONG else 3  # the next one is assigned once one is confirmed, so that most deaths are on the way
LIFE_S = (0.3, 3.0)  # of an agent, which takes half a second to begin; some live longer
LONG_LIFE_S = (3.0, 7.0)


def test_an_agent_that_is_killed_at_random_moments_bricks_nothing_and_ends_confirmed(tmp_path: Path) -> None:
    chance = random.Random(6)
    wrong: list[str] = []
    releases = [small_bundle(tmp_path / f"bundle-{counter}", counter) for counter in range(1, BUNDLES + 1)]
    kills, counter, stages = 0, 0, dict.fromkeys(Stage.values(), 0)
    with Served(tmp_path, pause_s=0.05) as served:
        disk = RealDisk(served.updates)
        served.cloud.assign(releases[0])
        loop = LoopThread(served.updates)
        try:
            while kills < KILLS:
                with subprocess.Popen(served.words("--tries", "1000"), stderr=subprocess.DEVNULL, cwd=ROOT) as agent:
                    time.sleep(chance.uniform(*(LONG_LIFE_S if chance.random() < 0.2 else LIFE_S)))
                    assert agent.poll() is None, "the agent ended by itself"
                    agent.kill()
                kills += 1
                slots = read_slots(disk)
                stages[slots.stage if slots is not None else 0] += 1
                choice = choose(slots, read_answer(disk), lambda bundle: loads(disk, bundle))
                if slots is not None and slots.active.bundle and not loads(disk, slots.active.bundle):
                    wrong.append(f"kill {kills}: the active bundle is not whole")
                if choice.bundle and (not loads(disk, choice.bundle) or choice.bundle not in loop.loop.acted):
                    wrong.append(f"kill {kills}: boots {choice.bundle[:12]}: {choice.why}")
                wanted = releases[counter].release
                is_done = slots is not None and slots.active.bundle == wanted.bundle
                if is_done and slots.stage != Stage.STAGE_PROBATION and counter + 1 < BUNDLES:
                    counter += 1
                    served.cloud.assign(releases[counter])
            with subprocess.Popen(served.words("--tries", "1000"), stderr=subprocess.DEVNULL, cwd=ROOT) as agent:
                ends_s = time.monotonic() + 240
                while time.monotonic() < ends_s:
                    slots = read_slots(disk)
                    if (
                        slots is not None
                        and slots.active.bundle == releases[counter].id
                        and slots.stage in (Stage.STAGE_CONFIRMED, Stage.STAGE_IDLE)
                    ):
                        break
                    time.sleep(0.1)
                agent.kill()
        finally:
            loop.close()
    told = {Stage.Name(stage)[6:]: count for stage, count in stages.items() if count}
    print(f"{kills} kills, {counter + 1} releases, {len(wrong)} wrong; died in {told}")
    assert not wrong and not loop.wrong, (wrong, loop.wrong)
    assert slots is not None and slots.active.bundle == releases[counter].id, slots
    assert slots.stage in (Stage.STAGE_CONFIRMED, Stage.STAGE_IDLE), slots
