"""What Uptane adds: whom an answer is for, what both repositories must agree on, and one of them in a thief's hands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile

from edge.updates.trust import ReleaseRefused
from roadfuse.v1 import updates_pb2

from .attack import Attack, Case, both, check, custom, setting, target, word
from .repositories import new_key


def director_names_two(case: Case) -> None:
    def added(targets: Any) -> None:
        targets.targets["model/1/manifest.json"] = case.cloud.targets["model/1/manifest.json"]

    case.edit("director targets", added)


def director_delegates(case: Case) -> None:
    key = new_key().public_key
    role = DelegatedRole("thief", [key.keyid], 1, False, paths=["*"])
    delegations = Delegations({key.keyid: key}, roles={"thief": role})
    case.edit("director targets", setting("delegations", delegations))


def bin_delegates(case: Case) -> None:
    key = new_key().public_key
    role = DelegatedRole("thief", [key.keyid], 1, False, paths=["*"])
    case.edit("image bins", setting("delegations", Delegations({key.keyid: key}, roles={"thief": role})))


def image_without_bins(case: Case) -> None:
    case.edit("image targets", setting("delegations", None))


def director_alone_compromised(case: Case) -> None:
    """The thief of all online keys names a release of his own."""

    def forged(targets: Any) -> None:
        (known,) = targets.targets.values()
        path = "model/3/manifest.json"
        made = TargetFile(known.length, {"sha256": "66" * 32}, path)
        made.unrecognized_fields["custom"] = {**known.custom, "bundle": "66" * 32, "counter": 3}
        targets.targets = {path: made}

    case.edit("director targets", forged)


def director_sends_back(case: Case) -> None:
    """The thief of all online keys names an old release, which exists."""
    case.cloud.assigned = "model/2/manifest.json"
    case.vehicle.check_in()
    case.cloud.assigned = "model/1/manifest.json"


def image_alone_compromised(case: Case) -> None:
    """The thief of all the image repository's keys puts his own bundle under the path."""

    def forged(one: TargetFile) -> None:
        one.hashes = {"sha256": "66" * 32}
        one.custom["bundle"] = "66" * 32

    case.edit("image bins", target(forged))


def files(change: Callable[[list[Any]], Any]) -> Callable[[Case], None]:
    def changed(one: TargetFile) -> None:
        listed = one.custom["files"]
        one.custom["files"] = change(listed) or listed

    return lambda case: case.edit("image bins", target(changed))


def stopped_bundle(case: Case) -> None:
    case.cloud.stop_number = 1
    case.cloud.stopped = [case.cloud.targets["model/2/manifest.json"].custom["bundle"]]


def old_stop_notice(case: Case) -> None:
    case.cloud.stop_number = 5
    case.vehicle.check_in()
    case.cloud.stop_number = 4


# Answers


def replayed(case: Case) -> None:
    """The whole answer to the call before."""
    request = case.vehicle.request()
    earlier = case.cloud.check_in(request)
    case.vehicle.believe(earlier, request.nonce)
    case.check_in = lambda: case.vehicle.believe(earlier, case.vehicle.nonce())


def replayed_with_its_nonce(case: Case) -> None:
    request = case.vehicle.request()
    earlier = case.cloud.check_in(request)
    case.vehicle.believe(earlier, request.nonce)
    case.check_in = lambda: case.vehicle.believe(earlier, request.nonce)


def never_asked(case: Case) -> None:
    nonce = b"n" * 16
    case.check_in = lambda: case.vehicle.believe(case.cloud.check_in(updates_pb2.CheckInRequest(
        nonce=nonce, director_root_version=1, image_root_version=1)), nonce)  # fmt: skip


def answer_to_another_vehicle(case: Case) -> None:
    """Signed for its name, and for its nonce."""

    def check_in() -> Any:
        case.cloud.vehicle = "car-8"
        other = updates_pb2.CheckInRequest(nonce=b"8" * 16, director_root_version=1, image_root_version=1)
        response = case.cloud.check_in(other)
        case.cloud.vehicle = "car-7"
        return case.vehicle.believe(response, case.vehicle.nonce())

    case.check_in = check_in


ATTACKS: dict[str, Attack] = {
    # Uptane: the director's word.
    "bundle for another vehicle": (
        lambda case: case.edit("director targets", word(vehicle="car-8")), "for car-7, got one for car-8"),
    "answer of another nonce": (
        lambda case: case.edit("director targets", word(nonce="00" * 16)), "expected the nonce of this check-in"),
    "answer without a nonce": (
        lambda case: case.edit("director targets", word(nonce="")), "expected the nonce of this check-in"),
    "answer without a word": (
        lambda case: case.edit("director targets", setting("unrecognized_fields", {})), "expected an object roadfuse"),
    "whole answer replayed": (replayed, "expected the nonce of this check-in"),
    "whole answer replayed with its nonce": (replayed_with_its_nonce, "an answer to the last nonce"),
    "answer that nobody asked for": (never_asked, "an answer to the last nonce"),
    "answer to another vehicle": (answer_to_another_vehicle, "for car-7, got one for car-8"),
    "time in another form": (
        lambda case: case.edit("director targets", word(now="2026-01-01 00:00")), "now: expected an instant"),
    "target without a mode": (lambda case: case.edit("director targets", word(mode=0)), "expected a mode of 1 or 2"),
    "mode that there is not": (lambda case: case.edit("director targets", word(mode=9)), "expected a mode of 1 or 2"),
    "stop notice rolled back": (old_stop_notice, "expected stop notice 5 or later, got 4"),
    "stopped bundle assigned": (stopped_bundle, "expected a bundle that is not stopped"),
    # Uptane: extraneous dependencies and partial bundles.
    "director names two targets": (director_names_two, "expected at most one target, got 2"),
    "director delegates": (director_delegates, "director targets: expected no delegations"),
    "bin delegates": (bin_delegates, "expected a bin that delegates to nobody"),
    "image repository without bins": (image_without_bins, "image targets: expected hash bins"),
    "bundle without files": (lambda case: case.edit("image bins", custom(files=[])), "expected 1..256 files"),
    "bundle without its manifest": (files(lambda listed: listed[1:]), "among its files, got another or none"),
    "bundle with another manifest": (
        files(lambda listed: listed[0].update(sha256="66" * 32)), "among its files, got another or none"),
    "file of a bundle twice": (files(lambda listed: [*listed, listed[-1]]), "expected each file once"),
    "file outside the bundle": (files(lambda listed: listed[1].update(name="../trust.a")), "inside the bundle"),
    "file of another root": (files(lambda listed: listed[1].update(name="/etc/passwd")), "inside the bundle"),
    "file that is too long": (files(lambda listed: listed[1].update(length=1 << 40)), "expected at most 1073741824"),
    "files that are too long": (
        files(lambda listed: [listed[0], *({**listed[1], "name": f"f{n}", "length": 1 << 30} for n in range(3))]),
        "expected at most 2147483648 bytes in all"),
    # Uptane: the two repositories disagree.
    "other hardware class": (lambda case: both(case, custom(hardware=["orin"])), "expected one for x86, got one for orin"),  # noqa: E501
    "other hardware class, says the image repository": (
        lambda case: case.edit("image bins", custom(hardware=["orin"])), "for orin, says the image repository"),
    "other hardware class, says the director": (
        lambda case: case.edit("director targets", custom(hardware=["orin"])), "for orin, says the director"),
    "length": (lambda case: case.edit("director targets", target(setting("length", 7))), "one length of both"),
    "digests": (
        lambda case: case.edit("director targets", target(lambda one: one.hashes.update(sha512="66" * 64))),
        "one hashes of both"),
    "bundle is not its manifest": (
        lambda case: case.edit("director targets", custom(bundle="66" * 32)), "SHA-256 is the bundle's id"),
    "counter is not its path's": (
        lambda case: case.edit("director targets", custom(counter=7)), "expected the counter of its path, 2, got 7"),
    "path that is none": (
        lambda case: case.edit("director targets", lambda targets: targets.targets.update({
            "model": TargetFile(1, {"sha256": "66" * 32}, "model")}) or targets.targets.pop("model/2/manifest.json")),
        "expected a target NAME/COUNTER/manifest.json"),
    "custom fields missing": (
        lambda case: case.edit("image bins", target(lambda one: one.unrecognized_fields.clear())), "custom fields"),
    "director alone compromised": (director_alone_compromised, "expected model/3/manifest.json, got no such target"),
    "director sends back": (director_sends_back, "expected a counter of at least 2, got 1: a rollback"),
    "image repository alone compromised": (image_alone_compromised, "expected one hashes of both repositories"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_changes_nothing_and_harms_nobody_later(name: str, tmp_path: Path) -> None:
    check(Case.at(tmp_path), *ATTACKS[name])


def test_refused_release_leaves_the_stop_order_standing(tmp_path: Path) -> None:
    case = Case.at(tmp_path)
    bad = case.cloud.targets["model/1/manifest.json"].custom["bundle"]
    case.cloud.stop_number, case.cloud.stopped = 1, [bad]
    case.edit("image bins", setting("expires", case.cloud.now))
    with pytest.raises(ReleaseRefused) as refusal:
        case.vehicle.check_in()
    assert refusal.value.assignment.release is None
    assert refusal.value.assignment.stopped == {bad}
