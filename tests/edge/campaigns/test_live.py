"""Campaigns in the loop: a frame that matches opens a scene, the recording says why, and replay agrees bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.campaigns import file
from edge.campaigns.probe import ALWAYS, Likely, Probe, ProbeSet, Within
from edge.campaigns.wire import set_bytes
from edge.config import load as load_config
from edge.decision import Decision, SceneState
from edge.drive import topics
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.errors import RoadfuseError
from edge.feed import Fed
from edge.loop import Loop
from edge.recorder import Recorder
from edge.replay import Replay, replay
from edge.replay_command import main as replay_main
from edge.run import Inbox, live
from edge.run import main as run_main
from edge.samples import NOT_FUSED, Event
from edge.statistics import RunStatistics
from edge.uplink.asks import Ask, Asks
from edge.uplink.outbox import Outbox
from edge.uplink.summary import quantised
from roadfuse.v1.ingest_pb2 import SceneSummary

from ..conftest import simulated
from .calm import CALM, CALM_FILE

FAR_NS = 1 << 62


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive, and settings under which none of it is hard."""
    return simulated(tmp_path_factory.mktemp("calm") / "drive.mcap", seconds=2.5)


@pytest.fixture(scope="module")
def plain(calm: Path) -> list[Decision]:
    """What is decided when nobody looks for anything."""
    decisions = decided(calm)
    assert all(decision.scene_state is SceneState.QUIET for decision in decisions)
    return decisions


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "calm.toml"
    path.write_text(CALM_FILE)
    assert load_config(path) == CALM
    return path


def decided(path: Path, probes: ProbeSet | None = None) -> list[Decision]:
    with Replay(path, config=CALM, probes=probes) as run:
        return list(run)


def like(decision: Decision, least: float = 0.9, **fields: object) -> ProbeSet:
    """A campaign for frames like this one."""
    signed, _ = quantised(decision.embedding)
    usual = {"bundle_id": decision.bundle_id, "embedding": signed, "least_cosine": least, "expires_ns": FAR_NS}
    return ProbeSet((Probe("more", **{**usual, **fields}),), "car-1")  # type: ignore[arg-type]


def test_a_frame_that_matches_opens_a_scene_that_was_none_and_says_for_which_campaign(
    calm: Path, plain: list[Decision]
) -> None:
    wanted = plain[25]
    found = decided(calm, like(wanted, 0.8))
    (match,) = found[25].campaigns
    assert match.campaign == "more" and match.score == pytest.approx(1.0, abs=0.001)
    assert any(decision.scene_state is SceneState.OPENED for decision in found)
    score = next(score for score in found[25].scores if score.name == "campaign")
    assert (score.value, score.weight) == (1.0, 0.8) and found[25].hardness >= 0.8
    assert not all(decision.campaigns for decision in found), "only what is near matches"


def test_what_no_frame_matches_changes_no_frame_but_that_it_is_looked_for(calm: Path, plain: list[Decision]) -> None:
    nothing = ProbeSet((Probe("none", condition=Within(0, 0, 1), expires_ns=FAR_NS),))
    for before, looked in zip(plain, decided(calm, nothing), strict=True):
        assert looked.hardness == pytest.approx(before.hardness, abs=1e-12) and not looked.campaigns
        assert [score for score in looked.scores if score.name != "campaign"] == list(before.scores)
        assert "campaign" not in {score.name for score in before.scores}


@pytest.mark.parametrize("probes", [ProbeSet(), ProbeSet((Probe("over", is_stopped=True),))])
def test_without_campaigns_decisions_are_the_same_bytes(calm: Path, plain: list[Decision], probes: ProbeSet) -> None:
    assert [one.canonical() for one in plain] == [one.canonical() for one in decided(calm, probes)]


def test_a_probe_of_another_bundle_or_that_is_stopped_changes_nothing(calm: Path, plain: list[Decision]) -> None:
    wanted = plain[25]
    for other in ({"bundle_id": "other"}, {"is_stopped": True}):
        assert not any(decision.campaigns for decision in decided(calm, like(wanted, 0.5, **other)))


def test_conditions_hold_for_frames_too(calm: Path, plain: list[Decision]) -> None:
    wanted = plain[25]
    likely = [tag.name for tag in wanted.scene_tags if tag.probability > 0.6]
    unlikely = next(tag.name for tag in wanted.scene_tags if tag.probability < 0.4)
    assert decided(calm, like(wanted, condition=Likely(likely[0], 0.6)))[25].campaigns
    assert not decided(calm, like(wanted, condition=Likely(unlikely, 0.6)))[25].campaigns


def test_a_recorded_drive_carries_what_was_looked_for_and_replays_bit_for_bit(
    calm: Path, plain: list[Decision], settings: Path, tmp_path: Path
) -> None:
    wanted = plain[25]
    path, recorded = tmp_path / file.NAME, tmp_path / "recorded.mcap"
    file.write(path, like(wanted))
    words = [str(calm), "--config", str(settings), "--out", str(recorded), "--json"]
    assert replay_main([*words, "--probes", str(path), "--spool", str(tmp_path / "spool")]) == 0
    path.unlink()
    assert replay_main([str(recorded), "--config", str(settings), "--verify", "--json"]) == 0
    with Replay(recorded, config=CALM) as again:
        designed = [decision.canonical() for decision in again]
    assert designed == [decision.canonical() for decision in decided(calm, like(wanted))]
    with Outbox(tmp_path / "spool") as outbox:
        (raw,) = outbox.execute("SELECT summary FROM scene WHERE state = 'held'").fetchone()
    (match,) = SceneSummary.FromString(raw).campaigns
    assert match.campaign == "more" and match.score > 0.9


def test_what_a_drive_recorded_of_campaigns_is_passed_over_whether_or_not_the_run_is_recorded(
    calm: Path, plain: list[Decision], tmp_path: Path
) -> None:
    with Replay(calm, config=CALM, probes=EVERYTHING) as run:
        run.record(Recorder(path := tmp_path / "other.mcap", None, CALM.scenes, lossless=True))
        list(run)
    probes = like(plain[25])
    with Replay(path, config=CALM, probes=probes) as run:
        run.record(Recorder(tmp_path / "recorded.mcap", None, CALM.scenes, lossless=True))
        recorded = [decision.canonical() for decision in run]
    alone = decided(path, probes)
    assert [decision.canonical() for decision in alone] == recorded
    assert alone[25].campaigns and not all(decision.campaigns for decision in alone)


EVERYTHING = ProbeSet((Probe("more", condition=ALWAYS, expires_ns=FAR_NS),))


def looked_for(recorded: Path) -> list[bytes]:
    with DriveReader(recorded) as drive:
        return [message.payload for message in drive.messages(topics=[topics.CAMPAIGNS])]


def test_a_live_run_that_hears_of_a_campaign_while_it_drives_replays_bit_for_bit(
    calm: Path, settings: Path, tmp_path: Path
) -> None:
    recorded, inbox = tmp_path / "live.mcap", Inbox()
    bundle = bundles.load(None)
    recorder = Recorder(recorded, None, CALM.scenes, {"bundle": bundle.id}, lossless=True)
    matched = []
    with DriveReader(calm) as drive:
        for decision in live(Loop(bundle, CALM), drive, recorder, RunStatistics(CALM.deadline_ns), 2.0, inbox):
            matched.append(bool(decision.campaigns))
            said = {10: EVERYTHING, 30: ProbeSet()}.get(len(matched))
            if said is not None:  # comes next, however much waits on a busy machine
                inbox._items.appendleft(file.fed(said, decision.emitted_ns))
    recorder.close()
    assert looked_for(recorded) == [set_bytes(EVERYTHING), set_bytes(ProbeSet())]
    assert not any(matched[:10]) and any(matched[10:30]) and not matched[-1]
    with Replay(recorded, config=CALM, mode="happened") as run:
        assert [bool(decision.campaigns) for decision in run] == matched
    assert replay_main([str(recorded), "--config", str(settings), "--verify", "--json"]) == 0


def test_a_run_looks_into_the_file_that_the_uplink_keeps(calm: Path, settings: Path, tmp_path: Path) -> None:
    path, recorded = tmp_path / file.NAME, tmp_path / "live.mcap"
    file.write(path, EVERYTHING)
    words = [str(calm), "--config", str(settings), "--speed", "4", "--probes", str(path), "--out", str(recorded)]
    assert run_main([*words, "--json"]) == 0
    assert looked_for(recorded) == [set_bytes(EVERYTHING)]
    with Replay(recorded, config=CALM, mode="happened") as run:
        assert all(decision.campaigns for decision in run)


def test_what_is_asked_of_the_ring_is_told_by_its_hardest_frame(
    calm: Path, plain: list[Decision], tmp_path: Path
) -> None:
    wanted = plain[25]
    first_ns, last_ns = plain[20].stamp_ns, plain[30].stamp_ns
    with Outbox(tmp_path) as outbox:
        Asks(outbox).put([Ask("1", first_ns, last_ns, "why")])
    recorder = Recorder(None, tmp_path, CALM.scenes, lossless=True)
    probes = like(wanted, 0.999, weight=0.1)  # too little to open a scene
    with Replay(calm, config=CALM, recorder=recorder, probes=probes) as run:
        list(run)
    with Outbox(tmp_path) as outbox:
        (told,), _ = outbox.to_tell(9)
        assert dict(Asks(outbox).to_tell()) == {"1": "kept"}
    assert (told.first_ns, told.last_ns, told.peak_ns) == (first_ns, last_ns, wanted.stamp_ns)
    assert told.bundle_id == wanted.bundle_id and told.embedding == quantised(wanted.embedding)[0]
    assert [match.campaign for match in told.campaigns] == ["more"] and told.HasField("latitude_deg")


def test_a_full_inbox_drops_samples_but_not_what_is_looked_for() -> None:
    inbox = Inbox(3)
    inbox.put(file.fed(ProbeSet(), 1))
    for number in range(5):
        sample = DriveMessage(number, number, 0, number, topics.CAN, b"")
        inbox.put(Fed(Event(number, NOT_FUSED, None, 0), sample))
    left = [inbox.get(0.0) for _ in range(3)]
    assert [fed.message.topic for fed in left if fed] == [topics.CAMPAIGNS, topics.CAN, topics.CAN]
    assert inbox.overflow == {topics.CAN: 3}


def test_a_frozen_loop_goes_on_looking(calm: Path, plain: list[Decision]) -> None:
    wanted = plain[25]
    probes = like(wanted)
    bundle = bundles.load(None)
    with Replay(calm, bundle, config=CALM, probes=probes) as run:
        for _ in run:
            pass
        frozen = run.loop.freeze()
    fresh = Loop(bundle, CALM)
    assert not fresh._matcher
    fresh.thaw(frozen)
    assert fresh._matcher and fresh._probes == probes


def test_probes_cannot_be_given_to_a_run_that_repeats_what_happened(calm: Path, tmp_path: Path) -> None:
    for words in (["--verify"], ["--as", "happened"]):
        with pytest.raises(RoadfuseError, match="--probes"):
            replay_main([str(calm), *words, "--probes", str(tmp_path / "probes")])


def test_a_damaged_set_in_a_drive_is_passed_over(calm: Path, plain: list[Decision], tmp_path: Path) -> None:
    from edge.drive.writer import DriveWriter

    damaged = tmp_path / "damaged.mcap"
    with DriveReader(calm) as source, DriveWriter(damaged) as target:
        for number, m in enumerate(source.messages()):
            if number % 50 == 0:
                target.write_payload(
                    topics.CAMPAIGNS, b"\xff\xff", capture_ns=m.capture_ns, arrival_ns=m.arrival_ns, sequence=0
                )
            target.copy(m)
    assert len(list(replay(damaged))) == len(plain)
