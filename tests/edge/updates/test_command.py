"""`roadfuse update`: the real agent against a served cloud, what it says, and the operator's words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edge.command import main
from edge.engine import PROVIDERS as ENGINES
from edge.golden import NATIVE
from edge.updates.command import _PROVIDERS as PROVIDERS
from edge.updates.disk import RealDisk
from edge.updates.owner import Owner
from edge.updates.slots import Answer, Held, Refusal, Slots, answer_record, read_slots, slots_record
from roadfuse.v1.updates_pb2 import Stage, VehicleManifest

pytest.importorskip("tuf")

from .served import LoopThread, Served, small_bundle
from .simulated import Made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "1", 1)


def slots_in(folder: Path, slots: Slots) -> None:
    slots_record(RealDisk(folder)).write(slots.to_bytes())


def test_once_checks_in_and_does_what_can_be_done_now(served: Served, small: Made) -> None:
    served.forget()
    done = served.run("--once")
    assert done.returncode == 0, done.stderr
    assert "runs     the reference bundle" in done.stdout
    served.cloud.assign(small)
    done = served.run("--once")
    assert done.returncode == 0, done.stderr
    slots = read_slots(RealDisk(served.updates))
    assert slots is not None
    assert (slots.stage, slots.staged) == (Stage.STAGE_SHADOWING, Held(small.id, 1, "first"))
    assert "stage    shadowing" in done.stdout


def test_it_runs_to_confirmed_beside_a_loop_and_an_operator_gets_the_old_one_back(served: Served, small: Made) -> None:
    served.forget()
    served.cloud.assign(small)
    agent = subprocess.Popen(served.words(), stderr=subprocess.PIPE, text=True)
    loop = LoopThread(served.updates)
    disk = RealDisk(served.updates)
    try:
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            slots = read_slots(disk)
            if slots is not None and slots.active.bundle == small.id and slots.stage in (9, 1):
                break
            time.sleep(0.05)
        assert slots is not None and slots.active.bundle == small.id
        assert loop.loop.running == small.id
        other = served.run("--once")
        assert other.returncode == 2 or "expected no other agent" in other.stderr
        assert main(["update", "back", "--updates", str(served.updates)]) == 0
        slots = read_slots(disk)
        assert slots is not None
        assert (slots.active, slots.refused[-1].bundle) == (Held(), small.id)
        assert main(["update", "pardon", "--updates", str(served.updates), small.id[:12]]) == 0
        slots = read_slots(disk)
        assert slots is not None and not slots.refused  # and the cloud still assigns it
    finally:
        loop.close()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
        assert agent.stderr is not None
        said = agent.stderr.read()
    # A signal may cut a call of gRPC off half-made; what Python says of its end is no error of ours.
    assert said.count("Traceback") == said.count("Exception ignored in")
    assert "why=\n" not in said
    assert not loop.wrong


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real one, where this user may mount it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("no right to mount a disk here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def until(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_on_a_full_disk_status_and_cloud_are_told_and_when_there_is_room_again_it_goes_on(
    served: Served, small: Made, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    updates = small_disk / "updates"

    def status(*more: str) -> str:
        capsys.readouterr()
        assert main(["update", "status", "--updates", str(updates), *more]) == 0
        return capsys.readouterr().out

    def told() -> str:
        return VehicleManifest.FromString(served.cloud.requests[-1].manifest.manifest).why

    served.cloud.assign(None)
    assert served.run("--once", "--updates", str(updates)).returncode == 0
    served.cloud.assign(small)
    ballast = fill(small_disk)
    agent = subprocess.Popen(served.words("--updates", str(updates)), stderr=subprocess.PIPE, text=True)
    full = "trust: can't be written, so nothing is taken: No space left on device"
    try:
        until(lambda: f"trouble  check-in: {full}" in status())
        assert json.loads(status("--json"))["trouble"] == f"check-in: {full}"
        until(lambda: told() == f"trouble: check-in: {full}")
        ballast.unlink()
        until(lambda: "stage    shadowing" in status())
        assert "trouble" not in status()
    finally:
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
        assert agent.stderr is not None
        said = agent.stderr.read().splitlines()
    assert [line for line in said if "trouble" in line] == [
        f"roadfuse update: update_trouble check-in: {full}", f"roadfuse update: update_trouble_over check-in: {full}",
    ]  # fmt: skip


def test_back_without_an_agent_writes_the_slots_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slots_in(tmp_path, Slots(epoch=3, active=Held("b" * 64, 2), previous=Held("a" * 64, 1), stage=Stage.STAGE_IDLE))
    assert main(["update", "back", "--updates", str(tmp_path)]) == 0
    assert "aaaaaaaaaaaa runs at the loop's next frame" in capsys.readouterr().out
    slots = read_slots(RealDisk(tmp_path))
    assert slots is not None
    assert (slots.active.bundle, slots.previous, slots.epoch) == ("a" * 64, None, 4)
    assert main(["update", "back", "--updates", str(tmp_path)]) == 0
    assert main(["update", "back", "--updates", str(tmp_path)]) == 2
    assert "the reference bundle alone" in capsys.readouterr().err


def refused(*bundles: str, **values: object) -> Slots:
    refusals = tuple(Refusal(bundle, 2, "self-test: too slow") for bundle in bundles)
    return Slots(epoch=3, refused=refusals, stage=Stage.STAGE_REFUSED, why="w", **values)  # type: ignore[arg-type]


def test_pardon_without_an_agent_writes_the_slots_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slots_in(tmp_path, refused("ab" * 32, "cd" * 32))
    assert main(["update", "pardon", "--updates", str(tmp_path), "cdcdcd"]) == 0
    assert capsys.readouterr().out == "cdcdcdcdcdcd is pardoned: it is taken again when the cloud assigns it\n"
    slots = read_slots(RealDisk(tmp_path))
    assert slots is not None
    assert [one.bundle for one in slots.refused] == ["ab" * 32]
    assert (slots.stage, slots.why, slots.epoch) == (Stage.STAGE_IDLE, "cdcdcdcdcdcd was pardoned by an operator", 4)


@pytest.mark.parametrize(
    ("bundle", "says"),
    [
        ("cdcdcd", "expected one refused bundle cdcdcd..., got none"),
        ("ababab", "expected one refused bundle ababab..., got 2"),
        ("ef" * 32, "efefefefefef: expected no stop of it, got one that stands"),
    ],
)
def test_a_pardon_names_one_refused_bundle_that_is_not_stopped(
    tmp_path: Path, bundle: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slots_in(tmp_path, refused("ab" * 32, "ab" * 31 + "ac", "ef" * 32, stopped=("ef" * 32,)))
    assert main(["update", "pardon", "--updates", str(tmp_path), bundle]) == 2
    assert says in capsys.readouterr().err
    slots = read_slots(RealDisk(tmp_path))
    assert slots is not None and len(slots.refused) == 3


def test_a_pardon_asks_for_at_least_6_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for short in ("abcde", "ABCDEF", "g" * 6, ""):
        with pytest.raises(SystemExit) as ended:
            main(["update", "pardon", "--updates", str(tmp_path), short])
        assert ended.value.code == 2
        assert "expected 6 to 64 hexadecimal digits" in capsys.readouterr().err


def test_status_says_what_runs_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slots = Slots(epoch=3, active=Held("b" * 64, 2, "r-1"), previous=Held(), stage=Stage.STAGE_PROBATION, why="because")
    slots_in(tmp_path, slots)
    answer_record(RealDisk(tmp_path)).write(Answer(epoch=3, running="b" * 64).to_bytes())
    assert main(["update", "status", "--updates", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for line in (
        "runs     bbbbbbbbbbbb",
        "stage    probation",
        "active   bbbbbbbbbbbb release 2 of r-1",
        "why      beca",
    ):
        assert line in said
    assert main(["update", "status", "--updates", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["running"], told["stage"], told["epoch"]) == ("b" * 64, "probation", 3)
    assert told["trouble"] == ""
    assert told["previous"] == {"bundle": "", "counter": 0, "rollout": ""}


def test_trust_keeps_roots_that_are_roots(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = served.cloud.director.roots[0]
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_bytes(root)
    bad.write_bytes(root.replace(b'"version":1', b'"version":2').replace(b'"version": 1', b'"version": 2'))
    identity = tmp_path / "identity"
    identity.mkdir()
    words = ["update", "trust", "--identity", str(identity), "--director-root", str(good), "--image-root"]
    assert main([*words, str(good)]) == 0
    assert (identity / "image-root.json").read_bytes() == root
    assert "version 1" in capsys.readouterr().out
    for wrong in (bad.read_bytes(), b"{}", b"\xff", b"[" * 5000):
        bad.write_bytes(wrong)
        assert main([*words, str(bad)]) == 2
        said = capsys.readouterr().err
        assert "bad.json: expected" in said and len(said.splitlines()) == 1
    assert (identity / "image-root.json").read_bytes() == root


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status", "--updates", "/nonexistent/updates"], "expected a folder of updates, got none"),
        (["run", "--updates", "{tmp}", "--identity", "/nonexistent", "--cloud", "localhost:1"], "certificate.pem"),
    ],
)
def test_misuse_is_one_line_and_2(
    tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert main(["update", *[word.format(tmp=tmp_path) for word in words]]) == 2
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--provider", "CPU", "invalid choice: 'CPU'"),
        ("--provider", "cpuu", "invalid choice: 'cpuu'"),
        ("--tries", "0", "expected a whole number of at least 1, got '0'"),
        ("--tries", "-3", "expected a whole number of at least 1, got '-3'"),
        ("--tries", "1.5", "expected a whole number of at least 1, got '1.5'"),
        ("--shadow-frames", "0", "expected a whole number of at least 1, got '0'"),
        ("--shadow-frames", "-3", "expected a whole number of at least 1, got '-3'"),
    ],
)
def test_an_option_that_would_refuse_every_release_is_misuse(
    tmp_path: Path, option: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--updates", str(tmp_path), "--identity", str(tmp_path), "--cloud", "localhost:1"]
    with pytest.raises(SystemExit) as ended:
        main(["update", *words, f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: {says}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_agent_takes_the_providers_that_engines_have() -> None:
    assert set(PROVIDERS) == {*ENGINES, NATIVE}


def test_two_agents_never_have_one_folder(tmp_path: Path) -> None:
    from edge.errors import UpdateError

    with Owner(tmp_path), pytest.raises(UpdateError, match="expected no other agent"), Owner(tmp_path):
        raise AssertionError
    with Owner(tmp_path):
        pass
