"""What the cloud signs is what a vehicle believes: the real client against the real server, from enrolment on."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.dialects.postgresql import insert

from cloud import identity
from cloud.releases import ceremony, publisher, renewal, rotation, stops
from cloud.releases.keys import DIRECTOR, IMAGE, KeyFolders
from cloud.releases.repositories import TRUST_S
from cloud.releases.request import Request
from cloud.tables import ASSIGNMENTS
from edge.errors import UpdateError
from edge.updates import manifest
from edge.updates.assignment import Assignment
from edge.updates.disk import RealDisk
from edge.updates.line import GrpcCloud
from edge.updates.slots import Slots
from edge.updates.trust import Trust
from edge.uplink.identity import channel, enrol
from roadfuse.v1.updates_pb2 import MODE_SHADOW, CheckInRequest

from ..fleet import Cloud
from .shelf import Shelf, bundle, now


@dataclass
class Car:
    """A vehicle that was enrolled by a token, with nothing but what enrolment gave it."""

    name: str
    cloud: GrpcCloud
    folder: Path

    def trust(self) -> Trust:
        """What it believes, read from disk."""
        return Trust.of(RealDisk(self.folder / "updates"), self.folder / "identity", self.name, "x86")

    def check_in(self, floor: int = 0) -> Assignment:
        """One check-in, verified."""
        trust = self.trust()
        nonce = trust.nonce()
        what = manifest.manifest_of(Slots(), None, nonce, self.name, "x86", "0.1.0")
        director, image = trust.root_versions
        request = CheckInRequest(
            nonce=nonce,
            manifest=manifest.signed(what, manifest.key_of(self.folder / "identity")),
            director_root_version=director,
            image_root_version=image,
        )
        return trust.verified(self.cloud.check_in(request), self.cloud, nonce, floor)


@pytest.fixture(scope="module")
def road(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shelf, Callable[[str], Car]]]:
    """A server with repositories, and how a vehicle is enrolled with it."""
    assert cloud.database is not None
    shelf = Shelf(cloud.database, cloud.data, [tmp_path_factory.mktemp("keys")])
    shelf.create()
    (shelf.folders[0] / "ca.pem").write_bytes(cloud.ca)
    lines: list[GrpcCloud] = []

    def car(name: str) -> Car:
        token = shelf.do(identity.give_token, name, datetime.timedelta(hours=1))
        folder = tmp_path_factory.mktemp(name)
        enrol(f"localhost:{cloud.enrol_port}", folder / "identity", name, token, shelf.folders[0] / "ca.pem")
        lines.append(GrpcCloud(channel(f"localhost:{cloud.port}", folder / "identity")))
        return Car(name, lines[-1], folder)

    yield shelf, car
    for line in lines:
        line.close()
    shelf.engine.dispose()


def assign(shelf: Shelf, car: Car, counter: int) -> None:
    """Let a vehicle go for a release, whatever it went for before."""
    values = {"rollout": "r-1", "release": counter, "mode": MODE_SHADOW, "wave": 0}
    statement = insert(ASSIGNMENTS).values(vehicle=car.name, **values)
    shelf.do(lambda connection: connection.execute(
        statement.on_conflict_do_update(index_elements=["vehicle"], set_=values)
    ))  # fmt: skip


def test_a_vehicle_takes_what_both_repositories_say(
    road: tuple[Shelf, Callable[[str], Car]], bundles: list[Path]
) -> None:
    shelf, enrolled = road
    car = enrolled("car-1")
    assert car.check_in().release is None
    release = shelf.add(bundles[0])
    assign(shelf, car, release.counter)
    told = car.check_in()
    assert told.release is not None and told.mode == MODE_SHADOW and told.rollout == "r-1"
    assert (told.release.bundle, told.release.counter) == (release.bundle, release.counter)
    for file in told.release.files:
        content = b"".join(car.cloud.fetch(file.sha256, 0))
        assert content == (bundles[0] / file.name).read_bytes() and len(content) == file.length
    with pytest.raises(UpdateError, match="rollback"):
        car.check_in(floor=release.counter + 1)


def test_a_vehicle_hears_of_a_stop_and_of_its_end(
    road: tuple[Shelf, Callable[[str], Car]], bundles: list[Path]
) -> None:
    shelf, enrolled = road
    car = enrolled("car-2")
    release = shelf.add(bundles[1])
    assign(shelf, car, release.counter)
    assert car.check_in().release is not None
    shelf.do(stops.stop, release.bundle, "worse")
    told = car.check_in()
    assert told.release is None and told.stopped == {release.bundle}
    shelf.do(stops.lift, release.bundle)
    assert car.check_in().release is not None


def test_a_vehicle_follows_every_key_being_replaced_at_once(
    road: tuple[Shelf, Callable[[str], Car]], bundles: list[Path]
) -> None:
    shelf, enrolled = road
    car = enrolled("car-3")
    release = shelf.add(bundles[2])
    assign(shelf, car, release.counter)
    assert car.check_in().release is not None
    for repository, role in (
        (IMAGE, "root"), (IMAGE, "root"), (IMAGE, "root"), (IMAGE, "targets"), (IMAGE, "bins"), (IMAGE, "snapshot"),
        (IMAGE, "timestamp"), (DIRECTOR, "root"), (DIRECTOR, "root"), (DIRECTOR, "root"), (DIRECTOR, "targets"),
        (DIRECTOR, "snapshot"), (DIRECTOR, "timestamp"),
    ):  # fmt: skip
        shelf.do(rotation.replace, repository, role, None, shelf.keys, now())
    time.sleep(TRUST_S)
    told = car.check_in()
    assert told.release is not None and told.release.counter == release.counter
    assert car.trust().root_versions == (7, 7)
    shelf.do(renewal.refresh, shelf.keys, now(), everything=True)
    time.sleep(TRUST_S)
    assert car.check_in().release is not None


def test_a_revoked_release_is_not_taken(road: tuple[Shelf, Callable[[str], Car]], bundles: list[Path]) -> None:
    shelf, enrolled = road
    car = enrolled("car-4")
    release = shelf.add(bundles[3])
    assign(shelf, car, release.counter)
    assert car.check_in().release is not None
    shelf.revoke(release.counter)
    told = car.check_in()
    assert told.release is None and release.bundle in told.stopped


def test_vehicles_come_back_after_an_older_copy_of_the_catalogue_was_put_back(
    road: tuple[Shelf, Callable[[str], Car]], tmp_path: Path
) -> None:
    """As docs/operate/keys.md says it."""
    shelf, enrolled = road
    car = enrolled("car-5")
    old = shelf.add(bundle(tmp_path, "10"))
    assign(shelf, car, old.counter)
    assert car.check_in().release is not None
    tables = {"metadata_files": "repository, role, version", "releases": "counter", "stops": "number"}
    with shelf.engine.begin() as connection:
        for table in tables:
            connection.exec_driver_sql(f"CREATE TABLE copy_of_{table} AS SELECT * FROM {table}")
    lost = shelf.add(bundle(tmp_path, "11")).counter
    assign(shelf, car, lost)
    shelf.do(stops.stop, old.bundle, "worse")
    told = car.check_in()
    assert told.release is not None and told.release.counter == lost
    assign(shelf, car, old.counter)
    with shelf.engine.begin() as connection:
        for table, key in tables.items():
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE ({key}) NOT IN (SELECT {key} FROM copy_of_{table})")
            connection.exec_driver_sql(f"DROP TABLE copy_of_{table}")
    time.sleep(TRUST_S)
    with pytest.raises(UpdateError, match="stop notice"):
        car.check_in(floor=lost)
    for repository, role in (
        (IMAGE, "snapshot"), (IMAGE, "timestamp"),
        (DIRECTOR, "targets"), (DIRECTOR, "snapshot"), (DIRECTOR, "timestamp"),
    ):  # fmt: skip
        shelf.do(rotation.replace, repository, role, None, shelf.keys, now())
    fresh = shelf.add(bundle(tmp_path, "12"), least_counter=lost + 1)
    assign(shelf, car, fresh.counter)
    time.sleep(TRUST_S)
    told = car.check_in(floor=lost)
    assert told.release is not None and told.release.counter == lost + 1


def test_a_vehicle_takes_what_holders_signed_apart(
    road: tuple[Shelf, Callable[[str], Car]], bundles: list[Path], tmp_path: Path
) -> None:
    """A release, new keys that their owners made, and its end: each proposed, signed by two, accepted."""
    shelf, enrolled = road
    car = enrolled("car-6")
    folders = [tmp_path / "a", tmp_path / "b"]
    for path in shelf.folders[0].glob("*.pem"):
        role = path.name.rpartition("-")[0]
        first = not list(folders[0].glob(f"{role}-*")) if folders[0].is_dir() else True
        folder = folders[0] if first else folders[1]
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())

    def accepted(proposed: Request) -> publisher.Accepted:
        copies = [Request.of(proposed.to_bytes()) for _ in folders]
        for copy, folder in zip(copies, folders):
            ceremony.sign(copy, KeyFolders([folder]))
        merged = ceremony.merged([Request.of(copy.to_bytes()) for copy in copies])
        return publisher.accept(shelf.engine, shelf.objects, merged, shelf.online, now())

    draft = publisher.keep(shelf.engine, shelf.objects, bundle(tmp_path, "20"), work=shelf.data)
    (release,) = accepted(shelf.do(publisher.propose_add, draft, now())).added
    assign(shelf, car, release.counter)
    told = car.check_in()
    assert told.release is not None and told.release.bundle == release.bundle
    for role in ("root", "targets", "bins", "snapshot"):
        key = KeyFolders([folders[0]]).create(IMAGE, role).public_key
        _, proposed = shelf.do(rotation.propose, IMAGE, role, None, shelf.online, now(), new=key)
        accepted(proposed)
    time.sleep(TRUST_S)
    told = car.check_in()
    assert told.release is not None and told.release.bundle == release.bundle
    accepted(shelf.do(publisher.propose_revoke, release.counter, "worse", now()))
    told = car.check_in()
    assert told.release is None and release.bundle in told.stopped
