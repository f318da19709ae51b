"""A live run does what the slots say, answers, loses no frame over it, and its recording replays bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.loop import LoopConfig
from edge.replay import Replay
from edge.replay_command import main as replay_main
from edge.run import Inbox
from edge.run import main as run_main
from edge.samples import BundleInUse
from edge.scenes import SceneConfig
from edge.updates.disk import RealDisk
from edge.updates.evidence import ALL, Evidence, parsed
from edge.updates.host import Host, Wanted, wanted
from edge.updates.in_use import parse_in_use
from edge.updates.slots import Answer, Held, Slots, folder_of, read_answer, slots_record
from edge.updates.swap import fed as swap_event
from edge.uplink.outbox import Outbox
from edge.verify import recorded_decisions
from roadfuse.v1 import updates_pb2
from roadfuse.v1.ingest_pb2 import SceneSummary
from roadfuse.v1.updates_pb2 import Stage
from tests.edge.updates.variants import Change, not_finite, scaled, variant

PATIENCE_S = 120.0
ACCOUNT = "ab12"
HARD = "[scenes]\nopen_at = 0.05\nclose_below = 0.04\nmax_s = 2\n"


class Vehicle:
    """An updates folder, its agent's side, and a loop's process that runs over a drive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = RealDisk(root / "updates")
        self.disk.make_folder("bundles")
        self._slots, self._numbers = slots_record(self.disk), count()
        self.epoch = 0
        self.bundles: list[Bundle] = []
        self.write()

    def add(self, **changes: Change) -> Held:
        folder = variant(self.root / f"variant-{next(self._numbers)}", **changes)
        bundle = bundles.load(folder)
        folder.rename(self.disk.path(folder_of(bundle.id)))
        self.bundles.append(bundles.load(self.disk.path(folder_of(bundle.id))))
        return Held(bundle.id, len(self.bundles), "rollout")

    def write(self, **values: object) -> None:
        self.epoch += 1
        self._slots.write(Slots(epoch=self.epoch, account=ACCOUNT, **values).to_bytes())  # type: ignore[arg-type]

    def answer(self) -> Answer:
        return read_answer(self.disk) or Answer()

    def until(self, condition: Callable[[Answer], bool]) -> Answer:
        end_s = time.monotonic() + PATIENCE_S
        while not condition(answer := self.answer()):
            assert time.monotonic() < end_s, f"it never came: {answer}"
            time.sleep(0.01)
        return answer

    def evidence(self) -> dict[tuple[str, bool], Evidence]:
        told = parsed(updates_pb2.Evidence.FromString(bytes.fromhex(one)) for one in self.answer().evidence)
        return {(one.bundle, one.is_shadow): one for one in told}

    def run(self, drive: Path, agent: Callable[[], None], *options: str) -> dict[str, object]:
        """A process that runs over the drive while the agent does its part."""
        command = [sys.executable, "-m", "edge.command", "run", str(drive), "--updates", str(self.root / "updates")]
        process = subprocess.Popen(
            [*command, "--out", str(self.recorded), "--json", *options], stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        try:
            agent()
            out, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0
        result: dict[str, object] = json.loads(out)
        return result

    @property
    def recorded(self) -> Path:
        return self.root / "recorded.mcap"

    def verified(self) -> bool:
        folders = [word for one in self.bundles for word in ("--bundle", str(one.path))]
        return replay_main([str(self.recorded), "--verify", *folders, "--json"]) == 0

    def loses_nothing(self, drive: Path) -> None:
        """Every frame of the drive got one decision, in order."""
        with DriveReader(drive) as reader:
            frames = sum(1 for _ in reader.messages(topics=[topics.CAMERA]))
        decisions = list(recorded_decisions(self.recorded))
        assert [d.index for d in decisions] == list(range(len(decisions)))
        assert len(decisions) >= frames
        assert all(b.stamp_ns > a.stamp_ns for a, b in pairwise(decisions))


@pytest.fixture
def vehicle(tmp_path: Path) -> Vehicle:
    return Vehicle(tmp_path)


REFERENCE = Held()
A, B = Held("aa" * 32, 1), Held("bb" * 32, 2)


def test_what_is_wanted_follows_the_stage_and_never_names_what_failed() -> None:
    def want(slots: Slots, *out: str) -> Wanted:
        return wanted(slots, "running", lambda one: one in out)

    shadowing, armed = Slots(staged=B, active=A, stage=Stage.STAGE_SHADOWING), Slots(
        staged=B, active=A, stage=Stage.STAGE_ARMED
    )  # fmt: skip
    probation = Slots(active=B, previous=A, stage=Stage.STAGE_PROBATION)
    assert want(Slots(active=A)) == Wanted(A.bundle, None, None, "active")
    assert want(Slots(staged=B, active=A, stage=Stage.STAGE_SELF_TESTED)) == Wanted(A.bundle, None, None, "active")
    assert want(shadowing) == Wanted(A.bundle, None, B.bundle, "active")
    assert want(shadowing, B.bundle) == Wanted(A.bundle, None, None, "active")
    assert want(armed) == Wanted(B.bundle, A.bundle, None, "armed")
    assert want(armed, B.bundle) == Wanted(A.bundle, None, None, "active")
    assert want(probation) == Wanted(B.bundle, A.bundle, None, "active")
    assert want(probation, B.bundle) == Wanted("running", None, None, "fallen back")
    assert want(probation, A.bundle) == Wanted(B.bundle, None, None, "active")


def test_an_update_is_shadowed_swapped_in_and_stopped_without_losing_a_frame(
    vehicle: Vehicle, simulate_drive: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    drive = simulate_drive(seconds=42, scenario="demo")  # time for two shadows to start on a busy machine
    update = vehicle.add(fuse=scaled("scene_tags", 0.9))
    settings = vehicle.root / "settings.toml"
    settings.write_text(HARD)
    spool = vehicle.root / "spool"

    def agent() -> None:
        vehicle.write(staged=update, stage=Stage.STAGE_SHADOWING)
        vehicle.until(lambda answer: answer.shadow == update.bundle and answer.epoch == vehicle.epoch)
        shadow = child_of_run(vehicle)
        os.kill(shadow, signal.SIGKILL)  # changes nothing for the loop
        vehicle.until(lambda answer: answer.shadow is None)
        vehicle.until(lambda answer: answer.shadow == update.bundle)
        vehicle.until(lambda _: (update.bundle, True) in (told := vehicle.evidence())
                      and told[update.bundle, True].of(ALL).frames > 0)  # fmt: skip
        with Outbox(spool) as outbox:
            vehicle.until(lambda _: any(scene.HasField("shadow") for scene in scenes_of(outbox)))
        vehicle.write(staged=update, stage=Stage.STAGE_ARMED)
        answer = vehicle.until(lambda answer: answer.running == update.bundle)
        assert answer.put_back is None and answer.shadow is None and not answer.trouble
        vehicle.write(active=update, previous=REFERENCE, stage=Stage.STAGE_PROBATION)
        vehicle.until(lambda answer: answer.epoch == vehicle.epoch)
        vehicle.write(stage=Stage.STAGE_REFUSED, why="stopped")
        vehicle.until(lambda answer: answer.running == "" and answer.epoch == vehicle.epoch)

    result = vehicle.run(drive, agent, "--spool", str(spool), "--config", str(settings))
    assert result["inbox_overflow"] == {} and result["recorder_dropped"] == 0
    vehicle.loses_nothing(drive)
    used = [d.bundle_id for d in recorded_decisions(vehicle.recorded)]
    order = [used[0], *(b for a, b in pairwise(used) if a != b)]
    assert order == [bundles.load().id, update.bundle, bundles.load().id]
    with DriveReader(vehicle.recorded) as reader:
        said = [parse_in_use(m.payload) for m in reader.messages(topics=[topics.BUNDLE])]
    assert [one.why for one in said if one is not None][:2] == ["start", "armed"]
    told = vehicle.evidence()
    assert told[update.bundle, False].of(ALL).frames == used.count(update.bundle)
    assert told["", False].of(ALL).frames == len(used) - used.count(update.bundle)
    assert not {"engine_error", "silent", "not_finite"} & set(told[update.bundle, True].of(ALL).counts)
    folders = [word for one in vehicle.bundles for word in ("--bundle", str(one.path))]
    assert replay_main([str(vehicle.recorded), "--verify", "--config", str(settings), *folders]) == 0
    with Outbox(spool) as outbox:
        told_of = [scene for scene in scenes_of(outbox) if scene.HasField("shadow")]
    assert told_of and all(scene.shadow.bundle_id == update.bundle for scene in told_of)


def scenes_of(outbox: Outbox) -> list[SceneSummary]:
    return [SceneSummary.FromString(raw) for (raw,) in outbox.execute("SELECT summary FROM scene").fetchall()]


def child_of_run(vehicle: Vehicle) -> int:
    """The shadow's process: the one child of the run that is niced."""
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"shadow_process" in words[3] and _parents_folder(folder) == str(vehicle.root / "updates"):
                return int(folder.name)
        except (OSError, IndexError, ValueError):
            continue
    raise AssertionError("no shadow runs")


def _parents_folder(folder: Path) -> str:
    parent = next(
        line.split()[1] for line in (folder / "status").read_text().splitlines() if line.startswith("PPid")
    )  # fmt: skip
    words = Path(f"/proc/{parent}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("--updates") + 1] if "--updates" in words else ""


def test_a_broken_update_is_put_back_within_its_first_frame_and_not_taken_again(
    vehicle: Vehicle, simulate_drive: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    drive = simulate_drive(seconds=8, scenario="demo")
    update = vehicle.add(fuse=not_finite("scene_tags"))

    def agent() -> None:
        vehicle.until(lambda answer: answer.epoch == vehicle.epoch and bool(answer.evidence))
        vehicle.write(staged=update, stage=Stage.STAGE_ARMED)
        answer = vehicle.until(lambda answer: answer.put_back is not None)
        assert answer.put_back is not None and answer.put_back.bundle == update.bundle and answer.running == ""
        vehicle.write(active=update, previous=REFERENCE, stage=Stage.STAGE_PROBATION)  # it had not heard yet
        answer = vehicle.until(lambda answer: answer.epoch == vehicle.epoch)
        assert answer.put_back is not None and answer.running == ""
        vehicle.write(stage=Stage.STAGE_REFUSED)
        vehicle.until(lambda answer: answer.epoch == vehicle.epoch and answer.put_back is None)

    vehicle.run(drive, agent)
    vehicle.loses_nothing(drive)
    decisions = list(recorded_decisions(vehicle.recorded))
    assert {d.bundle_id for d in decisions} == {bundles.load().id}
    (back,) = [d for d in decisions if d.put_back is not None]
    assert back.put_back is not None and back.put_back.why == "not_finite: fuse scene_tags"
    assert vehicle.verified()
    counts = vehicle.evidence()[update.bundle, False].of(ALL).counts
    assert counts == {"put_back": 1, "not_finite": 1}


def host_of(vehicle: Vehicle) -> Host:
    return Host(vehicle.disk, LoopConfig(scenes=SceneConfig()), say=lambda line: None)


def test_a_process_that_dies_in_probation_without_living_runs_the_previous_bundle_next(vehicle: Vehicle) -> None:
    update = vehicle.add()
    vehicle.write(active=update, previous=REFERENCE, stage=Stage.STAGE_PROBATION)
    assert host_of(vehicle).open().bundle.id == update.bundle
    assert vehicle.answer().starts == 1  # written before it was opened
    host = host_of(vehicle)  # the first one died
    assert host.open().bundle.id == bundles.load().id
    back = vehicle.answer().put_back
    assert back is not None and back.bundle == update.bundle and "did not survive" in back.why
    assert vehicle.answer().running == ""


def test_a_process_that_ended_by_itself_counts_as_one_that_lived(vehicle: Vehicle) -> None:
    update = vehicle.add()
    vehicle.write(active=update, previous=REFERENCE, stage=Stage.STAGE_PROBATION)
    for _ in range(3):
        host = host_of(vehicle)
        assert host.open().bundle.id == update.bundle
        host.begin(Inbox(), lambda: 1)
        host.close()
        assert vehicle.answer().starts == 0 and vehicle.answer().put_back is None


def test_an_active_bundle_that_is_damaged_on_disk_gives_way_to_the_previous_one(vehicle: Vehicle) -> None:
    update, older = vehicle.add(), vehicle.add(fuse=scaled("scene_tags", 0.9))
    model = vehicle.disk.path(folder_of(update.bundle)) / "fuse.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    vehicle.write(active=update, previous=older, stage=Stage.STAGE_CONFIRMED)
    assert host_of(vehicle).open().bundle.id == older.bundle
    answer = vehicle.answer()
    assert answer.put_back is not None and answer.put_back.bundle == update.bundle


UNREADABLE = Path("/proc/self/mem")  # reading its first byte is an I/O error, to root as well


def wear(vehicle: Vehicle, held: Held, name: str = "fuse.onnx") -> None:
    """A file of a bundle can't be read any more."""
    path = vehicle.disk.path(folder_of(held.bundle)) / name
    path.unlink()
    path.symlink_to(UNREADABLE)
    with pytest.raises(OSError, match="Input/output error"):
        path.read_bytes()


@pytest.mark.parametrize("name", ["fuse.onnx", "manifest.json"])
def test_an_active_bundle_with_a_file_that_can_not_be_read_gives_way_to_the_previous_one(
    vehicle: Vehicle, name: str
) -> None:
    update, older = vehicle.add(), vehicle.add(fuse=scaled("scene_tags", 0.9))
    wear(vehicle, update, name)
    vehicle.write(active=update, previous=older, stage=Stage.STAGE_CONFIRMED)
    assert host_of(vehicle).open().bundle.id == older.bundle
    back = vehicle.answer().put_back
    assert back is not None and back.bundle == update.bundle


def test_a_file_that_can_not_be_read_while_engines_open_is_one_that_is_damaged(
    vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = vehicle.add()
    opened = Host._opened

    def wears(self: Host, name: str) -> object:
        if name == update.bundle:
            raise OSError(5, "Input/output error")
        return opened(self, name)

    monkeypatch.setattr(Host, "_opened", wears)
    vehicle.write(active=update, stage=Stage.STAGE_CONFIRMED)
    assert host_of(vehicle).open().bundle.id == bundles.load().id


def test_without_slots_the_reference_bundle_runs(tmp_path: Path) -> None:
    lines: list[str] = []
    host = Host(RealDisk(tmp_path), LoopConfig(), say=lines.append)
    assert host.open().bundle.id == bundles.load().id
    assert lines == ["no slots can be read"]


@pytest.fixture
def hosted(vehicle: Vehicle) -> Iterator[tuple[Host, Inbox]]:
    """A host whose loop takes nothing: what it puts into the inbox stays there."""
    host, inbox = host_of(vehicle), Inbox()
    host.open()
    host.begin(inbox, lambda: 1)
    yield host, inbox
    host.close()


@pytest.mark.parametrize("is_there", [False, True])
def test_what_does_not_open_is_said_and_the_loop_hears_nothing_of_it(
    vehicle: Vehicle, hosted: tuple[Host, Inbox], is_there: bool
) -> None:
    update = vehicle.add()
    if is_there:
        wear(vehicle, update, "camera.onnx")
    else:
        (vehicle.disk.path(folder_of(update.bundle)) / "camera.onnx").unlink()
    vehicle.write(staged=update, stage=Stage.STAGE_ARMED)
    answer = vehicle.until(lambda answer: bool(answer.trouble))
    assert answer.trouble.startswith("does not open: ") and answer.running == "" and answer.epoch == vehicle.epoch
    vehicle.write(staged=update, stage=Stage.STAGE_SHADOWING)
    vehicle.until(lambda answer: answer.epoch == vehicle.epoch)
    start = hosted[1].get(0.0)
    assert start is not None and start.event.sample == BundleInUse(bundles.load().id, "", "start")
    assert hosted[1].get(0.0) is None


def test_the_epoch_is_answered_before_what_is_armed_is_opened(
    vehicle: Vehicle, hosted: tuple[Host, Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    update = vehicle.add()
    seen: list[Answer] = []
    opened = Host._opened
    done = threading.Event()

    def watch(self: Host, name: str) -> object:
        seen.append(vehicle.answer())
        done.set()
        return opened(self, name)

    monkeypatch.setattr(Host, "_opened", watch)
    vehicle.write(staged=update, stage=Stage.STAGE_ARMED)
    assert done.wait(PATIENCE_S)
    assert (seen[0].epoch, seen[0].running) == (vehicle.epoch, "")


def test_updates_and_a_bundle_exclude_each_other(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as told:
        run_main([str(drive), "--updates", str(tmp_path), "--bundle", str(tmp_path)])
    assert told.value.code == 2


def test_a_full_inbox_never_loses_a_swap() -> None:
    inbox = Inbox(2)
    for number in range(4):
        inbox.put(swap_event(BundleInUse(f"{number}" * 64, "", "armed"), number))
    assert inbox.overflow == {topics.BUNDLE: 2}  # nothing else was there to go
    inbox.put(swap_event(BundleInUse("5" * 64, "", "armed"), 5))
    last = [inbox.get(0.0), inbox.get(0.0)]
    assert [fed.event.sample.bundle_id[0] for fed in last if fed is not None] == ["3", "5"]


def test_a_run_without_updates_records_no_swap(drive: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain.mcap"
    assert run_main([str(drive), "--out", str(out), "--speed", "8", "--json"]) == 0
    with DriveReader(out) as reader:
        assert topics.BUNDLE not in reader.topics
    with Replay(out, mode="happened") as again:
        assert not any(d.put_back for d in again)


class FullDisk(RealDisk):
    """A disk on which nothing can be written any more."""

    is_full = False

    def write(self, name: str, content: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().write(name, content)


def test_a_full_disk_keeps_no_proven_bundle_from_running(vehicle: Vehicle) -> None:
    update = vehicle.add()
    disk = FullDisk(vehicle.root / "updates")
    disk.is_full = True
    vehicle.write(active=update, previous=REFERENCE, stage=Stage.STAGE_CONFIRMED)
    assert Host(disk, LoopConfig(), say=lambda line: None).open().bundle.id == update.bundle
    vehicle.write(active=update, previous=REFERENCE, stage=Stage.STAGE_PROBATION)  # not proven, and not to be counted
    assert Host(disk, LoopConfig(), say=lambda line: None).open().bundle.id == bundles.load().id


def test_nothing_is_armed_before_its_epoch_is_durable_but_a_way_back_waits_for_no_disk(vehicle: Vehicle) -> None:
    update = vehicle.add()
    disk, inbox = FullDisk(vehicle.root / "updates"), Inbox()
    lines: list[str] = []
    host = Host(disk, LoopConfig(), say=lines.append)
    host.open()
    disk.is_full = True
    host.begin(inbox, lambda: 1)
    assert inbox.get(0.0) is not None  # the start
    vehicle.write(staged=update, stage=Stage.STAGE_ARMED)
    until(lambda: len(lines) > 3)
    assert inbox.get(0.0) is None
    disk.is_full = False
    armed = inbox.get(PATIENCE_S)
    assert armed is not None and armed.event.sample == BundleInUse(update.bundle, bundles.load().id, "armed")
    disk.is_full = True
    vehicle.write(stage=Stage.STAGE_REFUSED)
    back = inbox.get(PATIENCE_S)
    assert back is not None and back.event.sample.bundle_id == bundles.load().id
    host.close()


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.01)


def test_damaged_answers_keep_no_run_from_starting(vehicle: Vehicle) -> None:
    update = vehicle.add()
    vehicle.write(active=update, stage=Stage.STAGE_CONFIRMED)
    for copy in "ab":
        vehicle.disk.path(f"answer.{copy}").write_bytes(b"torn")
    assert host_of(vehicle).open().bundle.id == update.bundle
    assert vehicle.answer().running == update.bundle
