"""Power cuts at every operation of whole lives of updates: nothing bricked, no wrong model, and it goes on to the end.

Each change on a pessimistic disk (crash_disk.py) is followed by a look at the states that a cut may leave. A state is
checked as a booting vehicle would find it; from those that differ, agent and loop start anew and go on to the end, in
the long run with cuts in that second life too (ROADFUSE_LONG=1: at least 10^6 states, and half as many with signed
repositories).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from edge.updates import operator
from edge.updates.boot import choose
from edge.updates.slots import Answer, Slots, read_answer, read_slots
from roadfuse.v1.updates_pb2 import Mode, Stage

from .crash_disk import CrashDisk, Tree, WithoutSync, flat
from .simulated import Made, SimulatedCloud, Vehicle, is_whole, made

LONG = os.environ.get("ROADFUSE_LONG") == "1"
STATES = 1_000_000 if LONG else 16_000
STATES_PER_CHANGE = 512 if LONG else 16
STATES_PER_DEATH = 64 if LONG else 8
SECOND_LIVES = 1000 if LONG else 40  # from states that differ, of each life


@dataclass(frozen=True)
class Phase:
    """What the cloud wants, what happens once all is quiet, and what is active at the end; None: whatever is safe."""

    begin: Callable[[Any], None]
    active: str | None
    act: Callable[[Vehicle], object] = lambda _: None


def goes_to(bundle: Made, active: Made | None = None) -> Phase:
    return Phase(lambda cloud: cloud.assign(bundle), (active or bundle).id)


def shadows(bundle: Made, active: str) -> Phase:
    return Phase(lambda cloud: cloud.assign(bundle, Mode.MODE_SHADOW), active)


def withdraws(active: str) -> Phase:
    return Phase(lambda cloud: cloud.assign(None, Mode.MODE_UNSPECIFIED), active)


def stops(*bundles: Made, active: str) -> Phase:
    """The broker's notice, at once; the director says the same from then on."""

    def act(vehicle: Vehicle) -> None:
        vehicle.agent.stop(vehicle.cloud.assignment.stop_number, [bundle.id for bundle in bundles])

    return Phase(lambda cloud: cloud.stop(*bundles), active, act)


def operator_back(active: str) -> Phase:
    def begin(cloud: Any) -> None:
        cloud.assign(None, Mode.MODE_UNSPECIFIED)

    def act(vehicle: Vehicle) -> None:
        if vehicle.agent.slots.active.bundle != active:  # else the cut came after it
            operator.ask(vehicle.disk, operator.BACK, vehicle.agent.slots.active.bundle)

    return Phase(begin, active, act)


def pardons(bundle: Made) -> Phase:
    """The cloud goes on assigning what was refused here, until an operator says that it may be taken."""
    return Phase(
        lambda cloud: cloud.assign(bundle), bundle.id,
        lambda vehicle: operator.ask(vehicle.disk, operator.PARDON, bundle.id),
    )  # fmt: skip


A, B, C, D = (made(counter, files=files) for counter, files in ((1, 1), (2, 2), (3, 1), (4, 2)))
E = made(5, b"one engine " * 4, b"one engine " * 4)  # the same content twice
BAD = {where: made(6, files=1, fault=where) for where in ("build", "test", "shadow", "swap", "probation")}
D_ANEW = made(7, *[content for name, content in D.files.items() if name != "manifest.json"])
LIVES: dict[str, list[Phase]] = {
    "three updates in a row": [goes_to(A), goes_to(B), goes_to(C)],
    "a shadow, withdrawn, then taken": [goes_to(A), shadows(B, A.id), withdraws(A.id), goes_to(B)],
    "put back in probation, then another": [goes_to(A), goes_to(BAD["probation"], A), goes_to(D_ANEW)],
    "refused at each stage": [
        goes_to(A), *(goes_to(BAD[where], A) for where in ("build", "test", "shadow", "swap")), goes_to(D_ANEW),
    ],
    "stopped, released anew": [goes_to(A), goes_to(D), stops(D, active=A.id), stops(active=A.id), goes_to(D_ANEW)],
    "stopped both": [goes_to(A), goes_to(B), stops(A, B, active=""), stops(active=""), goes_to(E)],
    "an operator's words": [goes_to(A), goes_to(B), operator_back(A.id), pardons(B), goes_to(C)],
    "an older one offered": [goes_to(A), goes_to(C), goes_to(B, C), goes_to(D)],
}  # fmt: skip


@dataclass
class Toll:
    """What was looked at, and what was wrong."""

    states: int = 0
    second_lives: int = 0
    wrong: list[str] = field(default_factory=list)
    bricked: int = 0

    def note(self, what: str, *, bricks: bool = False) -> None:
        self.bricked += bricks
        if len(self.wrong) < 20:
            self.wrong.append(what)


class Cuts:
    """Looks at every state that a cut may leave, as a booting vehicle finds it."""

    def __init__(self, toll: Toll, chance: random.Random, most: int, keep: Callable[[Tree], None]) -> None:
        self._toll, self._chance, self._most, self._keep = toll, chance, most, keep
        self.vehicle: Vehicle | None = None
        self._slots: dict[Any, Slots | None] = {}
        self._answers: dict[Any, Answer | None] = {}
        self._whole: dict[Any, bool] = {}
        self.where = ""

    def __call__(self, disk: CrashDisk) -> None:
        for tree in disk.states(self._most, self._chance):
            self._toll.states += 1
            self.check(tree)
            self._keep(tree)

    def check(self, tree: Tree) -> None:
        agent = self.vehicle.agent if self.vehicle is not None and hasattr(self.vehicle, "agent") else None
        slots, answer = self._read(tree, "slots"), self._read(tree, "answer")
        whole = partial(self._is_whole, tree)
        choice = choose(slots, answer, whole)
        note = partial(self._toll.note)
        if choice.bundle and not whole(choice.bundle):
            note(f"{self.where}: boots a bundle that is not whole", bricks=True)
        for name in tree.get("bundles", {}):
            if not name.startswith(".") and not whole(name):
                note(f"{self.where}: {name[:8]} has its name and is not whole", bricks=name == choice.bundle)
        if agent is None:  # the first slots are being written
            return
        durable = agent.slots
        if slots is None:
            note(f"{self.where}: the slots are lost", bricks=True)
            return
        assert self.vehicle is not None
        if slots.active.bundle and not whole(slots.active.bundle):
            note(f"{self.where}: the active bundle is not whole", bricks=True)
        if slots.epoch < durable.epoch:
            note(f"{self.where}: epoch {slots.epoch} after {durable.epoch} was durable")
        if slots.epoch == durable.epoch and slots != durable:
            note(f"{self.where}: epoch {slots.epoch} says something else than what was durable")
        if slots.highest_counter < durable.highest_counter:
            note(f"{self.where}: takes what is below {durable.highest_counter} again")
        if slots.stop_number < durable.stop_number:
            note(f"{self.where}: forgets stop {durable.stop_number}")
        if any(one.bundle == choice.bundle for one in (*durable.refused, *slots.refused)) and choice.bundle:
            note(f"{self.where}: boots {choice.bundle[:8]}, which was refused")
        if slots.active.bundle not in self.vehicle.loop.acted | self.acted_before:
            note(f"{self.where}: {slots.active.bundle[:8]} is active before the loop answered")
        is_old = slots.staged is not None and slots.staged.counter < slots.highest_counter
        if slots.stage == Stage.STAGE_ARMED and is_old:
            note(f"{self.where}: armed below the highest counter")

    acted_before: frozenset[str] = frozenset({""})

    def _read(self, tree: Tree, what: str) -> Any:
        names = ("slots.a", "slots.b", "kept.a", "kept.b") if what == "slots" else ("answer.a", "answer.b")
        key = tuple(tree.get(name) for name in names)
        cache: dict[Any, Any] = self._slots if what == "slots" else self._answers
        if key not in cache:
            cache[key] = (read_slots if what == "slots" else read_answer)(CrashDisk(tree))  # type: ignore[operator]
        return cache[key]

    def _is_whole(self, tree: Tree, bundle: str) -> bool:
        folder = tree.get("bundles", {}).get(bundle)
        if folder is None:
            return False
        key = (bundle, tuple(folder.items()))
        if key not in self._whole:
            self._whole[key] = is_whole(CrashDisk({"bundles": {bundle: folder}}), bundle)
        return self._whole[key]


def run_phase(vehicle: Vehicle, phase: Phase) -> None:
    vehicle.agent.hint()
    vehicle.settle()
    phase.act(vehicle)
    vehicle.settle()


def cloud_at(life: list[Phase], index: int, cloud: Any = None) -> Any:
    """As it is in a phase; a signed one goes on, for its versions never go back."""
    if cloud is None:
        cloud = SimulatedCloud()
    else:
        cloud.stop_number, cloud.stopped, cloud.assigned = 0, [], None
    for phase in life[: index + 1]:
        phase.begin(cloud)
    return cloud


def first_life(
    life: list[Phase], toll: Toll, chance: random.Random, kind: type[CrashDisk] = CrashDisk, cloud: Any = None
) -> list[tuple[int, Tree]]:
    """Runs a life with a look at each cut; gives the states that differ, with the phase that they are of."""
    different: dict[int, tuple[int, Tree]] = {}
    index = 0

    def keep(tree: Tree) -> None:
        different.setdefault(hash(tuple(sorted(flat(tree).items()))), (index, tree))

    cuts = Cuts(toll, chance, STATES_PER_CHANGE, keep)
    disk = kind({}, cuts)
    vehicle = Vehicle.__new__(Vehicle)
    cuts.vehicle = vehicle
    vehicle.__init__(disk, cloud_at(life, -1, cloud))  # type: ignore[misc]
    for index, phase in enumerate(life):
        cuts.where = f"phase {index}"
        phase.begin(vehicle.cloud)
        run_phase(vehicle, phase)
        if phase.active is not None and kind is CrashDisk:
            assert vehicle.agent.slots.active.bundle == phase.active == vehicle.loop.running, vehicle.agent.slots
    return list(different.values())


def goes_on(life: list[Phase], index: int, tree: Tree, toll: Toll, cuts: Cuts | None = None, cloud: Any = None) -> None:
    """Starts anew from what a cut left, and lives on to the end."""
    vehicle = Vehicle.__new__(Vehicle)
    if cuts is not None:
        cuts.vehicle = vehicle
        answer = read_answer(CrashDisk(tree))
        before = read_slots(CrashDisk(tree))
        known = {"", *(held.bundle for held in (before.active, before.previous) if held)} if before else {""}
        cuts.acted_before = frozenset({*known, answer.running if answer else ""})
    vehicle.__init__(CrashDisk(tree, cuts), cloud_at(life, index, cloud))  # type: ignore[misc]
    toll.second_lives += 1
    for number, phase in enumerate(life[index:], index):
        if number > index:
            phase.begin(vehicle.cloud)
        run_phase(vehicle, phase)
    slots, wanted = vehicle.agent.slots, life[-1].active
    if getattr(vehicle.trust, "lost", ""):
        toll.note(f"after a cut in phase {index}: trust was lost: {vehicle.trust.lost}")
    if slots.active.bundle != wanted or vehicle.loop.running != wanted:
        toll.note(f"after a cut in phase {index}: {slots}")


@pytest.mark.parametrize("name", LIVES)
def test_after_a_power_cut_at_any_operation_the_vehicle_boots_what_it_may_and_goes_on(name: str) -> None:
    look(name, None, STATES // len(LIVES), SECOND_LIVES)


@pytest.mark.parametrize("name", LIVES if LONG else ["stopped, released anew"])
def test_the_same_with_signed_repositories_real_trust_and_the_real_fetcher(name: str) -> None:
    pytest.importorskip("tuf")
    from .signed_cloud import SignedCloud

    look(name, SignedCloud(), STATES // len(LIVES) // (2 if LONG else 4), SECOND_LIVES // 4)


def look(name: str, cloud: Any, wanted: int, second_lives: int) -> None:
    life, toll, chance = LIVES[name], Toll(), random.Random(f"cuts of {name}")
    began = time.perf_counter()
    states = first_life(life, toll, chance, cloud=cloud)
    chance.shuffle(states)
    for index, tree in states[:second_lives]:
        goes_on(life, index, tree, toll, cloud=cloud)
    for index, tree in states:
        if toll.states >= wanted:
            break
        goes_on(life, index, tree, toll, Cuts(toll, chance, STATES_PER_CHANGE, lambda _: None), cloud)
    took_s = time.perf_counter() - began
    print(
        f"{name}: {toll.states} states, {len(states)} different in the first life, {toll.second_lives} second lives, "
        f"{toll.states / took_s:.0f} states/s, {toll.bricked} bricked, {len(toll.wrong)} wrong"
    )
    assert not toll.wrong, "\n".join(toll.wrong)
    assert toll.states >= wanted


class Died(BaseException):
    """The agent's process was killed."""


@pytest.mark.parametrize("name", ["three updates in a row", "stopped both", "an operator's words"])
def test_a_process_that_dies_leaves_what_is_not_durable_and_the_power_may_be_cut_then(name: str) -> None:
    life, toll, chance = LIVES[name], Toll(), random.Random(f"deaths of {name}")
    for _ in range(400 if LONG else 12):
        die_at = chance.randrange(600)
        died_in = die(life, die_at)
        if died_in is None:
            continue
        disk, index, before = died_in
        cuts = Cuts(toll, chance, STATES_PER_DEATH, lambda _: None)
        vehicle = Vehicle.__new__(Vehicle)
        cuts.vehicle, cuts.acted_before, disk.on_change = vehicle, frozenset(before), cuts
        vehicle.__init__(disk, cloud_at(life, index))  # type: ignore[misc]
        for number, phase in enumerate(life[index:], index):
            if number > index:
                phase.begin(vehicle.cloud)
            run_phase(vehicle, phase)
        if vehicle.agent.slots.active.bundle != life[-1].active:
            toll.note(f"after a death in phase {index}: {vehicle.agent.slots}")
    print(f"{name}: {toll.states} states after deaths, {len(toll.wrong)} wrong")
    assert not toll.wrong, "\n".join(toll.wrong)
    assert toll.states > 1000


def die(life: list[Phase], changes: int) -> tuple[CrashDisk, int, set[str]] | None:
    """Lives until so many changes of the disk, and dies there; None where the life is shorter."""
    left = [changes]

    def count(_: CrashDisk) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Died

    disk, index = CrashDisk({}, count), 0
    vehicle = Vehicle.__new__(Vehicle)
    try:
        vehicle.__init__(disk, cloud_at(life, -1))  # type: ignore[misc]
        for number, phase in enumerate(life):
            index = number
            phase.begin(vehicle.cloud)
            run_phase(vehicle, phase)
    except Died:
        acted = vehicle.loop.acted if hasattr(vehicle, "loop") else {""}
        return disk, index, acted
    return None


def test_the_model_finds_bricks_where_nothing_is_synced() -> None:
    toll = Toll()
    first_life(LIVES["three updates in a row"], toll, random.Random(1), WithoutSync)
    print(f"without sync: {toll.bricked} of {toll.states} states bricked")
    assert toll.bricked > 100
