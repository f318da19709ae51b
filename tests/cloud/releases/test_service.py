"""The Updates service through a real server and mTLS: what a vehicle may say, what it is told, what it may fetch."""

from __future__ import annotations

import datetime
import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import insert, select, update
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from cloud import identity
from cloud.releases import rotation, stops, tallies
from cloud.releases.keys import DIRECTOR
from cloud.releases.releases import Release
from cloud.releases.repositories import TRUST_S
from cloud.releases.service import CHECK_INS, CHUNK_BYTES, FETCHES
from cloud.tables import ASSIGNMENTS, DELTAS, FLEET, TALLIES
from edge.updates.manifest import MOST_BYTES
from edge.uplink.identity import enrol
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2 import MODE_ACTIVATE, MODE_SHADOW, SlotContent, Stage

from ..fleet import Cloud, Status, refused
from ..test_hostile import REFUSALS, mangled
from .agent import Agent, evidence
from .shelf import Shelf, now

CASES = 300
NIGHT, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def served(cloud: Cloud, bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A running server whose cloud has two releases; before, it has no repositories."""
    assert cloud.database is not None
    shelf = Shelf(cloud.database, cloud.data, [tmp_path_factory.mktemp("keys")])
    served = Served(cloud, shelf)
    agent = served.agent()
    with refused(Status.FAILED_PRECONDITION, "no release repositories yet"):
        agent.check_in()
    agent.vehicle.report(last=1)  # all else is as before
    shelf.create()
    served.releases = [shelf.add(bundles[0]), shelf.add(bundles[1], hardware=["orin"])]
    time.sleep(TRUST_S)
    yield served
    shelf.engine.dispose()


class Served:
    """A server and its shelf."""

    releases: list[Release]

    def __init__(self, cloud: Cloud, shelf: Shelf) -> None:
        self.cloud, self.shelf = cloud, shelf

    def agent(self) -> Agent:
        """A vehicle that was enrolled just now."""
        return Agent(self.cloud.vehicle())

    def assign(self, agent: Agent, counter: int, mode: int = MODE_SHADOW) -> None:
        """Let a vehicle go for a release."""
        values = {"vehicle": agent.name, "rollout": "r-1", "release": counter, "mode": mode, "wave": 0}
        self.shelf.do(lambda connection: connection.execute(insert(ASSIGNMENTS).values(**values)))

    def row(self, agent: Agent) -> Any:
        """What the fleet's table says of a vehicle."""
        with self.shelf.engine.connect() as connection:
            return connection.execute(select(FLEET).where(FLEET.c.vehicle == agent.name)).one_or_none()

    def tallies(self, agent: Agent) -> dict[Any, Any]:
        """Rows of a vehicle: (bundle, shadow, account, slice) -> (seconds, frames, counts)."""
        with self.shelf.engine.connect() as connection:
            rows = connection.execute(select(TALLIES).where(TALLIES.c.vehicle == agent.name))
            return {
                (row.bundle_id, row.is_shadow, bytes(row.account), row.slice): (row.seconds, row.frames, row.counts)
                for row in rows
            }


@pytest.fixture
def agent(served: Served) -> Iterator[Agent]:
    one = served.agent()
    yield one
    one.vehicle.channel.close()


def test_a_check_in_is_answered_for_this_vehicle_and_this_call(served: Served, agent: Agent) -> None:
    before = now()
    first, second = agent.check_in(), agent.check_in()
    assert second.version > first.version
    assert first.targets == {} and first.roadfuse["mode"] == 0 and first.roadfuse["rollout"] == ""
    assert set(first.roadfuse) == {
        "vehicle", "nonce", "now", "mode", "rollout", "stop_number", "stopped", "next_contact_s",
    }  # fmt: skip
    assert first.roadfuse["now"] >= before.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert 1 <= first.response.next_contact_s <= first.roadfuse["next_contact_s"] <= 86_400
    assert first.response.director_targets != second.response.director_targets


def test_an_assignment_names_the_target_as_the_image_repository_does(served: Served, agent: Agent) -> None:
    served.assign(agent, 1, MODE_ACTIVATE)
    told = agent.check_in()
    release = served.releases[0]
    assert told.roadfuse["mode"] == MODE_ACTIVATE and told.roadfuse["rollout"] == "r-1"
    ((path, target),) = told.targets.items()
    named = release.image_target()
    assert (path, target["length"], target["hashes"]) == (release.path, named.length, named.hashes)
    assert target["custom"] == {"bundle": release.bundle, "counter": 1, "hardware": ["x86"]}
    assert {name: named.custom[name] for name in target["custom"]} == target["custom"]


def test_a_release_for_other_hardware_is_not_given(served: Served, agent: Agent) -> None:
    served.assign(agent, 2)
    assert agent.check_in().targets == {}
    assert list(agent.check_in(hardware_class="orin").targets) == [served.releases[1].path]


def test_what_is_stopped_is_told_and_not_given(served: Served, agent: Agent) -> None:
    served.assign(agent, 1)
    assert agent.check_in().targets != {}
    bundle = served.releases[0].bundle
    number = served.shelf.do(stops.stop, bundle, "worse", "r-1")
    try:
        told = agent.check_in()
        assert told.targets == {} and told.roadfuse["mode"] == 0
        assert told.roadfuse["stopped"] == [bundle] and told.roadfuse["stop_number"] == number
    finally:
        served.shelf.do(stops.lift, bundle)
    told = agent.check_in()
    assert told.targets != {} and told.roadfuse["stopped"] == [] and told.roadfuse["stop_number"] > number


def test_a_revoked_release_is_neither_given_nor_fetched(served: Served, agent: Agent, bundles: list[Path]) -> None:
    release = served.shelf.add(bundles[2])
    served.assign(agent, release.counter)
    assert list(agent.check_in().targets) == [release.path]
    manifest = bytes.fromhex(release.bundle)
    assert agent.fetch(manifest)
    served.shelf.revoke(release.counter)
    told = agent.check_in()
    assert told.targets == {} and release.bundle in told.roadfuse["stopped"]
    with refused(Status.NOT_FOUND, "expected a file of a release"):
        agent.fetch(manifest)
    served.shelf.do(stops.lift, release.bundle)  # the bundle may come back, by another release
    assert agent.check_in().targets == {}


def test_the_fleet_is_as_vehicles_say(served: Served, agent: Agent) -> None:
    request = agent.request(
        active=SlotContent(bundle_id=NIGHT, counter=7), previous=SlotContent(), staged=SlotContent(bundle_id=OTHER),
        refused=SlotContent(bundle_id="c" * 64), why="late", stage=Stage.STAGE_SHADOWING, rollout="r-9",
        highest_counter=7,
    )  # fmt: skip
    told = agent.check_in(request)
    row = served.row(agent)
    assert (row.hardware, row.stage, row.active, row.previous, row.staged) == ("x86", 6, NIGHT, "", OTHER)
    assert (row.counter, row.rollout, row.why, row.refused, row.software) == (7, "r-9", "late", "c" * 64, "0.1.0")
    assert updates_pb2.SignedManifest.FromString(bytes(row.manifest)) == request.manifest
    assert row.director_version == told.version and row.seen_at is not None


def test_versions_grow_after_an_older_copy_of_the_catalogue_was_put_back(served: Served, agent: Agent) -> None:
    told = agent.check_in()
    served.shelf.do(
        lambda connection: connection.execute(
            update(FLEET).where(FLEET.c.vehicle == agent.name).values(director_version=5)
        )
    )
    assert agent.check_in().version >= told.version
    served.shelf.do(
        lambda connection: connection.execute(
            update(FLEET).where(FLEET.c.vehicle == agent.name).values(director_version=1 << 40)
        )
    )
    assert agent.check_in().version == (1 << 40) + 1


def test_tallies_grow_within_an_account_and_never_go_down(served: Served, agent: Agent) -> None:
    key = (NIGHT, True, b"one", "all")
    agent.check_in(evidence=[evidence(NIGHT, b"one", True, all=(10.0, 200, {"late": 3, "worse": 1}))])
    assert served.tallies(agent) == {key: (10.0, 200, {"late": 3, "worse": 1})}
    agent.check_in(evidence=[evidence(NIGHT, b"one", True, all=(20.0, 100, {"late": 5, "same": 9}))])
    assert served.tallies(agent) == {key: (20.0, 200, {"late": 5, "worse": 1, "same": 9})}
    agent.check_in(evidence=[evidence(NIGHT, b"one", True, all=(1.0, 1, {}))])
    agent.check_in()
    assert served.tallies(agent) == {key: (20.0, 200, {"late": 5, "worse": 1, "same": 9})}
    agent.check_in(
        evidence=[
            evidence(NIGHT, b"two", True, all=(1.0, 20, {"late": 1})),
            evidence("", b"one", night=(2.0, 40, {}), rain=(3.0, 60, {})),
        ]
    )
    assert served.tallies(agent) == {
        key: (20.0, 200, {"late": 5, "worse": 1, "same": 9}),
        (NIGHT, True, b"two", "all"): (1.0, 20, {"late": 1}),
        ("", False, b"one", "night"): (2.0, 40, {}),
        ("", False, b"one", "rain"): (3.0, 60, {}),
    }


def test_a_vehicle_fills_its_own_rows_only_so_far(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "MOST_ROWS", 3)
    agent = served.agent()
    for account in (b"a", b"b"):
        told = tallies.checked([evidence(NIGHT, account, all=(1.0, 1, {}), night=(1.0, 1, {}))])
        served.shelf.do(tallies.keep, agent.name, told)
    assert len(served.tallies(agent)) == 2  # the second account would make four
    told = tallies.checked([evidence(NIGHT, b"a", all=(5.0, 5, {"late": 1}))])
    assert served.shelf.do(tallies.keep, agent.name, told) == 1
    assert served.shelf.do(tallies.keep, agent.name, told) == 0  # nothing new
    assert served.tallies(agent)[(NIGHT, False, b"a", "all")] == (5.0, 5, {"late": 1})


def test_a_manifest_must_be_the_callers_own_for_this_call(served: Served, agent: Agent) -> None:
    other = served.agent()
    nonce = os.urandom(16)
    mine = agent.manifest(nonce).SerializeToString()

    def send(signed: Any, of_nonce: bytes = nonce) -> None:
        agent.stub.CheckIn(updates_pb2.CheckInRequest(nonce=of_nonce, manifest=signed), timeout=30)

    with refused(Status.PERMISSION_DENIED, f"expected a manifest of {agent.name}"):
        send(agent.signed(other.manifest(nonce).SerializeToString()))
    with refused(Status.PERMISSION_DENIED, "another signature"):
        send(agent.signed(mine, key=other.vehicle.key))
    with refused(Status.PERMISSION_DENIED, "another signature"):
        send(agent.signed(mine, over=b"roadfuse manifest 2\0"))
    with refused(Status.PERMISSION_DENIED, "another signature"):
        send(agent.signed(mine, over=b""))
    with refused(Status.PERMISSION_DENIED, "one with another nonce"):
        send(agent.signed(mine), os.urandom(16))
    altered = agent.signed(mine)
    altered.manifest = agent.manifest(nonce, software="9").SerializeToString()
    with refused(Status.PERMISSION_DENIED, "another signature"):
        send(altered)
    assert served.row(agent) is None and served.row(other) is None
    send(agent.signed(mine))


@pytest.mark.parametrize(
    "fields",
    [
        {"hardware_class": "h" * 65},
        {"why": "w" * 1_025},
        {"why": "zero\0"},
        {"rollout": "r" * 129},
        {"software": "s" * 129},
        {"stage": 99},
        {"active": SlotContent(bundle_id="../../etc")},
        {"staged": SlotContent(bundle_id="A" * 64)},
        {"active": SlotContent(bundle_id=NIGHT, counter=(1 << 64) - 1)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_manifest_out_of_bounds_is_refused(served: Served, agent: Agent, fields: dict[str, Any]) -> None:
    with refused(Status.INVALID_ARGUMENT, "expected"):
        agent.check_in(**fields)
    assert served.row(agent) is None


@pytest.mark.parametrize(
    "told",
    [
        [evidence("no id", b"a")],
        [evidence(NIGHT, b"")],
        [evidence(NIGHT, b"a" * 65)],
        [evidence(NIGHT, bytes([n])) for n in range(17)],
        [evidence(NIGHT, b"a", **{f"s{n}": (1.0, 1, {}) for n in range(65)})],
        [evidence(NIGHT, b"a", **{"Night!": (1.0, 1, {})})],
        [evidence(NIGHT, b"a", all=(float("nan"), 1, {}))],
        [evidence(NIGHT, b"a", all=(float("inf"), 1, {}))],
        [evidence(NIGHT, b"a", all=(-1.0, 1, {}))],
        [evidence(NIGHT, b"a", all=(1.0, (1 << 64) - 1, {}))],
        [evidence(NIGHT, b"a", all=(1.0, 1, {"late": 1 << 60}))],
        [evidence(NIGHT, b"a", all=(1.0, 1, {f"m{n}": 1 for n in range(65)}))],
        [evidence(NIGHT, b"a", all=(1.0, 1, {"x'; DROP": 1}))],
    ],
    ids=[
        "bundle", "no-account", "long-account", "accounts", "slices", "slice-name", "nan", "infinite", "negative",
        "frames", "count", "metrics", "metric-name",
    ],
)  # fmt: skip
def test_evidence_out_of_bounds_is_refused_and_nothing_is_kept(served: Served, agent: Agent, told: Any) -> None:
    with refused(Status.INVALID_ARGUMENT, "expected"):
        agent.check_in(evidence=told)
    assert served.tallies(agent) == {} and served.row(agent) is None


def test_sizes_are_bounded_before_anything_is_verified(agent: Agent) -> None:
    for nonce in (b"", b"n" * 15, b"n" * 17):
        with refused(Status.INVALID_ARGUMENT, "nonce of 16 bytes"):
            agent.stub.CheckIn(updates_pb2.CheckInRequest(nonce=nonce), timeout=30)
    nonce = os.urandom(16)
    for size in (0, MOST_BYTES + 1):
        with refused(Status.INVALID_ARGUMENT, "manifest of 1 to"):
            signed = agent.signed(b"m" * size)
            agent.stub.CheckIn(updates_pb2.CheckInRequest(nonce=nonce, manifest=signed), timeout=30)


def test_mangled_messages_are_refused_or_change_nothing_but_their_own_vehicle(served: Served) -> None:
    dice = random.Random(5)
    victim, attacker = served.agent(), served.agent()
    victim.check_in(evidence=[evidence(NIGHT, b"v", all=(1.0, 1, {"late": 1}))])
    before = served.row(victim), served.tallies(victim)
    whole = [
        ("CheckIn", attacker.request(evidence=[evidence(NIGHT, b"v", all=(1.0, 1, {"late": 1}))])),
        ("ImageMetadata", updates_pb2.ImageMetadataRequest(role="snapshot", version=1)),
        ("Delta", updates_pb2.DeltaRequest(have_sha256=[b"h" * 32], want_sha256=b"w" * 32)),
        ("Fetch", updates_pb2.FetchRequest(sha256=b"f" * 32, offset=1)),
    ]
    refusals = 0
    for number in range(CASES):
        name, message = whole[number % len(whole)]
        payload = mangled(dice, message.SerializeToString())
        call = f"/roadfuse.v1.Updates/{name}"
        try:
            if name == "Fetch":
                list(attacker.vehicle.channel.unary_stream(call)(payload, timeout=30))
            else:
                attacker.vehicle.channel.unary_unary(call)(payload, timeout=30)
        except grpc.RpcError as error:
            status: Any = error
            assert status.code() in REFUSALS, f"case {number}: {status.code()}: {status.details()}"
            assert "\n" not in status.details()
            refusals += 1
    assert refusals > CASES // 2
    assert (served.row(victim), served.tallies(victim)) == before
    victim.check_in()


def test_a_vehicle_that_calls_without_end_is_slowed(served: Served, agent: Agent) -> None:
    with refused(Status.RESOURCE_EXHAUSTED, "wait"):
        for _ in range(10 * CHECK_INS[0]):
            _fail_fast(agent)
    served.agent().check_in()  # others are not


def _fail_fast(agent: Agent) -> None:
    """A check-in that is refused for its nonce, which costs the server little."""
    try:
        agent.stub.CheckIn(updates_pb2.CheckInRequest(), timeout=30)
    except grpc.RpcError as error:
        answer: Any = error
        if answer.code() != Status.INVALID_ARGUMENT:
            raise


def test_metadata_of_the_image_repository_is_given_by_role_and_version(served: Served, agent: Agent) -> None:
    timestamp = Metadata[Timestamp].from_bytes(agent.check_in().response.image_timestamp).signed
    ask = updates_pb2.ImageMetadataRequest(role="snapshot", version=timestamp.snapshot_meta.version)
    content = agent.stub.ImageMetadata(ask, timeout=30).content
    timestamp.snapshot_meta.verify_length_and_hashes(content)
    for name, meta in Metadata[Snapshot].from_bytes(content).signed.meta.items():
        ask = updates_pb2.ImageMetadataRequest(role=name.removesuffix(".json"), version=meta.version)
        meta.verify_length_and_hashes(agent.stub.ImageMetadata(ask, timeout=30).content)
    for role, version, status in (
        ("snapshot", 9_999, Status.NOT_FOUND),
        ("snapshot", 0, Status.INVALID_ARGUMENT),
        ("snapshot", (1 << 64) - 1, Status.INVALID_ARGUMENT),
        ("bin-g", 1, Status.INVALID_ARGUMENT),
        ("../root", 1, Status.INVALID_ARGUMENT),
    ):
        with refused(status, "expected"):
            agent.stub.ImageMetadata(updates_pb2.ImageMetadataRequest(role=role, version=version), timeout=30)


def test_files_of_a_release_are_given_from_any_offset(served: Served, agent: Agent) -> None:
    for file in served.releases[0].files:
        digest = bytes.fromhex(file.sha256)
        whole = agent.fetch(digest)
        assert len(whole) == file.length and hashlib.sha256(whole).digest() == digest
        for offset in (1, file.length - 1, file.length, min(CHUNK_BYTES + 7, file.length)):
            assert agent.fetch(digest, offset) == whole[offset:]
        with refused(Status.INVALID_ARGUMENT, f"an offset up to {file.length}"):
            agent.fetch(digest, file.length + 1)


def test_nothing_else_among_the_objects_is_given_away(served: Served, agent: Agent) -> None:
    secret = b"somebody's clip"
    digest = hashlib.sha256(secret).digest()
    served.shelf.objects.put_contents([(f"releases/{digest.hex()}", secret)])
    with refused(Status.NOT_FOUND, "expected a file of a release"):
        agent.fetch(digest)
    for wrong in (b"", b"short", b"l" * 33):
        with refused(Status.INVALID_ARGUMENT, "SHA-256 of 32 bytes"):
            agent.fetch(wrong)


def test_a_vehicle_fetches_only_so_many_files_at_once(served: Served, agent: Agent) -> None:
    """Of a delta, so large that what is not read waits in the server."""
    content = os.urandom(24 << 20)
    digest = hashlib.sha256(content).digest()
    served.shelf.objects.put_contents([(f"releases/{digest.hex()}", content)])
    row = {"base_sha256": b"b" * 32, "want_sha256": b"w" * 32, "delta_sha256": digest, "bytes": len(content)}
    served.shelf.do(lambda connection: connection.execute(insert(DELTAS).values(**row)))
    streams = [agent.stub.Fetch(updates_pb2.FetchRequest(sha256=digest), timeout=60) for _ in range(FETCHES[0])]
    for stream in streams:
        next(stream)
    with refused(Status.RESOURCE_EXHAUSTED, "files at once"):
        agent.fetch(digest)
    other = served.agent()
    assert other.fetch(digest) == content
    for stream in streams:
        stream.cancel()


def test_a_delta_is_asked_for_files_of_releases_alone(served: Served, agent: Agent) -> None:
    want = bytes.fromhex(served.releases[0].files[0].sha256)
    assert agent.stub.Delta(updates_pb2.DeltaRequest(want_sha256=want), timeout=30) == updates_pb2.DeltaResponse()
    with refused(Status.NOT_FOUND, "expected a file of a release"):
        agent.stub.Delta(updates_pb2.DeltaRequest(want_sha256=b"n" * 32), timeout=30)
    with refused(Status.INVALID_ARGUMENT, "at most 256"):
        have = [os.urandom(32) for _ in range(257)]
        agent.stub.Delta(updates_pb2.DeltaRequest(have_sha256=have, want_sha256=want), timeout=30)


def test_roots_follow_the_one_that_a_vehicle_has(served: Served, agent: Agent) -> None:
    first = agent.check_in()
    newest = len(first.response.director_roots)
    change = served.shelf.do(rotation.replace, DIRECTOR, "targets", None, served.shelf.keys, now())
    time.sleep(TRUST_S)
    told = agent.check_in()  # verified with the new key
    assert len(told.response.director_roots) == newest + 1 and change.published == ("root",)
    request = agent.request(versions=(newest, 1))
    assert len(agent.stub.CheckIn(request, timeout=30).director_roots) == 1
    request = agent.request(versions=(newest + 1, 1_000))
    response = agent.stub.CheckIn(request, timeout=30)
    assert not response.director_roots and not response.image_roots


def test_a_revoked_vehicle_hears_nothing(served: Served) -> None:
    agent = served.agent()
    agent.check_in()
    served.shelf.do(identity.revoke, agent.name)
    time.sleep(identity.TRUST_S)
    digest = bytes.fromhex(served.releases[0].bundle)
    for call in (agent.check_in, lambda: agent.fetch(digest)):
        with refused(Status.UNAUTHENTICATED, "revoked"):
            call()


def test_enrolment_brings_the_roots_with_which_trust_begins(served: Served, tmp_path: Path) -> None:
    token = served.shelf.do(identity.give_token, "car-new", datetime.timedelta(hours=1))
    (tmp_path / "ca.pem").write_bytes(served.cloud.ca)
    enrol(f"localhost:{served.cloud.enrol_port}", tmp_path / "id", "car-new", token, tmp_path / "ca.pem")
    assert (tmp_path / "id" / "image-root.json").read_bytes() == served.shelf.root()
    told = Agent(served.cloud.vehicle()).check_in()
    assert (tmp_path / "id" / "director-root.json").read_bytes() == told.response.director_roots[-1]


def test_without_a_certificate_there_is_no_answer(served: Served) -> None:
    with grpc.secure_channel(
        f"127.0.0.1:{served.cloud.port}", grpc.ssl_channel_credentials(served.cloud.ca)
    ) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            channel.unary_unary("/roadfuse.v1.Updates/CheckIn")(b"", timeout=10)
        assert refusal.value.code() == Status.UNAVAILABLE  # type: ignore[attr-defined]
