"""What a report holds, of a drive that was really decided."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.decision import Alignment, ClockOffset, RigDoubt, Suspect
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError, DriveFormatError
from edge.report import command
from edge.report.gather import doubts_of, gather
from edge.report.lanes import stream_lanes
from edge.report.page import page
from edge.report.words import clock
from edge.streams import STREAMS
from roadfuse.v1 import decision_pb2

Decided = tuple[Path, dict[str, Any]]
Elements = Callable[[str], Any]


def without(source: Path, path: Path, *unwanted: str) -> Path:
    with DriveReader(source) as drive, DriveWriter(path) as out:
        for message in drive.messages(topics=drive.topics.intersection(topics.SCHEMAS).difference(unwanted)):
            out.copy(message)
    return path


def test_it_names_the_decisions_by_the_digest_of_the_run(report: str, decided: Decided) -> None:
    assert decided[1]["sha256"] in report


def test_an_instant_between_two_tenths_is_told_as_the_script_of_the_page_tells_it() -> None:
    assert [clock(seconds, tenths=True) for seconds in (0.05, 0.25, 0.45, 59.95)] == [
        "0:00.1", "0:00.3", "0:00.5", "1:00.0"
    ]  # fmt: skip
    assert [clock(seconds) for seconds in (0.5, 2.5, 59.5)] == ["0:01", "0:03", "1:00"]


def test_the_lane_of_a_stream_that_came_late_does_not_say_always_there(decided: Decided) -> None:
    with DriveReader(decided[0]) as drive:
        history = gather(drive)
    silent = history.absences.index("silent")
    history.streams["gnss"] = np.array([silent] * 5 + [0] * (len(history) - 5), np.uint8)
    lane = str(stream_lanes(history)[list(history.streams).index("gnss")])
    assert "<small>from 0:00.3 on</small>" in lane


def test_a_damaged_drive_is_said_on_the_terminal_too(
    decided: Decided, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mcap"
    raw = decided[0].read_bytes()
    cut.write_bytes(raw[: len(raw) * 2 // 3])
    assert command.main([str(cut)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{cut.with_suffix('.html')}: ") and said[1].startswith("damaged at byte ")
    assert "Damaged: " in cut.with_suffix(".html").read_text(encoding="utf-8")


def test_every_stream_has_a_lane_and_the_dead_camera_is_marked(report: str, elements: Elements) -> None:
    lanes = elements(report).all("div", **{"class": "lane stream"})
    assert [lane["data-stream"] for lane in lanes if "data-stream" in lane] == [stream.name for stream in STREAMS]
    assert re.search(r'class="span absent"[^>]*title="silent, 0:0[12]\.\d to 0:02\.\d"', report)


def test_every_hard_scene_has_a_card_or_a_line_that_its_mark_leads_to(
    report: str, decided: Decided, elements: Elements
) -> None:
    scenes = decided[1]["scenes"]
    page_elements = elements(report)
    marks = [link["href"] for link in page_elements.all("a") if "mark" in (link.get("class") or "").split()]
    assert len(marks) == scenes["queued"] + scenes["refused"] >= 3
    ids = [found["id"] for _, found in page_elements.elements if "id" in found]
    assert sorted(f"#{name}" for name in ids if name and name.startswith("scene-")) == sorted(filter(None, marks))
    assert len(ids) == len(set(ids))


def test_a_card_plays_the_scenes_sound(report: str, elements: Elements) -> None:
    sources = [player["src"] or "" for player in elements(report).all("audio")]
    assert len(sources) >= 3
    for source in sources:
        with wave.open(io.BytesIO(base64.b64decode(source.removeprefix("data:audio/wav;base64,")))) as sound:
            assert (sound.getframerate(), sound.getnchannels()) == (16_000, 1)
            assert 1.0 < sound.getnframes() / 16_000 <= 6.0


def test_latencies_are_those_of_the_run(report: str, decided: Decided) -> None:
    took_ms = decided[1]["latency_ms"]
    assert f"half within {took_ms['p50']:.1f} ms, 99 % within {took_ms['p99']:.1f} ms" in report


def test_drops_are_shown_by_reason(report: str, decided: Decided) -> None:
    superseded = decided[1]["drops"]["vehicle"]["superseded"]
    assert f"{superseded} superseded" in report


def test_the_page_needs_nothing_from_elsewhere(report: str, elements: Elements) -> None:
    assert not re.search(r"https?://|@import|url\(", report)
    for tag, found in elements(report).elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = found.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
    assert len(report) < 6_000_000


def test_the_policy_allows_this_script_alone(report: str) -> None:
    script = report[report.rindex("<script>") + len("<script>") : report.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        in report
    )


def test_the_same_drive_gives_the_same_page(report: str, decided: Decided) -> None:
    assert page(decided[0]) == report


def test_a_drive_without_camera_and_sound_has_a_page(decided: Decided, tmp_path: Path, elements: Elements) -> None:
    bare = without(decided[0], tmp_path / "bare.mcap", topics.CAMERA, topics.AUDIO, topics.TRUTH, topics.GNSS)
    made = elements(page(bare))
    assert not made.all("audio") and not made.all("image") and not made.all("svg", id="map")
    assert made.all("article")


def test_no_cards_are_a_table_of_scenes(decided: Decided, elements: Elements) -> None:
    made = elements(page(decided[0], cards=0))
    assert not made.all("article")
    assert len([row for row in made.all("tr") if (row.get("id") or "").startswith("scene-")]) >= 3


def test_a_drive_without_decisions_is_refused_with_what_to_do(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(DriveFormatError, match=r"expected recorded decisions .* roadfuse replay .* --out"):
        command.main([str(drive), "--out", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()


def test_a_page_never_takes_the_place_of_its_drive(decided: Decided, tmp_path: Path) -> None:
    content = decided[0].read_bytes()
    bare = tmp_path / "decided.html"
    bare.write_bytes(content)
    for words in ([str(bare), "--out", str(bare)], [str(bare)]):
        with pytest.raises(ConfigError, match="expected another file than the input"):
            command.main(words)
    assert bare.read_bytes() == content


def test_the_command_writes_the_page_beside_the_drive(
    decided: Decided, report: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(decided[0])]) == 0
    assert decided[0].with_suffix(".html").read_text(encoding="utf-8") == report
    assert "decided.html" in capsys.readouterr().out


def test_the_page_shows_whether_picture_and_sound_keep_the_same_time(report: str, elements: Elements) -> None:
    found = elements(report)
    assert found.all("section", id="picture-and-sound")
    assert "Cost of taking two instants for one" in found.text and "(confidence " in found.text


def test_what_alignment_doubts_gets_a_lane(decided: Decided, tmp_path: Path) -> None:
    doubted = tmp_path / "doubted.mcap"
    with DriveReader(decided[0]) as drive, DriveWriter(doubted) as out:
        for message in drive.messages(topics=drive.topics.intersection(topics.SCHEMAS)):
            payload = message.payload
            if message.topic == topics.DECISION:
                decision = decision_pb2.Decision.FromString(payload)
                decision.alignment.suspects.add(stream="camera", kind="<dirty>", evidence=1.0)
                payload = decision.SerializeToString()
            out.write_payload(message.topic, payload, capture_ns=message.capture_ns, arrival_ns=message.arrival_ns,
                              sequence=message.sequence)  # fmt: skip
    written = page(doubted)
    assert "camera: &lt;dirty&gt;" in written and "<dirty>" not in written
    assert "camera: &lt;dirty&gt;" not in page(decided[0])


def test_a_doubt_is_a_suspect_a_moved_rig_or_a_clock_that_is_surely_late() -> None:
    sure, unsure, near = (ClockOffset("audio", late_ns, confidence) for late_ns, confidence in
                          ((-90_000_000, 0.99), (-90_000_000, 0.5), (20_000_000, 0.99)))  # fmt: skip
    found = doubts_of(Alignment(0.0, (Suspect("imu", "stuck", 0.8, 1),), (sure,), RigDoubt("yaw_deg", 0.5, 1, 2.0)))
    assert [name for name, _ in found] == ["imu: stuck", "rig: yaw_deg", "audio: early"]
    assert doubts_of(Alignment(1.0, (), (unsure, near), None)) == []
