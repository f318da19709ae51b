"""Old metadata for new: expired, frozen, rolled back, mixed, from a mirror that lies; and time that goes astray."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from .attack import DAY, Attack, Case, check, loosened, setting, word


def expired(role: str) -> Callable[[Case], None]:
    def attack(case: Case) -> None:
        case.edit(role, setting("expires", case.cloud.now))

    return attack


def expired_root(repository: str) -> Callable[[Case], None]:
    def attack(case: Case) -> None:
        case.cloud.now += timedelta(days=731)
        case.cloud.publish()
        if repository == "director":  # the other one lives
            return
        case.cloud.director.next_root()
        case.vehicle.check_in_without_release()

    return attack


def frozen_image_repository(case: Case) -> None:
    case.cloud.now += 15 * DAY


def time_goes_back(case: Case) -> None:
    case.edit("director targets", word(now=(case.cloud.now - timedelta(seconds=301)).isoformat()))


def time_leaps(case: Case) -> None:
    case.edit("director targets", word(now=(case.cloud.now + 6 * 365 * DAY).isoformat()))


def rolled_back(role: str) -> Callable[[Case], None]:
    return lambda case: case.edit(role, setting("version", 1))


def rolled_back_in_the_timestamp(repository: str) -> Callable[[Case], None]:
    def attack(case: Case) -> None:
        case.edit(f"{repository} timestamp", lambda timestamp: setattr(timestamp.snapshot_meta, "version", 1))

    return attack


def file_vanishes(case: Case) -> None:
    case.edit("image snapshot", lambda snapshot: snapshot.meta.pop("bin-0.json"))


def mirror_gives(role: str, version_back: int) -> Callable[[Case], None]:
    """A file of an earlier version, under the name of the newest."""

    def attack(case: Case) -> None:
        cloud = case.cloud
        names = [name for name in cloud.image_files if name[0].startswith(role) and name[1] == cloud.image_version]
        for name in names:
            kept = cloud.image_files[name[0], cloud.image_version - version_back]
            cloud.damages[f"image {name[0]}"] = lambda _, kept=kept: kept
        cloud.publish()

    return attack


def mirror_gives_unhashed(role: str, above: str) -> Callable[[Case], None]:
    """The same where nothing but the version is named."""

    def attack(case: Case) -> None:
        def edit(signed: Any) -> None:
            for meta in [signed.snapshot_meta] if above == "image timestamp" else signed.meta.values():
                loosened(meta)

        case.cloud.edits[above] = edit
        mirror_gives(role, 1)(case)

    return attack


def kept_from_before(field: str) -> Callable[[Case], None]:
    """One part of an earlier answer, the others of this one."""

    def attack(case: Case) -> None:
        case.vehicle.check_in()
        earlier = case.cloud.check_in(case.vehicle.request())
        case.answer(lambda response: setattr(response, field, getattr(earlier, field)))

    return attack


ATTACKS: dict[str, Attack] = {
    # Indefinite freeze, and expiry of each kind.
    "expired director root": (expired_root("director"), "director root: expected one that is valid"),
    "expired director timestamp": (expired("director timestamp"), "director timestamp: expected one that is valid"),
    "expired director snapshot": (expired("director snapshot"), "director snapshot: expected one that is valid"),
    "expired director targets": (expired("director targets"), "director targets: expected one that is valid"),
    "expired image root": (expired_root("image"), "image root: expected one that is valid"),
    "expired image timestamp": (expired("image timestamp"), "image timestamp: expected one that is valid"),
    "expired image snapshot": (expired("image snapshot"), "image snapshot: expected one that is valid"),
    "expired image targets": (expired("image targets"), "image targets: expected one that is valid"),
    "expired image bin": (expired("image bins"), "image bin: expected one that is valid"),
    "image repository frozen": (frozen_image_repository, "image timestamp: expected one that is valid"),
    "director's time goes back": (time_goes_back, "expected a time at most 300 s back, got 301"),
    "director's time leaps": (time_leaps, "expected a time at most 157680000 s on"),
    # Rollback of each role, and fast-forward.
    "director timestamp rolled back": (rolled_back("director timestamp"), "director timestamp: expected at least"),
    "director snapshot rolled back": (rolled_back("director snapshot"), "director snapshot: expected at least"),
    "director targets rolled back": (rolled_back("director targets"), "director targets.json: expected at least"),
    "image timestamp rolled back": (rolled_back("image timestamp"), "image timestamp: expected at least"),
    "image snapshot rolled back": (rolled_back("image snapshot"), "image snapshot: expected at least"),
    "image targets rolled back": (rolled_back("image targets"), "image targets.json: expected at least"),
    "image bins rolled back": (rolled_back("image bins"), "image bin-..json: expected at least"),
    "snapshot rolled back in the director timestamp": (rolled_back_in_the_timestamp("director"), "director snapshot: .*at least"),  # noqa: E501
    "snapshot rolled back in the image timestamp": (rolled_back_in_the_timestamp("image"), "image snapshot: .*at least"),  # noqa: E501
    "file vanishes from the snapshot": (file_vanishes, "expected bin-0.json, which was there before, got none"),
    "fast-forward beyond all numbers": (
        lambda case: case.edit("director timestamp", setting("version", 1 << 60)), "expected a version of at most"),
    "fast-forward of a file in the snapshot": (
        lambda case: case.edit("image snapshot", lambda one: setattr(one.meta["bin-0.json"], "version", 1 << 60)),
        "image bin-0.json: expected a version of at most"),
    # Mix-and-match, and malicious mirrors.
    "mirror gives an old snapshot": (mirror_gives("snapshot", 1), "image snapshot: expected the file that was named"),
    "mirror gives old targets": (mirror_gives("targets", 1), "image targets: expected the file that was named"),
    "mirror gives an old bin": (mirror_gives("bin-", 1), "image bin-.: expected the file that was named"),
    "old snapshot where no digest is named": (
        mirror_gives_unhashed("snapshot", "image timestamp"), "image snapshot: expected version"),
    "old targets where no digest is named": (
        mirror_gives_unhashed("targets", "image snapshot"), "image targets: expected version"),
    "old bin where no digest is named": (mirror_gives_unhashed("bin-", "image snapshot"), "image bin-.: expected version"),  # noqa: E501
    "earlier director snapshot": (kept_from_before("director_snapshot"), "director snapshot: expected the file"),
    "earlier director targets": (kept_from_before("director_targets"), "director targets: expected the file"),
    "earlier director timestamp": (kept_from_before("director_timestamp"), "director snapshot: expected the file"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_changes_nothing_and_harms_nobody_later(name: str, tmp_path: Path) -> None:
    check(Case.at(tmp_path), *ATTACKS[name])
