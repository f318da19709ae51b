"""A process that runs a share of a simulated fleet: `python -m cloud.fleet.worker PLAN.json`.

Vehicles are asked in the order in which they want to be, on one event loop. What they do goes to standard output,
a JSON object a second; SIGTERM, or the end of the parent, ends it.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import os
import random
import resource
import secrets
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from cloud.fleet.line import STOP, Line
from cloud.fleet.members import Member
from cloud.fleet.scenario import HARDWARE, Plant, Scenario
from cloud.fleet.vehicle import Vehicle, Wish
from cloud.processes import end_with
from edge.updates.manifest import manifest_of, signed
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2_grpc import UpdatesStub

_TOLD_S: Final = 1.0
_SPREAD_S: Final = 5.0
_KEPT_S: Final = 5.0
_CHECK_INS: Final = 16  # at once
_CALL_S: Final = 30.0
_TRIES: Final = 5
_OPENED: Final = 25  # lines, before others get a turn


@dataclass(slots=True)
class Counted:
    """What a worker did and saw.

    Attributes:
        stops: seconds from a stop notice's instant until each linked vehicle had it.
        late: vehicles with a network that began to act on a stopped bundle more than a second after the notice.
    """

    reports: int = 0
    check_ins: int = 0
    failed: int = 0
    stops: list[float] = field(default_factory=list)
    late: int = 0


class Share:
    """The vehicles of one process.

    Args:
        plan: as host.py writes it.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._scenario = Scenario(**plan["scenario"])
        self._port, self._cloud = int(plan["broker_port"]), str(plan["cloud"])
        self._ca = Path(plan["ca"]).read_bytes()
        self._start = float(plan["start"])  # of the monotonic clock, which all processes share
        plants = {bundle: Plant(**{**one, "slices": tuple(one["slices"])}) for bundle, one in plan["plants"].items()}
        self._members = [Member(**one) for one in plan["members"]]
        now_s = self._now_s()
        self._vehicles = [
            Vehicle(self._scenario, int(one.name.rpartition("-")[2]), plan["active"], plants, now_s)
            for one in self._members
        ]
        self._lines: dict[int, Line] = {}
        self._due = [(vehicle.wake_s, at) for at, vehicle in enumerate(self._vehicles)]
        heapq.heapify(self._due)
        self._owed: list[tuple[float, int]] = []  # words that vehicles have yet to say
        self._asked: set[int] = set()  # vehicles that are about to check in
        self._desired: dict[int, bytes] = {}
        self._turns = asyncio.Semaphore(_CHECK_INS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped: tuple[int, frozenset[str], float] = (0, frozenset(), 0.0)
        self.counted = Counted()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until it is to stop."""
        told_s = kept_s = 0.0
        while not stopping.is_set():
            began_s = time.monotonic()
            self._wake(self._now_s())
            while self._owed and self._owed[0][0] <= began_s:
                _, at = heapq.heappop(self._owed)
                if (line := self._lines.get(at)) is not None and line.is_up:
                    self._report(self._vehicles[at], line)
            if began_s >= kept_s + _KEPT_S:
                kept_s = began_s
                for line in list(self._lines.values()):
                    line.keep()
            if began_s >= told_s + _TOLD_S:
                told_s = began_s
                print(json.dumps(self._told()), flush=True)
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()

    def _now_s(self) -> float:
        return (time.monotonic() - self._start) * self._scenario.speed

    def _wake(self, now_s: float) -> None:
        opened = 0
        while self._due and self._due[0][0] <= now_s and opened < _OPENED:
            _, at = heapq.heappop(self._due)
            vehicle = self._vehicles[at]
            if vehicle.state == "gone":
                continue
            acted = len(vehicle.acted)
            news = vehicle.advance(now_s)
            opened += self._link(at, vehicle)
            if len(vehicle.acted) > acted:
                self._began(at, vehicle)
            line = self._lines.get(at)
            if line is not None and line.is_up and (news or vehicle.state == "driving"):
                self._report(vehicle, line)
            heapq.heappush(self._due, (vehicle.wake_s, at))

    def _link(self, at: int, vehicle: Vehicle) -> bool:
        """Open or close its line as it drives, parks or loses its network; whether one was opened."""
        line = self._lines.get(at)
        if vehicle.is_linked and line is None:
            line = self._lines[at] = Line(
                vehicle.name, self._port, lambda topic, payload: self._heard(at, topic, payload)
            )
            try:
                line.open()
            except OSError:
                del self._lines[at]
                self.counted.failed += 1
            return True
        if not vehicle.is_linked and line is not None:
            if vehicle.state == "parked":
                self._report(vehicle, line)
                line.park()
            else:
                line.cut()
            del self._lines[at]
        return False

    def _began(self, at: int, vehicle: Vehicle) -> None:
        _, stopped, at_s = self._stopped
        line = self._lines.get(at)
        could_know = line is not None and line.is_up and line.up_s < at_s
        if could_know and vehicle.slots.active.bundle in stopped and time.time() > at_s + 1.0:
            self.counted.late += 1

    def _report(self, vehicle: Vehicle, line: Line) -> None:
        evidence = [base64.b64encode(one.message().SerializeToString()).decode() for one in vehicle.evidence]
        line.report({**vehicle.reported(), "evidence": evidence})
        self.counted.reports += 1

    def _heard(self, at: int, topic: str, payload: bytes) -> None:
        vehicle = self._vehicles[at]
        if topic == STOP:
            try:
                notice = updates_pb2.StopNotice.FromString(payload)
            except DecodeError:
                return
            if notice.number > self._stopped[0]:
                self._stopped = notice.number, frozenset(notice.bundle_ids), notice.at.ToNanoseconds() / 1e9
            line = self._lines.get(at)
            if line is not None and line.up_s < notice.at.ToNanoseconds() / 1e9:  # it had a network when it was given
                self.counted.stops.append(time.time() - self._stopped[2])
            if vehicle.stop(frozenset(notice.bundle_ids)):
                # Vehicles say so at once; here they share a processor, so their words come within a few seconds.
                heapq.heappush(self._owed, (time.monotonic() + random.uniform(0.0, _SPREAD_S), at))
        elif self._desired.get(at) != payload and at not in self._asked:
            self._desired[at] = payload
            self._asked.add(at)
            task = asyncio.create_task(self._check_in(at))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _check_in(self, at: int) -> None:
        vehicle, member = self._vehicles[at], self._members[at]
        try:
            for _ in range(_TRIES):
                async with self._turns:
                    if not vehicle.is_linked:
                        return
                    try:
                        vehicle.told(await self._called(vehicle, member))
                        self.counted.check_ins += 1
                        return
                    except (grpc.aio.AioRpcError, ValueError):
                        self.counted.failed += 1
                await asyncio.sleep(1.0)
        finally:
            self._asked.discard(at)
            if not vehicle.is_linked:
                self._desired.pop(at, None)  # it asks when it is back

    async def _called(self, vehicle: Vehicle, member: Member) -> Wish:
        """One real check-in: the vehicle's own certificate, a signed manifest, a fresh nonce."""
        nonce = secrets.token_bytes(16)
        key = serialization.load_pem_private_key(member.key.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        manifest = manifest_of(vehicle.slots, None, nonce, vehicle.name, HARDWARE, "simulated")
        request = updates_pb2.CheckInRequest(
            nonce=nonce, manifest=signed(manifest, key), evidence=[one.message() for one in vehicle.evidence],
            director_root_version=1, image_root_version=1,
        )  # fmt: skip
        credentials = grpc.ssl_channel_credentials(self._ca, member.key.encode(), member.certificate.encode())
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(self._cloud, credentials, options) as channel:
            answer = await UpdatesStub(channel).CheckIn(request, timeout=_CALL_S)
        targets = json.loads(answer.director_targets)["signed"]
        said = targets["roadfuse"]
        if said["vehicle"] != vehicle.name or said["nonce"] != nonce.hex():
            raise ValueError("expected an answer for this vehicle and nonce")
        for target in targets["targets"].values():
            custom = target["custom"]
            return Wish(custom["bundle"], custom["counter"], said["mode"], said["rollout"])
        return Wish()

    def _told(self) -> dict[str, Any]:
        stages: dict[str, int] = {}
        acted: dict[str, int] = {}
        active: dict[str, int] = {}
        driving = 0
        for vehicle in self._vehicles:
            name = updates_pb2.Stage.Name(vehicle.slots.stage)
            stages[name] = stages.get(name, 0) + 1
            active[vehicle.slots.active.bundle] = active.get(vehicle.slots.active.bundle, 0) + 1
            driving += vehicle.state == "driving"
            for bundle in vehicle.acted:
                acted[bundle] = acted.get(bundle, 0) + 1
        used = resource.getrusage(resource.RUSAGE_SELF)
        stops, self.counted.stops = self.counted.stops, []
        return {
            "now_s": self._now_s(), "driving": driving, "linked": sum(line.is_up for line in self._lines.values()),
            "stages": stages, "active": active, "acted": acted, "reports": self.counted.reports,
            "check_ins": self.counted.check_ins, "failed": self.counted.failed, "late": self.counted.late,
            "stops": stops, "cpu_s": used.ru_utime + used.ru_stime,
        }  # fmt: skip


async def _run(plan: dict[str, Any]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await Share(plan).run(stopping)


def main() -> int:
    """The process."""
    end_with(os.getppid())
    asyncio.run(_run(json.loads(Path(sys.argv[1]).read_bytes())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
