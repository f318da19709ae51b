"""Campaigns from end to end: a command, a server, and vehicles that hear of it, choose, and stop."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from cloud.campaigns import asks, book, signing
from cloud.campaigns.command import main as campaign_main
from cloud.campaigns.delivery import STANDS_S
from cloud.database import connect
from cloud.errors import CloudError, QueryError
from cloud.search.predicate import Has
from cloud.search.query import Query
from cloud.tables import ASKS, CAMPAIGNS, SCENES
from edge.campaigns import file
from edge.campaigns.choosing import Campaigns
from edge.campaigns.trust import Trust
from edge.uplink.asks import Asks
from edge.uplink.client import Uplink
from edge.uplink.outbox import Outbox, Quota
from edge.uplink.pace import Link
from edge.uplink.summary import quantised
from roadfuse.v1 import campaign_pb2, ingest_pb2
from roadfuse.v1.ingest_pb2 import SceneSummary

from ..fleet import Cloud, Vehicle, summary

NIGHT = '{"has": "light:night"}'


@pytest.fixture(scope="module")
def engine(cloud: Cloud) -> Iterator[Engine]:
    assert cloud.database is not None
    engine = connect(cloud.database)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def quiet(engine: Engine) -> Iterator[None]:
    """Each test's campaigns end with it."""
    yield
    over = update(CAMPAIGNS).where(CAMPAIGNS.c.expires_at > CAMPAIGNS.c.created_at)
    with engine.begin() as connection:
        were = connection.execute(over.values(expires_at=CAMPAIGNS.c.created_at)).rowcount
    if were:
        time.sleep(STANDS_S)


class Car:
    """A vehicle with a spool, and its uplink over a metered link: nothing goes up that nobody asks for."""

    def __init__(self, cloud: Cloud, folder: Path, clips: Any = "wanted") -> None:
        self.vehicle: Vehicle = cloud.vehicle()
        (folder / "ca.pem").write_bytes(cloud.ca)
        self.outbox = Outbox(folder / "spool", Quota(1 << 40, 0))
        self.lines: list[str] = []
        trust = Trust.of(folder / "ca.pem")
        self.campaigns = Campaigns(self.outbox, trust, self.vehicle.name, say=self.lines.append)
        self.uplink = Uplink(
            self.outbox,
            self.vehicle.channel,
            lambda: Link(clips=clips),
            say=self.lines.append,
            campaigns=self.campaigns,
        )

    def held(self, content: bytes, **fields: Any) -> int:
        told = SceneSummary(first_ns=1, last_ns=3, peak_ns=2, hardness=0.3, bundle_id="b" * 64, **fields)
        sequence, _ = self.outbox.give(told, 0.1)
        self.outbox.path(sequence).write_bytes(content)
        self.outbox.hold(sequence, hashlib.sha256(content).digest(), len(content))
        return sequence

    def go_on(self) -> None:
        """All that is to be told and sent now, and a word from the cloud."""
        self.uplink._heard_s = -1e9
        while self.uplink.step():
            pass

    def until(self, holds: Callable[[], bool]) -> None:
        """Goes on until what the cloud knew a second ago has passed."""
        end = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < end, self.lines
            self.go_on()
            time.sleep(0.1)

    def received(self) -> list[str]:
        return sorted(Path(name).stem.partition("-")[0] for name in self.vehicle.cloud.objects(self.vehicle.name))

    def looks_for(self) -> list[str]:
        path = self.outbox.folder / file.NAME
        return [probe.name for probe in file.read(path).probes] if path.exists() else []


@pytest.fixture
def car(cloud: Cloud, tmp_path: Path) -> Car:
    return Car(cloud, tmp_path)


def campaign(cloud: Cloud, *words: object, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    where = ["--data", str(cloud.data), "--database", str(cloud.database), "--json"]
    assert campaign_main([*map(str, words), *where]) == 0
    return json.loads(capsys.readouterr().out)


def dark(**fields: Any) -> dict[str, Any]:
    return {"scene_tags": [{"name": "night", "probability": 0.9}], **fields}


def test_a_campaign_brings_a_buffered_scene_that_was_not_going_up_and_a_stop_ends_it(
    cloud: Cloud, car: Car, capsys: pytest.CaptureFixture[str]
) -> None:
    night, _ = car.held(b"dark clip", **dark()), car.held(b"light clip")
    car.go_on()
    assert car.received() == []
    words = ["create", "night", "--where", NIGHT, "--budget-mb", 1, "--days", 1]
    made = campaign(cloud, *words, capsys=capsys)
    car.until(lambda: car.received() != [])
    assert len(car.received()) == 1 and str(night) in car.received()[0]
    shown = campaign(cloud, "show", made["id"], capsys=capsys)
    (scene,) = shown["scenes"]
    assert (scene["vehicle"], scene["sequence"], scene["score"]) == (car.vehicle.name, night, 1.0)
    assert shown["spent_bytes"] == len(b"dark clip") and shown["matches"] == 1 and shown["state"] == "active"
    assert car.looks_for() == ["night"]
    assert campaign_main(["stop", made["id"], "--data", str(cloud.data), "--database", str(cloud.database)]) == 0
    car.until(lambda: car.looks_for() == [])
    car.held(b"another dark clip", **dark())
    car.go_on()
    assert len(car.received()) == 1 and car.outbox.account().held == 2
    (listed,) = [one for one in campaign(cloud, "list", capsys=capsys) if one["id"] == made["id"]]
    assert listed["state"] == "stopped" and car.lines == []


def test_a_live_frame_opens_a_scene_for_a_campaign_and_it_goes_up(
    cloud: Cloud, car: Car, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge.loop import LoopConfig
    from edge.recorder import Recorder
    from edge.replay import Replay
    from export.world.command import main as simulate

    from ...edge.campaigns.calm import CALM

    drive = tmp_path / "drive.mcap"
    assert simulate(["--seed", "5", "--seconds", "2.5", "--out", str(drive), "--json"]) == 0

    def driven(config: LoopConfig) -> Replay:
        path = car.outbox.folder / file.NAME
        recorder = Recorder(None, car.outbox.folder, config.scenes, lossless=True)
        probes = file.read(path) if path.exists() else None
        with Replay(drive, config=config, recorder=recorder, probes=probes) as run:
            run.last = list(run)[25]  # type: ignore[attr-defined]
        return run

    frame = driven(CALM).last  # type: ignore[attr-defined]
    car.go_on()
    assert car.outbox.account().given == 0, "nothing is hard here"
    signed, scale = quantised(frame.embedding)
    example = summary(1, embedding=signed, embedding_scale=scale, bundle_id=frame.bundle_id)
    other = cloud.vehicle()
    other.report(example)
    with connect(str(cloud.database)).connect() as connection:
        query = select(SCENES.c.id).where(SCENES.c.vehicle == other.name)
        scene_id = connection.execute(query).scalar_one()
    words = ["create", "more", "--scene", scene_id, "--least-cosine", 0.9, "--budget-mb", 100, "--days", 1]
    made = campaign(cloud, *words, capsys=capsys)
    car.until(lambda: car.looks_for() == ["more"])
    driven(CALM)
    car.until(lambda: len(car.received()) == 1)
    (scene,) = campaign(cloud, "show", made["id"], capsys=capsys)["scenes"]
    assert scene["vehicle"] == car.vehicle.name and scene["score"] > 0.9 and scene["received_at"]
    campaign(cloud, "list", capsys=capsys)
    campaign_main(["stop", made["id"], "--data", str(cloud.data), "--database", str(cloud.database)])
    car.until(lambda: car.looks_for() == [])
    driven(CALM)
    assert car.outbox.account().given == 1


def test_a_campaign_whose_bytes_are_spent_rests_on_all_vehicles(
    cloud: Cloud, car: Car, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    second = Car(cloud, tmp_path / "b")
    words = ["create", "night", "--where", NIGHT, "--budget-mb", 0.001, "--days", 1]
    made = campaign(cloud, *words, capsys=capsys)
    car.until(lambda: car.looks_for() == ["night"])
    second.until(lambda: second.looks_for() == ["night"])
    for _ in range(3):
        car.held(os.urandom(500), **dark())
    car.until(lambda: len(car.received()) == 2)
    second.until(lambda: second.looks_for() == [])
    second.held(os.urandom(500), **dark())
    second.go_on()
    assert second.received() == [] and len(car.received()) == 2
    assert campaign(cloud, "show", made["id"], capsys=capsys)["state"] == "spent"


def told(vehicle: Vehicle, **fields: Any) -> ingest_pb2.ReportResponse:
    fields = {"outbox": vehicle.outbox, "last_sequence": 9, **fields}
    return vehicle.stub.Report(ingest_pb2.ReportRequest(**fields), timeout=30)


def test_a_vehicle_speaks_of_its_own_scenes_and_of_campaigns_that_exist(cloud: Cloud, engine: Engine) -> None:
    mine, theirs = cloud.vehicle(), cloud.vehicle()
    with engine.begin() as connection:
        made = book.create(
            connection, signing.load(cloud.data / "ca"), "a", Query(Has("sound:siren")), budget_bytes=10, days=1
        )
    theirs.report(summary(1), summary(2))
    mine.report(summary(1))
    choices = [
        ingest_pb2.Choice(campaign=made.id, sequence=1, score=0.5),
        ingest_pb2.Choice(campaign=made.id, sequence=1, score=0.75),
        ingest_pb2.Choice(campaign=made.id, sequence=2, score=0.5),
        ingest_pb2.Choice(campaign="none", sequence=1, score=0.5),
        ingest_pb2.Choice(campaign="'; DROP TABLE campaigns; --", sequence=1, score=0.5),
    ]
    for _ in range(2):
        told(mine, choices=choices)
    matching = summary(3)
    matching.campaigns.add(campaign=made.id, score=0.25)
    mine.report(matching)
    with engine.connect() as connection:
        found = {(row["vehicle"], row["sequence"], row["score"]) for row in book.scenes(connection, made.id)}
    assert found == {(mine.name, 1, 0.75), (mine.name, 3, 0.25)}


def test_an_offer_comes_once_and_again_when_it_changed(cloud: Cloud, engine: Engine) -> None:
    vehicle = cloud.vehicle()
    assert not told(vehicle, probes_digest=b"").HasField("offer")
    with engine.begin() as connection:
        signer = signing.load(cloud.data / "ca")
        made = book.create(connection, signer, "a", Query(Has("sound:siren")), budget_bytes=10, days=1)
    time.sleep(STANDS_S)
    response = told(vehicle, probes_digest=b"")
    assert len(response.offer.probes) == 1 and response.HasField("now")
    assert not told(vehicle, probes_digest=response.offer.digest).HasField("offer")
    assert not told(vehicle).HasField("offer"), "an older vehicle takes none"
    with engine.begin() as connection:
        first = book.stop(connection, signer, made.id)
        assert book.stop(connection, signer, made.id) == first
    time.sleep(STANDS_S)
    stop = told(vehicle, probes_digest=response.offer.digest).offer
    (word,) = [campaign_pb2.Probe.FromString(signed.probe) for signed in stop.probes]
    assert (word.campaign, word.is_stopped, word.revision) == (made.id, True, 2)


@pytest.mark.parametrize(
    "hostile",
    [
        {"choices": [ingest_pb2.Choice(campaign="x", sequence=0)]},
        {"choices": [ingest_pb2.Choice(campaign="x", sequence=1, score=float("nan"))]},
        {"choices": [ingest_pb2.Choice(campaign="x" * 65, sequence=1)]},
        {"choices": [ingest_pb2.Choice(campaign="x", sequence=1)] * 4001},
        {"answers": [campaign_pb2.AskAnswer(id="1", answer="stolen")]},
        {"answers": [campaign_pb2.AskAnswer(id="1", answer="kept")] * 1001},
    ],
)
def test_hostile_words_about_campaigns_are_refused(cloud: Cloud, hostile: dict[str, Any]) -> None:
    from ..fleet import Status, refused

    with refused(Status.INVALID_ARGUMENT):
        told(cloud.vehicle(), **hostile)


def test_too_many_campaigns_are_refused_before_vehicles_have_to(cloud: Cloud, engine: Engine) -> None:
    signer = signing.load(cloud.data / "ca")
    many = Query(Has("sound:siren"))
    with engine.begin() as connection:
        made = book.create(connection, signer, "a", many, budget_bytes=10, days=1)
        row = connection.execute(select(CAMPAIGNS).where(CAMPAIGNS.c.id == made.id)).mappings().one()
        connection.execute(CAMPAIGNS.insert(), [{**row, "id": f"copy-{i}"} for i in range(999)])
    with pytest.raises(QueryError, match="campaigns at a time"), engine.begin() as connection:
        book.create(connection, signer, "b", many, budget_bytes=10, days=1)


def test_a_threshold_lets_through_the_share_that_was_asked_for(cloud: Cloud, engine: Engine) -> None:
    import numpy as np

    rng = np.random.default_rng(1)
    vehicle, space = cloud.vehicle(), os.urandom(32).hex()
    vectors = rng.normal(size=(400, 64))
    told_of = []
    for number, vector in enumerate(vectors, 1):
        signed, scale = quantised(vector.astype("<f4").tobytes())
        told_of.append(summary(number, embedding=signed, embedding_scale=scale, bundle_id=space))
    vehicle.report(*told_of)
    from cloud.search.query import Like

    asked = rng.normal(size=64)
    query = Query(likes=(Like(asked.astype("<f4").tobytes(), space, "text"),))
    with engine.connect() as connection:
        least = book.threshold(connection, query, 0.1)
    cosines = vectors @ asked / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
    assert 0.08 <= float((cosines >= least).mean()) <= 0.12


def test_an_ask_reaches_the_vehicle_once_and_its_answer_stands(
    cloud: Cloud, engine: Engine, car: Car, capsys: pytest.CaptureFixture[str]
) -> None:
    name = car.vehicle.name
    place = ["--data", str(cloud.data), "--database", str(cloud.database)]
    for _ in range(2):  # asked twice, once in the book
        words = ["ask", name, "--from-ns", "1000", "--to-ns", "2000", "--reason", "near miss"]
        assert campaign_main([*words, *place]) == 0
    (number,) = set(capsys.readouterr().out.split())
    waiting = Asks(car.outbox)
    car.until(lambda: len(waiting.open()) == 1)
    (ask,) = waiting.open()
    assert ask == (number, 1000, 2000, "near miss")
    waiting.answer(ask, "gone")
    car.go_on()
    (row,) = campaign(cloud, "asks", "--vehicle", name, capsys=capsys)
    assert row["answer"] == "gone" and row["answered_at"]
    other = cloud.vehicle()
    told(other, answers=[campaign_pb2.AskAnswer(id=number, answer="kept")])
    told(car.vehicle, answers=[campaign_pb2.AskAnswer(id=number, answer="kept")])
    with engine.connect() as connection:
        assert connection.execute(select(ASKS.c.answer).where(ASKS.c.id == int(number))).scalar_one() == "gone"


def test_an_ask_that_makes_no_sense_is_refused(cloud: Cloud, engine: Engine) -> None:
    name = cloud.vehicle().name
    bad = [(name, 5, 5, ""), (name, 0, 61_000_000_000, ""), ("nobody", 0, 1, ""), (name, 0, 1, "x" * 257)]
    with engine.begin() as connection:
        for words in bad:
            with pytest.raises(QueryError):
                asks.ask(connection, *words)


def test_a_query_in_words_becomes_a_campaign_and_says_what_a_vehicle_cannot_tell(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    known = campaign(cloud, "create", "a", "--query", "night, siren", "--budget-mb", 1, "--days", 1, capsys=capsys)
    assert known["query"]["likes"] == [] and known["query"]["notes"] == []
    words = ["create", "b", "--query", "night, several vehicles", "--budget-mb", 1, "--days", 1]
    partly = campaign(cloud, *words, capsys=capsys)
    assert partly["query"]["likes"] and "vehicles:several" in partly["query"]["notes"][0]


@pytest.mark.parametrize(
    "words",
    [
        ["create", "a", "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--where", "{", "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--where", '{"then": [{"has": "a"}, {"has": "b"}]}', "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--query", "night", "--where", '{"has": "sign:stop"}', "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--where", NIGHT, "--budget-mb", "1", "--days", "1000"],
        ["create", "a", "--where", NIGHT, "--budget-mb", "nan", "--days", "1"],
        ["create", "a", "--where", NIGHT, "--budget-mb", "inf", "--days", "1"],
        ["create", "a", "--scene", "999999", "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--scene", "9" * 23, "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--where", "[" * 100_000, "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--where", NIGHT, "--budget-mb", "1", "--vehicle-budget-mb", "1e-9", "--days", "1"],
        ["create", "a\nb", "--where", NIGHT, "--budget-mb", "1", "--days", "1"],
        ["create", "a", "--vector-from", "picture.xyz", "--budget-mb", "1", "--days", "1"],
        ["show", "nothing"],
        ["stop", "nothing"],
    ],
)
def test_misuse_gets_one_line(cloud: Cloud, words: list[str]) -> None:
    with pytest.raises(CloudError) as caught:
        campaign_main([*words, "--data", str(cloud.data), "--database", str(cloud.database)])
    assert "\n" not in str(caught.value) and "got" in str(caught.value)


def test_the_campaign_key_is_made_once_also_by_two_at_a_time(tmp_path: Path) -> None:
    from cloud import certificates

    certificates.create(tmp_path)
    signers: list[signing.Signer] = []
    threads = [threading.Thread(target=lambda: signers.append(signing.load(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signers) == 4 and signing.load(tmp_path).certificate == signing.load(tmp_path).certificate
    assert (tmp_path / "campaigns.pem").stat().st_mode & 0o777 == 0o600
