"""The outbox: each scene has a number and an end, whatever is killed, full or missing."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.command import main as roadfuse
from edge.errors import OutboxError
from edge.uplink import outbox as outboxes
from edge.uplink import schema
from edge.uplink.outbox import NAME, Outbox, Quota, digest
from roadfuse.v1.ingest_pb2 import MEDIA_STATE_EVICTED, MEDIA_STATE_HELD, MEDIA_STATE_LOST, SceneSummary

SUMMARY = SceneSummary(first_ns=1, last_ns=2, peak_ns=2, hardness=0.5)
ROOMY = Quota(1 << 40, 0)


def held(outbox: Outbox, content: bytes = b"clip", worth: float = 1.0) -> int:
    """A scene whose clip is on board."""
    sequence, _ = outbox.give(SUMMARY, worth)
    outbox.path(sequence).write_bytes(content)
    outbox.hold(sequence, hashlib.sha256(content).digest(), len(content))
    return sequence


def tell_all(outbox: Outbox) -> list[int]:
    scenes, evictions = outbox.to_tell(1000)
    outbox.told([*scenes, *evictions], [])
    return [one.sequence for one in (*scenes, *evictions)]


def test_numbers_begin_at_one_and_never_come_again(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        first = [held(outbox) for _ in range(3)]
        tell_all(outbox)
        for sequence in first:
            outbox.deliver(sequence)
    with Outbox(tmp_path, ROOMY) as again:
        again.recover()
        assert first == [1, 2, 3] and held(again) == 4


def test_two_outboxes_have_different_names_and_one_keeps_its_own(tmp_path: Path) -> None:
    names = []
    for folder in ("a", "a", "b"):
        with Outbox(tmp_path / folder) as outbox:
            names.append(outbox.id)
    assert names[0] == names[1] != names[2] and len(names[0]) == 16


def test_a_scene_is_told_of_once_and_again_when_its_clip_goes(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        sequence = held(outbox)
        scenes, evictions = outbox.to_tell(10)
        assert [scene.media for scene in scenes] == [MEDIA_STATE_HELD] and not evictions
        assert scenes[0].sha256 == hashlib.sha256(b"clip").digest() and scenes[0].bytes == 4
        assert outbox.to_tell(10)[0], "nothing is told before it is committed"
        outbox.told(scenes, [])
        assert outbox.to_tell(10) == ([], [])
        outbox.quota = Quota(0, 0)
        assert outbox.make_room() == [sequence]
        scenes, evictions = outbox.to_tell(10)
        assert not scenes and [(e.sequence, e.media, e.reason) for e in evictions] == [
            (sequence, MEDIA_STATE_EVICTED, "quota")
        ]


def test_what_changed_while_it_was_told_is_told_again(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        held(outbox)
        scenes, _ = outbox.to_tell(10)
        outbox.quota = Quota(0, 0)
        outbox.make_room()  # the other process, in between
        outbox.told(scenes, [])
        assert [eviction.sequence for eviction in outbox.to_tell(10)[1]] == [1]


def test_a_refused_scene_is_told_of_though_no_clip_is_kept(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        sequence, _ = outbox.give(SUMMARY, 1.0)
        outbox.refuse(sequence, "near-duplicate")
        (scene,), _ = outbox.to_tell(10)
        assert (scene.media, scene.reason, scene.hardness) == (MEDIA_STATE_EVICTED, "near-duplicate", 0.5)
        assert outbox.next_up() is None


def test_only_clips_that_were_told_of_go_up_the_wanted_first_then_by_worth_a_byte(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        large, small = held(outbox, b"x" * 100, 1.0), held(outbox, b"x" * 10, 1.0)
        good, asked = held(outbox, b"x" * 10, 3.0), held(outbox, b"x", 0.0)
        assert outbox.next_up() is None
        scenes, _ = outbox.to_tell(10)
        outbox.told(scenes, [asked])
        order = []
        while (clip := outbox.next_up()) is not None:
            order.append(clip.sequence)
            outbox.deliver(clip.sequence)
        assert order == [asked, good, small, large]


def test_the_quota_takes_the_least_worthy_first_and_the_wanted_last(tmp_path: Path) -> None:
    with Outbox(tmp_path, Quota(30, 0)) as outbox:
        sequences = [held(outbox, b"x" * 10, worth) for worth in (2.0, 1.0, 3.0)]
        outbox.told([], [sequences[1]])
        assert outbox.make_room(10) == [sequences[0]]
        assert not outbox.path(sequences[0]).exists() and outbox.path(sequences[1]).exists()
        assert outbox.account().held_bytes == 20


def test_a_full_disk_evicts_until_the_free_bytes_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 100

    class Stat:
        f_frsize = 1

        @property
        def f_bavail(self) -> int:
            return free + sum(10 for n in (1, 2, 3) if not outbox.path(n).exists())

    with Outbox(tmp_path, Quota(1 << 40, 115)) as outbox:
        for _ in range(3):
            held(outbox, b"x" * 10)
        monkeypatch.setattr(outboxes.os, "statvfs", lambda _: Stat())
        assert outbox.make_room() == [1, 2]
        monkeypatch.undo()
        assert [e.reason for e in outbox.to_tell(9)[0] if e.media == MEDIA_STATE_EVICTED] == ["disk full"] * 2


def test_clips_older_than_they_may_be_go_and_are_told_of_and_those_from_the_future_stay(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        old, young, future, gone = (held(outbox) for _ in range(4))
        for sequence, day in ((old, 1), (young, 3), (future, 900)):
            os.utime(outbox.path(sequence), ns=(0, day * 86_400 * 10**9))
        outbox.path(gone).unlink()
        assert outbox.expire(2 * 86_400 * 10**9) == [old]
        assert [outbox.path(n).exists() for n in (old, young, future)] == [False, True, True]
        assert {s.sequence: s.reason for s in outbox.to_tell(9)[0]} == {
            old: "retention",
            young: "",
            future: "",
            gone: "",
        }
        assert outbox.expire(2 * 86_400 * 10**9) == []


def test_about_one_scene_of_a_hundred_is_drawn_and_a_replay_draws_the_same() -> None:
    scenes = [SceneSummary(first_ns=n, peak_ns=n + 5, last_ns=n + 9) for n in range(0, 10**9, 50_000)]
    drawn = [scene.first_ns for scene in scenes if outboxes._is_drawn(scene)]
    assert 140 <= len(drawn) <= 260
    assert drawn == [scene.first_ns for scene in scenes if outboxes._is_drawn(scene)]


def test_a_drawn_scene_goes_up_before_those_of_more_worth(tmp_path: Path) -> None:
    drawn = next(s for n in range(10_000) if outboxes._is_drawn(s := SceneSummary(first_ns=n)))
    with Outbox(tmp_path, ROOMY) as outbox:
        worthy = held(outbox, worth=9.0)
        lucky, lane = outbox.give(drawn, 0.0)
        outbox.path(lucky).write_bytes(b"clip")
        outbox.hold(lucky, hashlib.sha256(b"clip").digest(), 4)
        tell_all(outbox)
        up = outbox.next_up()
        assert lane == 0.01 and up is not None and up.sequence == lucky != worthy


def test_recovery_finds_every_state_between_a_clips_steps(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        unwritten, _ = outbox.give(SUMMARY, 1.0)
        half, _ = outbox.give(SUMMARY, 1.0)
        outbox.path(half).with_suffix(".part").write_bytes(b"half")
        renamed, _ = outbox.give(SUMMARY, 1.0)
        outbox.path(renamed).write_bytes(b"whole")
        missing = held(outbox)
        outbox.path(missing).unlink()
        gone = held(outbox)
        outbox._change(gone, ("held",), "evicted", "quota")  # and killed before the file went
        up = held(outbox)
        outbox._change(up, ("held",), "delivered", "")
    with Outbox(tmp_path, ROOMY) as again:
        again.recover()
        scenes = {scene.sequence: (scene.media, scene.reason) for scene in again.to_tell(99)[0]}
        assert scenes == {
            unwritten: (MEDIA_STATE_LOST, "killed while it was written"),
            half: (MEDIA_STATE_LOST, "killed while it was written"),
            renamed: (MEDIA_STATE_HELD, ""),
            missing: (MEDIA_STATE_LOST, "file is missing"),
            gone: (MEDIA_STATE_EVICTED, "quota"),
        }
        assert sorted(path.name for path in tmp_path.glob("scene-*")) == [again.path(renamed).name]
        assert again.account()[:6] == (6, 0, 1, 1, 1, 3)


def test_an_empty_clip_is_none(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        held(outbox, b"")
        assert outbox.account().lost == 1 and not list(tmp_path.glob("scene-*"))


def test_clips_without_an_outbox_are_taken_in_and_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scene-000007.mcap").write_bytes(b"old")
    (tmp_path / "scene-strange.mcap").write_bytes(b"not ours")
    with Outbox(tmp_path, ROOMY) as outbox:
        outbox.recover()
        assert [(s.sequence, s.bytes) for s in outbox.to_tell(9)[0]] == [(7, 3)]
        assert held(outbox) == 8
    assert (tmp_path / "scene-strange.mcap").exists()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 200])
def test_another_programs_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    if not content:  # an empty file is an outbox that was never begun
        Outbox(tmp_path).close()
        return
    with pytest.raises(OutboxError) as raised:
        Outbox(tmp_path)
    assert "\n" not in str(raised.value) and "expected an outbox" in str(raised.value)


def test_an_outbox_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="version"):
        Outbox(tmp_path)


def test_deliveries_and_writing_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    deliverer = """
import sys, time
from pathlib import Path
from edge.uplink.outbox import Outbox
with Outbox(Path(sys.argv[1])) as outbox:
    done = 0
    while done < int(sys.argv[2]):
        scenes, evictions = outbox.to_tell(5)
        outbox.told([*scenes, *evictions], [])
        while (clip := outbox.next_up()) is not None:
            outbox.deliver(clip.sequence)
            done += 1
        time.sleep(0.002)
"""
    with Outbox(tmp_path, ROOMY) as outbox:
        child = subprocess.Popen([sys.executable, "-c", deliverer, str(tmp_path), "40"])
        for _ in range(40):
            held(outbox)
        assert child.wait(timeout=60) == 0
        assert outbox.account()[:6] == (40, 0, 0, 40, 0, 0)


WRITER = """
import hashlib, sys
from pathlib import Path
from edge.uplink.outbox import Outbox, Quota
from roadfuse.v1.ingest_pb2 import SceneSummary
with Outbox(Path(sys.argv[1]), Quota(400, 0)) as outbox:
    outbox.recover()
    print("ready", flush=True)
    while True:
        sequence, _ = outbox.give(SceneSummary(hardness=0.5), 1.0)
        content = b"%08d" % sequence * 5
        outbox.make_room(len(content))
        part = outbox.path(sequence).with_suffix(".part")
        part.write_bytes(content)
        part.replace(outbox.path(sequence))
        outbox.hold(sequence, hashlib.sha256(content).digest(), len(content))
        print(sequence, flush=True)
"""


def test_a_kill_at_any_instant_leaves_every_number_with_an_end(tmp_path: Path) -> None:
    rng = random.Random(11)
    highest = 0
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.08)
        child.send_signal(signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().split() if line.isdecimal()]
        child.wait()
        highest = max([highest, *said])
        with Outbox(tmp_path, Quota(400, 0)) as outbox:
            outbox.recover()
            account = outbox.account()
            assert account.given >= highest and account.writing == 0
            assert account.held + account.evicted + account.lost == account.given, "every number has an end"
            on_board = {path.name for path in tmp_path.glob("scene-*.mcap")}
            rows = outbox._db.execute("SELECT sequence, sha256 FROM scene WHERE state = 'held'").fetchall()
            assert {outbox.path(sequence).name for sequence, _ in rows} == on_board
            assert all(digest(outbox.path(sequence))[0] == sha256 for sequence, sha256 in rows)
            highest = account.given
    assert highest > 12


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.sampled_from(["give", "hold", "refuse", "lose", "room", "tell", "deliver", "recover"]), max_size=40
    ),
    data=st.data(),
)
def test_whatever_happens_the_account_adds_up(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], data: st.DataObject
) -> None:
    with Outbox(tmp_path_factory.mktemp("outbox"), Quota(25, 0)) as outbox:
        given_: list[int] = []
        for step in steps:
            if step == "give":
                given_.append(outbox.give(SUMMARY, data.draw(st.floats(0, 5)))[0])
            elif step == "room":
                outbox.make_room(data.draw(st.integers(0, 20)))
            elif step == "tell":
                tell_all(outbox)
            elif step == "recover":
                outbox.recover()
            elif given_:
                sequence = data.draw(st.sampled_from(given_))
                if step == "hold":
                    outbox.path(sequence).write_bytes(b"x" * 10)
                    outbox.hold(sequence, bytes(32), 10)
                elif step == "refuse":
                    outbox.refuse(sequence, "budget")
                elif step == "lose":
                    outbox.lose(sequence, "damaged")
                else:
                    outbox.deliver(sequence)
            account = outbox.account()
            assert account.given == len(given_)
            assert sum(account[1:6]) == account.given
            assert account.held_bytes == 10 * account.held


def made_anew(outbox: Outbox, sequence: int, content: bytes) -> bool:
    outbox.anew(sequence).write_bytes(content)
    return outbox.replace(sequence, hashlib.sha256(content).digest(), len(content))


def test_a_clip_made_anew_is_told_of_again_with_the_digests_that_it_had(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        sequence = held(outbox, b"faces")
        (early,), _ = outbox.to_tell(10)
        tell_all(outbox)
        assert made_anew(outbox, sequence, b"no faces") and outbox.next_up() is None
        outbox.told([early], [])  # an answer that was on its way tells of nothing new
        (told,), _ = outbox.to_tell(10)
        assert list(told.former_sha256) == [early.sha256] and told.sha256 == hashlib.sha256(b"no faces").digest()
        tell_all(outbox)
        up = outbox.next_up()
        assert up is not None and up.path.read_bytes() == b"no faces" and up.sha256 == told.sha256


def test_a_clip_that_went_is_not_made_anew(tmp_path: Path) -> None:
    with Outbox(tmp_path, Quota(0, 0)) as outbox:
        sequence = held(outbox)
        outbox.make_room()
        assert not made_anew(outbox, sequence, b"new") and not list(tmp_path.glob("scene-*"))
        with pytest.raises(ValueError, match="SHA-256"):
            outbox.replace(sequence, b"short", 3)


def test_a_kill_while_a_clip_is_made_anew_leaves_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        before, after = held(outbox, b"old"), held(outbox, b"old")
        outbox.anew(before).write_bytes(b"half of the n")  # killed before it was said
        outbox.anew(after).write_bytes(b"new")
        put, outbox._put_in_place = outbox._put_in_place, lambda _: None  # type: ignore[method-assign]
        outbox.replace(after, hashlib.sha256(b"new").digest(), 3)  # killed when it was
        outbox._put_in_place = put  # type: ignore[method-assign]
    with Outbox(tmp_path, ROOMY) as again:
        again.recover()  # the recorder may start at any time, and leaves this to who replaces
        again.settle()
        assert [again.path(sequence).read_bytes() for sequence in (before, after)] == [b"old", b"new"]
        assert not list(tmp_path.glob("*.anew"))


def test_an_outbox_of_the_first_version_is_taken_over_with_all_it_holds(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / NAME) as db:
        db.executescript(schema.SCHEMA)
        db.execute("INSERT INTO fact VALUES ('id', ?)", (bytes(16),))
        db.execute("INSERT INTO scene (state, summary, sha256, bytes) VALUES ('held', x'', ?, 4)", (bytes(32),))
        db.execute("PRAGMA user_version = 1")
    with Outbox(tmp_path) as outbox:
        assert outbox.id == bytes(16) and outbox.account().held == 1 and held(outbox) == 2
    with Outbox(tmp_path) as outbox:
        assert outbox.account().held == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_outbox_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        for _ in range(300):
            held(outbox)
    raw = bytearray((tmp_path / NAME).read_bytes())
    at = random.Random(seed).randrange(4096, len(raw) - 20_000)
    raw[at : at + 20_000] = b"\xff" * 20_000
    (tmp_path / NAME).write_bytes(raw)
    assert roadfuse(["uplink", "status", "--spool", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{tmp_path / NAME}: expected an outbox, got" in said


def test_rows_that_are_fetched_from_a_bad_page_are_said_to_be_of_a_damaged_outbox(tmp_path: Path) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        for _ in range(300):
            held(outbox)
    raw = bytearray((tmp_path / NAME).read_bytes())
    with Outbox(tmp_path, ROOMY) as outbox:
        first = outbox.execute("SELECT rootpage FROM sqlite_master WHERE name = 'scene'").fetchone()[0]
        for page in range(first + 1, len(raw) // 4096):  # the root stays: the first rows may be fine
            if raw[page * 4096] == 13:
                raw[page * 4096 : page * 4096 + 4096] = b"\xff" * 4096
    (tmp_path / NAME).write_bytes(raw)
    with Outbox(tmp_path, ROOMY) as outbox:
        for fetch in (lambda rows: rows.fetchall(), list, lambda rows: [rows.fetchone() for _ in range(300)]):
            with pytest.raises(OutboxError, match="expected an outbox"):
                fetch(outbox.execute("SELECT * FROM scene"))


@pytest.mark.parametrize("number", [1 << 62, (1 << 63) - 1, 1 << 63, 10**22])
def test_a_file_of_a_number_that_no_scene_can_have_is_left_alone(tmp_path: Path, number: int) -> None:
    (tmp_path / f"scene-{number}.mcap").write_bytes(b"not ours")
    (tmp_path / f"scene-{number}.anew").write_bytes(b"not ours")
    with Outbox(tmp_path, ROOMY) as outbox:
        outbox.recover()
        outbox.settle()
        assert outbox.account().given == 0 and held(outbox) == 1
    assert (tmp_path / f"scene-{number}.mcap").exists()


@pytest.mark.parametrize("is_known", [True, False])
def test_a_clip_that_cannot_be_read_for_a_while_is_kept_and_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        good = held(outbox)
        bad = outbox.give(SUMMARY, 1.0)[0] if is_known else 7
        outbox.path(bad).write_bytes(b"clip")

        def broken(path: Path) -> tuple[bytes, int]:
            if path == outbox.path(bad):
                raise OSError(5, "Input/output error")
            return digest(path)

        with monkeypatch.context() as patch:
            patch.setattr(outboxes, "digest", broken)
            for _ in range(2):
                outbox.recover()
        assert [scene.sequence for scene in outbox.to_tell(9)[0]] == [good] and outbox.path(bad).exists()
        outbox.recover()
        assert {scene.sequence: scene.media for scene in outbox.to_tell(9)[0]} == dict.fromkeys(
            (good, bad), MEDIA_STATE_HELD
        )


def test_a_clip_made_anew_that_cannot_be_read_for_a_while_is_kept_and_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Outbox(tmp_path, ROOMY) as outbox:
        sequence = held(outbox, b"faces")
        put, outbox._put_in_place = outbox._put_in_place, lambda _: None  # type: ignore[method-assign]
        made_anew(outbox, sequence, b"no faces")  # killed when it was said
        outbox._put_in_place = put  # type: ignore[method-assign]

        def broken(path: Path) -> tuple[bytes, int]:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(outboxes, "digest", broken)
            assert outbox.settle() == {sequence}
        assert outbox.path(sequence).exists() and outbox.anew(sequence).exists()
        assert outbox.settle() == set() and outbox.path(sequence).read_bytes() == b"no faces"


def test_on_a_full_disk_the_ballast_goes_before_the_outbox_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening makes files beside it, for which there is no room."""
    with Outbox(tmp_path, ROOMY) as outbox:
        outbox.make_room()
    ballast = tmp_path / "outbox.ballast"
    assert ballast.exists()

    class Full:
        f_bavail = f_frsize = 0

    connect = sqlite3.connect

    def connected(*words: object, **how: object) -> sqlite3.Connection:
        assert not ballast.exists()
        return connect(*words, **how)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    monkeypatch.setattr(sqlite3, "connect", connected)
    Outbox(tmp_path).close()
