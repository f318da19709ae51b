"""The image repository, read by python-tuf's own client: what is released is there, and nothing else."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from tuf.api.exceptions import ExpiredMetadataError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from cloud.errors import ReleaseError
from cloud.releases import ceremony, publisher, releases, renewal, stops, stored
from cloud.releases.image import Image
from cloud.releases.keys import IMAGE
from cloud.releases.request import Request
from cloud.releases.roles import Name
from cloud.releases.signing import Keys
from cloud.tables import METADATA_FILES
from edge.bundle import Bundle, load
from edge.errors import BundleError

from .shelf import DAY, Client, Shelf, bundle, now

KILLS = 60 if os.environ.get("ROADFUSE_LONG") else 6
PUBLISHER = """
import sys
from pathlib import Path
from tests_shelf import Shelf
shelf = Shelf(sys.argv[1], Path(sys.argv[2]), [Path(sys.argv[3])])
bundles = [Path(word) for word in sys.argv[4:]]
print("ready", flush=True)
while True:
    for one in bundles:
        print(shelf.add(one).counter, flush=True)
"""


def test_python_tufs_own_client_takes_a_release(shelf: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    release = shelf.add(bundles[0], hardware=["x86", "orin"])
    client = Client(shelf, tmp_path)
    target = client.find("reference/1/manifest.json")
    custom = target.custom
    assert target.length == (bundles[0] / "manifest.json").stat().st_size
    assert target.hashes == {"sha256": load(bundles[0]).id} and release.bundle == load(bundles[0]).id
    assert (custom["bundle"], custom["counter"], custom["hardware"]) == (release.bundle, 1, ["x86", "orin"])
    assert custom["files"][0] == {"name": "manifest.json", "length": target.length, "sha256": release.bundle}
    assert {file["name"] for file in custom["files"]} == {path.name for path in bundles[0].iterdir()}
    assert client.download(release.path) == (bundles[0] / "manifest.json").read_bytes()
    for file in custom["files"]:
        assert shelf.objects.size(releases.object_key(file["sha256"])) == file["length"]


def test_a_release_nobody_made_is_not_there(shelf: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    shelf.add(bundles[0])
    assert Client(shelf, tmp_path).find("reference/2/manifest.json") is None


def test_counters_only_grow_and_the_same_bundle_may_come_again(shelf: Shelf, bundles: list[Path]) -> None:
    first, second, third = (shelf.add(bundles[index]) for index in (0, 1, 0))
    assert (first.counter, second.counter, third.counter) == (1, 2, 3)
    assert first.bundle == third.bundle and first.path != third.path
    assert shelf.add(bundles[1], least_counter=100).counter == 100
    assert shelf.add(bundles[1]).counter == 101


def test_a_revoked_bundle_is_gone_with_all_its_releases_and_stopped(
    shelf: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    for index in (0, 1, 0):
        shelf.add(bundles[index])
    before = shelf.do(stops.current)
    assert [release.counter for release in shelf.revoke(1)] == [3, 1]
    client = Client(shelf, tmp_path)
    found = [client.find(f"reference/{counter}/manifest.json") is not None for counter in (1, 2, 3)]
    assert found == [False, True, False]
    notice = shelf.do(stops.current)
    assert notice.bundles == (load(bundles[0]).id,) and notice.number > before.number
    with pytest.raises(ReleaseError, match="stopped for: worse at night"):
        shelf.add(bundles[0])
    with pytest.raises(ReleaseError, match="expected a release that counts"):
        shelf.revoke(3)


def test_a_stop_that_is_lifted_gives_a_newer_notice(shelf: Shelf, bundles: list[Path]) -> None:
    shelf.add(bundles[0])
    shelf.revoke(1)
    number = shelf.do(stops.current).number
    assert shelf.do(stops.lift, load(bundles[0]).id) > number
    assert shelf.do(stops.current).bundles == ()
    lifted = shelf.do(stops.current).number
    assert shelf.add(bundles[0]).counter == 2
    assert shelf.do(stops.stop, load(bundles[0]).id, "again") > lifted


def test_a_notice_is_no_longer_than_vehicles_take_and_keeps_the_newest(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stops, "MOST_BUNDLES", 3)
    for name in "dcbaac":
        shelf.do(stops.stop, name * 64, "worse")
    notice = shelf.do(stops.current)
    assert notice.number == 6 and notice.bundles == ("a" * 64, "b" * 64, "c" * 64)


def test_a_client_reads_one_bin_of_sixteen(shelf: Shelf, tmp_path: Path) -> None:
    with shelf.engine.begin() as connection:
        image = Image(connection, now())
        for number in range(400):
            image.put(TargetFile(100, {"sha256": f"{number:064x}"}, f"reference/{number}/manifest.json"))
        publish(connection, image, shelf.keys)
    client = Client(shelf, tmp_path)
    assert client.find("reference/17/manifest.json") is not None
    names = [name for name, _ in client.fetched]
    assert sum("bin-" in name for name in names) == 1
    assert sum(size for name, size in client.fetched) < 20_000


def test_a_missing_key_leaves_everything_as_it_was(shelf: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    shelf.add(bundles[0])
    before = rows(shelf)
    (key,) = shelf.folders[0].glob("image-snapshot-*.pem")
    key.rename(tmp_path / "away")
    with pytest.raises(ReleaseError, match=r"expected 1 of the 1 keys of image snapshot .* got 0"):
        shelf.add(bundles[1])
    assert rows(shelf) == before
    (tmp_path / "away").rename(key)
    assert shelf.add(bundles[1]).counter == 2


def test_the_online_keys_alone_release_nothing(shelf: Shelf, bundles: list[Path]) -> None:
    before = rows(shelf)
    with pytest.raises(ReleaseError, match="expected 2 of the 2 keys of image bins"):
        shelf.add(bundles[0], keys=shelf.online)
    assert rows(shelf) == before


def test_publishers_at_once_follow_one_another(shelf: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def publish(one: Path) -> None:
        try:
            for _ in range(3):
                shelf.add(one)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(one,)) for one in bundles[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    client = Client(shelf, tmp_path)
    assert all(client.find(f"reference/{counter}/manifest.json") for counter in range(1, 10))


def test_a_killed_publisher_leaves_the_old_repository_or_the_new_one(
    shelf: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    script = tmp_path / "publisher.py"
    script.write_text(PUBLISHER)
    (tmp_path / "tests_shelf.py").symlink_to(Path(__file__).with_name("shelf.py"))
    dice = random.Random(11)
    told = 0
    for kill in range(KILLS):
        words = [shelf.database, shelf.data, shelf.folders[0], *bundles[:2]]
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.0, 0.4))
        process.kill()
        told = max([told, *map(int, process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        client = Client(shelf, tmp_path / f"client-{kill}")
        found = shelf.do(releases.listed)
        assert [release.counter for release in found] == list(range(len(found), 0, -1))
        assert len(found) >= told  # what was said to be released is
        for release in found[:3]:
            target = client.find(release.path)
            assert target is not None and target.custom["bundle"] == release.bundle
            for file in release.files:
                assert shelf.objects.size(file.key) == file.length
        assert client.find(f"reference/{len(found) + 1}/manifest.json") is None
    assert told > 0


def test_what_killed_publishers_left_is_cleared_away(shelf: Shelf, bundles: list[Path]) -> None:
    old, young = shelf.data / "release-old", shelf.data / "release-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "audio.onnx").write_bytes(b"copy")
    os.utime(old, (0, time.time() - 2 * publisher.LEFT_S))
    shelf.add(bundles[0])
    assert [path.name for path in shelf.data.glob("release-*")] == ["release-young"]


def test_what_ended_is_refused_until_it_is_signed_anew(shelf: Shelf, bundles: list[Path], tmp_path: Path) -> None:
    shelf.add(bundles[0], at=now() - 20 * DAY)
    client = Client(shelf, tmp_path)
    with pytest.raises(ExpiredMetadataError):
        client.find("reference/1/manifest.json")
    assert shelf.do(renewal.keep_fresh, shelf.online, now())
    assert client.find("reference/1/manifest.json") is not None
    assert not shelf.do(renewal.keep_fresh, shelf.online, now())


def test_refresh_signs_what_is_past_two_thirds_and_says_what_it_cannot(
    shelf: Shelf, bundles: list[Path], tmp_path: Path
) -> None:
    shelf.add(bundles[0])
    late = now() + 170 * DAY
    states = {term.rule.name: term.state(late) for term in shelf.do(renewal.calendar, shelf.online, late)}
    assert states["image snapshot"] == "ends soon" and states["image timestamp"] == "ended"
    assert states["image root"] == states["director targets"] == "fine"
    assert shelf.do(renewal.refresh, shelf.online, late) == ["image timestamp"]
    assert shelf.do(renewal.refresh, shelf.keys, late) == ["image snapshot", "image timestamp"]
    states = {term.rule.name: term.state(late) for term in shelf.do(renewal.calendar, shelf.keys, late)}
    assert set(states.values()) == {"fine"}
    everything = shelf.do(renewal.refresh, shelf.keys, late, everything=True)
    assert {"image root", "director root", "image targets", "image bin-0", "image bin-f"} <= set(everything)
    assert Client(shelf, tmp_path).find("reference/1/manifest.json") is not None


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"hardware": []}, "hardware class"),
        ({"hardware": ["X 86"]}, "hardware class"),
        ({"hardware": [f"h{n}" for n in range(17)]}, "hardware class"),
        ({"name": "../up"}, "expected a name"),
        ({"notes": "n" * 3_000}, "notes"),
        ({"least_counter": 1 << 60}, "expected a counter"),
    ],
)
def test_what_cant_be_released_is_refused_in_one_line(
    shelf: Shelf, bundles: list[Path], named: dict[str, object], said: str
) -> None:
    with pytest.raises(ReleaseError, match=said) as refusal:
        shelf.add(bundles[0], **named)
    assert "\n" not in str(refusal.value)
    assert shelf.do(releases.listed) == []


def test_an_altered_bundle_is_not_released(shelf: Shelf, tmp_path: Path) -> None:
    made = bundle(tmp_path, "9")
    (made / "audio.onnx").write_bytes(b"other")
    with pytest.raises(BundleError):
        shelf.add(made)
    assert shelf.do(releases.listed) == []


def test_a_bundle_that_changes_while_it_is_released_is_refused(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundle(tmp_path, "9")

    def verified_then_altered(folder: Path) -> Bundle:
        found = load(folder)
        (made / "audio.onnx").write_bytes(b"other")
        return found

    monkeypatch.setattr(publisher, "load", verified_then_altered)
    with pytest.raises(BundleError):
        shelf.add(made)
    assert shelf.do(releases.listed) == []


def test_what_is_released_does_not_change_when_the_folder_does(shelf: Shelf, tmp_path: Path) -> None:
    made = bundle(tmp_path, "9")
    release = shelf.add(made)
    with (made / "audio.onnx").open("r+b") as file:  # the same file, changed in place
        file.write(b"other")
    engine = next(file for file in release.files if file.name == "audio.onnx")
    assert hashlib.sha256(shelf.objects.get(engine.key)).hexdigest() == engine.sha256


def test_metadata_is_as_python_tuf_writes_it(shelf: Shelf) -> None:
    content = json.loads(shelf.do(stored.latest, IMAGE, "targets").content)["signed"]
    assert content["delegations"]["succinct_roles"]["bit_length"] == 4
    assert content["delegations"]["succinct_roles"]["name_prefix"] == "bin"
    root = json.loads(shelf.root())["signed"]
    assert root["consistent_snapshot"] is True
    thresholds = {role: (len(one["keyids"]), one["threshold"]) for role, one in root["roles"].items()}
    assert thresholds == {"root": (3, 2), "targets": (2, 2), "snapshot": (1, 1), "timestamp": (1, 1)}
    ends = datetime.datetime.fromisoformat(root["expires"])
    assert datetime.timedelta(days=700) < ends - now() < datetime.timedelta(days=731)


def publish(connection: Connection, image: Image, keys: Keys) -> None:
    """Whatever an image holds, whether it is a release or not."""
    drafts = {name: Metadata(draft) for name, draft in image.drafts().items()}
    root = Metadata[Root].from_bytes(stored.roots(connection, IMAGE)[-1].content)
    targets = Metadata[Targets].from_bytes(stored.latest(connection, IMAGE, "targets").content)
    request = Request(now(), {IMAGE: [root]}, {Name(IMAGE, "targets"): targets}, drafts)
    ceremony.sign(request, keys.offline)
    ceremony.publish(connection, request, keys, now())


def rows(shelf: Shelf) -> list[object]:
    """All that a publisher changes."""
    with shelf.engine.connect() as connection:
        files = connection.execute(
            select(METADATA_FILES.c.repository, METADATA_FILES.c.role, METADATA_FILES.c.version).order_by(
                METADATA_FILES.c.repository, METADATA_FILES.c.role, METADATA_FILES.c.version
            )
        ).all()
        return [*files, *releases.listed(connection)]
