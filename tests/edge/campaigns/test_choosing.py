"""What goes up for campaigns: within its bytes, whatever is repeated, killed, full or set back."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.campaigns import file
from edge.campaigns.choosing import Campaigns
from edge.campaigns.clock import Clock
from edge.campaigns.probe import MAX_PROBES, MAX_SET_CONDITIONS, AllOf, Bounds, Likely, ProbeSet, Vehicles
from edge.uplink.outbox import Outbox, Quota
from edge.uplink.pace import Link
from roadfuse.v1.ingest_pb2 import SceneSummary

from .signing import DAY_NS, Authority, authority, offer, probe, trust

NIGHT = Likely("night", 0.5)
METERED = Link(clips="wanted")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path, Quota(1 << 40, 0)) as outbox:
        yield outbox


class Vehicle:
    """Campaigns of one outbox, what they said, and a wall clock that can be set."""

    def __init__(self, outbox: Outbox, name: str = "car-1", wall: Callable[[], int] = time.time_ns) -> None:
        self.outbox, self.lines = outbox, list[str]()
        self.campaigns = Campaigns(outbox, trust(), name, Clock(outbox, wall), self.lines.append)

    def hear(self, *probes: Any, **fields: Any) -> int:
        self.campaigns.hear(offer(*probes, **fields))
        return self.campaigns.choose()

    def chosen(self, campaign: str = "night") -> list[int]:
        rows = self.outbox.execute("SELECT sequence FROM choice WHERE campaign = ? ORDER BY sequence", (campaign,))
        return [number for (number,) in rows.fetchall()]

    def up(self) -> list[int]:
        """In which order clips would go on a metered link."""
        passed: list[int] = []
        while (clip := self.outbox.next_up(passed, METERED)) is not None:
            passed.append(clip.sequence)
        return passed

    def looked_for(self) -> list[str]:
        """By the loop, as the file says."""
        path = self.outbox.folder / file.NAME
        return [one.campaign for one in file.read(path).probes] if path.exists() else []


def held(outbox: Outbox, size: int = 100, night: float = 0.9, worth: float = 1.0, **fields: Any) -> int:
    summary = SceneSummary(hardness=0.5, bundle_id="b1", **fields)
    summary.scene_tags.add(name="night", probability=night)
    sequence, _ = outbox.give(summary, worth)
    outbox.path(sequence).write_bytes(bytes(size))
    outbox.hold(sequence, hashlib.sha256(bytes(size)).digest(), size)
    scenes, evictions = outbox.to_tell(1000)
    outbox.told([*scenes, *evictions], [])
    return sequence


def test_buffered_scenes_that_match_go_up_and_others_do_not(outbox: Outbox) -> None:
    dark, light = held(outbox), held(outbox, night=0.1)
    vehicle = Vehicle(outbox)
    assert vehicle.up() == [] and vehicle.hear(probe(condition=NIGHT)) == 1
    assert vehicle.up() == [dark] and light not in vehicle.chosen()
    later = held(outbox)
    assert vehicle.campaigns.choose() == 1 and vehicle.up() == [dark, later]


def test_what_the_loop_saw_on_the_way_counts_though_the_hardest_frame_is_another(outbox: Outbox) -> None:
    sequence = held(outbox, night=0.0, campaigns=[{"campaign": "night", "score": 0.75}])
    vehicle = Vehicle(outbox)
    vehicle.hear(probe(condition=NIGHT))
    assert vehicle.chosen() == [sequence]
    (choice,) = vehicle.campaigns.to_tell()
    assert choice == ("night", sequence, 0.75)


def test_a_campaign_is_for_those_vehicles_that_it_names(outbox: Outbox) -> None:
    held(outbox)
    asked = probe(condition=AllOf((NIGHT, Vehicles(("car-2",)))))
    assert Vehicle(outbox, "car-1").hear(asked) == 0 and Vehicle(outbox, "car-2").hear(asked) == 1


def test_a_probe_of_another_bundles_space_matches_nothing(outbox: Outbox) -> None:
    held(outbox, embedding=b"\x01\x02")
    vector = {"embedding": b"\x01\x02", "least_cosine": 0.5, "condition": AllOf()}
    vehicle = Vehicle(outbox)
    assert vehicle.hear(probe(bundle_id="b2", **vector)) == 0
    assert vehicle.hear(probe("other", bundle_id="b1", **vector)) == 1


def test_no_more_bytes_are_chosen_than_a_vehicle_may_spend_and_those_worth_most_first(outbox: Outbox) -> None:
    for worth in (0.1, 0.9, 0.5, 0.7):
        held(outbox, 100, worth=worth)
    vehicle = Vehicle(outbox)
    vehicle.hear(probe(condition=NIGHT, budget_bytes=10_000, vehicle_budget_bytes=250))
    assert vehicle.chosen() == [2, 4] and vehicle.up() == [2, 4]
    small = held(outbox, 40)
    vehicle.campaigns.choose()
    assert vehicle.chosen() == [2, 4, small]


def test_the_loop_looks_for_what_has_bytes_left(outbox: Outbox) -> None:
    vehicle = Vehicle(outbox)
    vehicle.hear(probe(condition=NIGHT, vehicle_budget_bytes=100), probe("rain", vehicle_budget_bytes=500))
    assert vehicle.looked_for() == ["night", "rain"]
    held(outbox, 100)
    vehicle.campaigns.choose()
    assert vehicle.looked_for() == ["rain"]


def test_no_restart_spends_a_budget_again_even_when_what_was_chosen_is_gone(outbox: Outbox) -> None:
    for _ in range(4):
        held(outbox, 100)
    spent: list[int] = []
    for _ in range(5):
        vehicle = Vehicle(outbox)
        vehicle.hear(probe(condition=NIGHT, vehicle_budget_bytes=200))
        for sequence in vehicle.up():
            outbox.deliver(sequence)
            spent.append(sequence)
        held(outbox, 100)
    assert len(spent) == 2 and len(vehicle.chosen()) == 2


CHOOSING = """
import sys
from pathlib import Path
from edge.campaigns.choosing import Campaigns
from edge.campaigns.trust import Trust
from edge.uplink.outbox import Outbox
from roadfuse.v1.ingest_pb2 import ReportResponse
from cryptography import x509
folder, ca, said = map(Path, sys.argv[1:])
with Outbox(folder) as outbox:
    campaigns = Campaigns(outbox, Trust(x509.load_der_x509_certificate(ca.read_bytes())), "car-1")
    print("begun", flush=True)
    campaigns.hear(ReportResponse.FromString(said.read_bytes()))
    while True:
        campaigns.choose()
        told = campaigns.to_tell()
        print("chosen", len(told), flush=True)
        campaigns.told(told[:1])
"""


def test_killed_between_choosing_and_telling_nothing_is_chosen_twice_and_all_is_told(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    folder, rng = tmp_path / "spool", random.Random(7)
    (tmp_path / "ca").write_bytes(authority().ca.public_bytes(Encoding.DER))
    asked = offer(probe(condition=NIGHT, vehicle_budget_bytes=1000))
    (tmp_path / "said").write_bytes(asked.SerializeToString())
    with Outbox(folder, Quota(1 << 40, 0)) as outbox:
        for _ in range(30):
            held(outbox, 100)
    for _ in range(4):
        words = [sys.executable, "-c", CHOOSING, str(folder), str(tmp_path / "ca"), str(tmp_path / "said")]
        child = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    with Outbox(folder, Quota(1 << 40, 0)) as outbox:
        vehicle = Vehicle(outbox)
        vehicle.campaigns.hear(asked)
        vehicle.campaigns.choose()
        assert len(vehicle.chosen()) == 10
        vehicle.campaigns.told(vehicle.campaigns.to_tell())
        (told,) = outbox.execute("SELECT sum(told) FROM choice").fetchone()
        assert told == 10 and vehicle.campaigns.to_tell() == []


def test_a_stop_ends_it_for_good_whoever_repeats_the_start(outbox: Outbox) -> None:
    dark = held(outbox)
    vehicle = Vehicle(outbox)
    started = probe(condition=NIGHT)
    stopped = replace(started, revision=2, is_stopped=True, condition=AllOf())
    vehicle.hear(started)
    assert vehicle.up() == [dark]
    vehicle.hear(stopped)
    assert vehicle.up() == [] and vehicle.looked_for() == []
    for again in (started, replace(started, name="altered"), replace(started, revision=2)):
        vehicle.hear(again)
        assert vehicle.up() == [] and vehicle.looked_for() == []
        assert "after revision 2" in vehicle.lines[-1]
    assert Vehicle(outbox).up() == []


def test_a_stop_that_comes_first_holds_too(outbox: Outbox) -> None:
    held(outbox)
    vehicle = Vehicle(outbox)
    vehicle.hear(probe(revision=2, is_stopped=True))
    assert vehicle.hear(probe(condition=NIGHT)) == 0 and vehicle.up() == []


def test_what_is_not_in_the_offer_rests_and_comes_back_with_it(outbox: Outbox) -> None:
    dark = held(outbox)
    vehicle = Vehicle(outbox)
    asked = probe(condition=NIGHT)
    for probes, up in (((asked,), [dark]), ((), []), ((asked,), [dark])):
        vehicle.hear(*probes)
        assert vehicle.up() == up and len(vehicle.chosen()) == 1


def test_foreign_altered_and_expired_probes_are_refused_with_a_line_and_the_others_count(outbox: Outbox) -> None:
    dark = held(outbox)
    vehicle = Vehicle(outbox)
    altered = authority().sign(probe("altered", NIGHT))
    altered.probe = altered.probe.replace(b"altered", b"changed")
    vehicle.hear(
        Authority().sign(probe("foreign", NIGHT)), altered, probe("over", NIGHT, expires_ns=time.time_ns() - 1),
        probe(condition=NIGHT),
    )  # fmt: skip
    assert len(vehicle.lines) == 3 and all(line.startswith("campaign refused: ") for line in vehicle.lines)
    assert vehicle.looked_for() == ["night"] and vehicle.up() == [dark]


def test_it_ends_by_the_vehicles_own_clock_and_does_not_come_back_when_that_is_set_back(outbox: Outbox) -> None:
    dark = held(outbox)
    start_ns = time.time_ns()
    wall = [start_ns]
    vehicle = Vehicle(outbox, wall=lambda: wall[0])
    vehicle.hear(probe(condition=NIGHT, expires_ns=start_ns + DAY_NS))
    assert vehicle.up() == [dark]
    wall[0] += DAY_NS
    vehicle.campaigns.choose()
    assert vehicle.up() == [] and vehicle.looked_for() == []
    wall[0] -= 5 * DAY_NS
    for again in (vehicle, Vehicle(outbox, wall=lambda: wall[0])):  # the restart knows too
        again.campaigns.choose()
        assert again.up() == [] and again.looked_for() == []


def test_the_clouds_clock_puts_a_wrong_one_right(outbox: Outbox) -> None:
    dark = held(outbox)
    now_ns = time.time_ns()
    vehicle = Vehicle(outbox, wall=lambda: now_ns + 400 * DAY_NS)  # years ahead
    vehicle.campaigns.choose()
    vehicle.hear(probe(condition=NIGHT, expires_ns=now_ns + DAY_NS), now_ns=now_ns)
    assert vehicle.up() == [dark], vehicle.lines


def test_a_campaign_is_not_looked_for_before_it_begins(outbox: Outbox) -> None:
    held(outbox)
    wall = [time.time_ns()]
    vehicle = Vehicle(outbox, wall=lambda: wall[0])
    assert vehicle.hear(probe(condition=NIGHT, not_before_ns=wall[0] + 10**9)) == 0
    wall[0] += 10**9
    assert vehicle.campaigns.choose() == 1


def test_a_full_disk_leaves_all_as_it_was_until_there_is_room(outbox: Outbox) -> None:
    dark = held(outbox)
    vehicle = Vehicle(outbox)
    outbox.execute(f"PRAGMA max_page_count = {outbox.execute('PRAGMA page_count').fetchone()[0]}")
    big = [probe(f"c{i:03}", condition=NIGHT, name="x" * 128) for i in range(200)]
    vehicle.hear(*big)
    assert vehicle.campaigns.digest == b"" and vehicle.up() == [] and "stay as they are" in vehicle.lines[0]
    outbox.execute("PRAGMA max_page_count = 1000000")
    vehicle.hear(*big)
    assert vehicle.campaigns.digest and vehicle.up() == [dark]


def test_a_loops_file_that_cannot_be_written_costs_no_choice(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    dark = held(outbox)
    vehicle = Vehicle(outbox)

    def full(path: Path, probes: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(file, "write", full)
        vehicle.hear(probe(condition=NIGHT))
        assert vehicle.up() == [dark] and vehicle.looked_for() == [] and "No space" in vehicle.lines[-1]
    vehicle.campaigns.choose()
    assert vehicle.looked_for() == ["night"]


def test_a_vehicle_takes_so_many_campaigns_and_conditions_and_says_so(outbox: Outbox) -> None:
    vehicle = Vehicle(outbox)
    many = AllOf(tuple(Bounds("novelty") for _ in range(62)))
    few = authority().sign(probe("few"))
    probes = [probe(f"{i:04}", condition=many) for i in range(MAX_SET_CONDITIONS // 63 + 3)]
    vehicle.hear(*probes, few)
    assert len(vehicle.looked_for()) == MAX_SET_CONDITIONS // 63 + 1 and "few" in vehicle.looked_for()
    assert len(vehicle.lines) == 3 and "conditions" in vehicle.lines[0]
    vehicle.hear(*[probe(f"{i:04}", condition=AllOf()) for i in range(len(probes))])  # void: known with other content
    assert len(vehicle.looked_for()) == len(probes)
    vehicle.lines.clear()
    vehicle.hear(*[probe(f"n{i:04}", condition=AllOf()) for i in range(MAX_PROBES + 2)])
    assert len(vehicle.looked_for()) == MAX_PROBES and len(vehicle.lines) == 2


def test_scenes_of_a_campaign_come_before_harder_ones_and_are_evicted_after_them(outbox: Outbox) -> None:
    hard, easy = held(outbox, worth=0.5, night=0.0), held(outbox, worth=0.05)
    vehicle = Vehicle(outbox)

    def first() -> int:
        clip = outbox.next_up()
        assert clip is not None
        return clip.sequence

    assert first() == hard
    vehicle.hear(probe(condition=NIGHT, weight=1.0))
    assert first() == easy
    outbox.quota = Quota(100, 0)
    assert outbox.make_room() == [hard]


def test_the_loops_file_says_what_is_due_when_that_changes(tmp_path: Path) -> None:
    now, wall = [5], [0]
    lines: list[str] = []
    path = tmp_path / file.NAME
    watched = file.ProbeFile(path, lambda: wall[0], lambda: now[0], lines.append)
    assert watched.changed() is None  # there is none
    soon, long = probe("soon", expires_ns=DAY_NS + 10), probe("long", expires_ns=3 * DAY_NS)
    file.write(path, ProbeSet((soon, long), "car-1", DAY_NS))
    wall[0] = path.stat().st_mtime_ns
    found = watched.changed()
    assert found is not None and found.probes == (soon, long) and watched.changed() is None
    now[0] += 10
    found = watched.changed()
    assert found is not None and found.probes == (long,)
    for wall[0] in (0, 1 << 62):  # set back, set ahead
        assert watched.changed() is None
    wall[0] = path.stat().st_mtime_ns + DAY_NS  # a day later somebody else looks
    later = file.ProbeFile(path, lambda: wall[0], lambda: now[0], lines.append).changed()
    assert later is not None and later.probes == (long,)
    wall[0] += DAY_NS
    assert file.ProbeFile(path, lambda: wall[0], lambda: now[0], lines.append).changed() is None
    path.write_bytes(b"\xff damaged")
    assert watched.changed() is None and "stay as they are" in lines[0]
    path.unlink()
    found = watched.changed()
    assert found is not None and found.probes == ()
