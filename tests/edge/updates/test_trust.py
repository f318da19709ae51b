"""An honest cloud is believed: through rotations, recoveries, absence, and whatever the vehicle's own clock says."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from edge.errors import UpdateError
from edge.updates.trust import DIRECTOR_ROOT, IMAGE_ROOT, Policy, Trust

from .attack import DAY, Case, setting, word
from .repositories import VEHICLE, SimulatedCloud, bundle_files, new_key
from .vehicle import Vehicle

ROLES = ("root", "targets", "snapshot", "timestamp")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case.at(tmp_path)


def counter(vehicle: Vehicle) -> int:
    release = vehicle.check_in().release
    assert release is not None
    return release.counter


def test_release_is_what_was_signed(case: Case) -> None:
    files = bundle_files("model-2")
    assignment = case.vehicle.check_in()
    release = assignment.release
    assert release is not None and (release.counter, release.path) == (2, "model/2/manifest.json")
    assert [(file.name, file.length) for file in release.files] == [(name, len(one)) for name, one in files.items()]
    assert release.files[0].sha256.hex() == release.bundle
    assert (assignment.mode, assignment.rollout, assignment.next_contact_s) == (2, "first", 60.0)
    assert assignment.now_ns == int(case.cloud.now.timestamp()) * 10**9


def test_answer_without_a_release_is_nothing_to_do(case: Case) -> None:
    case.cloud.stop_number, case.cloud.stopped = 3, ["ab" * 32]
    assignment = case.vehicle.check_in_without_release()
    assert assignment.release is None
    assert (assignment.stop_number, assignment.stopped) == (3, {"ab" * 32})


@pytest.mark.parametrize("repository", ["director", "image"])
@pytest.mark.parametrize("role", ROLES)
def test_rotated_keys_are_followed(case: Case, repository: str, role: str) -> None:
    getattr(case.cloud, repository).rotate(role)
    case.cloud.publish()
    assert counter(case.vehicle) == 2
    assert 2 in case.vehicle.trust.root_versions
    case.vehicle.start()
    assert counter(case.vehicle) == 2


def test_rotated_bin_key_is_followed(case: Case) -> None:
    case.cloud.bin_keys = [new_key()]
    case.cloud.publish()
    assert counter(case.vehicle) == 2


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_stolen_online_key_is_worth_nothing_after_its_rotation(case: Case, role: str) -> None:
    stolen = case.cloud.director.rotate(role)
    case.vehicle.check_in()
    case.cloud.signers[f"director {role}"] = stolen
    with pytest.raises(UpdateError, match="expected signatures by 1 keys, got 0"):
        case.vehicle.check_in()


def test_revocation_counts_even_if_the_rest_of_its_answer_is_refused(case: Case) -> None:
    stolen = case.cloud.director.rotate("timestamp")
    case.cloud.edits["director targets"] = word(nonce="")
    with pytest.raises(UpdateError, match="nonce"):
        case.vehicle.check_in()
    case.cloud.behave()
    case.vehicle.start()
    case.cloud.signers["director timestamp"] = stolen
    case.cloud.answers.append(lambda response: response.ClearField("director_roots"))
    with pytest.raises(UpdateError, match="director timestamp: expected signatures"):
        case.vehicle.check_in()


def test_fast_forwarded_versions_are_forgotten_with_the_keys_that_signed_them(case: Case) -> None:
    """A thief of the online keys counts far ahead; the repository can be put right by a new root, and only so."""
    far = 1 << 50
    for repository in ("director", "image"):
        case.cloud.edits[f"{repository} timestamp"] = setting("version", far)
        case.cloud.edits[f"{repository} snapshot"] = setting("version", far)
    case.cloud.publish()
    case.vehicle.check_in()
    case.cloud.behave()
    with pytest.raises(UpdateError, match=f"director timestamp: expected at least version {far}"):
        case.vehicle.check_in()
    for role in ("timestamp", "snapshot"):
        case.cloud.director.rotate(role)
    with pytest.raises(UpdateError, match=f"image timestamp: expected at least version {far}"):
        case.vehicle.check_in()
    for role in ("timestamp", "snapshot"):
        case.cloud.image.rotate(role)
    case.cloud.publish()
    assert counter(case.vehicle) == 2


def test_fast_forwarded_files_are_forgotten_with_the_snapshot_key(case: Case) -> None:
    """A bin that nobody reads just now was counted far ahead."""
    other = next(f"bin-{n:x}.json" for n in range(16) if f"bin-{n:x}" != case.bin_of("model/2/manifest.json"))
    case.edit("image snapshot", lambda snapshot: setattr(snapshot.meta[other], "version", 1 << 50))
    case.vehicle.check_in()
    case.cloud.behave()
    case.cloud.image.rotate("timestamp")
    case.cloud.publish()
    with pytest.raises(UpdateError, match=f"image {other}: expected at least version {1 << 50}"):
        case.vehicle.check_in()
    case.cloud.image.rotate("snapshot")
    case.cloud.publish()
    assert counter(case.vehicle) == 2


def test_time_that_a_thief_set_ahead_is_forgotten_with_his_key(case: Case) -> None:
    ahead = case.cloud.now + 300 * DAY

    def set_ahead(targets: Any) -> None:
        word(now=ahead.isoformat(), stop_number=1 << 40)(targets)
        targets.expires = ahead + DAY

    case.cloud.edits["director targets"] = set_ahead
    for role in ("timestamp", "snapshot"):
        case.cloud.edits[f"director {role}"] = setting("expires", ahead + DAY)
    case.vehicle.check_in_without_release()
    case.cloud.behave()
    with pytest.raises(UpdateError, match="expected a time at most 300 s back"):
        case.vehicle.check_in()
    case.cloud.director.rotate("targets")
    assert counter(case.vehicle) == 2


def test_new_keys_beside_the_old_ones_forget_nothing(case: Case) -> None:
    case.vehicle.check_in()
    case.cloud.director.root.add_key(new_key().public_key, "timestamp")
    case.cloud.director.next_root()
    case.cloud.edits["director timestamp"] = setting("version", 1)
    with pytest.raises(UpdateError, match="director timestamp: expected at least version"):
        case.vehicle.check_in()


def test_after_180_days_offline_one_session_is_enough(case: Case) -> None:
    """Every key was replaced three times, all that the vehicle knows is expired, and releases went by."""
    cloud = case.cloud
    for month in range(6):
        cloud.now += 30 * DAY
        cloud.release(3 + month)
        for repository in (cloud.director, cloud.image):
            for role in ROLES if month % 2 else ():
                repository.rotate(role)
        cloud.publish()
    assert counter(case.vehicle) == 8
    assert case.vehicle.trust.root_versions == (13, 13)


def test_roots_on_the_way_may_be_expired_the_last_one_may_not(case: Case) -> None:
    for _ in range(4):
        case.cloud.now += 600 * DAY
        for repository in (case.cloud.director, case.cloud.image):
            repository.rotate("root")
    case.cloud.publish()
    with pytest.raises(UpdateError, match="expected a time at most"):  # 6.5 years: the policy has to say so
        case.vehicle.check_in()
    case.vehicle.start(Policy(most_ahead_s=10 * 365 * 86_400))
    assert counter(case.vehicle) == 2
    case.cloud.now += 731 * DAY
    with pytest.raises(UpdateError, match="director root: expected one that is valid"):
        case.vehicle.check_in()


@pytest.mark.parametrize("years", [-10, 10])
def test_clock_of_the_vehicle_does_not_matter(tmp_path: Path, years: int) -> None:
    """The cloud's time lies ten years before, or after, what this machine's clock says."""
    cloud = SimulatedCloud()
    cloud.now = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=365 * years)
    for repository in (cloud.director, cloud.image):
        repository.next_root()
    cloud.release(1)
    vehicle = Vehicle(tmp_path, cloud)
    assert counter(vehicle) == 1
    cloud.now += timedelta(days=15)
    with pytest.raises(UpdateError, match="image timestamp: expected one that is valid"):
        vehicle.check_in()


def test_time_within_the_policy_is_not_walked_back_step_by_step(case: Case) -> None:
    case.vehicle.check_in()
    case.cloud.now -= timedelta(seconds=200)
    case.vehicle.check_in()
    case.cloud.now -= timedelta(seconds=200)
    with pytest.raises(UpdateError, match="at most 300 s back, got 400"):
        case.vehicle.check_in()


def test_director_cannot_send_a_vehicle_away_for_good(case: Case) -> None:
    case.cloud.edits["director targets"] = word(next_contact_s=10**9)
    assert case.vehicle.check_in().next_contact_s == 86_400.0


def test_link_that_breaks_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(role: str, version: int) -> bytes:
        raise ConnectionError("the link broke")

    monkeypatch.setattr(case.cloud, "image_metadata", broken)
    before = case.vehicle.holds()
    with pytest.raises(ConnectionError):
        case.vehicle.check_in()
    assert case.vehicle.holds() == before
    monkeypatch.undo()
    assert counter(case.vehicle) == 2


def test_trust_begins_at_the_roots_of_the_identity_folder(case: Case, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    with pytest.raises(UpdateError, match=r"director-root.json: expected a TUF root, got No such file"):
        Trust.of(case.vehicle.disk, identity, VEHICLE, "x86")
    identity.mkdir()
    (identity / DIRECTOR_ROOT).write_bytes(case.cloud.director.roots[0])
    (identity / IMAGE_ROOT).write_bytes(b"{}")
    with pytest.raises(UpdateError, match="factory image root: expected TUF metadata"):
        Trust.of(case.vehicle.disk, identity, VEHICLE, "x86")
    (identity / IMAGE_ROOT).write_bytes(case.cloud.image.roots[0])
    case.vehicle.trust = Trust.of(case.vehicle.disk, identity, VEHICLE, "x86")
    assert counter(case.vehicle) == 2
