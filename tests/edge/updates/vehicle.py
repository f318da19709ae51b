"""A vehicle that checks in: an updates folder with slots in use, and trust. What it holds can be compared."""

from __future__ import annotations

import errno
from pathlib import Path

from edge.updates.assignment import Assignment
from edge.updates.disk import RealDisk
from edge.updates.slots import Held, Slots, slots_record
from edge.updates.trust import Policy, Trust
from roadfuse.v1 import updates_pb2

from .repositories import VEHICLE, SimulatedCloud


class FullDisk(RealDisk):
    """A disk that may have no room left for files whose name begins so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.is_full_for: tuple[str, ...] = ()

    def write(self, name: str, content: bytes) -> None:
        self._room_for(name, content)
        super().write(name, content)

    def append(self, name: str, offset: int, content: bytes) -> None:
        self._room_for(name, content)
        super().append(name, offset, content)

    def _room_for(self, name: str, content: bytes) -> None:
        if self.is_full_for and name.startswith(self.is_full_for):
            super().write(name, content[: len(content) // 2])  # as much as went on
            raise OSError(errno.ENOSPC, "No space left on device")


class Vehicle:
    """One vehicle of a simulated cloud.

    Attributes:
        floor: the highest counter that it accepted.
    """

    def __init__(self, root: Path, cloud: SimulatedCloud, name: str = VEHICLE, hardware: str = "x86") -> None:
        self.disk, self.cloud, self.name, self.hardware = FullDisk(root), cloud, name, hardware
        self.factory = (cloud.director.roots[0], cloud.image.roots[0])
        self.floor = 0
        if not self.disk.list(""):
            slots_record(self.disk).write(Slots(active=Held("ab" * 32, 1, "first"), highest_counter=1).to_bytes())
        self.start()

    def start(self, policy: Policy | None = None) -> None:
        """The agent's process starts."""
        self.trust = Trust(self.disk, *self.factory, self.name, self.hardware, policy)

    def request(self) -> updates_pb2.CheckInRequest:
        director, image = self.trust.root_versions
        return updates_pb2.CheckInRequest(
            nonce=self.trust.nonce(), director_root_version=director, image_root_version=image
        )

    def check_in(self) -> Assignment:
        request = self.request()
        return self.believe(self.cloud.check_in(request), request.nonce)

    def believe(self, response: updates_pb2.CheckInResponse, nonce: bytes) -> Assignment:
        assignment = self.trust.verified(response, self.cloud, nonce, self.floor)
        if assignment.release is not None:
            self.floor = max(self.floor, assignment.release.counter)
        return assignment

    def nonce(self) -> bytes:
        return self.trust.nonce()

    def check_in_without_release(self) -> Assignment:
        """Hears of roots, of time and of stops alone."""
        assigned, self.cloud.assigned = self.cloud.assigned, None
        try:
            return self.check_in()
        finally:
            self.cloud.assigned = assigned

    def holds(self) -> dict[str, bytes]:
        """All files of the folder."""
        return {name: self.disk.read(name) for name in self.disk.list("") if self.disk.path(name).is_file()}
