"""An attack on a vehicle that took release 1 and is to hear of release 2, and what it must come to.

It is refused for its own reason, changes nothing on the disk, and harms nobody once it is over.

Ref: The Update Framework specification 1.0.33, 1.5.2; Uptane standard 2.1.0, 4.2; Karthik et al., "Uptane", 2016.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import SuccinctRoles, TargetFile

from edge.errors import UpdateError
from roadfuse.v1 import updates_pb2

from .repositories import SimulatedCloud
from .vehicle import Vehicle

Change = Callable[[Any], None]
DAY = timedelta(days=1)


@dataclass
class Case:
    """A vehicle that took release 1 and is to hear of release 2."""

    cloud: SimulatedCloud
    vehicle: Vehicle
    check_in: Callable[[], Any] | None = None  # another way than the usual

    @staticmethod
    def at(root: Path) -> Case:
        """One of its own; what all have in common is made once."""
        return _copied(*_prepared(), root)

    def copied(self, root: Path) -> Case:
        """Another one that is just so far."""
        return _copied(self.cloud, self.vehicle.holds(), self.vehicle.floor, root)

    def bin_of(self, path: str) -> str:
        """The hash bin of a target."""
        return SuccinctRoles([], 1, 4, "bin").get_role_for_target(path)

    def edit(self, role: str, change: Change) -> None:
        """What the true keys sign is changed; all that hangs on it is made to fit."""
        self.cloud.edits[role] = change
        self.cloud.publish()

    def sign(self, role: str, *signers: Any) -> None:
        self.cloud.signers[role] = list(signers)
        self.cloud.publish()

    def damage(self, role: str, change: Callable[[bytes], bytes]) -> None:
        self.cloud.damages[role] = change
        self.cloud.publish()

    def answer(self, change: Callable[[updates_pb2.CheckInResponse], None]) -> None:
        self.cloud.answers.append(change)


Attack = tuple[Callable[[Case], object], str]


@functools.cache
def _prepared() -> tuple[SimulatedCloud, dict[str, bytes], int]:
    with tempfile.TemporaryDirectory() as folder:
        cloud = SimulatedCloud()
        vehicle = Vehicle(Path(folder), cloud)
        cloud.release(1)
        assert vehicle.check_in().release is not None
        vehicle.check_in()
        cloud.release(2)
        return cloud, vehicle.holds(), vehicle.floor


def _copied(cloud: SimulatedCloud, held: dict[str, bytes], floor: int, root: Path) -> Case:
    for name, content in held.items():
        (root / name).write_bytes(content)
    cloud = copy.deepcopy(cloud)
    vehicle = Vehicle(root, cloud)
    vehicle.floor = floor
    return Case(cloud, vehicle)


def check(case: Case, attack: Callable[[Case], object], reason: str) -> None:
    """It is refused, and says why in one line; the disk is as it was; an honest cloud is believed after it."""
    vehicle, cloud = case.vehicle, case.cloud
    attack(case)
    before, floor = vehicle.holds(), vehicle.floor
    with pytest.raises(UpdateError, match=reason) as refusal:
        (case.check_in or vehicle.check_in)()
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    assert vehicle.holds() == before and vehicle.floor == floor

    cloud.behave()
    cloud.assigned, cloud.stopped, cloud.stop_number = "model/2/manifest.json", [], 9
    for repository in (cloud.director, cloud.image):
        repository.next_root()
    for _ in range(2):
        release = vehicle.check_in().release
        assert release is not None and release.counter == 2
        vehicle.start()  # what was believed is durable


def setting(name: str, value: Any) -> Change:
    return lambda signed: setattr(signed, name, value)


def word(**values: Any) -> Change:
    """Of the director."""
    return lambda targets: targets.unrecognized_fields["roadfuse"].update(values)


def target(change: Callable[[TargetFile], None]) -> Change:
    """Of release 2, wherever it is."""

    def changed(targets: Any) -> None:
        for path, one in targets.targets.items():
            if "/2/" in path:
                targets.targets[path] = copy.deepcopy(one)
                change(targets.targets[path])

    return changed


def custom(**values: Any) -> Change:
    return target(lambda one: one.unrecognized_fields["custom"].update(values))


def both(case: Case, change: Change) -> None:
    case.edit("director targets", change)
    case.edit("image bins", change)


def loosened(meta: Any) -> None:
    """Nothing but the version of a file is named."""
    meta.length = meta.hashes = None
