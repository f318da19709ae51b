"""The simulated cloud with both repositories signed: the agent runs with its real trust and its real fetcher."""

from __future__ import annotations

import hashlib

from tuf.api.metadata import TargetFile

from edge.updates import delta
from edge.updates.assignment import Assignment
from edge.updates.disk import Disk
from edge.updates.fetch import Fetcher
from edge.updates.trust import Trust
from roadfuse.v1.updates_pb2 import Mode

from . import repositories
from .simulated import Clock, Made


class SignedCloud(repositories.SimulatedCloud):
    """Has the words of simulated.SimulatedCloud: assign, stop."""

    def __init__(self) -> None:
        super().__init__()
        self.behave()

    @property
    def assignment(self) -> Assignment:
        """What is said of stops."""
        return Assignment(None, self.mode, "", self.stop_number, frozenset(self.stopped), 0, 60.0)

    def assign(self, bundle: Made | None, mode: int = Mode.MODE_ACTIVATE) -> None:
        """Release it where it is none yet, and let the vehicle go for it."""
        if bundle is None:
            self.assigned = None
            return
        release = bundle.release
        self.mode, self.assigned = mode, release.path
        if release.path in self.targets:
            return
        target = TargetFile.from_data(release.path, bundle.files["manifest.json"], ["sha256"])
        target.unrecognized_fields["custom"] = {
            "bundle": release.bundle, "counter": release.counter, "hardware": list(release.hardware),
            "files": [{"name": f.name, "length": f.length, "sha256": f.sha256.hex()} for f in release.files],
        }  # fmt: skip
        self.files |= {hashlib.sha256(content).digest(): content for content in bundle.files.values()}
        self.targets[release.path] = target
        self.publish()

    def stop(self, *bundles: Made) -> None:
        """The director says so from now on."""
        self.stop_number += 1
        self.stopped = sorted(bundle.id for bundle in bundles)

    def trust(self, disk: Disk) -> Trust:
        """The vehicle's, from its factory on or from what it remembers."""
        return Trust(disk, self.director.roots[0], self.image.roots[0], self.vehicle, repositories.HARDWARE[0])

    def fetcher(self, disk: Disk, clock: Clock) -> Fetcher:
        """The vehicle's."""
        return Fetcher(disk, self, clock.monotonic_s, delta.apply)
