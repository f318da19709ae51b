"""A cloud, a loop and a clock around the real agent, in memory: bundles are a manifest and a few files of bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge.errors import UpdateError
from edge.updates.agent import Agent
from edge.updates.assignment import Assignment, Cloud, Release, TargetFile
from edge.updates.boot import answered, choose
from edge.updates.disk import Disk
from edge.updates.evidence import ALL, Evidence, parsed
from edge.updates.rules import Limits
from edge.updates.slots import PARTS, Answer, Held, PutBack, Slots, answer_record, folder_of, read_answer, read_slots
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2 import Mode, Stage

LIMITS = Limits(shadow_s=20, shadow_frames=100, probation_s=30)
HZ = 10
LIFE_S = 20.0


@dataclass(frozen=True)
class Made:
    """A bundle of a release."""

    release: Release
    files: Mapping[str, bytes]

    @property
    def id(self) -> str:
        return self.release.bundle


def made(counter: int, *engines: bytes, fault: str = "", files: int = 2) -> Made:
    """A bundle whose manifest names its files; `fault`: where it goes wrong (build, test, shadow, swap, probation)."""
    contents = {f"{number}.onnx": engine for number, engine in enumerate(engines or _engines(counter, files))}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = json.dumps({"files": digests, "fault": fault}, sort_keys=True).encode()
    contents = {"manifest.json": manifest, **contents}
    signed = tuple(TargetFile(name, len(c), hashlib.sha256(c).digest()) for name, c in contents.items())
    bundle = hashlib.sha256(manifest).hexdigest()
    return Made(Release(f"city/{counter}/manifest.json", bundle, counter, ("x86",), signed), contents)


def _engines(counter: int, files: int) -> tuple[bytes, ...]:
    return tuple(f"engine {number} of {counter} ".encode() * 3 for number in range(files))


def is_whole(disk: Disk, bundle: str) -> bool:
    """By digest, as edge.bundle.load does."""
    folder = folder_of(bundle)
    manifest = _read(disk, f"{folder}/manifest.json")
    if manifest is None or hashlib.sha256(manifest).hexdigest() != bundle:
        return False
    return all(
        hashlib.sha256(_read(disk, f"{folder}/{name}") or b"").hexdigest() == digest
        for name, digest in json.loads(manifest)["files"].items()
    )


def _read(disk: Disk, name: str) -> bytes | None:
    try:
        return disk.read(name)
    except FileNotFoundError:
        return None


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.s = 1000.0

    def monotonic_s(self) -> float:
        return self.s

    def utc_ns(self) -> int:
        return int(self.s * 1e9)


@dataclass
class SimulatedCloud:
    """Answers check-ins with an assignment, and has the files of its releases."""

    assignment: Assignment = field(
        default_factory=lambda: Assignment(None, Mode.MODE_UNSPECIFIED, "", 0, frozenset(), 0, 30.0)
    )
    files: dict[bytes, bytes] = field(default_factory=dict)
    requests: list[updates_pb2.CheckInRequest] = field(default_factory=list)
    is_down: bool = False

    def assign(self, bundle: Made | None, mode: int = Mode.MODE_ACTIVATE, rollout: str = "r") -> None:
        if bundle is not None:
            self.files |= {hashlib.sha256(content).digest(): content for content in bundle.files.values()}
        release = None if bundle is None else bundle.release
        self.assignment = replace(self.assignment, release=release, mode=mode, rollout=rollout)

    def stop(self, *bundles: Made) -> None:
        self.assignment = replace(
            self.assignment,
            stop_number=self.assignment.stop_number + 1,
            stopped=frozenset(bundle.id for bundle in bundles),
        )

    def check_in(self, request: updates_pb2.CheckInRequest) -> updates_pb2.CheckInResponse:
        if self.is_down:
            raise ConnectionError("no way to the cloud")
        self.requests.append(request)
        return updates_pb2.CheckInResponse(next_contact_s=self.assignment.next_contact_s)

    def image_metadata(self, role: str, version: int) -> bytes:
        raise FileNotFoundError(role)

    def delta(self, have: list[bytes], want: bytes) -> updates_pb2.DeltaResponse:
        return updates_pb2.DeltaResponse()

    def fetch(self, sha256: bytes, offset: int) -> Iterator[bytes]:
        content = self.files[sha256]
        for start in range(offset, len(content), 32):
            if self.is_down:
                raise ConnectionError("no way to the cloud")
            yield content[start : start + 32]

    def trust(self, disk: Disk) -> Believing:
        """Of a vehicle."""
        return Believing(self)

    def fetcher(self, disk: Disk, clock: Clock) -> PlainFetcher:
        """Of a vehicle."""
        return PlainFetcher(disk, self)


class Believing:
    """Trusts a cloud of this process; TUF has its own tests."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud, self._nonces = cloud, 0

    def nonce(self) -> bytes:
        self._nonces += 1
        return self._nonces.to_bytes(16, "big")

    def verified(self, response: updates_pb2.CheckInResponse, cloud: Cloud, nonce: bytes, floor: int) -> Assignment:
        return self._cloud.assignment


class PlainFetcher:
    """Whole files, resumed."""

    def __init__(self, disk: Disk, cloud: SimulatedCloud) -> None:
        self._disk, self._cloud = disk, cloud

    def fetch(self, file: TargetFile, have: Mapping[bytes, str]) -> str:
        name = f"{PARTS}/{file.sha256.hex()}"
        offset = min(self._disk.size(name) or 0, file.length) // 32 * 32
        for chunk in self._cloud.fetch(file.sha256, offset):
            self._disk.append(name, offset, chunk)
            offset += len(chunk)
        self._disk.sync(name)
        if self._disk.digest(name) != file.sha256:  # the beginning of another file, or zeros
            self._disk.remove(name)
            self._disk.append(name, 0, b"".join(self._cloud.fetch(file.sha256, 0)))
            self._disk.sync(name)
        return name


class ManifestTester:
    """Refuses what the bundle's own manifest says is wrong with it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def is_whole(self, bundle: str) -> bool:
        return is_whole(self._disk, bundle)

    def build(self, bundle: str) -> None:
        self._refuse(bundle, "build")

    def test(self, bundle: str, active: str) -> None:
        self._refuse(bundle, "test")

    def _refuse(self, bundle: str, where: str) -> None:
        if fault_of(self._disk, bundle) == where:
            raise UpdateError(f"expected a bundle without a fault, got one in {where}")


def fault_of(disk: Disk, bundle: str) -> str:
    """Where a bundle goes wrong."""
    return str(json.loads(disk.read(f"{folder_of(bundle)}/manifest.json")).get("fault", "")) if bundle else ""


class SimulatedLoop:
    """A loop's process: from its start on it does what the slots say, and answers. A new one is a new start."""

    def __init__(self, disk: Disk, is_whole: Callable[[Disk, str], bool] = is_whole) -> None:
        self._disk, self._is_whole = disk, is_whole
        self._record = answer_record(disk)
        slots, last = read_slots(disk), read_answer(disk)
        with contextlib.suppress(UpdateError):
            self._record.read()
        choice = choose(slots, last, lambda bundle: is_whole(disk, bundle))
        self._answer = answered(choice, slots, last, 0)
        self._evidence = [] if last is None else _evidence(last)
        self._write()
        self.acted: set[str] = {choice.bundle}
        self._lived_s = 0.0
        self._is_open = False

    @property
    def running(self) -> str:
        return self._answer.running

    def look(self, seconds: float) -> None:
        """So much time with frames, at the slots as they are now."""
        slots = read_slots(self._disk)
        if slots is None:
            return
        before = self._answer
        if slots.epoch != before.epoch:
            self._follow(slots)
        back = self._answer.put_back
        staged = slots.staged.bundle if slots.staged is not None else None
        if back is None or back.bundle not in (slots.active.bundle, staged):
            self._live(slots, staged, seconds)
        if self._answer != before:
            self._write()

    def _follow(self, slots: Slots) -> None:
        self._is_open = False
        back = self._answer.put_back
        kept = back if back is not None and back.bundle == slots.active.bundle else None
        running = self._answer.running if kept is not None else slots.active.bundle
        if running and not self._is_whole(self._disk, running):
            kept, running = PutBack(running, "is not whole or does not load", 0), _previous(slots).bundle
        self._answer = replace(
            self._answer, epoch=slots.epoch, running=running, shadow=None, put_back=kept, trouble="", starts=0
        )

    def _live(self, slots: Slots, staged: str | None, seconds: float) -> None:
        if slots.stage == Stage.STAGE_SHADOWING and staged is not None:
            self._answer = replace(self._answer, shadow=staged)
            self._count(slots, staged, seconds, is_shadow=True)
        elif slots.stage == Stage.STAGE_ARMED and staged is not None:
            if fault_of(self._disk, staged) == "swap":
                back = PutBack(staged, "engine error", 1)
                self._answer = replace(self._answer, put_back=back)
            elif self._is_open:
                self._answer = replace(self._answer, running=staged)
            self._is_open = True  # beside the active one; it takes over at the next look
        elif self._answer.running == slots.active.bundle:
            self._count(slots, slots.active.bundle, seconds, is_shadow=False)
            if slots.stage == Stage.STAGE_PROBATION and fault_of(self._disk, slots.active.bundle) == "probation":
                back = PutBack(slots.active.bundle, "engine error", 2)
                self._answer = replace(self._answer, running=_previous(slots).bundle, put_back=back)
        self.acted.add(self._answer.running)
        self._lived_s += seconds
        if self._lived_s >= LIFE_S and self._answer.starts:
            self._answer = replace(self._answer, starts=0)

    def _count(self, slots: Slots, bundle: str, seconds: float, *, is_shadow: bool) -> None:
        account = bytes.fromhex(slots.account)
        key = (bundle, is_shadow, account)
        one = next((e for e in self._evidence if (e.bundle, e.is_shadow, e.account) == key), None)
        if one is None:
            one = Evidence(*key)
            self._evidence = [*self._evidence, one][-4:]
        one.of(ALL).seconds += seconds
        one.of(ALL).frames += int(seconds * HZ)
        if is_shadow and fault_of(self._disk, bundle) == "shadow":
            one.of(ALL).add("not_finite")
        told = tuple(e.message().SerializeToString(deterministic=True).hex() for e in self._evidence)
        self._answer = replace(self._answer, evidence=told)

    def _write(self) -> None:
        self._record.write(self._answer.to_bytes())


def _previous(slots: Slots) -> Held:
    return slots.previous or Held()


def _evidence(answer: Answer) -> list[Evidence]:
    return parsed(updates_pb2.Evidence.FromString(bytes.fromhex(one)) for one in answer.evidence)


class Vehicle:
    """An agent and a loop on one disk; both begin anew with each Vehicle, as after a power cut."""

    loop: SimulatedLoop
    agent: Agent

    def __init__(self, disk: Disk, cloud: Any, limits: Limits = LIMITS) -> None:
        self.disk, self.cloud, self.clock = disk, cloud, Clock()
        self.loop = SimulatedLoop(disk)
        self.trust, self.tester = cloud.trust(disk), ManifestTester(disk)
        self.agent = Agent(
            disk, self.trust, cloud, cloud.fetcher(disk, self.clock), self.tester, self.clock, self._request, limits
        )

    def step(self) -> None:
        """One step of the agent, then some of the loop's life."""
        wait_s = self.agent.step()
        self.loop.look(10.0)
        self.clock.s += max(wait_s, 0.1) if wait_s else 0.0

    def settle(self, steps: int = 60) -> Slots:
        """Until nothing changes any more but by the cloud."""
        quiet = 0
        for _ in range(steps):
            before = self.agent.slots
            if self.agent.is_at_rest() and self.agent.slots.stage not in (Stage.STAGE_SHADOWING, Stage.STAGE_ARMED):
                self.agent.hint()
            self.step()
            moved = self.agent.slots is not before or not self.agent.is_at_rest()
            quiet = 0 if moved else quiet + 1
            if quiet > 6:
                break
        return self.agent.slots

    def _request(self, slots: Slots, nonce: bytes, answer: Answer | None) -> updates_pb2.CheckInRequest:
        director, image = getattr(self.trust, "root_versions", (0, 0))
        return updates_pb2.CheckInRequest(nonce=nonce, director_root_version=director, image_root_version=image)
